"""`Agent.with_options`: a changed copy, and how one agent stands in several places."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import attrs
import pytest
import trio

from parallel_agent import (
    Agent,
    AgentTimeoutError,
    BestEffort,
    InvocationContext,
    Limiter,
    LoopAgent,
    ParallelAgent,
    Quorum,
    Retry,
    Runner,
    SequentialAgent,
    TreeError,
    agent,
)
from tests.support.ids import shown
from tests.workflow.trees import Diary, Yields, leaf, paths, run_tree, run_virtual, texts, walk

LIMITER = Limiter(2)


def callback(_ctx: InvocationContext) -> None: ...


def other_callback(_ctx: InvocationContext) -> None: ...


@attrs.frozen
class Option:
    """An option: its name, what it is without, a value, and what reading that gives."""

    name: str
    absent: Any
    value: Any
    read: Any


OPTIONS = [
    Option("description", "", "does this", "does this"),
    Option("output_key", None, "k", "k"),
    Option("before_agent_callback", (), callback, (callback,)),
    Option("after_agent_callback", (), [callback, other_callback], (callback, other_callback)),
    Option("retry", None, Retry(2), Retry(2)),
    Option("timeout", None, 3, 3.0),
    Option("idle_timeout", None, 0.5, 0.5),
    Option("limiter", None, LIMITER, LIMITER),
]


class Greeter(Agent):
    """A class of a user's own, with state of its own."""

    def __init__(self, name: str, greeting: str, **options: Any) -> None:
        super().__init__(name, **options)
        self.greeting = greeting
        self.heard: list[str] = []

    async def run(self, ctx: InvocationContext) -> Yields:
        self.heard.append(ctx.path)
        yield f"{self.greeting} from {ctx.agent.name}"


MAKES: dict[str, Callable[..., Agent]] = {
    "function": lambda name, **options: leaf(name, "x", **options),
    "class": lambda name, **options: Greeter(name, "hello", **options),
    "sequential": lambda name, **options: SequentialAgent(name, [leaf("below", "x")], **options),
    "parallel": lambda name, **options: ParallelAgent(name, [leaf("below", "x")], **options),
    "loop": lambda name, **options: LoopAgent(
        name, [leaf("below", "x")], max_iterations=2, **options
    ),
}

makes = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES.keys())
each_option = pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)


# ------------------------------------------------------------------------------------- one option


@makes
@each_option
def test_the_copy_has_the_option_and_the_original_has_not(
    make: Callable[..., Agent], option: Option
) -> None:
    original = make("a", description="")
    copy = original.with_options(**{option.name: option.value})
    assert getattr(copy, option.name) == option.read
    assert getattr(original, option.name) == option.absent


@makes
@each_option
def test_what_is_not_named_stays(make: Callable[..., Agent], option: Option) -> None:
    original = make("a", **{option.name: option.value})
    copy = original.with_options(name="b")
    assert getattr(copy, option.name) == option.read
    assert (original.name, copy.name) == ("a", "b")


@makes
@each_option
def test_an_option_can_be_taken_away(make: Callable[..., Agent], option: Option) -> None:
    absent: Any = option.absent or ("" if option.name == "description" else None)
    copy = make("a", **{option.name: option.value}).with_options(**{option.name: absent})
    assert getattr(copy, option.name) == option.absent


@makes
def test_a_copy_is_of_the_same_class_and_not_the_same(make: Callable[..., Agent]) -> None:
    original = make("a")
    copy = original.with_options()
    assert type(copy) is type(original)
    assert copy is not original
    assert copy.name == "a"
    assert copy.sub_agents == original.sub_agents
    assert copy.run_shape == original.run_shape
    assert copy.input_schema is original.input_schema


def test_options_add_up_over_several_copies() -> None:
    first = leaf("a", "x", timeout=1)
    third = first.with_options(retry=Retry(2)).with_options(timeout=2).with_options(name="b")
    assert (third.name, third.timeout, third.retry) == ("b", 2, Retry(2))
    assert (first.name, first.timeout, first.retry) == ("a", 1, None)


