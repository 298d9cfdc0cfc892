"""The model of the live view, told of everything that can happen, in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    SequentialAgent,
    Status,
    agent,
)
from parallel_agent.observe.live import render
from parallel_agent.observe.progress import KEPT, Node, Progress, names
from tests.cli.kit import HOSTILE, acts

ENDINGS: Final = (Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.WAITING)


def leaf(name: str) -> Agent:
    async def run(ctx: InvocationContext) -> None:
        """Never run: nothing here is."""

    return agent(run, name=name)


def wide(count: int) -> Agent:
    return SequentialAgent("top", [ParallelAgent("fan", [leaf(f"a{i}") for i in range(count)])])


def deep(depth: int) -> Agent:
    tree = leaf("bottom")
    for level in range(depth):
        tree = SequentialAgent(f"s{level}", [tree])
    return tree


def begun(tree: Agent) -> Progress:
    """Make a progress whose root has started."""
    progress = Progress(tree, now=0.0)
    progress.started(tree.name, tree, now=0.0)
    return progress


def text_of(progress: Progress, *, now: float = 0.0, width: int = 80, height: int = 24) -> str:
    return "\n".join(line.plain for line in render([progress], now=now, width=width, height=height))


def node_at(progress: Progress, *keys: str) -> Node:
    node = progress.root
    for key in keys:
        node = node.children[key]
    return node


# -------------------------------------------------------------------------------- what is told


def test_everything_in_the_tree_is_pending_at_first() -> None:
    progress = Progress(wide(3), now=0.0)
    assert +progress.counts == {Status.PENDING: 5}
    assert text_of(progress).count("·") == 5


def test_an_agent_is_found_by_its_place() -> None:
    tree = wide(2)
    progress = begun(tree)
    progress.said("top/fan/a1", leaf("a1"), "hello", now=1.0)
    node = node_at(progress, "fan", "a1")
    assert (node.status, node.text, node.events, node.started) == (Status.RUNNING, "hello", 1, 1)
    assert node_at(progress, "fan", "a0").status is Status.PENDING


def test_the_iterations_of_a_loop_are_one_agent_that_counts() -> None:
    writer = leaf("writer")
    tree = LoopAgent("loop", [writer], max_iterations=3)
    progress = begun(tree)
    for number in (1, 2, 3):
        progress.started(f"loop/writer@{number}", writer, now=number)
        progress.ended(f"loop/writer@{number}", writer, Status.COMPLETED, now=number + 0.5)
    node = node_at(progress, "writer")
    assert (node.started, node.elapsed(99.0), node.status) == (3, 1.5, Status.COMPLETED)
    assert "writer x3" in text_of(progress)


def test_agents_started_at_run_time_appear_below_their_parent() -> None:
    guesser, guess = leaf("guesser"), SequentialAgent("guess", [leaf("inside")])
    progress = begun(guesser)
    progress.started("guesser/guess@1", guess, now=0.0)
    progress.started("guesser/guess@1/inside", guess.sub_agents[0], now=0.0)
    progress.started("guesser/guess@2", guess, now=0.0)
    drawn = [line[:19].rstrip() for line in text_of(progress).splitlines()[:-1]]
    assert drawn == [
        "● guesser",
        "├── ● guess@1",
        "│   └── ● inside",
        "└── ● guess@2",
        "    └── · inside",
    ]


def test_of_many_started_at_run_time_only_the_newest_are_kept() -> None:
    top, child = leaf("top"), SequentialAgent("child", [leaf("below")])
    progress = begun(top)
    for number in range(1_000):
        progress.started(f"top/child@{number}", child, now=0.0)
        progress.ended(f"top/child@{number}", child, Status.COMPLETED, now=0.0)
    kept = list(progress.root.children)
    assert kept == [f"child@{number}" for number in range(1_000)][-KEPT[Status.COMPLETED] :]
    # The others are still counted.
    assert progress.counts[Status.COMPLETED] == 1_000
    assert text_of(progress).splitlines()[-2] == "… not shown: 992 pending, 992 completed"


def test_that_some_were_forgotten_takes_a_line_of_its_own() -> None:
    top, child = leaf("top"), leaf("child")
    progress = begun(top)
    for number in range(KEPT[Status.COMPLETED] + 5):
        progress.started(f"top/child@{number}", child, now=0.0)
        progress.ended(f"top/child@{number}", child, Status.COMPLETED, now=0.0)
    nodes = 1 + KEPT[Status.COMPLETED]
    for lines in (nodes - 1, nodes, nodes + 1):
        picture = progress.fit(lines)
        assert len(picture.rows) == lines - 1
        assert picture.hidden == {Status.COMPLETED: 5 + nodes - len(picture.rows)}


def test_one_that_runs_again_is_kept_however_old_it_is() -> None:
    top, child = leaf("top"), leaf("child")
    progress = begun(top)
    for number in range(KEPT[Status.COMPLETED] + 1):
        progress.started(f"top/child@{number}", child, now=0.0)
        if number == KEPT[Status.COMPLETED]:
            progress.started("top/child@0", child, now=0.0)
        progress.ended(f"top/child@{number}", child, Status.COMPLETED, now=0.0)
    assert "child@0" in progress.root.children


def test_an_agent_below_one_that_nobody_told_of_is_shown_all_the_same() -> None:
    """As when a plugin before this one has answered for its parent."""
    tree = wide(2)
    progress = Progress(tree, now=0.0)
    progress.started("top/fan/a1", leaf("a1"), now=0.0)
    progress.started("top/unknown/b", leaf("b"), now=0.0)
    assert node_at(progress, "fan", "a1").status is Status.RUNNING
    assert node_at(progress, "b").status is Status.RUNNING


def test_time_runs_on_until_an_agent_has_ended() -> None:
    tree = leaf("only")
    progress = begun(tree)
    assert (progress.root.elapsed(2.0), progress.elapsed(2.0)) == (2.0, 2.0)
    progress.ended("only", tree, Status.COMPLETED, now=3.0)
    progress.finish(Status.COMPLETED, now=3.5)
    assert (progress.root.elapsed(9.0), progress.elapsed(9.0)) == (3.0, 3.5)


def test_pieces_of_a_message_show_the_line_being_written() -> None:
    tree = leaf("only")
    progress = begun(tree)
    seen = list[str]()
    for piece in ("one ", "two\n", "three", " four"):
        progress.said("only", tree, piece, now=0.0, partial=True)
        seen.append(progress.root.text)
    progress.said("only", tree, "one two\nthree four", now=0.0)
    assert seen == ["one", "one two", "three", "three four"]
    assert (progress.root.text, progress.root.events) == ("one two three four", 1)


def test_how_an_agent_failed_is_its_last_text() -> None:
    tree = leaf("only")
    progress = begun(tree)
    progress.said("only", tree, "fine so far", now=0.0)
    progress.ended("only", tree, Status.FAILED, now=1.0, why="ValueError: no")
    assert text_of(progress).splitlines()[0].split() == [
        "✗", "only", "1.0s", "1", "ValueError:", "no",
    ]  # fmt: skip


def test_at_work_are_the_innermost_agents_that_run() -> None:
    tree = wide(3)
    progress = begun(tree)
    progress.started("top/fan", tree.sub_agents[0], now=0.0)
    for name in ("a0", "a2"):
        progress.started(f"top/fan/{name}", leaf(name), now=0.0)
    assert progress.working() == ["top/fan/a0", "top/fan/a2"]


def test_who_cleans_up_is_named_below_the_tree() -> None:
    tree = wide(2)
    progress = begun(tree)
    progress.started("top/fan/a1", leaf("a1"), now=0.0)
    progress.cancel("Ctrl-C")
    lines = text_of(progress).splitlines()
    assert lines[-2].startswith("cancelling ")
    assert lines[-1] == "Ctrl-C; still cleaning up: top/fan/a1"
    assert any(line.split() == ["└──", "◌", "a1", "0.0s"] for line in map(str.strip, lines))


def test_of_many_names_the_first_few_are_said() -> None:
    assert names(["a", "b"]) == "a, b"
    assert names([f"a{i}" for i in range(8)], limit=2) == "a0, a1 and 6 more"


# ------------------------------------------------------------------------- a tree that is too high


def test_a_tree_that_fits_is_shown_whole() -> None:
    picture = begun(wide(20)).fit(22)
    assert (len(picture.rows), picture.hidden) == (22, {})


def test_a_tree_that_does_not_fit_keeps_what_failed_and_what_is_at_work() -> None:
    tree = wide(500)
    progress = begun(tree)
    progress.started("top/fan", tree.sub_agents[0], now=0.0)
    for number in range(500):
        name = f"a{number}"
        progress.started(f"top/fan/{name}", leaf(name), now=0.0)
        if number not in (77, 444):
            status = Status.FAILED if number == 300 else Status.COMPLETED
            progress.ended(f"top/fan/{name}", leaf(name), status, now=1.0)
    shown = [row.node.name for row in progress.fit(12).rows]
    assert len(shown) == 11
    assert [name for name in shown if name in ("a77", "a300", "a444")] == ["a77", "a300", "a444"]
    assert shown[:2] == ["top", "fan"]
    assert text_of(progress, height=13).splitlines()[-2] == "… not shown: 491 completed"


def test_the_bottom_of_a_chain_that_does_not_fit_is_shown_apart() -> None:
    tree = deep(3_000)
    progress = begun(tree)
    path, at = tree.name, tree
    while at.sub_agents:
        (at,) = at.sub_agents
        path += f"/{at.name}"
        progress.started(path, at, now=0.0)
    rows = progress.fit(10).rows
    assert [row.node.name for row in rows] == [f"s{2999 - i}" for i in range(7)] + ["s0", "bottom"]
    assert [row.is_apart for row in rows] == [False] * 7 + [True, False]
    assert "…/s0" in text_of(progress, height=11)


# ------------------------------------------------------------------------------- in any order


@attrs.frozen
class Call:
    """One thing that a progress is told."""

    what: str
    path: str
    text: str = ""
    status: Status = Status.COMPLETED
    time: float = 0.0

    def tell(self, progress: Progress, agents: dict[str, Agent]) -> None:
        name = self.path.rpartition("/")[2].partition("@")[0]
        one = agents[name]
        tell: dict[str, Callable[[], Any]] = {
            "started": lambda: progress.started(self.path, one, now=self.time),
            "said": lambda: progress.said(self.path, one, self.text, now=self.time),
            "piece": lambda: progress.said(self.path, one, self.text, now=self.time, partial=True),
            "ended": lambda: progress.ended(
                self.path, one, self.status, now=self.time, why=self.text
            ),
            "cancel": lambda: progress.cancel(self.text),
        }
        tell[self.what]()


def example_tree() -> Agent:
    return SequentialAgent(
        "top",
        [
            ParallelAgent("fan", [leaf(f"a{i}") for i in range(4)]),
            LoopAgent("loop", [leaf("writer"), deep(3)], max_iterations=2),
        ],
    )


def agents_of(tree: Agent) -> dict[str, Agent]:
    line = [tree, SequentialAgent("extra", [leaf("more")])]
    for one in line:
        line += one.sub_agents
    return {one.name: one for one in line}


@st.composite
def paths(draw: st.DrawFn) -> str:
    """A path that begins at the root, and may lead anywhere after that."""
    name = st.sampled_from(["fan", "a0", "a3", "loop", "writer", "s2", "s0", "extra", "more"])
    number = st.one_of(st.just(""), st.integers(1, 12).map(lambda number: f"@{number}"))
    segments = draw(st.lists(st.tuples(name, number).map("".join), max_size=4))
    return "/".join(["top", *segments])


calls = st.builds(
    Call,
    what=st.sampled_from(["started", "said", "piece", "ended", "ended", "cancel"]),
    path=paths(),
    text=HOSTILE,
    status=st.sampled_from(ENDINGS),
    time=st.floats(-10, 1e6),
)


@given(
    st.lists(calls, max_size=60),
    st.integers(1, 100),
    st.integers(1, 30),
    st.sampled_from(["in colour", "in ascii"]),
    st.sampled_from([None, *ENDINGS]),
)
def test_whatever_happens_it_can_be_drawn_and_fits(
    told: list[Call], width: int, height: int, how: str, ending: Status | None
) -> None:
    tree, ascii_only = example_tree(), how == "in ascii"
    progress = Progress(tree, now=0.0)
    for one in told:
        one.tell(progress, agents_of(tree))
    if ending is not None:
        progress.finish(ending, now=5.0)
    lines = render([progress], now=7.0, width=width, height=height, ascii_only=ascii_only)
    assert 1 <= len(lines) <= height
    assert all(line.cell_len <= width for line in lines)
    assert [letter for line in lines for letter in line.plain if acts(letter)] == []
    if ascii_only and not any(one.text for one in told):
        assert all(line.plain.isascii() for line in lines)


@given(st.lists(calls, max_size=60), st.integers(1, 40))
def test_every_node_is_shown_or_counted_as_hidden(told: list[Call], lines: int) -> None:
    tree = example_tree()
    progress = Progress(tree, now=0.0)
    for one in told:
        one.tell(progress, agents_of(tree))
    picture = progress.fit(lines)
    shown = Counter(row.node.status for row in picture.rows)
    assert len({id(row.node) for row in picture.rows}) == len(picture.rows)
    assert len(picture.rows) + bool(picture.hidden) <= lines
    assert shown + Counter(picture.hidden) == +progress.counts
    if not progress.fit(10_000).hidden:  # nothing was forgotten
        there = Counter(node.status for node in progress.root.below())
        assert there == +progress.counts


@given(st.lists(calls, max_size=60), st.integers(10, 40))
def test_what_has_failed_or_is_at_work_is_shown_before_anything_else(
    told: list[Call], lines: int
) -> None:
    tree = example_tree()
    progress = Progress(tree, now=0.0)
    for one in told:
        one.tell(progress, agents_of(tree))
    picture = progress.fit(lines)
    shown = {id(row.node) for row in picture.rows}
    vital = [node for node in progress.root.below() if is_vital(node)]
    if len(vital) + 2 <= lines:
        assert [node.name for node in vital if id(node) not in shown] == []


def is_vital(node: Node) -> bool:
    if node.status is Status.FAILED:
        return True
    return node.status is Status.RUNNING and not any(
        below.status is Status.RUNNING for below in node.below() if below is not node
    )


@pytest.mark.parametrize("runs", [2, 5, 40])
def test_several_runs_share_the_height(runs: int) -> None:
    several = [begun(wide(30)) for _ in range(runs)]
    lines = render(several, now=0.0, width=60, height=20)
    assert len(lines) <= 20
    if runs <= 5:
        assert sum("● top" in line.plain for line in lines) == runs
