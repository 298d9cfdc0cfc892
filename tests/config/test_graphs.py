"""From files to graphs: what the parts of a file become, and that it runs."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeVar

import pytest

from parallel_agent import (
    Agent,
    BestEffort,
    Escalate,
    FirstSuccess,
    GraphAgent,
    InvocationContext,
    LoopAgent,
    MapAgent,
    ParallelAgent,
    Quorum,
    Refusal,
    Retry,
    Runner,
    SequentialAgent,
    WaitAll,
    agent,
)
from parallel_agent.config import ConfigError, load_graph
from parallel_agent.config.model_node import ModelNode
from tests.config.writing import FILES, OPTIONS, echo, load, refused

K = TypeVar("K", bound=Agent)

# ---------------------------------------------------------------------------------- golden files


def described(name: str) -> tuple[list[str], list[str]]:
    """The guards and the links of a file of the tests."""
    graph = load_graph(FILES / name, **OPTIONS)
    return [guard.name for guard in graph.guards], graph.definition.describe()


def order(graph: GraphAgent) -> set[tuple[str, str]]:
    """Which node comes before which, of all that are in an order."""
    definition = graph.definition
    names = [node.name for node in definition.nodes]
    after: dict[int, set[int]] = {number: set() for number in range(len(names))}
    for link in definition.links:
        after[link.source].add(link.target)
    for through, onward in after.items():
        for reached in after.values():
            if through in reached:
                reached.update(onward)
    return {(names[one], names[other]) for one, reached in after.items() for other in reached}


def in_order(*names: str) -> set[tuple[str, str]]:
    return set(combinations(names, 2))


def test_a_guard_a_fan_out_and_a_join() -> None:
    guards, links = described("review.yml")
    assert guards == ["gate"]
    assert sorted(link for link in links if "->" in link) == [
        "check_figures -> answer",
        "figures -> check_figures",
        "history -> answer",
        "plan -> figures",
        "plan -> history",
    ]


def test_who_reads_what_is_passed_on_waits_for_those_who_pass_on() -> None:
    graph = load_graph(FILES / "review.yml", **OPTIONS)
    assert order(graph) == in_order("plan", "history", "figures", "check_figures", "answer")


def test_ordered_forms_stand_beside_the_parallel_one() -> None:
    assert described("ordered.yml") == (
        [],
        [
            "start -> beside",
            "start -> first",
            "start -> second",
            "first before second",
            "second -> end",
            "left -> end",
            "right -> end",
            "left before right",
        ],
    )


def test_boards_order_who_writes_and_who_reads_and_import_others() -> None:
    _, links = described("boards.yml")
    facts, draft = (link for link in links if link.startswith("document "))
    assert facts.startswith("document facts: collect add; collect, style, spelling, read read")
    assert draft.startswith("document draft: begin, style, spelling add; style, spelling, read")
    first = {("collect", name) for name in ("style", "spelling", "read")}
    found = order(load_graph(FILES / "boards.yml", **OPTIONS))
    assert found == first | in_order("begin", "style", "spelling", "read")


def test_edges_without_lists_leave_the_order_to_what_is_passed_on() -> None:
    assert described("flat.json")[1] == [
        "ask before tell",
        "document message_passing: ask add; tell read, at first ''",
    ]


def test_keys_of_our_own_become_conditions_loops_and_nodes_of_nodes() -> None:
    assert described("agents.yaml") == (
        ["allowed"],
        [
            "sort -> ask_all if 'offer' or 'question'",
            "sort -> each if is_long()",
            "sort -> archive otherwise",
            "ask_all -> polish",
            "each -> polish",
            "polish -> polish if 'again' up to 2 times",
        ],
    )


def test_the_options_of_a_file_are_those_of_its_agents() -> None:
    graph = load_graph(FILES / "agents.yaml", **OPTIONS)
    assert (graph.name, graph.description) == ("desk", "Answers letters.")
    assert (graph.barrier, graph.max_concurrency) == (WaitAll(), 3)
    assert (graph.retry, graph.timeout, graph.output_key) == (Retry(2), 60, "letter")
    sort, ask_all = at(graph, "sort", Agent), at(graph, "ask_all", ParallelAgent)
    assert sort.description == "Says what kind of letter it is."
    assert sort.retry == Retry(3, initial_delay=0.5, jitter=0)
    assert (ask_all.barrier, ask_all.max_concurrency) == (BestEffort(), 2)
    assert [one.name for one in ask_all.sub_agents] == ["ask_price", "ask_date"]
    assert (at(graph, "ask_price", Agent).timeout, at(graph, "ask_date", Agent).idle_timeout) == (
        5,
        5,
    )
    polish = at(graph, "polish", LoopAgent)
    assert (polish.max_iterations, [one.name for one in polish.sub_agents]) == (
        2,
        ["shorten", "soften"],
    )
    assert at(graph, "soften", SequentialAgent).output_key == "soft"
    each = at(graph, "each", MapAgent)
    assert (each.worker.name, each.items_key) == ("one_each", "names")
    assert (each.barrier, each.max_concurrency) == (Quorum(1), 4)


def at(graph: GraphAgent, name: str, kind: type[K]) -> K:
    found = graph.find_agent(name)
    assert isinstance(found, kind)
    return found


@pytest.mark.parametrize(
    ("policy", "barrier"),
    [
        ("first_success", FirstSuccess()),
        ("escalate", Escalate()),
        ("{escalate: 'What now?'}", Escalate("What now?")),
        ("{quorum: 1}", Quorum(1)),
    ],
)
def test_policies_have_names(tmp_path: Path, policy: str, barrier: object) -> None:
    text = f"nodes:\n  - {{id: a, agent: echo}}\n  - {{id: p, parallel: [a], policy: {policy}}}\n"
    assert at(load(tmp_path, text), "p", ParallelAgent).barrier == barrier


# ---------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("node", "name"),
    [("a", "a"), ("my-node", "my_node"), ("2nd", "_2nd"), ("class", "class_"), ("ä b", "ä_b")],
)
def test_an_id_becomes_the_name_of_an_agent(tmp_path: Path, node: str, name: str) -> None:
    graph = load(tmp_path, f"nodes: [{{id: {node}, agent: echo}}]\nedges: [{node}]\n")
    assert [one.name for one in graph.sub_agents] == [name]


@pytest.mark.parametrize(
    ("file", "name"),
    [("my-flow.yaml", "my_flow"), ("a.yaml", "a_graph"), ("user.yaml", "user_graph")],
)
def test_a_graph_is_called_like_its_file_if_nothing_else_is(
    tmp_path: Path, file: str, name: str
) -> None:
    assert load(tmp_path, "nodes: [{id: a, agent: echo}]", file).name == name


# ---------------------------------------------------------------------------------- agents


def test_an_agent_of_another_name_is_copied(tmp_path: Path) -> None:
    @agent(description="as given")
    async def given(ctx: InvocationContext) -> None: ...

    text = "nodes: [{id: a, agent: x}, {id: b, agent: x, timeout: 3}, {id: given, agent: x}]"
    graph = load(tmp_path, text, agents={"x": given})
    assert [one.name for one in graph.sub_agents] == ["a", "b", "given"]
    assert [one.description for one in graph.sub_agents] == ["as given"] * 3
    assert [one.timeout for one in graph.sub_agents] == [None, 3, None]
    assert graph.sub_agents[2] is given
    assert given.timeout is None


def test_an_agent_of_the_same_name_has_the_options_of_its_node(tmp_path: Path) -> None:
    given = agent(echo, name="a")
    graph = load(tmp_path, "nodes: [{id: a, agent: x, timeout: 3}]", agents={"x": given})
    assert (graph.sub_agents[0].timeout, given.timeout) == (3, None)


def test_an_agent_of_an_allowed_module_is_imported(tmp_path: Path) -> None:
    text = "nodes: [{id: a, agent: 'tests.config.writing:echo'}]"
    graph = load(tmp_path, text, allow_modules=["tests.config.writing"])
    assert [one.name for one in graph.sub_agents] == ["a"]


@pytest.mark.parametrize(
    ("allowed", "hint"),
    [
        ([], ""),
        (["tests.config", "tests.config.writings"], "; did you mean 'tests.config.writings'?"),
        ("tests.config.writing and more", "; did you mean 'tests.config.writing and more'?"),
    ],
)
def test_a_module_is_imported_only_if_it_is_allowed_by_its_full_name(
    tmp_path: Path, allowed: Any, hint: str
) -> None:
    text = "nodes: [{id: a, agent: 'tests.config.writing:echo'}]"
    assert refused(tmp_path, text, allow_modules=allowed) == [
        (
            "1:24: nodes[0].agent: the module 'tests.config.writing' is not allowed; "
            f"allow_modules=[...] allows modules{hint}"
        )
    ]


@pytest.mark.parametrize(
    ("ref", "why"),
    [
        ("tests.config.writing:nobody", "cannot be imported: AttributeError: "),
        ("tests.config.writing:echo.__class__", "'echo.__class__' is no name in a module"),
        ("tests.config.writing:FILES", "an agent is needed, or a function, and this is "),
        ("tests.config.writing:Path", "an agent is needed, or a function, and this is a type"),
        ("tests.config.nowhere:echo", "cannot be imported: ModuleNotFoundError: No module named"),
    ],
)
def test_what_a_module_does_not_hold_is_told(tmp_path: Path, ref: str, why: str) -> None:
    allowed = ["tests.config.writing", "tests.config.nowhere"]
    text = f"nodes: [{{id: a, agent: '{ref}'}}]"
    (said,) = refused(tmp_path, text, allow_modules=allowed)
    assert why in said


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (3, "an agent is needed, or a function, and this is 3"),
        (SequentialAgent, "SequentialAgent is a class of agents; make an object of it: call it"),
        (lambda: None, "'<lambda>' cannot be an agent: it is called with the context"),
    ],
)
def test_what_is_no_agent_is_told_at_the_node(tmp_path: Path, given: Any, why: str) -> None:
    text = "nodes:\n  - {id: a, agent: x}\n"
    (said,) = refused(tmp_path, text, agents={"x": given})
    assert said.startswith("2:")
    assert why in said


def test_an_agent_with_agents_below_it_cannot_stand_twice(tmp_path: Path) -> None:
    given = SequentialAgent("s", [agent(echo, name="inside")])
    text = "nodes: [{id: a, agent: x}, {id: b, agent: x}]\nedges: []\n"
    (said,) = refused(tmp_path, text, agents={"x": given})
    assert "'inside' stands in the tree twice" in said


def test_an_input_that_does_not_fit_is_told_at_the_node(tmp_path: Path) -> None:
    async def text(ctx: InvocationContext) -> str:
        return ""

    async def number(ctx: InvocationContext, number: int) -> int:
        return number

    graph = """\
        nodes:
          - {id: and, agent: echo}
          - {id: text, agent: text}
          - {id: number, agent: number}
        edges: [and, {node: text, children: [number]}]
    """
    (said,) = refused(tmp_path, graph, agents={"echo": echo, "text": text, "number": number})
    assert said.startswith(("3:", "4:"))


# ---------------------------------------------------------------------------------- running


async def output_of(graph: GraphAgent, message: str = "hello") -> Any:
    return (await Runner(graph).run(message)).output


async def test_a_file_of_agents_runs_along_its_edges(tmp_path: Path) -> None:
    async def join(ctx: InvocationContext, found: dict[str, str]) -> str:
        return "+".join(f"{name}:{said}" for name, said in found.items())

    text = """
        nodes: [{id: plan, agent: echo}, {id: b-1, agent: echo}, {id: b-2, agent: echo},
                {id: end, agent: join}]
        edges:
          - {node: plan, children: [b-1, b-2]}
          - {node: end, fan_in: [b-1, b-2]}
    """
    graph = load(tmp_path, text, agents={"echo": echo, "join": join})
    assert await output_of(graph) == "b_1:b_1+b_2:b_2"


async def test_a_condition_chooses_the_way(tmp_path: Path) -> None:
    text = """
        nodes: [{id: a, agent: echo}, {id: b, agent: echo}, {id: c, agent: echo},
                {id: d, agent: echo}, {id: e, agent: echo}]
        edges:
          - node: a
            children:
              - {node: b, when: [x, a]}
              - {node: c, if: no}
              - {node: d, if: yes}
              - {node: e, default: true}
    """
    conditions = {"yes": lambda output: output == "a", "no": lambda output: output == "b"}
    graph = load(tmp_path, text, conditions=conditions)
    assert await output_of(graph) == {"b": "b", "d": "d"}


async def no(output: Any) -> bool:
    return bool(output)


@pytest.mark.parametrize("condition", [3, no, bool, SequentialAgent("s")])
def test_a_condition_is_a_plain_function(tmp_path: Path, condition: Any) -> None:
    text = """\
        nodes: [{id: a, agent: echo}, {id: b, agent: echo}]
        edges: [{node: a, children: [{node: b, if: x}]}]
    """
    assert refused(tmp_path, text, conditions={"x": condition}) == [
        "2:44: edges[0].children[0].if: the condition 'x' is no plain function of an output"
    ]


async def test_an_object_can_be_a_condition(tmp_path: Path) -> None:
    async def decide(ctx: InvocationContext) -> dict[str, bool]:
        return {"good": True}

    text = """
        nodes: [{id: a, agent: decide}, {id: b, agent: echo}, {id: c, agent: echo}]
        edges: [{node: a, children: [{node: b, when: {good: true}}, {node: c, default: true}]}]
    """
    graph = load(tmp_path, text, agents={"decide": decide, "echo": echo})
    assert await output_of(graph) == {"b": "b"}


async def test_a_null_condition_is_taken_by_no_output_at_all(tmp_path: Path) -> None:
    async def nothing(ctx: InvocationContext) -> None: ...

    text = """
        nodes: [{id: a, agent: nothing}, {id: b, agent: echo}, {id: c, agent: echo}]
        edges: [{node: a, children: [{node: b, when: null}, {node: c, default: true}]}]
    """
    graph = load(tmp_path, text, agents={"nothing": nothing, "echo": echo})
    links = graph.definition.describe()
    assert links == ["a -> b if None", "a -> c otherwise"]


async def test_what_stands_after_a_guard_starts_only_if_it_says_yes(tmp_path: Path) -> None:
    async def refuse(ctx: InvocationContext) -> dict[str, Any]:
        return {"validation": False, "reason": "not today"}

    text = """
        nodes: [{id: a, agent: echo}, {id: g, agent: refuse, guard: true}]
        edges: [{node: g, children: [a]}]
    """
    graph = load(tmp_path, text, agents={"echo": echo, "refuse": refuse})
    assert Refusal.of(await output_of(graph)) == Refusal("g", "not today")


def test_guards_run_in_the_order_they_are_declared(tmp_path: Path) -> None:
    text = """
        nodes: [{id: z, agent: echo, guard: true}, {id: a, agent: echo},
                {id: b, agent: echo, guard: true}]
        edges: [b, {node: z, children: [b, a]}]
    """
    assert [guard.name for guard in load(tmp_path, text).guards] == ["z", "b"]


def test_the_ordered_children_of_a_guard_keep_their_order(tmp_path: Path) -> None:
    text = """
        nodes: [{id: a, agent: echo}, {id: b, agent: echo}, {id: g, agent: echo, guard: true}]
        edges: [{node: g, ordered_children: [b, a]}]
    """
    assert load(tmp_path, text).definition.describe() == ["b before a"]


async def test_nodes_find_what_others_wrote_to_them(tmp_path: Path) -> None:
    found: dict[str, dict[str, str]] = {}

    async def note(ctx: InvocationContext) -> str:
        found[ctx.agent.name] = dict(ctx.documents)
        return ctx.agent.name

    text = """
        blackboard: {boards: [{id: facts}, {id: draft, import: [facts]}]}
        nodes:
          - {id: read, agent: note, blackboard: {id: draft, read: true}}
          - {id: collect, agent: note, blackboard: {id: facts, write: true}}
          - {id: begin, agent: note, blackboard: {id: draft, write: true}}
          - {id: add, agent: note, blackboard: {id: draft, read: true, write: true}}
          - {id: say, agent: note, message_passing: {output: true}}
          - {id: hear, agent: note, message_passing: {input: true}}
    """
    await output_of(load(tmp_path, text, agents={"note": note}))
    assert found == {
        "collect": {},
        "begin": {},
        "add": {"facts": "collect", "draft": "begin"},
        "read": {"facts": "collect", "draft": "begin\n\nadd"},
        "say": {},
        "hear": {"message_passing": "say"},
    }


def test_boards_are_kept_in_the_state_and_what_is_passed_on_is_not(tmp_path: Path) -> None:
    text = """
        blackboard: {boards: [{id: x}, {id: y, cleanup: true}, {id: z, cleanup: false}]}
        nodes: [{id: a, agent: echo, message_passing: {output: true}}]
    """
    documents = [board.document for board in load(tmp_path, text).definition.boards]
    assert [(one.name, one.key, one.initial) for one in documents] == [
        ("message_passing", None, ""),
        ("x", "x", ""),
        ("y", "y", ""),
        ("z", "z", None),
    ]


@pytest.mark.parametrize("chained", ["", "a", "ab", "ac", "bc", "abc"])
def test_those_who_are_chained_add_one_after_another(tmp_path: Path, chained: str) -> None:
    nodes = [
        f"- {{id: {name}, agent: echo, blackboard: {{id: x, read: true, write: true, "
        f"chain: {str(name in chained).lower()}}}}}"
        for name in "abc"
    ]
    text = "\n".join(["blackboard: {boards: [{id: x}]}", "nodes:", *nodes])
    assert order(load(tmp_path, text)) == in_order(*chained)


# ---------------------------------------------------------------------------------- models


def test_a_model_node_holds_what_the_file_says_of_it() -> None:
    graph = load_graph(FILES / "review.yml", **OPTIONS)
    node = at(graph, "plan", ModelNode)
    assert (node.entry.id, node.entry.max_tokens) == ("plan", 800)
    assert (node.model.llm, node.model.model) == ("openai", "large-model")
    assert node.model.api_key == OPTIONS["env"]["MODEL_KEY"]
    assert node.template is not None
    assert node.template.system_template == {"role": "You plan how to answer."}


def test_a_model_has_a_number_or_a_name(tmp_path: Path) -> None:
    text = """
        models: [{llm: ollama, model: m}, {llm: ollama, model: n, name: large}]
        nodes: [{id: a, model: 0}, {id: b, model: large}]
    """
    graph = load(tmp_path, text)
    assert [at(graph, name, ModelNode).model.model for name in "ab"] == ["m", "n"]


async def test_a_model_node_without_a_prompt_does_nothing(tmp_path: Path) -> None:
    text = "models: [{llm: ollama, model: m}]\nnodes: [{id: a, model: 0, prompt: null}]\n"
    assert await output_of(load(tmp_path, text)) is None


@pytest.mark.parametrize(
    ("output", "is_guard"),
    [
        ("{parameters: {validation: {type: boolean}}}", True),
        ("{properties: {validation: {type: boolean}}}", True),
        ("{parameters: {}, properties: {validation: {}}}", True),
        ("{type: object, properties: {validation: {description: x}}}", True),
        ("{parameters: {validation: {type: string}}}", False),
        ("{parameters: {inner: {properties: {validation: {type: boolean}}}}}", False),
        ("{parameters: [validation]}", False),
        ("{}", False),
    ],
)
def test_a_boolean_called_validation_makes_a_guard(
    tmp_path: Path,
    output: str,
    is_guard: bool,  # noqa: FBT001  # expected
) -> None:
    text = f"""
        models: [{{llm: ollama, model: m}}]
        nodes: [{{id: a, agent: echo}}, {{id: g, model: 0, structured_output: {output}}}]
    """
    assert [one.name for one in load(tmp_path, text).guards] == ["g"] * is_guard


def test_the_last_of_nothing_but_guards_is_a_node(tmp_path: Path) -> None:
    guard = "model: 0, structured_output: {parameters: {validation: {type: boolean}}}"
    text = f"""
        models: [{{llm: ollama, model: m}}]
        nodes: [{{id: a, {guard}}}, {{id: b, {guard}}}]
        edges: [{{node: a, children: null}}, b]
    """
    graph = load(tmp_path, text)
    assert [one.name for one in graph.guards] == ["a"]
    assert [one.name for one in graph.definition.nodes] == ["b"]


def test_what_says_that_it_is_no_guard_is_none(tmp_path: Path) -> None:
    text = """
        models: [{llm: ollama, model: m}]
        nodes:
          - id: a
            model: 0
            guard: false
            structured_output: {parameters: {validation: {type: boolean}}}
    """
    assert load(tmp_path, text).guards == ()


# ---------------------------------------------------------------------------------- prompt files


def test_a_prompt_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "p.yml").write_text("system_template: {role: 'You are ${WHO}.'}\n")
    text = """
        models: [{llm: ollama, model: m}]
        prompts: [{uri: prompts/p.yml}]
        nodes: [{id: a, model: 0, prompt: {template: 0}}]
    """
    node = at(load(tmp_path, text, env={"WHO": "nobody"}), "a", ModelNode)
    assert node.template is not None
    assert node.template.system_template == {"role": "You are nobody."}


def test_what_is_wrong_with_a_prompt_file_is_told_there(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("system_template: {}\nprompt_templat: {}\n")
    text = "prompts: [{uri: p.yaml}, {uri: q.yaml}]\nnodes: [{id: a, agent: echo}]\n"
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(caught.value) == dedent(f"""\
        {tmp_path}/p.yaml:2:1: prompt_templat: there is no such key; did you mean 'prompt_template'?
        {tmp_path}/q.yaml:1:1: there is no such file""")


def test_an_agent_that_is_not_ready_is_told(tmp_path: Path) -> None:
    given = SequentialAgent.__new__(SequentialAgent)
    (said,) = refused(tmp_path, "nodes: [{id: a, agent: x}]", agents={"x": given})
    assert "is no agent yet" in said


def test_the_model_counts_for_what_may_change_while_a_run_is_resumed(tmp_path: Path) -> None:
    text = "models: [{{llm: ollama, model: {0}}}]\nnodes: [{{id: a, model: 0}}]\n"
    one, other = (load(tmp_path, text.format(name)).sub_agents[0].shape for name in "mn")
    assert one != other


def test_a_prompt_in_a_file_that_cannot_be_named_is_refused(tmp_path: Path) -> None:
    text = 'prompts: [{uri: "a\\0.yaml"}]\nnodes: [{id: a, agent: echo}]\n'
    (said,) = refused(tmp_path, text)
    assert "lies in the folder of the graph file" in said


def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "p.yaml").write_text("system_template: {}\n")
    (folder / "p.yaml").symlink_to(tmp_path / "p.yaml")
    text = "prompts: [{uri: p.yaml}]\nnodes: [{id: a, agent: echo}]\n"
    (said,) = refused(folder, text)
    assert "lies in the folder of the graph file" in said


def test_several_children_may_be_taken_by_default(tmp_path: Path) -> None:
    path = tmp_path / "flow.yaml"
    path.write_text(
        "nodes: [{id: a, agent: a}, {id: b, agent: b}, {id: c, agent: c}, {id: d, agent: d}]\n"
        "edges:\n"
        "  - node: a\n"
        "    children:\n"
        "      - {node: b, when: x}\n"
        "      - {node: c, default: true}\n"
        "      - {node: d, default: true}\n",
        "utf-8",
    )

    async def work(ctx: InvocationContext) -> str:
        return ctx.agent.name

    graph = load_graph(path, agents=dict.fromkeys("abcd", work))
    assert {"a -> c otherwise", "a -> d otherwise"} <= set(graph.definition.describe())
