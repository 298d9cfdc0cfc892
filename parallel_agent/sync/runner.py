"""Runs from plain Python: the same trees, the same runner, the same events, and no event loop.

Order, acknowledgement and errors are those of `parallel_agent.Runner`. A run that is read event by
event runs on trio in a thread of its own, since its branches go on while the reader's body works;
one that is not, in the calling thread, if no loop runs there.

Blocks: leaving cancels what still runs and returns when every ``finally`` and the thread have
ended. Ctrl-C, in the main thread, cancels the tree; `KeyboardInterrupt` is raised when it has
cleaned up, and pressing it again changes nothing. Where asyncio or trio runs in the main thread,
Ctrl-C is theirs to handle.
"""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Awaitable, Callable
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Final, Literal, NoReturn, TypeVar, Unpack, cast, final

import trio

from parallel_agent.agent import Agent
from parallel_agent.errors import ReadError
from parallel_agent.options import OpenOptions, ResumeOptions
from parallel_agent.result import Result
from parallel_agent.run import OpenRun as TrioOpenRun
from parallel_agent.runner import HostRunner, RunnerOptions
from parallel_agent.sync.interrupts import INTERRUPTS, uninterrupted
from parallel_agent.sync.run import Run
from parallel_agent.sync.served import Served
from parallel_agent.sync.thread import TrioThread
from session.content import Content
from session.lease import UnfinishedRun

__all__ = ["OpenRun", "Runner", "SyncOptions", "open_sync", "run_sync"]

_T = TypeVar("_T")


@final
class OpenRun:
    """What `Runner.open` returns: ``with`` it."""

    def __init__(self, block: TrioOpenRun) -> None:
        """Made by `Runner.open`."""
        self._block = block
        self._served: Served | None = None

    @uninterrupted
    def __enter__(self) -> Run:
        if self._served is not None:
            message = "this run was opened already; call runner.open(...) again for another one"
            raise ReadError(message)
        INTERRUPTS.hold()
        try:
            served = self._served = Served(self._block)
            run = Run(served, served.open())
            # Should nobody leave the block: it is in a generator, say, that is never closed.
            atexit.register(served.leave, None)
        except BaseException:
            INTERRUPTS.let_go()
            raise
        return run

    @uninterrupted
    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> Literal[False]:
        served = self._served
        if served is None or served.run is None:
            return False
        failure = served.leave(error)
        atexit.unregister(served.leave)
        if INTERRUPTS.let_go() and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt
        if failure is not None:
            raise failure
        return False

    def __iter__(self) -> NoReturn:
        message = (
            "a run needs its block: `with runner.open(...) as run:` and, inside it, "
            "`for event in run:`"
        )
        raise ReadError(message)

    def __aiter__(self) -> NoReturn:
        self.__iter__()

    def __aenter__(self) -> NoReturn:
        message = "use `with runner.open(...) as run:`, not `async with`"
        raise ReadError(message)

    def __aexit__(self, *_details: object) -> None:
        """Never called; here so that `__aenter__` can say what is wrong."""


