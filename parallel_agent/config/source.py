"""A graph file as values, each with the line and column it stands at.

``${NAME}`` and ``${NAME:-default}`` in values (never in keys) become what the environment holds;
``$${`` is a literal ``${``. This happens after parsing, so that what a variable holds cannot
change what the file consists of. What came from the environment is shown in no message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs

from parallel_agent.config.items import (
    MAX_DEPTH,
    MAX_VALUES,
    Item,
    Lines,
    Listing,
    Scalar,
    Table,
    UnreadableError,
    resolve,
)
from parallel_agent.config.json_text import parse_json
from parallel_agent.config.problems import Problem, Spot
from parallel_agent.config.yaml_text import parse_yaml
from parallel_agent.errors import ConfigError
from parallel_agent.schema._problems import path_text, shown

__all__ = ["MAX_BYTES", "Source", "read_source", "read_text"]

MAX_BYTES: Final = 5_000_000
"""How large a file may be."""

_SUFFIXES: Final = (".yaml", ".yml", ".json")


@attrs.define(eq=False)
class Source:
    """What a file says, and where.

    Attributes:
        file: its name, for messages.
        value: what it holds: dicts, lists and scalars.
        keys: by path, where the key of a value stands.
        values: by path, where the value stands.
        written: by path, how a value that came from the environment was written.
        hidden: what the environment held, and what is shown instead.
    """

    file: str
    value: Any = None
    keys: dict[str, Spot] = attrs.Factory(dict[str, Spot])
    values: dict[str, Spot] = attrs.Factory(dict[str, Spot])
    written: dict[str, str] = attrs.Factory(dict[str, str])
    hidden: dict[str, str] = attrs.Factory(dict[str, str])

    def problem(
        self, path: str, message: str, *, at_key: bool = False, is_note: bool = False
    ) -> Problem:
        """Return a problem at the value ``path``, or of what holds it if it is not there."""
        place = path
        while place and place not in self.values:
            place = place[: max(place.rfind("."), place.rfind("["), 0)]
            at_key = False
        spots = self.keys if at_key and place in self.keys else self.values
        return self.problem_at(
            spots.get(place, Spot()), path, self._without_value(path, message), is_note=is_note
        )

    def problem_at(self, spot: Spot, path: str, message: str, *, is_note: bool = False) -> Problem:
        """Return a problem at a place."""
        message = _printable(self.hide(message))
        return Problem(self.file, spot.line, spot.column, _printable(path), message, is_note)

    def _without_value(self, path: str, message: str) -> str:
        written = self.written.get(path)
        needed, separator, _ = message.rpartition(", not ")
        return f"{needed}, not {shown(written)}" if separator and written is not None else message

    def hide(self, message: str) -> str:
        """Return a message without anything that came from the environment."""
        for value, name in sorted(self.hidden.items(), key=lambda pair: -len(pair[0])):
            # As it is, as messages quote it, and as an id becomes a name.
            for form in dict.fromkeys([value, repr(value)[1:-1], re.sub(r"\W", "_", value)]):
                if form:
                    message = _hide(message, form, name)
        return message


_SHORT: Final = 4
_LONG: Final = 40
_SHOWN: Final = 200


def _hide(message: str, value: str, name: str) -> str:
    # A short one is no secret, and its letters are in many words.
    if len(value) < _SHORT:
        return message.replace(f"'{value}'", f"'{name}'")
    message = message.replace(value, name)
    # A message may show no more than the beginning.
    for length in range(min(len(value) - 1, _SHOWN), 0, -1) if "…" in message else ():
        message = message.replace(f"{value[:length]}…", f"{name}…")
    head, there, _ = message.partition(value[:_LONG]) if len(value) > _LONG else (message, "", "")
    return f"{head}{name}…" if there else message


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]


def read_text(path: Path, file: str) -> str:
    """Return the text of a file.

    Raises:
        ConfigError: it cannot be read, is too large, or no UTF-8.
    """
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        _refuse(file, Spot(), "there is no such file")
    except (OSError, ValueError) as exc:  # a name may hold what no file system takes
        why = exc.strerror if isinstance(exc, OSError) else str(exc)
        _refuse(file, Spot(), f"it cannot be read: {why}")
    if len(data) > MAX_BYTES:
        _refuse(file, Spot(), f"it has more than {MAX_BYTES:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        before = data[: exc.start].decode("utf-8-sig", errors="replace")
        _refuse(file, Lines(before).spot(len(before)), f"it is no UTF-8: {exc.reason}")


def _refuse(file: str, spot: Spot, why: str) -> NoReturn:
    raise ConfigError([Problem(file, spot.line, spot.column, "", why)])


def read_source(text: str, file: str, env: Mapping[str, str]) -> Source:
    """Read the text of a file. Whether it is YAML or JSON is told by the end of its name.

    Raises:
        ConfigError: it is neither, holds no table, has a key twice, or names variables that are
            not set: all of these are told.
        ModuleNotFoundError: it is YAML, and the extra ``yaml`` is not installed.
    """
    suffix = Path(file).suffix.lower()
    if suffix not in _SUFFIXES:
        _refuse(file, Spot(), f"its name ends with none of {', '.join(_SUFFIXES)}")
    source = Source(file)
    try:
        root = parse_json(text) if suffix == ".json" else parse_yaml(text)
        reader = _Reader(source, env)
        if isinstance(root, Table):
            source.value = reader.value(root, "", 0)
        else:
            spot = Spot() if root is None else root.spot
            what = "nothing" if root is None else "something else"
            reader.refuse(spot, "", f"a table of keys and values is needed, and there is {what}")
    except UnreadableError as exc:
        raise ConfigError([source.problem_at(exc.spot, "", exc.why)]) from None
    if reader.problems:
        raise ConfigError(reader.problems)
    return source


_VARIABLE: Final = re.compile(r"\$\$\{|\$\{([^}]*)\}")
_NAME: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class _Reader:
    """Makes values of items, and notes what is wrong."""

    def __init__(self, source: Source, env: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self._source = source
        self._env = env
        self._count = 0

    def refuse(self, spot: Spot, path: str, why: str) -> None:
        self.problems.append(self._source.problem_at(spot, path, why))

    def value(self, item: Item, path: str, depth: int) -> Any:
        self._count += 1
        if self._count > MAX_VALUES:
            why = f"more than {MAX_VALUES} values, those repeated by aliases counted"
            raise UnreadableError(item.spot, why)
        if depth > MAX_DEPTH:
            raise UnreadableError(item.spot, f"nested more than {MAX_DEPTH} deep")
        self._source.values[path] = item.spot
        match item:
            case Scalar():
                return self._scalar(item, path)
            case Listing():
                return [
                    self.value(one, f"{path}[{index}]", depth + 1)
                    for index, one in enumerate(item.items)
                ]
            case Table():
                return self._table(item, path, depth)

    def _table(self, table: Table, path: str, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, (spot, item) in self._pairs(table, path, depth).items():
            below = path_text(path, [key])
            self._source.keys[below] = spot
            made[key] = self.value(item, below, depth + 1)
        return made

    def _pairs(self, table: Table, path: str, depth: int) -> dict[str, tuple[Spot, Item]]:
        """Return the pairs of a table, with those that ``<<`` merges into it behind its own."""
        if depth > MAX_DEPTH:
            raise UnreadableError(table.spot, f"merged more than {MAX_DEPTH} deep")
        found: dict[str, tuple[Spot, Item]] = {}
        merged: list[Table] = []
        for key, item in table.pairs:
            self._count += 1
            if isinstance(key, Scalar) and key.plain and key.text == "<<":
                merged += self._merged(item, path)
                continue
            name = resolve(key.text, key.spot) if isinstance(key, Scalar) and key.plain else key
            name = name.text if isinstance(name, Scalar) else name
            if not isinstance(name, str):
                self.refuse(key.spot, path, "a key is text; put it in quotes")
            elif name in found:
                first = found[name][0].line
                why = f"the key {shown(name)} is there twice; first in line {first}"
                self.refuse(key.spot, path_text(path, [name]), why)
            else:
                found[name] = key.spot, item
        for other in merged:
            for name, pair in self._pairs(other, path, depth + 1).items():
                found.setdefault(name, pair)
            if self._count > MAX_VALUES:
                raise UnreadableError(table.spot, f"more than {MAX_VALUES} values, merged ones too")
        return found

    def _merged(self, item: Item, path: str) -> Iterator[Table]:
        for one in item.items if isinstance(item, Listing) else [item]:
            if isinstance(one, Table):
                yield one
            else:
                self.refuse(one.spot, path, "<< merges tables, and this is none")

    def _scalar(self, item: Scalar, path: str) -> Any:
        text = item.text
        if "${" in text:
            text = _VARIABLE.sub(lambda found: self._variable(found, item.spot, path), text)
            if text != item.text:
                self._source.written[path] = item.text[:_SHOWN]
        return resolve(text, item.spot) if item.plain else text

    def _variable(self, found: re.Match[str], spot: Spot, path: str) -> str:
        if found[1] is None:
            return "${"
        parts = _NAME.fullmatch(found[1])
        if parts is None:
            why = f"{shown(found[0])} names no variable; $${{ stands for ${{ itself"
            self.refuse(spot, path, why)
            return found[0]
        name, default = parts.groups()
        value = self._env.get(name)
        if default is not None and not value:
            return str(default)
        if value is None:
            why = f"the variable {name} is not set; set it, or write ${{{name}:-default}}"
            self.refuse(spot, path, why)
            return found[0]
        self._source.hidden[value] = f"${{{name}}}"
        return value
