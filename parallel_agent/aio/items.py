"""An asyncio iteration, read from trio, one item at a time."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterable, Callable
from functools import partial
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, cast, final

import trio
from trio.lowlevel import ParkingLot

from parallel_agent.aio.bridge import check_function, link_of_trio, out_of_trio
from parallel_agent.aio.link import Link
from parallel_agent.errors import HostError, ReadError

__all__ = ["AsyncioItems", "from_asyncio_iter"]

_T = TypeVar("_T")
_P = ParamSpec("_P")


def from_asyncio_iter(
    function: Callable[_P, AsyncIterable[_T]], *args: _P.args, **kwargs: _P.kwargs
) -> AsyncioItems[_T]:
    """Return a block in which an asyncio iteration can be read from trio.

    ::

        async with from_asyncio_iter(client.stream, prompt) as chunks:
            async for chunk in chunks:
                yield chunk.text

    The iteration goes on in one asyncio task, from its first step to its closing, so it may hold
    its own timeouts and connections open between items. It makes the next item when that is asked
    for, and not before. Cancelling a step loses nothing: the next one gets the item. Leaving the
    block cancels the task, and returns when it has ended and the iterator has been closed.

    Args:
        function: an async generator function, or anything that returns an async iterable when it
            is called.
        *args: what it is called with.
        **kwargs: likewise.

    Raises:
        HostError: ``function`` is none; on entering, this is no trio task; at a step, what the
            function has returned is no iterable, or somebody else has cancelled the asyncio task.
        BaseException: whatever the iteration raises, as itself, at the step that meets it; what
            its closing raises, at the end of the block, unless that is left with an exception.
    """
    check_function(function, "from_asyncio_iter")
    return AsyncioItems(partial(function, *args, **kwargs))


@final
class AsyncioItems(Generic[_T]):
    """What `from_asyncio_iter` returns: a block, and inside it an async iterator."""

    def __init__(self, make: Callable[[], AsyncIterable[_T]]) -> None:
        """Made by `from_asyncio_iter`."""
        self._make = make
        self._link: Link | None = None
        self._context = contextvars.copy_context()
        # The loop's side writes these two.
        self._task: asyncio.Task[None] | None = None
        self._demand: asyncio.Event | None = None
        # Trio's side writes these.
        self._is_asked = False
        self._items: list[_T] = []
        self._is_done = False
        self._failure: BaseException | None = None
        self._is_left = False
        self._waiting = ParkingLot()

    async def __aenter__(self) -> AsyncioItems[_T]:
        if self._link is not None:
            message = "this block was entered already; call from_asyncio_iter(...) again"
            raise ReadError(message)
        await trio.lowlevel.checkpoint()
        self._context = contextvars.copy_context()
        self._link = link_of_trio()
        self._link.to_asyncio(self._start)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        link = self._running
        self._is_left = True
        if link.loop.is_closed():
            return  # the task will never end
        link.to_asyncio(self._cancel)
        with trio.CancelScope(shield=True):
            while not self._is_done:
                await self._waiting.park()
        failure, self._failure = self._failure, None
        if error is None and failure is not None:
            raise failure

    def __aiter__(self) -> AsyncioItems[_T]:
        return self

    async def __anext__(self) -> _T:
        link = self._running
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._items:
            if self._is_done:
                failure, self._failure = self._failure, None
                if failure is not None:
                    raise failure
                raise StopAsyncIteration
            if not self._is_asked:
                self._is_asked = True
                link.to_asyncio(self._ask)
            await self._waiting.park()
        return self._items.pop()

    @property
    def _running(self) -> Link:
        if self._link is None or self._is_left:
            message = (
                "write `async with from_asyncio_iter(...) as items:`, and read items inside it"
            )
            raise ReadError(message)
        return self._link

    # Called in trio's thread.

    def _take(self, item: _T) -> None:
        self._is_asked = False
        self._items.append(item)
        self._waiting.unpark_all()

    def _end(self, task: asyncio.Task[None]) -> None:
        self._is_done = True
        if not task.cancelled():
            self._failure = task.exception()
        elif not self._is_left:
            message = "the asyncio task was cancelled, and not by the agent that reads from it"
            self._failure = HostError(message)
        self._waiting.unpark_all()

    # Called in the loop's thread.

    def _start(self) -> None:
        link = cast("Link", self._link)
        self._demand = asyncio.Event()
        task = link.loop.create_task(self._iterate(link, self._demand), context=self._context)
        task.add_done_callback(lambda done: link.to_trio(self._end, done))
        self._task = task

    def _ask(self) -> None:
        cast("asyncio.Event", self._demand).set()

    def _cancel(self) -> None:
        cast("asyncio.Task[None]", self._task).cancel("cancelled from trio")

    async def _iterate(self, link: Link, demand: asyncio.Event) -> None:
        iterator: Any = None
        try:
            await out_of_trio()
            await demand.wait()
            made = self._make()
            _check_iterable(made)
            iterator = aiter(made)
            while True:
                demand.clear()
                try:
                    item = await anext(iterator)
                except StopAsyncIteration:
                    return
                link.to_trio(self._take, item)
                await demand.wait()
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()


def _check_iterable(made: object) -> None:
    if isinstance(made, AsyncIterable):
        return
    message = (
        f"from_asyncio_iter() iterates over what its function returns, but that is {made!r:.80}; "
        "give it an async generator function, such as one with "
        "`async for item in await function(argument): yield item`"
    )
    if asyncio.iscoroutine(made):
        made.close()  # or Python complains that nobody awaited it
    raise HostError(message)
