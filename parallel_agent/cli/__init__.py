"""The command line, ``parallel-agent``. Needs the extra ``cli``."""

from __future__ import annotations

from parallel_agent.cli.start import main

__all__ = ["main"]
