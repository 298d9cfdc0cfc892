"""Fork and go on: branches that an agent starts while it runs, and steers while they do.

``async with ctx.open_fan_out() as group`` is a fan-out whose width nobody knows in advance. The
agent stays in the block, emits, waits for results or does not; the branches' events come out of
the same stream as its own.

Order: branches start in the order of `FanOut.start`. Cancellation: leaving the block waits for
the branches; leaving it by an exception cancels them first. When the policy cancels the rest
because of a failure, what the block is doing is cancelled as well. Errors: those that nobody has
awaited are raised by the block.
"""

# A handle and its block, a tap and its reader, are one thing in two classes.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from operator import itemgetter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, final

import trio
from trio.lowlevel import enable_ki_protection

from parallel_agent.activation import NO_INPUT, Activation
from parallel_agent.agent import Agent, check_agent
from parallel_agent.barrier import Barrier, Outcome
from parallel_agent.branch import Branch
from parallel_agent.crew import Crew, Task, note_trouble
from parallel_agent.drive import pass_on, raise_unless_left_open, suspend
from parallel_agent.errors import BranchCancelledError, FanOutError, RunEndedError
from parallel_agent.inputs import given_input
from parallel_agent.judge import after_cancellation, split_cancellation
from parallel_agent.lifecycle import Status, checked_reason
from parallel_agent.limiter import Entrance, Limiter, Slots
from parallel_agent.notes import note_other
from parallel_agent.post import send_to
from session.content import Content
from session.event import Event

__all__ = ["FanOut", "Handle", "OpenFanOut"]


@final
class Handle:
    """One branch of an open fan-out. ``await handle`` waits for its output.

    Awaited, its error is raised there, as itself, and the block does not raise it again.
    """

    def __init__(self, crew: Crew, task: Task, position: int, activation: Activation) -> None:
        """Made by `FanOut.start`."""
        self._crew = crew
        self._task = task
        self._position = position
        self._first = activation
        self._ended = trio.Event()
        self._outcome: Outcome | None = None
        self._handled = False

    @property
    def name(self) -> str:
        """The branch's agent, with its number or key."""
        return self._task.name

    @property
    def branch(self) -> str:
        """The branch, dotted: where to send messages, and what its events carry."""
        return self._activation.place.branch or ""

    @property
    def path(self) -> str:
        """Its activation's path, slashed."""
        return self._activation.place.path

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._outcome is not None

    @property
    def _activation(self) -> Activation:
        # Another one each time that a person lets it be tried again.
        return self._crew.again.get(self._position, self._first)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._output().__await__()

    async def _output(self) -> Any:
        outcome = await self.outcome()
        if outcome.error is not None:
            self._handled = True
            pass_on(self._crew.owner, self._activation, outcome.error)
            raise outcome.error
        if outcome.status is Status.WAITING:
            await suspend(self._crew.owner)
        if outcome.status is not Status.COMPLETED:
            message = f"branch {self.name!r} was cancelled, and has no output"
            raise BranchCancelledError(message)
        return outcome.output

    async def outcome(self) -> Outcome:
        """Wait until it has ended, and return how. Raises nothing of the branch's own."""
        await self._ended.wait()
        outcome = self._outcome
        if outcome is None:
            raise AssertionError
        return outcome

    def cancel(self, reason: str = "cancelled by its handle") -> None:
        """Cancel it. Does not wait: ``await handle.outcome()`` does. The others go on."""
        reason = checked_reason(reason)
        if self._outcome is None:
            self._crew.cancel_one(self._activation, reason)

    async def send(self, content: str | Content) -> Event:
        """Send it a message; see `InvocationContext.receive`. Does not wait for its being read.

        Raises:
            MessageRefusedError: it has ended, or its inbox is full.
        """
        await trio.lowlevel.checkpoint()
        owner = self._crew.owner
        return send_to(self._activation, content, author=owner.agent.name)

    def __repr__(self) -> str:
        status = self._activation.status if self._outcome is None else self._outcome.status
        return f"<Handle {self.name}: {status}>"


