"""Plugins: what an application adds to every run of a runner, without touching the tree.

A plugin is an object with hooks. The runner's plugins are asked in the order they were given, and
before the callbacks of the agent itself. Hooks named after Google ADK's do what ADK's do.

Order: a hook runs in the task of the agent it is about, so a slow one delays that branch and no
other. Cancellation: what cancels the agent cancels the hook. Errors: an exception of a hook
becomes a `PluginError` that names plugin and hook, and is then a failure of the agent (or, for the
message and the end of the run, of the block) like any other.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, final

import attrs
from trio.lowlevel import checkpoint, disable_ki_protection

from parallel_agent.activation import Activation
from parallel_agent.barrier import Outcome
from parallel_agent.context import InvocationContext
from parallel_agent.errors import PluginError, RunEndedError
from session.actions import EventActions
from session.content import Content
from session.event import Event

if TYPE_CHECKING:
    # For annotations only: a run asks its plugins, so it stands above.
    from parallel_agent.result import Result

__all__ = ["DROP_EVENT", "DropEvent", "Plugin", "Plugins"]


class _Drop(Enum):
    DROP_EVENT = "drop the event"

    def __repr__(self) -> str:
        return self.name


DROP_EVENT: Final = _Drop.DROP_EVENT
"""What `Plugin.on_event_callback` returns for an event that is not to be recorded."""

DropEvent: TypeAlias = Literal[_Drop.DROP_EVENT]
"""The type of `DROP_EVENT`, for annotations."""


class Plugin:
    """Hooks into the runs of a runner. Subclass it, override what is needed.

    ::

        class Clock(Plugin):
            async def after_run_callback(self, ctx, result):
                print(ctx.invocation_id, result.status)

        Runner(tree, plugins=[Clock()])

    One object serves all runs of its runner, also those at the same time: ``ctx.invocation_id``
    and ``ctx.path`` tell them and their agents apart. Hooks are ``async def``, but for
    `on_agent_end`; one that is not overridden costs nothing.

    Args:
        name: names it in errors; by default the name of its class.
    """

    def __init__(self, name: str | None = None) -> None:
        """See the class."""
        self._name = name

    @property
    def name(self) -> str:
        """Names it in errors; unique in its runner."""
        # By class if a subclass has not called __init__: nothing else here needs it.
        return getattr(self, "_name", None) or type(self).__name__

    async def on_user_message_callback(
        self, ctx: InvocationContext, content: Content
    ) -> Content | str | None:
        """Look at the user's message before it is recorded; return another to replace it.

        Each plugin sees what those before it made of the message. ``ctx`` is the root agent's,
        which has not started: it can read, not emit.
        """

    async def before_run_callback(self, ctx: InvocationContext) -> Content | Event | str | None:
        """Look at a run that begins; return something to emit it *instead of* running the tree.

        The first that returns something decides. ``ctx`` is the root agent's.
        """

    async def after_run_callback(self, ctx: InvocationContext, result: Result) -> None:
        """Look at a run that has ended, however it did.

        Called when the block is left and everything of the run has ended. If the block itself
        is being cancelled, so is this, at its first ``await``, as in a ``finally``.
        """

    async def on_event_callback(
        self, ctx: InvocationContext, event: Event
    ) -> Event | DropEvent | None:
        """Look at an event before it is recorded and delivered; partial ones, too.

        The event may be changed in place, or replaced by returning another; `DROP_EVENT` drops
        it, with the state writes it carries. Each plugin sees what those before it made of it.
        The event shows the writes made through ``ctx.state`` in its ``state_delta``, but not
        contributions to keys with a reducer. Must not emit. What comes into the run, messages
        and answers, does not pass here. If a question (``event.request``) is dropped, its agent
        gets its default or a `RequestError`: nobody could answer.
        """

    async def before_agent_callback(self, ctx: InvocationContext) -> Content | Event | str | None:
        """Look at an agent that starts; return something to emit it *instead of* running it.

        The first that returns something decides; its own callbacks are then not called.
        """

    async def after_agent_callback(self, ctx: InvocationContext) -> Content | Event | str | None:
        """Look at an agent that has done its work; return something to emit it as well.

        The first that returns something decides; its own callbacks are then not called.
        """

    async def on_agent_error_callback(
        self, ctx: InvocationContext, error: Exception
    ) -> Content | Event | str | None:
        """Look at an agent that fails; return something to emit it *instead of* failing.

        The first that returns something decides, and the agent has completed. If none does, the
        error goes on to the agent above, for which this is called again. Not called for
        cancellations.
        """

    def on_agent_end(self, ctx: InvocationContext, outcome: Outcome) -> None:
        """Look at how an agent ended, waiting for input too; once for each that started.

        A plain function: it must not block.
        """

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


_Hook: TypeAlias = tuple[str, Callable[..., Any]]
"""A plugin's name, and its bound method."""


