"""Runs as records of the standard `logging` module.

What is logged by default is who did what, when and for how long, and never what was said: no
text, no values of state, no messages of errors. Whatever a record does hold is one line: control
characters are escaped, so that nobody's session id can forge a second one.

Blocking: as long as the handlers of the logger take, which is the event loop's time; for slow
ones there is `logging.handlers.QueueHandler`. A record that no level asks for costs one question.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from parallel_agent.barrier import Outcome
from parallel_agent.context import InvocationContext
from parallel_agent.errors import PluginError
from parallel_agent.lifecycle import Status
from parallel_agent.notes import describe, members
from parallel_agent.plugin import Plugin
from session.event import Event

if TYPE_CHECKING:
    from parallel_agent.result import Result

__all__ = ["LoggingPlugin"]

_NAME_LIMIT: Final = 100
"""How much of a name, of an id or of a key is shown."""

_LIST_LIMIT: Final = 20
"""How many keys, names or failures are listed."""


@attrs.define(eq=False)
class _Run:
    """What is known of a run that has not ended."""

    began: float
    agents: Counter[str] = attrs.Factory(Counter[str])
    # What the agent that has ended last failed with; in the end, the root.
    error: BaseException | None = None
    # Errors by identity, with the path of the agent that was the first to fail with it.
    origins: dict[int, tuple[BaseException, str]] = attrs.Factory(
        dict[int, "tuple[BaseException, str]"]
    )


class LoggingPlugin(Plugin):
    """Logs when runs and agents start and end, and what kind of events they emit.

    ::

        Runner(tree, plugins=[LoggingPlugin()])

    ==========================  ==========================================================
    a run starts                INFO
    a run ends                  INFO; ERROR if it failed, with the error's type and origin
    an agent starts             DEBUG
    an agent ends               DEBUG; INFO if it failed or was cancelled
    an event is emitted         DEBUG
    ==========================  ==========================================================

    Every record has the attributes ``what`` (``"run_start"``, ``"run_end"``, ``"agent_start"``,
    ``"agent_end"`` or ``"event"``), ``invocation_id``, ``session_id``, ``user_id``, ``branch``
    (None on the root branch), ``path`` and ``agent``, for formats and for structured logs.

    Put it first: a plugin before it that answers for an agent, or for the run, keeps the start
    of that from it. With ``contents``, put it after the plugins that take secrets out of events.

    Args:
        name: see `Plugin`.
        logger: where to log; by default the logger ``parallel_agent``.
        contents: log texts, values of state, messages of errors and reasons of cancelling, too.
            They are cut to ``limit`` characters, quoted and escaped.
        limit: see ``contents``.

    Raises:
        TypeError: ``logger`` is no logger.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        logger: logging.Logger | None = None,
        contents: bool = False,
        limit: int = 200,
    ) -> None:
        """See the class."""
        super().__init__(name)
        if logger is None:
            logger = logging.getLogger("parallel_agent")
        if not isinstance(logger, logging.Logger):
            # Not an adapter, either: before Python 3.13 it would throw our attributes away.
            message = f"logger is a logging.Logger, not {logger!r:.80}: logging.getLogger(name)"
            raise TypeError(message)
        self._logger = logger
        self._contents = contents
        self._limit = limit
        self._runs: dict[str, _Run] = {}

    async def before_run_callback(self, ctx: InvocationContext) -> None:
        """Log that a run starts."""
        self._run(ctx)
        if self._logger.isEnabledFor(logging.INFO):
            self._log(logging.INFO, "run_start", ctx, "run started", {})

    async def after_run_callback(self, ctx: InvocationContext, result: Result) -> None:
        """Log how it ended."""
        run = self._run(ctx)
        del self._runs[ctx.invocation_id]
        failed = result.status is Status.FAILED
        level = logging.ERROR if failed else logging.INFO
        if not self._logger.isEnabledFor(level):
            return
        duration = trio.current_time() - run.began
        fields: dict[str, Any] = {
            "status": str(result.status),
            "duration": duration,
            "events": len(result.events),
            "agents": dict(run.agents),
        }
        counts = "".join(f", {run.agents[status]} {status}" for status in sorted(run.agents))
        why = ""
        if failed and run.error is not None:
            _, origin = run.origins[id(run.error)]
            fields["error_type"], fields["origin"] = _kind(run.error), origin
            why = f": {self._told(run.error)} in {origin}"
        elif failed:
            why = ", by no agent's error"  # the session service's, say
        elif self._contents and result.reason:
            why = f": {_quoted(result.reason, self._limit)}"
        events = _count(len(result.events), "event")
        text = f"run {result.status} after {duration:.3f} s, {events}{counts}{why}"
        self._log(level, "run_end", ctx, text, fields)

    async def before_agent_callback(self, ctx: InvocationContext) -> None:
        """Log that an agent starts."""
        self._run(ctx)
        if self._logger.isEnabledFor(logging.DEBUG):
            self._log(logging.DEBUG, "agent_start", ctx, f"agent {ctx.path} started", {})

    def on_agent_end(self, ctx: InvocationContext, outcome: Outcome) -> None:
        """Log how it ended."""
        run = self._run(ctx)
        run.agents[str(outcome.status)] += 1
        error = outcome.error
        run.error = error
        if error is not None:
            run.origins.setdefault(id(error), (error, ctx.path))
        level = logging.DEBUG if outcome.status is Status.COMPLETED else logging.INFO
        if not self._logger.isEnabledFor(level):
            return
        fields: dict[str, Any] = {"status": str(outcome.status), "duration": outcome.duration}
        why = ""
        if error is not None:
            fields["error_type"], fields["origin"] = _kind(error), run.origins[id(error)][1]
            why = f": {self._told(error)}"
        text = f"agent {ctx.path} {outcome.status} after {outcome.duration:.3f} s{why}"
        self._log(level, "agent_end", ctx, text, fields)

    async def on_event_callback(self, ctx: InvocationContext, event: Event) -> None:
        """Log what kind of event it is."""
        if not self._logger.isEnabledFor(logging.DEBUG):
            return
        actions = event.actions
        fields: dict[str, Any] = {
            "partial": event.partial,
            "text_length": len(event.text),
            "function_calls": len(event.function_calls),
            "state_keys": _names(actions.state_delta),
            "artifacts": _names(actions.artifact_delta),
            "outcomes": len(actions.outcomes),
            "escalate": actions.escalate,
            "error_code": None if event.error_code is None else _name(event.error_code),
        }
        said = [_count(len(event.text), "character")] if event.text else []
        if self._contents and event.text:
            said = [f"text {_quoted(event.text, self._limit)}"]
        if fields["function_calls"]:
            said.append(_count(fields["function_calls"], "function call"))
        if actions.state_delta:
            said.append(f"state {', '.join(self._writes(actions.state_delta))}")
        if actions.artifact_delta:
            said.append(f"artifacts {', '.join(fields['artifacts'])}")
        if actions.outcomes:
            said.append(_count(len(actions.outcomes), "outcome"))
        if event.error_code is not None:
            said.append(f"error {fields['error_code']}")
        if event.partial:
            said.append("partial")
        if actions.escalate:
            said.append("escalates")
        text = f"event of {ctx.path}: {'; '.join(said) or 'empty'}"
        self._log(logging.DEBUG, "event", ctx, text, fields)

    def _run(self, ctx: InvocationContext) -> _Run:
        # Made when first asked for: a plugin before this one may have answered for the run.
        run = self._runs.get(ctx.invocation_id)
        if run is None:
            run = self._runs[ctx.invocation_id] = _Run(trio.current_time())
        return run

    def _log(
        self, level: int, what: str, ctx: InvocationContext, text: str, fields: dict[str, Any]
    ) -> None:
        key = ctx.session_key
        fields |= {
            "what": what,
            "invocation_id": _name(ctx.invocation_id),
            "session_id": _name(key.session_id),
            "user_id": _name(key.user_id),
            "branch": ctx.branch,
            "path": ctx.path,
            "agent": ctx.agent.name,
        }
        self._logger.log(level, text, extra=fields)

    def _told(self, error: BaseException) -> str:
        if not self._contents:
            return _kind(error)
        return f"{_kind(error)}: {_quoted(describe(error)[1], self._limit)}"

    def _writes(self, delta: Mapping[str, Any]) -> list[str]:
        names = _names(delta)
        if not self._contents:
            return names
        shown = zip(names, delta.values(), strict=False)
        return [f"{name}={_cut(repr(value), self._limit)}" for name, value in shown]


def _kind(error: BaseException) -> str:
    """Return the error's type, and those of what it stands for; never a word of its message."""
    name = _name(type(error).__name__)
    inside = members(error)
    if inside:
        kinds = [_name(type(one).__name__) for one in inside[:_LIST_LIMIT]]
        more = ", …" if len(inside) > _LIST_LIMIT else ""
        return f"{name}({', '.join(kinds)}{more})"
    if isinstance(error, PluginError):
        cause = _name(type(error.__cause__).__name__)
        return f"{name}({_name(error.plugin)}.{error.hook}: {cause})"
    return name


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _names(names: Iterable[str]) -> list[str]:
    listed = [_name(name) for name in names]
    if len(listed) <= _LIST_LIMIT:
        return listed
    return [*listed[:_LIST_LIMIT], f"… {len(listed) - _LIST_LIMIT} more"]


def _name(text: str) -> str:
    """Return an id, or a key, on one line; as it is, if it is fit to be printed."""
    text = _cut(text, _NAME_LIMIT)
    return text if text.isprintable() else repr(text)


def _quoted(text: str, limit: int) -> str:
    return repr(text) if len(text) <= limit else f"{text[:limit]!r}…"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"
