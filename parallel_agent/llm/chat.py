"""Chat completions, the protocol that OpenAI's API and most model servers speak: both ways.

What goes out is made of a request here, and what comes in pieces is put together. Nobody is asked:
`parallel_agent.llm.openai_model` does that.

Pure: no event loop, no clock, no I/O.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

import attrs

from parallel_agent.llm.model import FinishReason, ModelRequest, ModelResponse, Usage
from parallel_agent.model_errors import (
    ModelArgumentsError,
    ModelProtocolError,
    ModelRequestError,
)
from session.content import (
    Content,
    FunctionCall,
    FunctionResponse,
    InlineData,
    OtherPart,
    Part,
    Text,
)
from session.event import USER

__all__ = ["Assembly", "body_of", "messages_of"]

_FINISH: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}

# What ADK says where nobody says anything.
_BEGIN: Final = "Handle the requests as specified in the System Instruction."
_GO_ON: Final = (
    "Continue processing previous requests as instructed. Exit or provide a summary if no more "
    "outputs are needed."
)


# What goes out.


def body_of(request: ModelRequest, model: str, *, most: str = "max_tokens") -> dict[str, Any]:
    """Return the fields of a call; ``most`` is the name of the one that limits the answer."""
    config = request.config
    body: dict[str, Any] = {"model": model, "messages": messages_of(request)}
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                },
            }
            for tool in request.tools
        ]
    if request.output_schema is not None:
        # Not strict: that allows no optional field, and the answer is checked here anyway.
        schema = {"name": "answer", "schema": request.output_schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    given = {
        "temperature": config.temperature,
        "top_p": config.top_p,
        most: config.max_tokens,
        "stop": list(config.stop) or None,
        "seed": config.seed,
    }
    return body | {name: value for name, value in given.items() if value is not None}


def messages_of(request: ModelRequest) -> list[dict[str, Any]]:
    """Return what was said, as messages; the last is one that can be answered.

    Raises:
        ModelRequestError: something in it can be sent in no message.
    """
    messages: list[dict[str, Any]] = []
    if request.instruction:
        messages.append({"role": "system", "content": request.instruction})
    names = _Names()
    newest = max((at for at, one in enumerate(request.contents) if _is_said(one)), default=0)
    for at, content in enumerate(request.contents):
        if content.role == USER:
            # What cannot be sent is refused when it comes, and not whenever it is looked back at.
            messages += _of_user(content, names, strict=at >= newest)
        else:
            messages.append(_of_model(content, names))
    # The last word is never the model's own: servers would write on at it, and some refuse. Nor is
    # there nothing to answer, for which few of their templates have a place.
    if not request.contents:
        messages.append({"role": "user", "content": _BEGIN})
    elif messages[-1]["role"] == "assistant":
        messages.append({"role": "user", "content": _GO_ON})
    return messages


class _Names:
    """Ids for calls that have none: the answers come in the same order."""

    def __init__(self) -> None:
        self._asked = 0
        self._answered = 0

    def of_call(self, call: FunctionCall) -> str:
        if call.id is not None:
            return call.id
        self._asked += 1
        return f"call_{self._asked}"

    def of_answer(self, answer: FunctionResponse) -> str:
        if answer.id is not None:
            return answer.id
        self._answered += 1
        return f"call_{self._answered}"


def _is_said(content: Content) -> bool:
    """Return whether somebody says something, and no tool has answered."""
    return content.role == USER and not all(
        isinstance(part, FunctionResponse) for part in content.parts
    )


def _of_user(content: Content, names: _Names, *, strict: bool) -> Iterator[dict[str, Any]]:
    for part in content.parts:
        if isinstance(part, FunctionResponse):
            yield {
                "role": "tool",
                "tool_call_id": names.of_answer(part),
                "content": json.dumps(part.response, ensure_ascii=False),
            }
    said = [part for part in content.parts if not isinstance(part, FunctionResponse)]
    if not said:
        return
    if all(isinstance(part, Text) for part in said):
        # Plain text, which every server takes; a list of parts, not all do.
        yield {"role": "user", "content": content.text}
    else:
        yield {"role": "user", "content": [_piece(part, strict=strict) for part in said]}


def _piece(part: Part, *, strict: bool) -> dict[str, Any]:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case InlineData() if part.mime_type.startswith("image/"):
            data = b64encode(part.data).decode()
            return {
                "type": "image_url",
                "image_url": {"url": f"data:{part.mime_type};base64,{data}"},
            }
        case InlineData() if part.mime_type in ("audio/wav", "audio/mp3", "audio/mpeg"):
            kind = "wav" if part.mime_type == "audio/wav" else "mp3"
            audio = {"data": b64encode(part.data).decode(), "format": kind}
            return {"type": "input_audio", "input_audio": audio}
        case InlineData():
            what = f"data of type {part.mime_type!r}"
        case FunctionCall() | FunctionResponse() | OtherPart():
            what = f"a {type(part).__name__}"
    if not strict:
        return {"type": "text", "text": f"[{what}, which cannot be shown here]"}
    message = f"{what} cannot be sent to a chat model; it takes text, images and sound"
    raise ModelRequestError(message)


def _of_model(content: Content, names: _Names) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content.text or None}
    calls = [
        {
            "id": names.of_call(part),
            "type": "function",
            "function": {
                "name": part.name,
                "arguments": json.dumps(part.args, ensure_ascii=False),
            },
        }
        for part in content.parts
        if isinstance(part, FunctionCall)
    ]
    if calls:
        message["tool_calls"] = calls
    return message


# What comes in.


@attrs.define
class _Words:
    """A text that comes in pieces.

    JSON may write a letter as two halves (surrogates), and a server that cuts its answer by those
    sends one in each of two pieces. The first is held back until the other is there.
    """

    _pieces: list[str] = attrs.field(factory=list[str])
    _half: str = ""

    def add(self, piece: str) -> str:
        """Take a piece; return what can be shown of it, and of what was held back."""
        if self._half:
            both = (self._half + piece).encode("utf-16-le", "surrogatepass")
            piece = both.decode("utf-16-le", "surrogatepass")
            self._half = ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            piece, self._half = piece[:-1], piece[-1]
        if piece:
            self._pieces.append(piece)
        return piece

    def whole(self) -> str:
        """Return all of it; half a letter at its end is left out, as it was never shown."""
        return "".join(self._pieces)


@attrs.define
class _Call:
    """A tool call that comes in pieces."""

    id: str = ""
    name: str = ""
    arguments: _Words = attrs.field(factory=_Words)


@attrs.define
class Assembly:
    """An answer that comes in pieces, as JSON objects of the protocol.

    Attributes:
        model: what answers, for errors.
    """

    model: str
    _text: _Words = attrs.field(factory=_Words)
    _thought: _Words = attrs.field(factory=_Words)
    _refusal: _Words = attrs.field(factory=_Words)
    _calls: dict[int, list[_Call]] = attrs.field(factory=dict[int, list[_Call]])
    _finish: str | None = None
    _usage: Usage | None = None
    _named: str = ""
    _is_empty: bool = True

    def add(self, chunk: object) -> ModelResponse | None:
        """Take a piece; return what of it is to be shown at once, if it says something.

        Raises:
            ModelProtocolError: it is no piece of an answer.
        """
        self._is_empty = False
        try:
            return self._add(cast("Mapping[str, Any]", chunk))
        except (AttributeError, KeyError, TypeError, IndexError, ValueError) as exc:
            message = f"a piece of the answer is none: {chunk!r:.200}"
            raise ModelProtocolError(message, model=self.model) from exc

    def _add(self, chunk: Mapping[str, Any]) -> ModelResponse | None:
        self._named = _text(chunk.get("model")) or self._named
        if chunk.get("usage"):
            self._usage = _usage(chunk["usage"])
        choices: Sequence[Mapping[str, Any]] = chunk.get("choices") or ()
        # Asked for several answers, a server sends pieces of each in turn; the first one counts.
        choice = next((one for one in choices if not one.get("index")), None)
        if choice is None:
            return None
        self._finish = _text(choice.get("finish_reason")) or self._finish
        delta: Mapping[str, Any] = choice.get("delta") or {}
        for piece in delta.get("tool_calls") or ():
            self._add_call(piece)
        self._refusal.add(_text(delta.get("refusal")))
        parts: list[Part] = []
        # Servers of models that think aloud call that by either name.
        thought = _text(delta.get("reasoning_content") or delta.get("reasoning"))
        if thought and (shown := self._thought.add(thought)):
            parts.append(Text(shown, thought=True))
        text = _text(delta.get("content"))
        if text and (shown := self._text.add(text)):
            parts.append(Text(shown))
        if not parts:
            return None
        return ModelResponse(content=Content(tuple(parts)), partial=True)

    def _add_call(self, piece: Mapping[str, Any]) -> None:
        # Some servers number no calls, and send each as a whole; some number them all alike.
        given, name = piece.get("index"), _text(piece.get("id"))
        index = len(self._calls) if given is None else int(given)
        calls = self._calls.setdefault(index, [_Call()])
        if name and calls[-1].id and name != calls[-1].id:
            calls.append(_Call())
        call = calls[-1]
        call.id = name or call.id
        function: Mapping[str, Any] = piece.get("function") or {}
        call.name = _text(function.get("name")) or call.name
        call.arguments.add(_text(function.get("arguments")))

    @property
    def is_empty(self) -> bool:
        """Whether no piece has come."""
        return self._is_empty

    def whole(self) -> ModelResponse:
        """Return the whole answer.

        Raises:
            ModelProtocolError: it broke off, or the arguments of a call are no object that could
                be recorded.
        """
        # Of calls too: what is left of one that broke off may look like a whole one.
        if self._finish is None:
            message = "the answer broke off before its end"
            raise ModelProtocolError(message, model=self.model)
        thought, text, refusal = self._thought.whole(), self._text.whole(), self._refusal.whole()
        parts: list[Part] = []
        if thought:
            parts.append(Text(thought, thought=True))
        if text or refusal:
            parts.append(Text(text or refusal))
        parts += [self._call(call) for _, calls in sorted(self._calls.items()) for call in calls]
        finish: FinishReason = _FINISH.get(self._finish, "other")
        return ModelResponse(
            content=Content(tuple(parts)),
            finish_reason="tool_calls" if self._calls else finish,
            usage=self._usage,
            refusal=refusal or None,
            model=self._named,
        )

    def _call(self, call: _Call) -> FunctionCall:
        text = call.arguments.whole()
        try:
            arguments = _object(json.loads(text) if text.strip() else {})
            return FunctionCall(call.name, arguments, call.id or None)
        except (TypeError, ValueError, RecursionError) as exc:
            if self._finish == "length":
                message = (
                    f"there was no room for all of its call of {call.name!r}: max_tokens, or the "
                    "context of the model, is too small"
                )
                raise ModelProtocolError(message, model=self.model) from exc
            raise ModelArgumentsError(call.name, text, f"{exc}", model=self.model) from exc


def _object(value: object) -> dict[str, Any]:
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    message = f"a JSON object is needed, not {value!r:.80}"
    raise TypeError(message)


def _text(value: object) -> str:
    """Return a text, or none of a field that is left out."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    message = f"text is needed, not {value!r:.80}"
    raise TypeError(message)


def _usage(usage: Mapping[str, Any]) -> Usage:
    def detail(of: str, name: str) -> int:
        details: Mapping[str, Any] = usage.get(of) or {}
        return int(details.get(name) or 0)

    return Usage(
        input_tokens=int(usage.get("prompt_tokens") or 0),
        output_tokens=int(usage.get("completion_tokens") or 0),
        cached_tokens=detail("prompt_tokens_details", "cached_tokens"),
        reasoning_tokens=detail("completion_tokens_details", "reasoning_tokens"),
    )
