"""What certifying says: the boundaries, what happened at each, and a verdict. Values only."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias, get_args

import attrs

__all__ = ["Again", "Boundary", "Certificate", "CertifyVerdict", "Trial"]

CertifyVerdict: TypeAlias = Literal[
    "not reached",
    "survives",
    "may repeat effects",
    "stops",
    "differs",
    "fails the check",
    "repeats work",
    "repeats effects",
    "loses work",
    "cannot resume",
]
"""What becomes of a run that is killed, from the best to the worst.

``not reached``: this run came to fewer boundaries, and ended. ``survives``: resumed, it ended as
the run that nobody killed. ``may repeat effects``: so it did, and agents ran again from their start
of which nobody knows what they do outside. ``stops``: it failed with `EffectUnknownError`, for a
person to look. ``differs``: it ended otherwise. ``fails the check``: the user's own. ``repeats
work``: an agent that had ended ran again. ``repeats effects``: an effect of `ctx.once` was done
twice. ``loses work``: something that was handed out, or is to be recorded, is not in the log.
``cannot resume``: it failed to go on, or hung.
"""

_ORDER: Final[tuple[CertifyVerdict, ...]] = get_args(CertifyVerdict)

_WIDE: Final = 46


@attrs.frozen
class Boundary:
    """A place at which a run can be killed.

    Attributes:
        at: its number among those that its process comes to, from 1.
        when: ``"before"``, ``"before the commit of"`` or ``"after"``.
        what: what was to be recorded or done, or had been.
        path: whose it is.
    """

    at: int
    when: str
    what: str
    path: str

    def __str__(self) -> str:
        return f"{self.when} {self.what}"


@attrs.frozen
class Again:
    """An agent that ran again after a kill.

    Attributes:
        path: its activation.
        agent: its name.
        finished: it had ended before, and the runtime could know.
        guarded: it uses `ctx.once` or `ctx.checkpoint`.
        harmless: it was declared so, or is a workflow agent of this package.
    """

    path: str
    agent: str
    finished: bool
    guarded: bool
    harmless: bool


@attrs.frozen
class Trial:
    """One run, killed and resumed.

    Attributes:
        kills: at which boundary the first process was killed, then the one that resumed, ...;
            empty for the run that nobody killed.
        boundaries: what was found there; shorter than ``kills`` if one was not reached.
        verdict: on this trial.
        findings: what shows it, in sentences.
        ran_again: who did.
        passed: how many boundaries the last process came to.
        folder: where its database, notes and output are, if they were kept.
    """

    kills: tuple[int, ...]
    boundaries: tuple[Boundary, ...]
    verdict: CertifyVerdict
    findings: tuple[str, ...]
    ran_again: tuple[Again, ...]
    passed: int
    folder: str

    @property
    def at(self) -> str:
        """The numbers of its boundaries, as ``--at`` takes them."""
        return ",".join(map(str, self.kills))


@attrs.frozen
class Certificate:
    """Whether a tree survives being killed.

    Attributes:
        target: the tree.
        message: what it was asked.
        status: how the run ends that nobody kills; with the error, if it fails.
        boundaries: all that the uninterrupted run came to.
        trials: what was tried, in order of the boundaries.
        unstable: what two uninterrupted runs do not agree in, so that it was not compared.
        checked: whether a check of the user's own has looked at each end.
        command: does all of it again.
        seconds: how long it took.
    """

    target: str
    message: str | None
    status: str
    boundaries: tuple[Boundary, ...]
    trials: tuple[Trial, ...]
    unstable: tuple[str, ...]
    checked: bool
    command: tuple[str, ...]
    seconds: float

    @property
    def verdict(self) -> CertifyVerdict:
        """The worst verdict on any trial."""
        return worst_of(trial.verdict for trial in self.trials)

    @property
    def survives(self) -> bool:
        """Whether nothing was found."""
        return self.verdict in ("survives", "not reached")

    @property
    def worst(self) -> Trial | None:
        """The first trial that shows the verdict; None if nothing was found."""
        if self.survives:
            return None
        return next(trial for trial in self.trials if trial.verdict == self.verdict)

    @property
    def unguarded(self) -> tuple[str, ...]:
        """The names of the agents that ran again from their start, and guard nothing."""
        names = {
            again.agent: None
            for trial in self.trials
            for again in trial.ran_again
            if not again.guarded and not again.harmless
        }
        return tuple(names)

    def reproduce(self, trial: Trial) -> str:
        """Return the command that does one trial again."""
        program, command, *rest = self.command
        at = ["--at", trial.at] if trial.kills else []
        return shlex.join([program, command, *at, *rest])

    def to_json(self) -> str:
        """Return it as a JSON object."""
        trials = [
            {**attrs.asdict(one), "at": one.at, "reproduce": self.reproduce(one)}
            for one in self.trials
        ]
        whole = {
            **attrs.asdict(self, recurse=True),
            "verdict": self.verdict,
            "unguarded": list(self.unguarded),
            "trials": trials,
        }
        return json.dumps(whole, indent=2)

    def text(self) -> str:
        """Return it as a table, and the verdict with what shows it, for people."""
        return "\n".join([*self._head(), "", *self._table(), "", *self._foot()])

    def _head(self) -> Iterable[str]:
        tried = sum(1 for trial in self.trials if len(trial.kills) == 1)
        twice = sum(1 for trial in self.trials if len(trial.kills) > 1)
        yield f"crash certificate of {self.target}"
        second = f"; {twice} of the resumed runs killed again" if twice else ""
        yield f"the run that nobody kills: {self.status}"
        yield f"{len(self.boundaries)} boundaries, killed at {tried}{second}"

    def _table(self) -> Iterable[str]:
        rows = [("at", "killed", "verdict", "ran again")]
        rows += [_row(trial) for trial in self.trials]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)]
            yield "  ".join(cells).rstrip()

    def _foot(self) -> Iterable[str]:
        yield f"verdict: {self.verdict}"
        worst = self.worst
        if worst is not None:
            for finding in worst.findings:
                yield f"  {finding}"
            where = ", then ".join(f"{one} ({one.path})" for one in worst.boundaries if one.path)
            if where:
                yield f"  killed {where}"
            yield f"  to see it again: {self.reproduce(worst)}"
        if self.unguarded:
            said = "what they do outside is for the check to say"
            if not self.checked:
                said = "whatever they do outside happens again"
            yield f"ran again from their start, without ctx.once or ctx.checkpoint: {said}"
            for name in self.unguarded:
                yield f"  {name}"
        if self.unstable:
            yield "not compared, because two uninterrupted runs differ in it:"
            for what in self.unstable:
                yield f"  {what}"


def _row(trial: Trial) -> tuple[str, str, str, str]:
    where = ", then ".join(map(str, trial.boundaries)) or ("-" if trial.kills else "nowhere")
    again = dict.fromkeys(one.agent for one in trial.ran_again)
    return trial.at or "0", _short(where), trial.verdict, ", ".join(again)


def _short(text: str) -> str:
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 1]}…"


def worst_of(verdicts: Iterable[CertifyVerdict]) -> CertifyVerdict:
    """Return the worst of them; ``survives`` if there is none."""
    found = [*verdicts] or ["survives"]
    return max(_ORDER, key=lambda one: _ORDER.index(one) if one in found else -1)