def test_a_list_of_callbacks_that_changes_later_changes_nothing() -> None:
    callbacks = [callback]
    copy = leaf("a").with_options(before_agent_callback=callbacks)
    callbacks.append(other_callback)
    assert copy.before_agent_callback == (callback,)


@pytest.mark.parametrize("option", ["retry", "timeout", "idle_timeout"])
def test_whether_there_are_attempts_is_known_of_the_copy(option: str) -> None:
    values: dict[str, Any] = {"retry": Retry(1), "timeout": 1, "idle_timeout": 1}
    original = leaf("a")
    copy = original.with_options(**{option: values[option]})
    assert (original.has_attempts, copy.has_attempts) == (False, True)
    without: dict[str, Any] = {option: None}
    assert not copy.with_options(**without).has_attempts


# ---------------------------------------------------------------------------------- what it does


def test_an_agent_that_one_did_not_write_gets_a_retry_and_a_timeout() -> None:
    begun = Diary()

    @agent
    async def theirs(ctx: InvocationContext) -> str:
        begun.append(ctx.path)
        await trio.sleep(5 if len(begun) == 1 else 1)
        return "done"

    ours = theirs.with_options(retry=Retry(2, initial_delay=0), timeout=2)
    assert run_tree(ours).result.output == "done"
    assert begun == ["theirs", "theirs~2"]
    begun.clear()
    assert run_tree(theirs).time == 5


def test_the_original_still_runs_as_it_was() -> None:
    original = leaf("a", 5, "x")
    timed = original.with_options(name="b", timeout=1)
    tree = ParallelAgent("p", [original, timed], barrier=BestEffort())
    ended = run_tree(tree)
    assert ended.outcomes("p") == {"a": "completed", "b": "failed"}
    assert isinstance(ended.outcome("p", "b").error, AgentTimeoutError)


def test_an_output_key_belongs_to_the_copy() -> None:
    original = leaf("a", "x", output_key="a")
    tree = SequentialAgent("s", [original, original.with_options(name="b", output_key="b")])
    assert run_tree(tree).result.state == {"a": "x", "b": "x"}


def test_names_let_one_agent_stand_in_several_places() -> None:
    greeter = Greeter("greeter", "hello")
    tree = SequentialAgent(
        "s",
        [
            greeter,
            ParallelAgent("p", [greeter.with_options(name=f"g{n}") for n in range(3)]),
            LoopAgent("l", [greeter.with_options(name="last")], max_iterations=1),
        ],
    )
    ended = run_tree(tree)
    assert sorted(paths(ended.delivered)) == [
        "s/greeter",
        "s/l/last@1",
        "s/p/g0",
        "s/p/g1",
        "s/p/g2",
    ]
    assert "hello from last" in texts(ended.delivered)
    assert [found.name for found in walk(tree)] == [
        "s",
        "greeter",
        "p",
        "g0",
        "g1",
        "g2",
        "l",
        "last",
    ]


def test_without_another_name_it_stands_in_one_place_as_ever() -> None:
    original = leaf("a")
    with pytest.raises(TreeError, match="two agents in the tree are called 'a'"):
        SequentialAgent("s", [original, original.with_options(timeout=1)])


def test_a_copy_stands_in_a_tree_in_which_its_original_does_not() -> None:
    original = leaf("a", "x")
    first = SequentialAgent("s", [original])
    second = SequentialAgent("t", [original.with_options(timeout=5)])
    assert first.find_agent("a") is original
    assert second.find_agent("a") is not original
    assert [run_tree(tree).error for tree in (first, second)] == [None, None]


