"""What a model is: a request goes in, and a stream of responses comes out.

The first responses may be partial, a few letters each; the last one is whole, and is what counts.
Whoever wants to speak to a model of another kind implements `Model` with one method.

Pure: no event loop, no clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

import attrs

from session.content import Content, FunctionCall
from session.state import freeze

__all__ = [
    "FINISH_REASONS",
    "FinishReason",
    "GenerationConfig",
    "Model",
    "ModelRequest",
    "ModelResponse",
    "ToolSpec",
    "Usage",
]

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter", "other"]
"""Why a model has stopped: it was done; it had no room left; it wants tools to be called; somebody
was afraid of what it says; or something else."""

FINISH_REASONS: Final[tuple[FinishReason, ...]] = get_args(FinishReason)


def _is_share(_config: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (type(value) not in (int, float) or not 0 <= value <= 2):  # type: ignore[operator]  # noqa: PLR2004  # a number, see before; what models take
        message = f"{attribute.name} is a number from 0 to 2, not {value!r}"
        raise ValueError(message)


def _is_count(_config: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (type(value) is not int or value < 1):
        message = f"{attribute.name} is a whole number from 1 on, not {value!r}"
        raise ValueError(message)


def _as_tuple(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen(kw_only=True)
class GenerationConfig:
    """How a model is to answer. None is what the model does by itself.

    Attributes:
        temperature: how much is left to chance, from 0 to 2.
        top_p: of which share of the likeliest words it chooses.
        max_tokens: how long an answer may be.
        stop: texts at which it stops.
        seed: for answers that can be had again, where the model can do that.
        extra: further fields of the request, as the provider names them.
    """

    temperature: float | None = attrs.field(default=None, validator=_is_share)
    top_p: float | None = attrs.field(default=None, validator=_is_share)
    max_tokens: int | None = attrs.field(default=None, validator=_is_count)
    stop: tuple[str, ...] = attrs.field(default=(), converter=_as_tuple)
    seed: int | None = None
    extra: Mapping[str, Any] = attrs.field(factory=dict[str, Any], converter=freeze)


@attrs.frozen
class ToolSpec:
    """What a model is told of a tool. ``parameters`` is the JSON Schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any] = attrs.field(converter=freeze)


@attrs.frozen(kw_only=True)
class ModelRequest:
    """What a model is asked.

    Attributes:
        contents: what was said so far, oldest first; the roles are ``"user"`` and ``"model"``.
            What tools have answered is the user's. Each tool call is followed by its answer.
        instruction: what the model is to be and do.
        tools: what it may want to have called.
        output_schema: the JSON Schema its answer must fit; None if it may say what it wants.
        config: how it is to answer.
    """

    contents: tuple[Content, ...]
    instruction: str = ""
    tools: tuple[ToolSpec, ...] = ()
    output_schema: Mapping[str, Any] | None = None
    config: GenerationConfig = GenerationConfig()


@attrs.frozen
class Usage:
    """How many tokens a call has cost; 0 where the server does not say."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


def _as_content(given: Content | str) -> Content:
    if isinstance(given, Content | str):
        return Content(given) if isinstance(given, str) else given
    message = f"what a model says is a Content, or text, not {given!r:.80}"
    raise TypeError(message)


@attrs.frozen(kw_only=True)
class ModelResponse:
    """What a model answers: a piece of it, or all.

    Attributes:
        content: what it says, role ``"model"``. Of a partial response, what has come since the
            one before; of the whole, everything.
        partial: it is a piece.
        finish_reason: why it has stopped; of the whole.
        usage: what it has cost, if the server says; of the whole.
        refusal: it will not answer, and says so in these words.
        model: what has answered, as the server calls it.
    """

    content: Content = attrs.field(converter=_as_content)
    partial: bool = False
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    refusal: str | None = None
    model: str = ""

    @property
    def calls(self) -> list[FunctionCall]:
        """The tool calls it asks for, in order."""
        return [part for part in self.content.parts if isinstance(part, FunctionCall)]


class Model(ABC):
    """A model. Shared by agents, and used by several at a time: it keeps nothing of a call."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called: in logs, in errors, and in the shape of a tree."""

    @abstractmethod
    def generate(self, request: ModelRequest) -> AsyncGenerator[ModelResponse, None]:
        """Yield partial responses, and then one that is whole.

        An async generator that is run to its end, or closed. A cancellation, or its being closed,
        ends the call to the server. It must not yield from inside a cancel scope or nursery.

        Raises:
            ModelError: the call has failed; its class says how.
        """
