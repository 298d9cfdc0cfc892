"""Models at a server that nobody plays: llama.cpp's own, with a model that says nothing sensible.

The sockets are real, and so is time.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, Literal

import attrs
import httpx
import pytest
import trio

from parallel_agent import LoopAgent, ParallelAgent, Runner, Status
from parallel_agent.llm.agent import LlmAgent
from parallel_agent.llm.model import GenerationConfig, Model, ModelRequest, ModelResponse
from parallel_agent.model_errors import (
    CallLimitError,
    ModelAuthError,
    ModelContextError,
    ModelProtocolError,
    ModelRequestError,
    ModelUnavailableError,
)
from session.content import Content, FunctionResponse, Text
from session.event import USER
from tests.support.llamacpp import REQUIRED, Llamacpp, find_python, running_llamacpp
from tests.support.tiny_model import CALL, STOP, THOUGHT

pytest.importorskip("openai")

from parallel_agent.llm.openai_model import OpenAIModel

SHORT = GenerationConfig(max_tokens=20)
LONG = GenerationConfig()


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter that llama.cpp is installed for."""
    found = find_python()
    if found is None:
        why = "llama.cpp is not installed (make llamacpp)"
        assert os.environ.get(REQUIRED) != "1", why
        pytest.skip(why)
    return found


@pytest.fixture(scope="module")
def server(python: Path) -> Iterator[Llamacpp]:
    with running_llamacpp(python) as server:
        yield server


def tiny(server: Llamacpp, provider: str = "llamacpp") -> OpenAIModel:
    return OpenAIModel(f"{provider}/tiny", base_url=server.url, api_key=server.key)


def extra(config: GenerationConfig = SHORT, /, **fields: Any) -> GenerationConfig:
    return attrs.evolve(config, extra=fields)


def forced() -> GenerationConfig:
    """Have it call tools, one or several at once, and then stop."""
    biased = [[CALL, 100], [STOP, 110]]
    return extra(LONG, tool_choice="required", parallel_tool_calls=True, logit_bias=biased)


async def whole(model: Model, request: ModelRequest) -> ModelResponse:
    return [response async for response in model.generate(request)][-1]


@pytest.mark.parametrize("provider", ["llamacpp", "ollama", "vllm", "lmstudio", "openai"])
async def test_an_answer_comes_in_pieces_and_then_whole(server: Llamacpp, provider: str) -> None:
    agent = LlmAgent("writer", tiny(server, provider), "Be kind.", config=SHORT)
    async with Runner(agent).open("Hello!") as run:
        events = [event async for event in run]
    *pieces, last = events
    assert len(pieces) > 1
    assert all(piece.partial for piece in pieces)
    assert not last.partial
    assert "".join(piece.text for piece in pieces) == last.text
    assert last.other["finishReason"] == "length"
    assert last.other["modelVersion"] == "tiny"
    assert last.other["usageMetadata"]["candidatesTokenCount"] == 20
    assert last.other["usageMetadata"]["promptTokenCount"] > len("Be kind.Hello!")


async def test_it_stops_before_a_text_at_which_it_is_to_stop(server: Llamacpp) -> None:
    config = GenerationConfig(stop=('"', "x"), max_tokens=4_000)
    response = await whole(tiny(server), asked("Hello!", config))
    assert response.finish_reason == "stop"
    assert not {'"', "x"} & set(response.content.text)


async def test_a_seed_says_what_it_says(server: Llamacpp) -> None:
    """Nothing of an earlier question is kept: what is kept is read in other portions."""
    said = [
        (
            await whole(
                tiny(server),
                asked("Hello!", extra(attrs.evolve(SHORT, seed=seed), cache_prompt=False)),
            )
        ).content.text
        for seed in (1, 2, 1)
    ]
    assert said[0] == said[2] != said[1]


def asked(text: str, config: GenerationConfig = SHORT) -> ModelRequest:
    return ModelRequest(contents=(Content(text, role=USER),), config=config)


