"""What an event asks for or reports, beside what it says.

Changeable while its event is, read-only afterwards; the same trade of beauty for speed as in
`session.event`, and the checks that decide what can be stored.

Pure values: no I/O, no clock, no event loop.
"""

# JSON is `Any`, and pyright calls what `isinstance` makes of it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

import attrs

from session.state import (
    FrozenDict,
    FrozenValueError,
    UnstorableError,
    check_keys,
    freeze,
    freeze_plain,
)

__all__ = ["KEPT_ACTIONS", "NO_ACTIONS", "BranchOutcome", "EventActions"]

KEPT_NODE_INFO: Final = frozenset({"messageAsOutput", "outputFor"})
"""What ``Event.other["nodeInfo"]`` may hold."""

KEPT_FIELDS: Final = frozenset(
    {
        "avgLogprobs",
        "cacheMetadata",
        "citationMetadata",
        "environmentId",
        "finishReason",
        "goAway",
        "groundingMetadata",
        "inputTranscription",
        "interactionId",
        "interactionStatus",
        "interrupted",
        "isolationScope",
        "liveSessionId",
        "liveSessionResumptionUpdate",
        "logprobsResult",
        "modelVersion",
        "nodeInfo",
        "outputTranscription",
        "turnComplete",
        "turnCompleteReason",
        "turnId",
        "usageMetadata",
        "voiceActivity",
    }
)
"""What ``Event.other`` may hold: JSON names of ADK's event, of any release we know."""

KEPT_ACTIONS: Final = frozenset(
    {
        "compaction",
        "renderUiWidgets",
        "requestedAuthConfigs",
        "requestedToolConfirmations",
        "rewindBeforeInvocationId",
        "setModelResponse",
        "transferReason",
    }
)
"""What ``EventActions.other`` may hold, likewise."""

EMPTY: Final = FrozenDict()


def check_optional_text(value: Any, path: str) -> None:
    if value is not None:
        check_text(value, path)


def check_text(value: Any, path: str) -> None:
    if type(value) is not str:
        raise UnstorableError(path, f"text is needed, not a {type(value).__name__}")
    freeze(value, path)


def check_kept(other: Mapping[str, Any], known: frozenset[str], path: str) -> None:
    for name in other:
        if name not in known:
            raise UnstorableError(f"{path}.{name}", "ADK has no such field")


def check_count(value: Any, path: str, *, least: int = 1) -> None:
    if type(value) is not int or value < least:
        raise UnstorableError(path, f"a whole number from {least} on is needed, not {value!r}")


def _speakable(text: Any) -> Any:
    return text.encode(errors="replace").decode() if type(text) is str else text


def _is_text(_outcome: object, attribute: attrs.Attribute[str], value: object) -> None:
    check_text(value, attribute.name)


_is_text_or_none: Final = attrs.validators.optional(_is_text)


def _is_count(_outcome: object, attribute: attrs.Attribute[int], value: object) -> None:
    # 0: cancelled while it was queued.
    check_count(value, attribute.name, least=0)


def _is_duration(_outcome: object, attribute: attrs.Attribute[float], value: object) -> None:
    if type(value) not in (int, float):
        raise UnstorableError(attribute.name, f"seconds are needed, not {value!r}")
    freeze(value, attribute.name)


@attrs.frozen
class BranchOutcome:
    """How one branch of a fan-out ended. ``duration`` is in seconds of the run's clock.

    Lone surrogates in ``error_message`` become question marks: an exception that names an odd
    file must not stop the record of its own failure.
    """

    name: str = attrs.field(validator=_is_text)
    status: str = attrs.field(validator=_is_text)
    error_type: str | None = attrs.field(default=None, validator=_is_text_or_none)
    error_message: str | None = attrs.field(
        default=None, converter=_speakable, validator=_is_text_or_none
    )
    attempts: int = attrs.field(default=1, validator=_is_count)
    duration: float = attrs.field(default=0.0, validator=_is_duration)


@attrs.define
class EventActions:
    """What an event asks for or reports, beside what it says. Field names are ADK's.

    Changeable until its event is sealed.

    Attributes:
        state_delta: keys and their new values (JSON).
        artifact_delta: artifact names and the version just saved.
        escalate: ends the nearest loop, and the siblings of a parallel's direct child.
        transfer_to_agent: name of the agent to go on with.
        route: what a graph compares the conditions of the agent's edges with, instead of its
            output: text, a whole number, True or False, or a list of these.
        skip_summarization: the content is final although it holds a function response.
        end_of_agent: the activation has ended.
        agent_state: what the activation needs to go on from here.
        outcomes: how the branches of a fan-out ended, in declaration order.
        state_unset: keys of the session's own state that are there no more; the delta holds None
            for each, which is what ADK reads. The runtime's own, when it resumes a run.
        journal: what the runtime notes, to resume the run from; nothing for agents or readers.
        other: actions of ADK that this runtime keeps and does not act on, by their JSON names.
    """

    state_delta: Mapping[str, Any] = attrs.field(factory=dict)
    artifact_delta: Mapping[str, int] = attrs.field(factory=dict)
    escalate: bool = False
    transfer_to_agent: str | None = None
    route: Any = None
    skip_summarization: bool = False
    end_of_agent: bool = False
    agent_state: Mapping[str, Any] | None = None
    outcomes: tuple[BranchOutcome, ...] = ()
    state_unset: tuple[str, ...] = ()
    journal: Mapping[str, Any] | None = None
    other: Mapping[str, Any] = EMPTY

    def __eq__(self, other: object) -> bool:
        # The generated one wants the same class, and a sealed event's actions have another.
        if not isinstance(other, EventActions):
            return NotImplemented
        names = (field.name for field in attrs.fields(EventActions))
        return all(getattr(self, name) == getattr(other, name) for name in names)

    __hash__ = None  # type: ignore[assignment]  # they can change


