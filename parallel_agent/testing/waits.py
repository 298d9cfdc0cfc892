"""Where agents are, in their code and in ours: for those who wait, and for those who touch state.

Pure: nothing here waits.
"""

from __future__ import annotations

import gc
import inspect
import linecache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import trio

__all__ = ["caller", "describe_wait"]

_OURS: Final = str(Path(__file__).parent.parent)
_TESTING: Final = str(Path(__file__).parent)
_TRIO: Final = str(Path(trio.__file__).parent)

_REASONS: Final = {
    "receive": "for a message",
    "request_input": "for a person's answer",
    "acquire": "for a slot of a limiter",
    "offer": "for whoever reads its events",
    "run_child": "for an agent below it",
    "fan_out": "for its branches",
    "emit": "for the reader to come back",
}
"""What a task waits for that waits inside these functions of ours. The first that fits counts."""


def caller() -> str:
    """Return file and line of the nearest code that is not the runtime's; "" if there is none."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        code = frame.f_code
        if not _is_inside(code, _OURS) and not _is_inside(code, _TRIO):
            name = Path(code.co_filename).name
            return "" if code.co_filename.startswith("<frozen") else f"{name}:{frame.f_lineno}"
        if code.co_name == "_stepped" and _is_inside(code, _TESTING):
            return ""  # above it stands the scheduler
        frame = frame.f_back
    return ""


def describe_wait(work: Any) -> str:
    """Say where a suspended coroutine waits, and for what, as far as that can be seen."""
    where = ""
    reason = ""
    for code, line in _frames(work):
        if _is_inside(code, _TRIO):
            break
        if _is_inside(code, _OURS):
            reason = reason or _REASONS.get(code.co_name, "")
        else:
            text = linecache.getline(code.co_filename, line).strip()
            where = f"at {Path(code.co_filename).name}:{line}" + (f", `{text}`" if text else "")
            reason = ""  # what counts is what the innermost code of the agent's waits for
    return " ".join(part for part in (reason, where) if part) or "inside the runtime"


def _is_inside(code: CodeType, folder: str) -> bool:
    return code.co_filename.startswith(folder)


def _frames(work: Any) -> list[tuple[CodeType, int]]:
    """Return code and line of each frame of a suspended coroutine, outermost first."""
    found: list[tuple[CodeType, int]] = []
    inner: Any = work
    while inner is not None:
        for prefix in ("cr", "gi", "ag"):
            frame = getattr(inner, f"{prefix}_frame", None)
            if frame is not None:
                found.append((frame.f_code, frame.f_lineno))
                following = "gi_yieldfrom" if prefix == "gi" else f"{prefix}_await"
                inner = getattr(inner, following, None)
                break
        else:
            # What `agen.asend()` and such return does not say whose it is.
            behind: list[Any] = gc.get_referents(inner)
            inner = next((one for one in behind if hasattr(one, "ag_frame")), None)
            inner = inner or next((one for one in behind if hasattr(one, "cr_frame")), None)
    return found
