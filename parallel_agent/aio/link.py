"""What holds a trio run and an asyncio loop together, as seen from either side."""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from trio.lowlevel import RunVar

__all__ = ["LINK", "Link", "settle", "settled"]


class Link(ABC):
    """A trio run and an asyncio loop that call each other. They may share a thread, or not.

    What is called through a link must not raise, and runs in the order of the calls.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Link to this loop."""
        self.loop = loop

    @abstractmethod
    def to_asyncio(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in the loop's thread. Called by trio's side."""

    @abstractmethod
    def to_trio(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in trio's thread. Called by the loop's side."""

    @abstractmethod
    def start(
        self,
        function: Callable[..., Awaitable[object]],
        *args: object,
        name: str,
    ) -> None:
        """Start a trio task, in a copy of the caller's context variables. Called by the loop.

        Raises:
            HostError: the trio side has ended.
        """

    @abstractmethod
    def why_ended(self) -> BaseException:
        """Return what to raise where something has been cut short by the end of the trio side."""


LINK: RunVar[Link] = RunVar("LINK")
"""The link of this trio run, if it has one."""


def settle(future: asyncio.Future[None] | None) -> None:
    """Wake whoever waits for the future, if it has not been done or cancelled before."""
    if future is not None and not future.done():
        with suppress(RuntimeError):  # the loop was closed, and whoever waits in it waits for ever
            future.set_result(None)


async def settled(future: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until the future is done, whoever cancels that.

    Returns the cancellation that came meanwhile; the caller raises it, when the time has come.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        with nullcontext() if cancelled is None else _out_of_reach_of_anyio():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as exc:
                cancelled = exc
    return cancelled


def _out_of_reach_of_anyio() -> AbstractContextManager[object]:
    """Return a block in which a cancelled scope of anyio's leaves its task alone.

    It would cancel it again at each turn of the loop, which takes all the processor's time for as
    long as the wait goes on. Starlette, among others, has such scopes around its handlers.
    """
    anyio: Any = sys.modules.get("anyio")
    return nullcontext() if anyio is None else anyio.CancelScope(shield=True)
