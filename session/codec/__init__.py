"""The stored form of an event: JSON that Google ADK's own ``Event`` reads, and that reads ADK's.

Names are ADK's, in camelCase; ADK's other spelling (snake_case) is read as well. What ADK has no
field for is kept under ``customMetadata.parallel_agent``, which every release of ADK passes on,
and the path of the activation in ``nodeInfo.path``. What ADK has and this runtime does not act
on is kept in ``Event.other``, ``EventActions.other`` and `OtherPart`, and written back as it was.

Reading is strict: a name that nobody knows, a value of the wrong type, text that is no text are
refused with the place where they stand, and nothing half made comes out.

Pure values: no I/O, no clock, no event loop.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Final

from cattrs import Converter

from session.codec._read import READ_ERRORS, make_converter, problems, read_event
from session.codec._write import event_object
from session.event import Event
from session.state import UnstorableError

__all__ = ["Codec", "CodecError"]

_SHOWN_PROBLEMS: Final = 5


class CodecError(ValueError):
    """An event cannot be written, or what was read is no event.

    ``problems`` holds all that was found, as pairs of a path
    (``content.parts[0].functionCall.args``) and a reason; ``path`` and ``why`` are the first's.
    """

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        """Make the message of the first few problems."""
        self.problems = tuple(problems)
        self.path, self.why = self.problems[0]
        shown = [str(UnstorableError(*problem)) for problem in self.problems[:_SHOWN_PROBLEMS]]
        if len(self.problems) > _SHOWN_PROBLEMS:
            shown.append(f"and {len(self.problems) - _SHOWN_PROBLEMS} more")
        super().__init__("; ".join(shown))


class Codec:
    """Writes and reads the stored form. Has no state that its use changes."""

    def __init__(self) -> None:
        """See the class."""
        self._to_text = json.JSONEncoder(
            ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False
        ).encode

    @cached_property
    def _converter(self) -> Converter:
        # A codec has its own, so no other code's hooks reach it. Made by the first that reads:
        # it takes longer than to write a hundred events.
        return make_converter()

    # Writing.

    def encode(self, event: Event) -> dict[str, Any]:
        """Return the JSON object of a sealed event. What is not set is left out, as ADK may.

        Raises:
            CodecError: the event is not sealed, or its origin, id, time or number has no JSON form.
        """
        if not event.sealed:
            raise CodecError([("", "the event can still change; seal() it first")])
        try:
            return event_object(event)
        except UnstorableError as error:
            raise CodecError([(error.path, error.why)]) from None

    def dumps(self, event: Event) -> str:
        """Return the JSON text of a sealed event. Raises what `encode` raises."""
        return self._to_text(self.encode(event))

    # Reading.

    def decode(self, obj: object, *, path: str = "") -> Event:
        """Return the sealed event that ``obj``, a JSON object, stands for.

        ``path`` is where ``obj`` stands itself (``events[3]``), for the errors.

        Raises:
            CodecError: it is no event; every problem is named with its path.
        """
        try:
            return read_event(self._converter, obj)
        except READ_ERRORS as error:
            found = list(problems(error, path))
        # Outside the handler: the tree of cattrs' own errors says the same at ten times the length.
        raise CodecError(found)

    def loads(self, text: str | bytes, *, path: str = "") -> Event:
        """Return the sealed event that ``text`` holds as JSON. See `decode`."""
        try:
            obj = json.loads(text)
        except RecursionError:
            problem = "nested too deeply"
        except ValueError as error:
            problem = f"this is no JSON: {error}"
        else:
            return self.decode(obj, path=path)
        raise CodecError([(path, problem)])
