"""What is not wrong with a file, and still worth knowing: keys without effect. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from parallel_agent.config.format import HistoryFile, NodeEntry, Template
from parallel_agent.config.plan import Plan
from parallel_agent.config.problems import Problem
from parallel_agent.config.prompts import active_names, placeholders
from parallel_agent.config.source import Source
from parallel_agent.schema._problems import path_text, shown

__all__ = ["notes_on"]

_NO_EFFECT: Final = re.compile(
    r"""
    batch_user_messages | react_compact_prompts | verbose | blackboard\.path
    | blackboard\.boards\[\d+\]\.file
    | models\[\d+\]\.(batch_\w+ | context_window | aws_\w+)
    | nodes\[\d+\]\.(batch_message_passing | prompt\.batch_use_messages)
    | nodes\[\d+\]\.react\.(compact\w* | resume\w*)
    | edges\[.*\.batch_(children|fan_in)
    """,
    re.VERBOSE,
)
_WHY: Final = {
    "path": "boards are kept in the state, not in files",
    "file": "boards are kept in the state, not in files",
}


def notes_on(plan: Plan, source: Source, templates: Sequence[Template]) -> list[Problem]:
    """Return the notes on a file without problems, in its order."""
    notes = [
        *_without_effect(source),
        *_on_histories(plan, source),
        *_on_nodes(plan, source, templates),
    ]
    return sorted(notes, key=lambda note: (note.line, note.column))


def _without_effect(source: Source) -> Iterator[Problem]:
    for path in source.keys:
        if _NO_EFFECT.fullmatch(path):
            why = _WHY.get(path.rpartition(".")[2])
            message = f"this has no effect: {why}" if why else "this has no effect"
            yield source.problem(path, message, at_key=True, is_note=True)


def _on_histories(plan: Plan, source: Source) -> Iterator[Problem]:
    for scope, listed in (plan.file.chat_history or {}).items():
        if isinstance(listed, HistoryFile) and listed.auto:
            path = path_text("chat_history", [scope, "auto"])
            why = "this has no effect: the file is read, and what is said is kept in the session"
            yield source.problem(path, why, at_key=True, is_note=True)


def _on_nodes(plan: Plan, source: Source, templates: Sequence[Template]) -> Iterator[Problem]:
    for node in plan.nodes.values():
        entry, path = node.entry, node.path
        for key in () if node.id in plan.reacting else ("react", "react_output"):
            if getattr(entry, key) is not None:
                why = "this has no effect: no edge of the node has agents below `react`"
                yield source.problem(f"{path}.{key}", why, at_key=True, is_note=True)
        if entry.prompt is not None:
            template = templates[entry.prompt.template]
            yield from _on_prompt(source, entry, f"{path}.prompt", template)
            scope = entry.prompt.chat_history
            if scope is not None and scope not in (plan.file.chat_history or {}):
                why = f"there is no history {shown(scope)}: the node runs without one"
                yield source.problem(f"{path}.prompt.chat_history", why, is_note=True)
        if node.is_guard:
            passing, board = entry.message_passing, entry.blackboard
            shares = {
                "message_passing": passing is not None and (passing.input or passing.output),
                "blackboard": board is not None and (board.read or board.write),
            }
            for key, is_shared in shares.items():
                if is_shared:
                    why = "this has no effect: a guard runs before the nodes that share texts"
                    yield source.problem(f"{path}.{key}", why, at_key=True, is_note=True)


def _on_prompt(
    source: Source, entry: NodeEntry, path: str, template: Template
) -> Iterator[Problem]:
    sides = (template.system_template, template.prompt_template)
    texts = [text for side in sides for text in (side or {}).values()]
    active = active_names(entry)
    for name in dict.fromkeys(name for text in texts for name in placeholders(text)):
        if name not in active:
            why = f"its texts have {{{name}}}, which the node does not fill: it will fail"
            yield source.problem(f"{path}.template", why, is_note=True)
