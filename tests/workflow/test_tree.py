"""What makes a tree: names, children, callbacks, and classes of one's own."""

# ruff: noqa: ARG002, ARG003, ARG004  # like functions (ARG001), methods may not need their context

from __future__ import annotations

import functools
import sys
import tracemalloc
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, TypeAlias, cast

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    AgentFunctionError,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Runner,
    SequentialAgent,
    TreeError,
    UsageError,
    agent,
)
from tests.support.ids import shown
from tests.workflow.trees import Yields, leaf, leaves, run_tree, texts, walk

WORKFLOWS: list[Callable[..., Agent]] = [
    SequentialAgent,
    ParallelAgent,
    functools.partial(LoopAgent, max_iterations=2),
]

every_workflow = pytest.mark.parametrize(
    "workflow", WORKFLOWS, ids=["sequential", "parallel", "loop"]
)

# ------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize("name", ["a", "_", "A1", "a_10", "größe", "match", "users", "User"])
def test_an_identifier_is_a_name(name: str) -> None:
    assert leaf(name).name == name


@pytest.mark.parametrize(
    "name", ["", "1a", "a b", "a.b", "a/b", "a@1", "a-b", "a\n", "class", "None", "\ud800"]
)
@every_workflow
def test_what_is_no_identifier_is_no_name(workflow: Callable[..., Agent], name: str) -> None:
    with pytest.raises(TreeError) as caught:
        workflow(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", [None, 7, b"a", ("a",), []])
@every_workflow
def test_what_is_no_text_is_no_name(workflow: Callable[..., Agent], name: object) -> None:
    with pytest.raises(TreeError) as caught:
        workflow(name)
    assert repr(name) in str(caught.value)


def test_agents_given_where_the_name_belongs_are_shown() -> None:
    with pytest.raises(TreeError, match=r"agent name \[<FunctionAgent a>, <FunctionAgent b>\]"):
        cast("Any", ParallelAgent)(leaves("a b"))


@every_workflow
def test_no_agent_is_called_user(workflow: Callable[..., Agent]) -> None:
    with pytest.raises(TreeError, match="'user'"):
        workflow("user", leaves("a"))


def test_two_agents_of_one_name_are_both_shown() -> None:
    with pytest.raises(TreeError) as caught:
        SequentialAgent("s", [leaf("a"), ParallelAgent("p", [LoopAgent("a", leaves("x"))])])
    message = str(caught.value)
    assert "'a'" in message
    assert "<FunctionAgent a>" in message
    assert "<LoopAgent a, 1 sub-agents>" in message


def test_a_parent_of_the_name_of_one_below_it_is_refused() -> None:
    with pytest.raises(TreeError, match="two agents in the tree are called 'a'"):
        SequentialAgent("a", [ParallelAgent("p", leaves("b a"))])


def test_an_agent_that_stands_in_two_places_is_named() -> None:
    both = leaf("both")
    with pytest.raises(TreeError, match="'both' stands in the tree twice"):
        SequentialAgent("s", [ParallelAgent("p", [both]), LoopAgent("l", [both], max_iterations=1)])


def test_an_agent_given_twice_to_one_parent_is_named() -> None:
    both = leaf("both")
    with pytest.raises(TreeError, match="'both' stands in the tree twice"):
        ParallelAgent("p", [both, both])


def test_how_to_give_an_agent_another_name_is_said() -> None:
    first = leaf("both")
    for second in (first, leaf("both")):
        with pytest.raises(TreeError) as caught:
            SequentialAgent("s", [first, second])
        assert str(caught.value).endswith("; with_options(name=...) makes a copy with another name")


def test_names_that_begin_alike_are_different_names() -> None:
    tree = ParallelAgent("a", leaves("a_1 a_10 a_100"))
    assert [child.name for child in tree.sub_agents] == ["a_1", "a_10", "a_100"]


def test_an_error_in_a_tree_is_a_usage_error_and_a_value_error() -> None:
    assert issubclass(TreeError, UsageError)
    assert issubclass(TreeError, ValueError)


# --------------------------------------------------------------------------------------- children


@pytest.mark.parametrize(
    "sub_agents", [None, 7, leaf("a"), {leaf("a")}, {leaf("a"): 1}, frozenset[Agent]()]
)
@every_workflow
def test_sub_agents_that_are_no_list_are_refused(
    workflow: Callable[..., Agent], sub_agents: object
) -> None:
    with pytest.raises(TreeError, match="sub_agents of 'tree' must be a list of agents"):
        workflow("tree", sub_agents)


@pytest.mark.parametrize("child", [None, "a", 7, ParallelAgent, leaves("a")], ids=shown)
@every_workflow
def test_a_child_that_is_no_agent_is_named_with_its_place(
    workflow: Callable[..., Agent], child: object
) -> None:
    with pytest.raises(TreeError) as caught:
        workflow("tree", [leaf("first"), child])
    assert "sub_agents[1] of 'tree' is no agent" in str(caught.value)
    assert repr(child)[:80] in str(caught.value)


def test_a_function_among_the_children_is_told_how_to_become_an_agent() -> None:
    with pytest.raises(TreeError, match=r"<function _coroutine .*make it one with @agent"):
        SequentialAgent("s", cast("Any", [_coroutine]))


@pytest.mark.parametrize("make", [tuple, list, iter], ids=["tuple", "list", "iterator"])
def test_children_come_in_any_ordered_form(make: Callable[[list[Agent]], Iterable[Agent]]) -> None:
    children = leaves("a b c")
    assert SequentialAgent("s", make(children)).sub_agents == tuple(children)


def test_changing_the_list_afterwards_changes_no_tree() -> None:
    children = leaves("a b")
    tree = SequentialAgent("s", children)
    children.append(leaf("c"))
    assert [child.name for child in tree.sub_agents] == ["a", "b"]


class Ouroboros(Agent):
    """Stands below itself."""

    def __init__(self) -> None:
        super().__init__("ouroboros", [self])

    async def run(self, ctx: InvocationContext) -> None:
        """Never run."""


class Unborn(Agent):
    """Forgets to call the inherited ``__init__``."""

    def __init__(self) -> None:
        pass

    async def run(self, ctx: InvocationContext) -> None:
        """Never run."""


def test_an_agent_below_itself_is_a_cycle() -> None:
    with pytest.raises(TreeError, match="'ouroboros' is to stand below itself"):
        Ouroboros()


def test_an_agent_that_was_never_initialised_is_named_by_its_class() -> None:
    with pytest.raises(TreeError, match=r"sub_agents\[1\] of 's', a Unborn, is no agent yet"):
        SequentialAgent("s", [leaf("a"), Unborn()])


def test_a_longer_cycle_cannot_be_closed_either() -> None:
    """An agent becomes one at the end of its ``__init__``: none can be below what is below it."""
    later = Unborn()
    with pytest.raises(TreeError, match="is no agent yet"):
        Agent.__init__(later, "later", [SequentialAgent("s", [later])])


def test_an_agent_is_defined_once() -> None:
    a = SequentialAgent("a")
    tree = SequentialAgent("tree", [a])
    with pytest.raises(TreeError, match="<SequentialAgent a> is defined already"):
        SequentialAgent.__init__(a, "a", [tree])
    assert [agent.name for agent in walk(tree)] == ["tree", "a"]


@pytest.mark.parametrize("name", ["name", "sub_agents", "output_key", "description"])
def test_a_definition_cannot_be_changed(name: str) -> None:
    tree = SequentialAgent("s", leaves("a"))
    with pytest.raises(AttributeError):
        setattr(tree, name, getattr(tree, name))


# -------------------------------------------------------------------------------------- arguments


@every_workflow
def test_every_argument_has_the_keyword_that_adk_gives_it(workflow: Callable[..., Agent]) -> None:
    children = leaves("a b")

    def callback(ctx: InvocationContext) -> None:
        """Do nothing."""

    tree = workflow(
        name="tree",
        sub_agents=children,
        description="does",
        output_key="out",
        before_agent_callback=callback,
        after_agent_callback=[callback, callback],
    )
    assert (tree.name, tree.sub_agents) == ("tree", tuple(children))
    assert (tree.description, tree.output_key) == ("does", "out")
    assert (tree.before_agent_callback, tree.after_agent_callback) == ((callback,), (callback,) * 2)


def test_a_loop_takes_its_iterations_by_adks_keyword() -> None:
    assert LoopAgent(name="l", sub_agents=leaves("a"), max_iterations=3).max_iterations == 3


@pytest.mark.parametrize("iterations", [0, -1, 1.0, "3", True, 2.5, object()])
def test_iterations_that_are_no_positive_whole_number_are_refused(iterations: object) -> None:
    with pytest.raises(TreeError) as caught:
        LoopAgent("refine", leaves("a"), max_iterations=cast("Any", iterations))
    assert "'refine'" in str(caught.value)
    assert repr(iterations) in str(caught.value)


def test_a_loop_without_children_and_without_limit_would_spin_for_ever() -> None:
    with pytest.raises(TreeError, match="'l' has no sub-agents and no max_iterations"):
        LoopAgent("l")


@pytest.mark.parametrize("key", ["", 7, b"k", ("k",)])
@every_workflow
def test_an_output_key_that_is_no_text_is_refused(
    workflow: Callable[..., Agent], key: object
) -> None:
    with pytest.raises(TreeError, match="output_key of 'tree'"):
        workflow("tree", leaves("a"), output_key=key)


@pytest.mark.parametrize("place", ["before_agent_callback", "after_agent_callback"])
@pytest.mark.parametrize("callback", [7, [print, 7], "ab", [None]])
@every_workflow
def test_a_callback_that_cannot_be_called_is_refused(
    workflow: Callable[..., Agent], place: str, callback: object
) -> None:
    with pytest.raises(TreeError, match="a callback of 'tree' is not callable"):
        workflow("tree", leaves("a"), **{place: callback})


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_no_callback_can_be_written_in_many_ways(nothing: Any) -> None:
    assert SequentialAgent("s", before_agent_callback=nothing).before_agent_callback == ()


@every_workflow
def test_an_unknown_argument_is_refused(workflow: Callable[..., Agent]) -> None:
    with pytest.raises(TypeError, match="colour"):
        workflow("tree", leaves("a"), colour="red")


# --------------------------------------------------------------------------- what a function can be


async def _async_generator(ctx: InvocationContext) -> Yields:
    yield "x"


async def _coroutine(ctx: InvocationContext) -> str:
    return "x"


def _plain(ctx: InvocationContext) -> str:
    return "x"


async def _more(ctx: InvocationContext, more: int = 1, *rest: int, other: int = 2) -> str:
    return "x"


async def _any(*args: InvocationContext) -> str:
    return "x"


class Thing:
    """Methods can be agents, and so can objects that are called."""

    async def method(self, ctx: InvocationContext) -> str:
        return "x"

    @staticmethod
    async def static(ctx: InvocationContext) -> str:
        return "x"

    @classmethod
    async def of_class(cls, ctx: InvocationContext) -> Yields:
        yield "x"

    async def __call__(self, ctx: InvocationContext) -> Yields:
        yield "x"


def _both(text: str, ctx: InvocationContext) -> str:
    return text


@pytest.mark.parametrize(
    "function",
    [
        _async_generator,
        _coroutine,
        _plain,
        _more,
        _any,
        lambda _: "x",
        Thing().method,
        Thing.static,
        Thing.of_class,
        Thing(),
        functools.partial(_both, "x"),
        functools.partial(functools.partial(_coroutine)),
        functools.partial(Thing()),
    ],
    ids=shown,
)
def test_a_function_of_the_context_is_an_agent(function: Callable[..., Any]) -> None:
    assert texts(run_tree(agent(function, name="a")).delivered) == ["x"]


async def _nothing() -> None: ...


async def _three(ctx: InvocationContext, input: int, more: int) -> None: ...


async def _keyword(ctx: InvocationContext, *, more: int) -> None: ...


async def _by_keyword_only(*, ctx: InvocationContext) -> None: ...


async def _yields_without_context() -> AsyncGenerator[str, None]:
    yield "x"


@pytest.mark.parametrize(
    "function",
    [_nothing, _three, _keyword, _by_keyword_only, _yields_without_context, lambda: None],
)
def test_a_function_of_something_else_is_refused_with_its_signature(
    function: Callable[..., Any],
) -> None:
    with pytest.raises(AgentFunctionError) as caught:
        agent(function)
    assert repr(function.__name__) in str(caught.value)
    assert "called with the context" in str(caught.value)


def _sync_generator(ctx: InvocationContext) -> Any:
    yield "x"


@pytest.mark.parametrize(
    "function", [_sync_generator, functools.partial(_sync_generator)], ids=["plain", "partial"]
)
def test_a_plain_generator_function_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(AgentFunctionError, match=r"'_sync_generator' is a plain generator .*async"):
        agent(function)


@pytest.mark.parametrize("thing", [Thing, int, 7, "name", object()], ids=shown)
def test_what_is_no_function_is_refused(thing: Any) -> None:
    with pytest.raises(AgentFunctionError) as caught:
        agent(thing)
    assert repr(thing)[:80] in str(caught.value)


def test_an_agent_is_not_made_one_twice() -> None:
    with pytest.raises(AgentFunctionError, match="<FunctionAgent a> is an agent already"):
        agent(cast("Any", leaf("a")))


def test_a_function_without_a_proper_name_needs_one() -> None:
    with pytest.raises(TreeError, match="'<lambda>' is no identifier"):
        agent(lambda _: "x")


def test_an_agent_is_called_like_its_function() -> None:
    assert agent(_coroutine).name == "_coroutine"
    assert agent(functools.partial(_both, "x")).name == "_both"
    assert agent(Thing()).name == "Thing"


def test_the_first_line_of_the_docstring_describes_the_agent() -> None:
    async def documented(ctx: InvocationContext) -> None:
        """Count the words.

        And nothing else.
        """

    assert agent(documented).description == "Count the words."
    assert agent(documented, description="Counts.").description == "Counts."


def test_a_function_stays_within_reach() -> None:
    assert agent(_coroutine).function is _coroutine


@pytest.mark.parametrize("function", [_coroutine, _async_generator])
def test_only_a_plain_function_can_be_abandoned(function: Callable[..., Any]) -> None:
    with pytest.raises(AgentFunctionError, match="abandon_on_cancel is for plain functions"):
        agent(function, abandon_on_cancel=True)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        cast("Any", agent)(_coroutine, colour="red")


# --------------------------------------------------------------------------- classes of one's own


class Greeter(Agent):
    """Yields."""

    def __init__(self, name: str, greeting: str) -> None:
        super().__init__(name, description="greets")
        self.greeting = greeting

    async def run(self, ctx: InvocationContext) -> Yields:
        yield f"{self.greeting}, {ctx.user_text}"


class Adder(Agent):
    """Returns."""

    async def run(self, ctx: InvocationContext) -> int:
        return 1 + 1


class Base(Agent):
    """A base for others: it has an ``__init__`` and no ``run``."""

    def __init__(self, name: str) -> None:
        super().__init__(name, description="based")


class Derived(Base):
    async def run(self, ctx: InvocationContext) -> Yields:
        yield "derived"


class Mixin:
    async def run(self, ctx: InvocationContext) -> Yields:
        yield "mixed in"


class Mixed(Mixin, Agent): ...


class Static(Agent):
    @staticmethod
    async def run(ctx: InvocationContext) -> Yields:
        yield "static"


def test_a_class_can_yield() -> None:
    tree = SequentialAgent("both", [Greeter("no", "hei"), Greeter("it", "ciao")])
    assert texts(run_tree(tree, message="Ann").delivered) == ["hei, Ann", "ciao, Ann"]


def test_a_class_can_return_its_output() -> None:
    assert run_tree(Adder("a")).result.output == 2


@pytest.mark.parametrize(
    ("made", "text"),
    [(Derived("a"), "derived"), (Mixed("a"), "mixed in"), (Static("a"), "static")],
)
def test_where_run_comes_from_does_not_matter(made: Agent, text: str) -> None:
    assert run_tree(made).result.text == text


def test_a_class_may_have_attributes_of_its_own() -> None:
    """Words that the runtime might want for itself."""

    class Circle(Agent):
        shape = "round"
        kind = "circle"

        def __init__(self) -> None:
            self._index = 3
            self.state = self.status = self.branch = "mine"
            super().__init__("circle")

        async def run(self, ctx: InvocationContext) -> Yields:
            yield f"{self.shape} {self.kind} {self._index} {self.state}"

    assert run_tree(Circle()).result.text == "round circle 3 mine"


def test_a_class_of_ones_own_runs_its_sub_agents_as_it_likes() -> None:
    class Backwards(Agent):
        async def run(self, ctx: InvocationContext) -> None:
            for child in reversed(self.sub_agents):
                await ctx.run_agent(child)

    tree = Backwards("b", [leaf("one", "1"), leaf("two", "2")])
    assert texts(run_tree(tree).delivered) == ["2", "1"]


@pytest.mark.parametrize("made", [Agent, Base], ids=["the class itself", "a base"])
def test_an_agent_without_run_cannot_be_made(made: type[Agent]) -> None:
    with pytest.raises(AgentFunctionError, match=rf"{made.__name__} must implement `async def run"):
        made("a")


def _generates(self: Agent, ctx: InvocationContext) -> Any:
    yield "x"


def _returns(self: Agent, ctx: InvocationContext) -> Any:
    return "x"


@pytest.mark.parametrize("run", [_generates, _returns, 7, None])
def test_a_run_that_is_not_async_is_refused_when_the_class_is_made(run: object) -> None:
    with pytest.raises(AgentFunctionError, match=r"Wrong\.run must be `async def run"):
        type("Wrong", (Agent,), {"run": run})


async def _without_context(self: Agent) -> None: ...


async def _with_too_much(self: Agent, ctx: InvocationContext, more: int) -> Yields:
    yield "x"


@pytest.mark.parametrize("run", [_without_context, _with_too_much])
def test_a_run_of_something_else_is_refused_when_the_class_is_made(run: object) -> None:
    with pytest.raises(AgentFunctionError, match=r"Wrong\.run is called with one argument"):
        type("Wrong", (Agent,), {"run": run})


def test_a_workflow_class_is_final_for_type_checkers() -> None:
    for workflow in (SequentialAgent, ParallelAgent, LoopAgent):
        assert getattr(workflow, "__final__", False)


@pytest.mark.parametrize("tree", [None, SequentialAgent, "tree", [leaf("a")]], ids=shown)
def test_a_runner_runs_agents_only(tree: Any) -> None:
    with pytest.raises(TreeError, match="what a Runner was given is no agent"):
        Runner(tree)


# -------------------------------------------------------------------- looking agents up by name


def names(tree: Agent) -> dict[str, Agent]:
    return {found.name: found for found in walk(tree)}


def test_an_agent_is_found_by_its_name_at_any_depth() -> None:
    tree = SequentialAgent("s", [ParallelAgent("p", leaves("a b")), leaf("c")])
    assert {name: tree.find_agent(name) for name in "spabc"} == names(tree)


def test_an_agent_finds_itself_and_not_its_parent() -> None:
    child = leaf("a")
    SequentialAgent("s", [child])
    assert (child.find_agent("a"), child.find_agent("s")) == (child, None)


def test_trees_around_one_subtree_do_not_find_each_other() -> None:
    shared = SequentialAgent("shared", leaves("a b"))
    one = ParallelAgent("one", [shared, leaf("x")])
    two = LoopAgent("two", [leaf("y"), shared], max_iterations=1)
    assert [one.find_agent(name) for name in ("y", "two")] == [None, None]
    assert [two.find_agent(name) for name in ("x", "one")] == [None, None]
    assert names(one).keys() == {"one", "shared", "a", "b", "x"}


def test_two_trees_around_one_subtree_may_use_one_name_for_different_agents() -> None:
    shared = leaf("shared")
    trees = [SequentialAgent("root", [shared, leaf("x")]) for _ in range(2)]
    for tree in trees:
        assert tree.find_agent("root") is tree
        assert tree.find_agent("x") is tree.sub_agents[1]


def test_a_construction_that_fails_leaves_what_it_was_given_as_it_was() -> None:
    shared = SequentialAgent("shared", leaves("a"))
    with pytest.raises(TreeError):
        ParallelAgent("p", [shared, leaf("new"), leaf("a")])
    assert shared.find_agent("new") is None
    again = ParallelAgent("p", [shared, leaf("new")])
    assert names(again).keys() == {"p", "shared", "a", "new"}


@attrs.frozen
class Build:
    """Build an agent around some of the agents there are, by their positions."""

    name: str
    below: tuple[int, ...]


Builds: TypeAlias = list[Build]

# Few names, so that they clash; few positions, so that subtrees are shared.
builds = st.lists(
    st.builds(
        Build,
        st.sampled_from(["a", "b", "c", "d", "e", "f", "class"]),
        st.lists(st.integers(0, 11), max_size=3).map(tuple),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=300)
@given(builds)
def test_what_an_agent_finds_is_what_a_walk_finds_whatever_else_was_built(drawn: Builds) -> None:
    """Also that construction fails exactly when two agents of the tree have one name."""
    made: list[Agent] = []
    for build in drawn:
        below = [made[position] for position in build.below if position < len(made)]
        expected = [found.name for child in below for found in walk(child)] + [build.name]
        if build.name != "class" and len(set(expected)) == len(expected):
            made.append(SequentialAgent(build.name, below))
        else:
            with pytest.raises(TreeError):
                SequentialAgent(build.name, below)
        for tree in made:
            assert {name: tree.find_agent(name) for name in "abcdef"} == {
                name: names(tree).get(name) for name in "abcdef"
            }


# ------------------------------------------------------------------------------------- large trees


def chain(depth: int, workflow: Callable[..., Agent] = SequentialAgent) -> Agent:
    tree = leaf("leaf")
    for level in range(depth):
        tree = workflow(f"level{level}", [tree])
    return tree


def calls_and_bytes(build: Callable[[], object]) -> tuple[int, int]:
    """How many calls ``build`` makes, and how much memory what it returns keeps.

    Work is counted, not timed: a machine under load is no slower at counting.
    """
    calls = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        build()
    finally:
        sys.setprofile(before)
    tracemalloc.start()
    try:
        kept = build()
        size, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del kept
    return calls, size


def bush(depth: int) -> Agent:
    """A chain with a leaf beside each link."""
    tree = leaf("leaf")
    for level in range(depth):
        tree = ParallelAgent(f"level{level}", [leaf(f"leaf{level}"), tree])
    return tree


def row(width: int) -> Agent:
    return ParallelAgent("row", [leaf(f"leaf{number}") for number in range(width)])


def growth(build: Callable[[int], object]) -> tuple[float, float]:
    """How many times the calls and the memory of 50 agents 1,000 agents take: 20 if it is fair."""
    (calls, size), (more_calls, more_size) = (
        calls_and_bytes(functools.partial(build, number)) for number in (50, 1_000)
    )
    return more_calls / calls, more_size / size


@pytest.mark.parametrize("build", [chain, bush, row])
def test_building_costs_the_same_per_agent_in_a_tree_of_any_size(
    build: Callable[[int], Agent],
) -> None:
    assert max(growth(build)) < 60


def test_the_measure_of_building_finds_a_copy_at_each_level() -> None:
    def build(depth: int) -> list[list[None]]:
        return [[None] * level for level in range(depth)]

    _, memory = growth(build)
    assert memory > 60


def test_the_measure_of_building_finds_a_walk_at_each_level() -> None:
    def step(below: int) -> int:
        return below

    def build(depth: int) -> list[int]:
        return [sum(step(below) for below in range(level)) for level in range(depth)]

    calls, _ = growth(build)
    assert calls > 60


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=["sequential", "parallel", "loop"])
def test_a_tree_3000_deep_is_built_searched_and_shown(workflow: Callable[..., Agent]) -> None:
    tree = chain(3_000, workflow)
    assert tree.find_agent("leaf") is not None
    assert repr(tree) == f"<{type(tree).__name__} level2999, 1 sub-agents>"
    with pytest.raises(TreeError, match="'leaf'"):
        workflow("top", [tree, leaf("leaf")])


def test_an_agent_shows_its_class_its_name_and_how_much_is_below() -> None:
    assert repr(leaf("a")) == "<FunctionAgent a>"
    assert repr(ParallelAgent("p", leaves("a b"))) == "<ParallelAgent p, 2 sub-agents>"
    assert repr(Runner(leaf("a"))) == "<Runner a: <FunctionAgent a>>"
