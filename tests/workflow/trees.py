"""What the tests of workflow agents share: scripted leaves, and ways to run a tree on virtual time.

Everything here is proved on a known-bad case in ``test_trees.py``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeAlias

import attrs
import trio

from parallel_agent import (
    Agent,
    Event,
    EventActions,
    InvocationContext,
    Outcome,
    Result,
    Run,
    Runner,
    agent,
)
from tests.kernel.scripted import Diary, Yields, run_virtual, texts

__all__ = [
    "Diary",
    "Ended",
    "Escalate",
    "Script",
    "Yields",
    "leaf",
    "leaves",
    "open_and_read",
    "paths",
    "run_tree",
    "run_virtual",
    "texts",
    "walk",
]


@attrs.frozen
class Escalate:
    """A step of a script: emit an escalating event with this text."""

    text: str = "stop"

    def event(self) -> Event:
        return Event(self.text, actions=EventActions(escalate=True))


Script: TypeAlias = (
    "str | int | float | Escalate | BaseException | Callable[[InvocationContext], Any]"
)
"""One step of a scripted agent.

Text is emitted, a number is slept (in virtual seconds), an exception is raised, a function is
called with the context (and its result awaited, if it can be).
"""


def leaf(name: str, *steps: Script, diary: Diary | None = None, **options: Any) -> Agent:
    """Return an agent that does as it is told; ``diary`` gets a line when it starts and ends."""
    entries: Diary = [] if diary is None else diary

    @agent(name=name, **options)
    async def play(ctx: InvocationContext) -> Yields:
        entries.append(f"{name} starts")
        try:
            for step in steps:
                match step:
                    case str():
                        yield step
                    case Escalate():
                        yield step.event()
                    case int() | float():
                        await trio.sleep(step)
                    case BaseException():
                        raise step
                    case _:
                        result = step(ctx)
                        if isinstance(result, Awaitable):
                            await result
        finally:
            entries.append(f"{name} ends")

    return play


def leaves(names: str, *steps: Script, diary: Diary | None = None) -> list[Agent]:
    """Return one leaf for each of the space-separated names, all with the same script."""
    return [leaf(name, *steps, diary=diary) for name in names.split()]


def paths(events: Sequence[Event]) -> list[str]:
    """Return the paths of the events that have a text."""
    return [event.path for event in events if event.text]


def walk(tree: Agent) -> Iterator[Agent]:
    """Every agent of a tree, parents first, by nothing but ``sub_agents``."""
    todo = [tree]
    while todo:
        found = todo.pop()
        yield found
        todo.extend(reversed(found.sub_agents))


@attrs.frozen(eq=False)
class Ended:
    """A run that has ended, and what it raised, if it did."""

    run: Run
    delivered: list[Event]
    error: BaseException | None
    time: float

    @property
    def result(self) -> Result:
        return self.run.result

    def outcomes(self, name: str) -> dict[str, str]:
        """The status of each branch of the fan-out ``name``."""
        return {outcome.name: str(outcome.status) for outcome in self.run.outcomes(name)}

    def outcome(self, name: str, branch: str) -> Outcome:
        (found,) = (outcome for outcome in self.run.outcomes(name) if outcome.name == branch)
        return found

    @property
    def notes(self) -> list[str]:
        return list(getattr(self.error, "__notes__", ()))


async def open_and_read(
    tree: Agent | Runner,
    *,
    pause: float = 0,
    message: str = "hi",
    **options: Any,
) -> Ended:
    """Run a tree to its end and return what happened, failures too.

    ``pause`` is how long (in virtual seconds) the reader takes over each event.
    """
    runner = tree if isinstance(tree, Runner) else Runner(tree)
    delivered: list[Event] = []
    error: BaseException | None = None
    began = trio.current_time()
    async with runner.open(message, **options) as run:
        try:
            async for event in run:
                delivered.append(event)
                if pause:
                    await trio.sleep(pause)
        except (Exception, BaseExceptionGroup) as exc:  # noqa: BLE001  # handed to the test
            error = exc
    return Ended(run, delivered, error, trio.current_time() - began)


def run_tree(tree: Agent | Runner, *, pause: float = 0, **options: Any) -> Ended:
    """`open_and_read` on virtual time, for tests that are no coroutines."""

    async def main() -> Ended:
        return await open_and_read(tree, pause=pause, **options)

    return run_virtual(main)
