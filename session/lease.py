"""Whose a session is: the lease of the run that writes to it, and the runs that did not end.

One live run owns a session. It holds a `Lease`, which carries a **fencing token**: each lease of a
session has a higher one than those before it. An append under a lease is refused as soon as
somebody else has taken the session over, however late the first holder wakes up.

Pure values: no I/O, no clock, no event loop.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

from session.session import SessionKey
from session.state import freeze

__all__ = [
    "Lease",
    "RunStatus",
    "Unfinished",
    "UnfinishedRun",
    "check_lease",
    "check_unfinished",
    "check_words",
]

Unfinished: TypeAlias = Literal["waiting", "interrupted"]
"""How a run may leave its session that wants to be resumed."""

RunStatus: TypeAlias = Literal["running", "crashed", "interrupted", "waiting"]
"""What is known of a run that has not finished."""


@attrs.frozen
class Lease:
    """The right of one run to write to a session, until it is released or has expired.

    Attributes:
        key: the session.
        run_id: the run.
        owner: words for people: who holds it.
        token: the fencing token: each lease of a session has a higher one.
        seconds: it expires so long after it was last renewed; ``math.inf``: never.
    """

    key: SessionKey
    run_id: str
    owner: str
    token: int
    seconds: float


@attrs.frozen
class UnfinishedRun:
    """A run that a session remembers, because it can be resumed.

    Attributes:
        key: the session.
        run_id: the run.
        status: ``"running"``: its lease is live; ``"crashed"``: that has expired, and was never
            released; the others: how it was released.
        owner: who holds the lease, if it is running.
        last_update_time: when something was last recorded in the session.
    """

    key: SessionKey
    run_id: str
    status: RunStatus
    owner: str | None
    last_update_time: float


# For implementers of a service.


def check_words(name: str, value: object) -> str:
    """Return ``value``, if it is text that can be stored and is not empty.

    Raises:
        ValueError: it is not; ``name`` is in the message.
    """
    if not isinstance(value, str) or not value:
        message = f"{name} must be text that is not empty, not {value!r:.80}"
        raise ValueError(message)
    freeze(value, name)
    return value


def check_lease(key: SessionKey, lease: Lease) -> None:
    """Refuse a lease of another session than ``key``.

    Raises:
        ValueError: it is of another.
    """
    if lease.key != key:
        message = f"the lease is of session {lease.key}, and the append is to {key}"
        raise ValueError(message)


def check_unfinished(unfinished: object) -> None:
    """Refuse a way to leave a session that there is not.

    Raises:
        ValueError: there is no such way.
    """
    if unfinished not in (None, "waiting", "interrupted"):
        message = f"unfinished is 'waiting', 'interrupted' or None, not {unfinished!r:.80}"
        raise ValueError(message)
