"""What a trial shows: its log and notes, compared with those of runs that nobody killed. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from parallel_agent.certify.certificate import Again, Boundary, CertifyVerdict, Trial, worst_of

__all__ = ["Baseline", "Evidence", "judge"]

Note: TypeAlias = Mapping[str, Any]
_EVENTS_OF: Final = "events of "

Finding: TypeAlias = tuple[CertifyVerdict, str]


@attrs.frozen(eq=False)
class Evidence:
    """What the processes of a trial have left behind.

    Attributes:
        kills: at which boundaries they were to be killed.
        ends: how each of them has ended.
        result: what the last one says; None if it said nothing.
        notes: of all of them, in order.
        folder: where it is, if it is kept.
    """

    kills: tuple[int, ...]
    ends: tuple[str, ...]
    result: Mapping[str, Any] | None
    notes: Sequence[Note]
    folder: str = ""

    def lives(self) -> list[list[Note]]:
        """Return the notes of each time that the run was begun or resumed."""
        lives: list[list[Note]] = []
        for note in self.notes:
            if note["kind"] == "process":
                lives.append([])
            elif lives:
                lives[-1].append(note)
        return lives

    def processes(self) -> list[list[Boundary]]:
        """Return the boundaries that each process came to. Each counts from 1."""
        processes: list[list[Boundary]] = []
        for note in self.notes:
            if note["kind"] == "point":
                if note["at"] == 1:
                    processes.append([])
                processes[-1].append(Boundary(note["at"], note["when"], note["what"], note["path"]))
        return processes

    def struck(self) -> tuple[Boundary, ...]:
        """Return the boundaries at which processes were killed."""
        struck = [
            boundary
            for kill_at, end, points in zip(self.kills, self.ends, self.processes(), strict=False)
            for boundary in points
            if end == "killed" and boundary.at == kill_at
        ]
        return tuple(struck)


@attrs.frozen(eq=False)
class Baseline:
    """What uninterrupted runs agree in.

    Attributes:
        result: what one of them came to.
        unstable: what they do not agree in, in words.
    """

    result: Mapping[str, Any]
    unstable: frozenset[str]

    @classmethod
    def of(cls, first: Mapping[str, Any], second: Mapping[str, Any]) -> Baseline:
        """Compare two of them."""
        return cls(first, frozenset(where for where, _, _ in _differences(first, second)))


def _differences(
    expected: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield where two runs differ, and what each has there; of events, a count."""
    for name in ("status", "text", "output"):
        if expected[name] != found[name]:
            yield name, expected[name], found[name]
    for name in ("outputs", "state"):
        ours, theirs = expected[name], found[name]
        for key in sorted({*ours, *theirs}):
            if key not in ours or key not in theirs or ours[key] != theirs[key]:
                yield f"{name}[{key!r}]", ours.get(key), theirs.get(key)
    ours, theirs = _events_by_path(expected), _events_by_path(found)
    for path in sorted({*ours, *theirs}):
        if ours[path] != theirs[path]:
            yield f"{_EVENTS_OF}{path}", ours[path], theirs[path]


def _events_by_path(result: Mapping[str, Any]) -> dict[str, Counter[str]]:
    events: dict[str, Counter[str]] = _Events()
    for one in result["events"]:
        events.setdefault(one["path"], Counter())[json.dumps(one["event"], sort_keys=True)] += 1
    return events


class _Events(dict[str, Counter[str]]):
    def __missing__(self, _path: str) -> Counter[str]:
        return Counter()


def judge(
    evidence: Evidence,
    baseline: Baseline | None,
    *,
    harmless: Collection[str] = (),
    checked: bool = False,
) -> Trial:
    """Say what a trial shows.

    Args:
        evidence: what it has left.
        baseline: what it should have come to; None if it is to be one.
        harmless: agents that do nothing outside.
        checked: whether a check of the user's own looks at what is outside.
    """
    again = _ran_again(evidence, harmless)
    struck = evidence.struck()
    findings = [*_findings(evidence, baseline, again, checked=checked)]
    verdict = worst_of([verdict for verdict, _ in findings])
    if verdict == "survives" and len(struck) < len(evidence.kills):
        verdict = "not reached"
    processes = evidence.processes()
    return Trial(
        kills=evidence.kills,
        boundaries=struck,
        verdict=verdict,
        findings=tuple(said for _, said in sorted(findings, key=lambda one: one[0] != verdict)),
        ran_again=again,
        passed=len(processes[-1]) if processes else 0,
        folder=evidence.folder,
    )


def _findings(
    evidence: Evidence, baseline: Baseline | None, again: Iterable[Again], *, checked: bool
) -> Iterator[Finding]:
    result = evidence.result
    if evidence.ends[-1] != "ended" or result is None:
        yield "cannot resume", f"the last process {evidence.ends[-1]}"
        return
    if "broken" in result:
        broken = result["broken"]
        yield "cannot resume", f"{broken['kind']}: {broken['message']}"
        return
    yield from _lost(evidence, result)
    yield from _unrecorded(evidence, result)
    yield from _effects(evidence)
    for one in again:
        if one.finished:
            yield "repeats work", f"{one.path} had ended, and ran again"
        elif not (one.guarded or one.harmless or checked):
            yield (
                "may repeat effects",
                f"{one.path} ran again from its start: whatever it does outside happens again",
            )
    if result["unknown"]:
        yield "stops", result["error"]["message"]
    elif baseline is not None:
        yield from _differing(baseline, result)
    if result["unfinished"]:
        yield "differs", "it has ended, and still counts as unfinished"
    if result["checked"] is not None:
        yield "fails the check", result["checked"]


