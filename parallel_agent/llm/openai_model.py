"""Models at servers that speak OpenAI's chat completions, through the official ``openai`` SDK.

OpenAI itself, Ollama, vLLM, the server of llama.cpp, LM Studio and many more. Needs the extra
``openai``. The SDK runs natively on trio; a call that is cancelled closes its connection.

Nothing is tried again here: that is for an agent's `Retry`, which knows what it has emitted.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from http import HTTPStatus
from typing import Any, Final, cast, final
from urllib.parse import urlsplit

import attrs
import trio

try:
    import openai
except ImportError as error:
    _message = (
        f"models at a server need {error.name}, which is not installed: "
        "pip install 'parallel-agent[openai]'"
    )
    raise ImportError(_message, name=error.name) from error

from parallel_agent.llm.chat import Assembly, body_of
from parallel_agent.llm.model import Model, ModelRequest, ModelResponse
from parallel_agent.llm.sse import EventReader
from parallel_agent.model_errors import (
    ModelAuthError,
    ModelContextError,
    ModelDefinitionError,
    ModelError,
    ModelProtocolError,
    ModelRateLimitError,
    ModelRequestError,
    ModelUnavailableError,
)

__all__ = ["PROVIDERS", "OpenAIModel", "Provider"]


@attrs.frozen
class Provider:
    """A kind of server: where it is, and which variables of the environment say otherwise.

    Attributes:
        base_url: where it is if nobody says otherwise.
        variable: ``{variable}_BASE_URL`` and ``{variable}_API_KEY`` say so.
        needs_key: it wants to know who asks.
        most: the name of the field that limits the answer.
    """

    base_url: str
    variable: str
    needs_key: bool = False
    most: str = "max_tokens"


PROVIDERS: Final[Mapping[str, Provider]] = {
    "openai": Provider(
        "https://api.openai.com/v1", "OPENAI", needs_key=True, most="max_completion_tokens"
    ),
    "ollama": Provider("http://localhost:11434/v1", "OLLAMA"),
    "vllm": Provider("http://localhost:8000/v1", "VLLM"),
    "llamacpp": Provider("http://localhost:8080/v1", "LLAMACPP"),
    "lmstudio": Provider("http://localhost:1234/v1", "LMSTUDIO"),
}
"""What stands before the slash of a model's name: ``ollama/qwen2.5:7b``."""

_DONE: Final = "[DONE]"

_PATIENCE: Final = 0.5
"""Seconds in which a server that has said all is to end its answer."""

_LONGEST: Final = 500
"""How much of an error is told, in letters."""

_TOO_LONG: Final = re.compile(
    r"context.?(length|window|size)|maximum context|too many tokens|prompt is too long",
    re.IGNORECASE,
)


