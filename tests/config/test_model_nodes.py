"""Nodes that models answer: what each is asked, exactly, and what becomes of its answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from parallel_agent import InvocationContext, Refusal
from parallel_agent.config import ConfigError, check_graph, load_graph
from parallel_agent.config.asking import schema_of
from parallel_agent.config.format import ModelEntry
from parallel_agent.config.models import SPOKEN_TO, file_models
from parallel_agent.config.prompts import PlaceholderError
from parallel_agent.config.source import Source
from parallel_agent.model_errors import MissingExtraError, ModelAuthError, ModelOutputError
from parallel_agent.testing.scripted_model import ScriptedModel
from tests.config.asking import a_file, asked, request, run, said, sent, wanting
from tests.config.writing import FILES, OPTIONS, load, refused, write
from tests.support.chat_server import chunk, serving, streams

# ---------------------------------------------------------------------------------- what is asked


async def test_a_prompt_is_the_instruction_and_what_the_user_says(tmp_path: Path) -> None:
    node = """\
        prompt: {template: 0, user_message: true}
        temperature: 0.25
        max_tokens: 60
    """
    text = a_file(node, role="You are kind.", prompt="{q: '{user_message}'}")
    requests, result = await asked(tmp_path, text, "good day")
    role = said("You are kind.", "role")
    assert requests == [request(said("hello"), instruction=role, config=wanting(0.25, 60))]
    assert (result.text, result.output) == ("good day", "good day")


async def test_what_a_node_does_not_say_is_left_to_the_model(tmp_path: Path) -> None:
    requests, _ = await asked(tmp_path, a_file())
    assert requests == [request(said("Well?"))]


@pytest.mark.parametrize(
    ("message", "sent_on"), [("hello", "hello"), (None, "of the file"), ("", "of the file")]
)
async def test_the_message_of_the_run_goes_before_that_of_the_file(
    tmp_path: Path, message: str | None, sent_on: str
) -> None:
    text = a_file(
        "prompt: {template: 0, user_message: true}",
        more="user_message: of the file",
        prompt="{q: '{user_message}'}",
    )
    requests, _ = await asked(tmp_path, text, message=message)
    assert sent(requests) == said(sent_on)


async def test_what_was_found_and_values_of_the_node_are_filled_in(tmp_path: Path) -> None:
    node = """\
        prompt:
          template: 0
          retrieved_chunks: true
          prompt_placeholders: {who: 'a {librarian}'}
    """
    text = a_file(
        node,
        more="retrieved_chunks: ' opens at {nine} '",
        prompt="{q: '{retrieved_chunks}, says {who}'}",
    )
    requests, _ = await asked(tmp_path, text)
    assert sent(requests) == said("opens at {nine}, says a {librarian}")


async def test_a_placeholder_that_is_not_switched_on_fails_the_node_by_name(
    tmp_path: Path,
) -> None:
    text = a_file(prompt="{q: '{user_message}'}")
    with pytest.raises(PlaceholderError, match=r"^node 'a': prompt text 'q': .*\{user_message\}"):
        await asked(tmp_path, text)


async def test_what_nodes_say_is_not_sent_to_those_after_them(tmp_path: Path) -> None:
    text = """
        models: [{llm: ollama, model: m}]
        prompts: [{template: {prompt_template: {q: Go on.}}}]
        nodes: [{id: a, model: 0, prompt: {template: 0}}, {id: b, model: 0, prompt: {template: 0}}]
        edges: [{node: a, children: [b]}]
    """
    requests, _ = await asked(tmp_path, text, "one", "two")
    assert requests == [request(said("Go on."))] * 2


async def test_a_placeholder_stands_for_what_a_node_is_given(tmp_path: Path) -> None:
    async def first(ctx: InvocationContext) -> dict[str, int]:
        return {"n": 1}

    text = """
        models: [{llm: ollama, model: m}]
        prompts: [{template: {prompt_template: {q: 'About {input}.'}}}]
        nodes: [{id: f, agent: first}, {id: a, model: 0, prompt: {template: 0}}]
        edges: [{node: f, children: [a]}]
    """
    requests, _ = await asked(tmp_path, text, agents={"first": first})
    assert sent(requests) == said('About {"n": 1}.')


async def test_every_item_of_a_map_is_asked_about(tmp_path: Path) -> None:
    async def names(ctx: InvocationContext) -> list[str]:
        return ["x", "y"]

    text = """
        models: [{llm: ollama, model: m}]
        prompts: [{template: {prompt_template: {q: 'About {input}.'}}}]
        nodes:
          - {id: names, agent: names}
          - {id: each, map: one, max_concurrency: 1}
          - {id: one, model: 0, prompt: {template: 0}}
        edges: [{node: names, children: [each]}]
    """
    requests, result = await asked(tmp_path, text, "1", "2", agents={"names": names})
    assert [sent([one]) for one in requests] == [said("About x."), said("About y.")]
    assert result.output == ["1", "2"]


async def test_the_first_nodes_are_given_the_message(tmp_path: Path) -> None:
    requests, _ = await asked(tmp_path, a_file(prompt="{q: '{input}'}"))
    assert sent(requests) == said("hello")


async def test_a_value_of_the_node_called_input_goes_before_what_it_is_given(
    tmp_path: Path,
) -> None:
    node = "prompt: {template: 0, prompt_placeholders: {input: own}}"
    requests, _ = await asked(tmp_path, a_file(node, prompt="{q: '{input}'}"))
    assert sent(requests) == said("own")


async def test_without_a_second_side_the_model_is_sent_what_its_node_is_given(
    tmp_path: Path,
) -> None:
    text = """
        models: [{llm: ollama, model: m}]
        prompts: [{template: {system_template: {role: You count.}}}]
        nodes: [{id: a, model: 0, prompt: {template: 0}}, {id: b, model: 0, prompt: {template: 0}}]
        edges: [{node: a, children: [b]}]
    """
    requests, _ = await asked(tmp_path, text, "one", "two")
    role = said("You count.", "role")
    assert requests == [request("hello", instruction=role), request("one", instruction=role)]


# ---------------------------------------------------------------------------------- what is shared


async def test_what_is_passed_on_is_sent_where_it_is_asked_for(tmp_path: Path) -> None:
    text = """
        models: [{llm: ollama, model: m}]
        prompts:
          - {template: {prompt_template: {q: Say.}}}
          - {template: {prompt_template: {q: '{message_passing}'}}}
        nodes:
          - {id: a, model: 0, prompt: {template: 0}, message_passing: {output: true}}
          - id: b
            model: 0
            prompt: {template: 0}
            message_passing: {output: true}
            structured_output: {parameters: {n: {type: integer}}, required: [n]}
          - {id: c, model: 0, prompt: {template: 1}, message_passing: {input: true}}
        edges: [{node: a, children: [{node: b, children: [c]}]}]
    """
    requests, _ = await asked(tmp_path, text, "  one ", '{"n":  2}', "three")
    assert sent(requests) == said('one\n\n{"n": 2}')


async def test_a_board_is_read_behind_those_it_imports() -> None:
    model = ScriptedModel(["a fact", "in style", "well spelt", "the end"])
    await run(load_graph(FILES / "boards.yml", **OPTIONS, models={0: model}))
    begin = "Go on with this:\n"
    assert [one.contents[0].text for one in model.requests] == [
        said(begin, "task"),
        said(f"{begin}a fact", "task"),
        said(f"{begin}a fact\n\nin style", "task"),
        said(f"{begin}a fact\n\nin style\n\nwell spelt", "task"),
    ]


async def test_a_board_that_nobody_wrote_to_is_empty(tmp_path: Path) -> None:
    node = "prompt: {template: 0}\nblackboard: {id: x, read: true}"
    more = "blackboard: {boards: [{id: x}]}"
    requests, _ = await asked(tmp_path, a_file(node, more=more, prompt="{q: '[{blackboard}]'}"))
    assert sent(requests) == said("[]")


async def test_a_whole_file_asks_each_of_its_models() -> None:
    small = ScriptedModel(['{"validation": true}', "old", "big", "checked"], name="small")
    large = ScriptedModel(["plan", "answer"], name="large")
    graph = load_graph(FILES / "review.yml", **OPTIONS, models={0: small, 1: large})
    result = await run(graph, "how long?")
    how = said("Write briefly, and put names in {braces}.", "how")

    def after(*passed_on: str) -> str:
        return said("\n\n".join(passed_on), "so_far") + how

    assert large.requests == [
        request(
            said("how long?", "question"),
            instruction=said("You plan how to answer.", "role"),
            config=wanting(max_tokens=800),
        ),
        request(after("plan", "old", "big", "checked"), config=wanting(max_tokens=900)),
    ]
    assert small.requests[1:] == [
        request(after("plan"), config=wanting(max_tokens=400)),
        request(after("plan", "old"), config=wanting(max_tokens=400)),
        request(after("plan", "old", "big"), config=wanting(max_tokens=100)),
    ]
    assert result.output == "answer"


# ---------------------------------------------------------------------------------- structured


@pytest.mark.parametrize(
    ("structured", "schema"),
    [
        (
            {"parameters": {"a": {"type": "integer"}}, "required": ["a"]},
            {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}},
        ),
        ({"properties": {"a": {}}, "title": None}, {"type": "object", "properties": {"a": {}}}),
        ({"parameters": {}, "properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}),
        ({"type": "array", "items": {}}, {"type": "array", "items": {}}),
    ],
)
def test_a_structured_output_is_a_json_schema(
    structured: dict[str, Any], schema: dict[str, Any]
) -> None:
    assert schema_of(structured) == schema


STRUCTURED = """\
    prompt: {template: 0}
    structured_output: {parameters: {n: {type: integer}}, required: [n]}
