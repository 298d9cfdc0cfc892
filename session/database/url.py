"""What a service is given to find its database by: a URL, or the path of a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

__all__ = ["parse_url"]

_DRIVERS: Final = {"sqlite": "pysqlite", "postgresql": "psycopg"}
_FORMS: Final = "sqlite:///file.db, postgresql://user@host/database, or the path of a file"


def parse_url(given: str | os.PathLike[str]) -> URL:
    """Return the URL of a database that we know; a path stands for an SQLite file.

    Raises:
        ValueError: it is no such URL; a password in it is not shown.
        TypeError: it is neither text nor a path.
    """
    if isinstance(given, Path):
        return URL.create("sqlite", database=str(given))
    text = os.fspath(given)
    if not isinstance(text, str):
        message = f"a database is named by a URL or a path, not by {type(given).__name__}"
        raise TypeError(message)
    if not text:
        message = f"the URL of the database is empty; give {_FORMS}"
        raise ValueError(message)
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        # The text is not shown, and nor is the cause: there may be a password in them.
        message = f"this is no URL of a database; give {_FORMS}"
        raise ValueError(message) from None
    backend, _, driver = url.drivername.partition("+")
    if backend not in _DRIVERS:
        message = f"there is no session store for {backend!r}; give {_FORMS}"
        raise ValueError(message)
    if driver not in ("", _DRIVERS[backend]):
        message = (
            f"{backend} is used through {_DRIVERS[backend]}, not {driver}: "
            f"write {backend}://... or {backend}+{_DRIVERS[backend]}://..."
        )
        raise ValueError(message)
    return url
