"""What is noted on exceptions, and how they are looked into, without wrapping any.

Pure: no event loop, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Final, cast

__all__ = [
    "describe",
    "holds",
    "members",
    "note_clean_up",
    "note_mix_up",
    "note_origin",
    "note_other",
    "note_plugin",
    "note_reducer",
]


_OUR_NOTES: Final = ("raised by agent ", "another branch failed too: ", "raised in ")


def note_origin(error: BaseException, path: str) -> None:
    """Note on ``error`` which activation raised it.

    Notes are best effort: an exception that cannot take one stays without. One object raised
    again and again does not collect them: earlier notes of ours are replaced.
    """
    kept = _notes(error)
    if any(note.startswith(_OUR_NOTES[0]) for note in kept):
        kept = [note for note in kept if not note.startswith(_OUR_NOTES[:2])]
    _set_notes(error, [*kept, f"{_OUR_NOTES[0]}{path}"])


def note_mix_up(error: BaseException | None) -> None:
    """Note what to do on what is raised if trio's code awaits asyncio's, or the other way round.

    Neither of the two knows of the other, nor of the ways between them.
    """
    for leaf in () if error is None else _leaves(error):
        if _is_asyncios(leaf):
            note = _ON_TRIO
        elif type(leaf) is RuntimeError and _said(leaf).startswith(_TRIO_SAYS):
            note = _NOT_ON_TRIO
        else:
            continue
        notes = _notes(leaf)
        if note not in notes:
            _set_notes(leaf, [*notes, note])


def _is_asyncios(error: BaseException) -> bool:
    """Return whether asyncio, or a library for it, raises this where its loop does not run."""
    if type(error) is AttributeError:  # asyncio.Event, Lock, Queue, ... ask the loop for that
        return error.name == "create_future" and error.obj is None
    if type(error) is TypeError:  # the loop runs, around trio, and asyncio waits for a future
        return _said(error).startswith("trio.run received unrecognized yield message ")
    if type(error) is not RuntimeError:
        return False
    said = _said(error)
    return said in _ASYNCIO_SAYS or said.startswith("There is no current event loop in thread ")


_ASYNCIO_SAYS: Final = frozenset(
    {
        "no running event loop",
        "TaskGroup <TaskGroup> cannot determine the parent task",
        "Timeout should be used inside a task",
        "Timeout context manager should be used inside a task",  # aiohttp
    }
)

_TRIO_SAYS: Final = ("must be called from async context", "Task got bad yield: <class 'trio.")

_ON_TRIO: Final = (
    "agents run on trio, not on asyncio: use trio.sleep, trio.Event, trio.to_thread.run_sync, ...; "
    "if a library needs asyncio, `await parallel_agent.aio.from_asyncio(function, argument)`, or "
    "mark the agent's function by `@aio.asyncio_function`, below `@agent`; plain functions, which "
    "are in threads, use asyncio.run"
)

_NOT_ON_TRIO: Final = (
    "this is trio's, and trio does not run what has called it: asyncio's functions use "
    "asyncio.sleep, ..., and `await parallel_agent.aio.from_trio(ctx.emit, event)` for what a "
    "context or a service does; plain functions, which are in threads, "
    "`trio.from_thread.run(ctx.emit, event)`"
)


def note_other(error: BaseException, path: str, other: BaseException) -> None:
    """Note on ``error`` that ``other`` was raised at ``path`` while ``error`` is the one raised."""
    summary = f"{type(other).__name__}: {_short(other)}"
    note = f"{_OUR_NOTES[1]}{path}: {summary}"
    notes = _notes(error)
    if note not in notes:
        _set_notes(error, [*notes, note])


def note_plugin(error: BaseException, other: BaseException) -> None:
    """Note on ``error`` that a plugin failed as well, while it was told of the end."""
    note = f"then {other}"
    notes = _notes(error)
    if note not in notes:
        _set_notes(error, [*notes, note])


def note_clean_up(error: BaseException, other: BaseException) -> None:
    """Note on ``error`` that ``other`` was raised in cleaning up after it."""
    note = f"then, in cleaning up: {type(other).__name__}: {_short(other)}"
    notes = _notes(error)
    if note not in notes:
        _set_notes(error, [*notes, note])


def note_reducer(error: BaseException, what: str) -> None:
    """Note on ``error`` in which reducer it was raised."""
    kept = [note for note in _notes(error) if not note.startswith(_OUR_NOTES[2])]
    _set_notes(error, [*kept, f"{_OUR_NOTES[2]}{what}"])


def members(error: BaseException) -> tuple[BaseException, ...]:
    """Return what an exception group holds; of any other exception, nothing."""
    if not isinstance(error, BaseExceptionGroup):
        return ()
    return cast("BaseExceptionGroup[BaseException]", error).exceptions


def holds(error: BaseException, part: BaseException | None) -> bool:
    """Return whether anything of ``part`` is in ``error``; both may be groups."""
    if part is None:
        return False
    # By what groups hold: the groups themselves are made anew by every nursery they pass.
    inside = {id(leaf) for leaf in _leaves(error)}
    return any(id(leaf) in inside for leaf in _leaves(part))


def describe(error: BaseException) -> tuple[str, str]:
    """Return the error's type name and its message, whatever its ``__str__`` does."""
    return type(error).__name__, _short(error)


def _short(error: BaseException) -> str:
    text = _said(error)
    if members(error):
        # Its own message is trio's: "Exceptions from Trio nursery".
        leaves = "; ".join(
            f"{type(leaf).__name__}: {_said(leaf)}" for leaf in islice(_leaves(error), _MANY)
        )
        text = f"{text}: {leaves}"
    text = text.encode(errors="replace").decode()
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"


_SHORT: Final = 500


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:  # noqa: BLE001  # a broken __str__ must not hide its own error
        return "<its __str__ failed>"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    todo = [error]
    while todo:
        found = todo.pop()
        inside = members(found)
        todo += reversed(inside)
        if not inside:
            yield found


_MANY: Final = 8


def _notes(error: BaseException) -> list[str]:
    try:
        notes = getattr(error, "__notes__", None)
    except Exception:  # noqa: BLE001  # a hostile exception: as if it had none
        return []
    if not isinstance(notes, (list, tuple)):
        return []
    return [note for note in cast("list[object]", notes) if isinstance(note, str)]


def _set_notes(error: BaseException, notes: list[str]) -> None:
    with suppress(Exception):  # a frozen exception refuses in its own way, and stays without
        error.__notes__ = notes
