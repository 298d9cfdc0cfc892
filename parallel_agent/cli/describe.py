"""An event, and an error, as lines of text for people.

Pure: no event loop, no clock. Whatever an agent said, the text is fit for a terminal.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, assert_never, cast

from parallel_agent.notes import describe
from parallel_agent.observe.harmless import harmless, one_line
from session.actions import BranchOutcome
from session.content import Content, FunctionCall, FunctionResponse, InlineData, OtherPart, Text
from session.event import Event
from session.request import REQUEST_INPUT

__all__ = ["artifacts_line", "error_lines", "event_lines", "time_text", "traceback_lines"]

_INDENT: Final = "    "


def event_lines(event: Event) -> str:
    """Return ``branch  author  text``, and further lines of the text indented below.

    What an event asks for or reports is said in parentheses; of an event without text, all of it.
    """
    first, *more = harmless(event.text).split("\n")
    remarks = "; ".join(_remarks(event))
    if remarks and more:
        more.append(f"({remarks})")
    elif remarks:
        first = f"{first} ({remarks})".lstrip()
    elif not event.text:
        first = "(nothing)"
    if event.partial:
        first = f"… {first}"
    branch, author = one_line(event.branch or "-"), one_line(event.author or "-")
    lines = [f"{branch:24}  {author:14}  {first}", *(f"{_INDENT}{line}" for line in more)]
    return "\n".join(line.rstrip() for line in lines)


def error_lines(error: BaseException) -> str:
    """Return type and message, and the notes that say where it came from."""
    kind, said = describe(error)
    place = _own_place(error)
    found: object = getattr(error, "__notes__", None)
    notes = cast("list[object]", found) if isinstance(found, list) else []
    first = f"{kind}: {said}" if said else kind
    text = "\n".join([first, *([place] if place else []), *map(str, notes)])
    return harmless(text).replace("\n", f"\n{_INDENT}")


def _own_place(error: BaseException) -> str:
    """Return the innermost place in code that is neither ours nor trio's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_OTHERS)]
    return (
        f"in {own[-1].filename}:{own[-1].lineno} (--traceback shows the way there)" if own else ""
    )


_OTHERS: Final = tuple(
    str(Path(sys.modules[name].__file__ or "").parent)
    for name in ("parallel_agent", "session", "trio")
    if name in sys.modules
)
"""What is not the user's own code."""


def artifacts_line(
    events: Iterable[Event], folder: str, where: Callable[[str, int], Path | None]
) -> str:
    """Return which artifacts were saved, the newest version of each, and in which file."""
    saved: dict[str, int] = {}
    for event in events:
        saved.update(event.actions.artifact_delta)
    if not saved:
        return f"no artifact was saved in {one_line(folder)}"
    listed = [
        f"saved {one_line(name)} (version {saved[name]}): {one_line(str(where(name, saved[name])))}"
        for name in sorted(saved)
    ]
    return "\n".join(listed)


def time_text(seconds: float) -> str:
    """Return a time (seconds since the epoch) as people here read it."""
    try:
        return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
    except (OverflowError, OSError, ValueError):  # of a session from elsewhere
        return f"{seconds:g}"


def traceback_lines(error: BaseException) -> str:
    """Return the whole traceback."""
    return harmless("".join(traceback.format_exception(error))).rstrip("\n")


def _remarks(event: Event) -> Iterator[str]:
    actions = event.actions
    if event.error_code or event.error_message:
        parts = (event.error_code, event.error_message)
        yield f"error: {one_line(': '.join(part for part in parts if part))}"
    yield from _parts(event.content)
    if actions.outcomes:
        yield ", ".join(_outcome(outcome) for outcome in actions.outcomes)
    for name, version in actions.artifact_delta.items():
        yield f"saved {one_line(name)}, version {version}"
    if actions.escalate:
        yield "escalates"
    if actions.transfer_to_agent:
        yield f"transfers to {one_line(actions.transfer_to_agent)}"
    if event.text:
        return  # the text says it; the rest is what follows from it
    if event.output is not None:
        yield f"output {_value(event.output)}"
    if event.state_delta:
        yield "state " + ", ".join(one_line(key) for key in event.state_delta)


def _parts(content: Content | None) -> Iterator[str]:
    for part in () if content is None else content.parts:
        match part:
            case Text(thought=True):
                yield f"thinks: {one_line(part.text, _MAX_VALUE)}"
            case Text():
                pass
            case FunctionCall(name=name, args=args) if name == REQUEST_INPUT:
                yield f"asks: {one_line(str(args.get('message', '')), _MAX_VALUE)}"
            case FunctionResponse(name=name, response=response) if name == REQUEST_INPUT:
                yield f"answers: {_value(response.get('result'))}"
            case FunctionCall():
                yield f"calls {one_line(part.name)} {_value(part.args)}"
            case FunctionResponse():
                yield f"{one_line(part.name)} answers {_value(part.response)}"
            case InlineData():
                yield f"{one_line(part.mime_type)}, {len(part.data):,} bytes"
            case OtherPart():
                yield ", ".join(one_line(key) for key in part.raw) or "an empty part"
            case _:
                assert_never(part)


def _outcome(outcome: BranchOutcome) -> str:
    text = f"{one_line(outcome.name)} {one_line(outcome.status)}"
    if outcome.error_type:
        said = one_line(outcome.error_message or "", _MAX_VALUE)
        text += f": {one_line(outcome.error_type)}{f': {said}' if said else ''}"
    return text


def _value(value: Any) -> str:
    if isinstance(value, Mapping) and not value:
        return "()"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        text = "(nested deeply)"
    return one_line(text, _MAX_VALUE)


_MAX_VALUE: Final = 120
