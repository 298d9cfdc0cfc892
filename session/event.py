"""The one record that everything is made of: an event.

An agent fills in what it *means* (content, actions, output). Who said it, where in the tree and
when is stamped on by the runtime. Until then an event is an ordinary object that its maker may
change; from `Event.seal` on it is read-only, for good, and may be shared.

Events are made a hundred thousand times a second, so this module trades a little beauty for
speed: plain slots instead of a frozen class (four times faster to make), one reference to an
`Origin` instead of five copied strings, ids and actions made when somebody asks. The measured
reasons are in ``docs/explanation/design.md``.

Pure values: no I/O, no clock, no event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

import attrs

from session.actions import (
    EMPTY,
    KEPT_FIELDS,
    KEPT_NODE_INFO,
    NO_ACTIONS,
    BranchOutcome,
    EventActions,
    SealedActions,
    check_actions,
    check_count,
    check_kept,
    check_optional_text,
    check_text,
    frozen_mapping,
    sealed_actions,
)
from session.content import Content, FunctionCall, FunctionResponse, Text
from session.origin import Origin
from session.request import InputRequest, request_in
from session.state import FrozenValueError, UnstorableError, freeze

__all__ = [
    "NO_ACTIONS",
    "OURS",
    "USER",
    "BranchOutcome",
    "Event",
    "EventActions",
    "Origin",
]

USER: Final = "user"
"""The author of what people say. No agent may have this name."""

OURS: Final = "parallel_agent"
"""The key of the custom metadata under which the stored form keeps what ADK has no field for."""


_NOWHERE: Final = Origin()


@attrs.define
class _Rest:
    """The fields that most events leave empty, kept out of the way of making one."""

    error_code: str | None = None
    error_message: str | None = None
    long_running_tool_ids: tuple[str, ...] = ()
    custom_metadata: Mapping[str, Any] = EMPTY
    attempt: int = 1
    other: Mapping[str, Any] = EMPTY


_NO_REST: Final = _Rest()


class Event:
    """One thing that happened: said, done, asked or reported.

    ``Event("text")``, ``Event(content=...)``, ``Event(actions=EventActions(...))``,
    ``Event(output={...})``.

    Args:
        content: the message; text is short for a content of one text part.
        actions: what the event asks for beside it.
        output: the activation's result so far, a JSON value; None is "no output".
        partial: a piece of a message that will come whole later. Partial events are delivered,
            and acknowledged, but never recorded: no sequence number, no state.
        error_code: short name of an error the event reports.
        error_message: the error in words.
        long_running_tool_ids: ids of function calls whose answer comes later.
        custom_metadata: a JSON object of the maker's own.
        attempt: which attempt of a retried activation emitted it, from 1.
        other: fields of ADK's event that this runtime keeps and does not act on.
        origin: who says it, and where. The runtime stamps it on; give it only when making an
            event that some other system recorded.
        id: likewise. Without one, the id is derived from invocation and sequence number.
        timestamp: likewise, seconds since the epoch.
        seq: likewise, the place in its session's log, from 1.

    Attributes:
        delta: what it changes in state, once sealed: its actions' ``state_delta``, and what the
            runtime adds to it.
        escalates: ``actions.escalate``, once sealed.

    An event is read-only once emitted: setting a field raises `FrozenValueError`.
    """

    __slots__ = (
        "_actions",
        "_content",
        "_id",
        "_rest",
        "delta",
        "escalates",
        "origin",
        "output",
        "partial",
        "seq",
        "timestamp",
    )

    def __init__(
        self,
        content: str | Content | None = None,
        *,
        actions: EventActions | None = None,
        output: Any = None,
        partial: bool = False,
        error_code: str | None = None,
        error_message: str | None = None,
        long_running_tool_ids: Iterable[str] = (),
        custom_metadata: Mapping[str, Any] = EMPTY,
        attempt: int = 1,
        other: Mapping[str, Any] = EMPTY,
        origin: Origin = _NOWHERE,
        id: str | None = None,
        timestamp: float = 0.0,
        seq: int | None = None,
    ) -> None:
        """See the class."""
        self.delta: Mapping[str, Any]
        self.escalates: bool
        self._content = content
        self._actions = actions
        self.output = output
        self.partial = partial
        self.origin = origin
        self._id = id
        self.timestamp = timestamp
        self.seq = seq
        if (
            error_code is None
            and error_message is None
            and not long_running_tool_ids
            and custom_metadata is EMPTY
            and attempt == 1
            and other is EMPTY
        ):
            self._rest = _NO_REST
        else:
            self._rest = _Rest(
                error_code,
                error_message,
                tuple(long_running_tool_ids),
                custom_metadata,
                attempt,
                other,
            )

    # What it says.

    @property
    def content(self) -> Content | None:
        """The message, or None."""
        content = self._content
        return Content((Text(content),)) if type(content) is str else content  # type: ignore[return-value]  # narrowed by type()

    @content.setter
    def content(self, value: str | Content | None) -> None:
        self._content = value

    @property
    def text(self) -> str:
        """The content's text; ``""`` when there is none."""
        content = self._content
        if type(content) is str:
            return content
        return "" if content is None else content.text  # type: ignore[union-attr]  # narrowed by type()

    @property
    def final_text(self) -> str:
        """The text, if the event is final (see `is_final`); else ``""``."""
        content = self._content
        if type(content) is str:
            return "" if self.partial else content
        return self.text if self.is_final else ""

    @property
    def function_calls(self) -> tuple[FunctionCall, ...]:
        """The calls among the content's parts."""
        content = self._content
        if not isinstance(content, Content):
            return ()
        return tuple(part for part in content.parts if isinstance(part, FunctionCall))

    @property
    def function_responses(self) -> tuple[FunctionResponse, ...]:
        """The tool answers among the content's parts."""
        content = self._content
        if not isinstance(content, Content):
            return ()
        return tuple(part for part in content.parts if isinstance(part, FunctionResponse))

    @property
    def is_final(self) -> bool:
        """Whether this is something to show as an answer: whole, and no step of a tool call."""
        if self.partial:
            return False
        if self._content is None or type(self._content) is str:
            return True
        if self._rest.long_running_tool_ids or (
            self._actions is not None and self._actions.skip_summarization
        ):
            return True
        return not self.function_calls and not self.function_responses

    # What it asks for.

    @property
    def actions(self) -> EventActions:
        """What the event asks for. Never None; changeable until the event is emitted."""
        actions = self._actions
        if type(self) is not SealedEvent:
            if actions is None:
                self._actions = actions = EventActions()
            return actions
        if actions is None:
            if not self.delta:
                return NO_ACTIONS
            actions = NO_ACTIONS
        if actions.state_delta is not self.delta:
            # The runtime added state writes: show them as if the maker had. Not kept: until the
            # event is recorded, it may be withdrawn and lose them.
            actions = attrs.evolve(actions, state_delta=self.delta)
            actions.__class__ = SealedActions
        return actions

    @actions.setter
    def actions(self, value: EventActions | None) -> None:
        self._actions = value

    @property
    def state_delta(self) -> Mapping[str, Any]:
        """``actions.state_delta``, without making the actions."""
        if type(self) is SealedEvent:
            return self.delta
        actions = self._actions
        return EMPTY if actions is None else actions.state_delta

    @property
    def escalate(self) -> bool:
        """``actions.escalate``, without making the actions."""
        return self._actions is not None and self._actions.escalate

    @property
    def state_unset(self) -> tuple[str, ...]:
        """``actions.state_unset``, without making the actions."""
        actions = self._actions
        return () if actions is None else actions.state_unset

    @property
    def journal(self) -> Mapping[str, Any] | None:
        """``actions.journal``, without making the actions."""
        actions = self._actions
        return None if actions is None else actions.journal

    @property
    def is_record(self) -> bool:
        """Whether it is a note for resuming the run, and nothing else."""
        actions = self._actions
        return actions is not None and actions.journal is not None and "kind" in actions.journal

    @property
    def transfer_to_agent(self) -> str | None:
        """``actions.transfer_to_agent``, without making the actions."""
        actions = self._actions
        return None if actions is None else actions.transfer_to_agent

    @property
    def route(self) -> Any:
        """``actions.route``, without making the actions."""
        actions = self._actions
        return None if actions is None else actions.route

    @property
    def request(self) -> InputRequest | None:
        """The question to a person that this event asks, if it does."""
        content = self._content
        if not self._rest.long_running_tool_ids or not isinstance(content, Content):
            return None
        return request_in(content)

    @property
    def explicit_delta(self) -> Mapping[str, Any]:
        """The state delta its maker gave it, without what the runtime added."""
        actions = self._actions
        return EMPTY if actions is None else actions.state_delta

    # Where it comes from.

    @property
    def author(self) -> str:
        """The agent's name, or ``"user"``."""
        return self.origin.author

    @property
    def branch(self) -> str | None:
        """The branch it was emitted on; None on the root branch."""
        return self.origin.branch

    @property
    def path(self) -> str:
        """The activation that emitted it; unlike names, unique in its invocation."""
        return self.origin.path

    @property
    def invocation_id(self) -> str:
        """The run it belongs to."""
        return self.origin.invocation_id

    @property
    def id(self) -> str:
        """Unique in the session. Empty until the event is recorded."""
        if self._id is not None:
            return self._id
        return "" if self.seq is None else f"{self.origin.invocation_id}-{self.seq}"

    # The rest.

    @property
    def error_code(self) -> str | None:
        """Short name of the error the event reports, if it does."""
        return self._rest.error_code

    @property
    def error_message(self) -> str | None:
        """The error in words."""
        return self._rest.error_message

    @property
    def long_running_tool_ids(self) -> tuple[str, ...]:
        """Ids of the function calls whose answer comes later."""
        return self._rest.long_running_tool_ids

    @property
    def custom_metadata(self) -> Mapping[str, Any]:
        """The maker's own JSON object."""
        return self._rest.custom_metadata

    @property
    def attempt(self) -> int:
        """Which attempt of a retried activation emitted it, from 1."""
        attempt = self._rest.attempt
        return self.origin.attempt if attempt == 1 else attempt

    @property
    def other(self) -> Mapping[str, Any]:
        """Fields of ADK's event that this runtime keeps and does not act on."""
        return self._rest.other

    # Its life.

    @property
    def sealed(self) -> bool:
        """Whether the event has been emitted, and so can no longer change."""
        return type(self) is SealedEvent

    def seal(self) -> None:
        """Check that the event can be stored, freeze what it holds, and make it read-only.

        Idempotent. On an error the event is as it was, but for containers already frozen.

        Raises:
            UnstorableError: some value has no JSON form; the message names the field.
        """
        if type(self) is SealedEvent:
            return
        content = self._content
        if type(content) is str:
            if not content.isascii():
                freeze(content, "content.text")
        elif content is not None:
            _check_content(content)
        if self.output is not None:
            self.output = freeze(self.output, "output")
        if type(self.partial) is not bool:
            raise UnstorableError("partial", f"True or False is needed, not {self.partial!r}")
        rest = self._rest
        if rest is not _NO_REST:
            _seal_rest(rest)
        # Last: actions cannot be unsealed if something after them is refused.
        actions = self._actions
        if actions is None:
            self.delta = EMPTY
            self.escalates = False
        else:
            if type(actions) is not SealedActions:
                check_actions(actions)
                sealed_actions(actions)
            self.delta = actions.state_delta
            self.escalates = actions.escalate
        self.__class__ = SealedEvent

    def __repr__(self) -> str:
        where = self.origin.path or self.origin.author or "not emitted"
        what = repr(self.text) if self.text else "partial" if self.partial else "no text"
        return f"<Event {self.seq if self.seq is not None else '-'} {where}: {what}>"


