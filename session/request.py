"""A question to a person, as an event holds it.

The form is Google ADK's: a call of the function ``adk_request_input`` whose answer comes later,
and a response of that function with the same id.

Pure values: no I/O, no clock, no event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import attrs

from session.content import Content, FunctionCall, FunctionResponse

__all__ = ["REQUEST_INPUT", "InputRequest", "request_in", "response_content"]

REQUEST_INPUT: Final = "adk_request_input"
"""The name of the function that is called to ask a person."""


@attrs.frozen
class InputRequest:
    """What a person is asked.

    Attributes:
        id: names the request in its session; an answer must give it.
        prompt: the question.
        schema: what the answer must be, as JSON Schema; None if anything will do.
    """

    id: str
    prompt: str
    schema: Mapping[str, Any] | None = None

    def to_content(self) -> Content:
        """Return the content of the event that asks."""
        args = {
            "interruptId": self.id,
            "message": self.prompt,
            "payload": None,
            "response_schema": self.schema,
        }
        return Content((FunctionCall(REQUEST_INPUT, args, id=self.id),))


def request_in(content: Content) -> InputRequest | None:
    """Return the request that a content holds, if it holds one."""
    for part in content.parts:
        if isinstance(part, FunctionCall) and part.name == REQUEST_INPUT and part.id:
            prompt = part.args.get("message")
            schema = part.args.get("response_schema")
            return InputRequest(
                part.id,
                prompt if isinstance(prompt, str) else "",
                cast("Mapping[str, Any]", schema) if isinstance(schema, Mapping) else None,
            )
    return None


def response_content(request_id: str, value: Any, *, role: str) -> Content:
    """Return the content of the event that answers. ``value`` is a JSON value."""
    return Content((FunctionResponse(REQUEST_INPUT, {"result": value}, id=request_id),), role=role)
