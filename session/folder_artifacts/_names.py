"""What things are called on disk. The package's docstring says why."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from session.artifact import ArtifactNameError, check_name
from session.session import SessionKey
from session.state import USER_PREFIX

# No encoded name holds an "@", so what holds one is ours.
ABOUT: Final = "@artifact.json"
ARTIFACT: Final = "@"
UNFINISHED: Final = "@unfinished"
USER: Final = "@user"
# Nor a "~".
CUT: Final = "~"

_LONGEST: Final = 150
_KEPT: Final = 60

_AT_ENDS: Final = frozenset(". ")
_PLAIN: Final = frozenset(string.ascii_letters + string.digits + "_-") | _AT_ENDS
_CAPITAL: Final = re.compile("[A-Z]")
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]) *(\.|$)", re.IGNORECASE)
_ENDING: Final = re.compile(r"\.[!a-zA-Z0-9]{1,10}\Z")


def _escape(text: str) -> str:
    """Return ``text`` as a file name that every system takes, short or not."""
    last = len(text) - 1
    escaped = "".join(
        char
        # Windows drops dots and spaces at the end; at the beginning a dot hides the file.
        if char in _PLAIN and not (char in _AT_ENDS and index in {0, last})
        else "".join(f"%{byte:02x}" for byte in char.encode())
        for index, char in enumerate(text)
    )
    # To Windows, "con.txt" is the console.
    return f"%{ord(escaped[0]):02x}{escaped[1:]}" if _DEVICE.match(escaped) else escaped


def _encode(text: str) -> str:
    """Return the same without capitals: no system takes two of these for one."""
    return _CAPITAL.sub(lambda match: f"!{match[0].lower()}", _escape(text))


def _cut(encoded: str, text: str) -> str:
    """Return what was made of ``text``, cut off if it is too long."""
    if len(encoded) <= _LONGEST:
        return encoded
    ending = _ENDING.search(encoded)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{encoded[:_KEPT]}{CUT}{digest}{ending[0] if ending else ''}"


def stored(text: str) -> str:
    """Return the name of the folder that stands for ``text``."""
    return _cut(_encode(text), text)


def decode(encoded: str) -> str:
    """Return what `stored` made this of, or anything at all if it did not, or has cut it off."""
    return unquote(re.sub("!([a-z])", lambda match: match[1].upper(), encoded))


def steps_to(name: str) -> list[str]:
    """Return the folders that lead to the artifact from those of its owner."""
    *folders, last = name.removeprefix(USER_PREFIX).split("/")
    return [*map(stored, folders), stored(last) + ARTIFACT]


def owner_of(key: SessionKey, name: str) -> list[str]:
    """Return the folders that lead from the root to those of the artifact's owner."""
    check_name(name)
    return of_user(key) if name.startswith(USER_PREFIX) else of_session(key)


def of_user(key: SessionKey) -> list[str]:
    return [stored(key.app_name), stored(key.user_id), USER]


def of_session(key: SessionKey) -> list[str]:
    return [*map(stored, (key.app_name, key.user_id, key.session_id))]


def leads_to(name: str, steps: Sequence[str], prefix: str) -> bool:
    """Whether ``steps`` lead to this artifact from the folder of the owner with this prefix."""
    try:
        check_name(name)
    except ArtifactNameError:
        return False
    return name.startswith(USER_PREFIX) == bool(prefix) and steps_to(name) == steps


def content_file(name: str) -> str:
    """Return the name of the file with an artifact's bytes: alone in its folder, with capitals."""
    segment = name.removeprefix(USER_PREFIX).rpartition("/")[2]
    return _cut(_escape(segment), segment)
