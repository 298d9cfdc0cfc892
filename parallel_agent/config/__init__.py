"""Graphs written in YAML or JSON files: `load_graph`, and `check_graph` to look before.

YAML needs the extra ``yaml``; JSON needs none. `graph_schema` is for editors.

A file goes through stages, each of which tells all that it finds wrong before the next begins:
`source` (text to values, each with its line and column), `format` (values to the classes of the
format), `checking` (what the classes cannot say) and `compiling` (to a `GraphAgent`). `loading`
puts them together. Only `loading`, `source`, `materials` and `modules` read files or import
anything.

Nodes that models answer are `model_node`; `asking` puts together what each asks its model with.
"""

from __future__ import annotations

from parallel_agent.config.compiling import Condition
from parallel_agent.config.format import graph_schema
from parallel_agent.config.loading import check_graph, load_graph
from parallel_agent.config.problems import Problem
from parallel_agent.errors import ConfigError

__all__ = [
    "Condition",
    "ConfigError",
    "Problem",
    "check_graph",
    "graph_schema",
    "load_graph",
]