@final
class Plugins:
    """The plugins of one runner, sorted by hook; internal."""

    def __init__(self, plugins: Iterable[Plugin] = ()) -> None:
        """Take ``plugins`` in order.

        Raises:
            TypeError: one is no plugin, or a hook of one is of the wrong kind.
            ValueError: two have one name.
        """
        if isinstance(plugins, Plugin) or not isinstance(plugins, Iterable):
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

    def _hooks(self, name: str) -> tuple[_Hook, ...]:
        found: list[_Hook] = []
        for plugin in self.all:
            if getattr(type(plugin), name) is getattr(Plugin, name):
                continue
            hook = getattr(plugin, name)
            is_async = inspect.iscoroutinefunction(hook)
            if is_async is (name == "on_agent_end"):
                form = "a plain `def`" if is_async else "an `async def`"
                message = f"{name} of plugin {plugin.name!r} must be {form}"
                raise TypeError(message)
            found.append((plugin.name, hook))
        return tuple(found)

    async def first(self, hooks: Sequence[_Hook], *args: object) -> Content | Event | str | None:
        """Ask in order; return the first answer."""
        for hook in hooks:
            answer = await _ask(hook, *args)
            if answer is not None:
                if not isinstance(answer, Content | Event | str):
                    raise _refused(hook, "text, a content or an event", answer)
                return answer
        return None

    async def message(self, ctx: InvocationContext, content: Content) -> Content:
        """Return what the plugins make of the user's message."""
        for hook in self.on_user_message:
            answer = await _ask(hook, ctx, content)
            if isinstance(answer, str):
                content = Content(answer, role=content.role)
            elif isinstance(answer, Content):
                content = answer
            elif answer is not None:
                raise _refused(hook, "text or a content", answer)
        return content

    async def event(self, activation: Activation, event: Event) -> Event | None:
        """Return what the plugins make of an event that is about to be emitted."""
        ctx = InvocationContext(activation)
        await checkpoint()  # a plugin that drops everything must not make a loop of emits spin
        given, shown = event.actions, _shown(activation, event)
        if shown:
            # A copy: the actions are the agent's own, who may use them again.
            event.actions = attrs.evolve(given, state_delta={**given.state_delta, **shown})
        replaced = event
        try:
            for hook in self.on_event:
                answer = await _ask(hook, ctx, replaced)
                if answer is DROP_EVENT:
                    _take_shown(activation, shown, {})
                    return None
                if answer is not None:
                    if not isinstance(answer, Event):
                        raise _refused(hook, "an event or DROP_EVENT", answer)
                    replaced = answer
                if replaced.sealed:
                    raise _refused(hook, "an event that was not emitted before", replaced)
            actions = replaced.actions
        finally:
            event.actions = given
        if shown:
            delta = _take_shown(activation, shown, actions.state_delta)
            actions = attrs.evolve(actions, state_delta=delta)
        replaced.actions = actions
        return replaced

    async def ran(self, ctx: InvocationContext, result: Result) -> BaseException | None:
        """Tell all plugins that the run has ended; return the first error of theirs."""
        first: BaseException | None = None
        for hook in self.after_run:
            try:
                await _ask(hook, ctx, result)
            except BaseException as exc:  # noqa: BLE001  # the caller raises it
                first = first or exc
        return first

    def ended(self, ctx: InvocationContext, outcome: Outcome) -> BaseException | None:
        """Tell all plugins that an agent has ended; return the first error of theirs."""
        first: BaseException | None = None
        for hook in self.on_agent_end:
            try:
                _tell(hook, ctx, outcome)
            except BaseException as exc:  # noqa: BLE001  # the caller makes it the agent's failure
                first = first or exc
        return first


def _shown(activation: Activation, event: Event) -> dict[str, Any]:
    """Return the pending writes that an event will carry, to be shown in its delta."""
    actions = event.actions
    if event.partial or not (
        isinstance(actions, EventActions) and isinstance(actions.state_delta, Mapping)
    ):
        return {}
    explicit = actions.state_delta
    writes = activation.state.plain_pending()
    return {key: value for key, value in writes.items() if key not in explicit}


def _take_shown(
    activation: Activation, shown: Mapping[str, Any], delta: Mapping[str, Any]
) -> dict[str, Any]:
    """Make the pending writes what the plugins made of them; return the rest of ``delta``.

    They stay pending, and not a part of the event: if it is withdrawn, they go with the next one.
    """
    pending = activation.state.pending
    for key, value in shown.items():
        if pending.get(key, DROP_EVENT) is not value:
            continue  # another task of the same agent has written it meanwhile
        if key not in delta:
            del pending[key]
        elif delta[key] is not value:
            activation.state[key] = delta[key]
    return {key: value for key, value in delta.items() if key not in shown}


@disable_ki_protection
async def _ask(hook: _Hook, *args: object) -> Any:
    try:
        return await cast("Awaitable[Any]", hook[1](*args))
    except RunEndedError:
        raise
    except Exception as exc:
        raise _failed(hook, exc) from exc


@disable_ki_protection
def _tell(hook: _Hook, *args: object) -> None:
    try:
        hook[1](*args)
    except Exception as exc:
        raise _failed(hook, exc) from exc


def _failed(hook: _Hook, error: Exception) -> PluginError:
    return PluginError(hook[0], hook[1].__name__, error)


def _refused(hook: _Hook, wanted: str, answer: object) -> PluginError:
    return PluginError(
        hook[0], hook[1].__name__, TypeError(f"it returned {answer!r:.80}; {wanted} is needed")
    )
