"""Running a graph: each node on a branch of its own, as soon as its own inputs are there.

The fan-out engine's crew watches, cancels, joins and answers, so policies, limits, questions and
resuming are what they are for every fan-out. What starts when is for `Progress` to say; who
listens to whom as well: a node sees what the nodes had said that had to end before it could start,
and nothing of those that happened to.

Order: nodes that become ready together start in declaration order; outcomes are in declaration
order, then by rounds. Cancellation: whoever is cancelled is joined before anything is answered, and
no node starts meanwhile. Errors: the barrier's policy chooses; what a condition raises ends the
graph, as itself.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import Any

import attrs
import trio
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    enable_ki_protection,
)

from parallel_agent.activation import NO_INPUT, Activation
from parallel_agent.barrier import Barrier, Outcome
from parallel_agent.crew import Crew, Task
from parallel_agent.drive import leave_nursery
from parallel_agent.errors import StateError
from parallel_agent.graph.definition import Definition
from parallel_agent.graph.documents import Board, SharedText
from parallel_agent.graph.feeding import fed
from parallel_agent.graph.progress import Progress, Start
from parallel_agent.graph.routes import Said
from parallel_agent.inputs import given_input
from parallel_agent.lifecycle import Status

__all__ = ["run_graph"]


@enable_ki_protection  # an interrupt inside `start_soon` would leave a task that never runs
async def run_graph(
    owner: Activation, definition: Definition, *, barrier: Barrier, max_concurrency: int | None
) -> Any:
    """Run the nodes of a graph below ``owner``; return its output when all have ended.

    The documents are then in the state of ``owner``.

    Raises:
        BaseException: the failure that ``barrier`` chooses, or what a condition raised.
    """
    crew = Crew(owner, barrier, width=None)
    await owner.flush()
    await checkpoint_if_cancelled()
    run = _GraphRun(crew, definition, max_concurrency)
    owner.slots.step_aside()
    try:
        async with trio.open_nursery() as nursery:
            run.nursery = nursery
            if owner.invocation.replay is not None:
                await run.replay()
            run.start()
    except BaseException as exc:  # noqa: BLE001  # raised again, but for what a branch has told
        leave_nursery(owner, exc, crew.failed.values())
    await crew.answer(run.close())
    run.keep_documents()
    return run.output()


def first_text(owner: Activation, board: Board) -> str:
    """Return what a document holds at first.

    Raises:
        StateError: its key holds no text, or has a reducer.
    """
    document = board.document
    if document.key is None:
        return document.initial or ""
    if document.key in owner.invocation.shared.reducers:
        why = "has a reducer; take that away, or give the document another key"
    else:
        held = owner.state.get(document.key, "")
        if document.initial is not None or isinstance(held, str):
            return held if document.initial is None else document.initial
        why = f"holds no text but {held!r:.80}"
    message = f"document {document.name!r} of graph {owner.agent.name!r}: state[{document.key!r}] "
    raise StateError(message + why)


@attrs.frozen(order=True)
class _Due:
    """A node whose end is recorded, by its place in the log."""

    order: tuple[int, bool]
    number: int
    start: Start = attrs.field(order=False)


class _GraphRun:
    """One run of a graph: who waits for a place, and who has started."""

    nursery: trio.Nursery

    def __init__(self, crew: Crew, definition: Definition, max_concurrency: int | None) -> None:
        self.progress = Progress(definition)
        self._documents = [
            SharedText(board, first_text(crew.owner, board)) for board in definition.boards
        ]
        self._crew = crew
        self._definition = definition
        self._places = max_concurrency
        self._waiting: deque[Start] = deque()
        self._started: list[tuple[Start, Task]] = []  # by position
        self._at_work: set[Activation] = set()  # of those that had ended, while they end again

    def start(self) -> None:
        """Start what is ready, as far as there are places."""
        crew = self._crew
        if crew.closed:
            return
        self._waiting.extend(self.progress.ready())
        while self._waiting and (self._places is None or self._places > 0) and not crew.closed:
            forked = self._fork(self._waiting.popleft())
            if forked is not None:
                if self._places is not None:
                    self._places -= 1
                self.nursery.start_soon(self._run, *forked)

    def _fork(self, start: Start) -> tuple[int, Activation] | None:
        """Make a node's branch; None if its input cannot be made, which ends the graph."""
        crew = self._crew
        agent = self._definition.nodes[start.node]
        given: Any = NO_INPUT
        try:
            if start.links:
                plain = fed(self._definition, start.node, start.links, start.outputs)
                given = given_input(plain, agent.name)
        except Exception as exc:  # noqa: BLE001  # raised when all have been joined
            crew.fail(exc)
            return None
        task = Task(agent, given, None if start.round == 1 else start.round)
        position = len(self._started)
        child = crew.fork(task)
        branch = child.lane.branch
        # Not by position: while a run is resumed, what had ended starts before what had not.
        branch.peers, branch.position, branch.after = self, start.position, start.after
        read = [one for one in self._documents if start.node in one.board.readers]
        if read:
            child.documents = {
                **child.documents,
                **{one.board.document.name: one.text(start.after) for one in read},
            }
        self._started.append((start, task))
        return position, child

    @enable_ki_protection
    async def _run(self, position: int, child: Activation) -> None:
        """Run a node to its end, and start what that makes ready."""
        try:
            await self._crew.watch(position, child)
        finally:
            self._at_work.discard(child)
        if self._places is not None:
            self._places += 1
        start, outcome = self._started[position][0], self._crew.outcomes[position]
        if outcome.status is Status.COMPLETED:
            for document in self._documents:
                document.write(start.node, start.position, start.after, outcome.output)
        self._decide(start, outcome, self._crew.again.get(position, child).route)
        self.start()

    def _decide(self, start: Start, outcome: Outcome, route: Any) -> None:
        progress = self.progress
        if outcome.status is Status.WAITING:
            return  # nothing is known of it, and of what comes after it, before it is answered
        if outcome.status is not Status.COMPLETED:
            progress.ended(start.node)
            return
        try:
            progress.completed(start.node, Said(outcome.output, route))
        except BaseException as exc:  # noqa: BLE001  # raised when all have been joined
            self._crew.fail(exc)

    @enable_ki_protection
    async def replay(self) -> None:
        """Let the nodes end that had ended, in that order, before others start.

        So the policy is asked what it was asked, and decides what it decided.
        """
        crew = self._crew
        replay = crew.owner.invocation.replay
        due: list[_Due] = []
        while True:
            for start in () if crew.closed else self.progress.ready():
                order = replay.order_of(f"{crew.owner.place.path}/{self._name(start)}")
                if order is None:
                    self._waiting.append(start)
                else:
                    heapq.heappush(due, _Due(order, start.node, start))
            forked = self._fork(heapq.heappop(due).start) if due else None
            if forked is None:
                return
            position, child = forked
            if self._places is not None:
                self._places -= 1
            if not crew.closed and replay.has_escalated(child.begun.path):
                child.escalate()  # it had ended the others, and not itself
                self.nursery.start_soon(self._run, position, child)
                continue
            if replay.was_cut_off(child):
                crew.seal(child)
            self._at_work.add(child)
            self.nursery.start_soon(self._run, position, child)
            while child in self._at_work and not crew.is_asking(child):
                await cancel_shielded_checkpoint()

    def _name(self, start: Start) -> str:
        name = self._definition.nodes[start.node].name
        return name if start.round == 1 else f"{name}@{start.round}"

    def close(self) -> list[Outcome]:
        """Join the branches; return how they ended, in the order of declaration."""
        started = sorted(
            enumerate(self._started), key=lambda item: (item[1][0].node, item[1][0].round)
        )
        return self._crew.join((position, task) for position, (_, task) in started)

    def keep_documents(self) -> None:
        """Write the documents that are kept into the state of the graph's own activation."""
        for one in self._documents:
            key = one.board.document.key
            if key is not None:
                self._crew.owner.state[key] = one.text()

    def output(self) -> Any:
        """Return what the graph comes to: of the node whose output goes nowhere, or of several."""
        definition, outputs = self._definition, self.progress.outputs
        sinks = definition.sinks
        if len(sinks) == 1:
            return outputs.get(sinks[0])
        return {definition.nodes[node].name: outputs[node] for node in sinks if node in outputs}