@final
class FanOut:
    """An open fan-out, inside its block. Made by ``ctx.open_fan_out()``."""

    def __init__(
        self,
        crew: Crew,
        nursery: trio.Nursery,
        gate: Limiter | None,
        number: Callable[[str], int | str],
    ) -> None:
        """Made by the block."""
        self._number = number
        self._crew = crew
        self._nursery = nursery
        self._gate = gate
        self._handles: list[Handle] = []
        self._finished: deque[Handle] = deque()
        self._running = 0
        self._news = trio.lowlevel.ParkingLot()
        # Of a resumed run: branches that had ended, and how they come after each other; those that
        # are still to be brought to their end, and those that have been.
        self._due: dict[Activation, tuple[int, bool]] = {}
        self._ended_before: dict[Handle, tuple[int, bool]] = {}
        self._open = True

    def start(self, agent: Agent, input: Any = NO_INPUT, *, key: str | None = None) -> Handle:
        """Start ``agent`` on a branch of its own, and go on. What is written is recorded first.

        Args:
            agent: of this tree or any other; as often as wanted.
            input: what it is to work on: JSON, or objects that have a JSON form. Without it,
                what this agent works on.
            key: names the branch, ``agent@key``, instead of its number.

        When the policy has cancelled the rest, or a branch has escalated, it is cancelled before
        it starts.

        Raises:
            FanOutError: the block has ended, or the key is no name, or was used by this agent
                for the other one before.
            TreeError: ``agent`` is no agent.
            UnstorableError: ``input`` has no JSON form.
        """
        check_agent(agent, "what start() was given")
        owner = self._crew.owner
        if not self._open:
            message = f"the fan-out of {owner.agent.name!r} has ended; start branches in its block"
            raise FanOutError(message)
        plain = given_input(input, agent.name)
        number = self._number(agent.name) if key is None else self._checked_key(agent, key)
        task = Task(agent, plain, number)
        child = self._crew.fork(task)
        if self._crew.closed:
            child.scope.cancel("the fan-out has been decided: nothing more starts in it")
        gate = None if self._gate is None else Slots((self._gate,))
        child.entrance = Entrance(gate, partial(self._settle, child.lane.branch))
        position = len(self._handles)
        handle = Handle(self._crew, task, position, child)
        self._handles.append(handle)
        replay = owner.invocation.replay
        due = None if replay is None else replay.ended_at(child)
        if due is not None:
            self._due[child] = due
        elif replay is not None and replay.has_escalated(child.begun.path):
            child.escalate()
        self._running += 1
        self._nursery.start_soon(self._watch, position, handle, child)
        return handle

    async def _settle(self, branch: Branch) -> None:
        """Record what the owner has written since the start; let the branch see that.

        What it sees of its siblings is what had joined when it started, or, if it had to wait for
        its turn, when that came.
        """
        forked = branch.forked
        await self._crew.settle(branch)
        if self._crew.owner.invocation.replay is not None and self._gate is None:
            # Resumed, siblings that had ended join at once: for this one, too early.
            branch.forked = forked

    def _checked_key(self, agent: Agent, key: str) -> str:
        plain = key.replace("_", "").replace("-", "") if isinstance(key, str) else ""
        if not plain.isalnum() or key.isdigit():
            message = f"a key is letters, digits, - and _, not digits alone; not {key!r:.80}"
            raise FanOutError(message)
        # Of the activation, not of the block: paths are unique in a run. No name has an @ in it.
        if self._crew.owner.next_number(f"{agent.name}@{key}") > 1:
            message = (
                f"keys are unique within one activation of {self._crew.owner.agent.name!r}; "
                f"{key!r} was used for {agent.name!r} before"
            )
            raise FanOutError(message)
        return key

    @enable_ki_protection
    async def _watch(self, position: int, handle: Handle, child: Activation) -> None:
        due = self._due.get(child)
        try:
            if due is not None:
                for other, before in sorted(self._due.items(), key=itemgetter(1)):
                    if before < due:
                        await self._crew.weighed(other)
                if due[1]:
                    self._crew.seal(child)
            await self._crew.watch(position, child)
        finally:
            self._due.pop(child, None)
            self._crew.let_go(child)
        outcome = self._crew.outcomes[position]
        handle._outcome = outcome  # noqa: SLF001  # a handle and its block are one thing
        handle._ended.set()  # noqa: SLF001
        branch = child.lane.branch
        branch.joined = branch.joined or child.invocation.tick()
        self._running -= 1
        self._finished.append(handle)
        if due is not None:
            self._ended_before[handle] = due
        self._news.unpark_all()

    @property
    def handles(self) -> tuple[Handle, ...]:
        """All that were started, in order."""
        return tuple(self._handles)

    @property
    def finished(self) -> _Finished:
        """The handles of the branches as they end: ``async for handle in group.finished``.

        Each is given once. Iteration ends when none is running and all have been given.
        """
        return _Finished(self)

    async def _next_finished(self) -> Handle | None:
        await trio.lowlevel.checkpoint()
        while not self._finished:
            if not self._running:
                return None
            await self._news.park()
        if self._ended_before:
            # Before others, in their order, in whatever order this execution has started them.
            order = self._ended_before
            over = [handle for handle in self._finished if handle in order]
            if over:
                handle = min(over, key=order.__getitem__)
                self._finished.remove(handle)
                return handle
        return self._finished.popleft()

    def cancel(self, reason: str = "cancelled by its fan-out") -> None:
        """Cancel all that still run. Does not wait; more may be started."""
        self._crew.cancel(checked_reason(reason))

    # The block's side.

    def _close(self) -> list[Outcome]:
        outcomes = self._crew.join(enumerate(handle._task for handle in self._handles))  # noqa: SLF001
        self._open = False
        return outcomes

    def _errors_handled(self) -> set[str]:
        """Return the paths of the branches whose error somebody has awaited."""
        return {
            handle._outcome.path  # noqa: SLF001
            for handle in self._handles
            if handle._handled and handle._outcome is not None  # noqa: SLF001
        }

    def __repr__(self) -> str:
        return f"<FanOut of {self._crew.owner.agent.name}: {self._running} running>"