"""


async def test_an_answer_that_must_fit_is_the_output_as_a_value(tmp_path: Path) -> None:
    pytest.importorskip("jsonschema")
    requests, result = await asked(tmp_path, a_file(STRUCTURED), '{"n": 2}')
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert requests == [request(said("Well?"), output_schema=schema)]
    assert result.output == {"n": 2}


async def test_an_answer_that_does_not_fit_is_sent_back_once(tmp_path: Path) -> None:
    pytest.importorskip("jsonschema")
    _, result = await asked(tmp_path, a_file(STRUCTURED), '{"n": "2"}', '{"n": 2}')
    assert result.output == {"n": 2}
    with pytest.raises(ModelOutputError, match="'a' asks for"):
        await asked(tmp_path, a_file(STRUCTURED), '{"n": "2"}', "{}")


def test_a_structured_output_that_is_no_schema_is_told(tmp_path: Path) -> None:
    pytest.importorskip("jsonschema")
    node = "prompt: {template: 0}\nstructured_output: {parameters: [n]}"
    assert refused(tmp_path, a_file(node)) == [
        (
            "8:24: nodes[0].structured_output: this is no JSON Schema: $.properties: ['n'] is not "
            "of type 'object'"
        )
    ]


def test_a_structured_output_leads_to_nothing_elsewhere(tmp_path: Path) -> None:
    node = "prompt: {template: 0}\nstructured_output: {anyOf: [{$ref: 'http://far/x.json'}]}"
    (told,) = refused(tmp_path, a_file(node))
    assert told.endswith("not to 'http://far/x.json': nothing is fetched")
    pytest.importorskip("jsonschema")
    (told,) = refused(tmp_path, a_file(node.replace("http://far/x.json", "#/$defs/x")))
    assert told.endswith("refers to '#/$defs/x', which is not in it")


GUARDED = """
    models: [{llm: ollama, model: m}]
    prompts: [{template: {prompt_template: {q: Well?}}}]
    nodes:
      - id: gate
        model: 0
        prompt: {template: 0}
        structured_output:
          parameters: {validation: {type: boolean}, reason: {type: string}}
          required: [validation]
      - {id: a, model: 0, prompt: {template: 0}}
