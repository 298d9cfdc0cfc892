"""Documents that nodes share: what a reader finds follows from the edges, not from the clock."""

from __future__ import annotations

from typing import Any

import pytest

from parallel_agent import (
    Agent,
    BestEffort,
    Document,
    Edge,
    Escalate,
    GraphAgent,
    InvocationContext,
    Runner,
    SequentialAgent,
    StateError,
    agent,
)
from tests.graph.nodes import Log, node, run_tree


def reader(name: str, found: dict[str, str], document: str = "d", gives: Any = None) -> Agent:
    """Return a node that notes what it finds in a document."""

    @agent(name=name)
    async def read(ctx: InvocationContext) -> Any:
        found[name] = ctx.documents[document]
        return name if gives is None else gives

    return read


def test_a_reader_finds_what_was_written_and_added() -> None:
    found: dict[str, str] = {}
    a, b, c = node("a", "plan"), node("b", "risk"), node("c", {"x": 1})
    r = reader("r", found)
    run_tree(
        GraphAgent(
            "g",
            nodes=[a, b, c, r],
            documents=[Document("d", writers=[a], appenders=[b, c], readers=[r])],
        )
    )
    assert found == {"r": 'plan\n\nrisk\n\n{"x": 1}'}


def test_the_order_is_that_of_declaration_and_not_of_completion() -> None:
    found: dict[str, str] = {}
    nodes = [node("slow", sleeps=5), node("quick"), reader("r", found)]
    run_tree(
        GraphAgent(
            "g", nodes=nodes, documents=[Document("d", appenders=["quick", "slow"], readers=["r"])]
        )
    )
    assert found["r"] == "slow\n\nquick"


def test_what_comes_after_another_counts_after_it_however_it_is_declared() -> None:
    found: dict[str, str] = {}
    late, early, r = node("late"), node("early"), reader("r", found)
    graph = GraphAgent(
        "g",
        [(early, late, r)],
        nodes=[late, early],
        documents=[Document("d", writers=[late, early], readers=[r])],
    )
    run_tree(graph)
    assert found["r"] == "late"


def test_a_reader_waits_for_the_writers_and_is_given_nothing() -> None:
    log, found = Log(), dict[str, str]()
    w, r, later = node("w", log=log, sleeps=3), node("r", log=log), node("later", sleeps=9)
    run_tree(
        GraphAgent(
            "g", nodes=[w, r, later], documents=[Document("d", writers=[w, later], readers=[r])]
        )
    )
    assert log.given == [("w", None), ("r", None)]
    assert log.started["r"] == pytest.approx(9, abs=0.1)
    assert found == {}


def test_an_edge_may_say_that_a_reader_comes_first() -> None:
    found: dict[str, str] = {}
    w, r = node("w"), reader("r", found)
    run_tree(
        GraphAgent("g", [(r, w)], nodes=[w, r], documents=[Document("d", writers=[w], readers=[r])])
    )
    assert found["r"] == ""


def test_a_reader_does_not_find_what_it_does_not_come_after() -> None:
    found: dict[str, str] = {}
    x, y = node("x"), reader("y", found)
    document = Document("d", appenders=[x, y], readers=[x, y], chain=False)
    run_tree(GraphAgent("g", [(node("first", sleeps=5), y)], nodes=[x], documents=[document]))
    assert found["y"] == ""  # though `x` had ended long before


def test_readers_that_write_come_one_after_another_or_side_by_side() -> None:
    def texts(*, chain: bool) -> dict[str, str]:
        found: dict[str, str] = {}
        nodes = [node("w"), reader("x", found), reader("y", found), reader("z", found)]
        document = Document(
            "d", writers=["w"], appenders=["x", "y"], readers=["x", "y", "z"], chain=chain
        )
        run_tree(GraphAgent("g", nodes=nodes, documents=[document]))
        return found

    assert texts(chain=True) == {"x": "w", "y": "w\n\nx", "z": "w\n\nx\n\ny"}
    assert texts(chain=False) == {"x": "w", "y": "w", "z": "w\n\nx\n\ny"}


def test_a_skipped_or_failed_node_writes_nothing() -> None:
    found: dict[str, str] = {}
    a, skipped, failed = node("a"), node("skipped"), node("failed", error=ValueError("no"))
    graph = GraphAgent(
        "g",
        [Edge(a, skipped, when="?")],
        nodes=[failed, reader("r", found)],
        documents=[Document("d", appenders=[a, skipped, failed], readers=["r"])],
        barrier=BestEffort(),
    )
    run_tree(graph)
    assert found["r"] == "a"


