"""A model that answers as it is told, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, TypeAlias, final

import trio

from parallel_agent.llm.model import Model, ModelRequest, ModelResponse
from session.content import Content, FunctionCall, Part, Text

__all__ = ["Answer", "ScriptedModel"]

Answer: TypeAlias = (
    str
    | FunctionCall
    | Exception
    | ModelResponse
    | Sequence["str | FunctionCall | float"]
    | Callable[[ModelRequest], Any]
)
"""What a scripted model does when it is asked once.

It says a text; wants a tool called; fails. Or, of a list, it says the texts piece by piece, wants
several tools called, and sleeps for the numbers, in seconds. Or it does what a function of the
request returns, which is one of these.
"""


@final
class ScriptedModel(Model):
    """Answers in the order of its script, whoever asks.

    Args:
        answers: see `Answer`. Asked once more, it fails with an AssertionError that says so. Or a
            function of the request, which is asked each time: for agents that run side by side,
            again and again, or in another process, and for `explore`.
        name: what it is called.

    Attributes:
        requests: what it was asked, in order.
    """

    def __init__(
        self,
        answers: Iterable[Answer] | Callable[[ModelRequest], Answer],
        *,
        name: str = "scripted",
    ) -> None:
        """See the class."""
        if isinstance(answers, str):
            message = f"answers is a list of answers, or a function, not {answers!r:.80}"
            raise TypeError(message)
        self._answers: Iterator[Any]
        self._answers = repeat(answers) if callable(answers) else iter(list(answers))
        self._name = name
        self.requests: list[ModelRequest] = []

    @property
    def name(self) -> str:
        """See `Model.name`."""
        return self._name

    async def generate(self, request: ModelRequest) -> AsyncGenerator[ModelResponse, None]:
        """See `Model.generate`."""
        self.requests.append(request)
        await trio.lowlevel.checkpoint()
        answer: Any = next(self._answers, None)
        if answer is None:
            message = f"model {self._name!r} has no answer to request {len(self.requests)}"
            raise AssertionError(message)
        if callable(answer):
            answer = answer(request)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, ModelResponse):
            yield answer
            return
        pieces: list[str | FunctionCall | float]
        pieces = [answer] if isinstance(answer, str | FunctionCall) else list(answer)
        said: list[Part] = []
        for piece in pieces:
            if isinstance(piece, int | float):
                await trio.sleep(piece)
                continue
            part = Text(piece) if isinstance(piece, str) else piece
            if isinstance(part, Text) and len(pieces) > 1:
                yield ModelResponse(content=Content(part), partial=True)
            said.append(part)
        yield whole(said)


def whole(parts: Sequence[Part]) -> ModelResponse:
    """Return the response that says all parts; texts beside each other become one."""
    merged: list[Part] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, Text) and isinstance(last, Text):
            merged[-1] = Text(last.text + part.text)
        else:
            merged.append(part)
    calls = any(isinstance(part, FunctionCall) for part in merged)
    return ModelResponse(
        content=Content(tuple(merged)), finish_reason="tool_calls" if calls else "stop"
    )
