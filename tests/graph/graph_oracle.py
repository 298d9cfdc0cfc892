"""Graphs as values, and what must come of them: who runs when, with what, and who sees whom.

Written from what is promised, not from `parallel_agent.graph`. Nothing here runs: first it is
worked out what would happen if nothing were ever cut off, by arithmetic on times, one node after
another, and one loop inside another; then the first moment is looked for at which somebody ends the
others, and what lies behind it is left out.

The reader it assumes takes no time, and there is no limit to how many run at once. Where two
things happen at one moment whose order decides, it does not know: `TieError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise, product
from typing import Any, Final, Literal, TypeAlias

import attrs

from parallel_agent import Barrier, BestEffort, FailFast

__all__ = [
    "TESTS",
    "After",
    "Back",
    "Began",
    "Beside",
    "Cases",
    "Chain",
    "Cond",
    "Each",
    "End",
    "InOrder",
    "Leaf",
    "Life",
    "Net",
    "Node",
    "Pick",
    "Plan",
    "Ring",
    "Row",
    "Takes",
    "TieError",
    "Turn",
    "Way",
    "When",
    "expect",
]

Takes = Literal["any", "list", "dict", "one"]
End = Literal["done", "fails", "escalates"]


class TieError(Exception):
    """The oracle does not know who is first."""


# Nodes.


@attrs.frozen
class Turn:
    """What a leaf does at one time: says so many texts, waits, and ends in one way.

    Its output is a text of its own if it is None.
    """

    beats: int = 0
    output: Any = None
    route: Any = None
    says: int = 0
    end: End = "done"


@attrs.frozen
class Leaf:
    """An agent that does its first turn the first time, and its last from then on.

    ``grain`` is added to every wait: 0, or its ``moment``, which is no other leaf's. ``counts``: it
    counts in the state how often it has completed.
    """

    name: str
    turns: tuple[Turn, ...] = (Turn(),)
    takes: Takes = "any"
    grain: float = 0.0
    counts: bool = True
    moment: float = attrs.field(default=0.0, repr=False)

    def turn(self, number: int) -> Turn:
        """Return what it does at that time, counted from 1."""
        return self.turns[min(number, len(self.turns)) - 1]


@attrs.frozen
class Row:
    """A `SequentialAgent`."""

    name: str
    children: tuple[Node, ...]


@attrs.frozen
class Beside:
    """A `ParallelAgent`."""

    name: str
    children: tuple[Node, ...]
    barrier: Barrier = FailFast()  # noqa: RUF009  # a value, and frozen


@attrs.frozen
class Ring:
    """A `LoopAgent`."""

    name: str
    children: tuple[Node, ...]
    times: int = 2


@attrs.frozen
class Each:
    """A `MapAgent`."""

    name: str
    worker: Leaf
    barrier: Barrier = FailFast()  # noqa: RUF009  # a value, and frozen


When: TypeAlias = tuple[Any, ...] | str
"""Values; or the name of a function in `TESTS`."""

TESTS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "is text": lambda output: isinstance(output, str),
    "is list": lambda output: isinstance(output, list | tuple),
    "breaks": lambda output: [][len(str(output))],
}


@attrs.frozen
class Chain:
    """``(a, [b, c], d)``."""

    parts: tuple[tuple[str, ...], ...]


@attrs.frozen
class Cond:
    """An `Edge` with ``when``; None is the default."""

    source: str
    targets: tuple[str, ...]
    when: When | None


@attrs.frozen
class Back:
    """An `Edge` that leads back; ``when`` is None if always, or by default."""

    source: str
    target: str
    times: int
    when: When | None = None
    default: bool = False


@attrs.frozen
class After:
    """An `Edge` that is ``order_only``."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]


