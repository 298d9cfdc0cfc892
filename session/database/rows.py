"""Between values and rows: names, state values, events.

**Names and keys** may hold NUL, which PostgreSQL cannot store. It is written as two U+0001, and
U+0001 itself as U+0001 U+0002: nothing collides, and the order by code points stays what it was.

**An event** is stored as the codec's JSON, with its id; its number and time are columns. The body
is complete but for the number, so ADK can read it as it is.

Pure: no database here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from session.codec import Codec, CodecError
from session.errors import StoreCorruptError
from session.event import OURS, Event, stamp_seq
from session.session import SessionKey
from session.state import APP_PREFIX, USER_PREFIX, UnstorableError, freeze, without_temp

__all__ = ["EventRow", "Rows", "Written", "name_of", "sorted_by_scope", "stored_name"]

EventRow: TypeAlias = tuple[int, float, str]
"""Number, time, body."""

_TO_TEXT: Final = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False
).encode
# Making one takes longer than opening a file, and its use changes nothing in it.
_CODEC: Final = Codec()
_LOW: Final = "\x01"


def stored_name(name: str) -> str:
    """Return how a name or key is stored."""
    if _LOW in name or "\x00" in name:
        return name.replace(_LOW, "\x01\x02").replace("\x00", "\x01\x01")
    return name


def name_of(stored: str) -> str:
    """Return the name or key that is stored so."""
    if _LOW in stored:
        return stored.replace("\x01\x01", "\x00").replace("\x01\x02", _LOW)
    return stored


@attrs.frozen
class Written:
    """What a batch writes: its rows, the last values of its keys as JSON, its last time.

    ``unset`` are the keys of the session's own that it leaves without a value.
    """

    events: Sequence[EventRow]
    deltas: Sequence[Mapping[str, Any]]
    state: Mapping[str, str]
    time: float
    unset: Sequence[str] = ()


def sorted_by_scope(
    state: Mapping[str, str],
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Tell the keys of the application, of the user and of the session apart."""
    app: dict[str, str] = {}
    user: dict[str, str] = {}
    own: dict[str, str] = {}
    for name, value in state.items():
        scope = (
            app if name.startswith(APP_PREFIX) else user if name.startswith(USER_PREFIX) else own
        )
        scope[name] = value
    return app, user, own


class Rows:
    """Writes and reads rows; ``store`` is how errors name the database."""

    def __init__(self, store: str) -> None:
        """Only keep the name."""
        self._store = store

    def write(self, events: Sequence[Event], first: int) -> Written:
        """Return what recording ``events`` writes, the first of them as number ``first``.

        Changes nothing: the events get their numbers when they are recorded.

        Raises:
            CodecError: what the runtime stamped on an event has no JSON form.
        """
        rows: list[EventRow] = []
        deltas: list[Mapping[str, Any]] = []
        state: dict[str, Any] = {}
        unset: set[str] = set()
        encode = _CODEC.encode
        for seq, event in enumerate(events, start=first):
            stored = encode(event)
            if not stored["id"]:
                stored["id"] = f"{stored['invocationId']}-{seq}"
            delta = event.delta
            kept = without_temp(delta)
            if kept is not delta:
                _replace_delta(stored["actions"], kept)
            if "customMetadata" in stored:
                _drop_seq(stored)
            deltas.append(kept)
            if kept:
                state.update(kept)
                for name in event.state_unset:
                    state.pop(name, None)
                    unset.add(name)
            rows.append((seq, stored["timestamp"], _TO_TEXT(stored)))
        return Written(
            rows,
            deltas,
            self.state(state),
            rows[-1][1] if rows else 0.0,
            # A later event may have set it again.
            [stored_name(name) for name in unset if name not in state],
        )

    def state(self, state: Mapping[str, Any]) -> dict[str, str]:
        """Return keys and values as they are stored. The values are frozen JSON."""
        return {stored_name(name): _TO_TEXT(value) for name, value in state.items()}

    def event(self, key: SessionKey, seq: int, body: str) -> Event:
        """Return the event of a row.

        Raises:
            StoreCorruptError: it is none; the session, the number and the field are named.
        """
        try:
            event = _CODEC.loads(body)
        except CodecError as error:
            raise self.corrupt(key, f"event {seq} cannot be read: {error}") from error
        stamp_seq(event, seq)
        return event

    def read_state(self, key: SessionKey, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Return the keys and values of rows.

        Raises:
            StoreCorruptError: a value is no JSON; the session and the key are named.
        """
        state: dict[str, Any] = {}
        for stored, value in rows:
            name = name_of(stored)
            try:
                state[name] = freeze(json.loads(value))
            except (ValueError, RecursionError, UnstorableError) as error:
                raise self.corrupt(
                    key, f"the state key {name!r} cannot be read: {error}"
                ) from error
        return state

    def corrupt(self, key: SessionKey, why: str) -> StoreCorruptError:
        """Return the error that says what of a session cannot be read."""
        return StoreCorruptError(f"{self._store}: session {key}: {why}")


def _replace_delta(actions: dict[str, Any], kept: Mapping[str, Any]) -> None:
    if kept:
        actions["stateDelta"] = kept
    else:
        del actions["stateDelta"]


def _drop_seq(stored: dict[str, Any]) -> None:
    """Leave the number to its column. Only an event that is restored has one already."""
    metadata = dict(stored["customMetadata"])
    ours = {name: value for name, value in metadata.pop(OURS, {}).items() if name != "seq"}
    if ours:
        metadata[OURS] = ours
    stored["customMetadata"] = metadata
    if not metadata:
        del stored["customMetadata"]
