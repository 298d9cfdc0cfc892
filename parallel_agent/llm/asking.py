"""One question to a model: callbacks around it, limits, and another try when it fails.

Order: the runner's plugins and the agent's callbacks see the request, then the model is asked; its
pieces are emitted as they come, and the whole passes the callbacks again. Errors: the model's, as
it was raised, when nothing is left to try.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import final

import attrs

from parallel_agent.activation import Activation
from parallel_agent.attempts import pause
from parallel_agent.context import InvocationContext, activation_of
from parallel_agent.errors import RunEndedError
from parallel_agent.llm.callbacks import Callbacks
from parallel_agent.llm.model import Model, ModelRequest, ModelResponse
from parallel_agent.model_errors import CallLimitError, ModelArgumentsError, ModelProtocolError
from parallel_agent.retry import Retry
from session.event import Event

__all__ = ["Asker"]


@final
@attrs.frozen(eq=False)
class Asker:
    """Asks the model of one activation.

    Attributes:
        ctx: the activation's.
        model: what is asked.
        callbacks: what is called before and after.
        retry: how it is asked again when it fails; None if it is not.
        streams: whether its pieces are emitted as they come.
    """

    ctx: InvocationContext
    model: Model
    callbacks: Callbacks
    retry: Retry | None = None
    streams: bool = True

    async def ask(self, request: ModelRequest) -> ModelResponse:
        """Return the whole response."""
        asked = await self.callbacks.ask_before_model(self.ctx, request)
        if isinstance(asked, ModelRequest):
            asked = await self._tried(asked)
        return await self.callbacks.ask_after_model(self.ctx, asked)

    async def _tried(self, request: ModelRequest) -> ModelResponse:
        activation, retry, attempt = activation_of(self.ctx), self.retry, 1
        while True:
            self._count(activation)
            try:
                return await self._streamed(request)
            except Exception as exc:
                if retry is None or isinstance(exc, RunEndedError | ModelArgumentsError):
                    raise
                if attempt == retry.max_attempts:
                    activation.given_up = exc
                    raise
                if not retry.wants(exc):
                    raise
                seconds = retry.delay(attempt, activation.invocation.random, exc)
            attempt += 1
            await pause(activation, seconds)

    def _count(self, activation: Activation) -> None:
        invocation = activation.invocation
        most = invocation.config.max_llm_calls
        if invocation.llm_calls == most:
            message = (
                f"agent {self.ctx.agent.name!r} was to ask {self.model.name}, and models have been "
                f"asked {most} times in this run; RunConfig(max_llm_calls=...) allows more"
            )
            raise CallLimitError(message)
        invocation.llm_calls += 1

    async def _streamed(self, request: ModelRequest) -> ModelResponse:
        """Return the whole response; emit its pieces as they come."""
        emit, streams = self.ctx.emit, self.streams
        async with aclosing(self.model.generate(request)) as responses:
            async for response in responses:
                if not response.partial:
                    return response
                if streams:
                    await emit(Event(response.content, partial=True))
        message = "it ended without a whole answer"
        raise ModelProtocolError(message, model=self.model.name)
