"""What an agent keeps: artifacts, memories, and what its own next start is to know.

The part of `parallel_agent.context.InvocationContext` that writes to stores, and reads from them.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, TypeAlias, TypeVar, cast, overload

import attrs
import trio
from trio.lowlevel import checkpoint

from parallel_agent.activation import Activation
from parallel_agent.errors import EffectUnknownError, RequestError, UsageError
from parallel_agent.inputs import to_json
from parallel_agent.journal import layered
from parallel_agent.lifecycle import Status
from parallel_agent.past import Asked, bare
from parallel_agent.schema import misfit
from session.actions import EventActions
from session.artifact import Artifact
from session.content import Part
from session.event import Event
from session.memory import DEFAULT_LIMIT, MemoryEntry
from session.session import SessionKey
from session.state import UnstorableError, freeze

__all__ = ["Answered", "OnUnknown", "StoredContext"]

T = TypeVar("T")

OnUnknown: TypeAlias = Literal["raise", "retry"] | Callable[[], Any]
"""What to do about an effect whose end nobody knows: raise, do it again, or ask a function."""

_NEW: Final = ("new", None)


@attrs.frozen
class Answered:
    """An answer that an agent was given before the run was resumed.

    Attributes:
        id: the request's.
        prompt: the question.
        value: the answer, a JSON value.
    """

    id: str
    prompt: str
    value: Any


class StoredContext:
    """The part of a context that keeps things."""

    __slots__ = ("_activation",)

    def __init__(self, activation: Activation) -> None:
        """Made by the runtime."""
        self._activation = activation

    @property
    def session_key(self) -> SessionKey:
        """Application, user and id of the session."""
        return self._activation.invocation.key

    def _note(self, what: str) -> None:
        steering = self._activation.invocation.steering
        if steering is not None:
            steering.note(self._activation, what)

    def _running(self) -> Activation:
        activation = self._activation
        if activation.status is not Status.RUNNING:
            activation.refuse()
        return activation

    # Beside the session.

    async def save_artifact(self, name: str, artifact: Part | str | bytes) -> int:
        """Keep ``artifact`` under ``name``, and return its new version: 0, 1, 2, ...

        Text, bytes, or a part that holds one. Names beginning with ``user:`` are seen by all
        sessions of the user. When it is kept, an event of this agent records the version; a
        cancellation in between leaves the artifact and no event.

        Raises:
            ArtifactNameError: the name climbs out of its place, or is none.
            ArtifactTypeError: ``artifact`` is neither text nor bytes.
        """
        activation = self._running()
        await checkpoint()
        version = await activation.invocation.artifacts.save(self.session_key, name, artifact)
        await activation.emit(Event(actions=EventActions(artifact_delta={name: version})))
        return version

    async def load_artifact(self, name: str, *, version: int | None = None) -> Artifact | None:
        """Return what was kept under ``name``, if anything: that version, or the newest.

        Raises:
            ArtifactNameError: the name climbs out of its place, or is none.
        """
        await checkpoint()
        return await self._running().invocation.artifacts.load(
            self.session_key, name, version=version
        )

    async def list_artifacts(self) -> list[str]:
        """Return the names under which something is kept, for the session or the user, sorted."""
        await checkpoint()
        return await self._running().invocation.artifacts.list_names(self.session_key)

    async def search_memory(self, query: str, *, limit: int = DEFAULT_LIMIT) -> list[MemoryEntry]:
        """Return what earlier sessions of the user said about ``query``, the best match first."""
        await checkpoint()
        key = self.session_key
        return await self._running().invocation.memory.search(
            app_name=key.app_name, user_id=key.user_id, query=query, limit=limit
        )

    async def add_session_to_memory(self) -> None:
        """Let later sessions of the user remember this one, as recorded by now."""
        activation = self._running()
        await activation.flush()
        await checkpoint()
        await activation.invocation.memory.add_session(activation.invocation.stream.session)

    # For its own next start.

    async def checkpoint(self, value: Any) -> None:
        """Note how far this agent has got: resumed after this, it starts with `restored`.

        What it has emitted and written before is recorded by then, and stands. What it has
        started before, or asked, it will not start or ask again: numbers go on from here. Waits
        until the note is as durable as the session service makes it. Without
        ``Runner(resumable=True)``, only the state is recorded.

        Args:
            value: JSON, or an object that has a JSON form.

        Raises:
            UnstorableError: ``value`` has no JSON form. Nothing was noted.
        """
        activation = self._running()
        plain = freeze(to_json(value), "value")
        await checkpoint()
        await activation.flush()
        journal = activation.invocation.journal
        if journal is None:
            return
        note: dict[str, Any] = {"kind": "checkpoint", "numbers": dict(activation.numbers or {})}
        inbox = activation.lane.inbox
        received: list[int] = [] if inbox is None else inbox.received_by(activation)
        if received:
            note["received"] = received
        if activation.state.layer is not None:
            note |= layered(activation.state.layer.writes)
        await journal.write(activation, note, agent_state={"checkpoint": plain})

    @property
    def restored(self) -> Any:
        """What this agent has noted last, before it was cut off; None if it starts afresh."""
        replay = self._activation.invocation.replay
        found = None if replay is None else replay.checkpoint(self._activation)
        return None if found is None else found.value

    @property
    def answered(self) -> tuple[Answered, ...]:
        """The answers that this agent was given, since its checkpoint, before it was cut off.

        Not those that do not fit what was asked for. An agent may go on with them at once; or it
        runs again as before, and `request_input` returns each where it is asked for. Empty if it
        starts afresh.
        """
        replay = self._activation.invocation.replay
        asked: list[Asked] = [] if replay is None else replay.asked_by(self._activation)
        return tuple(
            Answered(request.id, request.prompt, one.value)
            for one in asked
            if one.answer is not None
            and (request := one.event.request) is not None
            and (request.schema is None or misfit(request.schema, one.value) is None)
        )

    # Two, though the second alone would do: of a coroutine function that returns nothing, type
    # checkers would not find out what T is.
    @overload
    async def once(
        self, key: str, fn: Callable[[], Awaitable[T]], *, on_unknown: OnUnknown = ...
    ) -> T: ...

    @overload
    async def once(self, key: str, fn: Callable[[], T], *, on_unknown: OnUnknown = ...) -> T: ...

    async def once(
        self, key: str, fn: Callable[[], Awaitable[T] | T], *, on_unknown: OnUnknown = "raise"
    ) -> T:
        """Do something outside that must not be done twice, and return its result.

        ::

            receipt = await ctx.once("refund", lambda: bank.refund(order))

        The intent is recorded before ``fn`` is called, the result after it; both are durable when
        that returns. Resumed or tried again, this agent gets the recorded result, and ``fn`` is
        not called. If its end is not known, because the process died in the middle, or ``fn`` was
        cancelled or ran out of time (`TimeoutError`, `trio.TooSlowError`), it is for
        ``on_unknown`` to say what to do. Any other exception says that nothing has happened: the
        next call tries again.

        Without ``Runner(resumable=True)`` all this holds for the attempts of one run.

        Args:
            key: names the effect, in this activation: a second one needs another key, or gets the
                result of the first (``f"mail-{customer}"``, in a ``for`` loop of the agent's own).
                Each iteration of a `LoopAgent`, item of a map and run has keys of its own.
            fn: does it; a coroutine function, or a plain one, called as it is. Its result is
                JSON, or an object that has a JSON form.
            on_unknown: ``"raise"``; ``"retry"``, for what may be done twice; or a function that
                looks, and returns the result: of what had happened, or of what it has done now.

        Raises:
            EffectUnknownError: nobody knows whether it has happened.
            UnstorableError: the result has no JSON form. It has happened all the same, and is not
                done again in this run; resumed, its end counts as unknown.
            UsageError: this activation is doing it at this moment, in another task.
            BaseException: what ``fn`` raises, as itself.
        """
        activation = self._running()
        if on_unknown not in ("raise", "retry") and not callable(on_unknown):
            message = f"on_unknown is 'raise', 'retry' or a function, not {on_unknown!r:.80}"
            raise RequestError(message)
        if not isinstance(key, str) or not key:
            message = f"the key of once() is text that is not empty, not {key!r:.80}"
            raise RequestError(message)
        await checkpoint()
        effects = activation.invocation.effects
        name = (bare(activation.place.path), key)
        how, result = effects.get(name, _NEW)
        if how == "done":
            return cast("T", result)
        if how == "running":
            message = f"effect {key!r} of {name[0]} is being done; give another one another key"
            raise UsageError(message)
        if how == "unrecorded":
            raise UnstorableError(*result)
        if how == "unknown":
            if on_unknown == "raise":
                raise EffectUnknownError(key, name[0])
            if on_unknown != "retry":
                fn = cast("Callable[[], Awaitable[T] | T]", on_unknown)
        return cast("T", await _do(activation, key, name, fn))


async def _do(
    activation: Activation, key: str, name: tuple[str, str], fn: Callable[[], Any]
) -> Any:
    effects, journal = activation.invocation.effects, activation.invocation.journal
    before = effects.get(name)
    effects[name] = ("running", None)
    try:
        if journal is not None:
            await journal.write(activation, {"kind": "intent", "key": key})
    except BaseException:
        # Nothing has been done; that the intent may have been recorded does no harm.
        _put_back(effects, name, before)
        raise
    try:
        value = fn()
        if inspect.isawaitable(value):
            value = await value
    except (TimeoutError, trio.TooSlowError):
        effects[name] = ("unknown", None)
        raise
    except Exception:
        _put_back(effects, name, before)
        if journal is not None and before is None:
            await _record(activation, {"kind": "effect", "key": key, "failed": True}, None)
        raise
    except BaseException:
        effects[name] = ("unknown", None)
        raise
    effects[name] = ("unknown", None)
    try:
        value = freeze(to_json(value))
    except UnstorableError as exc:
        # It has happened: no attempt may do it again, whatever `on_unknown` says.
        where = f"the result of ctx.once({key!r}) in {name[0]}, which has happened"
        problem = exc.under(where)
        effects[name] = ("unrecorded", (problem.path, problem.why))
        raise problem from None
    if journal is not None:
        await _record(activation, {"kind": "effect", "key": key}, value)
    effects[name] = ("done", value)
    return value


async def _record(activation: Activation, note: dict[str, Any], value: Any) -> None:
    # What is known must not be lost to a cancellation.
    with trio.CancelScope(shield=True):
        await activation.invocation.journal.write(activation, note, output=value)


def _put_back(
    effects: dict[tuple[str, str], tuple[str, Any]],
    name: tuple[str, str],
    before: tuple[str, Any] | None,
) -> None:
    if before is None:
        effects.pop(name, None)
    else:
        effects[name] = before