@attrs.frozen
class InOrder:
    """An `Ordered`."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]


@attrs.frozen
class Cases:
    """A `Switch`."""

    source: str
    cases: tuple[tuple[When, tuple[str, ...]], ...]
    default: tuple[str, ...] | None = None


@attrs.frozen
class Pick:
    """A `Select`; ``by`` is what its function returns, if it has one."""

    source: str
    targets: tuple[str, ...]
    by: tuple[str, ...] | None = None


Way: TypeAlias = Chain | Cond | Back | After | InOrder | Cases | Pick


@attrs.frozen
class Net:
    """A `GraphAgent`. ``listed``: its nodes are all given as such, and edges name them by text."""

    name: str
    nodes: tuple[Node, ...]
    ways: tuple[Way, ...] = ()
    barrier: Barrier = FailFast()  # noqa: RUF009  # a value, and frozen
    limit: int | None = None
    listed: bool = True


Node: TypeAlias = Leaf | Row | Beside | Ring | Each | Net


# What the edges of a graph come to.


class Plan:
    """Nodes, links and loops of a graph, by name.

    Attributes:
        order: the nodes in the order of declaration.
        links: those that lead forward, in that order; and whether they feed.
        always: by source, the targets that are taken in any case; and loops.
        ruled: links with a condition.
        backs: the loops.
        bodies: of each loop, the nodes that run again.
    """

    def __init__(self, names: Sequence[str], ways: Iterable[Way], *, listed: bool) -> None:
        """Read the ways."""
        ways = list(ways)
        named = list(dict.fromkeys(name for way in ways for name in names_in(way)))
        lone = [name for name in names if listed or name not in named]
        self.order = list(dict.fromkeys([*lone, *named]))
        self.links: dict[tuple[str, str], bool] = {}
        self.always: dict[str, list[str | Back]] = {name: [] for name in self.order}
        self.conds: dict[str, list[Cond | Back]] = {name: [] for name in self.order}
        self.chosen: dict[str, list[Cases | Pick]] = {name: [] for name in self.order}
        self.ruled: set[tuple[str, str]] = set()
        self.backs: list[Back] = []
        for way in ways:
            self._read(way)
        self.bodies = {back: self._body(back) for back in self.backs}

    def _read(self, way: Way) -> None:  # noqa: C901, PLR0912  # one case for each way
        match way:
            case Chain():
                for one, other in pairwise(way.parts):
                    self._lead(one, other)
            case After():
                self._lead(way.sources, way.targets, feeds=False)
            case InOrder():
                self._lead(way.sources, way.targets)
                for chain in (way.sources, way.targets):
                    for before, after in pairwise(chain):
                        self._lead([before], [after], feeds=False)
            case Cond():
                self._rule(way.source, way.targets)
                self.conds[way.source].append(way)
            case Cases():
                for _, targets in way.cases:
                    self._rule(way.source, targets)
                self._rule(way.source, way.default or ())
                self.chosen[way.source].append(way)
            case Pick():
                self._rule(way.source, way.targets)
                self.chosen[way.source].append(way)
            case Back():
                self.backs.append(way)
                if way.when is None and not way.default:
                    self.always[way.source].append(way)
                else:
                    self.conds[way.source].append(way)

    def _lead(self, sources: Sequence[str], targets: Sequence[str], *, feeds: bool = True) -> None:
        for one, other in product(sources, targets):
            self.links[one, other] = self.links.get((one, other), False) or feeds
            if feeds:
                self.always[one].append(other)

    def _rule(self, source: str, targets: Sequence[str]) -> None:
        for target in targets:
            self.links[source, target] = True
            self.ruled.add((source, target))

    def _body(self, back: Back) -> frozenset[str]:
        after, before = {back.target}, {back.source}
        for _ in self.order:
            after |= {other for one, other in self.links if one in after}
            before |= {one for one, other in self.links if other in before}
        return frozenset(after & before)

    def into(self, node: str) -> list[str]:
        """Return whom a node waits for, in the order of declaration."""
        return [one for one, other in self.links if other == node]

    def feeding(self, node: str) -> list[str]:
        """Return who may feed a node, in the order of declaration."""
        return [one for (one, other), feeds in self.links.items() if feeds and other == node]

    @property
    def sinks(self) -> list[str]:
        """Return the nodes that feed nobody."""
        feeding = {one for (one, _), feeds in self.links.items() if feeds}
        return [node for node in self.order if node not in feeding]

    def gates(self, source: str, target: str) -> list[Back]:
        """Return the loops that a link leaves."""
        return [back for back, body in self.bodies.items() if source in body and target not in body]

    def items(self, region: Back | None) -> list[str | Back]:
        """Return what a loop consists of, or the whole: nodes and inner loops, in some order.

        None comes before what it waits for.

        Raises:
            ValueError: there is no such order.
        """
        body = self.order if region is None else self.bodies[region]
        inner = [back for back in self.backs if self._around(self.bodies[back], back) is region]
        own = [node for node in body if self._around(frozenset([node])) is region]
        members = {back: self.bodies[back] for back in inner} | {node: {node} for node in own}
        waits = {
            item: {
                other
                for other, others in members.items()
                if other is not item and any(b in some and a in others for a, b in self.links)
            }
            for item, some in members.items()
        }
        done: list[Any] = []
        while len(done) < len(waits):
            ready = [item for item in waits if item not in done and waits[item] <= set(done)]
            if not ready:
                message = "they wait for each other"
                raise ValueError(message)
            done += ready
        return done

    def _around(self, body: frozenset[str], but: Back | None = None) -> Back | None:
        """Return the innermost loop around some nodes."""
        outer = [back for back in self.backs if back is not but and body <= self.bodies[back]]
        return min(outer, key=lambda back: len(self.bodies[back]), default=None)

    def is_sound(self) -> bool:
        """Whether loops close, lie inside each other or apart, and do not wait for each other."""
        bodies = list(self.bodies.values())
        if not all(bodies) or len(set(bodies)) < len(bodies):
            return False
        if any(
            one & other and not (one <= other or other <= one) for one in bodies for other in bodies
        ):
            return False
        try:
            for region in (None, *self.backs):
                self.items(region)
        except ValueError:
            return False
        return True

    # Ways out.

    def taken(
        self, node: str, output: Any, route: Any, spent: Iterable[Back]
    ) -> tuple[set[str], list[Back]]:
        """Return the targets that an output takes, and the loops.

        Raises:
            Exception: what a condition raises; LookupError if it selects what is not there.
        """
        spent = set(spent)
        taken: list[str | Back] = [one for one in self.always[node] if one not in spent]
        some: list[str | Back] = []
        defaults: list[list[str | Back]] = [[], []]
        for way in self.conds[node]:
            targets: list[str | Back] = [way] if isinstance(way, Back) else list(way.targets)
            if way in spent:
                continue
            if way.when is None:
                defaults[isinstance(way, Cond)] += targets
            elif fits(way.when, output, route):
                some += targets
        leads_back = any(isinstance(one, Back) for one in (*taken, *some))
        for choice in () if leads_back else self.chosen[node]:
            if isinstance(choice, Cases):
                first = (targets for when, targets in choice.cases if fits(when, output, route))
                some += next(first, choice.default or ())
            else:
                names = output if route is None else route
                names = names if choice.by is None else list(choice.by)
                for name in names if isinstance(names, list) else [names]:
                    if name not in choice.targets:
                        raise RouteError
                    some.append(name)
        taken += some or defaults[0] or defaults[1]
        loops = [one for one in taken if isinstance(one, Back)]
        if len(loops) > 1:
            raise RouteError
        return {one for one in taken if isinstance(one, str)}, loops


class RouteError(Exception):
    """Stands for that of `parallel_agent`."""


def fits(when: When, output: Any, route: Any) -> bool:
    """Whether an output, or the route given beside it, is as a condition says."""
    if isinstance(when, str):
        return TESTS[when](output)
    said = output if route is None else route
    all_said = [said, *said] if isinstance(said, list) else [said]
    return any(type(one) is type(value) and one == value for one in all_said for value in when)


def names_in(way: Way) -> Iterator[str]:
    """Yield the nodes that a way names, as they are read."""
    match way:
        case Chain():
            for part in way.parts:
                yield from part
        case After() | InOrder():
            yield from (*way.sources, *way.targets)
        case Cond() | Pick():
            yield from (way.source, *way.targets)
        case Back():
            yield from (way.source, way.target)
        case Cases():
            yield way.source
            for _, targets in way.cases:
                yield from targets
            yield from way.default or ()


# What comes of a node.

Failure: TypeAlias = tuple[str, Any]
"""The class of an error and its text; "group", and those in it."""

Text: TypeAlias = tuple[str, str]
"""The path of who said something, and the text."""


@attrs.frozen
class Began:
    """When an activation began, with what input, and what it could see."""

    at: float
    input: Any
    saw: frozenset[Text]


@attrs.frozen(eq=False)
class Life:
    """One activation, and all below it.

    Attributes:
        path: its own.
        start: when it began.
        end: when it ended.
        status: how.
        said: the texts of all, and when.
        began: all, by path.
        output: its own.
        route: that it gave.
        failure: what it failed with.
        escalated: when an event escalated that the loops above are to hear of.
        decides: when an event of its own did.
        ends: if it is a graph: the ends of its nodes, as outcomes tell them.
        moments: at which something happens.
        pending: from when to when it has failed already if it is cancelled: a failure is not lost.
    """

    path: str
    start: float
    end: float
    status: Literal["completed", "failed", "cancelled"]
    said: tuple[tuple[float, Text], ...] = ()
    began: Mapping[str, Began] = attrs.field(factory=dict[str, Began])
    output: Any = None
    route: Any = None
    failure: Failure | None = None
    escalated: tuple[float, ...] = ()
    decides: float | None = None
    ends: tuple[tuple[str, str, Any], ...] = ()
    moments: frozenset[float] = frozenset()
    pending: tuple[tuple[float, float], ...] = ()

    @property
    def texts(self) -> frozenset[Text]:
        """What it said, and all below it."""
        return frozenset(text for _, text in self.said)

    def until(self, at: float) -> Life:
        """Return what is left of it if it is cancelled at a moment."""
        if self.end < at:
            return self
        return attrs.evolve(
            self,
            end=at,
            status="failed" if any(one < at <= to for one, to in self.pending) else "cancelled",
            said=tuple(one for one in self.said if one[0] < at),
            began={path: one for path, one in self.began.items() if one.at < at},
            output=None,
            route=None,
            failure=None,
            escalated=tuple(one for one in self.escalated if one < at),
            pending=tuple((one, min(at, to)) for one, to in self.pending),
        )


def expect(node: Node) -> Life:
    """Return what comes of a tree that is run from the moment 0 on, and given nothing.

    Raises:
        TieError: that depends on who is first.
    """
    return _live(node, node.name, 0.0, None, frozenset())


def _live(node: Node, path: str, start: float, given: Any, saw: frozenset[Text]) -> Life:
    began = Began(start, given, saw)
    match node:
        case Leaf():
            life = _leaf(node, path, start)
        case Row() | Ring():
            life = _in_line(node, path, start, given, saw)
        case Beside():
            lives = [
                _live(child, f"{path}/{child.name}", start, given, saw) for child in node.children
            ]
            life = _beside(node.barrier, path, start, lives, by_name=True)
        case Each():
            worker = node.worker
            lives = [
                _live(worker, f"{path}/{worker.name}@{number}", start, item, saw)
                for number, item in enumerate(given, 1)
            ]
            life = _beside(node.barrier, path, start, lives, by_name=False)
        case Net():
            life = _Graph(node, path, start, given, saw).life()
    return attrs.evolve(
        life,
        began={path: began, **life.began},
        moments=life.moments | {life.start, life.end},
    )


def _leaf(leaf: Leaf, path: str, start: float) -> Life:
    number = int(path.rpartition("/")[2].partition("@")[2] or 1)
    turn = leaf.turn(number)
    end = start + turn.beats + leaf.grain
    said = [(start, (path, f"{leaf.name} says {text}")) for text in range(turn.says)]
    if turn.end == "fails":
        failure = ("BoomError", path)
        return Life(path, start, end, "failed", tuple(said), failure=failure)
    asked = end if turn.end == "escalates" else None
    if asked is not None:
        said.append((end, (path, f"{leaf.name} escalates")))
        end += 1
    said.append((end, (path, f"{leaf.name} ends")))
    return Life(
        path,
        start,
        end,
        "completed",
        tuple(said),
        output=f"{leaf.name}:{number}" if turn.output is None else turn.output,
        route=turn.route,
        escalated=() if asked is None else (asked,),
        decides=asked,
        moments=frozenset() if asked is None else frozenset([asked]),
    )


def _in_line(node: Row | Ring, path: str, start: float, given: Any, saw: frozenset[Text]) -> Life:
    lives: list[Life] = []
    for turn in range(1, (node.times if isinstance(node, Ring) else 1) + 1):
        number = f"@{turn}" if isinstance(node, Ring) else ""
        for child in node.children:
            at = lives[-1].end if lives else start
            lives.append(_live(child, f"{path}/{child.name}{number}", at, given, saw))
            saw |= lives[-1].texts
            is_over = bool(isinstance(node, Ring) and lives[-1].escalated)
            if lives[-1].failure is not None or is_over:
                break
        else:
            continue
        break
    life = _of(path, start, lives, lives[-1].failure if lives else None)
    if lives and life.failure is None:
        life = attrs.evolve(life, output=lives[-1].output)
    return attrs.evolve(life, escalated=()) if isinstance(node, Ring) else life


def _of(path: str, start: float, lives: Sequence[Life], failure: Failure | None) -> Life:
    """Return the life of which these were parts, without its output."""
    return Life(
        path,
        start,
        max([start, *(one.end for one in lives)]),
        "completed" if failure is None else "failed",
        tuple(text for one in lives for text in one.said),
        {name: began for one in lives for name, began in one.began.items()},
        failure=failure,
        escalated=tuple(at for one in lives for at in one.escalated),
        moments=frozenset().union(*(one.moments for one in lives)),
        pending=tuple(some for one in lives for some in one.pending),
    )


# Several at once.


@attrs.frozen
class _Break:
    """A moment at which all is over: ``by`` whose end, if that is it; ``after`` whose ends."""

    at: float
    failure: Failure | None
    by: int | None
    after: frozenset[int]


def _beside(
    barrier: Barrier, path: str, start: float, lives: Sequence[Life], *, by_name: bool
) -> Life:
    kept, failure, _ = _together(
        barrier, [(life, frozenset()) for life in lives], range(len(lives)), ()
    )
    ended = [life for life in kept if life is not None]
    whole = attrs.evolve(_of(path, start, ended, failure), pending=_pending(barrier, ended))
    if failure is not None:
        return whole
    done = [life if life.status == "completed" else None for life in ended]
    if not by_name:
        return attrs.evolve(whole, output=[None if life is None else life.output for life in done])
    outputs = {_last(life.path): life.output for life in done if life is not None}
    return attrs.evolve(whole, output=outputs)


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _together(
    barrier: Barrier,
    lives: Sequence[tuple[Life, frozenset[int]]],
    order: Iterable[int],
    breaks: Sequence[_Break],
) -> tuple[list[Life | None], Failure | None, float]:
    """Return what is left of lives side by side, each with those it comes after; and the failure.

    And the moment at which somebody has ended it all. None is left of those that never began.
    ``order`` is that of declaration.
    """
    ends = list(breaks)
    for number, (life, after) in enumerate(lives):
        if life.decides is not None:
            ends.append(_Break(life.decides, None, number, after))
        elif life.failure is not None and isinstance(barrier, FailFast):
            ends.append(_Break(life.end, None, number, after))
    kept: list[Life | None] = [life for life, _ in lives]
    first = min(ends, key=lambda one: one.at, default=None)
    if first is not None:
        kept = _left(lives, first, ends)
        for one in breaks:
            if one is first or (one.by is not None and one.by == first.by):
                return kept, one.failure, first.at
    failure = _policy(barrier, [left for one in order if (left := kept[one]) is not None])
    return kept, failure, math.inf if first is None else first.at


def _left(
    lives: Sequence[tuple[Life, frozenset[int]]], first: _Break, ends: Iterable[_Break]
) -> list[Life | None]:
    """Return what is left after the first of several ends."""
    for one in ends:
        is_after = first.by is not None and first.by in one.after
        if one.at == first.at and one is not first and not is_after:
            raise TieError
    kept: list[Life | None] = []
    for number, (life, after) in enumerate(lives):
        if number == first.by or number in first.after:
            kept.append(life)
        elif first.by is not None and first.by in after:
            kept.append(None)
        elif first.at in life.moments:
            raise TieError
        else:
            kept.append(life.until(first.at) if life.start < first.at else None)
    return kept


def _pending(barrier: Barrier, lives: Sequence[Life]) -> tuple[tuple[float, float], ...]:
    if isinstance(barrier, BestEffort):
        return ()
    failed = [(one.end, math.inf) for one in lives if one.failure is not None]
    kept = tuple(some for one in lives for some in one.pending)
    return kept if isinstance(barrier, FailFast) else (*failed, *kept)


def _policy(barrier: Barrier, lives: Iterable[Life]) -> Failure | None:
    failures = [life.failure for life in lives if life.failure is not None]
    if not failures or isinstance(barrier, BestEffort):
        return None
    return failures[0] if isinstance(barrier, FailFast) else ("group", tuple(failures))


# A graph.


@attrs.frozen(eq=False)
class _Settled:
    """A node has run, or is known not to run this time.

    Attributes:
        at: when.
        act: which of the activations it was; None if it was skipped.
        output: its own.
        taken: the targets it leads to.
        back: the loop it takes.
        after: what has happened before by necessity, itself included.
    """

    at: float
    act: int | None
    after: frozenset[int]
    output: Any = None
    taken: frozenset[str] = frozenset()
    back: Back | None = None


class _Graph:
    """One run of a graph that nobody cuts off."""

    def __init__(self, net: Net, path: str, start: float, given: Any, saw: frozenset[Text]) -> None:
        self.net, self.path, self.start, self.given, self.saw = net, path, start, given, saw
        self.nodes = {node.name: node for node in net.nodes}
        self.plan = Plan(list(self.nodes), net.ways, listed=net.listed)
        self.acts: list[tuple[str, Life, frozenset[int]]] = []
        self.breaks: list[_Break] = []
        self.settled: dict[str, _Settled] = {}
        self.past: dict[str, list[_Settled]] = {name: [] for name in self.nodes}
        self.times: dict[Back, int] = {}

    def life(self) -> Life:
        self._play(None, None)
        lives = [(life, after) for _, life, after in self.acts]
        order = self.plan.order
        by_node = sorted(range(len(lives)), key=lambda act: order.index(self.acts[act][0]))
        kept, failure, over = _together(self.net.barrier, lives, by_node, self.breaks)
        ended = [life for act in by_node if (life := kept[act]) is not None]
        whole = _of(self.path, self.start, ended, failure)
        whole = attrs.evolve(whole, pending=_pending(self.net.barrier, ended))
        if failure is None:
            whole = attrs.evolve(whole, output=self._output(kept, over))
        ends = tuple((life.path, life.status, life.output) for life in ended)
        broken = frozenset(one.at for one in self.breaks if one.failure == failure)
        return attrs.evolve(whole, ends=ends, moments=whole.moments | broken)

    def _output(self, kept: Sequence[Life | None], over: float) -> Any:
        outputs: dict[str, Any] = {}
        for sink in self.plan.sinks:
            # The last time that it began, or that it was skipped, before all was over.
            last: Life | None = None
            for one in self.past[sink]:
                is_over = kept[one.act] is None if one.act is not None else one.at >= over
                if not is_over:
                    last = None if one.act is None else kept[one.act]
                elif last is not None:
                    # It had ended, and was to run again: nobody has said what its output is.
                    raise TieError
            if last is not None and last.status == "completed":
                outputs[sink] = last.output
        if len(self.plan.sinks) == 1:
            return next(iter(outputs.values()), None)
        return outputs

    def _play(self, region: Back | None, entry: _Settled | None) -> None:
        """Let everything in a loop, or in the whole, settle once; ``entry`` has led back to it."""
        for item in self.plan.items(region):
            if isinstance(item, str):
                self._settle(item, entry)
                continue
            self.times[item] = 0
            led = entry
            while True:
                self._play(item, led)
                last = self.settled[item.source]
                if last.back is not item:
                    break
                self.times[item] += 1
                led = last

    def _settle(self, node: str, entry: _Settled | None) -> None:
        sources = self.plan.into(node)
        waits = [self.settled[one] for one in sources]
        for one in sources:
            waits += [self.settled[back.source] for back in self.plan.gates(one, node)]
        if entry is not None:
            waits.append(entry)
        at = max([self.start, *(one.at for one in waits)])
        after = frozenset[int]().union(*(one.after for one in waits))
        feeding = self.plan.feeding(node)
        came = [(one, self.settled[one]) for one in feeding if node in self.settled[one].taken]
        if entry is not None and entry.back is not None and entry.back.target == node:
            back = (entry.back.source, entry)
            came = [*came, back] if len(feeding) > 1 and self._takes(node) != "one" else [back]
        elif feeding and not came:
            self._note(node, _Settled(at, None, after))
            return
        given = self.given
        if came:
            given = self._input(node, len(feeding), [(one, it.output) for one, it in came])
        if given is _REFUSED:
            self.breaks.append(_Break(at, ("InputError", ""), None, after))
            self._note(node, _Settled(at, None, after))
            return
        self._run(node, at, given, after)

    def _takes(self, node: str) -> Takes:
        what = self.nodes[node]
        if isinstance(what, Leaf):
            return what.takes
        return "list" if isinstance(what, Each) else "any"

    def _input(self, node: str, width: int, came: list[tuple[str, Any]]) -> Any:
        if width < 2:  # no join
            return came[0][1]
        takes = self._takes(node)
        if takes == "list":
            return [output for _, output in came]
        if takes == "one":
            return came[0][1] if len(came) == 1 else _REFUSED
        return dict(came)

    def _run(self, node: str, at: float, given: Any, after: frozenset[int]) -> None:
        number = 1 + sum(name == node for name, _, _ in self.acts)
        path = f"{self.path}/{node}" + (f"@{number}" if number > 1 else "")
        saw = self.saw.union(*(self.acts[one][1].texts for one in after))
        act = len(self.acts)
        life = _live(self.nodes[node], path, at, given, saw)
        self.acts.append((node, life, after))
        taken: set[str] = set()
        loops: list[Back] = []
        if life.failure is None:
            spent = [
                back
                for back in self.plan.backs
                if back.source == node and self.times[back] >= back.times
            ]
            try:
                taken, loops = self.plan.taken(node, life.output, life.route, spent)
            except (RouteError, IndexError) as exc:
                self.breaks.append(_Break(life.end, (type(exc).__name__, ""), act, after))
        back = loops[0] if loops else None
        self._note(
            node,
            _Settled(life.end, act, after | {act}, life.output, frozenset(taken), back),
        )

    def _note(self, node: str, settled: _Settled) -> None:
        self.settled[node] = settled
        self.past[node].append(settled)


_REFUSED: Final = object()
