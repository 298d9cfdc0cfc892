"""Prompts: labelled texts with placeholders, and what a node fills them with.

Pure: no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from parallel_agent.config.format import NodeEntry, Template
from parallel_agent.errors import UsageError

__all__ = [
    "INPUT",
    "RESERVED",
    "PlaceholderError",
    "active_names",
    "active_values",
    "fill",
    "placeholders",
    "render",
    "render_prompt",
]

RESERVED: Final = ("user_message", "message_passing", "retrieved_chunks", "blackboard")
"""The placeholders that stand for something of the run; a node switches each on."""

INPUT: Final = "input"
"""The placeholder that stands for what a node was given to work on. It needs no switch, and gives
way to a node's own of that name."""


class PlaceholderError(UsageError, ValueError):
    """A text has a placeholder that the node does not fill, or that is none."""


_PLACEHOLDER: Final = re.compile(r"\{\{|\}\}|\{([A-Za-z_]\w*)([.\[!:][^{}]*)?\}")


def placeholders(text: str) -> Iterator[str]:
    """Yield the names of the placeholders in a text, in order; one as often as it is there."""
    for found in _PLACEHOLDER.finditer(text):
        if found[1] is not None:
            yield found[1]


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return a text with its placeholders filled: ``{name}``.

    ``{{`` and ``}}`` are braces. So is any other brace that begins no placeholder, and every one
    in ``values``: they are put in as they are.

    Raises:
        PlaceholderError: there is no value of that name, or more than a name in the braces.
    """

    def value(found: re.Match[str]) -> str:
        name, more = found.groups()
        if name is None:
            return found[0][0]
        if more:
            message = f"{found[0]:.80} is no placeholder: write {{{name}}}, or {{{{ for a brace"
            raise PlaceholderError(message)
        if name not in values:
            there = f"there are {', '.join(values)}" if values else "there are none"
            message = (
                f"the placeholder {{{name}}} has no value here; {there}. "
                "A node switches on what its prompt needs; {{ stands for a brace"
            )
            raise PlaceholderError(message)
        return values[name]

    return _PLACEHOLDER.sub(value, text)


def render(texts: Mapping[str, str] | None, values: Mapping[str, str]) -> str:
    """Return one side of a prompt: each text in a tag named by its label; empty without texts.

    Raises:
        PlaceholderError: see `fill`; the message names the label.
    """
    parts: list[str] = []
    for label, text in (texts or {}).items():
        try:
            filled = fill(text, values)
        except PlaceholderError as exc:
            message = f"prompt text {label!r:.80}: {exc}"
            raise PlaceholderError(message) from None
        tag = _tag(label)
        end = "" if filled.endswith("\n") else "\n"
        parts.append(f"<{tag}>\n{filled}{end}</{tag}>\n\n")
    return "".join(parts)


def render_prompt(template: Template, values: Mapping[str, str]) -> tuple[str, str]:
    """Return both sides of a prompt, the system's first. Raises what `render` does."""
    return render(template.system_template, values), render(template.prompt_template, values)


def _tag(label: str) -> str:
    tag = re.sub(r"[^\w-]", "_", label)
    return tag if tag[:1].isalpha() or tag.startswith("_") else f"_{tag}"


def active_names(entry: NodeEntry) -> list[str]:
    """Return the placeholders that a node may fill; those of the run only if they have a value."""
    own = None if entry.prompt is None else entry.prompt.prompt_placeholders
    switches = _switches(entry)
    return [*(own or ()), *(name for name in RESERVED if switches[name]), INPUT]


def active_values(entry: NodeEntry, run: Mapping[str, str | None]) -> dict[str, str]:
    """Return what a node fills its prompt with: its own values, then what it has switched on.

    ``run`` holds what there is by the names of `RESERVED`, and `INPUT`; what is None there, or
    missing, is not filled. What is switched on is stripped, all but the blackboard.
    """
    own = None if entry.prompt is None else entry.prompt.prompt_placeholders
    values = {name: str(value) for name, value in (own or {}).items()}
    for name, is_on in _switches(entry).items():
        value = run.get(name)
        if is_on and value is not None:
            values[name] = value if name == "blackboard" else value.strip()
    given = run.get(INPUT)
    if given is not None:
        values.setdefault(INPUT, given)
    return values


def _switches(entry: NodeEntry) -> dict[str, bool]:
    prompt, passing, board = entry.prompt, entry.message_passing, entry.blackboard
    return {
        "user_message": prompt is not None and bool(prompt.user_message),
        "message_passing": passing is not None and bool(passing.input),
        "retrieved_chunks": prompt is not None and bool(prompt.retrieved_chunks),
        "blackboard": board is not None and bool(board.read),
    }
