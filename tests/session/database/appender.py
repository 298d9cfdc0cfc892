"""Another process that appends: ``python -m tests.session.database.appender``.

For each line that it is given, which is the URL of a database, it appends an event to the session
there, and says so.
"""

from __future__ import annotations

import sys

import trio

from session.database import DatabaseSessionService
from tests.support.databases import KEY, new_event, read


async def append(url: str) -> None:
    """Append, as what a process does in its life."""
    async with DatabaseSessionService(url, durability="normal") as service:
        seq = (await read(service)).last_seq
        await service.append(KEY, [new_event()], expected_seq=seq)


if __name__ == "__main__":
    for line in sys.stdin:
        trio.run(append, line.strip())
        sys.stdout.write("done\n")
        sys.stdout.flush()
