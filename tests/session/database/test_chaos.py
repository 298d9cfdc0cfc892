"""Workers that are killed and stopped at any moment, while they share runs: nothing is lost.

Whoever takes over goes by the database's clock, so time is real here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio

from parallel_agent.records import void_events
from session import Event, Session, thaw
from session.database import DatabaseSessionService
from tests.session.database.chaos import (
    APP,
    CODEC,
    EVENTS,
    LEAVES,
    ROOT_AGENT,
    SESSIONS,
    USER,
    Notes,
    Noting,
    make_runner,
    noted,
)

ROOT: Final = Path(__file__).parents[3]


@attrs.frozen
class History:
    """What was recorded, and what the workers have noted.

    Attributes:
        lines: the events of each session, as stored.
        state: the state of each.
        appends: session, token, number and content of what was acknowledged.
        effects: run and leaf of what was done outside.
        unknown: likewise, of what it was not known of whether it had been done.
        unfinished: what a session still remembers.
    """

    lines: dict[str, list[str]]
    state: dict[str, dict[str, Any]]
    appends: list[list[Any]]
    effects: list[list[str]]
    unknown: list[list[str]]
    unfinished: list[str]


async def read_history(url: str, folder: Path) -> History:
    """Read it when nobody writes any more."""
    sessions: list[Session] = []
    async with DatabaseSessionService(url) as service:
        for name in SESSIONS:
            found = await service.get(app_name=APP, user_id=USER, session_id=name)
            sessions += [] if found is None else [found]
        left = [str(run.key) for run in await service.unfinished(app_name=APP)]
    return History(
        lines={one.id: [CODEC.dumps(event) for event in one.events] for one in sessions},
        state={one.id: thaw(one.state) for one in sessions},
        appends=noted(folder, "append"),
        effects=noted(folder, "effect"),
        unknown=noted(folder, "unknown"),
        unfinished=left,
    )


def troubles(history: History) -> list[str]:
    """Return what should not be; nothing, if all is well."""
    found = [f"{name} is unfinished" for name in history.unfinished]
    runs: list[str] = []
    for session, lines in history.lines.items():
        events = [CODEC.loads(line) for line in lines]
        own = [*dict.fromkeys(event.invocation_id for event in events)]
        runs += own
        acknowledged = sorted(
            (seq, token, text) for of, token, seq, text in history.appends if of == session
        )
        # A session may have been made by one who was killed before he recorded anything.
        wanted: dict[str, Any] = {leaf: [run, EVENTS - 1] for run in own[-1:] for leaf in LEAVES}
        if own:
            wanted["count"] = len(own) * len(LEAVES) * EVENTS
        state = history.state[session]
        wrong = [
            *_in_log(lines, events, acknowledged),
            *_in_runs(events, own),
            *([] if state == wanted else [f"the state is {state}, not {wanted}"]),
        ]
        found += [f"{session}: {what}" for what in wrong]
    return found + _in_effects(history, runs)


def _in_log(
    lines: list[str], events: list[Event], acknowledged: list[tuple[int, int, str]]
) -> Iterator[str]:
    if [event.seq for event in events] != [*range(1, len(events) + 1)]:
        yield "the numbers have gaps"
    tokens = [token for _, token, _ in acknowledged]
    if tokens != sorted(tokens):
        yield "two owners at a time"
    numbers = [seq for seq, _, _ in acknowledged]
    if len(numbers) != len({*numbers}):
        yield "a number was acknowledged twice"
    if any(not 0 < seq <= len(lines) or lines[seq - 1] != text for seq, _, text in acknowledged):
        yield "what was acknowledged is not there"


def _in_runs(events: list[Event], runs: list[str]) -> Iterator[str]:
    void = void_events(events)
    for run in runs:
        of_run = [event for event in events if event.invocation_id == run]
        kept = [one for one in of_run if not one.is_record and one.seq not in void]
        for leaf in LEAVES:
            said = [event.text for event in kept if event.author == leaf and event.text]
            if said != [f"{leaf}{number}" for number in range(EVENTS)]:
                yield f"{leaf} of {run} said {said}"
        ends = [
            (one.journal or {}).get("status")
            for one in of_run
            if one.is_record and one.path == ROOT_AGENT and (one.journal or {})["kind"] == "end"
        ]
        if ends != ["completed"]:
            yield f"{run} ended as {ends}"


def _in_effects(history: History, runs: list[str]) -> list[str]:
    done, unknown = (Counter(map(tuple, one)) for one in (history.effects, history.unknown))
    places = [(run, leaf) for run in runs for leaf in LEAVES]
    return [
        f"{leaf} of {run}: done {done[run, leaf]} times"
        for run, leaf in dict.fromkeys([*places, *done])
        if (run, leaf) not in places or not 1 <= done[run, leaf] <= 1 + unknown[run, leaf]
    ]


def cause(url: str, folder: Path, *, seed: int, strikes: int) -> dict[str, Any]:
    """Let them work, and be struck; return what the supervisor says."""
    command = [sys.executable, "-m", "tests.session.database.chaos"]
    done = subprocess.run(  # noqa: S603  # this very Python
        [*command, url, str(folder), str(seed), str(strikes)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def check(url: str, folder: Path, *, seed: int, strikes: int) -> None:
    """Cause it, and look at what has come of it."""
    told = cause(url, folder, seed=seed, strikes=strikes)
    assert told["failed"] == []
    history = trio.run(read_history, url, folder)
    assert history.appends
    assert troubles(history) == [], f"seed {seed}"


# ---------------------------------------------------------------------- the checker, on what is bad


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> History:
    """Two runs that nobody has disturbed, in one session."""
    folder = tmp_path_factory.mktemp("good")
    url = f"sqlite:///{folder}/good.db"

    async def make() -> History:
        notes = Notes(folder)
        async with Noting(url, notes) as service:
            for _ in range(2):
                await make_runner(service, notes).run("go", session_id=SESSIONS[0])
        return await read_history(url, folder)

    return trio.run(make)


def without(history: History, text: str) -> History:
    """Without the events that say so; the numbers are mended."""
    lines = [line for line in history.lines["s0"] if f'"text":"{text}"' not in line]
    return attrs.evolve(
        history,
        lines={"s0": [re.sub(r'"seq":\d+', f'"seq":{at}', one) for at, one in enumerate(lines, 1)]},
        appends=[],
    )


def gap(history: History) -> History:
    *lines, last = history.lines["s0"]
    return attrs.evolve(history, lines={"s0": [*lines[:-1], last]})


def other_owner(history: History) -> History:
    (of, token, *what), *more = history.appends
    return attrs.evolve(history, appends=[[of, token + 1_000, *what], *more])


def other_content(history: History) -> History:
    *more, (of, token, seq, text) = history.appends
    return attrs.evolve(history, appends=[*more, [of, token, seq, text.replace("1", "2")]])


def lost(history: History) -> History:
    *lines, _ = history.lines["s0"]
    return attrs.evolve(history, lines={"s0": lines})


def other_count(history: History) -> History:
    return attrs.evolve(history, state={"s0": {**history.state["s0"], "count": 15}})


def done_again(history: History) -> History:
    return attrs.evolve(history, effects=[*history.effects, history.effects[0]])


def never_done(history: History) -> History:
    return attrs.evolve(history, effects=history.effects[1:])


def of_nobody(history: History) -> History:
    return attrs.evolve(history, effects=[*history.effects, ["nobody", "a"]])


def twice(history: History) -> History:
    return attrs.evolve(history, appends=[*history.appends, history.appends[0]])


def left(history: History) -> History:
    return attrs.evolve(history, unfinished=["s0"])


def not_ended(history: History) -> History:
    ended = '"kind":"end","status":"completed"'
    *lines, last = history.lines["s0"]
    assert ended in last
    cut = last.replace(ended, '"kind":"end","status":"cancelled"')
    return attrs.evolve(history, lines={"s0": [*lines, cut]}, appends=history.appends[:-1])


def silent(history: History) -> History:
    return without(history, "a2")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (gap, "the numbers have gaps"),
        (other_owner, "two owners at a time"),
        (other_content, "what was acknowledged is not there"),
        (lost, "what was acknowledged is not there"),
        (twice, "a number was acknowledged twice"),
        (other_count, "the state is"),
        (done_again, "done 2 times"),
        (never_done, "done 0 times"),
        (of_nobody, "a of nobody"),
        (left, "s0 is unfinished"),
        (not_ended, "ended as"),
        (silent, "a of .* said"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_the_checker_finds(
    spoil: Callable[[History], History], complaint: str, good: History
) -> None:
    assert any(re.search(complaint, trouble) for trouble in troubles(spoil(good)))


def test_a_history_without_faults_passes(good: History) -> None:
    assert troubles(good) == []


def test_an_effect_may_be_done_again_once_its_end_was_not_known(good: History) -> None:
    known = done_again(good)
    assert troubles(attrs.evolve(known, unknown=[good.effects[0]])) == []


# ------------------------------------------------------------------------------------------- chaos


def test_what_killed_and_stopped_workers_leave_is_brought_to_its_end(
    url: str, tmp_path: Path
) -> None:
    check(url, tmp_path, seed=os.getpid(), strikes=25)


@pytest.mark.deep
@pytest.mark.timeout(300)
def test_what_is_left_in_a_minute_is_brought_to_its_end(url: str, tmp_path: Path) -> None:
    check(url, tmp_path, seed=os.getpid(), strikes=600)