def _differing(baseline: Baseline, result: Mapping[str, Any]) -> Iterator[Finding]:
    for where, expected, found in _differences(baseline.result, result):
        if where in baseline.unstable:
            continue
        if where.startswith(_EVENTS_OF):
            missing: Counter[str] = expected - found
            more: Counter[str] = found - expected
            if missing and more.total() < missing.total():
                yield "loses work", f"{where}: {missing.total()} missing: {_first(missing)}"
            elif missing:
                said = f"{_first(more)} instead of {_first(missing)}"
                yield "differs", f"{where}: {said}"
            if more.total() > missing.total():
                yield "differs", f"{where}: {more.total()} too many: {_first(more)}"
        else:
            why = ""
            if where == "status" and result["error"] is not None:
                why = f" ({result['error']['kind']}: {result['error']['message']})"
            yield "differs", f"{where} is {found!r:.60}, not {expected!r:.60}{why}"


def _first(events: Counter[str]) -> str:
    event: dict[str, Any] = json.loads(next(iter(events)))
    content: dict[str, Any] = event.get("content", {})
    parts: list[dict[str, Any]] = content.get("parts", [])
    text = "".join(part.get("text", "") for part in parts)
    if text:
        return repr(text)
    said = {
        name: event[name] for name in ("content", "output", "actions") if event.get(name)
    } or event.get("customMetadata")
    return f"{json.dumps(said):.80}"


def _lost(evidence: Evidence, result: Mapping[str, Any]) -> Iterator[Finding]:
    """What was handed out was recorded, so it is there."""
    log = {(one["seq"], one["path"], one["text"]) for one in result["log"]}
    for note in evidence.notes:
        if note["kind"] == "handed" and (note["seq"], note["path"], note["text"]) not in log:
            said = f"{note['text']!r:.40} of {note['path'] or 'the user'} was handed out"
            yield "loses work", f"{said} as event {note['seq']}, and is not in the log"


def _unrecorded(evidence: Evidence, result: Mapping[str, Any]) -> Iterator[Finding]:
    """The end of whatever has ended in the last process is noted."""
    lives = evidence.lives()
    if not lives or result["status"] != "completed":
        return
    recorded = {one["path"] for one in result["records"] if one["kind"] == "end"}
    taps = _noted(evidence, "tap")
    ends = [one for one in lives[-1] if one["kind"] == "end" and one["status"] == "completed"]
    for path in [str(one["path"]) for one in ends]:
        if path not in recorded and not _is_below(path, taps):
            yield "loses work", f"{path} has ended, and the log does not say so"


def _effects(evidence: Evidence) -> Iterator[Finding]:
    """How often the functions that `ctx.once` was given were called, and returned.

    Not of those that may be: ``on_unknown="retry"``. What another ``on_unknown`` does is not noted.
    """
    consented: set[tuple[str, str]] = set()
    calls: Counter[tuple[str, str]] = Counter()
    done: Counter[tuple[str, str]] = Counter()
    for note in evidence.notes:
        if note["kind"] in ("call", "failed", "done"):
            effect = note["path"], note["key"]
            if note.get("may_repeat"):
                consented.add(effect)
            calls[effect] += {"call": 1, "failed": -1, "done": 0}[note["kind"]]
            done[effect] += note["kind"] == "done"
    for (path, key), count in calls.items():
        if (path, key) in consented:
            continue
        if done[path, key] > 1:
            yield "repeats effects", f"effect {key!r} of {path} was done {done[path, key]} times"
        elif count > 1:
            said = f"effect {key!r} of {path} was begun {count} times, and may have been done twice"
            yield "may repeat effects", said


def _ran_again(evidence: Evidence, harmless: Collection[str]) -> tuple[Again, ...]:
    """Find out who ran in one process and then in another."""
    guards, taps = _noted(evidence, "guard"), _noted(evidence, "tap")
    records = () if evidence.result is None else evidence.result.get("records", ())
    resumptions = [one["seq"] for one in records if one["kind"] == "resumed"]
    ended = {
        one["path"]: one["seq"]
        for one in records
        if one["kind"] == "end" and one["status"] == "completed"
    }
    again: dict[str, Again] = {}
    before: dict[str, Note] = {}
    known: set[str] = set()  # to have ended: something that began afterwards was handed out
    for life in evidence.lives():
        resumed_at = 0
        if any(one["kind"] == "point" and _is_resumption(one) for one in life) and resumptions:
            resumed_at = resumptions.pop(0)
        started = {one["path"]: one for one in life if one["kind"] == "start"}
        for path, note in started.items():
            if path in before and (note["own"] or path in known or path in ended):
                finished = (path in known or ended.get(path, resumed_at) < resumed_at) and (
                    not _is_below(path, taps)
                )
                if note["own"] or finished:
                    is_harmless = not note["own"] or note["agent"] in harmless
                    again[path] = Again(path, note["agent"], finished, path in guards, is_harmless)
        before |= started
        known |= _must_be_known(life)
    return tuple(again.values())


def _is_resumption(note: Note) -> bool:
    what: str = note["what"]
    return note["when"] == "after" and what.startswith("the resumption")


def _must_be_known(life: Iterable[Note]) -> set[str]:
    """Return who had ended before somebody began of whom something was handed out.

    Records are in the log in the order of what they note.
    """
    ended: list[str] = []
    known_when: dict[str, int] = {}
    known = 0
    for note in life:
        match note["kind"]:
            case "end":
                if note["status"] == "completed":
                    ended.append(note["path"])
            case "start":
                known_when[note["path"]] = len(ended)
            case "handed":
                known = max(known, known_when.get(note["path"], 0))
            case _:
                pass
    return set(ended[:known])


def _noted(evidence: Evidence, kind: str) -> set[str]:
    return {note["path"] for note in evidence.notes if note["kind"] == kind}


def _is_below(path: str, others: Iterable[str]) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in others)