def test_what_a_class_keeps_is_shared_with_its_copies() -> None:
    """A copy is shallow: a definition has no state that runs change, or shares it."""
    original = Greeter("a", "hello")
    copy = original.with_options(name="b")
    assert isinstance(copy, Greeter)
    run_tree(SequentialAgent("s", [original, copy]))
    assert copy.heard is original.heard
    assert original.heard == ["s/a", "s/b"]
    assert copy.greeting == "hello"


def test_two_copies_run_side_by_side_and_in_two_runs_at_once() -> None:
    base = leaf("base", 1, "x")
    tree = ParallelAgent("p", [base.with_options(name=name) for name in ("a", "b")])

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(Runner(tree).run)

    run_virtual(main)


# ------------------------------------------------------------------------------------- composites


def test_a_composite_is_copied_with_all_it_is() -> None:
    workers = [leaf(name, "x") for name in "abc"]
    parallel = ParallelAgent("p", workers, barrier=Quorum(2), max_concurrency=2)
    copy = parallel.with_options(name="q", timeout=9)
    assert (copy.barrier, copy.max_concurrency, copy.timeout) == (Quorum(2), 2, 9)
    loop = LoopAgent("l", [leaf("a", "x")], max_iterations=3).with_options(timeout=9)
    assert loop.max_iterations == 3
    assert len(texts(run_tree(loop).delivered)) == 3
    assert run_tree(copy).error is None


def test_what_is_in_a_composite_is_not_copied() -> None:
    inside = leaf("inside", "x")
    original = SequentialAgent("s", [inside])
    copy = original.with_options(name="t")
    assert copy.sub_agents[0] is inside
    with pytest.raises(TreeError, match="agent 'inside' stands in the tree twice"):
        SequentialAgent("both", [original, copy])


def test_a_copy_of_a_composite_finds_what_is_in_it_and_itself() -> None:
    original = SequentialAgent("s", [leaf("inside")])
    around = SequentialAgent("around", [original])
    copy = original.with_options(name="t")
    assert copy.find_agent("t") is copy
    assert copy.find_agent("inside") is original.sub_agents[0]
    assert copy.find_agent("s") is None
    assert copy.find_agent("around") is None
    assert original.find_agent("t") is None
    assert around.find_agent("t") is None


@pytest.mark.parametrize("around", [False, True])
def test_a_copy_takes_no_name_that_is_taken_below_it(around: bool) -> None:  # noqa: FBT001  # drawn
    original = SequentialAgent("s", [SequentialAgent("inner", [leaf("inside")])])
    if around:
        SequentialAgent("around", [original])
    for name in ("inside", "inner"):
        with pytest.raises(TreeError, match=f"two agents in the tree are called '{name}'"):
            original.with_options(name=name)
    # The refused one has left nothing behind.
    assert original.with_options(name="t").find_agent("inside") is not None
    assert run_tree(original).error is None


# --------------------------------------------------------------------------------- what is refused


BAD: list[tuple[str, Any, str]] = [
    ("timeout", -1, "timeout of 'culprit' must be seconds, 0 or more, not -1"),
    ("timeout", math.nan, "timeout of 'culprit' must be seconds, 0 or more, not nan"),
    ("timeout", math.inf, "timeout of 'culprit' must be seconds, 0 or more, not inf"),
    ("timeout", 10**400, "timeout of 'culprit' must be seconds, 0 or more, not 1000"),
    ("timeout", "3", "timeout of 'culprit' must be seconds, 0 or more, not '3'"),
    ("timeout", True, "timeout of 'culprit' must be seconds, 0 or more, not True"),
    ("idle_timeout", -0.1, "idle_timeout of 'culprit' must be seconds, 0 or more, not -0.1"),
    ("retry", 3, "retry of 'culprit' must be a Retry, not 3"),
    ("retry", Retry, "retry of 'culprit' must be a Retry, not <class"),
    ("limiter", 3, "limiter of 'culprit' must be a Limiter, not 3"),
    ("limiter", trio.CapacityLimiter(1), "limiter of 'culprit' must be a Limiter, not <trio"),
    ("description", 3, "description of 'culprit' must be text, not 3"),
    ("output_key", "", "output_key of 'culprit' must be text that is not empty, not ''"),
    ("before_agent_callback", 3, "a callback of 'culprit' is not callable: 3"),
    ("after_agent_callback", [callback, 3], "a callback of 'culprit' is not callable: 3"),
]