@final
class _Finished:
    def __init__(self, group: FanOut) -> None:
        self._group = group

    def __aiter__(self) -> _Finished:
        return self

    async def __anext__(self) -> Handle:
        handle = await self._group._next_finished()  # noqa: SLF001  # the other half of it
        if handle is None:
            raise StopAsyncIteration
        return handle


_NEEDS_BLOCK: Final = (
    "a fan-out needs its block: `async with ctx.open_fan_out() as group:` and, inside it, "
    "`group.start(agent, input)`"
)


@final
class OpenFanOut:
    """What ``ctx.open_fan_out()`` returns: ``async with`` it."""

    def __init__(
        self,
        owner: Activation,
        barrier: Barrier,
        max_concurrency: int | None,
        number: Callable[[str], int | str],
    ) -> None:
        """Made by `InvocationContext.open_fan_out`; ``number`` numbers the branches of an agent."""
        self._number = number
        self._crew = Crew(owner, barrier, width=None)
        self._gate = None if max_concurrency is None else Limiter(max_concurrency)
        self._nursery: Any = None
        self._body = trio.CancelScope()
        self._was_ended = False
        self._group: FanOut | None = None

    # Without its block. A type checker is not told of these, and so finds the mistake itself.
    if not TYPE_CHECKING:

        def __enter__(self) -> NoReturn:
            raise FanOutError(_NEEDS_BLOCK)

        def __exit__(self, *_details: object) -> None:
            """Never called; here so that `__enter__` can say what is wrong."""

        def __await__(self) -> NoReturn:
            raise FanOutError(_NEEDS_BLOCK)

        def __aiter__(self) -> NoReturn:
            raise FanOutError(_NEEDS_BLOCK)

        def __getattr__(self, name: str) -> NoReturn:
            if not name.startswith("_") and hasattr(FanOut, name):
                raise FanOutError(_NEEDS_BLOCK)
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            raise AttributeError(message)

    @enable_ki_protection
    async def __aenter__(self) -> FanOut:
        owner = self._crew.owner
        if self._group is not None:
            message = "this fan-out was opened already; call ctx.open_fan_out() again"
            raise FanOutError(message)
        if owner.status is not Status.RUNNING:
            owner.refuse()
        await owner.flush()
        await trio.lowlevel.checkpoint_if_cancelled()
        owner.slots.step_aside()
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        self._crew.on_failure = self._end_body
        self._group = FanOut(self._crew, nursery, self._gate, self._number)
        self._body.__enter__()
        return self._group

    def _end_body(self, reason: str) -> None:
        self._was_ended = True
        self._body.cancel(reason)

    @enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Literal[False]:
        crew, group = self._crew, self._group
        if group is None:
            return False
        raised = error
        try:
            if self._body.__exit__(kind, error, trace):
                error = None
        except BaseException as exc:  # noqa: BLE001  # what was left of a group; or scopes out of order
            error = exc
        failure, aside = self._weigh(error)
        if error is not None:
            crew.closed = True
            crew.cancel(f"the fan-out's block raised {type(error).__name__}")
        left = await self._join()
        if failure is None:
            failure = left
        else:
            note_trouble(failure, left)
        outcomes = group._close()  # noqa: SLF001  # the block and its handle are one thing
        if failure is None:
            await self._answer(group, outcomes, aside)
            return False
        crew.owner.slots.stay_aside()
        note_trouble(failure, await crew.record(outcomes))
        note_trouble(failure, crew.broken)
        crew.let_questions_go(outcomes)
        for outcome in outcomes:
            if outcome.error is not None and outcome.error is not failure:
                note_other(failure, outcome.path, outcome.error)
        if failure is raised:
            return False
        raise failure

    def _weigh(
        self, error: BaseException | None
    ) -> tuple[BaseException | None, BaseException | None]:
        """Tell what the block has failed with from what comes after a failure of its branches."""
        owner = self._crew.owner
        if error is None:
            return None, None
        if isinstance(split_cancellation(owner, error), trio.Cancelled | RunEndedError):
            return None, error
        # A failure that ended the block is what went wrong, and not what came of ending it.
        if self._was_ended and isinstance(error, Exception) and after_cancellation(owner, error):
            return None, error
        return error, None

    async def _join(self) -> BaseException | None:
        """Wait until all branches have ended; return what the nursery raised."""
        try:
            await self._nursery.__aexit__(None, None, None)
        except BaseExceptionGroup as left:
            try:
                raise_unless_left_open(left, self._crew.failed.values())
            except BaseException as exc:  # noqa: BLE001  # the caller raises it
                return exc
        except BaseException as exc:  # noqa: BLE001  # as above
            return exc
        return None

    async def _answer(
        self, group: FanOut, outcomes: list[Outcome], aside: BaseException | None
    ) -> None:
        handled = set[str]() if self._was_ended else group._errors_handled()  # noqa: SLF001  # as above
        try:
            await self._crew.answer(outcomes, handled=handled)
        except BaseException as exc:
            note_trouble(exc, aside)
            raise
        if aside is not None:
            raise aside
