"""Tools of servers that speak the Model Context Protocol.

`McpToolset` among an agent's tools starts the server or connects to it, and lets the model have its
tools called. Needs the extra ``mcp``: the official SDK, which runs natively on trio. Without it,
importing this module fails with an error that says so.
"""

from __future__ import annotations

from parallel_agent.tools.mcp_servers import (
    HttpServer,
    McpError,
    McpServer,
    McpServerError,
    McpToolError,
    StdioServer,
)
from parallel_agent.tools.mcp_toolset import McpToolset

__all__ = [
    "HttpServer",
    "McpError",
    "McpServer",
    "McpServerError",
    "McpToolError",
    "McpToolset",
    "StdioServer",
]
