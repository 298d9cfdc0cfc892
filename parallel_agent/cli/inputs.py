"""What the command line hands to a run: the message, and values for its state."""

from __future__ import annotations

import json
import math
import os
import select
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO

from session.state import UnstorableError, freeze

__all__ = ["InputError", "check_text", "find_message", "parse_responses", "parse_state"]


class InputError(ValueError):
    """The command line asks for something that cannot be; the message says what to do."""


def find_message(
    given: str | None, file: str | None, stdin: TextIO | None, notice: Callable[[str], None]
) -> str | None:
    """Return the message of a run, or None if there is none.

    ``given`` is the argument, ``file`` the name of a file; for both, ``-`` is standard input.
    Without either, standard input is read if a pipe or a file was put there, and counts as no
    message if it is empty. A newline at the end of what is read is left out.

    Blocks until standard input ends. ``notice`` is called when nothing comes for a second: a pipe
    that somebody holds open and nobody writes to must not look like a run that hangs.

    Raises:
        InputError: both were given; a file cannot be read, or is no text in UTF-8.
    """
    if given is not None and file is not None:
        message = "give the message as an argument or with -f, not both"
        raise InputError(message)
    if given == "-" or file == "-":
        return _read_stdin(stdin, notice)
    if given is not None:
        return check_text(given, "the message")
    if file is not None:
        return _read_file(file)
    return (_read_stdin(stdin, notice) or None) if _was_put_there(stdin) else None


def parse_responses(items: Iterable[str]) -> list[tuple[str, str]]:
    """Return the answers that ``id=value`` items stand for.

    Raises:
        InputError: an item is not of that form.
    """
    responses = list[tuple[str, str]]()
    for item in items:
        name, is_pair, text = check_text(item, "--respond").partition("=")
        if not is_pair or not name:
            message = f"--respond takes ID=VALUE, not {item!r}"
            raise InputError(message)
        responses.append((name, text))
    return responses


def parse_state(items: Iterable[str]) -> dict[str, Any]:
    """Return the state that ``key=value`` items stand for: JSON if it is JSON, else text.

    Raises:
        InputError: an item is not of that form, cannot be stored, or has a key that was given.
    """
    state = dict[str, Any]()
    for item in items:
        key, is_pair, text = check_text(item, "--state").partition("=")
        if not is_pair or not key:
            message = f"--state takes key=value, not {item!r}"
            raise InputError(message)
        if key in state:
            message = f"--state gives {key!r} twice"
            raise InputError(message)
        state[key] = _parse_value(key, text)
    return state


def check_text(text: str, what: str) -> str:
    """Return ``text`` if it can be stored.

    Raises:
        InputError: the shell passed on bytes that are no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        message = f"{what} is no text in UTF-8: {text!a:.80}"
        raise InputError(message) from None
    return text


def _parse_value(key: str, text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_as_float)
    except ValueError:
        return text
    except RecursionError:
        value = None
    try:
        if value is None and text.strip() != "null":
            raise UnstorableError("", "it is nested too deeply")  # noqa: TRY301  # one message for all
        freeze(value)
    except UnstorableError as error:
        message = f"--state {key}: {error}"
        raise InputError(message) from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is no JSON"
    raise ValueError(message)


def _as_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        message = f"{digits} is too large"
        raise ValueError(message)
    return number


def _read_file(name: str) -> str:
    try:
        data = Path(name).read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        message = f"-f {name}: {why}"
        raise InputError(message) from None
    return _decode(data, name)


def _read_stdin(stdin: TextIO | None, notice: Callable[[str], None]) -> str:
    if stdin is None:
        message = "there is no standard input to read the message from"
        raise InputError(message)
    if _is_silent(stdin):
        notice("waiting for the message on standard input (for a run without one: </dev/null)")
    try:
        data = _read_all(stdin)
    except OSError as error:
        message = f"standard input cannot be read: {error.strerror or error}"
        raise InputError(message) from None
    return _decode(data, "standard input")


def _read_all(stdin: TextIO) -> bytes:
    """Read to the end, also of a pipe that somebody else has made non-blocking."""
    if sys.platform == "win32":
        return stdin.buffer.read()  # of a console, only Python's own reader gives UTF-8
    try:
        number = stdin.fileno()
    except ValueError:
        return stdin.buffer.read()  # no file of the system's: somebody has put it there
    pieces = list[bytes]()
    while piece := _read_some(number):
        pieces.append(piece)
    return b"".join(pieces)


def _read_some(number: int) -> bytes:
    while True:
        try:
            return os.read(number, _AT_ONCE)
        except BlockingIOError:
            select.select([number], [], [])


def _decode(data: bytes, name: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = (
            f"{name} is no text in UTF-8: "
            f"byte 0x{data[error.start]:02x} at position {error.start}; convert it first"
        )
        raise InputError(message) from None
    return text.removesuffix("\r\n" if text.endswith("\r\n") else "\n")


def _was_put_there(stdin: TextIO | None) -> bool:
    """Whether somebody made standard input a pipe or a file.

    Not a terminal: nobody may be typing. Not a socket or /dev/null: services, containers and build
    machines leave those open behind programs that never read them.
    """
    try:
        mode = os.fstat(stdin.fileno()).st_mode if stdin is not None else 0
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _is_silent(stdin: TextIO) -> bool:
    if sys.platform == "win32" or stdin.isatty():
        return False
    try:
        ready, _, _ = select.select([stdin], [], [], _PATIENCE)
    except (OSError, ValueError):
        return False
    return not ready


_PATIENCE: Final = 1.0
_AT_ONCE: Final = 1 << 20