@final
class OpenAIModel(Model):
    """A model at a server that speaks chat completions.

    Args:
        model: ``provider/name``, as in ``ollama/qwen2.5:7b``; of ``openai``, the name will do.
        base_url: where the server is; by default what the provider's variable says, or its usual
            place.
        api_key: who asks; by default what the provider's variable says. It is never shown.
        timeout: seconds that may pass without anything coming. More than a thousand calls at a
            time wait for each other, as long as it takes.
        headers: what is sent with each call.

    Raises:
        ModelDefinitionError: an argument is not what it must be, or nobody knows the provider.
        ModelAuthError: the provider wants a key, and there is none.

    A connection is kept for later calls, one pool for each run of trio, and closed at its end.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 120.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """See the class."""
        self._provider, self._called = _provider_of(model, base_url)
        self._name = model
        variable = self._provider.variable
        place = base_url or os.environ.get(f"{variable}_BASE_URL") or self._provider.base_url
        if urlsplit(place).scheme not in ("http", "https") or not urlsplit(place).hostname:
            message = f"the address of {model!r} begins with http:// or https://, not {place!r:.80}"
            raise ModelDefinitionError(message)
        if type(timeout) not in (int, float) or not 0 < timeout < math.inf:
            message = f"timeout of {model!r} is seconds, more than 0, not {timeout!r:.80}"
            raise ModelDefinitionError(message)
        self._base_url: str = place
        key = api_key or os.environ.get(f"{variable}_API_KEY")
        if not key and self._provider.needs_key and base_url is None:
            message = f"no key: set {variable}_API_KEY, or pass api_key"
            raise ModelAuthError(message, model=model)
        self._key = key or "none"
        self._timeout = timeout
        self._headers = dict(headers or {})
        self._client: trio.lowlevel.RunVar[openai.AsyncOpenAI] = trio.lowlevel.RunVar("client")

    @property
    def name(self) -> str:
        """See `Model.name`."""
        return self._name

    @property
    def base_url(self) -> str:
        """Where the server is."""
        return self._base_url

    async def generate(self, request: ModelRequest) -> AsyncGenerator[ModelResponse, None]:
        """See `Model.generate`."""
        assembly, reader, is_done = Assembly(self._name), EventReader(), False

        def pieces(told: Iterable[str]) -> Iterator[ModelResponse]:
            nonlocal is_done
            for data in told:
                is_done = is_done or data.startswith(_DONE)
                piece = None if is_done else assembly.add(self._read(data))
                if piece is not None:
                    yield piece

        body = body_of(request, self._called, most=self._provider.most)
        body |= {"stream": True, "stream_options": {"include_usage": True}, **request.config.extra}
        try:
            # Not `chat.completions.create`: the objects it makes of each piece take more time than
            # all else together, and hide what a server has sent that is no piece of an answer.
            # Nor its way to read events: it leaves generators to the garbage collector, of which
            # trio warns.
            stream = await self._open().post(
                "/chat/completions",
                cast_to=object,
                body=body,
                stream=True,
                stream_cls=openai.AsyncStream[object],
            )
            async with stream:
                answer = stream.response.aiter_bytes()
                try:
                    async for received in answer:
                        for piece in pieces(reader.feed(received)):
                            yield piece
                        if is_done:
                            break
                    for piece in pieces(reader.end()):
                        yield piece
                finally:
                    await _read_up(answer, patience=_PATIENCE if is_done else 0)
        except (ModelError, trio.Cancelled, GeneratorExit):
            raise
        except Exception as exc:
            raise self._told(exc) from exc
        yield self._whole(assembly)

    def _whole(self, assembly: Assembly) -> ModelResponse:
        if assembly.is_empty:
            message = (
                f"what came is no stream of pieces; does {self._base_url} speak chat completions?"
            )
            raise ModelProtocolError(message, model=self._name)
        return assembly.whole()

    def _read(self, data: str) -> Any:
        """Return a piece.

        Raises:
            ModelError: the server has sent an error in its place.
        """
        piece: Any = json.loads(data)
        has_error = isinstance(piece, dict) and "error" in piece
        told: Any = cast("dict[str, Any]", piece)["error"] if has_error else None
        if not told:
            return cast("Any", piece)
        fields = cast("dict[str, Any]", told) if isinstance(told, dict) else {"message": told}
        code = fields.get("code") or fields.get("type")
        status = code if type(code) is int else None
        raise self._error(f"{fields.get('message') or fields}", status=status, code=f"{code}")

    def _open(self) -> openai.AsyncOpenAI:
        """Return the client of this run of trio."""
        with suppress(LookupError):
            return self._client.get()
        client = openai.AsyncOpenAI(
            base_url=self._base_url,
            api_key=self._key,
            # To wait for a free connection is no fault of the server's.
            timeout=openai.Timeout(self._timeout, pool=None),
            max_retries=0,
            default_headers=self._headers,
        )
        self._client.set(client)
        # It lives as long as the run: a task of the system's closes it when all others have ended.
        trio.lowlevel.spawn_system_task(_close_at_the_end, client)
        return client

    def _told(self, error: Exception) -> ModelError:
        """Return what has happened, as an error of ours."""
        body: object = getattr(error, "body", None)
        told = body if isinstance(body, str) else getattr(error, "message", "")
        said = f"{told or error}"
        if isinstance(error, openai.APIStatusError):
            after = _retry_after(error.response.headers)
            return self._error(said, status=error.status_code, code=f"{error.code}", after=after)
        if isinstance(error, openai.APIConnectionError) or _is_of_transport(error):
            said = (
                f"{said or type(error).__name__} ({self._base_url}: is the server running there? "
                f"{self._provider.variable}_BASE_URL, or base_url, says where it is)"
            )
            return ModelUnavailableError(said, model=self._name)
        return ModelProtocolError(f"{type(error).__name__}: {said:.{_LONGEST}}", model=self._name)

    def _error(
        self, said: str, *, status: int | None, code: str, after: float | None = None
    ) -> ModelError:
        """Return what a server has said, by its status and its code, if it has given any."""
        name, said = self._name, said[:_LONGEST]  # the page of a proxy is long, and says little
        if status == HTTPStatus.NOT_FOUND:
            said = f"{said} ({self._base_url})"
        if status == HTTPStatus.TOO_MANY_REQUESTS or "rate_limit" in code:
            return ModelRateLimitError(said, model=name, status=status, retry_after=after)
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return ModelAuthError(said, model=name, status=status)
        is_its_own = status == HTTPStatus.INTERNAL_SERVER_ERROR
        if code == "context_length_exceeded" or (not is_its_own and _TOO_LONG.search(said)):
            return ModelContextError(said, model=name, status=status)
        is_ours = status is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR
        if is_ours or code == "invalid_request_error":
            return ModelRequestError(said, model=name, status=status)
        return ModelUnavailableError(said, model=name, status=status)

    def __repr__(self) -> str:
        return f"<OpenAIModel {self._name} at {self._base_url}>"


def _is_of_transport(error: Exception) -> bool:
    """Return whether a connection has broken. By name: whose it is depends on the SDK's release."""
    return any(kind.__name__ == "TransportError" for kind in type(error).__mro__)