class SealedActions(EventActions):
    """Actions of a sealed event. Same layout, so that sealing is one assignment."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> EventActions:  # type: ignore[misc]  # see below
        # Called by `attrs.evolve` and `copy`: a copy of sealed actions is nobody's yet.
        return EventActions(*args, **kwargs)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        message = f"the event has been emitted: its actions.{name} can no longer be set"
        raise FrozenValueError(message)


SealedActions.__name__ = SealedActions.__qualname__ = "EventActions"


def sealed_actions(actions: EventActions) -> EventActions:
    actions.state_delta = frozen_mapping(actions.state_delta, "actions.state_delta")
    check_keys(actions.state_delta, "actions.state_delta")
    actions.artifact_delta = frozen_mapping(actions.artifact_delta, "actions.artifact_delta")
    if actions.other is not EMPTY:
        actions.other = frozen_mapping(actions.other, "actions.other")
    if actions.agent_state is not None:
        actions.agent_state = frozen_mapping(actions.agent_state, "actions.agent_state")
    if actions.journal is not None:
        actions.journal = frozen_mapping(actions.journal, "actions.journal")
    actions.__class__ = SealedActions
    return actions


def frozen_mapping(value: Any, path: str) -> FrozenDict:
    kind = type(value)
    if kind is FrozenDict:
        return value  # type: ignore[no-any-return]  # narrowed by identity, which mypy does not follow
    if kind is dict:  # asked first: it is the usual one, and `Mapping` takes long to ask for
        return (freeze_plain(value) or freeze(value, path)) if value else EMPTY
    if not isinstance(value, Mapping):
        raise UnstorableError(path, f"a mapping is needed, not a {kind.__name__}")
    return freeze(value, path)  # type: ignore[no-any-return]  # a mapping freezes to a FrozenDict


NO_ACTIONS: Final[EventActions] = sealed_actions(EventActions())
"""The actions of every sealed event that has none."""


_FLAGS: Final = ("escalate", "skip_summarization", "end_of_agent")


def check_actions(actions: Any) -> None:
    """Refuse what no event may ask for; what most ask for, a state delta alone, in one look."""
    if (
        type(actions) is EventActions
        and actions.transfer_to_agent is None
        and actions.route is None
        and actions.escalate is False
        and actions.skip_summarization is False
        and actions.end_of_agent is False
        and actions.outcomes == ()
        and actions.state_unset == ()
        and not actions.artifact_delta
        and not actions.other
    ):
        return
    if not isinstance(actions, EventActions):
        raise UnstorableError("actions", f"EventActions are needed, not a {type(actions).__name__}")
    check_optional_text(actions.transfer_to_agent, "actions.transfer_to_agent")
    if actions.route is not None:
        actions.route = _checked_route(actions.route)
    for name in _FLAGS:
        value = getattr(actions, name)
        if value is False:
            continue
        # ADK writes None for "not set".
        if value is None:
            setattr(actions, name, False)
        elif type(value) is not bool:
            raise UnstorableError(f"actions.{name}", f"True or False is needed, not {value!r}")
    if actions.artifact_delta:
        _check_versions(frozen_mapping(actions.artifact_delta, "actions.artifact_delta"))
    if actions.other:
        check_kept(frozen_mapping(actions.other, "actions.other"), KEPT_ACTIONS, "actions.other")
    _check_ours(actions)


def _checked_route(route: Any) -> Any:
    several = isinstance(route, list | tuple)
    for one in route if several else [route]:
        if type(one) not in (str, int, bool):
            why = f"text, a whole number, True or False is needed, or a list, not {one!r:.80}"
            raise UnstorableError("actions.route", why)
    return freeze(list(route) if several else route, "actions.route")


def _check_versions(delta: Mapping[str, Any]) -> None:
    for name, version in delta.items():
        if type(version) is not int:
            path = f"actions.artifact_delta.{name}"
            raise UnstorableError(path, f"a version is a whole number, not {version!r}")


def _check_ours(actions: EventActions) -> None:
    """Refuse what ADK has no field for, and is not of the right kind."""
    if actions.outcomes != ():
        actions.outcomes = _checked_outcomes(actions.outcomes)
    if actions.state_unset != ():
        _check_unset(actions)


def _check_unset(actions: EventActions) -> None:
    for index, key in enumerate(actions.state_unset):
        path = f"actions.state_unset[{index}]"
        check_text(key, path)
        if ":" in key or actions.state_delta.get(key, key) is not None:
            raise UnstorableError(path, "a key of the session's own, for which the delta has None")
    actions.state_unset = tuple(actions.state_unset)


def _checked_outcomes(outcomes: Any) -> tuple[BranchOutcome, ...]:
    if not isinstance(outcomes, list | tuple):
        why = f"BranchOutcomes are needed, not a {type(outcomes).__name__}"
        raise UnstorableError("actions.outcomes", why)
    for index, outcome in enumerate(outcomes):
        if not isinstance(outcome, BranchOutcome):
            why = f"a BranchOutcome is needed, not a {type(outcome).__name__}"
            raise UnstorableError(f"actions.outcomes[{index}]", why)
    return tuple(outcomes)
