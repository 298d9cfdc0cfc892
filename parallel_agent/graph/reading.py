"""From edges as they are written to nodes and links by number, noting all that is wrong.

Pure: no event loop, no clock.
"""

# What users write is looked at before anything is known of it.
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from inspect import iscoroutinefunction
from itertools import pairwise, product
from typing import Any, Final

from parallel_agent.agent import Agent, check_agent
from parallel_agent.context import InvocationContext
from parallel_agent.errors import TreeError
from parallel_agent.graph.definition import Link, Loop
from parallel_agent.graph.documents import Board, Document
from parallel_agent.graph.edges import ALWAYS, START, Edge, Ordered, Select, Switch
from parallel_agent.graph.routes import (
    Case,
    Choice,
    Condition,
    OneOf,
    Predicate,
    Route,
    as_condition,
)
from session.state import UnstorableError, freeze

__all__ = ["Reader"]


_BAD: Final = OneOf(())
"""Stands for a condition that is none."""


class _Nobody(Agent):
    """Stands for a node that is not there."""

    def __init__(self, name: str) -> None:
        # Not as an agent is made: its name may be none, and it never runs.
        self._name = name

    async def run(self, ctx: InvocationContext) -> None: ...


class Reader:
    """Reads nodes and edges, in the order they are given.

    Attributes:
        problems: what is wrong, in the order it was found.
        links: those that lead forward.
        loops: those that lead back, their bodies not known yet.
        started: the nodes that an edge from START leads to.
        names: of the nodes, by number.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.problems: list[str] = []
        self.links: list[Link] = []
        self.loops: list[Loop] = []
        self.started: set[int] = set()
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._agents: dict[int, Agent] = {}
        self._twice: set[str] = set()
        self._no_agents: set[int] = set()  # told of once
        self._pairs: dict[tuple[int, int], Link] = {}
        self._plain: set[int] = set()  # links that are taken in any case
        self._ruled: set[int] = set()  # links with a condition
        self._always: dict[int, list[int]] = {}
        self._cases: dict[int, list[Case]] = {}
        self._switches: dict[int, list[tuple[Case, ...]]] = {}
        self._choices: dict[int, list[Choice]] = {}

    # Nodes.

    def node(self, ref: object, where: str) -> int | None:
        """Return the number of a node; None if that is no node, which is noted."""
        if isinstance(ref, Agent):
            try:
                check_agent(ref, where)
            except TreeError as exc:
                self.problems.append(str(exc))
                return None
            number = self._number(ref.name)
            there = self._agents.setdefault(number, ref)
            if there is not ref and ref.name not in self._twice:
                self._twice.add(ref.name)
                self.problems.append(
                    f"two nodes are called {ref.name!r}; "
                    "with_options(name=...) makes a copy with another name"
                )
            return number
        if isinstance(ref, str) and ref != START:
            return self._number(ref)
        if ref == START:
            self.problems.append(f"{where} leads to START, where nothing leads to")
        else:
            hint = "; make it one with @agent" if callable(ref) else ""
            if id(ref) not in self._no_agents:
                self._no_agents.add(id(ref))
                self.problems.append(f"{where} names {ref!r:.80}, which is no agent{hint}")
        return None

    def _number(self, name: str) -> int:
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        return number

    def agents(self) -> list[Agent]:
        """Return the nodes in order, and note the names that are no node's.

        Stand-ins are returned for those, so that the rest can be looked at as well.
        """
        known = [agent.name for agent in self._agents.values()]
        for number, name in enumerate(self.names):
            if number not in self._agents:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                self.problems.append(f"there is no node {name!r}{hint}")
        return [self._agents.get(number) or _Nobody(name) for number, name in enumerate(self.names)]

    def _several(self, refs: object, where: str) -> list[int]:
        if isinstance(refs, AbstractSet | Mapping):
            self.problems.append(f"{where} has {refs!r:.80}, which has no order; make it a list")
            return []
        many = refs if isinstance(refs, list | tuple) else [refs]
        if not many:
            self.problems.append(f"{where} has an empty list of nodes")
        found = [self.node(ref, where) for ref in many]
        numbers = [number for number in found if number is not None]
        different = list(dict.fromkeys(numbers))
        if len(different) < len(numbers):
            twice = [self.names[one] for one, times in Counter(numbers).items() if times > 1]
            self.problems.append(f"{where} lists {', '.join(map(repr, twice))} more than once")
        return different

    # Edges.

    def edge(self, edge: object, position: int) -> None:
        """Read one item of ``edges``."""
        where = f"edges[{position}]"
        match edge:
            case Edge():
                self._edge(edge, where)
            case Switch():
                self._switch(edge, where)
            case Select():
                self._select(edge, where)
            case Ordered():
                self._ordered(edge, where)
            case tuple() | list():
                self._chain(edge, where)
            case _:
                self.problems.append(
                    f"{where} is {edge!r:.80}: an edge is a chain such as (a, [b, c], d), "
                    "or an Edge, Switch, Select or Ordered"
                )

    def _chain(self, chain: Sequence[Any], where: str) -> None:
        if len(chain) < 2:  # noqa: PLR2004  # from one node to another
            self.problems.append(f"{where} has one part, {chain!r:.80}; an edge has two or more")
            return
        begins = isinstance(chain[0], str) and chain[0] == START
        parts = [self._several(part, where) for part in chain[begins:]]
        if begins:
            self.started.update(parts[0])
        for sources, targets in pairwise(parts):
            for link in self._all_pairs(sources, targets):
                self._take_always(link)

    def _all_pairs(self, sources: Iterable[int], targets: Iterable[int]) -> list[Link]:
        return [self._link(source, target) for source, target in product(sources, targets)]

    def _link(self, source: int, target: int, *, feeds: bool = True, label: str = "") -> Link:
        link = self._pairs.get((source, target))
        if link is None:
            link = Link(len(self.links), source, target, feeds=feeds, label=label)
            self._pairs[source, target] = link
            self.links.append(link)
        else:
            link.feeds = link.feeds or feeds
            if label:
                link.label = f"{link.label}, {label}" if link.label else label
        return link

    def _take_always(self, link: Link) -> None:
        if link.number not in self._plain:
            self._plain.add(link.number)
            self._always.setdefault(link.source, []).append(link.number)

    def _edge(self, edge: Edge, where: str) -> None:
        if isinstance(edge.source, str) and edge.source == START:
            self._from_start(edge, where)
            return
        sources = self._several(edge.source, where)
        targets = self._several(edge.target, where)
        condition = self._condition(edge.when, where)
        is_always = edge.when is ALWAYS and not edge.default
        if edge.when is not ALWAYS and edge.default:
            self.problems.append(f"{where} has `when` and `default`; write two edges")
        elif edge.order_only and not (is_always and edge.max_times is None):
            self.problems.append(f"{where} is order_only, and so takes no other options")
        elif edge.max_times is not None:
            self._loop(edge, sources, targets, condition, where)
        elif edge.order_only:
            for source, target in product(sources, targets):
                self._link(source, target, feeds=False)
        elif is_always:
            for link in self._all_pairs(sources, targets):
                self._take_always(link)
        else:
            self._take_if(condition, sources, targets)

    def _take_if(
        self, condition: Condition | None, sources: Sequence[int], targets: list[int]
    ) -> None:
        if not targets or condition is _BAD:
            return  # which was noted
        for source in sources:
            self._cases.setdefault(source, []).append(self._case(source, condition, targets))

    def _from_start(self, edge: Edge, where: str) -> None:
        self.started.update(self._several(edge.target, where))
        if edge.when is not ALWAYS or edge.default or edge.order_only or edge.max_times:
            self.problems.append(f"{where} leads from START, which nothing can be said about")

    def _condition(self, when: Any, where: str) -> Condition | None:
        if when is ALWAYS:
            return None
        if iscoroutinefunction(when) or isinstance(when, Agent | type):
            self.problems.append(f"`when` of {where} is no plain function of the output: {when!r}")
            return _BAD
        condition = as_condition(when)
        if isinstance(condition, Predicate):
            return condition
        if not condition.values:
            self.problems.append(f"`when` of {where} lists no values, so it is never taken")
        try:
            freeze(list(condition.values))
        except UnstorableError as exc:
            self.problems.append(f"`when` of {where} is no JSON value: {exc}")
        return condition

    def _loop(
        self,
        edge: Edge,
        sources: Sequence[int],
        targets: Sequence[int],
        condition: Condition | None,
        where: str,
    ) -> None:
        most = edge.max_times
        if type(most) is not int or most < 1:
            self.problems.append(f"max_times of {where} is a whole number from 1 on, not {most!r}")
            return
        if len(sources) != 1 or len(targets) != 1:
            if sources and targets:
                self.problems.append(f"{where} leads back, from one node to one; write several")
            return
        source, target = sources[0], targets[0]
        label = "" if condition is None else f"if {condition}"
        # Numbered apart from those that lead forward: -1, -2, ...
        link = Link(-len(self.loops) - 1, source, target, label=label)
        if any((one.link.source, one.link.target) == (source, target) for one in self.loops):
            self.problems.append(
                f"two edges lead back from {self.names[source]!r} to {self.names[target]!r}; "
                "write one, with when=[...]"
            )
        self.loops.append(Loop(len(self.loops), link, most))
        if edge.default or condition is not None:
            self._cases.setdefault(source, []).append(Case(condition, (link.number,)))
        else:
            self._always.setdefault(source, []).append(link.number)

    def _switch(self, switch: Switch, where: str) -> None:
        source = self.node(switch.source, where)
        cases: Any = switch.cases
        given: list[Any] = []
        if isinstance(cases, Mapping):
            given = list(cases.items())
        elif isinstance(cases, list | tuple):
            given = list(cases)
        if not given:
            self.problems.append(f"{where} is a Switch without cases")
        read: list[Case] = []
        for number, pair in enumerate(given):
            if not isinstance(pair, tuple) or len(pair) != 2:  # noqa: PLR2004  # a pair
                self.problems.append(f"case {number} of {where} is no pair of `when` and target")
                continue
            condition = self._condition(pair[0], f"case {number} of {where}")
            targets = self._several(pair[1], where)
            if source is not None and condition is not _BAD:
                read.append(
                    self._case(source, condition, targets, word="else if" if read else "if")
                )
        if switch.default is not None:
            targets = self._several(switch.default, where)
            if source is not None:
                read.append(self._case(source, None, targets))
        if source is not None:
            self._switches.setdefault(source, []).append(tuple(read))

    def _case(
        self, source: int, condition: Condition | None, targets: list[int], *, word: str = "if"
    ) -> Case:
        label = "otherwise" if condition is None else f"{word} {condition}"
        links = tuple(self._link(source, target, label=label).number for target in targets)
        self._ruled.update(links)
        return Case(condition, links)

    def _select(self, select: Select, where: str) -> None:
        source = self.node(select.source, where)
        targets = self._several(select.targets, where)
        by: object = select.by
        if by is not None and (not callable(by) or iscoroutinefunction(by)):
            self.problems.append(f"`by` of {where} is no plain function: {by!r:.80}")
        if source is None:
            return
        links = {self.names[one]: self._link(source, one, label="if selected") for one in targets}
        numbers = {name: link.number for name, link in links.items()}
        self._ruled.update(numbers.values())
        self._choices.setdefault(source, []).append(Choice(numbers, select.by))

    def _ordered(self, ordered: Ordered, where: str) -> None:
        sources = self._several(ordered.source, where)
        targets = self._several(ordered.target, where)
        for link in self._all_pairs(sources, targets):
            self._take_always(link)
        for chain in (sources, targets):
            for before, after in pairwise(chain):
                self._link(before, after, feeds=False)

    # Documents.

    def document(self, document: object, position: int) -> Board | None:
        """Read one item of ``documents``; None if it is none, which is noted."""
        where = f"documents[{position}]"
        if not isinstance(document, Document):
            self.problems.append(f"{where} is {document!r:.80}, which is no Document")
            return None
        for option in ("name", "key", "initial"):
            value = getattr(document, option)
            if not isinstance(value, str if option == "name" else str | None) or value == "":
                if option == "initial" and value == "":
                    continue
                self.problems.append(f"{option} of {where} is text, not {value!r:.80}")
        roles: list[frozenset[int]] = []
        for role in ("writers", "appenders", "readers"):
            nodes = getattr(document, role)
            roles.append(frozenset(self._several(nodes, f"{role} of {where}") if nodes else ()))
        both = roles[0] & roles[1]
        if both:
            names = ", ".join(repr(self.names[node]) for node in sorted(both))
            self.problems.append(f"{names} cannot both write {where} anew and add to it")
        return Board(document, *roles)

    # What they come to.

    def routes(self) -> list[Route]:
        """Return each node's ways out, and note those that contradict each other."""
        for link in self.links:
            if link.number in self._plain and link.number in self._ruled:
                self.problems.append(
                    f"{self.names[link.source]!r} leads to {self.names[link.target]!r} both in any "
                    "case and under a condition; leave one of the edges out"
                )
        for source, cases in self._cases.items():
            # What leads back may be a default as well: it is spent some time.
            cases.sort(key=lambda case: case.condition is None and case.links[0] >= 0)
            defaults = [case.links[0] >= 0 for case in cases if case.condition is None]
            if max(defaults.count(True), defaults.count(False)) > 1:
                self.problems.append(
                    f"{self.names[source]!r} has several defaults; "
                    "write one edge, with a list of targets"
                )
        return [
            Route(
                name,
                tuple(self._always.get(number, ())),
                tuple(self._cases.get(number, ())),
                tuple(self._switches.get(number, ())),
                tuple(self._choices.get(number, ())),
            )
            for number, name in enumerate(self.names)
        ]