async def _close_at_the_end(client: openai.AsyncOpenAI) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await client.close()


def _provider_of(model: str, base_url: str | None) -> tuple[Provider, str]:
    """Return the kind of server, and what it calls the model."""
    if not isinstance(model, str) or not model or any(map(str.isspace, model)):
        message = f"the name of a model is 'provider/name', without spaces, not {model!r:.80}"
        raise ModelDefinitionError(message)
    prefix, slash, name = model.partition("/")
    if slash and prefix in PROVIDERS:
        return PROVIDERS[prefix], name
    # With an address it is the server's own name for it, as in meta-llama/llama-3.
    if slash and base_url is None:
        near = get_close_matches(prefix.lower(), PROVIDERS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        message = (
            f"no kind of server is called {prefix!r}; there are {', '.join(PROVIDERS)}{hint} "
            "For another one that speaks chat completions, pass OpenAIModel(name, base_url=...)"
        )
        raise ModelDefinitionError(message)
    return PROVIDERS["openai"], model


async def _read_up(body: AsyncIterator[bytes], *, patience: float) -> None:
    """Read a body to its end, if that comes soon; or else end it.

    What reads it is made of generators that wait inside each other. A cancellation ends them all
    from within; closing the outermost would leave the others to the garbage collector. And a body
    that was read to its end leaves its connection to the next call.
    """
    with suppress(Exception), trio.move_on_after(patience):
        async for _ in body:
            pass


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a server asks for; a date is none that we could tell without a clock."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(ValueError):
            if name in headers:
                seconds = float(headers[name]) * unit
                return seconds if 0 <= seconds < math.inf else None
    return None