"""


async def test_a_guard_that_says_yes_lets_the_others_run(tmp_path: Path) -> None:
    pytest.importorskip("jsonschema")
    requests, result = await asked(tmp_path, GUARDED, '{"validation": true}', "yes")
    assert (len(requests), result.output) == (2, "yes")


@pytest.mark.parametrize(
    ("answers", "refusal"),
    [
        (['{"validation": false, "reason": "rude"}'], Refusal("gate", "rude")),
        (
            ["{}", '{"reason": "rude"}'],
            Refusal(
                "gate",
                "scripted: the answer does not fit what agent 'gate' asks for: $: 'validation' is "
                """a required property; it is '{"reason": "rude"}'""",
                "ModelOutputError",
            ),
        ),
    ],
)
async def test_a_guard_that_does_not_say_yes_ends_the_run(
    tmp_path: Path, answers: list[str], refusal: Refusal
) -> None:
    pytest.importorskip("jsonschema")
    _, result = await asked(tmp_path, GUARDED, *answers)
    assert Refusal.of(result.output) == refusal


# ---------------------------------------------------------------------------------- which model


async def test_a_model_is_given_by_the_name_of_its_entry(tmp_path: Path) -> None:
    model = ScriptedModel(["fine"])
    assert (await run(load(tmp_path, a_file(), models={"small": model}))).output == "fine"


@pytest.mark.parametrize(
    ("models", "why"),
    [
        (
            {"smalls": ScriptedModel([])},
            (
                "1:1: models: a model was given for 'smalls', and the file has no such entry; did "
                "you mean 'small'?"
            ),
        ),
        (
            {1: ScriptedModel([])},
            (
                "1:1: models: a model was given for 1, and the file has no such entry; there are "
                "1, named small"
            ),
        ),
        ({0: "ollama/m"}, "1:10: models[0]: what was given for it is no Model: 'ollama/m'"),
        (
            {0: ScriptedModel([]), "small": ScriptedModel([])},
            "1:10: models[0]: two models were given for this entry: by 0 and by 'small'",
        ),
    ],
)
def test_a_model_that_cannot_be_meant_is_refused(
    tmp_path: Path, models: dict[Any, Any], why: str
) -> None:
    assert refused(tmp_path, a_file(), models=models) == [why]


FOREIGN = """\
    models: [{llm: bedrock, model: m, name: far}, {llm: bedrock, model: n}]
    prompts: [{template: {prompt_template: {q: Well?}}}]
    nodes: [{id: a, model: 0, prompt: {template: 0}}, {id: b, model: 1, prompt: null}]
