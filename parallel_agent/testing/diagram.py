"""A run as text: a column for each branch, a line for each thing it did.

Pure: nothing here waits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from parallel_agent.testing.steps import EVERY_KEY, Step
from session.event import Event

__all__ = ["draw"]

WIDTH: Final = 34
"""How wide a column gets."""

NARROW: Final = 16
"""How wide it gets, however many there are."""

PAGE: Final = 100
"""How wide all of them get together, if they need not be narrower than that for it."""

MAX_LINES: Final = 60
"""How many lines are drawn; of a longer run, the last."""


def draw(steps: Sequence[Step]) -> str:
    """Return a run as a small sequence diagram.

    A column is a task, named by the path of its activation. Steps in which nothing happened that
    others could notice are left out.
    """
    lines: list[tuple[str, str]] = []
    for step in steps:
        lines += [(step.actor, what) for what in _what(step)]
    if not lines:
        return "(nobody did what others could notice)"
    left_out = len(lines) - MAX_LINES
    if left_out > 0:
        lines = lines[left_out:]
    ranks = {step.actor: step.rank for step in steps if step.actor != "time"}
    shown = {who for who, _ in lines}
    actors = sorted((actor for actor in ranks if actor in shown), key=lambda actor: ranks[actor])
    most = min(WIDTH, max(NARROW, PAGE // max(len(actors), 1) - 2))
    widths = {
        actor: min(most, max(len(text) for who, text in [(actor, actor), *lines] if who == actor))
        for actor in actors
    }
    rows: list[str] = []
    if actors:
        rows.append(_row({actor: _tail(actor, widths[actor]) for actor in actors}, widths))
        rows.append(_row({actor: "-" * widths[actor] for actor in actors}, widths))
    if left_out > 0:
        rows.append(f"({left_out} lines before)")
    for who, text in lines:
        rows.append(text if who == "time" else _row({who: _cut(text, widths[who])}, widths))
    return "\n".join(row.rstrip() for row in rows)


def _row(cells: dict[str, str], widths: dict[str, int]) -> str:
    return "  ".join(cells.get(actor, "").ljust(width) for actor, width in widths.items())


def _what(step: Step) -> Iterator[str]:
    if step.actor == "time":
        yield f"- - - time passes, from {step.at:g} s"
        return
    reads = dict.fromkeys(access.key for access in step.accesses if not access.writes)
    writes = dict.fromkeys(access.key for access in step.accesses if access.writes)
    if reads:
        yield f"reads {_keys(reads)}"
    if step.sees_events:
        yield "reads history"
    if writes:
        yield f"writes {_keys(writes)}"
    event = step.event
    if event is not None:
        is_there = event.partial or any(one is event for one in step.recorded)
        yield _said("emits", event, "" if is_there else "(not recorded)")
    for one in step.recorded:
        if one is not event:  # a message, say
            yield _said(f"{one.author} to {one.branch or 'the root'}:", one)
    if step.cancels:
        yield f"cancels {', '.join(sorted(step.cancels))}"


def _said(what: str, event: Event, more: str = "") -> str:
    changed = ", ".join(f"{key}={value!r}" for key, value in event.state_delta.items())
    outcomes = [one for one in event.actions.outcomes or () if one.status != "completed"]
    ended = ", ".join(f"{one.name} {one.status}" for one in outcomes)
    parts = (
        what,
        "part of" if event.partial else "",
        f"question {event.request.prompt!r}" if event.request is not None else "",
        repr(event.text) if event.text else "",
        f"output {event.output!r}" if event.output is not None and not event.text else "",
        f"{{{changed}}}" if changed else "",
        "escalate" if event.actions.escalate else "",
        f"({ended})" if ended else "",
        more,
    )
    return " ".join(part for part in parts if part)


def _keys(keys: dict[str, None]) -> str:
    return ", ".join("all keys" if key == EVERY_KEY else key for key in keys)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _tail(text: str, width: int) -> str:
    return text if len(text) <= width else f"…{text[1 - width :]}"
