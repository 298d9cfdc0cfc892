"""Events of ours as ADK's, and back, by the stored form, which both can read.

Where the two mean different things by the same field, it is said here:

* ADK's events carry the names and branches of agents inside an `AdkAgent`; ours carry the place of
  the leaf. What differs is kept in the event's custom metadata, under `MARKS`.
* ADK hides from an agent what is not on its branch or above. What a branch of ours may see is more:
  what was forked from it and has joined, too. That gets the branch of whoever looks.

Plain functions: nothing here waits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

import attrs

from parallel_agent.adk.library import AdkEvent, AdkEventActions
from session.codec import Codec, CodecError
from session.content import Content
from session.event import OURS, USER, Event

__all__ = [
    "MARKS",
    "content_from_adk",
    "content_to_adk",
    "from_adk",
    "past_from_adk",
    "past_to_adk",
    "state_from_adk",
    "to_adk",
]

MARKS: Final = "google_adk"
"""The key of an event's custom metadata that holds what ADK said of itself, by ADK's names."""

_CODEC: Final = Codec()

_EMPTY_ACTIONS: Final = ("requestedAuthConfigs", "requestedToolConfirmations")
"""What ADK writes empty when nobody has set it."""


# From ADK.


def from_adk(
    adk_event: Any, *, author: str, branch: str | None, keeps_transfer: bool, keeps_escalate: bool
) -> Event:
    """Return an event, to be emitted, that says what an ADK agent's event says.

    Args:
        adk_event: an ``Event`` of ADK's.
        author: the leaf that will emit it.
        branch: the branch that this is on.
        keeps_transfer: whether handing over is ours to do, and has not been done by ADK.
        keeps_escalate: whether escalating is ours to heed, and has not been by a loop of ADK's.

    Raises:
        CodecError: it says something that our events cannot say.
        ValueError: pydantic finds no JSON form for it.
    """
    read = _read(adk_event)
    actions = attrs.evolve(read.actions)
    marks: dict[str, Any] = {}
    if read.author not in ("", author):
        marks["author"] = read.author
    if read.branch not in (None, branch):
        marks["branch"] = read.branch
    if actions.transfer_to_agent is not None and not keeps_transfer:
        marks["transferToAgent"] = actions.transfer_to_agent
        actions.transfer_to_agent = None
    if actions.escalate and not keeps_escalate:
        marks["escalate"] = True
        actions.escalate = False
    metadata = read.custom_metadata
    content = read.content
    # ADK's `Event(message="...")` says that the user speaks, whoever does. Answers of tools are the
    # user's, too, and models want them to be.
    is_misnamed = read.author != USER and not read.function_responses
    if content is not None and content.role == USER and is_misnamed:
        content = attrs.evolve(content, role="model")
    return Event(
        content,
        actions=actions,
        output=read.output,
        partial=read.partial,
        error_code=read.error_code,
        error_message=read.error_message,
        long_running_tool_ids=read.long_running_tool_ids,
        custom_metadata={**metadata, MARKS: marks} if marks else metadata,
        other=read.other,
    )


def past_from_adk(adk_event: Any, *, author: str, name: str) -> Event:
    """Return an event of a log of ADK's as one that a session service can take.

    ``author`` is what the agent that ADK calls ``name`` is called here.
    """
    obj = _dumped(adk_event)
    metadata = obj.get("customMetadata", {})
    if OURS in metadata:
        metadata[OURS].pop("seq", None)  # its place in another log
    if obj["author"] == name:
        obj["author"] = author
    return _decoded(obj)


def content_from_adk(content: Any) -> Content | None:
    """Return a message of ADK's as one of ours."""
    return None if content is None else _read(AdkEvent(content=content)).content


