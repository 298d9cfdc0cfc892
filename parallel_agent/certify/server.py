"""The process that imports the tree once, and from which each process of a trial is forked.

It has one thread and no event loop: nothing is held in it that a fork would tear apart. It reads a
line of JSON for each trial from its standard input, and answers with one. When nobody writes to
it any more, it ends.
"""

from __future__ import annotations

import gc
import json
import os
import select
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

from parallel_agent.certify.child import Setup, live, make_template
from parallel_agent.certify.errors import CertifyError
from parallel_agent.certify.loading import Program, load_program
from parallel_agent.certify.points import DATABASE, OUTPUT, RESULT, WORK

__all__ = ["main"]

_ENDED: Final = 0


def main() -> None:
    """Serve until standard input ends."""
    # Nobody else is to write between the answers, or to eat the questions.
    reader = os.fdopen(os.dup(0), "rb")
    writer = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    order = _next(reader)
    if order is None:
        return
    try:
        sys.path[:] = order["sys_path"]
        program = load_program(
            order["target"],
            check=order["check"],
            prepare=order["prepare"],
            loader=order["loader"],
        )
        setup = Setup(**order["setup"])
        if setup.url is None and order["makes_template"]:
            _fork(partial(make_template, Path(setup.template)), order["timeout"])
        _check_threads()
        # What has been imported is no garbage: no child need look at it, and copy it by that.
        gc.collect()
        gc.freeze()
    except CertifyError as error:
        _answer(writer, {"error": str(error), "details": error.details})
        return
    except BaseException as error:  # noqa: BLE001  # the user's own code, too
        details = getattr(error, "details", "") or traceback.format_exc()
        said = f"{order['target']} cannot be imported: {type(error).__name__}: {error}"
        _answer(writer, {"error": said, "details": details})
        return
    _answer(writer, {"ready": True})
    while (trial := _next(reader)) is not None:
        _answer(writer, _try(program, setup, trial, order["timeout"]))


def _next(reader: BinaryIO) -> dict[str, Any] | None:
    line = reader.readline()
    return json.loads(line) if line else None


def _answer(writer: BinaryIO, said: Mapping[str, Any]) -> None:
    writer.write(json.dumps(said).encode() + b"\n")
    writer.flush()


def _check_threads() -> None:
    if threading.active_count() > 1:
        names = ", ".join(sorted(thread.name for thread in threading.enumerate()[1:]))
        message = (
            f"importing the tree starts threads ({names}), and a process with threads cannot be "
            "forked: start them where the agents need them"
        )
        raise CertifyError(message)


def _try(
    program: Program, setup: Setup, trial: Mapping[str, Any], timeout: float
) -> dict[str, Any]:
    """Do all of a trial; return how each of its processes has ended."""
    folder = Path(trial["folder"])
    (folder / WORK).mkdir(parents=True)
    if setup.url is None:
        shutil.copyfile(setup.template, folder / DATABASE)
    kills: list[int | None] = [*trial["kills"], None]
    ends: list[str] = []
    for kill_at in kills:
        if not ends and program.prepare is not None:
            prepared = _fork(partial(_prepare, program.prepare, folder), timeout, folder)
            if prepared != "ended":
                ends.append(f"could not begin: prepare {prepared}")
                break
        ends.append(_fork(partial(live, program, setup, folder, kill_at), timeout, folder))
        if ends[-1] != "killed":
            break
    result = folder / RESULT
    return {
        "ends": ends,
        "result": json.loads(result.read_text("ascii")) if result.exists() else None,
    }


def _prepare(prepare: Callable[[], object], folder: Path) -> None:
    os.chdir(folder / WORK)
    prepare()


def _fork(work: Callable[[], object], timeout: float, folder: Path | None = None) -> str:
    """Do ``work`` in a process of its own; return how that has ended, within ``timeout``."""
    alive, dead = os.pipe()  # closed when nobody holds it any more: no signal, no polling
    child = os.fork()
    if child == 0:
        os.close(alive)
        _be_the_child(work, folder)
    os.close(dead)
    began = time.monotonic()
    hung = not select.select([alive], [], [], timeout)[0]
    os.close(alive)
    if hung:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if hung:
        return f"hung for {time.monotonic() - began:.0f} s"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return "killed" if number == signal.SIGKILL else f"died of {signal.Signals(number).name}"
    code = os.waitstatus_to_exitcode(status)
    return "ended" if code == _ENDED else f"exited with status {code}"


def _be_the_child(work: Callable[[], object], folder: Path | None) -> None:
    code = 1
    try:
        work()
        code = _ENDED
    except BaseException:  # noqa: BLE001  # the parent's stack is not to be unwound here
        text = traceback.format_exc()
        if folder is not None:
            with (folder / OUTPUT).open("a") as output:
                output.write(text)
    finally:
        os._exit(code)