def test_each_round_of_a_loop_adds_and_the_last_one_that_writes_counts() -> None:
    found: dict[str, str] = {}
    write, review = node("write", ("w1", "w2")), node("review", ("again", "good"))
    graph = GraphAgent(
        "g",
        [(write, review, reader("r", found)), Edge(review, write, when="again", max_times=3)],
        documents=[Document("d", writers=[write], appenders=[review], readers=["r"])],
    )
    run_tree(graph)
    assert found["r"] == "w2\n\ngood"


def test_it_is_kept_in_the_state_and_taken_up_from_there() -> None:
    found: dict[str, str] = {}
    graph = GraphAgent(
        "g",
        nodes=[reader("r", found), node("w", "more")],
        documents=[Document("d", appenders=["w"], readers=["r"], key="kept")],
    )
    first = node("first", "begun", output_key="kept")
    ended = run_tree(SequentialAgent("s", [first, graph]))
    assert found["r"] == "begun\n\nmore"
    assert ended.result.state["kept"] == "begun\n\nmore"


def test_it_may_begin_anew_and_need_not_be_kept() -> None:
    found: dict[str, str] = {}
    graph = GraphAgent(
        "g",
        nodes=[reader("r", found), reader("q", found, "e")],
        documents=[
            Document("d", readers=["r"], key="kept", initial="new"),
            Document("e", readers=["q"], initial="other"),
        ],
    )
    ended = run_tree(SequentialAgent("s", [node("first", "old", output_key="kept"), graph]))
    assert found == {"r": "new", "q": "other"}
    assert dict(ended.result.state) == {"kept": "new"}


def test_what_is_no_text_in_the_state_is_refused() -> None:
    graph = GraphAgent("g", nodes=[node("a")], documents=[Document("d", readers=["a"], key="k")])
    ended = run_tree(SequentialAgent("s", [node("first", 7, output_key="k"), graph]))
    assert isinstance(ended.error, StateError)
    assert str(ended.error) == "document 'd' of graph 'g': state['k'] holds no text but 7"


def test_a_key_with_a_reducer_is_refused() -> None:
    graph = GraphAgent("g", nodes=[node("a")], documents=[Document("d", readers=["a"], key="k")])
    ended = run_tree(Runner(graph, reducers={"k": "append"}))
    assert isinstance(ended.error, StateError)
    assert "has a reducer" in str(ended.error)


async def test_it_is_there_when_a_person_has_the_reader_tried_again(autojump_clock: object) -> None:
    found: list[str] = []

    @agent
    async def flaky(ctx: InvocationContext) -> None:
        found.append(ctx.documents["d"])
        if len(found) == 1:
            raise ValueError

    document = Document("d", writers=["w"], readers=[flaky])
    graph = GraphAgent("g", nodes=[node("w"), flaky], documents=[document], barrier=Escalate())
    async with Runner(graph).open("x") as run:
        async for event in run:
            if event.request is not None:
                await run.respond(event.request.id, "retry")
    assert found == ["w", "w"]


def test_only_readers_find_it_and_what_runs_below_them() -> None:
    found: dict[str, str] = {}
    inner = reader("inner", found)
    nodes = [node("w"), SequentialAgent("tree", [inner]), reader("other", found)]
    ended = run_tree(
        GraphAgent("g", nodes=nodes, documents=[Document("d", writers=["w"], readers=["tree"])])
    )
    assert found in ({}, {"inner": "w"})
    assert isinstance(ended.error, KeyError)


def test_what_others_read_is_not_the_output_of_the_graph() -> None:
    nodes = [node("w"), node("r"), node("alone")]
    documents = [Document("d", writers=["w"], readers=["r"]), Document("e", writers=["alone"])]
    ended = run_tree(GraphAgent("g", nodes=nodes, documents=documents))
    assert ended.result.output == {"r": "r", "alone": "alone"}


def test_inferred_links_are_marked() -> None:
    graph = GraphAgent(
        "g", nodes=[node("a"), node("b")], documents=[Document("d", writers=["a"], readers=["b"])]
    )
    (link,) = graph.definition.links
    assert (link.source, link.target, link.feeds, link.inferred) == (0, 1, False, True)