class SealedEvent(Event):
    """An event after `Event.seal`. Same layout, so that sealing is one assignment."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        message = f"the event has been emitted: {name} can no longer be set"
        raise FrozenValueError(message)

    def __delattr__(self, name: str) -> NoReturn:
        message = f"the event has been emitted: {name} can no longer be deleted"
        raise FrozenValueError(message)

    # Copies of what cannot change are the thing itself. (The usual way would set its fields.)

    def __copy__(self) -> Event:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Event:
        return self


SealedEvent.__name__ = SealedEvent.__qualname__ = "Event"

# The recorder's own way past the seal: it stamps place, time and number after the agent let go.
# Slots are descriptors, which a type checker does not know; hence `vars`.
stamp_actions: Final[Callable[[Event, EventActions], None]] = vars(Event)["_actions"].__set__
stamp_delta: Final[Callable[[Event, Mapping[str, Any]], None]] = vars(Event)["delta"].__set__
stamp_id: Final[Callable[[Event, str | None], None]] = vars(Event)["_id"].__set__
stamp_origin: Final[Callable[[Event, Origin], None]] = vars(Event)["origin"].__set__
stamp_seq: Final[Callable[[Event, int | None], None]] = vars(Event)["seq"].__set__
stamp_timestamp: Final[Callable[[Event, float], None]] = vars(Event)["timestamp"].__set__


def _check_content(content: Any) -> None:
    if not isinstance(content, Content):
        raise UnstorableError(
            "content", f"a Content or text is needed, not a {type(content).__name__}"
        )
    for index, part in enumerate(content.parts):
        if isinstance(part, Text):
            freeze(part.text, f"content.parts[{index}].text")
        elif isinstance(part, FunctionCall | FunctionResponse):
            check_optional_text(part.name, f"content.parts[{index}].name")
            check_optional_text(part.id, f"content.parts[{index}].id")


def _seal_rest(rest: _Rest) -> None:
    rest.custom_metadata = frozen_mapping(rest.custom_metadata, "custom_metadata")
    if OURS in rest.custom_metadata:
        raise UnstorableError(f"custom_metadata.{OURS}", "this key is the runtime's own")
    rest.other = frozen_mapping(rest.other, "other")
    check_kept(rest.other, KEPT_FIELDS, "other")
    if "nodeInfo" in rest.other:
        node_info = frozen_mapping(rest.other["nodeInfo"], "other.nodeInfo")
        check_kept(node_info, KEPT_NODE_INFO, "other.nodeInfo")
    for name in ("error_code", "error_message"):
        check_optional_text(getattr(rest, name), name)
    for index, tool_id in enumerate(rest.long_running_tool_ids):
        check_text(tool_id, f"long_running_tool_ids[{index}]")
    check_count(rest.attempt, "attempt")
