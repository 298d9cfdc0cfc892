"""What stands in the log of a resumable run: records, checked as they are read, and state.

A log may have been damaged, or edited by hand: what is not as `parallel_agent.journal` writes it is
refused, with the run, the number of the event and the field, before anything is concluded from it.
Kinds and fields that are not known are of a later release, and are left alone.

Pure: no event loop, no clock.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeAlias, cast

from session.errors import StoreCorruptError
from session.event import USER, Event

__all__ = [
    "ABSENT",
    "checked",
    "is_of_others",
    "next_attempt",
    "ranges",
    "refused_events",
    "stands_anyway",
    "state_without",
    "void_events",
]

ABSENT: Final[Any] = object()
"""What a key holds that was never written."""


def next_attempt(path: str) -> str:
    """Return the path of the attempt that follows the one at ``path``."""
    above, slash, segment = path.rpartition("/")
    name, _, number = segment.partition("~")
    return f"{above}{slash}{name}~{int(number or 1) + 1}"


def is_of_others(event: Event) -> bool:
    """Whether an event on the branch of an agent is a message, or an answer, to it."""
    return event.author == USER or "message" in (event.journal or {})


def refused_events(events: Iterable[Event]) -> set[int]:
    """Return the numbers of what executions recorded in which an agent decided otherwise.

    And of how agents ended, if it was because nobody knew what had become of an effect.
    """
    found: set[int] = set()
    since: list[int] = []
    failed: list[int] = []
    was_refused = False
    for event in events:
        journal = event.journal or {}
        match journal.get("kind"):
            case "resumed":
                found.update(since if was_refused else ())
                since, failed, was_refused = [], [], False
                continue
            case "refused":
                was_refused = True
            case "unknown":
                found.update(failed)
            case "end" if journal.get("status") != "completed":
                failed.append(event.seq or 0)
            case _:
                pass
        since.append(event.seq or 0)
    found.update(since if was_refused else ())
    return found


def stands_anyway(event: Event) -> bool:
    """Whether something is so, whatever becomes of the execution in which it was recorded."""
    return is_of_others(event) or (event.journal or {}).get("kind") in ("intent", "effect")


def state_without(
    log: Iterable[Event],
    undone: AbstractSet[int],
    now: Mapping[str, Any],
    reduce: Callable[[str, Any, tuple[Any, ...]], Any],
) -> tuple[dict[str, Any], list[str]]:
    """Return what to write so that no event of those numbers has written anything; what to unset.

    ``now`` is the state as it stands. ``app:`` and ``user:`` keys are left alone.
    """
    log = list(log)
    touched = {
        key
        for event in log
        if (event.seq or 0) in undone
        for key in event.state_delta
        if ":" not in key
    }
    if not touched:
        return {}, []
    values: dict[str, Any] = {}
    for event in log:
        if event.is_record or not event.state_delta:
            continue
        undo = (event.journal or {}).get("undo", {})
        for key in touched.intersection(event.state_delta):
            if key not in values:
                values[key] = undo.get("was", {}).get(key, ABSENT)
            if (event.seq or 0) in undone:
                continue
            added = undo.get("added", {}).get(key)
            if added is None:
                values[key] = event.state_delta[key]
            else:
                values[key] = reduce(key, values[key], tuple(added))
    delta = {
        key: value
        for key, value in values.items()
        if value is not ABSENT and (key not in now or now[key] != value)
    }
    unset = sorted(key for key, value in values.items() if value is ABSENT and key in now)
    return delta, unset


# Checks. Each returns what is needed instead, or None if nothing is wrong.

_Check: TypeAlias = Callable[[Any], "str | None"]


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else "text"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _whole(value: Any) -> str | None:
    return None if type(value) is int and value >= 0 else "a whole number"


def _seconds(value: Any) -> str | None:
    is_number = type(value) in (int, float) and 0 <= value < math.inf
    return None if is_number else "a number of seconds"


def _mapping(value: Any) -> str | None:
    return None if isinstance(value, Mapping) else "an object"


def _list(value: Any) -> str | None:
    return None if isinstance(value, Sequence) and not isinstance(value, str) else "a list"


def _one_of(*words: str) -> _Check:
    return lambda value: None if value in words else f"one of {', '.join(words)}"


def _each(check: _Check) -> _Check:
    def check_items(value: Any) -> str | None:
        if _list(value):
            return "a list"
        wrong = next(filter(None, map(check, cast("Sequence[Any]", value))), None)
        return wrong and f"a list of which each is {wrong}"

    return check_items


def _values(check: _Check) -> _Check:
    def check_values(value: Any) -> str | None:
        if _mapping(value):
            return "an object"
        wrong = next(filter(None, map(check, cast("Mapping[str, Any]", value).values())), None)
        return wrong and f"an object in which each is {wrong}"

    return check_values


def _object(**fields: _Check) -> _Check:
    def check_fields(value: Any) -> str | None:
        if _mapping(value):
            return "an object"
        for name, check in fields.items():
            wrong = check(value[name]) if name in value else "something"
            if wrong:
                return f"an object in which {name} is {wrong}"
        return None

    return check_fields


def _range(value: Any) -> str | None:
    if _list(value) or len(value) != 2 or any(map(_whole, value)) or value[0] > value[1]:  # noqa: PLR2004  # first and last
        return "the first and the last of some numbers"
    return None


_ERROR: Final = _object(kind=_text, message=_text)

_NEEDED: Final[Mapping[str, Mapping[str, _Check]]] = {
    "start": {"outline": _each(_text), "config": _mapping},
    "end": {"status": _one_of("completed", "failed", "cancelled")},
    "intent": {"key": _text},
    "effect": {"key": _text},
}

_ALLOWED: Final[Mapping[str, Mapping[str, _Check]]] = {
    "end": {
        "begun": _text,
        "error": _ERROR,
        "own": _flag,
        "given_up": _flag,
        "attempts": _whole,
        "duration": _seconds,
        "input": _text,
        "escalated": _one_of("own", "below"),
        "received": _each(_whole),
        "ends": _each(_text),
    },
    "attempt": {"error": _ERROR},
    "checkpoint": {
        "numbers": _values(_whole),
        "received": _each(_whole),
        "layer": _mapping,
        "added": _values(_list),
    },
    "effect": {"failed": _flag},
    "resumed": {"void": _each(_range)},
    # What is noted on events that are no records.
    "": {
        "ends": _each(_text),
        "message": _text,
        "layered": _object(of=_text, layer=_mapping, added=_values(_list)),
    },
}

_UNDO: Final[Mapping[str, _Check]] = {"was": _mapping, "added": _values(_list)}

_PATH: Final = re.compile(r"[^/~]+(~[1-9][0-9]{0,8})?(/[^/~]+(~[1-9][0-9]{0,8})?)*")


def checked(event: Event) -> Mapping[str, Any]:
    """Return what an event notes; nothing, if it notes nothing.

    Raises:
        StoreCorruptError: something in it is not of the kind it must be.
    """
    journal = event.journal
    if not journal:
        return {}
    kind = journal.get("kind", "")
    if not isinstance(kind, str):
        raise _corrupt(event, "kind", "text", kind)
    _check_fields(event, kind, journal)
    if not kind:
        _check_undo(event, journal.get("undo"))
    elif kind in ("end", "attempt", "checkpoint", "intent", "effect"):
        if not _PATH.fullmatch(event.path):
            raise _corrupt(event, "path", "that of an agent's activation", event.path)
        if kind == "end":
            _check_end(event, journal)
    return journal


def _check_fields(event: Event, kind: str, journal: Mapping[str, Any]) -> None:
    for field, check in _NEEDED.get(kind, {}).items():
        if field not in journal:
            raise _corrupt(event, field, "something", None)
        _look(event, field, check, journal[field])
    for field, check in _ALLOWED.get(kind, {}).items():
        if field in journal:
            _look(event, field, check, journal[field])


def _look(event: Event, field: str, check: _Check, value: Any) -> None:
    wrong = check(value)
    if wrong:
        raise _corrupt(event, field, wrong, value)


def _check_undo(event: Event, undo: Any) -> None:
    if undo is None:
        return
    _look(event, "undo", _mapping, undo)
    for field, check in _UNDO.items():
        if field in undo:
            _look(event, f"undo.{field}", check, undo[field])


def _check_end(event: Event, journal: Mapping[str, Any]) -> None:
    path, begun = event.path, journal.get("begun", event.path)
    name, _, number = path.rpartition("/")[2].partition("~")
    above = path.rpartition("/")[0]
    began_at = begun.rpartition("/")
    if not _PATH.fullmatch(begun) or (began_at[0], began_at[2].partition("~")[0]) != (above, name):
        raise _corrupt(event, "begun", f"an attempt of {path}", begun)
    if journal.get("attempts", 1) != int(number or 1):
        raise _corrupt(event, "attempts", f"{number or 1}, by the path", journal.get("attempts"))
    if (journal["status"] == "failed") != ("error" in journal):
        raise _corrupt(event, "error", "there if, and only if, it failed", journal.get("error"))


def _corrupt(event: Event, field: str, wanted: str, found: Any) -> StoreCorruptError:
    message = (
        f"run {event.invocation_id!r}, event {event.seq}: its record cannot be read: "
        f"{field} must be {wanted}, not {found!r:.80}"
    )
    return StoreCorruptError(message)


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Return whole numbers in short: the first and the last of those that follow each other."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def void_events(events: Iterable[Event]) -> set[int]:
    """Return the numbers of the events that were void when a run was resumed, by its records."""
    return {
        number
        for event in events
        if event.is_record
        for first, last in (event.journal or {}).get("void", ())
        for number in range(first, last + 1)
    }
