"""Small strict readers of the part of Mermaid and of DOT that pictures are written in.

They stand for the real ones, and refuse whatever those would take for something else.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

import attrs

__all__ = ["WORDS", "Seen", "WrongError", "read_dot", "read_mermaid"]


class WrongError(Exception):
    """A text is not what its reader takes."""


@attrs.define
class Seen:
    """What a reader has found. Boxes and groups by key; a group's lines come first."""

    lines: dict[str, list[str]] = attrs.field(factory=dict)
    groups: dict[str, list[str]] = attrs.field(factory=dict)
    shapes: dict[str, str] = attrs.field(factory=dict)
    arrows: list[tuple[str, str, str]] = attrs.field(factory=list)
    dotted: set[int] = attrs.field(factory=set)
    thin: set[int] = attrs.field(factory=set)
    kinds: dict[str, str] = attrs.field(factory=dict)
    tooltips: dict[str, str] = attrs.field(factory=dict)

    def add(self, key: str, lines: list[str], inside: list[str], shape: str) -> None:
        if key in self.lines:
            message = f"{key} is there twice"
            raise WrongError(message)
        self.lines[key], self.shapes[key] = lines, shape
        if inside:
            self.groups[inside[-1]].append(key)
        if shape == "group":
            self.groups[key] = []

    @property
    def names(self) -> list[str]:
        """The names of the agents, as they are written on their boxes and groups."""
        names: list[str] = []
        for key, lines in self.lines.items():
            if self.shapes[key] == "group":
                names.append(lines[0].partition(" (")[0])
            elif self.shapes[key] != "circle":
                names.append(lines[0])
        return names

    def named_arrows(self) -> Counter[tuple[str, str, str]]:
        """The arrows, by what is written on their ends; a mark as ``wide.fork``."""
        called: dict[str, str] = {}
        for key, lines in self.lines.items():
            name = lines[0].partition(" (")[0] if self.shapes[key] == "group" else lines[0]
            called[key] = name
        for group, inside in self.groups.items():
            for key in inside:
                if self.shapes[key] == "circle":
                    called[key] = f"{called[group]}.{self.lines[key][0]}"
        return Counter((called[one], called[other], label) for one, other, label in self.arrows)


_ID: Final = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]*)*"
# Nothing that Mermaid gives a meaning; entities instead.
_TEXT: Final = r"(?:[^\"#&<>%:;`*~$@|{}\\^\n]|\#\d+;|<br>)*"
_SUBGRAPH: Final = re.compile(rf'subgraph ({_ID})\["({_TEXT})"\]')
_BOXES: Final = {
    "box": re.compile(rf'({_ID})\["({_TEXT})"\]'),
    "hexagon": re.compile(rf'({_ID})\{{\{{"({_TEXT})"\}}\}}'),
    "circle": re.compile(rf'({_ID})\(\("({_TEXT})"\)\)'),
}
_ARROW: Final = re.compile(rf'({_ID}) (-->|-\.->)(?:\|"({_TEXT})"\|)? ({_ID})')
_THIN: Final = re.compile(r"linkStyle (\d+(?:,\d+)*) stroke-width:1px,stroke:#9e9e9e")
_CLASS_DEF: Final = re.compile(
    r"classDef ([a-z]+) fill:#[0-9a-f]{6},stroke:#[0-9a-f]{6},color:#000000"
    r"(?:,stroke-dasharray:4 3)?"
)
_CLASS: Final = re.compile(rf"class ({_ID}(?:,{_ID})*) ([a-z]+)")
WORDS: Final = frozenset(
    {"_blank", "_parent", "_self", "_top", "accdescr", "acctitle", "call", "class", "classdef"}
    | {"click", "default", "direction", "end", "flowchart", "graph", "href", "interpolate"}
    | {"linkstyle", "style", "subgraph"}
)


def _unescaped(text: str) -> list[str]:
    lines = text.split("<br>")
    for line in lines:
        # Markdown, which Mermaid reads in every label.
        if re.search(r"^([-+=]|\d+[.)])|\b_|_\b", line):
            message = f"Mermaid reads Markdown in {line!r}"
            raise WrongError(message)
    return [re.sub(r"#(\d+);", lambda found: chr(int(found[1])), line) for line in lines]


def read_mermaid(text: str) -> Seen:
    """Read a flowchart, or raise."""
    first, *rest = text.removesuffix("\n").split("\n")
    if first != "flowchart TD":
        raise WrongError(first)
    seen, inside, defined = Seen(), list[str](), set[str]()
    for line in rest:
        if re.search(r"direction\s+(TB|BT|RL|LR|TD)", line) or re.search(r"style.*:\S*#.*;", line):
            message = f"Mermaid takes {line!r} for a statement"
            raise WrongError(message)
        _read_line(line.strip(" "), seen, inside, defined)
    if inside:
        message = f"not closed: {inside}"
        raise WrongError(message)
    for key in [*seen.lines, *(end for arrow in seen.arrows for end in arrow[:2])]:
        if key.lower() in WORDS or key not in seen.lines:
            message = f"{key!r} is Mermaid's own, or no box"
            raise WrongError(message)
    if seen.thin - set(range(len(seen.arrows))):
        message = "a style for no arrow"
        raise WrongError(message)
    return seen


