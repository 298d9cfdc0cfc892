"""The plugins of a runner at work: asked in order, their answers checked, their faults named.

Order: plugins in the order of their list; an activation's events one after the other. Cancellation
passes. Errors: what a hook raises, and an answer that cannot be used, is a `PluginError` which
names plugin and hook.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast, final

import attrs
import trio
from trio.lowlevel import ParkingLot, checkpoint, disable_ki_protection

from parallel_agent.activation import Activation
from parallel_agent.barrier import Outcome
from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.errors import EmitError, PluginError, RunEndedError
from parallel_agent.invocation import Invocation
from parallel_agent.lane import UNPLACED
from parallel_agent.lifecycle import Status
from parallel_agent.notes import note_plugin
from parallel_agent.plugin import DROP_EVENT, Plugin
from parallel_agent.schema import SchemaError
from session.actions import EventActions
from session.content import Content
from session.event import Event, stamp_origin
from session.state import UnstorableError, freeze

if TYPE_CHECKING:
    # For annotations only: a run asks its plugins, so it stands above.
    from parallel_agent.result import Result

__all__ = ["Plugins"]


MODEL_HOOKS: Final = ("before_model", "after_model", "before_tool", "after_tool")
"""When agents that ask models ask the plugins; see `parallel_agent.llm.callbacks`."""


@attrs.frozen(eq=False)
class _Hook:
    """One hook of one plugin."""

    plugin: str
    name: str
    call: Callable[..., Any]

    async def ask(self, ctx: InvocationContext, *args: object) -> Any:
        """Return what the hook says."""
        return await _ask(self, ctx, *args)

    def refused(self, wanted: str, answer: object) -> PluginError:
        """Return the error that says that the hook's answer is of no use."""
        return _refused(self, wanted, answer)


@final
class Plugins:
    """The plugins of one runner, sorted by hook; internal."""

    def __init__(self, plugins: Iterable[Plugin] = ()) -> None:
        """Take ``plugins`` in order.

        Raises:
            TypeError: one is no plugin, or a hook of one is of the wrong kind.
            ValueError: two have one name.
        """
        has_no_order = isinstance(plugins, AbstractSet | Mapping)
        if has_no_order or isinstance(plugins, Plugin) or not isinstance(plugins, Iterable):
            message = f"plugins is a list of plugins, not {plugins!r:.80}"
            raise TypeError(message)
        self.all = tuple(plugins)
        names: set[str] = set()
        for position, plugin in enumerate(self.all):
            if not isinstance(plugin, Plugin):
                hint = "; make an object of it: call it" if isinstance(plugin, type) else ""
                message = f"plugins[{position}] is no Plugin but {plugin!r:.80}{hint}"
                raise TypeError(message)
            if plugin.name in names:
                message = f"two plugins are named {plugin.name!r}; give one another name"
                raise ValueError(message)
            names.add(plugin.name)
        self.on_user_message = self._hooks("on_user_message_callback")
        self.before_run = self._hooks("before_run_callback")
        self.after_run = self._hooks("after_run_callback")
        self.on_event = self._hooks("on_event_callback")
        self.before_agent = self._hooks("before_agent_callback")
        self.after_agent = self._hooks("after_agent_callback")
        self.on_agent_error = self._hooks("on_agent_error_callback")
        self.on_agent_end = self._hooks("on_agent_end")
        # Asked by the agents that ask models, and by nobody else.
        self.of_models = {when: self._hooks(f"{when}_callback") for when in MODEL_HOOKS}
        # Of the activations whose events are being looked at, and of no others.
        self._turns: dict[Activation, ParkingLot | None] = {}

    def _hooks(self, name: str) -> tuple[_Hook, ...]:
        found: list[_Hook] = []
        for plugin in self.all:
            call = getattr(plugin, name)
            if getattr(call, "__func__", None) is getattr(Plugin, name):
                continue
            plain = name == "on_agent_end"
            if inspect.iscoroutinefunction(call) is plain or not callable(call):
                form = "a plain `def`" if plain else "an `async def` without `yield`"
                message = f"{name} of plugin {plugin.name!r} must be {form}"
                raise TypeError(message)
            found.append(_Hook(plugin.name, name, call))
        return tuple(found)

    async def first(
        self, hooks: Sequence[_Hook], ctx: InvocationContext, *args: object
    ) -> Content | Event | str | None:
        """Ask in order; return the first answer."""
        for hook in hooks:
            answer: Content | Event | str | None = await _ask(hook, ctx, *args)
            if answer is None:
                continue
            if isinstance(answer, str):
                answer = str.__str__(answer)  # a StrEnum's member, say
            elif not isinstance(answer, Content | Event):
                raise _refused(hook, "text, a content or an event", answer)
            _check_answer(hook, answer if isinstance(answer, Event) else Event(answer))
            return answer
        return None

    async def message(self, ctx: InvocationContext, content: Content) -> Content:
        """Return what the plugins make of the user's message."""
        for hook in self.on_user_message:
            answer = await _ask(hook, ctx, content)
            if isinstance(answer, str):
                try:
                    content = Content(str.__str__(answer), role=content.role)
                except UnstorableError as exc:
                    raise _failed(hook, exc) from exc
            elif isinstance(answer, Content):
                content = attrs.evolve(answer, role=content.role)  # the user says it all the same
            elif answer is not None:
                raise _refused(hook, "text or a content", answer)
        return content

    async def event(self, activation: Activation, event: Event) -> Event | None:
        """Return what the plugins make of an event that is about to be emitted, sealed."""
        if activation.invocation in _LOOKING.get(()):
            message = "on_event_callback must not emit; return the event that is to be emitted"
            raise EmitError(message)
        turns = self._turns
        if activation in turns:
            # First come, first served: the order of the calls is the order of recording.
            waiting = turns[activation] = turns[activation] or ParkingLot()
            await waiting.park()
        else:
            turns[activation] = None
        looking = [activation.invocation]
        token = _LOOKING.set(looking)
        try:
            await checkpoint()  # an agent whose every event is dropped must not spin
            return await self._look_at(activation, event)
        finally:
            looking.clear()
            _LOOKING.reset(token)
            next_ones = turns[activation]
            if next_ones:
                next_ones.unpark()
            else:
                del turns[activation]

    async def _look_at(self, activation: Activation, event: Event) -> Event | None:
        ctx = InvocationContext(activation)
        passing = _Passing(activation, event)
        try:
            for hook in self.on_event:
                try:
                    answer = await _ask(hook, ctx, passing.event)
                except PluginError:
                    _unsealed(passing.event).seal()  # it may have stumbled over the agent's mistake
                    raise
                if answer is DROP_EVENT:
                    passing.drop()
                    return None
                passing.take(hook, answer)
            return passing.settle()
        except (UnstorableError, SchemaError) as exc:
            names = ", ".join(hook.plugin for hook in self.on_event)
            exc.add_note(f"the event had passed the plugins {names}")
            raise
        finally:
            passing.restore()

    async def ran(self, ctx: InvocationContext, result: Result) -> BaseException | None:
        """Tell all plugins that the run has ended; return the trouble they made."""
        trouble: BaseException | None = None
        for hook in self.after_run:
            try:
                await _ask(hook, ctx, result)
            except BaseException as exc:  # noqa: BLE001  # the caller raises it
                trouble = _graver(trouble, exc)
        return trouble

    def ended(self, ctx: InvocationContext, outcome: Outcome) -> BaseException | None:
        """Tell all plugins that an agent has ended; return the trouble they made."""
        trouble: BaseException | None = None
        for hook in self.on_agent_end:
            try:
                _tell(hook, ctx, outcome)
            except BaseException as exc:  # noqa: BLE001  # the caller makes it the agent's failure
                trouble = _graver(trouble, exc)
        return trouble


