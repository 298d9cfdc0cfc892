"""From trio to asyncio and back: await what belongs to the other.

`from_asyncio` lets an agent await a coroutine that needs an asyncio loop; `from_trio` lets asyncio
code await a trio function. On either side exceptions come as they are, context variables flow in,
and cancelling whoever waits cancels what is waited for, and waits until that has ended.

Where the loop is: in a run under `parallel_agent.aio`, it is the application's own, on the same
thread. Under plain trio, and in the sync host, the first use starts a loop in a thread of its own,
which ends with the trio run; what is awaited then runs in that thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import AsyncIterable, Awaitable, Callable
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar, cast, final

import trio
from trio.lowlevel import Abort, RaiseCancelT, Task, current_task, reschedule

from parallel_agent.aio.guest import Guest
from parallel_agent.aio.link import LINK, Link, settle, settled
from parallel_agent.aio.thread import LOOP_THREADS, LoopThread
from parallel_agent.errors import HostError

__all__ = ["check_function", "from_asyncio", "from_trio", "link_of_trio", "out_of_trio"]

_T = TypeVar("_T")
_P = ParamSpec("_P")

_CANCELLED: Final = "the asyncio task was cancelled, and not by the agent that waits for it"


async def from_asyncio(
    function: Callable[_P, Awaitable[_T]], *args: _P.args, **kwargs: _P.kwargs
) -> _T:
    """Await an asyncio function from trio.

    ::

        page = await from_asyncio(client.get, url)

    It runs in an asyncio task of its own, with a copy of the caller's context variables.
    Cancelled, this cancels that task and waits until it has ended; if it returns something
    nevertheless, that is returned.

    Args:
        function: a coroutine function, or anything that returns an awaitable when it is called.
        *args: what it is called with.
        **kwargs: likewise.

    Raises:
        HostError: this is no trio task; or the asyncio task was cancelled by somebody else; or what
            the function returns cannot be awaited.
        BaseException: whatever the function raises, as itself.
    """
    check_function(function, "from_asyncio")
    call = _InAsyncio(link_of_trio(), partial(function, *args, **kwargs))
    return cast("_T", await call.outcome())


async def from_trio(
    function: Callable[_P, Awaitable[_T]], *args: _P.args, **kwargs: _P.kwargs
) -> _T:
    """Await a trio function from asyncio.

    ::

        session = await from_trio(service.get, app_name=app, user_id=user, session_id=session)

    Services of sessions, artifacts and memory are trio's, and so is a context: an asyncio function
    that works for an agent calls ``await from_trio(ctx.emit, event)``.

    It runs in a trio task of its own, with a copy of the caller's context variables. Cancelled,
    this cancels that task, waits until it has ended, and raises the cancellation.

    Args:
        function: an async function.
        *args: what it is called with.
        **kwargs: likewise.

    Raises:
        HostError: no asyncio loop runs here; or its trio side has ended.
        BaseException: whatever the function raises, as itself.
    """
    check_function(function, "from_trio")
    link = _link_of_thread() or await Guest.here()
    call = _InTrio(link, partial(function, *args, **kwargs))
    return cast("_T", await call.outcome())


async def out_of_trio() -> None:
    """Be the first step of asyncio tasks that are made in trio's time.

    A loop with an eager task factory runs them at once, inside of the trio task that makes them.
    """
    if trio.lowlevel.in_trio_task():
        await asyncio.sleep(0)


def link_of_trio() -> Link:
    """Return the link of the trio run this is called in; start a loop if it has none.

    Raises:
        HostError: this is no trio task; or the loop was closed.
    """
    if not trio.lowlevel.in_trio_task():
        message = "this is no trio task: in asyncio, await the function as it is"
        raise HostError(message)
    try:
        link = LINK.get()
    except LookupError:
        return LoopThread()
    if link.loop.is_closed():
        message = "the asyncio loop of this run was closed: nothing can be awaited in it any more"
        raise HostError(message)
    return link


def _link_of_thread() -> Link | None:
    """Return the link of the running loop, if that runs in a thread of ours."""
    if trio.lowlevel.in_trio_task():
        message = "this is a trio task already: await the function as it is"
        raise HostError(message)
    try:
        return LOOP_THREADS.get(asyncio.get_running_loop())
    except RuntimeError:
        return None


def check_function(function: object, name: str) -> None:
    """Refuse what is no function; above all, what a call of one has returned.

    Raises:
        HostError: with what to write instead.
    """
    if asyncio.iscoroutine(function):
        function.close()  # or Python complains that nobody awaited it
    if asyncio.iscoroutine(function) or inspect.isasyncgen(function):
        message = f"write {name}(function, argument), and not {name}(function(argument))"
        raise HostError(message)
    if not callable(function):
        message = f"{name}() takes a function and its arguments, not {function!r:.80}"
        raise HostError(message)


@final
class _InAsyncio:
    """A call of an asyncio function, for which a trio task waits."""

    def __init__(self, link: Link, function: Callable[[], Awaitable[Any]]) -> None:
        self._link = link
        self._function = function
        self._context = contextvars.copy_context()
        self._waiting: Task = current_task()
        self._task: asyncio.Task[Any] | None = None  # the loop's side writes it
        self._is_cancelled = False
        self._raise_cancel: RaiseCancelT | None = None

    async def outcome(self) -> Any:
        self._link.to_asyncio(self._start)
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        task = cast("asyncio.Task[Any]", self._task)
        if not task.cancelled():
            return task.result()
        if self._raise_cancel is not None:
            self._raise_cancel()
        raise HostError(_CANCELLED)

    def _abort(self, raise_cancel: RaiseCancelT) -> Abort:
        self._raise_cancel = raise_cancel
        if self._link.loop.is_closed():
            return Abort.SUCCEEDED  # the task will never end
        self._link.to_asyncio(self._cancel)
        return Abort.FAILED

    def _start(self) -> None:
        task = self._link.loop.create_task(self._call(), context=self._context)
        self._task = task
        task.add_done_callback(self._done)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel("cancelled from trio")

    def _done(self, _task: asyncio.Task[Any]) -> None:
        self._link.to_trio(reschedule, self._waiting)

    async def _call(self) -> Any:
        await out_of_trio()
        returned = self._function()
        if not inspect.isawaitable(returned):
            raise HostError(_cannot_be_awaited(returned))
        return await returned


def _cannot_be_awaited(returned: object) -> str:
    if isinstance(returned, AsyncIterable):
        hint = "read it by `async with from_asyncio_iter(function, argument) as items:`"
    else:
        hint = "what is no asyncio function is called as it is"
    return f"from_asyncio() awaits what its function returns, but that is {returned!r:.80}; {hint}"


@final
class _InTrio:
    """A call of a trio function, for which an asyncio task waits."""

    def __init__(self, link: Link, function: partial[Awaitable[Any]]) -> None:
        self._link = link
        self._function = function
        self._scope = trio.CancelScope()
        self._value: Any = None
        self._error: BaseException | None = None
        self._ended: asyncio.Future[None] = link.loop.create_future()

    async def outcome(self) -> Any:
        self._link.start(self._run, name=f"from_trio({self._function.func!r})")
        try:
            await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self._link.to_trio(self._scope.cancel, "cancelled from asyncio")
            await settled(self._ended)
            raise
        error = self._error
        if isinstance(error, trio.Cancelled):
            raise self._link.why_ended()
        if error is not None:
            raise error
        return self._value

    async def _run(self) -> None:
        try:
            with self._scope:
                self._value = await self._function()
        except trio.Cancelled as exc:
            self._error = exc
            raise
        except BaseException as exc:  # noqa: BLE001  # raised on the asyncio side
            self._error = exc
        finally:
            self._link.to_asyncio(settle, self._ended)