@final
class Runner(HostRunner):
    """Runs a tree of agents from plain Python, as often and as often at once as wanted.

    Takes the arguments of `parallel_agent.Runner`, and behaves as it does. It serves scripts,
    threads, notebooks, and plain functions that a running event loop calls; those keep the loop
    waiting, which `parallel_agent.Runner` and `parallel_agent.aio.Runner` do not.

    Raises: as `parallel_agent.Runner`.
    """

    def open(self, message: str | Content | None = None, **options: Unpack[OpenOptions]) -> OpenRun:
        """Return a block that runs the tree; inside it, the run is an iterator of events.

        ::

            with sync.Runner(tree).open("hello") as run:
                for event in run:
                    print(event.author, event.text)
            print(run.result.text)

        Takes the arguments of `parallel_agent.Runner.open`, and raises what it raises. Agents run
        in a thread of the block's own, with a copy of the caller's context variables: branches
        that do not wait for the reader go on while its body works.
        """
        return OpenRun(self._runner.open(message, **options))

    def run(self, message: str | Content | None = None, **options: Unpack[OpenOptions]) -> Result:
        """Run the tree to its end and return the result, as `parallel_agent.Runner.run` does.

        Agents run in the calling thread; where an event loop runs in that, in one of their own.

        Raises:
            BaseException: whatever made the run fail, as itself.
        """
        return _run(partial(self._runner.run, message, **options))

    def reopen(self, session_id: str, **options: Unpack[ResumeOptions]) -> OpenRun:
        """Return a block that goes on with the unfinished run of a session, as `open` does.

        Takes the arguments of `parallel_agent.Runner.reopen`, and raises what it raises.
        """
        return OpenRun(self._runner.reopen(session_id, **options))

    def resume(self, session_id: str, **options: Unpack[ResumeOptions]) -> Result:
        """Go on with the unfinished run of a session, to its end. Takes the arguments of `reopen`.

        Raises:
            BaseException: what `reopen` raises, or whatever made the run fail, as itself.
        """
        return _run(partial(self._runner.resume, session_id, **options))

    def unfinished(self, *, user_id: str | None = None) -> list[UnfinishedRun]:
        """Return the runs that can be resumed, as `parallel_agent.Runner.unfinished` does."""
        return _run(partial(self._runner.unfinished, user_id=user_id))

    def __repr__(self) -> str:
        return f"<sync.Runner {self.app_name}: {self.tree!r}>"


def _run(main: Callable[[], Awaitable[_T]]) -> _T:
    # Inside the block of another run, trio would leave Ctrl-C to that.
    if _is_loop_running() or INTERRUPTS.is_held:
        return _run_in_thread(main)
    return trio.run(main)


def _is_loop_running() -> bool:
    if trio.lowlevel.in_trio_run():
        return True
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@uninterrupted
def _run_in_thread(main: Callable[[], Awaitable[_T]]) -> _T:
    scope = trio.CancelScope()
    ended: SimpleQueue[None] = SimpleQueue()

    async def run() -> _T | None:
        try:
            with scope:
                return await main()
            return None
        finally:
            ended.put(None)

    thread = TrioThread(run, name="parallel_agent.sync run")
    INTERRUPTS.hold()
    try:
        thread.start()
        try:
            INTERRUPTS.wait(ended)
        finally:
            interrupt = thread.end(partial(scope.cancel, "interrupted"))
    finally:
        was_put_off = INTERRUPTS.let_go()
    failure = KeyboardInterrupt() if was_put_off else interrupt or thread.failure
    if failure is not None:
        raise failure
    return cast("_T", thread.value)


class SyncOptions(RunnerOptions, OpenOptions, total=False):
    """The keyword arguments of a `Runner`, and of its `Runner.open` and `Runner.run`."""


def run_sync(
    tree: Agent, message: str | Content | None = None, **options: Unpack[SyncOptions]
) -> Result:
    """Run a tree to its end and return the result: `Runner.run` of a `Runner` for this one run.

    Takes the arguments of both, and raises what they raise.
    """
    ours, of_the_run = _parted(options)
    return Runner(tree, **ours).run(message, **of_the_run)


def open_sync(
    tree: Agent, message: str | Content | None = None, **options: Unpack[SyncOptions]
) -> OpenRun:
    """Return a block that runs a tree: `Runner.open` of a `Runner` for this one run.

    ::

        with open_sync(tree, "hello") as run:
            for event in run:
                print(event.author, event.text)

    Takes the arguments of both, and raises what they raise.
    """
    ours, of_the_run = _parted(options)
    return Runner(tree, **ours).open(message, **of_the_run)


def _parted(options: SyncOptions) -> tuple[RunnerOptions, OpenOptions]:
    of_the_run = {name: value for name, value in options.items() if name in _OF_THE_RUN}
    ours = {name: value for name, value in options.items() if name not in _OF_THE_RUN}
    return cast("RunnerOptions", ours), cast("OpenOptions", of_the_run)


_OF_THE_RUN: Final = OpenOptions.__optional_keys__
