"""Schedules as values and files, and those who choose: in order, at random, by priority."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import Agent, InvocationContext, ParallelAgent, agent
from parallel_agent.testing import Schedule, ScheduleError, run_once
from parallel_agent.testing.control import Actor
from parallel_agent.testing.schedule import AtRandom, ByPriority, Indexed, Replayed

Ctx = InvocationContext


def emits(name: str, number: int) -> Agent:
    async def run(ctx: Ctx) -> AsyncIterator[str]:
        for position in range(number):
            yield f"{name}{position + 1}"

    return agent(run, name=name)


def two_by_two() -> Agent:
    return ParallelAgent("p", [emits("a", 2), emits("b", 2)])


# -------------------------------------------------------------------------------------- values


def test_a_schedule_is_a_value_that_prints_as_what_makes_it() -> None:
    schedule = Schedule(["p/a", "p/b#2"])
    assert eval(repr(schedule)) == schedule  # noqa: S307  # our own text
    assert len({schedule, Schedule(("p/a", "p/b#2"))}) == 1
    assert len(schedule) == 2


@pytest.mark.parametrize(
    ("choices", "culprit"), [("p/a", "'p/a'"), (["p/a", 7], "choice 1"), ([None], "None")]
)
def test_what_is_no_list_of_names_is_refused(choices: Any, culprit: str) -> None:
    with pytest.raises(ScheduleError, match=culprit):
        Schedule(choices)


# --------------------------------------------------------------------------------------- files


@given(choices=st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_what_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, choices: list[str]
) -> None:
    path = tmp_path_factory.mktemp("saved") / "schedule.json"
    Schedule(choices).save(path)
    assert Schedule.load(path) == Schedule(choices)


NO_SCHEDULES = {
    "not JSON": (b"[", "Expecting value"),
    "not text": (b"\xff", "decode"),
    "another thing": (b"[1, 2]", "it has no 'parallel_agent_schedule'"),
    "nothing": (b"null", "it has no"),
    "deep": (b"[" * 100_000, "recursion"),
    "a newer one": (b'{"parallel_agent_schedule": 2, "choices": []}', "format 2"),
    "no choices": (b'{"parallel_agent_schedule": 1}', "None, and no list"),
    "a text": (b'{"parallel_agent_schedule": 1, "choices": "p/a"}', "'p/a', and no list"),
    "an object": (b'{"parallel_agent_schedule": 1, "choices": {"p/a": 1}}', "no list"),
    "numbers": (b'{"parallel_agent_schedule": 1, "choices": ["p/a", 2]}', "choice 1"),
}


@pytest.mark.parametrize("name", NO_SCHEDULES)
def test_a_file_that_holds_none_is_named_and_it_is_said_why_and_what_to_do(
    name: str, tmp_path: Path
) -> None:
    content, why = NO_SCHEDULES[name]
    path = tmp_path / "schedule.json"
    path.write_bytes(content)
    with pytest.raises(ScheduleError, match=why) as caught:
        Schedule.load(path)
    assert str(path) in str(caught.value)
    assert "error.trial.schedule.save(path)" in str(caught.value)


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Schedule.load(tmp_path / "nowhere.json")


def test_the_file_is_json_for_people(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    Schedule(["p/a"]).save(str(path))
    assert json.loads(path.read_text()) == {"parallel_agent_schedule": 1, "choices": ["p/a"]}


# ------------------------------------------------------------------------------------ replaying


def log_of(schedule: Schedule) -> list[str]:
    return [event.text for event in run_once(two_by_two, schedule).events]


def test_after_the_end_of_a_schedule_the_first_goes() -> None:
    assert log_of(Schedule()) == ["a1", "a2", "b1", "b2", ""]


@given(st.lists(st.integers(0, 9), max_size=12))
def test_the_schedule_of_a_run_makes_the_same_run(numbers: list[int]) -> None:
    trial = run_once(two_by_two, Indexed(numbers))
    again = run_once(two_by_two, trial.schedule)
    assert again.schedule == trial.schedule
    assert [event.text for event in again.events] == [event.text for event in trial.events]
    assert [repr(step) for step in again.steps] == [repr(step) for step in trial.steps]


def test_a_schedule_of_another_tree_is_refused_where_it_parts() -> None:
    with pytest.raises(ScheduleError) as caught:
        run_once(two_by_two, Schedule(["p/b", "p/c"]))
    said = str(caught.value)
    assert "choice 1 of the schedule is 'p/c', and those who can go are p/a, p/b" in said
    assert "explore again" in said


def test_a_schedule_that_goes_on_after_the_end_of_the_run_is_refused() -> None:
    complete = run_once(two_by_two).schedule
    with pytest.raises(ScheduleError, match=r"has ended after 5 choices.* goes on with 'p'"):
        run_once(two_by_two, Schedule([*complete.choices, "p"]))


# ------------------------------------------------------------------------------------- choosing


def seeded(number: int) -> Random:
    return Random(number)  # noqa: S311  # a schedule is no secret


class Choosing(Protocol):
    @property
    def schedule(self) -> Schedule: ...

    def choose(self, actors: Sequence[Actor]) -> int: ...


def race(chooser: Choosing, **steps: int) -> str:
    """Let threads, so many steps each, run against each other; return who went, in order."""
    left = [Actor(name, (rank, 0), None) for rank, name in enumerate(steps)]
    went = ""
    while left:
        actor = left[chooser.choose(left)]
        went += actor.name
        if went.count(actor.name) == steps[actor.name]:
            left.remove(actor)
    return went


MAKERS: list[Callable[[Random], Choosing]] = [
    AtRandom,
    lambda random: ByPriority(random, depth=3, steps=10),
]


@pytest.mark.parametrize("make", MAKERS)
def test_the_same_seed_chooses_the_same(make: Callable[[Random], Choosing]) -> None:
    first, second = ([race(make(seeded(n)), a=4, b=4) for n in range(50)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 5


def test_at_random_each_who_can_go_has_the_same_chance() -> None:
    firsts = [race(AtRandom(seeded(n)), a=1, b=1, c=1)[0] for n in range(3_000)]
    assert all(900 < firsts.count(name) < 1_100 for name in "abc")


def test_where_only_one_can_go_nothing_is_chosen() -> None:
    chooser = AtRandom(seeded(0))
    race(chooser, a=5)
    assert chooser.schedule == Schedule()


def test_by_priority_nobody_is_interrupted_but_at_the_changes() -> None:
    went = {race(ByPriority(seeded(n), depth=1, steps=9), a=3, b=3, c=3) for n in range(200)}
    assert went == {"".join(name * 3 for name in order) for order in orders("abc")}


def orders(names: str) -> list[str]:
    if not names:
        return [""]
    return [name + rest for name in names for rest in orders(names.replace(name, ""))]


Constraints = list[tuple[str, str]]


def is_kept(went: str, constraints: Constraints) -> bool:
    """Whether the first of each pair came before the second: ``a2`` is the second step of a."""
    numbers: Counter[str] = Counter()
    position: dict[str, int] = {}
    for at, name in enumerate(went):
        numbers[name] += 1
        position[f"{name}{numbers[name]}"] = at
    return all(position[first] < position[second] for first, second in constraints)


# Bugs of known depth: how many things must come in an order, for the bug to show; with how many
# steps the threads have.
BUGS: dict[str, tuple[dict[str, int], Constraints]] = {
    "b waits until a is done": ({"a": 10, "b": 4, "c": 4}, [("a10", "b1")]),
    "all of b while a is half way": ({"a": 10, "b": 10}, [("a5", "b1"), ("b10", "a6")]),
    "one in the middle of another in the middle of a third": (
        {"a": 4, "b": 4, "c": 4},
        [("a2", "b1"), ("b2", "c1"), ("c4", "a3")],
    ),
    "the one that was interrupted first waits until the end": (
        {"a": 4, "b": 4, "c": 4},
        [("b2", "c1"), ("c4", "b3"), ("b4", "a3")],
    ),
}
RUNS = 3_000


def chance(make: Callable[[Random], Choosing], threads: dict[str, int], bug: Constraints) -> float:
    """Return in which share of the runs the bug shows."""
    found = sum(is_kept(race(make(seeded(n)), **threads), bug) for n in range(RUNS))
    return found / RUNS


@pytest.mark.parametrize("name", BUGS)
def test_priorities_find_a_bug_as_often_as_promised_and_more_often_than_luck(name: str) -> None:
    threads, bug = BUGS[name]
    choices = sum(threads.values())
    promised = 1 / (len(threads) * choices ** (len(bug) - 1))
    found = chance(lambda random: ByPriority(random, depth=len(bug), steps=choices), threads, bug)
    assert found > 0.75 * promised  # these are draws, though always the same
    assert found > 2 * chance(AtRandom, threads, bug)


class Sinking(ByPriority):
    """Wrong: who falls later always falls deeper."""

    def _pick(self, actors: Sequence[Actor]) -> int:
        position = len(self._choices)
        if position in self._changes:
            self._changes[position] = -1 - position
        return super()._pick(actors)


def test_were_the_places_not_drawn_as_well_some_bugs_would_never_be_found() -> None:
    threads = {"a": 3, "b": 3, "c": 2}
    bug = [("a2", "b1"), ("b2", "c1"), ("c2", "b3"), ("b3", "a3")]
    assert chance(lambda random: ByPriority(random, depth=3, steps=8), threads, bug) > 0
    assert chance(lambda random: Sinking(random, depth=3, steps=8), threads, bug) == 0


def test_replaying_says_who_else_could_have_gone() -> None:
    chooser = Replayed(Schedule(["p/b"]))
    run_once(two_by_two, chooser)
    assert chooser.options[0] == ("p/a", "p/b")
