"""The Python that a graph file may name: what its loader was given, and modules it was allowed."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from importlib import import_module
from typing import Any, Final

from parallel_agent.agent import Agent, check_agent
from parallel_agent.errors import TreeError
from parallel_agent.notes import describe
from parallel_agent.schema._problems import shown

__all__ = ["Modules", "near"]

_COMPARED: Final = 200


class Modules:
    """Finds agents by what a file calls them.

    Attributes:
        found: those found so far.
    """

    def __init__(self, agents: Mapping[str, Any], allowed: Collection[str]) -> None:
        """``allowed`` are the full names of modules that may be imported."""
        self.found: dict[str, Any] = {}
        self._agents = agents
        # Text is a collection of letters.
        self._allowed = {allowed} if isinstance(allowed, str) else set(allowed)

    def find(self, ref: str) -> str | None:
        """Look for an agent; return why there is none, or None if it is found."""
        if ref in self.found:
            return None
        if ref in self._agents:
            found, why = self._agents[ref], None
        elif ":" in ref:
            found, why = self._imported(*ref.rsplit(":", 1))
        else:
            hint = near(ref, self._agents) or "; pass it with agents={...}"
            return f"no agent {shown(ref)} was given{hint}"
        why = why or _no_agent(found)
        if why is None:
            self.found[ref] = found
        return why

    def _imported(self, module: str, attribute: str) -> tuple[Any, str | None]:
        if module not in self._allowed:
            why = f"the module {shown(module)} is not allowed; allow_modules=[...] allows modules"
            return None, why + near(module, self._allowed)
        if not attribute.isidentifier():
            return None, f"{shown(attribute)} is no name in a module"
        try:
            return getattr(import_module(module), attribute), None
        except Exception as error:  # noqa: BLE001  # a module is the user's code: any error is its own
            kind, said = describe(error)
            return None, f"{shown(f'{module}:{attribute}')} cannot be imported: {kind}: {said}"


def _no_agent(found: Any) -> str | None:
    if isinstance(found, Agent):
        try:
            check_agent(found, "what was given")
        except TreeError as exc:
            return str(exc)
        return None
    if isinstance(found, type) and issubclass(found, Agent):
        return f"{found.__name__} is a class of agents; make an object of it: call it"
    if isinstance(found, type) or not callable(found):
        return f"an agent is needed, or a function, and this is {shown(found)}"
    return None


def near(name: str, names: Iterable[str]) -> str:
    """Return a hint at the one of ``names`` that may be meant; empty if none is close."""
    known = list(names)
    # Of a large file with nothing right in it, each name would be compared with each.
    found = difflib.get_close_matches(name, known, 1) if len(known) <= _COMPARED else []
    return f"; did you mean {shown(found[0])}?" if found else ""