@makes
@pytest.mark.parametrize(("option", "value", "said"), BAD, ids=lambda value: shown(value)[:30])
def test_a_bad_option_is_refused_and_the_agent_named(
    make: Callable[..., Agent], option: str, value: Any, said: str
) -> None:
    with pytest.raises(TreeError) as at_once:
        make("culprit", **{option: value})
    with pytest.raises(TreeError) as later:
        make("culprit").with_options(**{option: value})
    with pytest.raises(TreeError) as renamed:
        make("fine").with_options(name="culprit", **{option: value})
    for caught in (at_once, later, renamed):
        assert str(caught.value).startswith(said)


COMMON: Final = (
    "output_key",
    "before_agent_callback",
    "after_agent_callback",
    "retry",
    "timeout",
    "idle_timeout",
    "limiter",
)


@makes
def test_an_unknown_option_is_refused_with_those_that_there_are(
    make: Callable[..., Agent],
) -> None:
    with pytest.raises(TypeError) as caught:
        make("a").with_options(timeuot=3)  # type: ignore[call-arg]  # that is the point
    assert str(caught.value) == (
        "agent 'a' has no option 'timeuot' (did you mean 'timeout'?); there are description, "
        f"{', '.join(COMMON)}"
    )


@pytest.mark.parametrize(
    ("make", "own"),
    [
        ("parallel", ["barrier", "max_concurrency"]),
        ("loop", ["max_iterations"]),
        ("function", ["name", "abandon_on_cancel"]),
        ("sequential", []),
    ],
)
def test_what_only_agents_of_its_kind_take_is_listed_too(make: str, own: list[str]) -> None:
    with pytest.raises(TypeError) as caught:
        MAKES[make]("a", timeuot=3)
    assert str(caught.value).endswith(", ".join(["; there are description", *COMMON, *own]))


def test_what_a_class_of_a_users_own_takes_is_listed_once() -> None:
    class Counter(Greeter):
        def __init__(self, name: str, *, start: int = 0, limiter: Any = None, **rest: Any) -> None:
            super().__init__(name, f"{start}", limiter=limiter, **rest)

    with pytest.raises(TypeError, match=r", limiter, start$"):
        Counter("a", statr=3)


@pytest.mark.parametrize(
    ("made", "option"),
    [
        (MAKES["parallel"]("p"), "barrier"),
        (MAKES["parallel"]("p"), "max_concurrency"),
        (MAKES["loop"]("l"), "max_iterations"),
        (MAKES["function"]("f"), "abandon_on_cancel"),
        (MAKES["sequential"]("s"), "sub_agents"),
    ],
)
def test_what_makes_an_agent_what_it_is_is_no_option_of_all(made: Agent, option: str) -> None:
    unknown: dict[str, Any] = {option: None}
    with pytest.raises(TypeError, match=f"has no option '{option}'"):
        made.with_options(**unknown)


@makes
@pytest.mark.parametrize("name", ["", "2nd", "user", "a b", "class", 3])
def test_a_name_that_is_none_is_refused(make: Callable[..., Agent], name: Any) -> None:
    with pytest.raises(TreeError):
        make("a").with_options(name=name)


def test_a_refused_copy_leaves_the_original_as_it_was() -> None:
    original = leaf("a", "x", timeout=3)
    refused: list[dict[str, Any]] = [{"timeout": -1}, {"name": "user"}, {"retry": 3}]
    for options in refused:
        with pytest.raises(TreeError):
            original.with_options(**options)
    assert (original.name, original.timeout, original.retry) == ("a", 3, None)
    assert run_tree(original).error is None
