"""What all activations of one run of a tree share, and how one run behaves."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Literal, Protocol

import attrs
import trio

from parallel_agent.barrier import Outcome
from parallel_agent.limiter import Limiter
from parallel_agent.shared_state import SharedState
from parallel_agent.steering import Gate, Steering
from parallel_agent.stream import Stream
from session.artifact import ArtifactService
from session.content import Content
from session.memory import MemoryService
from session.session import SessionKey

if TYPE_CHECKING:
    # For annotations only: an emit hands its event to the plugins, which take contexts.
    from parallel_agent.plugins import Plugins

__all__ = ["Counts", "Engine", "IdleWatch", "Invocation", "RunConfig"]


def _is_count(_config: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if type(value) is not int or value < 1:
        message = f"{attribute.name} is a whole number from 1 on, not {value!r:.80}"
        raise ValueError(message)


def _is_count_or_none(_config: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (type(value) is not int or value < 0):
        message = f"{attribute.name} is a whole number, or None for all, not {value!r:.80}"
        raise ValueError(message)


def _is_way_to_wait(_config: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in ("stay", "suspend"):
        message = f"{attribute.name} is 'stay' or 'suspend', not {value!r:.80}"
        raise ValueError(message)


@attrs.frozen
class RunConfig:
    """How one run behaves.

    Attributes:
        max_threads: how many plain functions may run at a time, each in a thread of its own;
            the others wait for one to end.
        max_concurrency: how many agents may work at a time, at any depth; None is without
            limit. An agent that waits for agents below it, a person or a message does not count.
        inbox_size: how many messages may wait for one branch.
        num_recent_events: how many of the events that were recorded before it a run reads at its
            start, the newest ones: `InvocationContext.history` begins with them. None is all.
        max_llm_calls: how often models may be asked, by all agents together; then an agent that
            would ask fails with `CallLimitError`. None is without limit. Resumed, a run counts
            anew.
        on_wait: what becomes of a question that the reader has not answered when it comes back:
            ``"stay"`` waits on; ``"suspend"`` ends the agent as ``waiting``, at once, and with
            it the run when nothing else is left to do. Messages are waited for in either case.
    """

    max_threads: int = attrs.field(default=64, validator=_is_count)
    max_concurrency: int | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(_is_count)
    )
    inbox_size: int = attrs.field(default=64, kw_only=True, validator=_is_count)
    num_recent_events: int | None = attrs.field(
        default=1_000, kw_only=True, validator=_is_count_or_none
    )
    max_llm_calls: int | None = attrs.field(default=None, kw_only=True, validator=_is_count_or_none)
    on_wait: Literal["stay", "suspend"] = attrs.field(
        default="stay", kw_only=True, validator=_is_way_to_wait
    )


@attrs.define(eq=False)
class Counts:
    """How many activations have started and ended, by status. Written by `Activation` alone."""

    started: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    waiting: int = 0


class IdleWatch:
    """Watches the time between two events of an agent and those below it.

    The clock stands while an event waits for the reader, or somebody waits for a person or a
    message: that is nobody's idleness.
    """

    __slots__ = ("outer", "pauses", "scope", "seconds")

    def __init__(self, scope: trio.CancelScope, seconds: float, outer: IdleWatch | None) -> None:
        """Cancel ``scope`` after so many seconds without an event; start the clock."""
        self.scope = scope
        self.seconds = seconds
        self.outer = outer
        self.pauses = 0
        scope.deadline = trio.current_time() + seconds

    def pause(self, end: IdleWatch | None = None) -> None:
        """Stop the clock, and those further out, up to that of ``end``, which goes on."""
        watch: IdleWatch | None = self
        while watch is not None and watch is not end:
            watch.pauses += 1
            watch.scope.deadline = math.inf
            watch = watch.outer

    def resume(self, end: IdleWatch | None = None) -> None:
        """Start it anew, once for each time it was stopped."""
        watch: IdleWatch | None = self
        while watch is not None and watch is not end:
            watch.pauses -= 1
            if not watch.pauses:
                watch.scope.deadline = trio.current_time() + watch.seconds
            watch = watch.outer


class Engine(Protocol):
    """What starts activations: the floors above, as an activation may call them."""

    @property
    def run_child(self) -> Callable[..., Any]:
        """`parallel_agent.drive.run_child`."""
        ...

    @property
    def fan_out(self) -> Callable[..., Any]:
        """`parallel_agent.fan_out.fan_out`."""
        ...

    @property
    def task(self) -> Callable[..., Any]:
        """`parallel_agent.fan_out.Task`."""
        ...

    @property
    def suspend(self) -> Callable[..., Any]:
        """`parallel_agent.drive.suspend`."""
        ...

    @property
    def open_agent(self) -> Callable[..., Any]:
        """`parallel_agent.tap.OpenAgent`."""
        ...

    @property
    def open_group(self) -> Callable[..., Any]:
        """`parallel_agent.group.OpenFanOut`."""
        ...


@attrs.define(eq=False)
class Invocation:
    """What the activations of one run share."""

    id: str
    key: SessionKey
    user_content: Content | None
    config: RunConfig
    stream: Stream
    shared: SharedState
    threads: trio.CapacityLimiter
    engine: Engine
    plugins: Plugins
    artifacts: ArtifactService
    memory: MemoryService
    random: Random
    requests: Any  # of `parallel_agent.questions`, which stands above
    steering: Steering | None
    gate: Gate | None  # the plugins, if they look at events, and what steers
    attended: bool = True  # somebody holds the run, and can answer questions
    journal: Any = None  # of `parallel_agent.journal`, which stands above; None: not resumable
    replay: Any = None  # of `parallel_agent.replay`, likewise; None: not resumed
    effects: dict[tuple[str, str], tuple[str, Any]] = attrs.Factory(
        dict[tuple[str, str], tuple[str, Any]]
    )
    limiter: Limiter | None = None
    counts: Counts = attrs.field(factory=Counts)
    outcomes: dict[str, tuple[Outcome, ...]] = attrs.Factory(dict[str, tuple[Outcome, ...]])
    outputs: dict[str, Any] = attrs.Factory(dict[str, Any])
    void: set[int] | None = None  # the events of earlier runs that nobody sees; found when needed
    llm_calls: int = 0  # how often models have been asked; counted by the agents that ask
    _tick: int = 0

    def horizon(self) -> int:
        """Return the number of the newest event that a branch forked now may see."""
        last_seq = self.stream.session.last_seq
        if self.replay is None:
            return last_seq
        horizon: int = self.replay.horizon(last_seq)
        return horizon

    def limiters(self, own: Limiter | None) -> tuple[Limiter, ...]:
        """Return what limits an agent: its own limiter, then the run's."""
        if own is None:
            return () if self.limiter is None else (self.limiter,)
        return (own,) if self.limiter is None else (own, self.limiter)

    async def call_in_thread(
        self, function: Callable[..., Any], *arguments: Any, abandon_on_cancel: bool = False
    ) -> Any:
        """Call a plain function in a thread of its own; here and now, if a test steers the run.

        Waits for one of the run's threads. A cancellation waits for the function's end, unless it
        is to be abandoned.
        """
        if self.steering is not None and self.steering.inline:
            return await self.steering.call(function, *arguments)
        return await trio.to_thread.run_sync(
            function, *arguments, abandon_on_cancel=abandon_on_cancel, limiter=self.threads
        )

    def tick(self) -> int:
        """Return the next tick of the counter that orders forks and joins."""
        self._tick += 1
        return self._tick
