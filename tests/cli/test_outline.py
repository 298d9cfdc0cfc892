"""A tree as text."""

from __future__ import annotations

import textwrap

from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    SequentialAgent,
    agent,
)
from parallel_agent.observe.outline import MAX_RAILS, kind_of, outline, rails


@agent(output_key="words")
async def count(ctx: InvocationContext) -> str:
    """Count the words.

    And more that nobody needs here.
    """
    return "1"


class Greeter(Agent):
    """An agent of somebody's own."""

    async def run(self, _ctx: InvocationContext) -> str:
        return "hello"


def some_tree() -> Agent:
    return SequentialAgent(
        "survey",
        [
            ParallelAgent("measure", [count, Greeter("greet")]),
            LoopAgent("refine", [LoopAgent("inner", [Greeter("again")])], max_iterations=5),
        ],
        description="All of it.",
    )


def chain(depth: int) -> Agent:
    tree: Agent = Greeter("leaf")
    for level in range(depth):
        tree = SequentialAgent(f"s{level}", [tree])
    return tree


def test_an_outline_shows_names_kinds_keys_and_descriptions() -> None:
    expected = """\
        survey             sequential: All of it.
        ├── measure        parallel
        │   ├── count      function -> words: Count the words.
        │   └── greet      Greeter
        └── refine         loop, at most 5
            └── inner      loop
                └── again  Greeter"""
    assert outline(some_tree()) == textwrap.dedent(expected)


def test_in_ascii_it_has_the_same_shape() -> None:
    drawn = outline(some_tree())
    for fine, plain in (("├──", "|--"), ("└──", "`--"), ("│", "|")):
        drawn = drawn.replace(fine, plain)
    assert outline(some_tree(), ascii_only=True) == drawn
    assert drawn.isascii()


def test_a_tree_of_any_depth_has_an_outline() -> None:
    lines = outline(chain(3_000)).splitlines()
    assert len(lines) == 3_001
    assert lines[-1].endswith("└── leaf  Greeter")
    assert max(map(len, lines)) < 100


def test_what_is_not_drawn_of_the_depth_is_said() -> None:
    lines = outline(chain(MAX_RAILS + 3)).splitlines()
    assert not any("more)" in line for line in lines[: MAX_RAILS + 1])
    assert [line.split(")")[0] for line in lines[MAX_RAILS + 1 :]] == [
        "(1 more",
        "(2 more",
        "(3 more",
    ]


@given(st.lists(st.booleans(), max_size=3 * MAX_RAILS))
def test_rails_are_as_wide_as_what_they_stand_for(last: list[bool]) -> None:
    drawn = rails(last)
    _, _, drawn = drawn.rpartition(") ")
    assert len(drawn) == 4 * min(len(last), MAX_RAILS)


def test_a_description_cannot_act_on_the_terminal() -> None:
    evil = Greeter("evil", description="one\n\x1b[2Jtwo", output_key="k\x9b")
    assert outline(evil) == "evil  Greeter -> k\\x9b: one \\x1b[2Jtwo"


def test_the_kind_of_a_class_of_ones_own_is_its_name() -> None:
    assert [kind_of(one) for one in (Greeter("a"), count)] == ["Greeter", "function"]