@pytest.mark.parametrize("schema", [None, Literal["a word"]])
async def test_an_agent_can_speak_several_times_in_a_row(server: Llamacpp, schema: Any) -> None:
    """A last word that is the model's own is refused, or written on at."""
    config = GenerationConfig(max_tokens=100, seed=1)
    agent = LlmAgent("writer", tiny(server), config=config, output_schema=schema)
    async with Runner(LoopAgent("rounds", [agent], max_iterations=3)).open("Hello!") as run:
        said = [event async for event in run if event.author == "writer" and not event.partial]
    assert len(said) == 3


@attrs.frozen
class Report:
    city: Literal["Oslo", "Roma", "Kraków 🙂"]
    rain: bool
    degrees: int
    words: Literal["wet", "dry"]  # a text of its own might hold what no file can
    days: list[Literal["today", "tomorrow"]]


async def test_even_a_model_that_understands_nothing_answers_what_fits(server: Llamacpp) -> None:
    """The server lets it say only what the schema allows."""
    agent = LlmAgent(
        "reporter",
        tiny(server),
        output_schema=Report,
        repairs=0,
    )
    for _ in range(3):
        result = await Runner(agent).run("The weather?")
        assert agent.output_schema is not None
        assert isinstance(agent.output_schema.structure(result.output), Report)


async def test_letters_that_come_in_pieces_are_put_together(server: Llamacpp) -> None:
    """A token of this model's is a byte of a letter that is not ASCII's."""
    agent = LlmAgent("speller", tiny(server), output_schema=Literal["Kraków 🙂"], repairs=0)
    assert (await Runner(agent).run("Spell!")).output == "Kraków 🙂"


async def test_thoughts_come_apart_from_the_answer(server: Llamacpp) -> None:
    config = extra(
        GenerationConfig(max_tokens=200, seed=5),
        chat_template_kwargs={"enable_thinking": True},
        reasoning_format="deepseek",
        logit_bias=[[THOUGHT, 25]],
    )
    response = await whole(tiny(server), asked("Think!", config))
    thought, said = response.content.parts
    assert isinstance(thought, Text)
    assert isinstance(said, Text)
    assert (thought.thought, said.thought) == (True, False)
    assert THOUGHT not in thought.text


# Tools.

DAYS = Literal["today", "tomorrow"]


@attrs.define
class Weather:
    """A tool, and what it was asked."""

    calls: list[tuple[str, int]] = attrs.field(factory=list[tuple[str, int]])

    async def look(self, day: DAYS, hour: int) -> str:
        """Look up the weather.

        Args:
            day: which day.
            hour: which hour of it.
        """
        await trio.lowlevel.checkpoint()
        assert day in ("today", "tomorrow")
        self.calls.append((day, hour))
        return f"rain at {hour} o'clock {day}"


