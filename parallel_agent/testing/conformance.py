"""Whether an agent keeps to what the runtime expects of agents.

`check_agent` runs an agent once as it is, and once more for each place at which it waits, where it
is cancelled. Services have suites of their own: `session.conformance` for sessions, and the ones
beside it for artifacts and memories.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import attrs

from parallel_agent.agent import Agent
from parallel_agent.errors import EmitError, UncancellableAgentError
from parallel_agent.lifecycle import Status
from parallel_agent.notes import members
from parallel_agent.run import Run
from parallel_agent.runner import Runner
from parallel_agent.testing.control import Actor
from parallel_agent.testing.errors import DeadlockError, EndlessRunError
from parallel_agent.testing.steps import Step
from parallel_agent.testing.trial import MakeRunner, Trial, check_maker, run_once
from parallel_agent.testing.waits import describe_wait
from session.content import Content
from session.state import UnstorableError

__all__ = ["AgentFaultError", "AgentReport", "check_agent"]

MAX_CLEAN_UP = 1_000
"""How many steps a clean-up may take."""


@attrs.frozen
class AgentReport:
    """What was tried.

    Attributes:
        events: how many events the agent emitted when it was left alone.
        status: how that run ended.
        cancelled: at how many places it was cancelled.
    """

    events: int
    status: Status
    cancelled: int


class AgentFaultError(AssertionError):
    """An agent does what agents must not do. The message says what, where, and what to write."""


def check_agent(
    make_agent: Callable[[], Agent],
    *,
    message: str | Content | None = None,
    read: Callable[[Run], Awaitable[object]] | None = None,
    make_runner: MakeRunner = Runner,
    max_steps: int = 10_000,
) -> AgentReport:
    """Check that an agent honours cancellation, wherever it comes, and leaves nothing behind.

    It is run with a clock that stands still until nothing else can happen, so waiting takes no
    time; and with one schedule. It may fail, and it may end by itself: that is its business.

    Args:
        make_agent: makes the agent, anew for each run.
        message: what each run is started with.
        read: reads the run, sends messages, answers; by default, reads to the end.
        make_runner: makes the runner; see `explore`.
        max_steps: how many steps are a run that never ends.

    Raises:
        AgentFaultError: it swallows its cancellation; or goes on for ever when it is cancelled; or
            never ends, or waits for what never comes, when it is left alone; or emits what is no
            event, or cannot be stored.
        TypeError: ``make_agent`` is no function that makes it.
    """
    check_maker("make_agent", make_agent)
    probe = _Probe(make_agent, message, read, make_runner, max_steps)
    undisturbed = _CancelAt(None)
    alone = probe.run(undisturbed)
    if isinstance(alone.error, DeadlockError | EndlessRunError):
        message_ = f"left alone, the agent does not come to an end: {alone.error}"
        if isinstance(alone.error, DeadlockError) and read is None:
            message_ += "\nIf it waits for an answer or a message, give it one: `read=...`"
        raise AgentFaultError(message_) from alone.error
    _check_emitted(alone, "left alone")
    if alone.swallowed:
        message_ = (
            f"{', '.join(alone.swallowed)} swallows trio.Cancelled; catch `Exception`, not "
            "`BaseException`, or raise it again"
        )
        raise AgentFaultError(message_)
    for place in range(1, undisturbed.choices + 1):
        probe.cancel_at(place)
    result = alone.result
    return AgentReport(
        events=0 if result is None else len(result.events),
        status=Status.FAILED if result is None else result.status,
        cancelled=undisturbed.choices,
    )


@attrs.frozen(eq=False)
class _Probe:
    """Runs the agent, again and again."""

    make_agent: Callable[[], Agent]
    message: str | Content | None
    read: Callable[[Run], Awaitable[object]] | None
    make_runner: MakeRunner
    max_steps: int

    def run(self, chooser: _CancelAt) -> Trial:
        """Run it once, and cancel it where ``chooser`` says."""

        async def read(run: Run) -> None:
            chooser.run = run
            if self.read is not None:
                await self.read(run)
            async for _ in run:
                pass

        return run_once(
            self.make_agent,
            chooser,
            message=self.message,
            read=read,
            make_runner=self.make_runner,
            max_steps=self.max_steps if chooser.place is None else chooser.place + MAX_CLEAN_UP,
        )

    def cancel_at(self, place: int) -> None:
        """Cancel the run at its ``place``-th wait, and see what the agent makes of it."""
        chooser = _CancelAt(place)
        trial = self.run(chooser)
        error = trial.error
        if isinstance(error, EndlessRunError):
            what = "goes on for ever; let trio.Cancelled pass, and let loops that clean up end"
        elif isinstance(error, DeadlockError):
            what = f"waits, behind a shield, for what never comes: {error}"
        elif trial.swallowed or isinstance(error, UncancellableAgentError):
            what = (
                "swallows trio.Cancelled and goes on; catch `Exception`, not `BaseException`, or "
                "raise it again"
            )
        else:
            _check_emitted(trial, f"cancelled {chooser.where}")
            return
        who = f" ({', '.join(trial.swallowed)})" if trial.swallowed else ""
        message = f"cancelled {chooser.where}, the agent{who} {what}"
        raise AgentFaultError(message) from error


def _check_emitted(trial: Trial, when: str) -> None:
    error = _refused(trial.error)
    if error is not None:
        path = ", ".join(getattr(trial.error, "__notes__", ()))
        who = f" ({path})" if path else ""
        message = f"{when}, the agent emits what it must not: {error}{who}"
        raise AgentFaultError(message) from trial.error


def _refused(error: BaseException | None) -> BaseException | None:
    """Return the refusal of an event, if that is what it is, or one of a group."""
    if error is None or isinstance(error, EmitError | UnstorableError):
        return error
    return next(filter(None, map(_refused, members(error))), None)


class _CancelAt:
    """The first goes; at one place, the run is cancelled before."""

    def __init__(self, place: int | None) -> None:
        """Cancel at the ``place``-th choice, counted from 1; None leaves the run alone."""
        self.place = place
        self.choices = 0
        self.where = "before it began"
        self.run: Run | None = None
        self._last: Step | None = None

    def choose(self, actors: Sequence[Actor]) -> int:
        """Choose the first."""
        self._count(actors)
        return 0

    def note(self, step: Step) -> None:
        """Cancel while it waits for time to pass, too."""
        if step.actor == "time":
            self._count([])
        else:
            self._last = step

    def _count(self, actors: Sequence[Actor]) -> None:
        self.choices += 1
        if self.choices == self.place and self.run is not None:
            where = [describe_wait(actor.work) for actor in actors if actor.work is not None]
            self.where = f"at wait {self.place} ({', '.join(where) or 'for time to pass'})"
            self.run.cancel("check_agent")
