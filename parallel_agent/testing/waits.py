"""Where agents are, in their code and in ours: for those who wait, and for those who touch state.

Pure: nothing here waits.
"""

from __future__ import annotations

import gc
import inspect
import linecache
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import trio

__all__ = [
    "caller",
    "describe_wait",
    "is_in_thread",
    "is_ours",
    "leaves_nursery",
    "runs_an_agent",
    "shares_a_wait",
    "waits_below",
    "waits_inside",
]

_OURS: Final = str(Path(__file__).parent.parent)
_TESTING: Final = str(Path(__file__).parent)
_SCRIPT: Final = str(Path(__file__).with_name("script.py"))
_TRIO: Final = str(Path(trio.__file__).parent)

_REASONS: Final = {
    "receive": "for a message",
    "ask": "for a person's answer",
    "acquire": "for a slot of a limiter",
    "offer": "for whoever reads its events",
    "run_child": "for an agent below it",
    "fan_out": "for its branches",
    "_join": "for its branches",
    "emit": "for the reader to come back",
    "read": "for an event",
}
"""What a task waits for that waits inside these functions of ours. The last that fits counts."""

_SHARED: Final = frozenset(
    inspect.unwrap(function).__code__.co_filename
    for function in (
        trio.Event.wait,
        trio.Lock.acquire,
        trio.MemorySendChannel[Any].send,
        trio.lowlevel.ParkingLot.park,
    )
)
"""The files in which tasks wait that wait at a lock, an event, a channel, ..."""

_RUNNERS: Final = frozenset({"activate", "watch", "_watch", "_work", "_run", "_run_tree"})
"""The functions of ours that are started as tasks, and activate agents."""

_BELOW: Final = frozenset({"run_child", "fan_out", "_join"})


def caller() -> str:
    """Return file and line of the nearest code that is not the runtime's; "" if there is none."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if _is_inside(code, _TRIO):
            return ""  # above it stands who has started the event loop
        if not _is_inside(code, _OURS) and not code.co_filename.startswith("<frozen"):
            return _place(code, frame.f_lineno)  # but for Python's own, on the way to a mapping
        step = _scripted(frame)
        if step:
            return step
        yields = _generator(frame)
        if yields is not None:
            return _place(yields.f_code, yields.f_lineno)
        frame = frame.f_back
    return ""


def describe_wait(work: Any) -> str:
    """Say where a suspended coroutine waits, and for what, as far as that can be seen."""
    where = ""
    reason = ""
    for frame in _frames(work):
        if _is_inside(frame.f_code, _TRIO):
            break
        step = _scripted(frame)
        theirs = _generator(frame)
        if step:
            where, reason = f"at `{step}`", ""
        elif theirs is None and _is_inside(frame.f_code, _OURS):
            reason = _reason(frame) or reason
        else:
            theirs = theirs or frame
            where = _at(theirs.f_code, theirs.f_lineno)
            reason = ""  # what counts is what the innermost code of the agent's waits for
    return " ".join(part for part in (reason, where) if part) or "inside the runtime"


def waits_inside(work: Any, names: frozenset[str]) -> bool:
    """Return whether a suspended coroutine waits inside one of these functions of ours."""
    return any(frame.f_code.co_name in names and is_ours(frame.f_code) for frame in _frames(work))


def leaves_nursery(work: Any) -> bool:
    """Return whether a suspended coroutine waits at the end of a nursery's block."""
    inside = [frame.f_code.co_name for frame in _frames(work) if _is_inside(frame.f_code, _TRIO)]
    return bool(inside) and inside[0] == "__aexit__"


def shares_a_wait(work: Any) -> bool:
    """Return whether an agent's code waits at something of trio's that others may have, too.

    A lock, an event, a channel, ...; also if it would not have had to wait.
    """
    theirs = shares = False
    for frame in _frames(work):
        if not _is_inside(frame.f_code, _TRIO):
            theirs, shares = not is_ours(frame.f_code), False
        elif frame.f_code.co_filename in _SHARED:
            shares = theirs
    return shares


def is_in_thread(work: Any) -> bool:
    """Return whether a suspended coroutine waits for a thread that runs."""
    names = [frame.f_code.co_name for frame in _frames(work) if _is_inside(frame.f_code, _TRIO)]
    # Otherwise it still waits for a thread to be free, or does what its thread has asked for.
    return ("to_thread_run_sync", "wait_task_rescheduled") in pairwise(names)


def waits_below(work: Any) -> bool:
    """Return whether a suspended coroutine waits for agents that it has started."""
    found = ""
    for frame in _frames(work):
        if _is_inside(frame.f_code, _OURS):
            name = frame.f_code.co_name
            found = name if name in _REASONS else found
        elif not _is_inside(frame.f_code, _TRIO):
            found = ""
    return found in _BELOW


def _reason(frame: FrameType) -> str:
    reason = _REASONS.get(frame.f_code.co_name, "")
    name = getattr(frame.f_locals.get("self"), "name", "") if reason.endswith("limiter") else ""
    return f"{reason} ({name})" if name else reason


def _scripted(frame: FrameType) -> str:
    """Return the step that a scripted agent does in ``frame``, if it does."""
    code = frame.f_code
    is_script = code.co_name == "play" and code.co_filename == _SCRIPT
    return repr(frame.f_locals.get("step")) if is_script else ""


def _generator(frame: FrameType) -> FrameType | None:
    """Return where the generator stands whose event the runtime emits in ``frame``, if it does."""
    if frame.f_code.co_name != "_step_through":
        return None
    return getattr(frame.f_locals.get("agen"), "ag_frame", None)


def _place(code: CodeType, line: int) -> str:
    return f"{Path(code.co_filename).name}:{line}"


def _at(code: CodeType, line: int) -> str:
    text = linecache.getline(code.co_filename, line).strip()
    return f"at {_place(code, line)}" + (f", `{text}`" if text else "")


def _is_inside(code: CodeType, folder: str) -> bool:
    return code.co_filename.startswith(folder)


def is_ours(code: CodeType) -> bool:
    """Return whether code is the runtime's. The kit's scripted agents are like users' own."""
    return _is_inside(code, _OURS) and not _is_inside(code, _TESTING)


def runs_an_agent(code: CodeType | None) -> bool:
    """Return whether a task that begins there is about to run an activation."""
    return code is not None and code.co_name in _RUNNERS and is_ours(code)


def _frames(work: Any) -> list[FrameType]:
    """Return the frames of a suspended coroutine, outermost first."""
    found: list[FrameType] = []
    inner: Any = work
    while inner is not None:
        for prefix in ("cr", "gi", "ag"):
            frame = getattr(inner, f"{prefix}_frame", None)
            if frame is not None:
                found.append(frame)
                following = "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await"
                inner = getattr(inner, following, None)
                break
        else:
            # What `agen.asend()` and such return does not say whose it is.
            behind: list[Any] = gc.get_referents(inner)
            inner = next((one for one in behind if hasattr(one, "ag_frame")), None)
            inner = inner or next((one for one in behind if hasattr(one, "cr_frame")), None)
    return found
