from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from parallel_agent.certify.certificate import CertifyVerdict, Trial
from parallel_agent.certify.judging import Baseline, Evidence, judge

Note = Mapping[str, Any]


def event(path: str, text: str) -> dict[str, Any]:
    return {"path": path, "event": {"author": path, "content": {"parts": [{"text": text}]}}}


def result(**changes: Any) -> dict[str, Any]:
    """What a run of t, with its leaf t/a, comes to."""
    whole: dict[str, Any] = {
        "status": "completed",
        "text": "hi",
        "output": "hi",
        "outputs": {"a": "hi", "t": "hi"},
        "state": {"k": 1},
        "unfinished": False,
        "events": [event("t/a", "hi")],
        "log": [{"seq": 2, "path": "t/a", "text": "hi"}],
        "records": [end("t/a", 3), end("t", 4)],
        "error": None,
        "unknown": False,
        "checked": None,
    }
    return whole | changes


def end(path: str, seq: int) -> dict[str, Any]:
    return {"seq": seq, "path": path, "kind": "end", "status": "completed"}


def process(what: str = "run") -> Note:
    return {"kind": "process", "what": what}


def start(path: str, *, own: bool = True) -> Note:
    return {"kind": "start", "path": path, "agent": path.rpartition("/")[2], "own": own}


def ended(path: str) -> Note:
    return {"kind": "end", "path": path, "status": "completed"}


def handed(seq: int, path: str, text: str) -> Note:
    return {"kind": "handed", "seq": seq, "path": path, "id": "", "text": text}


def point(at: int, what: str = "something", when: str = "before") -> Note:
    return {"kind": "point", "at": at, "when": when, "what": what, "path": "t/a"}


def effect(kind: str) -> Note:
    return {"kind": kind, "path": "t/a", "key": "pay"}


def judged(
    *notes: Note,
    found: Mapping[str, Any] | None = None,
    ends: Sequence[str] = ("killed", "ended"),
    **options: Any,
) -> Trial:
    """Judge a run that was killed at its boundary 1 and resumed, against one that was not."""
    evidence = Evidence(
        kills=(1,), ends=tuple(ends), result=result() if found is None else found, notes=notes
    )
    return judge(evidence, Baseline.of(result(), result()), **options)


KILLED = (process(), point(1))
RESUMED = (process("resume"), point(1, "the resumption", "after"))


def test_a_run_that_ends_as_the_other_did_survives() -> None:
    trial = judged(*KILLED, *RESUMED)
    assert (trial.verdict, trial.findings) == ("survives", ())


def test_a_boundary_that_was_not_there_is_not_reached() -> None:
    assert judged(process(), ends=["ended"]).verdict == "not reached"


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"status": "failed"}, "differs"),
        ({"output": "ho"}, "differs"),
        ({"outputs": {"t": "hi"}}, "differs"),
        ({"state": {"k": 2}}, "differs"),
        ({"state": {"k": 1, "more": None}}, "differs"),
        ({"unfinished": True}, "differs"),
        ({"events": []}, "loses work"),
        ({"events": [event("t/a", "hi")] * 2}, "differs"),
        ({"events": [event("t/a", "ho")]}, "differs"),
        ({"checked": "paid 2 times"}, "fails the check"),
        ({"unknown": True, "error": {"kind": "E", "message": "who knows"}}, "stops"),
        ({"broken": {"kind": "E", "message": "no"}}, "cannot resume"),
    ],
)
def test_what_differs_is_found(changes: dict[str, Any], verdict: CertifyVerdict) -> None:
    trial = judged(*KILLED, *RESUMED, found=result(**changes))
    assert trial.verdict == verdict
    assert trial.findings


@pytest.mark.parametrize("how", ["hung for 60 s", "exited with status 3", "died of SIGSEGV"])
def test_a_process_that_does_not_end_well_cannot_resume(how: str) -> None:
    trial = judged(*KILLED, ends=["killed", how])
    assert (trial.verdict, trial.findings) == ("cannot resume", (f"the last process {how}",))


def test_what_two_uninterrupted_runs_differ_in_is_not_compared() -> None:
    baseline = Baseline.of(result(), result(state={"k": 7}))
    evidence = Evidence((1,), ("killed", "ended"), result(state={"k": 8}), [*KILLED, *RESUMED])
    assert judge(evidence, baseline).verdict == "survives"
    assert baseline.unstable == {"state['k']"}


def test_what_was_handed_out_must_be_in_the_log() -> None:
    trial = judged(*KILLED, handed(2, "t/a", "hi"), handed(3, "t/a", "gone"), *RESUMED)
    assert trial.verdict == "loses work"
    assert trial.findings == ("'gone' of t/a was handed out as event 3, and is not in the log",)


def test_an_end_that_the_log_does_not_know_is_lost() -> None:
    trial = judged(*KILLED, *RESUMED, start("t/b"), ended("t/b"))
    assert trial.findings == ("t/b has ended, and the log does not say so",)


