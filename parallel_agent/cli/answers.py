"""Answers to what agents ask: given with the command, or by the person at the terminal.

An answer that was given is used once, for the first question it names: by its id, or by one of the
other names it has (see `PendingRequest`). Who is at a terminal is asked what nobody has
answered, one question at a time, while the other agents go on. Otherwise nothing waits: the run
ends as ``waiting``, and says how to answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast, final

import trio

from parallel_agent.errors import ResponseRefusedError
from parallel_agent.observe.harmless import harmless, one_line
from parallel_agent.post import listed
from parallel_agent.questions import PendingRequest
from parallel_agent.run import Run

__all__ = ["Answers", "ReadLine", "described", "how_to_answer", "unused_answer", "value_of"]

ReadLine = Callable[[], str]
"""Reads a line from a person; blocks. ``""`` is the end of all lines."""


@final
class Answers:
    """Who answers the questions of one run.

    Args:
        given: pairs of what names a question, and the answer as text.
        read: reads what a person types; None if there is nobody.
        remark: prints a line for that person.
        aside: a block during which nothing else is drawn.

    Attributes:
        given: those that no question has used.
    """

    def __init__(
        self,
        given: Sequence[tuple[str, str]],
        read: ReadLine | None,
        remark: Callable[[str], None],
        aside: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """See the class."""
        self.given = list(given)
        self._read = read
        self._remark = remark
        self._aside = aside
        self._turn = trio.Lock()

    @property
    def has_person(self) -> bool:
        """Whether somebody is there to be asked."""
        return self._read is not None

    @property
    def unused(self) -> list[str]:
        """What names the answers that no question has asked for."""
        return [name for name, _ in self.given]

    async def from_command(self, run: Run, request: PendingRequest) -> bool:
        """Answer with what was given, if something was; return whether."""
        while (found := self.take((request.id, *request.names))) is not None:
            name, text = found
            try:
                await run.respond(request.id, value_of(text))
            except ResponseRefusedError as error:
                self._remark(f"--respond {one_line(name)}: {one_line(str(error))}")
            else:
                return True
        return False

    def take(self, names: Collection[str]) -> tuple[str, str] | None:
        """Take the first answer to one of ``names``: the name it gave, and the text."""
        for position, (name, _) in enumerate(self.given):
            if name in names:
                return self.given.pop(position)
        return None

    async def from_person(self, run: Run, request: PendingRequest) -> None:
        """Ask the person, until the answer fits."""
        read = self._read
        if read is None:
            return
        async with self._turn:
            while any(request.id == other.id for other in run.pending):
                with self._aside():
                    self._remark(described(request))
                    line = await trio.to_thread.run_sync(read, abandon_on_cancel=True)
                if not line:
                    self._remark("no more answers can be read")
                    run.cancel("nobody is there to answer")
                    return
                try:
                    await run.respond(request.id, value_of(line.strip()))
                except ResponseRefusedError as error:
                    self._remark(one_line(str(error)))


def value_of(text: str) -> Any:
    """Return what an answer stands for: JSON if it is JSON, ``yes`` and ``no``, else text."""
    words = {"yes": True, "y": True, "no": False, "n": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def described(request: PendingRequest) -> str:
    """Return the question as a person is asked it."""
    wanted = _wanted(request.schema)
    hint = f" ({wanted})" if wanted else ""
    return f"{one_line(request.path)} asks: {harmless(request.prompt)}{hint}"


def _wanted(schema: Any) -> str:
    if not isinstance(schema, Mapping):
        return ""
    fields = cast("Mapping[str, Any]", schema)
    choices = fields.get("enum")
    if isinstance(choices, list):
        return one_line(" or ".join(map(str, cast("list[object]", choices))))
    kind = fields.get("type")
    words = {
        "boolean": "yes or no",
        "integer": "a whole number",
        "number": "a number",
        "array": "a JSON list",
        "object": "a JSON object",
    }
    return words.get(kind, "") if isinstance(kind, str) else ""


def how_to_answer(request: PendingRequest, command: Callable[[str], str] | None = None) -> str:
    """Return how a question can be answered by the next command.

    ``command`` returns that command, for the question's name. Without it, nothing was kept, and
    the run is to begin anew.
    """
    short = one_line(_short(request.id))
    how = f"--respond '{short}=...'" if command is None else command(short)
    before = "" if request.problem is None else f" (not {one_line(request.problem)})"
    return f"{described(request)}{before}: {how}"


def unused_answer(name: str, asked: Sequence[str]) -> str:
    """Return that nobody asked for an answer; ``asked`` are the ids of the questions there were."""
    names = [repr(one_line(_short(request_id))) for request_id in asked]
    there = f"the questions were {listed(names)}" if names else "there was no question"
    return f"--respond {one_line(name)}: no question has used it ({there})"


def _short(request_id: str) -> str:
    return request_id.partition(":")[2]
