"""Pictures of trees and graphs: what is in them, and that both languages take them for that.

Two small strict readers stand for the real ones; the first tests here prove them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    Document,
    Edge,
    GraphAgent,
    InvocationContext,
    LoopAgent,
    MapAgent,
    ParallelAgent,
    SequentialAgent,
    agent,
)
from parallel_agent.observe.harmless import one_line
from parallel_agent.observe.picture import to_dot, to_mermaid
from parallel_agent.testing.strategies import agent_trees
from tests.graph.drawn_graphs import made, nets
from tests.graph.picture_readers import WORDS, Seen, WrongError, read_dot, read_mermaid


def leaf(name: str, description: str = "") -> Agent:
    @agent(name=name, description=description)
    async def work(_ctx: InvocationContext) -> str:
        return name

    return work


BOTH: Final = pytest.mark.parametrize(
    ("write", "read"),
    [
        pytest.param(to_mermaid, read_mermaid, id="mermaid"),
        pytest.param(to_dot, read_dot, id="dot"),
    ],
)
Write = Callable[..., str]
Read = Callable[[str], Seen]


@pytest.mark.parametrize(
    "line",
    [
        'a["say "hi""]',
        'a["a & b"]',
        'a["<b>"]',
        'end["end"]',
        'a["1. first"]',
        'a["_x_"]',
        'a["go in direction TB"]',
        'a["a"]\n  a["a"]',
        'a["a"]\n  a --> b',
        'a["a"]\n  class a failed',
        'subgraph a["a"]',
        "end",
    ],
)
def test_the_reader_of_mermaid_refuses_what_is_wrong(line: str) -> None:
    with pytest.raises(WrongError):
        read_mermaid(f"flowchart TD\n  {line}\n")


@pytest.mark.parametrize(
    "line",
    [
        '"a" [label="say "hi""];',
        '"a" [label="a & b"];',
        '"a" [label="a\nb"];',
        '"a" [label="a \\q"];',
        '"a" [label="a"]; "a" [label="a"];',
        '"a" [label="a"]; "b" [label="b"]; "a" -> "b" [ltail="cluster_c"];',
        'subgraph "c" { graph [label="c"]; }',
        'subgraph "cluster_c" { graph [label="c"];',
        "}",
    ],
)
def test_the_reader_of_dot_refuses_what_is_wrong(line: str) -> None:
    head = "  graph [a=b];\n  node [a=b];\n  edge [a=b];\n"
    with pytest.raises((WrongError, KeyError)):
        read_dot(f'digraph "x" {{\n{head}{line}\n}}\n')


# ------------------------------------------------------------------------------- small pictures


def review() -> Agent:
    plan, prices, risks = leaf("plan", "Plan the work"), leaf("prices"), leaf("risks")
    write, fix, publish = leaf("write"), leaf("fix"), leaf("end")
    return GraphAgent(
        "review",
        [
            (plan, [prices, risks], write, fix),
            Edge(fix, write, when='"no"', max_times=2),
            Edge(fix, publish, default=True),
            Edge(risks, publish, order_only=True),
        ],
        guards=[leaf("allowed")],
    )


def test_a_graph_as_mermaid() -> None:
    assert to_mermaid(review()).splitlines() == [
        "flowchart TD",
        '  subgraph review["review (graph)"]',
        '    allowed{{"allowed"}}',
        '    plan["plan<br>Plan the work"]',
        '    prices["prices"]',
        '    risks["risks"]',
        '    write["write"]',
        '    fix["fix"]',
        '    agent.end["end"]',
        "  end",
        "  allowed --> plan",
        "  plan --> prices",
        "  plan --> risks",
        "  prices --> write",
        "  risks --> write",
        "  write --> fix",
        '  fix -->|"otherwise"| agent.end',
        "  risks --> agent.end",
        "  fix -->|\"if '#34;no#34;', up to 2 times\"| write",
        "  linkStyle 7 stroke-width:1px,stroke:#9e9e9e",
    ]


def test_a_graph_as_dot() -> None:
    assert to_dot(review()).splitlines() == [
        'digraph "review" {',
        '  graph [compound=true, fontname="Helvetica"];',
        '  node [shape=box, fontname="Helvetica"];',
        '  edge [fontname="Helvetica"];',
        '  subgraph "cluster_review" {',
        '    graph [label="review (graph)"];',
        '    "allowed" [label="allowed", shape=hexagon];',
        '    "plan" [label="plan\\nPlan the work"];',
        '    "prices" [label="prices"];',
        '    "risks" [label="risks"];',
        '    "write" [label="write"];',
        '    "fix" [label="fix"];',
        '    "end" [label="end"];',
        "  }",
        '  "allowed" -> "plan";',
        '  "plan" -> "prices";',
        '  "plan" -> "risks";',
        '  "prices" -> "write";',
        '  "risks" -> "write";',
        '  "write" -> "fix";',
        '  "fix" -> "end" [label="otherwise"];',
        '  "risks" -> "end" [penwidth=0.5, color="#9e9e9e", arrowhead=vee];',
        '  "fix" -> "write" [label="if \'\\"no\\"\', up to 2 times", constraint=false];',
        "}",
    ]


def tree() -> Agent:
    side = ParallelAgent("side", [leaf("a"), MapAgent("each", leaf("b"), items_key="list")])
    return SequentialAgent("line", [side, LoopAgent("ring", [leaf("c")], max_iterations=3)])


def test_a_tree_as_mermaid() -> None:
    assert to_mermaid(tree()).splitlines() == [
        "flowchart TD",
        '  subgraph line["line (sequential)"]',
        '    subgraph side["side (parallel)"]',
        '      side.fork(("fork"))',
        '      a["a"]',
        "      subgraph each[\"each (for each item of 'list')\"]",
        '        b["b"]',
        "      end",
        '      side.join(("join"))',
        "    end",
        '    subgraph ring["ring (loop, at most 3)"]',
        '      c["c"]',
        "    end",
        "  end",
        "  side --> ring",
        "  side.fork --> a",
        "  a --> side.join",
        "  side.fork --> each",
        "  each --> side.join",
        '  c -->|"up to 3 times"| c',
    ]


def test_in_dot_an_arrow_is_cut_off_where_a_group_begins() -> None:
    assert [line for line in to_dot(tree()).splitlines() if "->" in line] == [
        '  "side.join" -> "c" [ltail="cluster_side", lhead="cluster_ring"];',
        '  "side.fork" -> "a";',
        '  "a" -> "side.join";',
        '  "side.fork" -> "b" [lhead="cluster_each"];',
        '  "b" -> "side.join" [ltail="cluster_each"];',
        '  "c" -> "c" [label="up to 3 times", constraint=false];',
    ]


@BOTH
def test_one_agent_is_one_box(write: Write, read: Read) -> None:
    seen = read(write(leaf("alone")))
    assert (seen.names, seen.arrows) == (["alone"], [])


@BOTH
def test_an_agent_with_nothing_below_is_a_box_as_well(write: Write, read: Read) -> None:
    line = SequentialAgent("line", [ParallelAgent("p"), SequentialAgent("g"), leaf("a")])
    seen = read(write(line))
    assert set(seen.shapes.values()) == {"group", "box"}
    assert seen.named_arrows() == Counter({("p", "g", ""): 1, ("g", "a", ""): 1})


@BOTH
def test_what_was_inferred_is_dotted_and_what_only_orders_thin(write: Write, read: Read) -> None:
    a, b, c = map(leaf, "abc")
    shared = Document("notes", writers=[a], readers=[b])
    graph = GraphAgent("g", [Edge(b, c, order_only=True)], nodes=[a], documents=[shared])
    seen = read(write(graph))
    arrows = {
        label: {seen.arrows[number][:2] for number in numbers}
        for label, numbers in (("dotted", seen.dotted), ("thin", seen.thin))
    }
    assert arrows == {"dotted": {("a", "b")}, "thin": {("a", "b"), ("b", "c")}}


@BOTH
def test_a_loop_of_one_group_leads_from_its_last_box_to_its_first(write: Write, read: Read) -> None:
    ring = LoopAgent("ring", [SequentialAgent("line", [leaf("a"), leaf("b")])], max_iterations=1)
    assert read(write(ring)).named_arrows() == Counter(
        {("a", "b", ""): 1, ("b", "a", "up to 1 time"): 1}
    )


@BOTH
def test_guards_come_before_all_that_starts_with_the_graph(write: Write, read: Read) -> None:
    guards = [leaf("g1"), leaf("g2")]
    a, b, c = map(leaf, "abc")
    seen = read(write(GraphAgent("g", [(a, b)], nodes=[c], guards=guards)))
    arrows = [("g1", "g2"), ("g2", "a"), ("g2", "c"), ("a", "b")]
    assert seen.named_arrows() == Counter((one, other, "") for one, other in arrows)
    hexagons = [key for key, shape in seen.shapes.items() if shape == "hexagon"]
    assert hexagons == ["g1", "g2"]


def test_a_long_description_is_cut_in_mermaid_and_a_tooltip_in_dot() -> None:
    said = "As long as it is wide, and not a bit shorter than that"
    mermaid, dot = read_mermaid(to_mermaid(leaf("a", said))), read_dot(to_dot(leaf("a", said)))
    assert mermaid.lines["a"] == ["a", one_line(said, 40)]
    assert (dot.lines["a"], dot.tooltips) == (["a"], {"a": said})


# -------------------------------------------------------------------------------------- all trees


def all_of(root: Agent) -> Iterator[Agent]:
    todo = [root]
    while todo:
        found = todo.pop()
        yield found
        todo.extend(found.sub_agents)


def arrows_of(root: Agent) -> Counter[tuple[str, str, str]]:
    """Return the arrows that there are to be, but for loops around a single group."""
    found = Counter[tuple[str, str, str]]()
    for one in all_of(root):
        names = [child.name for child in one.sub_agents]
        if isinstance(one, SequentialAgent | LoopAgent):
            found.update((a, b, "") for a, b in pairwise(names))
        if isinstance(one, LoopAgent) and names:
            most = one.max_iterations
            label = "again" if most is None else f"up to {most} time{'s' * (most > 1)}"
            found[names[-1], names[0], label] += 1
        if isinstance(one, ParallelAgent):
            found.update((f"{one.name}.fork", name, "") for name in names)
            found.update((name, f"{one.name}.join", "") for name in names)
        if isinstance(one, GraphAgent):
            nodes = [node.name for node in one.definition.nodes]
            links = [(link, link.label) for link in one.definition.links]
            for loop in one.definition.loops:
                times = f"up to {loop.max_times} time{'s' * (loop.max_times > 1)}"
                links.append((loop.link, f"{loop.link.label}, {times}".removeprefix(", ")))
            found.update((nodes[link.source], nodes[link.target], label) for link, label in links)
            entered = {link.target for link in one.definition.links}
            guards = names[: len(one.guards)]
            found.update((a, b, "") for a, b in pairwise(guards))
            if guards:
                found.update(
                    (guards[-1], node, "")
                    for number, node in enumerate(nodes)
                    if number not in entered
                )
    return found


def check(root: Agent, seen: Seen) -> None:
    agents = list(all_of(root))
    assert Counter(seen.names) == Counter(one.name for one in agents)
    wanted, found = arrows_of(root), seen.named_arrows()
    groups = {one.name for one in agents if one.sub_agents}
    around = {arrow for arrow in wanted if arrow[0] == arrow[1] and arrow[0] in groups}
    assert found.total() == wanted.total()
    for arrow in around:  # drawn from its last box to its first
        del wanted[arrow]
    missing = found - wanted
    assert missing.total() == len(around)
    assert {label for _, _, label in missing} <= {label for _, _, label in around}


@BOTH
@given(root=agent_trees(max_depth=4))
def test_a_tree_has_every_agent_and_every_arrow_once(root: Agent, write: Write, read: Read) -> None:
    check(root, read(write(root)))


@BOTH
@settings(max_examples=30)
@given(net=nets())
def test_a_graph_has_every_node_and_every_link_once(net: Any, write: Write, read: Read) -> None:
    root = made(net)
    check(root, read(write(root)))


NASTY: Final = st.text(
    st.sampled_from(['"', "#", "<", ">", "&", "\\", "\n", "\r", "|", "[", "]", "{", "}", "(", ")"])
    | st.sampled_from([";", ":", "%", "`", "*", "_", "-", "1", ".", " ", "$", "@", "~", "n", "N"])
    | st.characters(),
    max_size=12,
) | st.sampled_from(
    [
        *("direction TB", "style a:b#c;", "%%{init: {}}%%", "</b>", "#quot;", "&quot;", "1. x"),
        *("_x_", "- x", "\\N", '"];', "subgraph x", "end", "``", "fa:fa-car", "$$x$$", "click a"),
        "\ud800",
    ]
)


@BOTH
@given(said=NASTY)
def test_whatever_is_said_is_text_in_the_picture(said: str, write: Write, read: Read) -> None:
    a, b = leaf("a", said), leaf("b")
    graph = GraphAgent("g", [Edge(a, b, when=said.encode("utf-8", "replace").decode())])
    seen = read(write(graph))
    shown = one_line(said)
    assert seen.lines["a"] == (["a", shown] if shown else ["a"])
    [label] = [label for _, _, label in seen.arrows]
    assert label == one_line(graph.definition.links[0].label)


NAMES: Final = sorted((WORDS | {name.upper() for name in WORDS}) - {"class"}) + list("ovxé_") + [
    "linkStyle", "classDef", "agent", "fork", "cluster_a", "über", "日本", "_x_", "__init__", "ªº",
]  # fmt: skip


@BOTH
@given(data=st.data())
def test_no_name_is_taken_for_something_else(data: st.DataObject, write: Write, read: Read) -> None:
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=3, max_size=8, unique=True))
    first, second, *rest = names
    root = SequentialAgent(first, [ParallelAgent(second, map(leaf, rest))])
    seen = read(write(root))
    assert sorted(seen.names) == sorted(names)
    assert len(seen.lines) == len(names) + 2


@BOTH
def test_the_same_tree_gives_the_same_text(write: Write, read: Read) -> None:
    assert write(review()) == write(review())
    assert read(write(review())).names


@BOTH
def test_a_tree_may_be_thousands_deep(write: Write, read: Read) -> None:
    root = leaf("a")
    for level in range(3_000):
        below = [root]
        if level % 3 == 0:
            root = SequentialAgent(f"l{level}", below)
        elif level % 3 == 1:
            root = LoopAgent(f"l{level}", below, max_iterations=2)
        else:
            root = ParallelAgent(f"l{level}", below)
    seen = read(write(root))
    assert len(seen.groups) == 3_000


def chain(size: int) -> Agent:
    deep: Agent = leaf("deep")
    for level in range(size):
        deep = SequentialAgent(f"l{level:04}", [deep])
    return GraphAgent("g", [(*(leaf(f"n{number:04}") for number in range(size)), deep)])


@BOTH
def test_a_picture_grows_with_the_tree_and_no_faster(write: Write, read: Read) -> None:
    small, large = write(chain(500)), write(chain(2_000))
    assert len(large) <= 4.1 * len(small)
    assert read(small).names
