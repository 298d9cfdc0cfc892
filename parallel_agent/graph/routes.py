"""Which edges a node's output takes.

Pure: no event loop, no clock.
"""

# Outputs are JSON, and so `Any`: pyright calls what is asked of them "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Any

import attrs

from parallel_agent.errors import RouteError
from session.state import same

__all__ = ["Case", "Choice", "Condition", "OneOf", "Predicate", "Route", "Said", "as_condition"]


@attrs.frozen(eq=False)
class Said:
    """What a node has put out, and the route it has given beside it; None if it has not."""

    output: Any
    route: Any = None

    @property
    def values(self) -> list[Any]:
        """What values are compared with: the route, or else the output; a list, and all in it."""
        value = self.output if self.route is None else self.route
        return [value, *value] if isinstance(value, list | tuple) else [value]


@attrs.frozen(eq=False)
class OneOf:
    """The node has said one of these values."""

    values: tuple[Any, ...]

    def fits(self, said: Said) -> bool:
        """Return whether the node has said that."""
        return any(same(value, one) for value in self.values for one in said.values)

    def __str__(self) -> str:
        return " or ".join(f"{value!r:.40}" for value in self.values)


@attrs.frozen(eq=False)
class Predicate:
    """A function says yes to the output."""

    function: Callable[[Any], Any]

    def fits(self, said: Said) -> bool:
        """Return whether the function says so.

        Raises:
            RouteError: it says nothing before it is awaited.
        """
        answer = self.function(said.output)
        if inspect.isawaitable(answer):
            if inspect.iscoroutine(answer):
                answer.close()  # or Python complains that nobody awaited it
            message = f"{self} returns {answer!r:.80}: a condition is a plain function, not async"
            raise RouteError(message)
        return bool(answer)

    def __str__(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return "a condition" if name == "<lambda>" else f"{name}()"


Condition = OneOf | Predicate


def as_condition(when: Any) -> Condition:
    """Return what is meant by a ``when``."""
    if callable(when) and not isinstance(when, Enum):
        return Predicate(when)
    several = isinstance(when, list | tuple | AbstractSet)
    values: list[Any] = list(when) if several else [when]
    return OneOf(tuple(one.value if isinstance(one, Enum) else one for one in values))


@attrs.frozen(eq=False)
class Case:
    """Edges, by their numbers, and when they are taken; None is if nothing else is."""

    condition: Condition | None
    links: tuple[int, ...]


@attrs.frozen(eq=False)
class Choice:
    """A `parallel_agent.graph.edges.Select`: edges by the names of their targets."""

    links: Mapping[str, int]
    by: Callable[[Any], str | Iterable[str]] | None

    def chosen(self, said: Said, node: str) -> Iterator[int]:
        """Yield the edges that ``node`` chooses.

        Raises:
            RouteError: it names no target.
        """
        answer: Any = said.output if said.route is None else said.route
        if self.by is not None:
            answer = self.by(said.output)
        is_list = isinstance(answer, Iterable) and not isinstance(answer, str | Mapping)
        names: list[Any] = list(answer) if is_list else [answer]
        for name in names:
            link = self.links.get(name, None) if isinstance(name, str) else None
            if link is None:
                message = (
                    f"node {node!r} selects {name!r:.80}, which is none of its targets: "
                    f"{', '.join(self.links)}"
                )
                raise RouteError(message)
            yield link


@attrs.frozen(eq=False)
class Route:
    """The ways out of one node.

    Attributes:
        node: its name.
        always: edges that are taken in any case.
        cases: conditional edges; all that fit are taken. If none of these and of the others is,
            the first without a condition that is not spent: one that leads back comes before one
            that leads on.
        switches: of each, the first case that fits is taken, unless an edge leads back.
        choices: subsets that the output names, likewise.
    """

    node: str
    always: tuple[int, ...] = ()
    cases: tuple[Case, ...] = ()
    switches: tuple[tuple[Case, ...], ...] = ()
    choices: tuple[Choice, ...] = ()

    def taken(self, said: Said, spent: AbstractSet[int]) -> set[int]:
        """Return the edges that are taken; never one that is ``spent``.

        Raises:
            RouteError: it names no target.
            Exception: what a condition raises, as itself.
        """
        always = set(self.always) - spent
        chosen = _all_that_fit(self.cases, said, spent)
        if all(link >= 0 for link in always | chosen):  # none of them leads back
            for cases in self.switches:
                chosen |= _first_that_fits(cases, said)
            for choice in self.choices:
                chosen.update(choice.chosen(said, self.node))
        return always | (chosen or _default(self.cases, spent))


def _all_that_fit(cases: Sequence[Case], said: Said, spent: AbstractSet[int]) -> set[int]:
    taken: set[int] = set()
    for case in cases:
        if case.condition is not None:
            live = set(case.links) - spent
            # A condition that has nothing to say any more is not asked.
            if live and case.condition.fits(said):
                taken |= live
    return taken


def _default(cases: Sequence[Case], spent: AbstractSet[int]) -> set[int]:
    defaults = [set(case.links) - spent for case in cases if case.condition is None]
    return next((live for live in defaults if live), set[int]())


def _first_that_fits(cases: Sequence[Case], said: Said) -> set[int]:
    for case in cases:
        if case.condition is None or case.condition.fits(said):
            return set(case.links)
    return set()
