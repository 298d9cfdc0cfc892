"""What a message says: parts, and the content that holds them.

The shapes and JSON names are those of the Gemini API that Google ADK stores, cut down to the
parts an agent runtime acts on. A part of any other kind is kept as it came (`OtherPart`), so
that reading a foreign log and writing it again loses nothing.

What has no JSON form (text with a lone surrogate, say) is refused where the part is made.

Pure values: no I/O, no clock, no event loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import attrs

from session.state import FrozenDict, UnstorableError, freeze

__all__ = [
    "Content",
    "FunctionCall",
    "FunctionResponse",
    "InlineData",
    "OtherPart",
    "Part",
    "Text",
]


def _frozen_object(value: Mapping[str, Any]) -> FrozenDict:
    frozen = freeze(value)
    if type(frozen) is not FrozenDict:
        raise UnstorableError("", f"a mapping is needed, not a {type(value).__name__}")
    return frozen


def _is_text(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if type(value) is not str:
        raise UnstorableError(attribute.name, f"text is needed, not a {type(value).__name__}")
    freeze(value, attribute.name)


def _is_text_or_none(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        _is_text(instance, attribute, value)


@attrs.frozen
class Text:
    """Words, written by a person or by an agent.

    ``thought`` marks a model's own reasoning: it is kept, and left out of `Content.text`.
    """

    text: str = attrs.field(validator=_is_text)
    thought: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))


@attrs.frozen
class FunctionCall:
    """A tool that a model wants to have called. ``args`` is a JSON object, frozen on the way in."""

    name: str = attrs.field(validator=_is_text)
    args: Mapping[str, Any] = attrs.field(factory=FrozenDict, converter=_frozen_object)
    id: str | None = attrs.field(default=None, validator=_is_text_or_none)


@attrs.frozen
class FunctionResponse:
    """What a tool answered to the call with the same ``id``. ``response`` is a JSON object."""

    name: str = attrs.field(validator=_is_text)
    response: Mapping[str, Any] = attrs.field(factory=FrozenDict, converter=_frozen_object)
    id: str | None = attrs.field(default=None, validator=_is_text_or_none)


@attrs.frozen
class InlineData:
    """Bytes in a message: an image, a sound, a document. ``mime_type`` says which."""

    data: bytes = attrs.field(
        validator=attrs.validators.instance_of(bytes), repr=lambda b: f"<{len(b)} bytes>"
    )
    mime_type: str = attrs.field(default="application/octet-stream", validator=_is_text)


@attrs.frozen
class OtherPart:
    """A part of a kind this runtime does not act on, as the JSON object it was read from."""

    raw: Mapping[str, Any] = attrs.field(converter=_frozen_object)


Part: TypeAlias = Text | FunctionCall | FunctionResponse | InlineData | OtherPart
_PART_TYPES = (Text, FunctionCall, FunctionResponse, InlineData, OtherPart)


def _as_parts(parts: str | Part | tuple[Part, ...] | list[Part]) -> tuple[Part, ...]:
    if isinstance(parts, str):
        return (Text(parts),)
    if isinstance(parts, _PART_TYPES):
        return (parts,)
    result = tuple(parts)
    for index, part in enumerate(result):
        # Callers need not use a type checker.
        if not isinstance(part, _PART_TYPES):  # pyright: ignore[reportUnnecessaryIsInstance]
            message = f"parts[{index}] is a {type(part).__name__}; a part is one of {_names()}"
            raise TypeError(message)
    return result


def _names() -> str:
    return ", ".join(kind.__name__ for kind in _PART_TYPES)


@attrs.frozen
class Content:
    """One message: parts in order, and who speaks (``"user"`` or ``"model"``).

    ``Content("hello")`` is short for ``Content((Text("hello"),))``.

    Raises:
        TypeError: something in ``parts`` is not a part; the message gives its index.
        UnstorableError: ``role`` is no text.
    """

    parts: tuple[Part, ...] = attrs.field(converter=_as_parts)
    role: str | None = attrs.field(default="model", validator=_is_text_or_none)

    @property
    def text(self) -> str:
        """The text parts, joined; thoughts and everything that is no text are left out."""
        return "".join(
            part.text for part in self.parts if isinstance(part, Text) and not part.thought
        )