class ForcedOnce(Model):
    """Has a model call tools until they have answered."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def name(self) -> str:
        return self._model.name

    def generate(self, request: ModelRequest) -> AsyncGenerator[ModelResponse, None]:
        last = request.contents[-1].parts[-1]
        if not isinstance(last, FunctionResponse):
            request = attrs.evolve(request, config=attrs.evolve(forced(), seed=3))
        return self._model.generate(request)


async def test_its_calls_are_made_and_the_answers_sent_back(server: Llamacpp) -> None:
    weather = Weather()
    agent = LlmAgent("w", ForcedOnce(tiny(server)), tools=[weather.look], config=SHORT)
    async with Runner(agent).open("The weather?") as run:
        events = [event async for event in run if not event.partial]
    wants, answers, last = events
    made = [(call.args["day"], call.args["hour"]) for call in wants.function_calls]
    assert sorted(made) == sorted(weather.calls)  # made side by side
    assert wants.other["finishReason"] == "tool_calls"
    assert [answer.response for answer in answers.function_responses] == [
        {"result": f"rain at {hour} o'clock {day}"} for day, hour in made
    ]
    assert len(last.text) > 0


async def test_a_model_that_always_wants_a_tool_comes_to_its_limit(server: Llamacpp) -> None:
    """Each turn sends all calls before it, and their answers, which the server must take."""
    weather = Weather()
    agent = LlmAgent("w", tiny(server), tools=[weather.look], max_turns=3, config=forced())
    with pytest.raises(CallLimitError):
        await Runner(agent).run("The weather?")
    assert len(weather.calls) >= 3


# What goes wrong.


async def test_what_is_too_long_for_it_is_a_context_error(server: Llamacpp) -> None:
    with pytest.raises(ModelContextError, match="exceeds the available context size") as caught:
        await whole(tiny(server), asked("x" * server.context))
    assert caught.value.status == 400


async def test_a_key_that_it_does_not_know_is_an_auth_error(server: Llamacpp) -> None:
    stranger = OpenAIModel("llamacpp/tiny", base_url=server.url, api_key="guessed")
    with pytest.raises(ModelAuthError) as caught:
        await whole(stranger, asked("Hello!"))
    assert caught.value.status == 401


async def test_what_it_cannot_make_sense_of_is_a_request_error(server: Llamacpp) -> None:
    with pytest.raises(ModelRequestError, match="temperature") as caught:
        await whole(tiny(server), asked("Hello!", extra(temperature="hot")))
    assert type(caught.value) is ModelRequestError


async def test_an_address_that_is_not_its_own_is_a_request_error(server: Llamacpp) -> None:
    lost = OpenAIModel("llamacpp/tiny", base_url=f"{server.root}/v7", api_key=server.key)
    with pytest.raises(ModelRequestError) as caught:
        await whole(lost, asked("Hello!"))
    assert caught.value.status == 404


async def test_a_call_that_there_was_no_room_for_is_no_call(server: Llamacpp) -> None:
    weather = Weather()
    config = attrs.evolve(forced(), max_tokens=35, seed=1)
    agent = LlmAgent("w", tiny(server), tools=[weather.look], config=config)
    with pytest.raises(ModelProtocolError, match="no room for all of its call of 'look'"):
        await Runner(agent).run("The weather?")
    assert weather.calls == []


async def test_a_server_that_dies_in_the_middle_of_an_answer_is_a_typed_error(
    python: Path,
) -> None:
    with running_llamacpp(python, slots=1) as mortal:
        responses = tiny(mortal).generate(asked("Hello!", LONG))
        assert (await anext(responses)).partial
        mortal.kill()
        with pytest.raises(ModelUnavailableError):
            async for _ in responses:
                pass
        with pytest.raises(ModelUnavailableError):
            await whole(tiny(mortal), asked("Hello!"))


async def test_an_answer_that_fills_the_context_is_cut_there(python: Path) -> None:
    with running_llamacpp(python, slots=1, context=256) as narrow:
        response = await whole(tiny(narrow), asked("Hello!", LONG))
    assert response.finish_reason == "length"
    assert response.usage is not None
    assert response.usage.input_tokens + response.usage.output_tokens == 256


# Several at once.


async def busy(server: Llamacpp) -> int:
    """How many answers it is making."""
    headers = {"Authorization": f"Bearer {server.key}"}
    async with httpx.AsyncClient(headers=headers) as client:
        slots = (await client.get(f"{server.root}/slots")).json()
    return sum(slot["is_processing"] for slot in slots)


async def test_calls_that_are_cancelled_leave_room_for_others(server: Llamacpp) -> None:
    """They take all the room there is, and would take it for ten seconds and more."""
    names = [f"w{number}" for number in range(server.slots)]
    tree = ParallelAgent("all", [LlmAgent(name, tiny(server)) for name in names])
    async with Runner(tree).open("Talk!") as run:
        speakers = set[str]()
        while len(speakers) < server.slots:
            event = await run.wait_for(lambda event: event.author not in speakers)
            speakers.add(event.author)
        assert await busy(server) == server.slots
        run.cancel()
    assert run.result.status is Status.CANCELLED
    with trio.fail_after(5):
        assert (await whole(tiny(server), asked("Hello!"))).finish_reason == "length"
        while await busy(server):
            pass


async def test_twenty_agents_are_answered_at_once(server: Llamacpp) -> None:
    """Most of them wait: it makes four answers at a time."""
    model = tiny(server)
    names = [f"w{number}" for number in range(20)]
    tree = ParallelAgent("all", [LlmAgent(name, model, config=SHORT) for name in names])
    async with Runner(tree).open("Hello!") as run:
        events = [event async for event in run if not event.partial]
    said = {event.author: event for event in events if event.content is not None}
    assert set(names) <= set(said)
    assert all(said[name].other["finishReason"] == "length" for name in names)
