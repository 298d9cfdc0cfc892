"""What the process tests start: ``python -m tests.session.database.workers TASK URL ...``.

It imports everything once and forks: so the children begin at the same moment, and cheaply.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from session import (
    LeaseLostError,
    SequenceConflictError,
    SessionBusyError,
    SessionExistsError,
    SessionKey,
)
from session.database import DatabaseSessionService
from tests.support.databases import KEY, make, new_event, read

SESSIONS: Final = 8
LEASE: Final = 0.3
PATIENCE: Final = 30
PLACES: Final = ("before begin", "before commit", "after commit")


def key_of(number: int) -> SessionKey:
    """The name of a session."""
    return SessionKey("app", "user", f"s{number}")


async def crowd(url: str, worker: int, rounds: int) -> None:
    """Open a database that may be empty, and append to every session, others doing the same."""
    async with DatabaseSessionService(url, durability="normal") as service:

        async def one(number: int) -> None:
            key = key_of(number)
            try:
                seen = (await make(service, key)).last_seq
            except SessionExistsError:
                seen = (await read(service, key, num_recent_events=0)).last_seq
            for turn in range(rounds):
                event = new_event(
                    f"{worker}.{turn}", by=f"{worker}.{turn}", delta={f"w{worker}": turn}
                )
                while True:
                    try:
                        await service.append(key, [event], expected_seq=seen)
                    except SequenceConflictError as error:
                        seen = error.actual
                    else:
                        seen += 1
                        break

        async with trio.open_nursery() as nursery:
            for number in range(SESSIONS):
                nursery.start_soon(one, number)


async def doomed(url: str, place: str, at: int) -> None:
    """Append pairs of events until killed at ``place``; say after each which were recorded."""
    seen = 0

    def kill(here: str, _size: int) -> None:
        if here == place and seen == at:
            os.kill(os.getpid(), signal.SIGKILL)

    async with DatabaseSessionService(url, fault_points=kill) as service:
        await make(service)
        while True:
            seen += 1
            pair = [new_event(f"{seen}{half}", n=seen) for half in "ab"]
            await service.append(KEY, pair, expected_seq=2 * (seen - 1))


async def holder(url: str, number: int, end: signal.Signals) -> None:
    """Hold a session, record something, and kill or stop oneself; then go on, too late."""
    key = key_of(number)
    async with DatabaseSessionService(url, lease_seconds=LEASE) as service:
        await make(service, key)
        lease = await service.acquire(key, run_id="first", owner="the first", resumable=True)
        await service.append(key, [new_event("before")], expected_seq=0, lease=lease)
        os.kill(os.getpid(), end)
        # At the end of the log, so that only the lease is in the way.
        seen = (await read(service, key)).last_seq
        try:
            await service.append(key, [new_event("late")], expected_seq=seen, lease=lease)
        except LeaseLostError:
            return
    message = "a session that another has taken over was written to"
    raise RuntimeError(message)


async def heir(url: str, number: int) -> None:
    """Take over the session that somebody else holds, as soon as that can be done."""
    key = key_of(number)
    async with DatabaseSessionService(url) as service:
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    lease = await service.acquire(key, run_id="second", owner="the second")
                    break
                except SessionBusyError:
                    # The clock is the database's, and so a real one.
                    await trio.sleep(LEASE / 10)
        await service.append(key, [new_event("after")], expected_seq=1, lease=lease)


def inherit(url: str) -> list[int]:
    """Let processes hold sessions until they are killed or stopped, and others take over.

    Return how each ended: first the holders, who were woken at last, then their heirs.
    """
    ends = (signal.SIGKILL, signal.SIGSTOP)
    holders = [fork(partial(trio.run, holder, url, *case)) for case in enumerate(ends)]
    ended = [os.waitpid(child, os.WUNTRACED)[1] for child in holders]
    heirs = [fork(partial(trio.run, heir, url, number)) for number, _ in enumerate(ends)]
    took = [os.waitpid(child, 0)[1] for child in heirs]
    os.kill(holders[1], signal.SIGCONT)
    ended[1] = os.waitpid(holders[1], 0)[1]
    return ended + took


def fork(task: Callable[[], None]) -> int:
    """Run ``task`` in a child; return the child."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            task()
            status = 0
        except BaseException:  # noqa: BLE001  # the child must not go on as its parent
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def main(task: str, *arguments: str) -> None:
    """Do as the module says; print what became of the children, as JSON."""
    if task == "crowd":
        url, workers, rounds = arguments[0], int(arguments[1]), int(arguments[2])
        children = [
            fork(partial(trio.run, crowd, url, worker, rounds)) for worker in range(workers)
        ]
    elif task == "inherit":
        sys.stdout.write(json.dumps(inherit(arguments[0])))
        return
    else:
        # One URL for each place and number, in this order.
        cases = [(place, at) for place in PLACES for at in (1, 2, 3)]
        children = [
            fork(partial(trio.run, doomed, url, place, at))
            for url, (place, at) in zip(arguments, cases, strict=True)
        ]
    sys.stdout.write(json.dumps([os.waitpid(child, 0)[1] for child in children]))


if __name__ == "__main__":
    main(*sys.argv[1:])
