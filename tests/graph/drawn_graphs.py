"""Graphs as values, the agents they stand for, and how they are drawn.

A value says what a graph is and what its leaves do: so it can be built, given to the oracle, and
printed. Leaves keep virtual time: a beat is a second; what others notice while they run (a failure,
an escalation, a condition that raises) happens at a moment that is no whole second, and nobody
else's, so that there is one outcome.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise, product
from typing import Any, Final, final

import attrs
import trio
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    Barrier,
    BestEffort,
    Edge,
    Event,
    EventActions,
    FailFast,
    GraphAgent,
    InvocationContext,
    LoopAgent,
    MapAgent,
    Ordered,
    ParallelAgent,
    Plugin,
    Runner,
    Select,
    SequentialAgent,
    Switch,
    WaitAll,
)
from parallel_agent.context import activation_of
from parallel_agent.schema import Schema
from tests.graph.graph_oracle import (
    TESTS,
    After,
    Back,
    Began,
    Beside,
    Cases,
    Chain,
    Cond,
    Each,
    End,
    Failure,
    InOrder,
    Leaf,
    Net,
    Node,
    Pick,
    Plan,
    Ring,
    Row,
    Takes,
    Text,
    Turn,
    Way,
    When,
    names_in,
)
from tests.support.timing import clock_with_horizon

__all__ = [
    "CALM",
    "Allowed",
    "BoomError",
    "Seen",
    "forks",
    "made",
    "nets",
    "perform",
    "plain",
    "rings",
]


class BoomError(Exception):
    """What a leaf fails with: its path."""


# Agents.

_SCHEMAS: Final[dict[Takes, Schema[Any] | None]] = {
    "any": None,
    "list": Schema(list[Any]),
    "dict": Schema(dict[str, Any]),
    "one": Schema(int | str),
}


@final
class Worker(Agent):
    """A leaf at work."""

    def __init__(self, leaf: Leaf) -> None:
        """Make one."""
        super().__init__(leaf.name)
        self._leaf = leaf

    @property
    def input_schema(self) -> Schema[Any] | None:
        """See `Agent`."""
        return _SCHEMAS[self._leaf.takes]

    async def run(self, ctx: InvocationContext) -> None:
        """Do one turn."""
        leaf = self._leaf
        number = int(ctx.path.rpartition("/")[2].partition("@")[2] or 1)
        turn = leaf.turn(number)
        for text in range(turn.says):
            await ctx.emit(Event(f"{leaf.name} says {text}"))
        await trio.sleep(turn.beats + leaf.grain)
        if turn.end == "fails":
            raise BoomError(ctx.path)
        if turn.end == "escalates":
            await ctx.emit(Event(f"{leaf.name} escalates", actions=EventActions(escalate=True)))
            await trio.sleep(1)
        if leaf.counts:
            ctx.state[leaf.name] = ctx.state.get(leaf.name, 0) + 1
        output = f"{leaf.name}:{number}" if turn.output is None else turn.output
        actions = EventActions(route=turn.route) if turn.route is not None else None
        await ctx.emit(Event(f"{leaf.name} ends", output=output, actions=actions))


def made(node: Node) -> Agent:
    """Return the agent that a value stands for."""
    match node:
        case Leaf():
            return Worker(node)
        case Row():
            return SequentialAgent(node.name, map(made, node.children))
        case Beside():
            return ParallelAgent(node.name, map(made, node.children), barrier=node.barrier)
        case Ring():
            return LoopAgent(node.name, map(made, node.children), max_iterations=node.times)
        case Each():
            return MapAgent(node.name, made(node.worker), barrier=node.barrier)
        case Net():
            return _graph(node)


def _graph(net: Net) -> Agent:  # noqa: C901  # one case for each way
    agents = {node.name: made(node) for node in net.nodes}
    led = {name for way in net.ways for name in names_in(way)}
    listed = [agent for name, agent in agents.items() if net.listed or name not in led]

    def several(names: Iterable[str]) -> list[Any]:
        return [name if net.listed else agents[name] for name in names]

    def one(name: str) -> Any:
        return several([name])[0]

    def edge(way: Way) -> Any:
        match way:
            case Chain():
                return tuple(several(part) for part in way.parts)
            case Cond(when=None):
                return Edge(one(way.source), several(way.targets), default=True)
            case Cond():
                return Edge(one(way.source), several(way.targets), when=_when(way.when))
            case Back():
                back: dict[str, Any] = {"max_times": way.times, "default": way.default}
                if way.when is not None:
                    back["when"] = _when(way.when)
                return Edge(one(way.source), one(way.target), **back)
            case After():
                return Edge(several(way.sources), several(way.targets), order_only=True)
            case InOrder():
                return Ordered(several(way.sources), several(way.targets))
            case Cases():
                cases = [(_when(when), several(targets)) for when, targets in way.cases]
                default = None if way.default is None else several(way.default)
                return Switch(one(way.source), cases, default=default)
            case Pick():
                names = way.by
                by = None if names is None else lambda _output: names
                return Select(one(way.source), several(way.targets), by=by)

    return GraphAgent(
        net.name,
        [edge(way) for way in net.ways],
        nodes=listed,
        barrier=net.barrier,
        max_concurrency=net.limit,
    )


def _when(when: When | None) -> Any:
    if isinstance(when, str):
        return TESTS[when]
    values = list(when or ())
    return values[0] if len(values) == 1 else values


# Running them.


class _Watch(Plugin):
    """Notes what began: when, with what input, and what it could see."""

    def __init__(self) -> None:
        super().__init__("watch")
        self.began: dict[str, Began] = {}
        self.twice: list[str] = []

    async def before_agent_callback(self, ctx: InvocationContext) -> None:
        if ctx.path in self.began:
            self.twice.append(ctx.path)
        saw = [(event.path, event.text) for event in ctx.history() if event.text]
        self.twice += [f"{one} is seen" for one in saw if saw.count(one) > 1]
        given = plain(activation_of(ctx).input)
        self.began[ctx.path] = Began(trio.current_time(), given, frozenset(saw))


@attrs.frozen(eq=False)
class Seen:
    """What came of a run.

    Attributes:
        began: the activations, by path.
        twice: what there was twice, and should be once.
        end: when its reader had all.
        status: of the run.
        output: likewise.
        failure: what its reader got.
        ends: the outcomes of the graph's nodes: path, status and output.
        durations: how long each took.
        said: the texts, each with the moment at which the reader got it.
        state: at its end.
    """

    began: Mapping[str, Began]
    twice: Sequence[str]
    end: float
    status: str
    output: Any
    failure: Failure | None
    ends: tuple[tuple[str, str, Any], ...]
    durations: Mapping[str, float]
    said: tuple[tuple[float, Text], ...]
    state: Mapping[str, Any]


def perform(node: Node, *, pauses: Sequence[float] = (), tree: Agent | None = None) -> Seen:
    """Run a tree; its reader pauses after each event, as said, over and over.

    ``tree`` is the agent, if it is not the one that ``node`` stands for.
    """
    tree = made(node) if tree is None else tree
    # A graph that hangs is found out, and does not hang the tests.
    return trio.run(_perform, tree, node.name, pauses, clock=clock_with_horizon())


async def _perform(tree: Agent, name: str, pauses: Sequence[float]) -> Seen:
    watch = _Watch()
    said: list[tuple[float, Text]] = []
    error: Exception | None = None
    try:
        async with Runner(tree, plugins=[watch]).open() as run:
            async for event in run:
                if event.text:
                    said.append((trio.current_time(), (event.path, event.text)))
                if pauses:
                    await trio.sleep(pauses[len(said) % len(pauses)])
    except Exception as exc:  # noqa: BLE001  # compared
        error = exc
    outcomes = run.outcomes(name) if isinstance(tree, GraphAgent) else ()
    return Seen(
        watch.began,
        watch.twice,
        trio.current_time(),
        str(run.status),
        plain(run.result.output),
        _failure_of(error),
        tuple((one.path, str(one.status), plain(one.output)) for one in outcomes),
        {one.path: one.duration for one in outcomes},
        tuple(said),
        {key: plain(value) for key, value in run.result.state.items()},
    )


def _failure_of(error: BaseException | None) -> Failure | None:
    match error:
        case None:
            return None
        case ExceptionGroup():
            return "group", tuple(map(_failure_of, error.exceptions))
        case BoomError():
            return "BoomError", str(error)
        case _:
            return type(error).__name__, ""


def plain(value: Any) -> Any:
    """Return a JSON value made of lists and dicts."""
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


# Drawing.


@attrs.frozen(cache_hash=True)
class Allowed:
    """What a drawn graph may hold.

    ``breaks`` are conditions that raise, selections of what is not there, two loops at once.
    ``kinds`` are those of edges: the more often, the more of them there are.
    """

    failures: bool = True
    escalations: bool = True
    breaks: bool = True
    loops: bool = True
    composites: bool = True
    barriers: tuple[Barrier, ...] = (FailFast(), WaitAll(), BestEffort())
    nodes: int = 12
    kinds: tuple[str, ...] = (*["chain"] * 4, "after", "ordered", "pick", "cases", "cond")


CALM: Final = Allowed(failures=False, escalations=False, breaks=False)
NOBODY: Final = ("nobody",)
_VALUES: Final[tuple[Any, ...]] = ("x", "y", 1, True, ["x", "y"], [], ["y", 1], False)
_LISTS: Final[tuple[list[Any], ...]] = ([], ["x"], ["x", "y"], [1, "y", 2])
_WHENS: Final[tuple[When, ...]] = (("x",), ("y",), ("x", 1), (True,), (1,), "is text", "is list")


class _Names:
    """Names in the order in which they are asked for; and moments, as many."""

    def __init__(self, style: int) -> None:
        self._style = style
        self.given = 0

    def next(self) -> str:
        number = self.given
        self.given += 1
        match self._style:
            case 0:
                return f"n{number}"
            case 1:
                return f"z{999 - number}"
            case 2:
                return f"a_{1:0<{number + 1}}"
            case style:
                return f"{'qwertyuiop'[(number * style) % 10]}{(number * 7919 * style) % 9973}"

    def moment(self) -> float:
        return self.given / 1024


def _ends(allowed: Allowed) -> list[End]:
    ends: list[End] = ["done"] * 12
    ends[7:8] = ["fails"] if allowed.failures else []
    return [*ends, "escalates"] if allowed.escalations else ends


@functools.cache
def _turns(allowed: Allowed) -> st.SearchStrategy[Turn]:
    # One draw for each: what draws little is drawn fast.
    return st.sampled_from(
        [
            Turn(beats, says=says, end=end)
            for end in _ends(allowed)
            for beats in range(4)
            for says in range(2)
        ]
    )


def _leaf(draw: st.DrawFn, names: _Names, allowed: Allowed) -> Leaf:
    turn = draw(_turns(allowed))
    name = names.next()
    return _timed(Leaf(name, (turn,), moment=names.moment()))


def _timed(leaf: Leaf) -> Leaf:
    is_sharp = any(turn.end != "done" for turn in leaf.turns)
    return attrs.evolve(leaf, grain=leaf.moment if is_sharp else leaf.grain)


def _node(draw: st.DrawFn, names: _Names, allowed: Allowed, depth: int) -> Node:
    kind = draw(st.integers(0, 11)) if depth and allowed.composites else 0
    if kind not in (3, 5, 7, 9, 11):
        return _leaf(draw, names, allowed)
    name = names.next()
    if kind == 11:
        smaller = attrs.evolve(allowed, nodes=3, composites=False)
        return _net(draw, name, names, smaller, depth - 1)
    barrier = draw(st.sampled_from(allowed.barriers))
    if kind == 9:
        worker = _leaf(draw, names, allowed)
        # All items do their last turn at the same moment: that is to be nothing others notice.
        last = Turn(draw(st.integers(0, 2)))
        return Each(name, attrs.evolve(worker, turns=(*worker.turns, last), counts=False), barrier)
    least = 0 if kind == 3 else 1
    several = range(draw(st.integers(least, 3)))
    children = tuple(_node(draw, names, allowed, depth - 1) for _ in several)
    children = tuple(_anything(child) for child in children)
    match kind:
        case 3:
            return Row(name, children)
        case 5:
            return Beside(name, children, barrier)
        case _:
            return Ring(name, children, draw(st.integers(1, 2)))


def _anything(node: Node) -> Node:
    """Return a node that takes whatever it is given."""
    return attrs.evolve(node.worker, counts=True) if isinstance(node, Each) else node


@st.composite
def nets(
    draw: st.DrawFn, allowed: Allowed = Allowed(), *, depth: int = 2
) -> Net:  # a value, and frozen
    """Draw a graph, and how trio shuffles what is ready at the same moment."""
    draw(st.random_module())
    names = _Names(draw(st.integers(0, 9)))
    return _net(draw, "graph", names, allowed, depth)


def _net(draw: st.DrawFn, name: str, names: _Names, allowed: Allowed, depth: int) -> Net:
    count = draw(st.integers(1, allowed.nodes))
    nodes = [_node(draw, names, allowed, depth) for _ in range(count)]
    sketch = _Sketch([node.name for node in nodes])
    leaves = {node.name for node in nodes if isinstance(node, Leaf)}
    for _ in range(draw(st.integers(0, 1 + count)) if count > 1 else 0):
        way = _way(draw, sketch.names, draw(st.sampled_from(allowed.kinds)), allowed)
        if isinstance(way, Pick) and way.by is None and way.source not in leaves:
            continue  # what others put out are no names
        if sketch.add(way) and isinstance(way, Cond) and draw(st.booleans()):
            behind = sketch.names.index(way.targets[-1]) + 1
            sketch.add(Cond(way.source, tuple(sketch.names[behind:][:1]) or way.targets, None))
    for _ in range(draw(st.integers(0, 3)) if allowed.loops else 0):
        _add_loop(draw, sketch, allowed)
    fitted = _fitted(draw, nodes, sketch.plan(), allowed)
    if draw(st.booleans()):
        fitted = draw(st.permutations(fitted))
    barrier, listed = draw(st.sampled_from(allowed.barriers)), draw(st.booleans())
    return Net(name, tuple(fitted), tuple(sketch.ways), barrier, None, listed)


def _fitted(draw: st.DrawFn, nodes: Sequence[Node], plan: Plan, allowed: Allowed) -> list[Node]:
    """Return the nodes with outputs that choose among their ways out, and inputs they can take."""
    found = {node.name: node for node in nodes}
    again = frozenset[str]().union(*plan.bodies.values())
    for name, node in found.items():
        if isinstance(node, Leaf):
            more = draw(st.lists(_turns(allowed), max_size=2)) if name in again else ()
            leaf = _timed(attrs.evolve(node, turns=(*node.turns, *more)))
            found[name] = _routing(draw, leaf, plan)
    for name, node in found.items():
        if isinstance(node, Each) and not _lists_for(draw, name, found, plan):
            leaf = attrs.evolve(node.worker, name=name, counts=True)
            found[name] = _routing(draw, leaf, plan)
    for name, node in found.items():
        if isinstance(node, Leaf) and len(plan.feeding(name)) > 1:
            takes: list[Takes] = ["any", "list", "dict"]
            if allowed.breaks and _is_one(name, found, plan):
                takes += ["one"]
            found[name] = attrs.evolve(node, takes=draw(st.sampled_from(takes)))
    return list(found.values())


def _routing(draw: st.DrawFn, leaf: Leaf, plan: Plan) -> Leaf:
    conds, chosen = plan.conds[leaf.name], plan.chosen[leaf.name]
    if not conds and not chosen:
        return leaf
    targets = next((way.targets for way in chosen if isinstance(way, Pick) and way.by is None), ())
    values = [*targets, list(targets), list(targets[:1])] if targets else list(_VALUES)
    turns: list[Turn] = []
    for turn in leaf.turns:
        what, value = draw(st.sampled_from(list(product(("output", "route"), values))))
        is_beside = what == "route"
        turns.append(
            attrs.evolve(turn, route=value) if is_beside else attrs.evolve(turn, output=value)
        )
    whens = [way.when for way in conds]
    whens += [when for way in chosen if isinstance(way, Cases) for when, _ in way.cases]
    breaks = "breaks" in whens or any(isinstance(way, Pick) and way.by == NOBODY for way in chosen)
    return attrs.evolve(leaf, turns=tuple(turns), grain=leaf.moment if breaks else leaf.grain)


def _lists_for(draw: st.DrawFn, name: str, found: dict[str, Node], plan: Plan) -> bool:
    """Make sure that a node is given lists; return whether that can be."""
    sources = plan.feeding(name)
    if len(sources) != 1:
        return bool(sources)
    source = found[sources[0]]
    if any(back.target == name for back in plan.backs) or not isinstance(source, Leaf):
        return False
    if any(isinstance(way, Pick) for way in plan.chosen[source.name]):
        return False
    turns = (attrs.evolve(turn, output=draw(st.sampled_from(_LISTS))) for turn in source.turns)
    found[source.name] = attrs.evolve(source, turns=tuple(turns))
    return True


def _is_one(name: str, found: Mapping[str, Node], plan: Plan) -> bool:
    """Whether a join may do with one output: they are no lists, and routes may leave one."""
    sources = plan.feeding(name)
    backs = [back.source for back in plan.backs if back.target == name]
    return sum(name in plan.always[one] for one in sources) < 2 and all(
        isinstance(node := found[one], Leaf)
        and all(type(turn.output) in (str, int, type(None)) for turn in node.turns)
        for one in (*sources, *backs)
    )


@st.composite
def forks(draw: st.DrawFn) -> Net:
    """Draw a graph of one node that chooses among some others, in several ways at once."""
    sketch = _Sketch(["fork", "a", "b", "c", "join"])
    some = st.sampled_from([("a",), ("b",), ("c",), ("a", "b"), ("c", "b")])
    whens = st.sampled_from(_WHENS)
    default = st.none() | some
    ways = st.one_of(
        st.builds(Cond, st.just("fork"), some, whens),
        st.builds(Cond, st.just("fork"), some, st.none()),
        st.builds(Cond, st.just("fork"), some, whens),
        st.builds(
            Cases,
            st.just("fork"),
            st.lists(st.tuples(whens, some), min_size=1, max_size=2).map(tuple),
            default,
        ),
    )
    for way in draw(st.lists(ways, min_size=1, max_size=4)):
        sketch.add(way)
    if draw(st.booleans()):
        sketch.add(Chain((("a", "b", "c"), ("join",))))
    leaves = [Leaf(name) for name in sketch.names]
    leaves[0] = attrs.evolve(leaves[0], turns=(draw(_choosing(_VALUES)),))
    return Net("graph", tuple(leaves), tuple(sketch.ways), listed=draw(st.booleans()))


def _choosing(values: Sequence[Any]) -> st.SearchStrategy[Turn]:
    return st.sampled_from(
        [Turn(output=one) for one in values] + [Turn(1, "x", route=one) for one in values]
    )


@st.composite
def rings(draw: st.DrawFn, *, breaks: bool = True) -> Net:
    """Draw a graph of loops, nested or apart, whose nodes may fail, and where others go on.

    ``breaks``: two of them may lead back from one node.
    """
    names = ["a", "b", "c", "d"][: draw(st.integers(1, 4))]
    sketch = _Sketch([*names, "exit"])
    if len(names) > 1:
        sketch.add(Chain(tuple((name,) for name in names)))
    ends = st.sampled_from([*names, *names, None, None])
    for _ in range(draw(st.integers(1, 3))):
        one, other = sorted(draw(st.tuples(*[st.integers(0, len(names) - 1)] * 2)))
        when = draw(st.sampled_from([None, ("x",), ("y",)]))
        if breaks or all(back.source != names[other] for back in sketch.plan().backs):
            sketch.add(Back(names[other], names[one], draw(st.integers(1, 2)), when))
    leads_on = draw(ends)
    if leads_on is not None:
        sketch.add(Chain(((leads_on,), ("exit",))))
    turn = st.sampled_from(
        [Turn(beats, one) for one in (None, "x", "y") for beats in (0, 2)] + [Turn(end="fails")] * 2
    )
    turns = st.lists(turn, min_size=1, max_size=4).map(tuple)
    leaves = tuple(Leaf(name, draw(turns)) for name in sketch.names)
    barrier = draw(st.sampled_from([BestEffort(), WaitAll()]))
    return Net("graph", leaves, tuple(sketch.ways), barrier)


def _way(draw: st.DrawFn, names: Sequence[str], kind: str, allowed: Allowed) -> Way:
    picked = [draw(st.integers(0, len(names) - 2))]
    gaps = draw(st.integers(0, 4**5 - 1))
    picked.append(picked[0] + 1)
    while gaps:
        picked.append(picked[-1] + (1, 1, 2, 4)[gaps % 4])
        gaps //= 4
    some = [names[one] for one in picked if one < len(names)]
    first, rest = some[0], tuple(some[1:])
    cut = draw(st.integers(1, len(rest)))
    match kind:
        case "chain":
            cuts = draw(st.integers(1, 2 ** len(rest) - 1))
            starts = [0, *(at for at in range(1, len(some)) if cuts >> (at - 1) & 1), len(some)]
            return Chain(tuple(tuple(some[one:other]) for one, other in pairwise(starts)))
        case "after":
            return After(tuple(some[:cut]), tuple(some[cut:]))
        case "ordered":
            return InOrder(tuple(some[:cut]), tuple(some[cut:]))
        case "pick":
            by = draw(st.none() | st.lists(st.sampled_from(rest), max_size=2).map(tuple))
            if by is not None and allowed.breaks and draw(st.integers(0, 7)) == 7:
                by = NOBODY
            return Pick(first, rest, by)
        case "cond":
            return Cond(first, rest[:cut], draw(_whens(allowed) | st.none()))
        case _:
            cases = [(draw(_whens(allowed)), rest[:cut])]
            if rest[cut:]:
                cases.append((draw(_whens(allowed)), rest[cut:]))
            default = draw(st.sampled_from([None, rest[-1:], rest]))
            return Cases(first, tuple(cases), default)


def _whens(allowed: Allowed) -> st.SearchStrategy[When]:
    return st.sampled_from([*_WHENS * 3, "breaks"] if allowed.breaks else _WHENS)


def _add_loop(draw: st.DrawFn, sketch: _Sketch, allowed: Allowed) -> None:
    names = sketch.names
    one, other = sorted(draw(st.tuples(*[st.integers(0, len(names) - 1)] * 2)))
    when = draw(_whens(allowed) | st.none())
    times, default = draw(st.integers(1, 3)), when is None and draw(st.booleans())
    source, ways = names[other], list(sketch.ways)
    conds = [way for way in ways if isinstance(way, Cond) and way.source == source]
    if conds and all(way.when is not None for way in conds):
        sketch.add(Cond(source, conds[0].targets, None))
    is_new = allowed.breaks or all(back.source != source for back in sketch.plan().backs)
    if not (is_new and sketch.add(Back(source, names[one], times, when, default))):
        sketch.ways = ways


class _Sketch:
    """The edges so far: what would make them no graph is left out."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.ways: list[Way] = []

    def add(self, way: Way) -> bool:
        """Add a way, if what there is then is a graph."""
        self.ways.append(way)
        if self._is_sound():
            return True
        self.ways.pop()
        return False

    def plan(self) -> Plan:
        """Return what they come to."""
        return Plan(self.names, self.ways, listed=True)

    def _is_sound(self) -> bool:
        plan = self.plan()
        once = [(back.source, back.target) for back in plan.backs]
        once += [
            (way.source, "forward")
            for way in self.ways
            if isinstance(way, Cond) and way.when is None
        ]
        once += [(back.source, "back") for back in plan.backs if back.default]
        once += [(way.source, "picks") for way in self.ways if isinstance(way, Pick) and not way.by]
        return (
            not any(target in plan.always[source] for source, target in plan.ruled)
            and len(set(once)) == len(once)
            and all(_leads_on(plan, back) for back in plan.backs)
            and plan.is_sound()
        )


def _leads_on(plan: Plan, back: Back) -> bool:
    """Whether there is a way on when a loop is not to be taken any more."""
    conds = [way for way in plan.conds[back.source] if isinstance(way, Cond)]
    return not conds or any(way.when is None for way in conds)
