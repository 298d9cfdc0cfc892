"""Every host, as a function that runs a tree and says what its reader has seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final, Literal, TypeAlias

import attrs
import trio
import uvloop

from parallel_agent import Agent, Event, Result, Runner, aio, sync
from parallel_agent.handle import RunHandle

__all__ = ["HOSTS", "Host", "LeftError", "Reading", "Seen"]

Way: TypeAlias = Literal["end", "break", "raise", "cancel", "scope"]
"""How a reader stops: at the end, by ``break``, by raising, by ``run.cancel()`` (and then it reads
on), or because it is cancelled from outside."""


class LeftError(Exception):
    """What a reader raises that leaves by raising."""


@attrs.frozen
class Reading:
    """How a run is read: to where, and how it is left then."""

    way: Way
    at: int


@attrs.frozen
class Seen:
    """What a reader has seen of a run, and what the run came to."""

    delivered: tuple[str, ...]
    recorded: tuple[str, ...]
    error: str
    status: str
    text: str
    output: Any
    outputs: Mapping[str, Any]
    state: Mapping[str, Any]


def _line(event: Event) -> str:
    actions = event.actions
    return (
        f"{event.seq} {event.author} {event.branch} {event.text!r} partial={event.partial} "
        f"output={event.output!r} delta={dict(actions.state_delta)!r} {actions.escalate}"
    )


def _seen(delivered: list[Event], error: BaseException | None, result: Result) -> Seen:
    return Seen(
        tuple(map(_line, delivered)),
        tuple(map(_line, result.events)),
        _name(error),
        result.status,
        result.text,
        result.output,
        dict(result.outputs),
        dict(result.state),
    )


def _name(error: BaseException | None) -> str:
    if isinstance(error, BaseExceptionGroup):
        return f"{type(error).__name__}{[_name(one) for one in error.exceptions]}"
    return repr(error)


def _numbers() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"id-{next(numbers)}"


def _leaves(
    reading: Reading,
    delivered: list[Event],
    run: RunHandle | sync.Run,
    cancel: Callable[[], object],
) -> bool:
    """Do what the reader does after an event; say whether it breaks off."""
    if len(delivered) != reading.at:
        return False
    match reading.way:
        case "raise":
            raise LeftError
        case "cancel":
            run.cancel()
        case "scope":
            cancel()
        case "break" | "end":
            pass
    return reading.way == "break"


def on_trio(tree: Agent, reading: Reading) -> Seen:
    """Run it under trio."""

    async def main() -> Seen:
        delivered: list[Event] = []
        error: BaseException | None = None
        with trio.CancelScope() as scope:
            try:
                async with Runner(tree, new_id=_numbers()).open("go") as run:
                    async for event in run:
                        delivered.append(event)
                        if _leaves(reading, delivered, run, scope.cancel):
                            break
                        await trio.lowlevel.checkpoint()
            except Exception as exc:  # noqa: BLE001  # compared
                error = exc
        return _seen(delivered, error, run.result)

    return trio.run(main)


async def _in_asyncio(tree: Agent, reading: Reading) -> Seen:
    delivered: list[Event] = []
    runs: list[aio.Run] = []

    async def read() -> None:
        async with aio.Runner(tree, new_id=_numbers()).open("go") as run:
            runs.append(run)
            async for event in run:
                delivered.append(event)
                if _leaves(reading, delivered, run, task.cancel):
                    break
                await asyncio.sleep(0)

    error: BaseException | None = None
    task = asyncio.create_task(read())
    try:
        await task
    except asyncio.CancelledError:
        pass
    except Exception as exc:  # noqa: BLE001  # compared
        error = exc
    return _seen(delivered, error, runs[0].result)


def on_asyncio(tree: Agent, reading: Reading) -> Seen:
    """Run it in an asyncio loop."""
    return asyncio.run(_in_asyncio(tree, reading))


def on_uvloop(tree: Agent, reading: Reading) -> Seen:
    """Run it in a loop of uvloop's."""
    return uvloop.run(_in_asyncio(tree, reading))


def on_sync(tree: Agent, reading: Reading) -> Seen:
    """Run it from plain Python. Instead of a cancellation from outside, the user interrupts."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    delivered: list[Event] = []
    error: BaseException | None = None
    try:
        with sync.Runner(tree, new_id=_numbers()).open("go") as run:
            for event in run:
                delivered.append(event)
                if _leaves(reading, delivered, run, interrupt):
                    break
    except KeyboardInterrupt:
        pass
    except Exception as exc:  # noqa: BLE001  # compared
        error = exc
    return _seen(delivered, error, run.result)


Host: TypeAlias = Callable[[Agent, Reading], Seen]

HOSTS: Final[dict[str, Host]] = {
    "asyncio": on_asyncio,
    "uvloop": on_uvloop,
    "sync": on_sync,
}
"""The hosts that are compared with trio."""