def test_an_end_below_an_agent_that_is_read_before_it_counts_needs_no_record() -> None:
    tap = {"kind": "tap", "path": "t"}
    assert judged(*KILLED, *RESUMED, tap, start("t/b"), ended("t/b")).verdict == "survives"


def test_an_agent_that_runs_again_from_its_start_may_repeat_effects() -> None:
    trial = judged(*KILLED, start("t/a"), *RESUMED, start("t/a"))
    assert trial.verdict == "may repeat effects"
    assert [(one.agent, one.guarded, one.finished) for one in trial.ran_again] == [
        ("a", False, False)
    ]


def test_an_agent_that_starts_in_one_process_only_has_not_run_again() -> None:
    assert judged(*KILLED, *RESUMED, start("t/a")).ran_again == ()


def test_a_workflow_agent_may_run_again() -> None:
    trial = judged(*KILLED, start("t", own=False), *RESUMED, start("t", own=False))
    assert (trial.verdict, trial.ran_again) == ("survives", ())


def test_an_agent_that_guards_itself_may_run_again() -> None:
    guard = {"kind": "guard", "path": "t/a"}
    trial = judged(*KILLED, start("t/a"), guard, *RESUMED, start("t/a"))
    assert trial.verdict == "survives"
    assert trial.ran_again[0].guarded


def test_an_agent_that_was_declared_harmless_may_run_again() -> None:
    trial = judged(*KILLED, start("t/a"), *RESUMED, start("t/a"), harmless=["a"])
    assert trial.verdict == "survives"


def test_with_a_check_it_is_for_the_check_to_say() -> None:
    trial = judged(*KILLED, start("t/a"), *RESUMED, start("t/a"), checked=True)
    assert trial.verdict == "survives"


RESUMPTION = {"seq": 5, "path": "t", "kind": "resumed", "status": None}


def test_an_agent_whose_end_was_recorded_must_not_run_again() -> None:
    records = [end("t/a", 3), RESUMPTION, end("t", 9)]
    trial = judged(
        *KILLED, start("t/a"), *RESUMED, start("t/a"), found=result(records=records), checked=True
    )
    assert trial.verdict == "repeats work"


def test_an_agent_whose_end_is_recorded_when_it_has_run_again_is_as_it_should_be() -> None:
    records = [RESUMPTION, end("t/a", 6), end("t", 9)]
    trial = judged(
        *KILLED, start("t/a"), *RESUMED, start("t/a"), found=result(records=records), checked=True
    )
    assert trial.verdict == "survives"


def test_who_had_ended_before_others_began_and_were_heard_must_not_run_again() -> None:
    """Records are in order: the log must know of that end, whatever it says."""
    before = (start("t/a"), ended("t/a"), start("t/b"), handed(2, "t/b", "hi"))
    found = result(
        records=[RESUMPTION, end("t/a", 6), end("t/b", 7)],
        log=[{"seq": 2, "path": "t/b", "text": "hi"}],
    )
    trial = judged(*KILLED, *before, *RESUMED, start("t/a"), found=found, checked=True)
    assert trial.findings == ("t/a had ended, and ran again",)


def test_who_has_ended_after_others_began_may_run_again() -> None:
    before = (start("t/a"), start("t/b"), ended("t/a"), handed(2, "t/b", "hi"))
    found = result(
        records=[RESUMPTION, end("t/a", 6), end("t/b", 7)],
        log=[{"seq": 2, "path": "t/b", "text": "hi"}],
    )
    trial = judged(*KILLED, *before, *RESUMED, start("t/a"), found=found, checked=True)
    assert trial.verdict == "survives"


def test_an_effect_that_was_done_twice_is_repeated_though_the_check_is_content() -> None:
    done = (effect("call"), effect("done"))
    trial = judged(*KILLED, *done, *RESUMED, *done, checked=True)
    assert trial.findings == ("effect 'pay' of t/a was done 2 times",)


def test_an_effect_that_was_begun_twice_may_have_been_repeated() -> None:
    trial = judged(*KILLED, effect("call"), *RESUMED, effect("call"), effect("done"))
    assert trial.verdict == "may repeat effects"


def test_an_effect_that_may_be_repeated_may_be_done_twice() -> None:
    done = ({**effect("call"), "may_repeat": True}, effect("done"))
    assert judged(*KILLED, *done, *RESUMED, *done).verdict == "survives"


def test_an_effect_that_failed_may_be_done_again() -> None:
    again = (effect("call"), effect("failed"))
    trial = judged(*KILLED, *again, *RESUMED, effect("call"), effect("done"))
    assert trial.verdict == "survives"


def test_the_finding_that_decides_comes_first() -> None:
    trial = judged(*KILLED, *RESUMED, found=result(status="failed", events=[]))
    assert trial.findings[0].startswith("events of t/a: 1 missing")


def test_a_boundary_is_named_by_what_the_process_noted_there() -> None:
    evidence = Evidence(
        (2, 1),
        ("killed", "killed", "ended"),
        result(),
        [process(), point(1, "x"), point(2, "y"), process("resume"), point(1, "z")],
    )
    assert [str(one) for one in judge(evidence, None).boundaries] == ["before y", "before z"]
