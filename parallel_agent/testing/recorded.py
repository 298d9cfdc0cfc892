"""A tree that does again what a run has recorded: in that order, or in another.

From the events of a run, its agents are written anew as scripted agents: the same names, the same
branches, the same events with the same state writes, in the order in which each branch emitted
them. What an agent read, and why it did what it did, is not in a log. So what can be found is a
final state that hangs on who came last, and not what an agent would have done if it had seen
something else.

Pure: nothing here waits.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from keyword import iskeyword
from typing import Any, final

import attrs

from parallel_agent.agent import Agent
from parallel_agent.barrier import BestEffort
from parallel_agent.records import void_events
from parallel_agent.testing.exploring import Exploration, ExplorationError, explore
from parallel_agent.testing.schedule import Schedule
from parallel_agent.testing.script import ScriptStep
from parallel_agent.testing.scripted import as_code, emits, escalates, outputs, scripted
from parallel_agent.workflow.parallel import ParallelAgent
from parallel_agent.workflow.sequential import SequentialAgent
from session.codec import Codec, CodecError
from session.event import USER, Event
from session.portable import is_header
from session.state import TEMP_PREFIX, thaw

__all__ = ["LogError", "OtherState", "as_test", "find_other_state", "read_log", "recorded_tree"]


class LogError(ValueError):
    """A log cannot be read, or there is nothing in it to run again. The message says where."""


def read_log(lines: Iterable[str], name: str = "the log") -> list[Event]:
    """Read the events of one run: a line of JSON for each, as ``run --json`` prints them.

    The lines may be an exported session, too, of a run that was resumed perhaps: the header, what
    the runtime has noted, and what executions that were cut off had emitted are left out.

    Raises:
        LogError: a line holds no event, or events of several runs are mixed.
    """
    codec = Codec()
    events: list[Event] = []
    for number, line in enumerate(lines, 1):
        # Some programs begin a file of text with a mark.
        text = line.removeprefix("\ufeff") if number == 1 else line
        if not text.strip() or (not events and is_header(text)):
            continue
        try:
            events.append(codec.loads(text))
        except (CodecError, ValueError) as exc:
            message = f"{name}:{number} holds no event: {exc}"
            raise LogError(message) from None
    void = void_events(events)
    events = [event for event in events if not event.is_record and event.seq not in void]
    runs = dict.fromkeys(event.invocation_id for event in events)
    if len(runs) > 1:
        message = (
            f"{name} holds events of {len(runs)} runs ({', '.join(map(repr, runs))}); give one"
        )
        raise LogError(message)
    if not any(event.author != USER and not event.partial for event in events):
        message = f"{name} holds no event of an agent"
        raise LogError(message)
    return events


@attrs.define(eq=False)
class _Node:
    """An activation, as far as its events and those below it tell.

    ``items`` are what it did and who ran below it, in the order of the log. None stands for a
    fan-out's record of its outcomes: what comes after began later.
    """

    path: str
    branch: str | None
    items: list[Event | _Node | None] = attrs.Factory(list["Event | _Node | None"])


def recorded_tree(events: Sequence[Event]) -> Agent:
    """Return the tree that did this, of scripted agents.

    What ran on branches of its own runs side by side again; what ran on one branch, one after the
    other.

    Raises:
        LogError: the events have no paths, or no common root, or are of too deep a tree.
    """
    nodes: dict[str, _Node] = {}
    roots: list[_Node] = []
    for event in events:
        if event.author == USER or event.partial:
            continue
        if not event.path:
            message = f"event {event.id!r} says not which activation emitted it (its path)"
            raise LogError(message)
        node = _node_of(event, nodes, roots)
        node.items.append(None if event.actions.outcomes else event)
    # A root that was tried again has a path for each attempt.
    if len({root.path.partition("~")[0] for root in roots}) != 1:
        message = f"the events are of {len(roots)} trees: {', '.join(root.path for root in roots)}"
        raise LogError(message)
    names = _Names()
    try:
        attempts = [_agent_of(root, names) for root in roots]
    except RecursionError:
        message = "the events are of a tree that is too deep to be made again"
        raise LogError(message) from None
    return attempts[0] if len(attempts) == 1 else SequentialAgent(names.give("attempts"), attempts)


def _node_of(event: Event, nodes: dict[str, _Node], roots: list[_Node]) -> _Node:
    segments = event.path.split("/")
    above: _Node | None = None
    for depth in range(1, len(segments) + 1):
        path = "/".join(segments[:depth])
        node = nodes.get(path)
        if node is None:
            node = nodes[path] = _Node(path, _branch_of(event, segments, depth))
            (roots if above is None else above.items).append(node)
        above = node
    assert above is not None  # noqa: S101  # a path has a segment
    return above


def _branch_of(event: Event, segments: Sequence[str], depth: int) -> str | None:
    """Return the branch of the activation that stands above ``event``, at ``depth``.

    A branch is named by its fork: the agent that forked, a dot, the child.
    """
    branch: list[str] = []
    names = (event.branch or "").split(".")
    position = 0
    for parent, child in pairwise(segments[:depth]):
        pair = [_plain(parent), child.partition("~")[0]]
        if names[position : position + 2] == pair:
            branch += pair
            position += 2
    return ".".join(branch) or None


def _plain(segment: str) -> str:
    return re.split("[@~]", segment, maxsplit=1)[0]


@final
class _Names:
    """Names for agents: those of the log, made identifiers and different."""

    def __init__(self) -> None:
        self._taken: set[str] = {USER}

    def give(self, wanted: str) -> str:
        """Return a name like ``wanted`` that nobody has."""
        name = base = re.sub(r"\W", "_", wanted)
        number = 1
        while name in self._taken or not name.isidentifier() or iskeyword(name):
            number += 1
            name = f"{base}_{number}" if base.isidentifier() else f"agent_{base}_{number}"
        self._taken.add(name)
        return name


def _agent_of(node: _Node, names: _Names) -> Agent:
    segment = node.path.rpartition("/")[2]
    name = names.give(segment)
    parts = list(_parts(node))
    if not parts:
        return scripted(name)
    if len(parts) == 1 and isinstance(parts[0], tuple):
        return scripted(name, *parts[0])
    if len(parts) == 1 and isinstance(parts[0], list):
        children = [_agent_of(child, names) for child in parts[0]]
        return ParallelAgent(name, children, barrier=BestEffort())
    line: list[Agent] = []
    for part in parts:
        match part:
            case _Node():
                line.append(_agent_of(part, names))
            case tuple():
                line.append(scripted(names.give(f"{segment}_itself"), *part))
            case list():
                fan = names.give(f"{segment}_branches")
                children = [_agent_of(child, names) for child in part]
                line.append(ParallelAgent(fan, children, barrier=BestEffort()))
    return SequentialAgent(name, line)


def _parts(node: _Node) -> Iterator[tuple[ScriptStep, ...] | list[_Node] | _Node]:
    """Yield what an activation did, in order: steps, branches side by side, agents in place."""
    steps: list[ScriptStep] = []
    branches: list[_Node] = []
    for item in [*node.items, None]:
        if isinstance(item, Event):
            steps += _steps(item)
            continue
        if isinstance(item, _Node) and item.branch != node.branch:
            if steps:
                yield tuple(steps)
                steps = []
            branches.append(item)
            continue
        if branches:
            yield branches
            branches = []
        if steps:
            yield tuple(steps)
            steps = []
        if item is not None:
            yield item


def _steps(event: Event) -> Iterator[ScriptStep]:
    delta = {key: thaw(value) for key, value in event.state_delta.items()}
    if event.text or delta:
        yield emits(event.text, state_delta=delta)
    if event.actions.escalate:
        yield escalates()
    if event.output is not None:
        yield outputs(thaw(event.output))


@attrs.frozen
class OtherState:
    """Another order, and the state it ends with.

    Attributes:
        recorded: the state after the run that was recorded, as far as it wrote any.
        other: the state after the other order.
        schedule: that order.
        keys: in which they differ.
        report: the run, drawn.
    """

    recorded: Mapping[str, Any]
    other: Mapping[str, Any]
    schedule: Schedule
    keys: tuple[str, ...]
    report: str


def find_other_state(
    events: Sequence[Event],
    *,
    max_schedules: int = 1_000,
    seed: int = 0,
    ignore: Collection[str] = (),
) -> OtherState | Exploration:
    """Look for an order of the recorded events after which the state is another.

    Returns it; or, if none was found, how much was explored. What becomes of the keys in
    ``ignore`` does not count. A key with a reducer is one to ignore: in a log stands what the
    contributions had come to by then, and not what each was.

    Raises:
        LogError: see `recorded_tree`.
    """
    recorded: dict[str, Any] = {}
    for event in events:
        if event.author != USER:
            recorded.update(_kept(event.state_delta, ignore))
    tree = recorded_tree(events)

    def check(result: Any) -> None:
        assert _kept(result.state, ignore) == recorded  # noqa: S101  # what is looked for

    try:
        return explore(lambda: tree, check, max_schedules=max_schedules, seed=seed)
    except ExplorationError as error:
        result = error.trial.result
        if result is None:
            raise
        other = _kept(result.state, ignore)
        keys = tuple(
            sorted(key for key in {*recorded, *other} if recorded.get(key) != other.get(key))
        )
        return OtherState(recorded, other, error.trial.schedule, keys, error.drawing)


def _kept(state: Mapping[str, Any], ignore: Collection[str]) -> dict[str, Any]:
    """Return what counts of a state: not what lives no longer than a run."""
    return {
        key: thaw(value)
        for key, value in state.items()
        if key not in ignore and not key.startswith(TEMP_PREFIX)
    }


def as_test(events: Sequence[Event], found: OtherState) -> str:
    """Return a file for pytest that shows what was found: its one test fails."""
    tree = recorded_tree(events)
    code = as_code(tree)
    ours = [name for name in ("BestEffort", "ParallelAgent", "SequentialAgent") if name in code]
    steps = [name for name in ("emits", "escalates", "outputs", "scripted") if f"{name}(" in code]
    imports = f"from parallel_agent import {', '.join(ours)}\n" if ours else ""
    return f'''\
"""Written by `parallel-agent replay`: the final state depends on who goes when.

Recorded: {_short(found.recorded, found.keys)}
Under the schedule below: {_short(found.other, found.keys)}
"""

{imports}from parallel_agent.testing import {", ".join(["Schedule", *sorted([*steps, "replay"])])}


def make_tree():
    return {_indented(code)}


def check(result):
    assert {{key: result.state.get(key) for key in {list(found.keys)}}} == {
        {key: found.recorded.get(key) for key in found.keys}
    }


def test_the_final_state_does_not_depend_on_who_goes_when():
    replay(make_tree, check, {found.schedule!r})
'''


def _short(state: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key} = {state.get(key)!r:.60}" for key in keys)


def _indented(code: str) -> str:
    return code.replace("\n", "\n    ")
