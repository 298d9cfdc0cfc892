"""How the agents of a tree stand in a run, found out from outside: what a picture shows of a run.

Nobody keeps a table of that, so nothing is paid for it while a run goes on. It follows from what
is at work, from what was recorded, and from which agents have an output.

Blocks nothing, and needs no event loop. Nothing here recurses: a tree may be thousands deep.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

import attrs

from parallel_agent.activation import Activation
from parallel_agent.agent import Agent
from parallel_agent.branch import Place
from parallel_agent.crew import Crew
from parallel_agent.errors import ReadError
from parallel_agent.handle import RunCore
from parallel_agent.lifecycle import TERMINAL, Status
from parallel_agent.result import Result, RunStatistics
from parallel_agent.workflow.graph import GraphAgent
from parallel_agent.workflow.loop import LoopAgent
from parallel_agent.workflow.map import MapAgent
from parallel_agent.workflow.parallel import ParallelAgent
from parallel_agent.workflow.sequential import SequentialAgent
from session.event import USER, Event
from session.origin import Origin

__all__ = ["AnyRun", "Stand", "standing"]


class _Handle(Protocol):
    def statistics(self) -> RunStatistics: ...


AnyRun: TypeAlias = "_Handle | Result"
"""A run of any host, while it goes on or afterwards; or what one came to."""


@attrs.frozen
class Stand:
    """How one agent stands, all its activations taken together.

    Attributes:
        status: pending if it has not started; of several activations that of the newest, or, of
            the items of a map, the worst.
        started: how many activations are known of.
        skipped: its graph has completed without it.
        note: what else there is to say, in a few words.
    """

    status: Status = Status.PENDING
    started: int = 0
    skipped: bool = False
    note: str = ""


def standing(tree: Agent, run: AnyRun) -> dict[str, Stand]:
    """Return how each agent of ``tree`` stands in ``run``, by name.

    ``run`` is a run of any host, while it goes on (call this between two events) or after its
    block; or a `Result`, for what came to an end in another process. A run knows which of its
    agents are at work. A result knows what was recorded: an agent that neither said nor returned
    anything counts as one activation, and where a `LoopAgent` has failed, the last of its agents
    that was heard of counts as the one that has.

    Raises:
        ReadError: ``run`` is neither.
    """
    traces = _Traces(tree)
    core = getattr(run, "_core", None)
    if isinstance(core, RunCore):
        _read_core(traces, core)
    elif isinstance(run, Result):
        traces.read_events(run.events)
        traces.outputs = run.outputs
        traces.root.status = run.status
    else:
        message = f"a picture shows a run or a Result, not {run!r:.80}"
        raise ReadError(message)
    traces.resolve()
    return {agent.name: stand for agent, stand in _stands(tree, traces)}


def _read_core(traces: _Traces, core: RunCore) -> None:
    # Another thread may move all of this: each list is copied in one step.
    root = core.root
    invocation = root.invocation
    traces.tree = root.agent
    traces.name_root(root.agent.name)
    traces.outputs = dict(invocation.outputs)
    if core.result is not None:
        traces.read_events(core.result.events)
    else:
        events = core.stream.session.events[core.first :]
        traces.read_events(event for event in events if not event.is_record)
    traces.root.status = core.status
    _read_activations(traces, root)
    failed: Activation | None = root.source
    while failed is not None and failed.status in TERMINAL:
        traces.of(failed.place).status = failed.status
        failed = failed.source
    for request in invocation.requests.pending():
        trace: _Trace | None = traces.at(request.path)
        while trace is not None and trace.status in (None, Status.RUNNING):
            trace.status = Status.WAITING
            # What stands above goes on, or has ended as waiting, too.
            trace = trace.above if core.result is not None else None


def _read_activations(traces: _Traces, root: Activation) -> None:
    """Read what is at work, and what has ended beside it."""
    crews: dict[Crew, None] = {}
    todo = [root]
    while todo:
        activation = todo.pop()
        for child in tuple(activation.children or ()):
            todo.append(child)
            trace = traces.of(child.place)
            trace.status, trace.was_started = child.status, child.was_started
            if child.crew is not None:
                crews[child.crew] = None
    for crew in crews:
        owner = traces.of(crew.owner.place)
        owner.width = crew.tally.width
        for outcome in tuple(crew.outcomes.values()):
            trace = traces.below(owner, outcome.name)
            trace.status, trace.was_started = outcome.status, outcome.attempts > 0


# ------------------------------------------------------------------------- activation by activation


@attrs.define(eq=False)
class _Trace:
    """What is known of one activation; its attempts count as one. None: not known."""

    name: str
    number: str
    above: _Trace | None
    status: Status | None = None
    was_started: bool = True
    width: int | None = None
    below: dict[str, _Trace] = attrs.Factory(dict[str, "_Trace"])

    @property
    def rank(self) -> int:
        """Tells it from others of its name below the same activation, in order."""
        return int(self.number) if self.number.isdecimal() else 1


_ATTEMPT: Final = re.compile(r"~\d+\Z")

_LINES: Final = (SequentialAgent, LoopAgent)
_FAN_OUTS: Final = (ParallelAgent, GraphAgent, MapAgent)


class _Traces:
    """The activations of a run that are known of, each below the one that started it."""

    def __init__(self, tree: Agent) -> None:
        self.tree = tree
        self.root = _Trace(tree.name, "", None)
        self.by_name: dict[str, list[_Trace]] = {tree.name: [self.root]}
        self.outputs: Mapping[str, Any] = {}
        self._is_rooted = False
        self._by_origin: dict[Origin, _Trace] = {}
        self._by_path: dict[str, _Trace] = {}

    def name_root(self, name: str) -> None:
        """Say what the root of the run is called: the tree may be a part of what runs."""
        self._is_rooted = True
        if name != self.root.name:
            del self.by_name[self.root.name]
            self.root.name = name
            self.by_name[name] = [self.root]

    def below(self, above: _Trace, segment: str) -> _Trace:
        """Return the activation of that name and number, with or without its attempt."""
        segment = _ATTEMPT.sub("", segment)
        found = above.below.get(segment)
        if found is None:
            name, _, number = segment.partition("@")
            found = above.below[segment] = _Trace(name, number, above)
            self.by_name.setdefault(name, []).append(found)
        return found

    def of(self, origin: Origin) -> _Trace:
        """Return the activation whose origin that is."""
        found = self._by_origin.get(origin)
        if found is not None:
            return found
        if not isinstance(origin, Place):  # it was read from somewhere, and knows its path as text
            found = self._by_origin[origin] = self.at(origin.path)
            return found
        # By the places above, and not by paths: in a deep tree those are long.
        line: list[Place] = []
        place: Place | None = origin
        while place is not None and place not in self._by_origin:
            line.append(place)
            place = place.parent
        found = self.root if place is None else self._by_origin[place]
        for place in reversed(line):
            if place.parent is not None:
                found = self.below(found, place.segment)
            self._by_origin[place] = found
        return found

    def at(self, path: str) -> _Trace:
        """Return the activation at a path."""
        segments: list[str] = []
        rest = path
        while rest not in self._by_path and "/" in rest:
            rest, _, segment = rest.rpartition("/")
            segments.append(segment)
        found = self._by_path.get(rest, self.root)
        for segment in reversed(segments):
            found = self.below(found, segment)
        self._by_path[path] = found
        return found

    def read_events(self, events: Iterable[Event]) -> None:
        """Read who has said something, and how branches have ended."""
        for event in events:
            origin = event.origin
            if event.author == USER or not (isinstance(origin, Place) or origin.path):
                continue
            if not self._is_rooted:
                self.name_root(_root_name(origin))
            trace = self.of(origin)
            for outcome in event.actions.outcomes or ():
                branch = self.below(trace, outcome.name)
                branch.status, branch.was_started = Status(outcome.status), outcome.attempts > 0

    # What follows from that.

    def resolve(self) -> None:
        """Find out how those have ended of which nothing is recorded but that they were there."""
        todo = [self.root]
        while todo:
            trace = todo.pop()
            agent = self.tree.find_agent(trace.name)
            if trace.was_started and trace.status is not Status.PENDING:
                if agent is not None:
                    self._add_silent(trace, agent)
                self._resolve_below(trace, agent)
            todo.extend(reversed(trace.below.values()))

    def _add_silent(self, trace: _Trace, agent: Agent) -> None:
        if trace is not self.by_name[trace.name][-1]:
            return
        for child in agent.sub_agents:
            if child.name in self.outputs and child.name not in self.by_name:
                self.below(trace, child.name).status = Status.COMPLETED

    def _resolve_below(self, trace: _Trace, agent: Agent | None) -> None:
        status = trace.status or Status.RUNNING
        is_over = status not in (Status.RUNNING, Status.COMPLETED)
        if is_over and isinstance(agent, _LINES):
            self._find_culprit(trace, agent, status)
        if status is Status.CANCELLED and isinstance(agent, ParallelAgent):
            # Its outcomes were not recorded: a sibling's escalation has ended all of it.
            for name in [branch.name for branch in agent.sub_agents]:
                self.below(trace, name)
        for child in trace.below.values():
            if child.status is not None:
                continue
            if (
                child.name in self.outputs
                or isinstance(agent, _LINES)
                or (isinstance(agent, _FAN_OUTS) and not is_over)
            ):
                # One after the other: what is not the last has completed.
                child.status = Status.COMPLETED
            else:
                child.status = status if is_over else Status.FAILED

    def _find_culprit(self, trace: _Trace, line: Agent, status: Status) -> None:
        """Mark the agent with which one ended whose agents run one after the other."""
        below = trace.below.values()
        if any(child.status not in (None, Status.COMPLETED) for child in below):
            return  # it is known
        children = line.sub_agents
        order = {child.name: at for at, child in enumerate(children)}
        heard = [child for child in below if child.name in order]
        last = max(heard, key=lambda child: (child.rank, order[child.name]), default=None)
        at, rank = 0, 1
        if last is not None:
            if last.name not in self.outputs or len(self.by_name[last.name]) > 1:
                last.status = status
                return
            at, rank = order[last.name] + 1, last.rank  # it has completed: then the next has not
        is_loop = isinstance(line, LoopAgent)
        if is_loop and at == len(children):
            at, rank = 0, rank + 1
        if at < len(children):
            number = f"@{rank}" if is_loop else ""
            self.below(trace, f"{children[at].name}{number}").status = status


def _root_name(origin: Origin) -> str:
    if not isinstance(origin, Place):
        return origin.path.partition("/")[0]
    while origin.parent is not None:
        origin = origin.parent
    return origin.author


# ---------------------------------------------------------------------------------- agent by agent

_WORST: Final = (Status.WAITING, Status.FAILED, Status.CANCELLED, Status.COMPLETED)


def _stands(tree: Agent, traces: _Traces) -> Iterator[tuple[Agent, Stand]]:
    todo: list[tuple[Agent, bool, Stand | None]] = [(tree, False, None)]
    while todo:
        agent, is_mapped, graph = todo.pop()
        stand = _stand(agent, traces, is_mapped=is_mapped)
        if graph is not None and not stand.started and graph.status is Status.COMPLETED:
            stand = attrs.evolve(stand, skipped=True)
        yield agent, stand
        is_mapped = is_mapped or isinstance(agent, MapAgent)
        around = stand if isinstance(agent, GraphAgent) else None
        todo.extend((child, is_mapped, around) for child in reversed(agent.sub_agents))


def _stand(agent: Agent, traces: _Traces, *, is_mapped: bool) -> Stand:
    known = traces.by_name.get(agent.name, [])
    if not known:
        return Stand()
    statuses = [trace.status or Status.RUNNING for trace in known]
    newest = _newest(known)
    status = newest.status or Status.RUNNING
    if Status.RUNNING in statuses:
        status = Status.RUNNING
    elif is_mapped:
        status = next((one for one in _WORST if one in statuses), status)
    notes = [_items(newest, traces.outputs.get(agent.name))] if isinstance(agent, MapAgent) else []
    failed = statuses.count(Status.FAILED)
    if is_mapped and failed and len(known) > 1:
        notes.append(f"{failed} failed")
    started = sum(trace.was_started for trace in known)
    return Stand(status, started, note=", ".join(filter(None, notes)))


def _newest(known: list[_Trace]) -> _Trace:
    last = known[-1]
    return max((one for one in known if one.above is last.above), key=lambda one: one.rank)


def _items(mapper: _Trace, output: Any) -> str:
    """Return how many items of a map are done."""
    below = mapper.below.values()
    done = sum(item.status is Status.COMPLETED for item in below)
    if mapper.status is Status.COMPLETED and isinstance(output, Sequence):
        width = len(output)  # pyright: ignore[reportUnknownArgumentType]  # of JSON
        # Of very many, only those are recorded that have not completed.
        done = width - sum(item.status is not Status.COMPLETED for item in below)
    else:
        width = mapper.width if mapper.width is not None else len(below)
    return f"{done:,} of {width:,} items" if width else ""
