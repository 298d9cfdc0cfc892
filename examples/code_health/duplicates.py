"""Code that stands in several places.

Compared are rows of tokens, so spacing, comments, blank lines and indentation make no difference.
Left out are docstrings, imports (files begin alike) and lines of nothing but brackets; the head
of a function is one row however it is wrapped.
"""

from __future__ import annotations

import io
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Final, TypeAlias

import attrs

from .findings import Finding, code
from .sources import Source

__all__ = ["LEAST_ROWS", "Repeat", "Rows", "duplicates", "merged", "repeats", "rows"]

LEAST_ROWS: Final = 6
LEAST_WORDS: Final = 30
"""What is shorter looks alike by chance."""

Row: TypeAlias = tuple[int, int, tuple[str, ...]]
"""First line, last line, tokens."""

_LAYOUT: Final = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
)


@attrs.frozen
class Rows:
    """The rows of one file."""

    path: str
    rows: Sequence[Row]


@attrs.frozen
class Repeat:
    """A run of ``length`` items that stands at each of ``places``: (sequence, index) pairs."""

    length: int
    places: tuple[tuple[int, int], ...]


def rows(source: Source) -> list[Rows]:
    """Return the rows of a file; none if it does not parse."""
    if source.tree is None:
        return []
    found: list[Row] = []
    try:
        for statement in _statements(source.text):
            found += _as_rows(statement)
    except (tokenize.TokenError, SyntaxError):
        return []  # the parser has its own tokenizer, and took what this one does not
    return [Rows(source.path, found)]


def _statements(text: str) -> Iterator[list[tokenize.TokenInfo]]:
    """Yield the tokens of each logical line, without layout."""
    line: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NEWLINE:
            yield line
            line = []
        elif token.type not in _LAYOUT:
            line.append(token)


def _as_rows(statement: Sequence[tokenize.TokenInfo]) -> Iterator[Row]:
    words = [token.string for token in statement[:2]]
    if not words or words[0] in {"import", "from"}:
        return
    if all(token.type == tokenize.STRING for token in statement):
        return
    if "def" in words:
        yield (
            statement[0].start[0],
            statement[-1].end[0],
            tuple(token.string for token in statement),
        )
        return
    for line, tokens in groupby(statement, key=lambda token: token.start[0]):
        row = [*tokens]
        if any(token.type != tokenize.OP for token in row):
            yield line, row[-1].end[0], tuple(token.string for token in row)


def duplicates(files: Iterable[Rows]) -> list[Finding]:
    """Return what stands in several places, once for each group of places."""
    known = sorted(files, key=lambda file: file.path)
    numbers: dict[tuple[str, ...], int] = {}
    sequences = [[numbers.setdefault(row[2], len(numbers)) for row in file.rows] for file in known]
    return [
        _finding(known, repeat)
        for repeat in merged(
            repeat for repeat in repeats(sequences, LEAST_ROWS) if _says_something(known, repeat)
        )
    ]


def _says_something(files: Sequence[Rows], repeat: Repeat) -> bool:
    where, index = repeat.places[0]
    inside = [row[2] for row in files[where].rows[index : index + repeat.length]]
    words = sum(map(len, inside))
    named = sum(any(map(str.isidentifier, row)) for row in inside)  # not so in tables of data
    return words >= LEAST_WORDS and min(named, len({*inside})) >= max(LEAST_ROWS, repeat.length / 2)


def _finding(files: Sequence[Rows], repeat: Repeat) -> Finding:
    places = []
    for where, index in repeat.places:
        file = files[where]
        first, last = file.rows[index][0], file.rows[index + repeat.length - 1][1]
        places.append((file.path, first, last))
    path, line, last = places[0]
    others = [code(f"{path}:{first}-{last}") for path, first, last in places[1:]]
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    return Finding(
        kind="duplicate",
        path=path,
        line=line,
        name="",
        measure=repeat.length,
        message=f"{repeat.length} lines (to line {last}) are also at {', '.join(others[:5])}{more}",
    )


def repeats(sequences: Sequence[Sequence[int]], window: int) -> list[Repeat]:
    """Return the runs of at least ``window`` items that stand in more than one place.

    Each is as long as its places agree without overlapping; what has more places only in part is
    there a second time, shorter. Places, and runs, are in order.

    Costs a hash for each window, and for each run a step per item and place.
    """
    groups: dict[tuple[int, ...], list[tuple[int, int]]] = defaultdict(list)
    for number, sequence in enumerate(sequences):
        for index in range(len(sequence) - window + 1):
            groups[tuple(sequence[index : index + window])].append((number, index))
    found: set[Repeat] = set()
    # By the first of the places, which only one window has, and how many there are: the places
    # themselves would fill the memory.
    seen: set[tuple[tuple[int, int], int]] = set()
    for everywhere in groups.values():
        places = _apart(everywhere, window)
        if len(places) < 2 or (places[0], len(places)) in seen:
            continue
        repeat = _extended(sequences, places, window)
        found.add(repeat)
        # The windows inside lead to the same run.
        number, index = repeat.places[0]
        seen.update(
            ((number, index + shift), len(repeat.places))
            for shift in range(repeat.length - window + 1)
        )
    return sorted(found, key=lambda repeat: repeat.places)


def _apart(places: Iterable[tuple[int, int]], length: int) -> tuple[tuple[int, int], ...]:
    """Return the places, in order, without those that overlap the one kept before."""
    kept: list[tuple[int, int]] = []
    for number, index in places:
        if not kept or kept[-1][0] != number or kept[-1][1] + length <= index:
            kept.append((number, index))
    return tuple(kept)


def _extended(
    sequences: Sequence[Sequence[int]], places: tuple[tuple[int, int], ...], length: int
) -> Repeat:
    """Return the run as long as it can be at exactly these places."""
    first = places[0]
    room = min(
        (there[1] - here[1] for here, there in pairwise(places) if here[0] == there[0]),
        default=None,
    )

    def agree(shift: int) -> bool:
        wanted = sequences[first[0]][first[1] + shift]
        return all(sequences[number][index + shift] == wanted for number, index in places)

    before = min(index for _, index in places)
    after = min(len(sequences[number]) - index for number, index in places)
    start = 0
    while -start < before and (room is None or length - start < room) and agree(start - 1):
        start -= 1
    while length < after and (room is None or length - start < room) and agree(length):
        length += 1
    return Repeat(length - start, tuple((number, index + start) for number, index in places))


def merged(found: Iterable[Repeat]) -> list[Repeat]:
    """Return the repeats without those that others, with more to save, cover for the most part."""
    covered: set[tuple[int, int]] = set()
    kept: list[Repeat] = []
    for repeat in sorted(found, key=_saving, reverse=True):
        items = {
            (number, index + shift)
            for number, index in repeat.places
            for shift in range(repeat.length)
        }
        if 2 * len(items & covered) <= len(items):
            covered |= items
            kept.append(repeat)
    return kept


def _saving(repeat: Repeat) -> tuple[int, int, tuple[tuple[int, int], ...]]:
    # Negative places: reversed, the first in order still come first.
    places = tuple((-number, -index) for number, index in repeat.places)
    return repeat.length * (len(places) - 1), repeat.length, places