def state_from_adk(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a session of ADK's as JSON, as its database service would store it."""
    actions = AdkEventActions(state_delta=dict(state))
    # By way of the text, as above: what JSON has no number for is null.
    return cast("dict[str, Any]", json.loads(actions.model_dump_json())["state_delta"])


def _read(adk_event: Any) -> Event:
    return _decoded(_dumped(adk_event))


def _dumped(adk_event: Any) -> dict[str, Any]:
    try:
        text = adk_event.model_dump_json(by_alias=True, exclude_none=True)
    except ValueError as exc:
        exc.add_note(_where(adk_event.author))
        raise
    obj: dict[str, Any] = json.loads(text)
    for name in _EMPTY_ACTIONS:
        if not obj["actions"].get(name):
            obj["actions"].pop(name, None)
    return obj


def _decoded(obj: dict[str, Any]) -> Event:
    try:
        return _CODEC.decode(obj)
    except CodecError as exc:
        exc.add_note(_where(obj.get("author")))
        raise


def _where(author: object) -> str:
    return f"in an event of the ADK agent {author!r}"


# To ADK.


def to_adk(
    event: Event,
    *,
    author: str,
    invocation_id: str,
    above: str | None,
    keeps_escalate: bool,
    temporary: Mapping[str, Any],
) -> Any:
    """Return an event that a tree has emitted as one that ADK's runner can record.

    Args:
        event: it.
        author: who said it, as ADK is to know it.
        invocation_id: ADK's, of the invocation that the tree runs in.
        above: ADK's branch that the tree runs on.
        keeps_escalate: whether no loop of the tree has heeded it.
        temporary: the ``temp:`` keys that changed with it; ADK hands them to its next agents.
    """
    obj = _CODEC.encode(event)
    del obj["id"]  # ADK makes its own
    actions = dict(obj["actions"])
    if not keeps_escalate:
        actions.pop("escalate", None)
    if temporary:
        actions["stateDelta"] = {**actions.get("stateDelta", {}), **temporary}
    obj |= {"author": author, "invocationId": invocation_id, "actions": actions}
    branch = ".".join(part for part in (above, event.branch) if part)
    if branch:
        obj["branch"] = branch
    metadata = dict(obj.pop("customMetadata", {}))
    ours = {key: value for key, value in metadata.pop(OURS, {}).items() if key != "seq"}
    if ours:
        metadata[OURS] = ours
    if metadata:
        obj["customMetadata"] = metadata
    return _as_adk(obj)


def past_to_adk(event: Event, *, name: str, adk_name: str, branch: str | None) -> Any:
    """Return a recorded event as the ADK agent of the leaf ``name`` on ``branch`` is to see it."""
    obj = _CODEC.encode(event)
    # A message that has a path is taken for another node's, and hidden.
    obj.pop("nodeInfo", None)
    metadata = dict(obj.pop("customMetadata", {}))
    metadata.pop(OURS, None)
    seen = _branch_seen(event.branch, branch)
    marks: Mapping[str, Any] = metadata.get(MARKS, {})
    if event.author == name and isinstance(marks, Mapping):
        metadata.pop(MARKS, None)
        obj["author"] = marks.get("author", adk_name)
        actions = {key: marks[key] for key in ("transferToAgent", "escalate") if key in marks}
        obj["actions"] = {**obj["actions"], **actions}
        if event.branch == branch:
            seen = marks.get("branch", branch)
    obj.pop("branch", None)
    if seen is not None:
        obj["branch"] = seen
    if metadata:
        obj["customMetadata"] = metadata
    return _as_adk(obj)


def _branch_seen(written: str | None, seen_from: str | None) -> str | None:
    if written is None or seen_from is None or f"{seen_from}.".startswith(f"{written}."):
        return written
    return seen_from


def content_to_adk(content: Content | None) -> Any:
    """Return a message of ours as one of ADK's."""
    if content is None:
        return None
    event = Event(content)
    event.seal()
    return _as_adk({**_CODEC.encode(event), "author": USER}).content


def _as_adk(obj: dict[str, Any]) -> Any:
    # By way of the text: only then is base64 read as bytes, and nothing of ours shared with ADK.
    return AdkEvent.model_validate_json(json.dumps(obj))