# The run whose event is being looked at. A context variable and no attribute: what matters is who
# calls, also through tasks of its own; and a list, emptied at the end, because those may live on.
_LOOKING: Final[ContextVar[Sequence[Invocation]]] = ContextVar("_LOOKING")


@final
class _Passing:
    """An event that passes the plugins, and the pending writes that it carries.

    The writes stay pending, and not a part of the event: if it is withdrawn, they go with the
    next one. So the plugins are shown them in the event's actions, and they are taken out again.
    """

    def __init__(self, activation: Activation, event: Event) -> None:
        if event.origin is not UNPLACED or event.seq is not None:
            # While it waited for its turn here.
            message = f"{event!r} was emitted already; make a new event"
            raise EmitError(message)
        has_actions = event._actions is not None  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # `actions` makes some
        if not _fit(event.actions):
            event.seal()  # says what is wrong
        self._activation = activation
        self._given = event
        self._given_actions = actions = event.actions
        self._explicit = actions.state_delta
        # One that was withdrawn is sealed. Plugins need not know: they get one like it.
        self.event = _unsealed(event) if event.sealed else event
        self._content = self.event.content if event.sealed else None
        carries = activation.state.pending and not event.partial
        self._carried = dict(activation.state.pending) if carries else {}
        self._plain = activation.state.plain_pending() if carries else {}
        if self._plain or has_actions:
            # A copy: these actions are the agent's own, who may use them again.
            delta = {**self._plain, **self._explicit}
            self.event.actions = attrs.evolve(actions, state_delta=delta)
        self._claimed = [event, self.event]
        self._claim()

    def _claim(self) -> None:
        # No other task can emit it meanwhile, and plugins want to know who does.
        for event in self._claimed:
            stamp_origin(event, self._activation.place)

    def take(self, hook: _Hook, answer: Any) -> None:
        """Go on with what ``hook`` made of the event."""
        if answer is not None and answer is not self.event:
            if not isinstance(answer, Event):
                raise _refused(hook, "an event or DROP_EVENT", answer)
            _check_answer(hook, answer, of=self._activation)
            self.event = _unsealed(answer) if answer.sealed else answer
            self._claimed.append(self.event)
            self._claim()
        if self.event.sealed:
            raise _refused(hook, "an event that was not emitted before", self.event)
        if not _fit(self.event.actions):
            raise _refused(hook, "EventActions with a mapping as state_delta", self.event.actions)

    def drop(self) -> None:
        """Forget the event, and the writes it would have carried."""
        pending = self._activation.state.pending
        for key, value in self._carried.items():
            if pending.get(key, DROP_EVENT) is value:
                del pending[key]
        # Nothing says any more that all before it has been handed out.
        self._activation.lane.unsettled = True

    def settle(self) -> Event:
        """Make the pending writes what the plugins made of them; return the event, sealed."""
        event, given, delta = self.event, self._given, self.event.actions.state_delta
        if self._plain:
            delta = self._take_writes(delta)
            event.actions = attrs.evolve(event.actions, state_delta=delta)
        if given.sealed and (
            event.content is self._content
            and event.output is given.output
            and event.partial is given.partial
            and event.actions == self._given_actions
            and all(delta[key] is value for key, value in self._explicit.items())
        ):
            return given  # its agent looks at this one, to see whether it is recorded
        event.seal()
        return event

    def _take_writes(self, delta: Mapping[str, Any]) -> dict[str, Any]:
        """Take what is pending out of ``delta``; return the rest."""
        shown = {key: value for key, value in self._plain.items() if key not in self._explicit}
        changed = {
            key: freeze(delta[key], f"actions.state_delta.{key}")
            for key, value in shown.items()
            if key in delta and delta[key] is not value
        }
        self._activation.invocation.shared.check(changed)
        state = self._activation.state
        for key, value in self._plain.items():
            if state.pending.get(key, DROP_EVENT) is not value:
                continue  # another task of the same agent has written it meanwhile
            if key not in delta:
                del state.pending[key]
            elif key in changed:
                state[key] = changed[key]
        return {key: value for key, value in delta.items() if key not in shown}

    def restore(self) -> None:
        """Give the agent's event back as it was, but for what was changed in place."""
        for event in self._claimed:
            stamp_origin(event, UNPLACED)
        if not self._given.sealed:
            self._given.actions = self._given_actions


