"""What models are sent beside a prompt: what was said before, images and documents.

They stand in the file, or in files in its folder, which are read here: when the graph is loaded,
and only for nodes that name them. Nothing is fetched from elsewhere.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from parallel_agent.config.format import HistoryFile, HistoryMessage, Media
from parallel_agent.config.plan import Plan
from parallel_agent.config.problems import Problem
from parallel_agent.config.source import Source, read_text
from parallel_agent.errors import ConfigError
from parallel_agent.schema import Schema, SchemaError
from parallel_agent.schema._problems import path_text, shown
from session.content import Content, InlineData
from session.event import USER

__all__ = ["ROLES", "Materials", "inside", "named_file", "read_materials"]

MAX_MEDIA: Final = 20_000_000
"""How many bytes an image or a document may have."""

ROLES: Final = {"user": USER, "assistant": "model", "model": "model"}
"""Who may have said something: as a file has it, and as a model is sent it."""


@attrs.frozen(eq=False)
class Materials:
    """What was read.

    Attributes:
        histories: by scope.
        images: by number.
        documents: by number.
        notes: what is worth knowing of them.
    """

    histories: dict[str, tuple[Content, ...]] = attrs.Factory(dict[str, "tuple[Content, ...]"])
    images: dict[int, InlineData] = attrs.Factory(dict[int, InlineData])
    documents: dict[int, InlineData] = attrs.Factory(dict[int, InlineData])
    notes: list[Problem] = attrs.Factory(list[Problem])


def read_materials(plan: Plan, source: Source) -> tuple[Materials, list[Problem]]:
    """Return what the nodes of a file name, and what is wrong with it. Blocks."""
    materials, problems = Materials(), list[Problem]()
    asking = [node.entry for node in plan.nodes.values() if node.entry.prompt is not None]
    for scope in dict.fromkeys(one.prompt.chat_history for one in asking if one.prompt):
        listed = (plan.file.chat_history or {}).get(scope or "")
        if listed is None or scope is None:
            continue
        try:
            materials.histories[scope] = _history(listed, scope, source, materials.notes)
        except ConfigError as exc:
            problems += exc.problems
    kinds: Sequence[tuple[str, Sequence[Media], dict[int, InlineData]]] = (
        ("images", plan.file.images or (), materials.images),
        ("documents", plan.file.documents or (), materials.documents),
    )
    for kind, declared, read in kinds:
        named = {number for one in asking for number in getattr(one, kind) or ()}
        for index, media in enumerate(declared):
            if index in named:
                try:
                    read[index] = _media(media, kind, f"{kind}[{index}]", source)
                except ConfigError as exc:
                    problems += exc.problems
    return materials, problems


def inside(source: Source, uri: str) -> Path | None:
    """Return the path of a file in the folder of the graph file; None if it is not there."""
    try:
        folder = Path(source.file).parent.resolve()
        path = (folder / uri).resolve()
        return path if path.is_relative_to(folder) and "://" not in uri else None
    except (OSError, ValueError):
        return None


def named_file(source: Source, uri: str) -> str:
    """Return what such a file is called in messages: as it was named."""
    return source.hide(os.path.join(os.path.dirname(source.file), uri))  # noqa: PTH118, PTH120  # as it was named


# What was said before.

_HISTORY: Final = Schema(list[HistoryMessage])


def _history(
    listed: list[HistoryMessage] | HistoryFile, scope: str, source: Source, notes: list[Problem]
) -> tuple[Content, ...]:
    place = path_text("chat_history", [scope])
    if not isinstance(listed, HistoryFile):
        return tuple(_said(listed, place, source))
    place = f"{place}.path"
    path = inside(source, listed.path)
    if path is None:
        why = "the file of a history lies in the folder of the graph file, or below it"
        raise ConfigError([source.problem(place, why)])
    if not path.exists():
        why = "there is no such file: nothing was said yet"
        notes.append(source.problem(place, why, is_note=True))
        return ()
    try:
        text = read_text(path, named_file(source, listed.path))
        return tuple(_said(_HISTORY.structure(json.loads(text)), place, source))
    except (ValueError, RecursionError, SchemaError) as exc:
        if isinstance(exc, ConfigError):
            raise
        why = f"the file holds no list of {{role, content}} in JSON: {exc}"
        raise ConfigError([source.problem(place, why)]) from None


def _said(listed: Sequence[HistoryMessage], place: str, source: Source) -> Iterator[Content]:
    for index, message in enumerate(listed):
        role = ROLES.get(message.role)
        if role is None:
            why = f"a role is {', '.join(ROLES)}, not {shown(message.role)}"
            raise ConfigError([source.problem(f"{place}[{index}].role", why)])
        yield Content(message.content, role=role)


# Images and documents.

_KINDS: Final = (
    ("images", b"\x89PNG\r\n\x1a\n", "image/png"),
    ("images", b"\xff\xd8\xff", "image/jpeg"),
    ("images", b"GIF8", "image/gif"),
    ("images", b"RIFF", "image/webp"),
    ("documents", b"%PDF-", "application/pdf"),
)
_WANTED: Final = {"images": "PNG, JPEG, GIF or WebP", "documents": "PDF"}
_INLINE: Final = ("base64:", "data:")
_ELSEWHERE: Final = ("http://", "https://", "s3://")


def _media(media: Media, kind: str, place: str, source: Source) -> InlineData:
    key = "base64" if media.uri is None else "uri"
    said = media.base64 if media.uri is None else media.uri
    try:
        if said is None:
            why = "it has a uri, a file in the folder of the graph file, or base64"
            raise ConfigError([source.problem(place, why)])
        is_inline = key == "base64" or said.startswith(_INLINE)
        return _of_kind(kind, _decoded(said) if is_inline else _read(said, source))
    except _RefusedError as exc:
        raise ConfigError([source.problem(f"{place}.{key}", str(exc))]) from None


class _RefusedError(Exception):
    """Why an image or a document cannot be sent."""


def _read(uri: str, source: Source) -> bytes:
    if uri.lower().startswith(_ELSEWHERE):
        message = "nothing is fetched: save it in the folder of the graph file, and name the file"
        raise _RefusedError(message)
    path = inside(source, uri)
    if path is None:
        message = "the file lies in the folder of the graph file, or below it"
        raise _RefusedError(message)
    try:
        with path.open("rb") as opened:
            return opened.read(MAX_MEDIA + 1)
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else str(exc)
        message = f"the file cannot be read: {why}"
        raise _RefusedError(message) from None


def _decoded(said: str) -> bytes:
    data = said.partition(",")[2] if said.startswith("data:") else said.removeprefix("base64:")
    try:
        return b64decode("".join(data.split()), validate=True)
    except ValueError as exc:
        message = f"it is no base64: {exc}"
        raise _RefusedError(message) from None


def _of_kind(kind: str, data: bytes) -> InlineData:
    if len(data) > MAX_MEDIA:
        message = f"it has more than {MAX_MEDIA:,} bytes"
        raise _RefusedError(message)
    for one, begin, mime_type in _KINDS:
        if one == kind and data.startswith(begin):
            return InlineData(data, mime_type)
    message = f"it is no {_WANTED[kind]}"
    raise _RefusedError(message)
