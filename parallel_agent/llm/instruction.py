"""Instructions with places to fill in: ``{key}``, ``{key?}``, ``{artifact.name}``.

A place is filled from the documents that the agent's node reads, else from the state, in which
keys may have a prefix: ``{user:name}``. Text is put in as it is, anything else as JSON. ``{key?}``
may be missing. Braces around anything else stay as they are, so that an instruction may show JSON;
``{{key}}`` stands for ``{key}``.

Semantics: Google ADK's instruction templates.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from parallel_agent.context import InvocationContext
from parallel_agent.model_errors import InstructionError
from session.content import Text

__all__ = ["fill_in"]

_PLACE: Final = re.compile(r"\{\{[\w:.]+\??\}\}|\{([^{}]*)\}")
_KEY: Final = re.compile(r"(?:(?:app|user|temp):)?[A-Za-z_][A-Za-z0-9_]*")
_ARTIFACT: Final = "artifact."


async def fill_in(template: str, ctx: InvocationContext) -> str:
    """Return ``template`` with its places filled in.

    Waits only for artifacts.

    Raises:
        InstructionError: what a place names is not there; the place is named.
    """
    filled: list[str] = []
    end = 0
    for place in _PLACE.finditer(template):
        is_escaped = place[1] is None
        text = place[0][1:-1] if is_escaped else await _text_for(place[1].strip(), ctx)
        if text is not None:
            filled += [template[end : place.start()], text]
            end = place.end()
    return "".join([*filled, template[end:]])


async def _text_for(name: str, ctx: InvocationContext) -> str | None:
    """Return what stands for ``{name}``; None if that is no place to fill in."""
    is_optional = name.endswith("?")
    name = name.removesuffix("?")
    if name.startswith(_ARTIFACT):
        return await _artifact(name.removeprefix(_ARTIFACT), ctx, is_optional=is_optional)
    if _KEY.fullmatch(name) is None:
        return None
    for holder in (ctx.documents, ctx.state):
        if name in holder:
            return _as_text(holder[name])
    if is_optional:
        return ""
    raise _missing(name, ctx, {**ctx.state, **ctx.documents})


async def _artifact(name: str, ctx: InvocationContext, *, is_optional: bool) -> str:
    found = await ctx.load_artifact(name)
    if found is None and is_optional:
        return ""
    if found is None:
        raise _missing(f"{_ARTIFACT}{name}", ctx, {})
    if not isinstance(found, Text):
        message = (
            f"the instruction of agent {ctx.agent.name!r} has {{{_ARTIFACT}{name}}}, and that "
            "artifact is no text"
        )
        raise InstructionError(message)
    return found.text


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _missing(name: str, ctx: InvocationContext, known: Mapping[str, Any]) -> InstructionError:
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {{{near[0]}}}?" if near else f"; write {{{name}?}} if it may be missing"
    message = (
        f"the instruction of agent {ctx.agent.name!r} has {{{name}}}, which is not there{hint}"
    )
    return InstructionError(message)
