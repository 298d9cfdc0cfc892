r"""Pictures of trees and graphs, as text that other programs draw.

`to_mermaid` writes what GitHub, notebooks and many editors show by themselves; `to_dot` what
Graphviz reads. Neither needs any of them.

The same tree gives the same text, a line for each box and each arrow. Agents are called what they
are called in the tree. Nothing that a name, a description or a condition says can be more than
text in the picture. Nothing here recurses, and it takes a step per agent and edge.

Pure: no event loop, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import attrs

from parallel_agent.agent import Agent
from parallel_agent.observe.harmless import one_line
from parallel_agent.observe.picture_parts import (
    SHORT,
    Arrow,
    Box,
    Drawing,
    drawing_of,
    mark,
    title,
)
from parallel_agent.observe.picture_status import AnyRun, Stand, standing

__all__ = ["to_dot", "to_mermaid"]


def to_mermaid(tree: Agent, *, run: AnyRun | None = None) -> str:
    """Return a flowchart of ``tree`` for Mermaid.

    An agent with others below it is a box around them. Of a graph, thick arrows bring an output,
    thin ones only order, dotted ones were inferred; guards have six corners. A description is
    written below the name, its first 40 characters if it is longer.

    With ``run``, each agent says how it stands, in a word and a colour: a run of any host, while
    it goes on (between two events) or after its block; or its `Result`, even from another
    process, as far as things were recorded. What ran more than once says ``x3``; a map, how many
    items are done. ``tree`` may be a part of what runs.

    Mermaid itself refuses more than 500 arrows, or 50,000 characters, unless its page sets
    ``maxEdges`` and ``maxTextSize``.

    Raises:
        ReadError: ``run`` is neither.
    """
    return "\n".join(_mermaid(drawing_of(tree), _stands(tree, run))) + "\n"


def to_dot(tree: Agent, *, run: AnyRun | None = None) -> str:
    """Return a directed graph of ``tree`` for Graphviz. See `to_mermaid`.

    A description of more than 40 characters is the tooltip of its agent.

    Raises:
        ReadError: ``run`` is neither a run nor a result.
    """
    return "\n".join(_dot(drawing_of(tree), _stands(tree, run))) + "\n"


def _stands(tree: Agent, run: AnyRun | None) -> Mapping[str, Stand] | None:
    return None if run is None else standing(tree, run)


@attrs.frozen
class _Colours:
    fill: str
    line: str
    is_dashed: bool = False


_COLOURS: Final[Mapping[str, _Colours]] = MappingProxyType(
    {
        "pending": _Colours("#ffffff", "#9e9e9e"),
        "running": _Colours("#e1f0fb", "#1565c0"),
        "completed": _Colours("#e3f4e3", "#2e7d32"),
        "failed": _Colours("#fde7e7", "#c62828"),
        "cancelled": _Colours("#fff4d6", "#b26a00"),
        "waiting": _Colours("#f3e5f5", "#7b1fa2"),
        "skipped": _Colours("#f5f5f5", "#9e9e9e", is_dashed=True),
    }
)

_MAX_INDENT: Final = 12  # levels; further in, a line would be mostly blanks


def _indent(box: Box) -> str:
    return "  " * (1 + min(box.depth, _MAX_INDENT))


def _kinds(drawing: Drawing, stands: Mapping[str, Stand]) -> dict[str, list[str]]:
    """Return the keys of the boxes by what has become of them."""
    kinds: dict[str, list[str]] = {}
    for box in drawing.boxes:
        if box.shape in ("agent", "guard", "open"):
            kinds.setdefault(mark(stands[box.key])[0], []).append(box.key)
    return kinds


def _lines(box: Box, stands: Mapping[str, Stand] | None, *, cut: bool) -> list[str]:
    """Return what is written on a box."""
    lines = [title(box.agent)]
    description = one_line(box.agent.description)
    if description and (cut or len(description) <= SHORT):
        lines.append(one_line(description, SHORT))
    if stands is not None:
        lines.append(mark(stands[box.key])[1])
    return lines


# ---------------------------------------------------------------------------------------- Mermaid

_FRAMES: Final = {"agent": ("[", "]"), "guard": ("{{", "}}"), "fork": ("((", "))")}


def _mermaid(drawing: Drawing, stands: Mapping[str, Stand] | None) -> Iterator[str]:
    yield "flowchart TD"
    for box in drawing.boxes:
        indent, key = _indent(box), _mermaid_id(box.key)
        if box.shape == "close":
            yield f"{indent}end"
        elif box.shape in ("fork", "join"):
            yield f'{indent}{key}(("{box.shape}"))'
        else:
            text = "<br>".join(_mermaid_text(line) for line in _lines(box, stands, cut=True))
            if box.shape == "open":
                yield f'{indent}subgraph {key}["{text}"]'
            else:
                before, after = _FRAMES[box.shape]
                yield f'{indent}{key}{before}"{text}"{after}'
    for arrow in drawing.arrows:
        source, target = map(_mermaid_id, _ends(arrow, drawing))
        line = "-.->" if arrow.is_dotted else "-->"
        label = f'|"{_mermaid_text(arrow.label)}"|' if arrow.label else ""
        yield f"  {source} {line}{label} {target}"
    thin = [str(number) for number, arrow in enumerate(drawing.arrows) if arrow.is_thin]
    if thin:
        yield f"  linkStyle {','.join(thin)} stroke-width:1px,stroke:#9e9e9e"
    for kind, keys in () if stands is None else _kinds(drawing, stands).items():
        colours = _COLOURS[kind]
        dashes = ",stroke-dasharray:4 3" if colours.is_dashed else ""
        yield f"  classDef {kind} fill:{colours.fill},stroke:{colours.line},color:#000000{dashes}"
        yield f"  class {','.join(map(_mermaid_id, keys))} {kind}"


def _ends(arrow: Arrow, drawing: Drawing) -> tuple[str, str]:
    """Return where an arrow begins and ends; if a group leads to itself, then inside it."""
    if arrow.source != arrow.target or arrow.source not in drawing.ends:
        return arrow.source, arrow.target
    first, last = drawing.ends[arrow.source]
    return last, first


_MERMAIDS_WORDS: Final = frozenset(
    "_blank _parent _self _top accdescr acctitle call class classdef click default direction end "  # noqa: SIM905  # words, as one reads them
    "flowchart graph href interpolate linkstyle style subgraph".split()
)


def _mermaid_id(key: str) -> str:
    """Return a key as Mermaid takes it: ASCII, and no word of its own. No name has a dot."""
    if not key.isascii():
        return "agent." + _NOT_ASCII.sub(lambda found: f".{ord(found[0]):x}.", key)
    return f"agent.{key}" if key.lower() in _MERMAIDS_WORDS else key


_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")

# In quotes, so most characters stand for themselves. Not so what ends the text or begins an
# entity, a tag or a formula; what is Markdown there (a list or emphasis: also without backquotes);
# nor a colon, because of what is done to lines that look like a style.
_MERMAIDS_OWN: Final = re.compile(
    r"""["#&<>%:;`*~$@|{}\\^] | (?<![A-Za-z0-9])_ | _(?![A-Za-z0-9]) | ^[-+=] | (?<=^\d)[.)]
    | (?<=^\d\d)[.)] | (?<=direction)\s""",
    re.VERBOSE,
)


def _mermaid_text(text: str) -> str:
    # "direction TB" in a text is taken for a statement, quotes or not.
    return _escaped(text, _MERMAIDS_OWN, lambda letter: f"#{ord(letter)};")


def _escaped(text: str, which: re.Pattern[str], escape: Callable[[str], str]) -> str:
    return which.sub(lambda found: escape(found[0]), text)


# ------------------------------------------------------------------------------------------- DOT

_DOT_SHAPES: Final = {"agent": "box", "guard": "hexagon", "fork": "circle", "join": "circle"}


def _dot(drawing: Drawing, stands: Mapping[str, Stand] | None) -> Iterator[str]:
    yield f"digraph {_dot_string(drawing.boxes[0].key)} {{"
    yield '  graph [compound=true, fontname="Helvetica"];'
    yield '  node [shape=box, fontname="Helvetica"];'
    yield '  edge [fontname="Helvetica"];'
    for box in drawing.boxes:
        indent = _indent(box)
        if box.shape == "close":
            yield f"{indent}}}"
        elif box.shape == "open":
            yield f"{indent}subgraph {_dot_string(_cluster(box.key))} {{"
            yield f"{indent}  graph [{_dot_look(box, stands)}];"
        else:
            yield f"{indent}{_dot_string(box.key)} [{_dot_look(box, stands)}];"
    for arrow in drawing.arrows:
        yield f"  {_dot_arrow(arrow, drawing)}"
    yield "}"


def _dot_look(box: Box, stands: Mapping[str, Stand] | None) -> str:
    if box.shape in ("fork", "join"):
        return f"label={_dot_string(box.shape)}, shape={_DOT_SHAPES[box.shape]}"
    lines = _lines(box, stands, cut=False)
    look = [f"label={_dot_string(*lines)}"]
    if box.shape in _DOT_SHAPES and box.shape != "agent":
        look.append(f"shape={_DOT_SHAPES[box.shape]}")
    description = one_line(box.agent.description)
    if len(description) > SHORT:
        look.append(f"tooltip={_dot_string(description)}")
    if stands is not None:
        kind = mark(stands[box.key])[0]
        colours = _COLOURS[kind]
        style = '"filled,dashed"' if colours.is_dashed else "filled"
        look.append(f'class={kind}, style={style}, fillcolor="{colours.fill}"')
        look.append(f'color="{colours.line}"')
    return ", ".join(look)


def _dot_arrow(arrow: Arrow, drawing: Drawing) -> str:
    # An arrow goes from node to node, and is cut off where a cluster begins.
    source, target = _ends(arrow, drawing)
    look: list[str] = []
    if arrow.label:
        look.append(f"label={_dot_string(arrow.label)}")
    if source in drawing.ends:
        look.append(f"ltail={_dot_string(_cluster(source))}")
        source = drawing.ends[source][1]
    if target in drawing.ends:
        look.append(f"lhead={_dot_string(_cluster(target))}")
        target = drawing.ends[target][0]
    if arrow.is_thin:
        look.append('penwidth=0.5, color="#9e9e9e", arrowhead=vee')
    if arrow.is_dotted:
        look.append("style=dotted")
    if arrow.is_back:
        look.append("constraint=false")
    shown = f" [{', '.join(look)}]" if look else ""
    return f"{_dot_string(source)} -> {_dot_string(target)}{shown};"


def _cluster(key: str) -> str:
    return f"cluster_{key}"


def _dot_string(*lines: str) -> str:
    # In quotes; "&" begins an entity there, and a backslash also what stands for something else.
    texts = [_escaped(line, _DOTS_OWN, _DOT_ESCAPES.__getitem__) for line in lines]
    return '"' + "\\n".join(texts) + '"'


_DOTS_OWN: Final = re.compile(r'["\\&]')
_DOT_ESCAPES: Final = MappingProxyType({'"': '\\"', "\\": "\\\\", "&": "&amp;"})
