"""Forks, joins and who sees what: `Branch.limit_for` against sets of what each line has seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import attrs
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from parallel_agent.branch import EVERYTHING, NEWEST, NOTHING, Branch, Place

Limit: TypeAlias = Callable[[Branch, Branch], int]

# ------------------------------------------------------------------------------------- the model
#
# Every line keeps the set of the events that it has seen. A fork copies the set, a join pours the
# children's sets back, an event goes into its own line's set. No order, no depth, no ancestors.


@attrs.frozen
class Emit:
    """A line that still runs records an event."""

    line: int


@attrs.frozen
class Fork:
    """A line that still runs forks into children of these names."""

    line: int
    names: tuple[str, ...]


@attrs.frozen
class Join:
    """One of the fan-outs that can be joined is: nothing below it still runs."""

    which: int


Op: TypeAlias = Emit | Fork | Join

# Names that are prefixes of each other, and that repeat.
names = st.sampled_from(["a", "a_1", "a_10", "b"])
programs: st.SearchStrategy[list[Op]] = st.lists(
    st.one_of(
        st.builds(Emit, st.integers(0, 9)),
        st.builds(Fork, st.integers(0, 9), st.lists(names, min_size=1, max_size=3).map(tuple)),
        st.builds(Join, st.integers(0, 9)),
    ),
    max_size=30,
)


@attrs.define(eq=False)
class Line:
    """A branch, and what the model knows of it."""

    branch: Branch
    seen: set[int]
    ended: bool = False
    fan_outs: list[list[Line]] = attrs.field(factory=list)
    """Those forked from it and not joined."""


class World:
    """All lines of one run, and every event's line."""

    def __init__(self) -> None:
        self.lines = [Line(Branch(), set())]
        self.events: list[Line] = []  # the event with number n is events[n - 1]
        self.tick = 0

    def run(self, program: list[Op]) -> World:
        """Do what can be done; what cannot (joining nothing) is passed over."""
        for op in program:
            running = [line for line in self.lines if not line.ended]
            match op:
                case Emit(line=index):
                    self.emit(running[index % len(running)])
                case Fork(line=index, names=segments):
                    self.fork(running[index % len(running)], segments)
                case Join(which=index):
                    ready = list(self._joinable())
                    if ready:
                        self.join(*ready[index % len(ready)])
        return self

    def emit(self, line: Line) -> None:
        self.events.append(line)
        line.seen.add(len(self.events))

    def fork(self, line: Line, segments: tuple[str, ...]) -> None:
        self.tick += 1
        children = [
            Line(
                Branch(line.branch, segment, forked=self.tick, forked_seq=len(self.events)),
                set(line.seen),
            )
            for segment in segments
        ]
        self.lines += children
        line.fan_outs.append(children)

    def join(self, line: Line, children: list[Line]) -> None:
        self.tick += 1
        line.fan_outs.remove(children)
        for child in children:
            child.ended = True
            child.branch.joined = self.tick
            line.seen |= child.seen

    def _joinable(self) -> Iterator[tuple[Line, list[Line]]]:
        for line in self.lines:
            for children in line.fan_outs:
                if not any(child.fan_outs for child in children):
                    yield line, children

    def wrong(self, limit: Limit = Branch.limit_for) -> list[tuple[Branch, int]]:
        """Return every reader and event number about which ``limit`` and the model disagree."""
        return [
            (reader.branch, number)
            for reader in self.lines
            for number, writer in enumerate(self.events, 1)
            if (number <= limit(reader.branch, writer.branch)) != (number in reader.seen)
        ]


@given(programs)
def test_a_branch_sees_exactly_what_flowed_into_it_by_forks_and_joins(program: list[Op]) -> None:
    assert World().run(program).wrong() == []


def _everything(_reader: Branch, _writer: Branch) -> int:
    return EVERYTHING


def _by_name(reader: Branch, writer: Branch) -> int:
    """Take a prefix of the dotted name for an ancestor."""
    above = reader is not writer and (reader.name or "").startswith(writer.name or "")
    return reader.forked_seq if above else reader.limit_for(writer)


def _without_fork_limit(reader: Branch, writer: Branch) -> int:
    return EVERYTHING if reader.limit_for(writer) != NOTHING else NOTHING


def _joined_is_joined(reader: Branch, writer: Branch) -> int:
    """Forget that the join must have come before the reader's own fork."""
    return EVERYTHING if writer.joined is not None else reader.limit_for(writer)


def _only_its_own_line(reader: Branch, writer: Branch) -> int:
    above: Branch | None = reader
    while above is not None:
        if above is writer:
            return reader.limit_for(writer)
        above = above.parent
    return NOTHING


def _same_name_same_branch(reader: Branch, writer: Branch) -> int:
    return EVERYTHING if reader.name == writer.name else reader.limit_for(writer)


# A found example proves the point; a small one would not prove it better.
SEARCH = settings(max_examples=5_000, database=None, phases=[Phase.generate])


@pytest.mark.parametrize(
    "broken",
    [
        _everything,
        _by_name,
        _without_fork_limit,
        _joined_is_joined,
        _only_its_own_line,
        _same_name_same_branch,
    ],
)
def test_the_model_finds_a_broken_rule(broken: Limit) -> None:
    find(programs, lambda drawn: bool(World().run(drawn).wrong(broken)), settings=SEARCH)


