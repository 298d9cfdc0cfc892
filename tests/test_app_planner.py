"""The app planner: branches known only at run time, a person asked in between, and one run."""

from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from examples.app_planner import IDEA, Person, build, build_by_reader, main, split
from parallel_agent import Event, InputRequest, Result, Status
from tests.support.drawing import fewer

ROOT: Final = Path(__file__).resolve().parent.parent

Way: TypeAlias = Callable[[str, float, Person], Awaitable[Result]]

both_ways = pytest.mark.parametrize("way", [build, build_by_reader])


async def says_yearly(request: InputRequest) -> str:
    await trio.sleep(20)
    return "yearly"


def run(way: Way, idea: str = IDEA, person: Person = says_yearly) -> Result:
    """Run it in virtual time, a second for each step."""
    return trio.run(way, idea, 1.0, person, clock=MockClock(autojump_threshold=0))


def merged(names: Sequence[str], billing: str = "yearly") -> dict[str, Any]:
    """What must come of the modules ``names``."""
    modules = {
        name: {
            "name": name,
            "files": [f"{name}/models.py", f"{name}/api.py", f"{name}/tests.py"],
            "decided": billing if name == "billing" else None,
        }
        for name in names
    }
    return {"modules": modules, "files": 3 * len(modules)}


def position(events: Sequence[Event], found: Callable[[Event], bool]) -> int:
    (place,) = (place for place, event in enumerate(events) if found(event))
    return place


# --------------------------------------------------------------------------------------- the claims


@both_ways
def test_the_results_of_the_modules_are_merged(way: Way) -> None:
    result = run(way)
    assert result.state["app"] == merged(["auth", "billing", "gateway"])
    assert result.text == "released 3 modules, 9 files"


def test_the_others_go_on_while_one_waits_for_a_person() -> None:
    events = run(build).events
    asked = position(events, lambda event: event.request is not None)
    answered = position(events, lambda event: bool(event.function_responses))
    meanwhile = [event.text for event in events[asked + 1 : answered]]
    for name in ("auth", "gateway"):
        assert f"{name}/tests.py" in meanwhile
        assert f"{name} is good" in meanwhile
        assert f"module@{name} has come in" in meanwhile
    assert not any(text.startswith("billing") for text in meanwhile)


def test_only_one_module_asks() -> None:
    events = run(build).events
    assert [event.branch for event in events if event.request is not None] == [
        "planner.module@billing"
    ]


def test_it_is_one_run_from_the_first_event_to_the_last() -> None:
    """Nothing is cancelled, and nobody starts twice."""
    result = run(build)
    assert result.status is Status.COMPLETED
    assert {event.invocation_id for event in result.events} == {result.invocation_id}
    first = result.events[0].seq or 0
    assert [event.seq for event in result.events] == [
        first + number for number in range(len(result.events))
    ]
    said = [event.text for event in result.events if event.author == "planner"]
    assert (said[0], said[-1]) == (
        "the modules: auth, billing, gateway",
        "all modules fit together",
    )
    designs = [event.text for event in result.events if event.text.endswith("api and tests")]
    assert sorted(design.split()[0] for design in designs) == ["auth", "billing", "gateway"]
    (record,) = [event.actions.outcomes for event in result.events if event.actions.outcomes]
    assert {outcome.status for outcome in record} == {"completed"}


def test_the_reader_sends_the_results_into_the_waiting_run() -> None:
    result = run(build_by_reader)
    assert result.status is Status.COMPLETED
    sent = [json.loads(event.text) for event in result.events if event.author == "user"]
    assert sent[0] == ["auth", "billing", "gateway"]
    assert {one["name"] for one in sent[1:]} == {"auth", "billing", "gateway"}
    assert sent[-1]["name"] == "billing"  # it waited for a person, and the others did not
    came_in = [event.text for event in result.events if event.text.endswith("has come in")]
    assert len(came_in) == 3
    assert {event.invocation_id for event in result.events} == {result.invocation_id}


NAMES = st.lists(
    st.text("abcdefgh", min_size=1, max_size=4) | st.just("billing"),
    min_size=1,
    max_size=5,
    unique=True,
).filter(lambda names: "and" not in names)


@fewer(5)
@given(NAMES, st.sampled_from([build, build_by_reader]), st.random_module())
def test_how_many_modules_there_are_is_found_out_at_run_time(
    names: list[str], way: Way, seed: object
) -> None:
    idea = f"build something with {', '.join(names)}"
    assert split(idea) == names
    assert run(way, idea).state["app"] == merged(names)


@both_ways
def test_a_wrong_answer_is_refused_and_asked_for_again(
    way: Way, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = iter(("weekly", "monthly"))

    async def person(request: InputRequest) -> str:
        return next(replies)

    assert run(way, person=person).state["app"] == merged(split(IDEA), "monthly")
    assert "one of 'monthly', 'yearly' is needed, not 'weekly'" in capsys.readouterr().out


# -------------------------------------------------------------------------------------- the program


@pytest.fixture
def _virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    real = trio.run

    def run_in_virtual_time(*args: Any) -> Any:
        return real(*args, clock=MockClock(autojump_threshold=0))

    monkeypatch.setattr(trio, "run", run_in_virtual_time)


@pytest.mark.usefixtures("_virtual_time")
@pytest.mark.parametrize("arguments", [[], ["--by-reader"]])
def test_it_prints_the_events_as_they_come_and_then_what_came_of_it(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments)
    events, _, summary = capsys.readouterr().out.partition("\n\n")
    assert json.loads(summary) == merged(split(IDEA), "monthly")
    lines = [" ".join(line.split()) for line in events.splitlines()]
    (asked,) = (line for line in lines if "? Are customers" in line)
    (answered,) = (line for line in lines if line.endswith("user ! monthly"))
    assert lines.index(asked) < lines.index(answered)
    assert lines[-1] == "- release released 3 modules, 9 files"


@pytest.mark.usefixtures("_virtual_time")
def test_on_request_it_asks_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = iter(("no", "yearly"))
    monkeypatch.setattr(builtins, "input", lambda _: next(replies))
    main(["--ask", "a shop with billing"])
    _, _, summary = capsys.readouterr().out.partition("\n\n")
    assert json.loads(summary) == merged(["billing"])


@pytest.mark.usefixtures("_virtual_time")
@pytest.mark.parametrize("arguments", [["--ask"], ["--ask", "--by-reader"]])
def test_a_terminal_that_is_closed_ends_it(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def closed(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(builtins, "input", closed)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    assert "nobody is there to answer" in capsys.readouterr().err


def test_an_idea_without_modules_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["build a castle"])
    assert ended.value.code == 2
    assert "the idea has no modules" in capsys.readouterr().err


def test_as_a_script_it_runs() -> None:
    ended = subprocess.run(
        [sys.executable, "examples/app_planner.py", "--pace", "0.001"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert '"files": 9' in ended.stdout
