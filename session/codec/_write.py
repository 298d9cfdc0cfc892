"""From events to JSON.

By hand: it is done for every event of a durable session, and leaves out what ADK leaves out.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, assert_never

import attrs

from session.actions import NO_ACTIONS, BranchOutcome, EventActions
from session.codec._values import camel, checked, read_float, read_int, read_text
from session.content import (
    Content,
    FunctionCall,
    FunctionResponse,
    InlineData,
    OtherPart,
    Part,
    Text,
)
from session.event import OURS, Event


def event_object(event: Event) -> dict[str, Any]:
    """Return the JSON object of a sealed event.

    Raises:
        UnstorableError: what the runtime stamped on it, and `Event.seal` has not seen, has no
            JSON form.
    """
    stored = {
        "id": checked(read_text, event.id, "id"),
        "invocationId": checked(read_text, event.invocation_id, "invocationId"),
        "author": checked(read_text, event.author, "author"),
        "timestamp": checked(read_float, event.timestamp, "timestamp"),
        "actions": _actions_object(event.actions),
    }
    if event.branch is not None:
        stored["branch"] = checked(read_text, event.branch, "branch")
    if event.content is not None:
        stored["content"] = _content_object(event.content)
    if event.output is not None:
        stored["output"] = event.output
    stored |= _set_only(
        {
            "partial": event.partial,
            "errorCode": event.error_code,
            "errorMessage": event.error_message,
            "longRunningToolIds": list(event.long_running_tool_ids),
        }
    )
    stored |= event.other
    if event.path:
        path = checked(read_text, event.path, "nodeInfo.path")
        stored["nodeInfo"] = {"path": path, **event.other.get("nodeInfo", {})}
    metadata = dict(event.custom_metadata)
    if ours := _our_object(event):
        metadata[OURS] = ours
    if metadata:
        stored["customMetadata"] = metadata
    return stored


def _our_object(event: Event) -> dict[str, Any]:
    ours: dict[str, Any] = {}
    if event.seq is not None:
        ours["seq"] = checked(read_int, event.seq, f"customMetadata.{OURS}.seq")
    if event.attempt != 1:
        ours["attempt"] = event.attempt
    if outcomes := event.actions.outcomes:
        ours["outcomes"] = [_outcome_object(outcome) for outcome in outcomes]
    if event.actions.state_unset:
        ours["unset"] = list(event.actions.state_unset)
    if event.actions.journal is not None:
        ours["journal"] = event.actions.journal
    return ours


def _actions_object(actions: EventActions) -> dict[str, Any]:
    if actions is NO_ACTIONS:
        return {}
    stored = _set_only(
        {
            "stateDelta": actions.state_delta,
            "artifactDelta": actions.artifact_delta,
            "escalate": actions.escalate,
            "transferToAgent": actions.transfer_to_agent,
            "skipSummarization": actions.skip_summarization,
            "endOfAgent": actions.end_of_agent,
        }
    )
    if actions.route is not None:
        stored["route"] = actions.route
    if actions.agent_state is not None:
        stored["agentState"] = actions.agent_state
    return {**stored, **actions.other}


def _outcome_object(outcome: BranchOutcome) -> dict[str, Any]:
    return {
        camel(name): value for name, value in attrs.asdict(outcome).items() if value is not None
    }


def _content_object(content: Content) -> dict[str, Any]:
    parts = [_part_object(part) for part in content.parts]
    return {"parts": parts} if content.role is None else {"parts": parts, "role": content.role}


def _part_object(part: Part) -> Mapping[str, Any]:
    match part:
        case Text():
            return {"text": part.text, "thought": True} if part.thought else {"text": part.text}
        case FunctionCall():
            return {
                "functionCall": _set_only({"id": part.id, "name": part.name}) | {"args": part.args}
            }
        case FunctionResponse():
            response = _set_only({"id": part.id, "name": part.name}) | {"response": part.response}
            return {"functionResponse": response}
        case InlineData():
            data = urlsafe_b64encode(part.data).decode()
            return {"inlineData": {"data": data, "mimeType": part.mime_type}}
        case OtherPart():
            return part.raw
        case _:
            assert_never(part)


def _set_only(fields: dict[str, Any]) -> dict[str, Any]:
    # Not by truth: zero and empty text are values.
    return {
        name: value
        for name, value in fields.items()
        if value is not None and value is not False and value not in ({}, [])
    }