def test_a_sibling_whose_name_is_a_prefix_is_no_ancestor() -> None:
    world = World().run([Fork(0, ("a_1", "a_10")), Emit(1)])
    a_1, a_10 = (line.branch for line in world.lines[1:])
    assert (a_10.name or "").startswith(a_1.name or "-")
    assert a_10.limit_for(a_1) == NOTHING


# -------------------------------------------------------------------------------------- by hand


def test_a_branch_sees_all_of_its_own_events() -> None:
    root = Branch()
    child = Branch(root, "p.a", forked=1, forked_seq=3)
    assert (root.limit_for(root), child.limit_for(child)) == (EVERYTHING, EVERYTHING)


def test_of_an_ancestor_a_branch_sees_what_was_handed_out_before_its_line_forked() -> None:
    root = Branch()
    child = Branch(root, "p.a", forked=1, forked_seq=3)
    grandchild = Branch(child, "q.b", forked=2, forked_seq=7)
    assert grandchild.limit_for(root) == 3
    assert grandchild.limit_for(child) == 7


def test_of_a_running_child_its_parent_sees_nothing() -> None:
    root = Branch()
    assert root.limit_for(Branch(root, "p.a", forked=1)) == NOTHING


def test_of_a_joined_child_its_parent_sees_everything() -> None:
    root = Branch()
    child = Branch(root, "p.a", forked=1)
    child.joined = 2
    assert root.limit_for(child) == EVERYTHING


def test_of_a_joined_sibling_a_branch_that_ran_beside_it_sees_nothing() -> None:
    root = Branch()
    one, two = (Branch(root, segment, forked=1) for segment in ("p.a", "p.b"))
    one.joined = two.joined = 2
    assert one.limit_for(two) == NOTHING


def test_a_branch_forked_after_a_join_sees_what_was_joined() -> None:
    root = Branch()
    early = Branch(root, "p.a", forked=1)
    early.joined = 2
    late = Branch(root, "q.a", forked=3, forked_seq=5)
    assert late.limit_for(early) == 5
    assert early.limit_for(late) == NOTHING


def test_two_runs_see_nothing_of_each_other() -> None:
    one, two = Branch(), Branch()
    below = Branch(Branch(two, "p.a", forked=1), "q.b", forked=2)
    assert one.limit_for(two) == NOTHING
    assert one.limit_for(below) == NOTHING
    assert below.limit_for(one) == NOTHING


def test_an_event_without_a_number_yet_is_newer_than_every_fork() -> None:
    """A conflict is looked for before the event is numbered."""
    assert 10**15 < NEWEST <= EVERYTHING


def test_the_root_branch_has_no_name() -> None:
    assert Branch().name is None


def test_a_name_is_the_segments_from_the_root_down() -> None:
    child = Branch(Branch(Branch(), "fan.a"), "inner.b")
    assert child.name == "fan.a.inner.b"


@given(st.lists(names, min_size=1, max_size=6))
def test_a_name_follows_from_the_segments_alone(segments: list[str]) -> None:
    branch = Branch()
    for segment in segments:
        branch = Branch(branch, segment)
    assert branch.name == ".".join(segments)
    assert branch.depth == len(segments)


def test_the_deepest_branches_are_named_and_compared_without_recursion() -> None:
    root = Branch()
    deep = other = root
    for _ in range(5_000):
        deep, other = Branch(deep, "d"), Branch(other, "o")
    assert (deep.name or "").count(".") == 4_999
    assert deep.limit_for(other) == NOTHING
    assert deep.limit_for(root) == 0


def test_a_branch_says_where_it_is() -> None:
    root = Branch()
    assert repr(root) == "<Branch (root)>"
    assert repr(Branch(root, "p.a")) == "<Branch p.a>"


# ------------------------------------------------------------------------------------- activations


def place(author: str, parent: Place | None = None, number: int | None = None) -> Place:
    line = Branch() if parent is None else parent.line
    return Place(author, invocation_id="run", line=line, parent=parent, number=number)


def test_a_path_goes_from_the_root_of_the_tree_to_the_activation() -> None:
    assert place("critic", place("refine", place("pipeline"))).path == "pipeline/refine/critic"


def test_a_number_tells_two_activations_of_one_agent_apart() -> None:
    loop = place("refine")
    paths = [place("critic", loop, number).path for number in (1, 2)]
    assert paths == ["refine/critic@1", "refine/critic@2"]


def test_the_numbers_of_those_above_are_part_of_a_path() -> None:
    assert place("leaf", place("inner", place("outer"), 3), 2).path == "outer/inner@3/leaf@2"


def test_a_place_has_the_branch_of_its_line() -> None:
    line = Branch(Branch(), "fan.a")
    assert Place("a", invocation_id="run", line=line).branch == "fan.a"
    assert place("root").branch is None


def test_a_very_deep_path_is_put_together_without_recursion() -> None:
    deepest = place("a")
    for _ in range(5_000):
        deepest = place("a", deepest)
    assert deepest.path.count("/") == 5_000
