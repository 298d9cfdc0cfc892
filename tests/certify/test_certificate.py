from __future__ import annotations

import json

import attrs

from parallel_agent.certify import Again, Boundary, Certificate, CertifyVerdict, Trial


def trial(at: int, verdict: CertifyVerdict, *, guarded: bool = False) -> Trial:
    again = Again("t/pay", "pay", finished=False, guarded=guarded, harmless=False)
    return Trial(
        (at,),
        (Boundary(at, "before", "pay 'ok'", "t/pay"),),
        verdict,
        () if verdict == "survives" else (f"it {verdict}",),
        (again,),
        4,
        "",
    )


def certificate(*trials: Trial) -> Certificate:
    return Certificate(
        target="my tree.py",
        message="hi",
        status="completed",
        boundaries=(Boundary(1, "before", "pay 'ok'", "t/pay"),),
        trials=trials,
        unstable=("state['time']",),
        checked=False,
        command=("parallel-agent", "certify", "my tree.py", "hi"),
        seconds=1.0,
    )


def test_the_verdict_is_the_worst_one() -> None:
    made = certificate(trial(1, "survives"), trial(2, "loses work"), trial(3, "stops"))
    assert made.verdict == "loses work"
    assert made.worst == trial(2, "loses work")


def test_a_boundary_that_was_not_reached_decides_nothing() -> None:
    assert certificate(trial(1, "not reached"), trial(2, "survives")).verdict == "survives"
    assert certificate(trial(1, "not reached")).survives


def test_nothing_tried_is_nothing_found() -> None:
    assert certificate().verdict == "survives"


def test_the_command_does_the_trial_again() -> None:
    bad = trial(14, "differs")
    assert certificate(bad).reproduce(bad) == "parallel-agent certify --at 14 'my tree.py' hi"
    second = attrs.evolve(bad, kills=(14, 3))
    assert "--at 14,3 " in certificate(second).reproduce(second)


def test_the_text_names_the_boundary_the_finding_and_who_guards_nothing() -> None:
    assert certificate(trial(1, "survives", guarded=True), trial(2, "differs")).text() == (
        "crash certificate of my tree.py\n"
        "the run that nobody kills: completed\n"
        "1 boundaries, killed at 2\n"
        "\n"
        "at  killed           verdict   ran again\n"
        "1   before pay 'ok'  survives  pay\n"
        "2   before pay 'ok'  differs   pay\n"
        "\n"
        "verdict: differs\n"
        "  it differs\n"
        "  killed before pay 'ok' (t/pay)\n"
        "  to see it again: parallel-agent certify --at 2 'my tree.py' hi\n"
        "ran again from their start, without ctx.once or ctx.checkpoint: whatever they do outside "
        "happens again\n"
        "  pay\n"
        "not compared, because two uninterrupted runs differ in it:\n"
        "  state['time']"
    )


def test_as_json_it_holds_all_that_the_text_says() -> None:
    read = json.loads(certificate(trial(2, "differs")).to_json())
    assert read["verdict"] == "differs"
    assert read["unguarded"] == ["pay"]
    assert read["trials"][0]["boundaries"][0]["what"] == "pay 'ok'"
    assert read["trials"][0]["reproduce"].startswith("parallel-agent certify --at 2 ")