def _fit(actions: object) -> bool:
    return isinstance(actions, EventActions) and isinstance(actions.state_delta, Mapping)


def _unsealed(event: Event) -> Event:
    """Return an event like this one that can be changed."""
    twin = Event(event.content)
    for field in ("_id", "_rest", "output", "partial", "timestamp"):
        setattr(twin, field, getattr(event, field))
    actions = event.actions
    twin.actions = attrs.evolve(actions) if isinstance(actions, EventActions) else actions
    return twin


@disable_ki_protection
async def _ask(hook: _Hook, ctx: InvocationContext, *args: object) -> Any:
    try:
        return await cast("Awaitable[Any]", hook.call(ctx, *args))
    except Exception as exc:
        of = activation_of(ctx)
        over = of.status is Status.RUNNING and (of.lane.sealed or of.invocation.stream.closed)
        if over and isinstance(exc, RunEndedError):
            raise  # nothing can be emitted here any more: not the hook's doing, and no failure
        raise _failed(hook, exc) from exc


@disable_ki_protection
def _tell(hook: _Hook, ctx: InvocationContext, outcome: Outcome) -> None:
    try:
        hook.call(ctx, outcome)
    except Exception as exc:
        raise _failed(hook, exc) from exc


def _graver(first: BaseException | None, then: BaseException) -> BaseException:
    """Return which of two troubles counts: an interrupt, else a failure; the other is a note."""
    if first is None:
        return then
    one, other = (first, then) if _gravity(first) >= _gravity(then) else (then, first)
    if isinstance(other, PluginError):
        note_plugin(one, other)
    return one


def _gravity(error: BaseException) -> int:
    if isinstance(error, trio.Cancelled | RunEndedError):
        return 0
    return 1 if isinstance(error, Exception) else 2


def _failed(hook: _Hook, error: BaseException) -> PluginError:
    return PluginError(hook.plugin, hook.name, error)


def _refused(hook: _Hook, wanted: str, answer: object) -> PluginError:
    return _failed(hook, TypeError(f"it returned {answer!r:.80}; {wanted} is needed"))


def _check_answer(hook: _Hook, answer: Event, *, of: Activation | None = None) -> None:
    """Refuse an event that cannot be emitted: here, where it is known whose it is."""
    # A copy of an event that is being looked at says already who emits it.
    place = UNPLACED if of is None or answer.sealed else of.place
    if answer.seq is not None or answer.origin not in (UNPLACED, place):
        raise _refused(hook, "an event that was not emitted before", answer)
    try:
        _unsealed(answer).seal()
    except UnstorableError as exc:
        raise _failed(hook, exc) from exc
