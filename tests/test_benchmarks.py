"""The benchmarks run and print: at tiny sizes, and without a word about how fast anything is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from benchmarks.__main__ import BENCHMARKS, main, number, table
from benchmarks.measure import FULL, QUICK, Row, Sizes, run_rounds, times_base

TINY: Final = Sizes(
    rounds=1,
    throughput=((1, 3), (3, 2)),
    history=(0, 5),
    history_events=20,
    first_event=5,
    depth=(1, 3),
    depth_events=3,
    branches=(2, 1),
    branches_events=4,
    wide=5,
    many=7,
    imports=1,
    schedules=4,
    hosts=((2, 3),),
    starts=2,
    model_calls=2,
    model_tokens=3,
    model_agents=3,
    durable=((2, 3),),
    durable_postgres=False,
    raw_commits=3,
    durable_history=(0, 5),
    durable_state=(3,),
    durable_appends=2,
    resume_history=(0, 5),
    resume_part=(1, 3),
    resumable=((2, 3),),
    graphs=(3, 5),
)

# Starts processes, which takes a while: left to a test of its own.
IN_PROCESS: Final = [name for name in BENCHMARKS if name != "import"]


def figures(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    main([*arguments, "--json"], sizes=TINY)
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["rows"]
    return rows


# What the bare SDK is measured by leaves generators to the garbage collector.
@pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx|httpcore):ResourceWarning")
@pytest.mark.parametrize("name", IN_PROCESS)
def test_a_benchmark_gives_a_positive_figure_for_every_case(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = figures([name], capsys)
    assert rows
    assert {row["benchmark"] for row in rows} == {name}
    assert all(row["value"] > 0 for row in rows)


@pytest.mark.deep
def test_the_import_benchmark_tells_trio_and_us_apart(capsys: pytest.CaptureFixture[str]) -> None:
    cases = {row["case"] for row in figures(["import"], capsys)}
    assert cases == {"trio", "parallel_agent", "bare interpreter"}


def test_throughput_has_a_ratio_for_each_kind_of_event(capsys: pytest.CaptureFixture[str]) -> None:
    measures = {row["measure"] for row in figures(["throughput"], capsys)}
    assert {"text / raw", "ctx.state / raw", "state_delta / raw"} <= measures


def test_tables_name_the_machine_and_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    main(["throughput", "depth"], sizes=TINY)
    printed = capsys.readouterr().out
    assert printed.startswith("python ")
    for case in ("| 1 x 3 ", "| 3 x 2 ", "| 3 sequential", "| 3 parallel", "| 3 mixed"):
        assert case in printed


def test_earlier_figures_are_shown_beside(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main(["start", "--json"], sizes=TINY)
    earlier = tmp_path / "earlier.json"
    earlier.write_text(capsys.readouterr().out)
    main(["start", "--compare", str(earlier)], sizes=TINY)
    assert capsys.readouterr().out.count("(was ") == 3


@pytest.mark.parametrize("arguments", [["nothing"], ["start", "--compare", "nowhere.json"]])
def test_a_bad_argument_ends_with_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments, sizes=TINY)
    assert ended.value.code == 2
    assert "there are throughput" in capsys.readouterr().err or "--compare" in arguments


def test_full_sizes_are_those_of_the_budgets() -> None:
    assert FULL.throughput == ((1, 10_000), (10, 1_000), (100, 100), (1_000, 10), (10_000, 1))
    assert (max(FULL.history), FULL.depth) == (100_000, (1, 10, 100, 500))
    assert (FULL.first_event, FULL.wide, FULL.many) == (10_000, 10_000, 100_000)


def test_quick_keeps_the_cases_of_throughput() -> None:
    assert QUICK.throughput == FULL.throughput
    assert QUICK.rounds < FULL.rounds


def test_contestants_take_turns_and_every_other_round_goes_backwards() -> None:
    order = list[str]()

    async def turn(name: str) -> float:
        order.append(name)
        return float(len(order))

    seconds = run_rounds({name: lambda name=name: turn(name) for name in "ab"}, 2)  # type: ignore[misc]  # the usual way to bind a loop's name
    assert order == ["a", "b", "b", "a"]
    assert seconds == {"a": [1.0, 4.0], "b": [2.0, 3.0]}


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    assert times_base([2.0, 30.0, 8.0], [1.0, 10.0, 1.0]) == 3.0


def test_a_table_lines_up() -> None:
    rows = [Row("b", "one", "speed", 1234.5, "k/s"), Row("b", "two", "share", 0.5, "ratio")]
    assert table(rows).splitlines() == [
        "| b   | speed, k/s | share |",
        "| --- | ---------: | ----: |",
        "| one |      1,234 |       |",
        "| two |            |  0.50 |",
    ]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.123, "0.12"), (9.994, "9.99"), (99.94, "99.9"), (1234.6, "1,235")]
)
def test_a_number_has_about_three_figures(value: float, shown: str) -> None:
    assert number(value) == shown
