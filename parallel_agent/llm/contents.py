"""What a model is sent of what was said: the events an agent may see, as contents of a request.

What the agent itself has said is the model's; what people have said is the user's; what other
agents have said is the user's as well, with their names, as text: a model must not take it for
its own.

*Hygiene.* Servers refuse a tool call without an answer, and an answer without a call. A turn that
was cancelled or has crashed leaves such calls in the log, and a window of recent events may cut
one off. Calls without an answer are left out here, answers without a call as well, and each answer
stands right behind its call, in the order of the calls, however the tools came to their ends.

Pure: no event loop, no clock.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import attrs

from session.content import (
    Content,
    FunctionCall,
    FunctionResponse,
    InlineData,
    OtherPart,
    Part,
    Text,
)
from session.event import USER, Event
from session.request import REQUEST_INPUT

__all__ = ["MODEL", "contents_of", "input_content"]

MODEL: Final = "model"
"""The role of what a model has said."""


def contents_of(events: Iterable[Event], author: str) -> tuple[Content, ...]:
    """Return what the model of the agent ``author`` is sent of ``events``, oldest first."""
    said = [content for event in _spoken(events, author) for content in _said(event, author)]
    return tuple(_paired(said))


def _spoken(events: Iterable[Event], author: str) -> Iterator[Event]:
    """Yield events without those that tools of the agent have emitted.

    They have its name. But while its calls are answered, no model says anything.
    """
    open_calls: dict[tuple[str, str], set[str | None]] = {}
    for event in events:
        if event.author != author or event.request is not None:
            yield event
            continue
        place = event.invocation_id, event.path
        calls = open_calls.setdefault(place, set())
        answers = {one.id for one in event.function_responses}
        if calls and not answers:
            continue
        calls -= answers
        calls |= {one.id for one in event.function_calls if one.id is not None} - answers
        yield event


def input_content(value: Any) -> Content:
    """Return what an agent was given to work on, as something the user says."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return Content(text, role=USER)


def _said(event: Event, author: str) -> Iterator[Content]:
    content = event.content
    if content is None or event.partial:
        return
    parts = tuple(part for part in content.parts if not _is_of_ours(part))
    if not parts:
        return
    if event.author == author:
        # An agent's event may hold a call beside the answer to another: each has its own role.
        answers = tuple(part for part in parts if isinstance(part, FunctionResponse))
        own = tuple(part for part in parts if not isinstance(part, FunctionResponse))
        if own:
            yield Content(own, role=MODEL)
        if answers:
            yield Content(answers, role=USER)
    elif event.author == USER:
        yield Content(parts, role=USER)
    else:
        told = tuple(_told(part, event.author) for part in parts)
        yield Content(told, role=USER)


def _is_of_ours(part: Part) -> bool:
    """Whether a part is the runtime's own, or a model's thought: no model is sent either."""
    if isinstance(part, FunctionCall | FunctionResponse):
        return part.name == REQUEST_INPUT
    if isinstance(part, Text):
        return part.thought or not part.text
    return isinstance(part, OtherPart)


def _told(part: Part, author: str) -> Part:
    """Return what another agent has said, as a text that says so."""
    match part:
        case Text():
            return Text(f"[{author}] said: {part.text}")
        case FunctionCall():
            return Text(f"[{author}] called {part.name} with {_json(part.args)}")
        case FunctionResponse():
            return Text(f"[{author}] was answered by {part.name}: {_json(part.response)}")
        case InlineData() | OtherPart():
            return part


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@attrs.define(eq=False)
class _Call:
    """A tool call of the agent's own, and the answer if there is one."""

    part: FunctionCall
    answer: FunctionResponse | None = None


def _paired(contents: Sequence[Content]) -> Iterator[Content]:
    """Yield ``contents`` with each answer behind its call, and neither without the other."""
    calls = _match(contents)
    for content in contents:
        found = [calls.get(id(part)) for part in content.parts]
        called = [call for call in found if call is not None and call.answer is not None]
        live = {id(call.part) for call in called}
        kept = tuple(
            part
            for part in content.parts
            if id(part) in live or not isinstance(part, FunctionCall | FunctionResponse)
        )
        if kept:
            yield attrs.evolve(content, parts=kept)
        answers = tuple(call.answer for call in called if call.answer is not None)
        if answers:
            yield Content(answers, role=USER)


def _match(contents: Sequence[Content]) -> dict[int, _Call]:
    """Find the answer of each call: of its id, the last one; without ids, the next of its name.

    What takes long is answered twice: that it has begun, and, some day, with what it came to.
    """
    calls: dict[int, _Call] = {}
    by_id: dict[str, _Call] = {}
    by_name: dict[str, deque[_Call]] = {}
    for content in contents:
        for part in content.parts:
            if isinstance(part, FunctionCall) and content.role == MODEL:
                call = calls[id(part)] = _Call(part)
                if part.id is None:
                    by_name.setdefault(part.name, deque()).append(call)
                else:
                    by_id[part.id] = call
            elif isinstance(part, FunctionResponse):
                if part.id is not None:
                    found = by_id.get(part.id)
                else:
                    waiting = by_name.get(part.name)
                    found = waiting.popleft() if waiting else None
                if found is not None:
                    found.answer = part
    return calls
