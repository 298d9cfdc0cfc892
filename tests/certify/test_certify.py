"""Whole certificates. Each takes seconds: by default a sample, all boundaries by ``-m deep``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import trio

from parallel_agent.certify import Certificate, CertifyError
from parallel_agent.certify.engine import certify
from tests.certify.conftest import REFUNDS, make
from tests.support import certified
from tests.support.postgres import Postgres

MINE = "tests.support.certified"


# The agent that refunds twice.


def test_who_refunds_twice_is_found_out_by_the_bank(twice: Certificate) -> None:
    assert twice.verdict == "fails the check"
    assert twice.trials[0].findings == ("the bank has paid 2 times",)


def test_who_refunds_twice_is_named_by_the_runtime_which_cannot_see_it(twice: Certificate) -> None:
    assert twice.unguarded == ("refund",)
    assert [one.path for one in twice.trials[0].ran_again] == ["twice/refund"]


def test_the_boundary_between_the_payment_and_its_record_shows_it(twice: Certificate) -> None:
    (trial,) = twice.trials
    assert [str(one) for one in trial.boundaries] == ["before refund '120 paid back'"]


def test_what_shows_it_can_be_seen_again_by_a_command(twice: Certificate) -> None:
    command = f"parallel-agent certify --at 14 {REFUNDS}:twice --check paid_once 'order 7'"
    assert twice.reproduce(twice.trials[0]) == command


def test_what_a_run_has_left_outside_is_kept_if_a_folder_is_given(twice: Certificate) -> None:
    bank = Path(twice.trials[0].folder) / "work" / "bank.jsonl"
    assert len(bank.read_text().splitlines()) == 2


def test_the_refund_by_once_survives_in_the_middle_of_it() -> None:
    made = make(f"{REFUNDS}:once", message="order 7", check="paid_once", at=[18], workers=1)
    assert made.verdict == "survives"
    (trial,) = made.trials
    assert [str(one) for one in trial.boundaries] == ["after doing 'refund'"]


@pytest.mark.deep
def test_the_refund_by_once_survives_at_every_boundary() -> None:
    made = make(f"{REFUNDS}:once", message="order 7", check="paid_once", second_every=2)
    assert made.verdict == "survives", made.text()
    assert len([one for one in made.trials if len(one.kills) == 1]) == len(made.boundaries)


@pytest.mark.deep
def test_the_refund_without_is_found_exactly_where_it_has_been_paid_and_not_recorded() -> None:
    made = make(f"{REFUNDS}:twice", message="order 7", check="paid_once", second_every=0)
    found = [one.kills[0] for one in made.trials if one.verdict == "fails the check"]
    assert set(found) >= {14, 15, 16, 17, 18}
    assert set(found) <= {*range(14, 20)}


# All that the runtime has.

EVERYTHING = {"message": "hello", "check": "three_lines", "responses": {"asker": True}}


def test_a_tree_of_everything_survives_at_a_sample_of_its_boundaries() -> None:
    made = make(f"{MINE}:everything", **EVERYTHING, max_boundaries=6, second_every=0)
    assert made.verdict == "survives", made.text()
    assert len(made.trials) == 6
    assert all(len(one.boundaries) == 1 for one in made.trials)


@pytest.mark.deep
def test_a_tree_of_everything_survives_at_every_boundary() -> None:
    made = make(f"{MINE}:everything", **EVERYTHING, second_every=2)
    assert made.verdict == "survives", made.text()


@pytest.mark.deep
def test_a_tree_of_everything_survives_on_postgresql(postgres: Postgres) -> None:
    made = make(f"{MINE}:everything", **EVERYTHING, db=postgres.new_database(), second_every=3)
    assert made.verdict == "survives", made.text()


@pytest.mark.deep
def test_failures_second_attempts_and_what_is_cut_off_survive_at_every_boundary() -> None:
    harmless = [*certified.HARMLESS]
    made = make(f"{MINE}:troubled", message="hello", harmless=harmless, second_every=2)
    assert made.verdict == "survives", made.text()
    assert made.status.startswith("failed")


@pytest.mark.deep
def test_an_effect_whose_end_nobody_knows_stops_the_run() -> None:
    made = make(certified.unknown_tree, message="hello", harmless=["raises"])
    assert made.verdict == "stops"
    stopped = {str(one.boundaries[0]) for one in made.trials if one.verdict == "stops"}
    assert stopped >= {"before doing 'effect'", "after doing 'effect'"}


@pytest.mark.deep
def test_what_agents_need_is_put_into_the_folder_of_each_run() -> None:
    made = make(
        certified.make_finder, prepare=certified.put_input, harmless=["finder"], at=[5], workers=1
    )
    assert (made.verdict, made.status) == ("survives", "completed")


# Services that break what they promise.


def test_a_service_that_answers_before_it_has_recorded_loses_work() -> None:
    made = make(certified.make_hurried, message="hello", at=[5], workers=1)
    assert made.verdict == "loses work"
    assert made.trials[0].findings[0].endswith("and is not in the log")


@pytest.mark.deep
def test_a_service_that_forgets_the_ends_of_agents_loses_work() -> None:
    made = make(certified.make_forgetful, message="hello", max_boundaries=4)
    assert made.verdict == "loses work"
    assert made.trials[0].kills == ()


@pytest.mark.deep
def test_cancelled_it_leaves_no_process_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[trio.Process] = []
    open_process = trio.lowlevel.open_process

    async def noted(*args: Any, **options: Any) -> trio.Process:
        opened.append(await open_process(*args, **options))
        return opened[-1]

    monkeypatch.setattr(trio.lowlevel, "open_process", noted)

    async def main() -> None:
        with trio.CancelScope() as scope:
            await certify(certified.make_small, progress=lambda *_: scope.cancel("enough"))
        assert scope.cancelled_caught

    trio.run(main)
    assert [process.returncode for process in opened] == [-9, -9]


# What cannot be certified.


@pytest.mark.parametrize(
    "options",
    [{"every": 0}, {"max_boundaries": 0}, {"workers": 0}, {"second_every": -1}, {"timeout": 0}],
)
async def test_numbers_out_of_their_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        await certify("x:y", **options)  # type: ignore[arg-type]  # what is tested


async def test_a_system_that_cannot_fork_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    with pytest.raises(CertifyError, match="cannot do: use Linux"):
        await certify("x:y")


@pytest.mark.deep
def test_a_tree_that_is_not_there_is_named() -> None:
    with pytest.raises(CertifyError, match=r"there is no file nowhere\.py"):
        make("nowhere.py:tree")


@pytest.mark.deep
def test_a_tree_whose_import_fails_is_told_with_its_traceback(tmp_path: Path) -> None:
    file = tmp_path / "broken_tree.py"
    file.write_text("raise RuntimeError('no')\n")
    with pytest.raises(CertifyError, match="RuntimeError: no") as caught:
        make(f"{file}:tree")
    assert "broken_tree.py" in caught.value.details


@pytest.mark.deep
def test_a_tree_whose_import_starts_threads_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "busy_tree.py"
    file.write_text(
        "import threading, time\n"
        "from tests.support.certified import small\n"
        "threading.Thread(target=time.sleep, args=(60,), name='busy', daemon=True).start()\n"
    )
    with pytest.raises(CertifyError, match=r"starts threads \(busy\)"):
        make(f"{file}:small")


@pytest.mark.deep
def test_a_run_that_cannot_be_prepared_is_told_with_the_reason() -> None:
    with pytest.raises(CertifyError, match="prepare exited with status 1") as caught:
        make(certified.make_finder, prepare=certified.put_nothing, workers=1)
    assert "no room" in caught.value.details


@pytest.mark.deep
def test_a_run_that_fails_its_check_by_itself_is_no_measure() -> None:
    with pytest.raises(CertifyError, match="fails the check: no run is good enough"):
        make(certified.make_small, check=certified.never)


@pytest.mark.deep
def test_a_run_that_hangs_is_no_measure(tmp_path: Path) -> None:
    file = tmp_path / "slow_tree.py"
    file.write_text(
        "import trio\nfrom parallel_agent import agent\n\n"
        "@agent\nasync def slow(ctx):\n    await trio.sleep_forever()\n"
    )
    with pytest.raises(CertifyError, match="hung for"):
        make(f"{file}:slow", timeout=1)