def _read_line(  # noqa: C901, PLR0912  # a line of each kind
    line: str, seen: Seen, inside: list[str], defined: set[str]
) -> None:
    if line == "end":
        if not inside:
            message = "an end of nothing"
            raise WrongError(message)
        inside.pop()
    elif found := _SUBGRAPH.fullmatch(line):
        seen.add(found[1], _unescaped(found[2]), inside, "group")
        inside.append(found[1])
    elif found := _ARROW.fullmatch(line):
        if found[2] == "-.->":
            seen.dotted.add(len(seen.arrows))
        seen.arrows.append((found[1], found[4], "".join(_unescaped(found[3] or ""))))
    elif found := _THIN.fullmatch(line):
        seen.thin.update(map(int, found[1].split(",")))
    elif found := _CLASS_DEF.fullmatch(line):
        defined.add(found[1])
    elif (found := _CLASS.fullmatch(line)) and found[2] in defined:
        for key in found[1].split(","):
            if key in seen.kinds or key not in seen.lines:
                message = f"{key} is of two classes, or no box"
                raise WrongError(message)
            seen.kinds[key] = found[2]
    else:
        for shape, pattern in _BOXES.items():
            if found := pattern.fullmatch(line):
                seen.add(found[1], _unescaped(found[2]), inside, shape)
                return
        raise WrongError(line)


_DOT_TOKEN: Final = re.compile(
    r'"(?:[^"\\\n&]|\\["\\n]|&amp;)*" | [A-Za-z_][A-Za-z0-9_]* | [0-9]+(?:\.[0-9]+)? | -> '
    r"| [][{};,=] | \s+",
    re.VERBOSE,
)


class _DotReader:
    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        at = 0
        while at < len(text):
            found = _DOT_TOKEN.match(text, at)
            if found is None:
                raise WrongError(text[at : at + 40])
            if not found[0].isspace():
                self.tokens.append(found[0])
            at = found.end()
        self.tokens.reverse()
        self.seen = Seen()
        self.inside: list[str] = []

    def take(self, wanted: str = "") -> str:
        token = self.tokens.pop() if self.tokens else "the end"
        if wanted and token != wanted:
            message = f"{token}, not {wanted}"
            raise WrongError(message)
        return token

    def string(self) -> list[str]:
        token = self.take()
        if not token.startswith('"'):
            raise WrongError(token)
        inner = token[1:-1].replace("&amp;", "&")
        lines = re.split(r"(?<!\\)((?:\\\\)*)\\n", inner)
        whole = [lines[0]]
        for kept, line in zip(lines[1::2], lines[2::2], strict=True):
            whole[-1] += kept
            whole.append(line)
        return [re.sub(r"\\(.)", r"\1", line) for line in whole]

    def look(self) -> dict[str, list[str]]:
        look: dict[str, list[str]] = {}
        if not self.tokens or self.tokens[-1] != "[":
            return look
        self.take("[")
        while True:
            name = self.take()
            self.take("=")
            plain = not self.tokens[-1].startswith('"')
            look[name] = [self.take()] if plain else self.string()
            if self.take() == "]":
                return look

    def read(self) -> Seen:
        self.take("digraph")
        self.string()
        self.take("{")
        for kind in ("graph", "node", "edge"):
            self.take(kind)
            self.look()
            self.take(";")
        while self.tokens:
            self.statement()
        if len(self.inside) != 0 or not self.done:
            message = "not closed"
            raise WrongError(message)
        return self.seen

    done = False

    def statement(self) -> None:
        if self.done:
            raise WrongError(self.take())
        token = self.tokens[-1]
        if token == "}":  # noqa: S105  # of a language
            self.take()
            if self.inside:
                self.inside.pop()
            else:
                self.done = True
        elif token == "subgraph":  # noqa: S105  # likewise
            self.take()
            key = self.string()[0]
            self.take("{")
            self.take("graph")
            self.box(key, self.look(), "group")
            self.take(";")
            self.inside.append(key)
        else:
            key = self.string()[0]
            if self.tokens[-1] == "->":
                self.arrow(key)
            else:
                look = self.look()
                self.box(key, look, look.get("shape", ["box"])[0])
            self.take(";")

    def box(self, key: str, look: dict[str, list[str]], shape: str) -> None:
        if shape == "group" and not key.startswith("cluster"):
            raise WrongError(key)
        self.seen.add(key, look["label"], self.inside, shape)
        if "class" in look:
            self.seen.kinds[key] = look["class"][0]
        if "tooltip" in look:
            self.seen.tooltips[key] = look["tooltip"][0]

    def arrow(self, source: str) -> None:
        seen = self.seen
        self.take("->")
        target = self.string()[0]
        look = self.look()
        if seen.shapes[source] == "group" or seen.shapes[target] == "group":
            message = "an arrow goes from node to node"
            raise WrongError(message)
        for cut, end in (("ltail", source), ("lhead", target)):
            if cut in look and not _is_in(seen, end, look[cut][0]):
                message = f"{end} is not in {look[cut][0]}"
                raise WrongError(message)
        if "dotted" in look.get("style", []):
            seen.dotted.add(len(seen.arrows))
        if "penwidth" in look:
            seen.thin.add(len(seen.arrows))
        label = "".join(look.get("label", []))
        ends = look.get("ltail", [source])[0], look.get("lhead", [target])[0]
        seen.arrows.append((*ends, label))


def _is_in(seen: Seen, key: str, group: str) -> bool:
    todo = [group]
    while todo:
        inside = seen.groups[todo.pop()]
        if key in inside:
            return True
        todo += [one for one in inside if one in seen.groups]
    return False


def read_dot(text: str) -> Seen:
    """Read a directed graph, or raise."""
    return _DotReader(text).read()