"""
WHY = (
    "1:16: models[0].llm: nothing here speaks to 'bedrock', only to openai, ollama, vllm, "
    "llamacpp, lmstudio; for another, pass a model of your own: load_graph(..., models={'far': "
    "model})"
)


async def test_a_server_that_is_not_spoken_to_is_refused_when_its_model_is_asked(
    tmp_path: Path,
) -> None:
    graph = load(tmp_path, FOREIGN)
    with pytest.raises(ConfigError) as caught:
        await run(graph)
    assert str(caught.value) == f"{tmp_path}/flow.yaml:{WHY}"


async def test_a_model_of_ones_own_answers_for_any_server(tmp_path: Path) -> None:
    _, result = await asked(tmp_path, FOREIGN, "from afar")
    assert result.output == {"a": "from afar", "b": None}


def test_a_check_tells_of_servers_that_are_not_spoken_to(tmp_path: Path) -> None:
    path = write(tmp_path, FOREIGN)
    (note,) = check_graph(path)
    assert (str(note), note.is_note) == (f"{path}:{WHY}", True)
    assert check_graph(path, models={0: ScriptedModel([])}) == []


def test_the_servers_that_are_spoken_to_are_those_of_the_sdk() -> None:
    pytest.importorskip("openai")
    from parallel_agent.llm.openai_model import PROVIDERS  # an extra

    assert set(SPOKEN_TO) == set(PROVIDERS)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("http://far:11434", "http://far:11434/v1"),
        ("http://far:11434/", "http://far:11434/v1"),
        ("http://far/deep/v1", "http://far/deep/v1"),
        (None, "http://localhost:11434/v1"),
    ],
)
def test_a_host_alone_is_a_server_of_chat_completions(
    tmp_path: Path, host: str | None, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    from parallel_agent.llm.openai_model import OpenAIModel  # an extra

    monkeypatch.delenv("OLLAMA_BASE_URL", raising=False)
    entry = ModelEntry(llm="ollama", model="m", host=host)
    (made,), _ = file_models([entry], Source(str(tmp_path)), {})
    model = made.ready("a")
    assert isinstance(model, OpenAIModel)
    assert (model.name, model.base_url) == ("ollama/m", url)
    assert made.ready("b") is model


async def test_a_missing_key_is_told_with_the_entry_when_its_model_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    graph = load(tmp_path, a_file().replace("ollama", "openai"))
    why = r"flow.yaml:1: models\[0\], which node 'a' asks: openai/m: no key: set OPENAI_API_KEY"
    with pytest.raises(ModelAuthError, match=why):
        await run(graph)


async def test_nodes_without_an_extra_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "parallel_agent.llm.openai_model", raising=False)
    monkeypatch.setitem(sys.modules, "openai", None)
    graph = load(tmp_path, a_file())
    with pytest.raises(MissingExtraError, match=r"'a', .*pip install 'parallel-agent\[openai\]'"):
        await run(graph)


async def test_a_schema_that_nothing_can_check_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    graph = load(tmp_path, a_file(STRUCTURED), models={0: ScriptedModel([])})
    with pytest.raises(MissingExtraError, match=r"pip install 'parallel-agent\[jsonschema\]'"):
        await run(graph)


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("temperature", 3, "temperature is a number from 0 to 2, not 3.0"),
        ("max_tokens", 0, "max_tokens is a whole number from 1 on, not 0"),
        ("max_tool_calls", -1, "a whole number from 0 on is needed, not -1"),
    ],
)
def test_a_number_that_no_model_takes_is_told(
    tmp_path: Path, key: str, value: int, why: str
) -> None:
    place = f"8:{len(key) + 7}: nodes[0].{key}"
    assert refused(tmp_path, a_file(f"prompt: {{template: 0}}\n{key}: {value}")) == [
        f"{place}: {why}"
    ]


def test_a_node_without_a_prompt_is_looked_at_as_well(tmp_path: Path) -> None:
    (told,) = refused(tmp_path, a_file("prompt: null\ntemperature: 3"))
    assert told == "8:18: nodes[0].temperature: temperature is a number from 0 to 2, not 3.0"


def test_the_model_that_was_given_counts_for_what_may_change_while_a_run_is_resumed(
    tmp_path: Path,
) -> None:
    shapes = {
        load(tmp_path, a_file(), models={0: ScriptedModel([], name=name)}).sub_agents[0].shape
        for name in ("x", "y")
    }
    assert len(shapes) == 2


async def test_a_real_server_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))  # loading them all takes long
    answer = streams(chunk(content="it "), chunk(content="rains"), chunk("stop"))
    async with serving(answer) as server:
        node = "prompt: {template: 0, user_message: true}\ntemperature: 0.5\nmax_tokens: 7"
        text = a_file(node, role="Be brief.", prompt="{q: '{user_message}'}")
        text = text.replace("name: small", "host: '${HOST}', api_key: '${KEY}'")
        host = server.url.removesuffix("/v1")
        graph = load(tmp_path, text, env={"HOST": host, "KEY": "a-key"})
        result = await run(graph, "how is it?")
    assert result.output == "it rains"
    (body,) = server.asked
    assert body["messages"] == [
        {"role": "system", "content": said("Be brief.", "role")},
        {"role": "user", "content": said("how is it?")},
    ]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.5, 7)
    assert "authorization: bearer a-key" in server.heads[0].lower()
