"""The stored form of an event: JSON that Google ADK's own ``Event`` reads, and that reads ADK's.

Names are ADK's, in camelCase; ADK's other spelling (snake_case) is read as well. What ADK has no
field for is kept under ``customMetadata.parallel_agent``, which every release of ADK passes on,
and the path of the activation in ``nodeInfo.path``. What ADK has and this runtime does not act
on is kept in ``Event.other``, ``EventActions.other`` and `OtherPart`, and written back as it was.

Reading is strict: a name that nobody knows, a value of the wrong type, text that is no text are
refused with the place where they stand, and nothing half made comes out.

Pure values: no I/O, no clock, no event loop.
"""

# JSON is `Any`, and pyright calls what `isinstance` makes of it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownLambdaType=false

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final, NewType, TypeAlias, assert_never, get_origin

import attrs
from cattrs import BaseValidationError, Converter
from cattrs.cols import homogenous_tuple_structure_factory
from cattrs.errors import AttributeValidationNote, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from session.actions import KEPT_ACTIONS, NO_ACTIONS, BranchOutcome, EventActions
from session.content import (
    Content,
    FunctionCall,
    FunctionResponse,
    InlineData,
    OtherPart,
    Part,
    Text,
)
from session.event import KEPT_FIELDS, KEPT_NODE_INFO, OURS, Event, Origin
from session.state import FrozenDict, FrozenList, UnstorableError, freeze

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


# What cattrs makes of the JSON, where that is not yet one of our classes.

_Json = NewType("_Json", object)
_Hook: TypeAlias = Callable[[Any, Any], Any]


@attrs.frozen
class _NodeInfo:
    path: str = ""
    other: Mapping[str, Any] = FrozenDict()


def _is_count(_ours: object, attribute: attrs.Attribute[int], value: int) -> None:
    if value < 1:
        raise UnstorableError(attribute.name, f"a whole number from 1 on is needed, not {value}")


@attrs.frozen
class _Ours:
    """What stands under ``customMetadata.parallel_agent``."""

    seq: int | None = attrs.field(default=None, validator=attrs.validators.optional(_is_count))
    attempt: int = attrs.field(default=1, validator=_is_count)
    outcomes: tuple[BranchOutcome, ...] = ()


@attrs.frozen
class _StoredPart:
    text: str | None = None
    thought: bool = False
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    inline_data: InlineData | None = None


@attrs.frozen
class _StoredEvent:
    id: str
    invocation_id: str
    author: str
    timestamp: float
    actions: EventActions = attrs.field(factory=EventActions)
    branch: str | None = None
    content: Content | None = None
    output: _Json | None = None
    partial: bool = False
    error_code: str | None = None
    error_message: str | None = None
    long_running_tool_ids: tuple[str, ...] = ()
    custom_metadata: Mapping[str, Any] = FrozenDict()
    node_info: _NodeInfo = _NodeInfo()
    ours: _Ours = _Ours()
    other: Mapping[str, Any] = FrozenDict()


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _names(cls: type, *, without: Iterable[str] = ()) -> dict[str, str]:
    """Both spellings of the fields of ``cls``, and the name of the attribute each stands for."""
    names = [name for name in attrs.fields_dict(cls) if name not in without]
    return {_camel(name): name for name in names} | {name: name for name in names}


class Codec:
    """Writes and reads the stored form. Has no state that its use changes."""

    def __init__(self) -> None:
        """Make the converter: a codec has its own, so no other code's hooks reach it."""
        converter = self._converter = Converter()
        for kind, hook in (
            (str, _read_text),
            (bool, _reads("true or false", bool)),
            (int, _read_int),
            (float, _read_float),
            (bytes, _read_bytes),
            (_Json, lambda value, _: freeze(value)),
        ):
            converter.register_structure_hook(kind, hook)
        is_kind = converter.register_structure_hook_func
        is_kind(lambda kind: kind == Mapping[str, Any], _read_object)
        is_kind(lambda kind: kind == Mapping[str, int], _read_versions)
        converter.register_structure_hook_factory(_is_tuple, _reads_list)
        # In the order in which they need each other: cattrs looks hooks up when it makes one.
        for cls in (FunctionCall, FunctionResponse, InlineData, BranchOutcome, _Ours):
            self._register(cls)
        self._register(_NodeInfo, kept=KEPT_NODE_INFO)
        self._register(EventActions, kept=KEPT_ACTIONS, without=("outcomes",))
        converter.register_structure_hook(Part, _reads_part(self._hook(_StoredPart)))
        self._register(Content, prepare=_complete_content)
        self._register(
            _StoredEvent, kept=KEPT_FIELDS - {"nodeInfo"}, without=("ours",), prepare=_part_metadata
        )
        self._to_text = json.JSONEncoder(
            ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False
        ).encode

    def _register(self, cls: type, **options: Any) -> None:
        self._converter.register_structure_hook(cls, self._hook(cls, **options))

    def _hook(
        self,
        cls: type,
        *,
        kept: Iterable[str] = (),
        without: Iterable[str] = (),
        prepare: Callable[[dict[str, Any]], object] = len,  # which does nothing
    ) -> _Hook:
        """Return what reads a JSON object as ``cls``; names in ``kept`` go to its ``other``."""
        structure: _Hook = make_dict_structure_fn(cls, self._converter)
        names = _names(cls, without=("other", *without))
        kept_names = {name: name for name in kept} | {_snake(name): name for name in kept}

        def read(value: Any, _: Any) -> Any:
            fields, other = _sort(value, names, kept_names)
            if other:
                fields["other"] = FrozenDict(other)
            prepare(fields)
            return structure(fields, cls)

        return read

    # Writing.

    def encode(self, event: Event) -> dict[str, Any]:
        """Return the JSON object of a sealed event. What is not set is left out, as ADK may.

        Raises:
            CodecError: the event is not sealed, or its origin, id, time or number has no JSON form.
        """
        if not event.sealed:
            raise CodecError([("", "the event can still change; seal() it first")])
        try:
            return _event_object(event)
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
            return _as_event(self._converter.structure(obj, _StoredEvent))
        except (BaseValidationError, UnstorableError, RecursionError) as error:
            problems = list(_problems(error, path))
        # Outside the handler: the tree of cattrs' own errors says the same at ten times the length.
        raise CodecError(problems)

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


# From JSON.


def _sort(
    value: Any, ours: Mapping[str, str], kept: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell the fields of an object that are ours from those only kept; refuse all others."""
    if not isinstance(value, dict):
        raise _wanted("an object", value)
    fields: dict[str, Any] = {}
    other: dict[str, Any] = {}
    for key, item in value.items():
        if item is None:
            # ADK's "not set". It says nothing, so a later ADK's new field may be there as well.
            continue
        name, found = (ours[key], fields) if key in ours else (kept.get(key), other)
        if name is None:
            raise UnstorableError(str(key), "there is no such field")
        if name in found:
            raise UnstorableError(key, "it is there twice, in two spellings")
        found[name] = item if found is fields else freeze(item, key)
    return fields, other


def _complete_content(fields: dict[str, Any]) -> None:
    # ADK's defaults, which are not ours: without a role it would be the model's.
    fields.setdefault("parts", [])
    fields.setdefault("role", None)


def _part_metadata(fields: dict[str, Any]) -> None:
    metadata = fields.get("custom_metadata")
    if isinstance(metadata, dict) and OURS in metadata:
        fields["ours"] = metadata[OURS]
        fields["custom_metadata"] = {key: metadata[key] for key in metadata if key != OURS}


def _as_event(stored: _StoredEvent) -> Event:
    stored.actions.outcomes = stored.ours.outcomes
    other = stored.other
    if stored.node_info.other:
        other = FrozenDict({**other, "nodeInfo": stored.node_info.other})
    event = Event(
        stored.content,
        actions=stored.actions,
        output=stored.output,
        partial=stored.partial,
        error_code=stored.error_code,
        error_message=stored.error_message,
        long_running_tool_ids=stored.long_running_tool_ids,
        custom_metadata=stored.custom_metadata,
        attempt=stored.ours.attempt,
        other=other,
        origin=Origin(
            author=stored.author,
            invocation_id=stored.invocation_id,
            branch=stored.branch,
            path=stored.node_info.path,
        ),
        id=stored.id,
        timestamp=stored.timestamp,
        seq=stored.ours.seq,
    )
    event.seal()
    return event


_PART_NAMES: Final = _names(_StoredPart)
# What each kind of part is made of, and what of it a part that we know must have.
_MEMBERS: Final[Mapping[str, tuple[Mapping[str, str], AbstractSet[str]]]] = {
    "function_call": (_names(FunctionCall), {"name"}),
    "function_response": (_names(FunctionResponse), {"name"}),
    "inline_data": (_names(InlineData), {"data", "mime_type"}),
}


def _reads_part(read: _Hook) -> _Hook:
    def read_part(value: Any, _: Any) -> Part:
        if not isinstance(value, dict):
            raise _wanted("an object", value)
        if not _is_ours(value):
            return OtherPart(value)
        part: _StoredPart = read(value, _StoredPart)
        if part.text is not None:
            return Text(part.text, part.thought)
        member = part.function_call or part.function_response or part.inline_data
        return OtherPart(value) if member is None else member

    return read_part


def _is_ours(part: dict[Any, Any]) -> bool:
    """Whether one of our classes can hold all that is set in a part."""
    fields = {_PART_NAMES.get(key, ""): item for key, item in part.items() if item is not None}
    if "text" in fields:
        return fields.keys() <= {"text", "thought"}
    if len(fields) != 1:
        return False
    ((name, member),) = fields.items()
    known, needed = _MEMBERS.get(name, ({}, {""}))
    if not isinstance(member, dict):
        return name in _MEMBERS  # it will be refused as what it claims to be
    found = {known.get(key, "") for key, item in member.items() if item is not None}
    return needed <= found <= set(known.values())


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _reads_list(kind: Any, converter: Converter) -> _Hook:
    read = homogenous_tuple_structure_factory(kind, converter)

    def read_list(value: Any, kind: Any) -> Any:
        # cattrs takes whatever can be iterated: text, the keys of an object.
        if type(value) not in (list, FrozenList):
            raise _wanted("a list", value)
        return read(value, kind)

    return read_list


def _reads(what: str, *kinds: type) -> _Hook:
    def read(value: Any, _: Any) -> Any:
        # By type and not isinstance: True is no whole number.
        if type(value) not in kinds:
            raise _wanted(what, value)
        return freeze(value)

    return read


_read_text: Final = _reads("text", str)
_read_int: Final = _reads("a whole number", int)
_read_number: Final = _reads("a number", int, float)
_read_object: Final = _reads("an object", dict, FrozenDict)


def _read_float(value: Any, kind: Any) -> float:
    try:
        return float(_read_number(value, kind))
    except OverflowError:
        raise UnstorableError("", "the number is too large") from None


def _read_bytes(value: Any, kind: Any) -> bytes:
    # ADK writes the URL-safe alphabet; what came over other ways may have the plain one.
    text = _read_text(value, kind).replace("-", "+").replace("_", "/")
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise UnstorableError("", "this is no base64") from None


def _read_versions(value: Any, kind: Any) -> Any:
    versions = _read_object(value, kind)
    for name, version in versions.items():
        _checked(_read_int, version, name)
    return versions


def _wanted(what: str, value: Any) -> UnstorableError:
    return UnstorableError("", f"{what} is needed, not a {type(value).__name__}")


def _problems(error: BaseException, path: str) -> Iterator[tuple[str, str]]:
    """Walk the tree of errors that cattrs makes; its notes say where each branch belongs."""
    match error:
        case BaseValidationError():
            for inner in error.exceptions:
                yield from _problems(inner, _place(inner, path))
        case UnstorableError():
            seen = error.under(path)
            yield seen.path, seen.why
        case KeyError():
            yield path, "it is missing"
        case RecursionError():
            yield path, "nested too deeply"
        case _:
            yield path, f"{type(error).__name__}: {error}"


def _place(error: BaseException, path: str) -> str:
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, IterableValidationNote):
            return f"{path}[{note.index}]"
        if isinstance(note, AttributeValidationNote):
            name = f"customMetadata.{OURS}" if note.name == "ours" else _camel(note.name)
            return f"{path}.{name}" if path else name
    return path


# To JSON. By hand: it is done for every event, and leaves out what ADK leaves out.


def _event_object(event: Event) -> dict[str, Any]:
    stored = {
        "id": _checked(_read_text, event.id, "id"),
        "invocationId": _checked(_read_text, event.invocation_id, "invocationId"),
        "author": _checked(_read_text, event.author, "author"),
        "timestamp": _checked(_read_float, event.timestamp, "timestamp"),
        "actions": _actions_object(event.actions),
    }
    if event.branch is not None:
        stored["branch"] = _checked(_read_text, event.branch, "branch")
    if event.content is not None:
        stored["content"] = _content_object(event.content)
    if event.output is not None:
        stored["output"] = event.output
    stored |= _set_only(
        {
            "partial": event.partial,
            "errorCode": event.error_code,
            "errorMessage": event.error_message,
            "longRunningToolIds": list(event.long_running_tool_ids),
        }
    )
    stored |= event.other
    if event.path:
        path = _checked(_read_text, event.path, "nodeInfo.path")
        stored["nodeInfo"] = {"path": path, **event.other.get("nodeInfo", {})}
    metadata = dict(event.custom_metadata)
    if ours := _our_object(event):
        metadata[OURS] = ours
    if metadata:
        stored["customMetadata"] = metadata
    return stored


def _our_object(event: Event) -> dict[str, Any]:
    ours: dict[str, Any] = {}
    if event.seq is not None:
        ours["seq"] = _checked(_read_int, event.seq, f"customMetadata.{OURS}.seq")
    if event.attempt != 1:
        ours["attempt"] = event.attempt
    if outcomes := event.actions.outcomes:
        ours["outcomes"] = [_outcome_object(outcome) for outcome in outcomes]
    return ours


def _actions_object(actions: EventActions) -> dict[str, Any]:
    if actions is NO_ACTIONS:
        return {}
    stored = _set_only(
        {
            "stateDelta": actions.state_delta,
            "artifactDelta": actions.artifact_delta,
            "escalate": actions.escalate,
            "transferToAgent": actions.transfer_to_agent,
            "skipSummarization": actions.skip_summarization,
            "endOfAgent": actions.end_of_agent,
        }
    )
    if actions.agent_state is not None:
        stored["agentState"] = actions.agent_state
    return {**stored, **actions.other}


def _outcome_object(outcome: BranchOutcome) -> dict[str, Any]:
    return {
        _camel(name): value for name, value in attrs.asdict(outcome).items() if value is not None
    }


def _content_object(content: Content) -> dict[str, Any]:
    parts = [_part_object(part) for part in content.parts]
    return {"parts": parts} if content.role is None else {"parts": parts, "role": content.role}


def _part_object(part: Part) -> Mapping[str, Any]:
    match part:
        case Text():
            return {"text": part.text, "thought": True} if part.thought else {"text": part.text}
        case FunctionCall():
            return {
                "functionCall": _set_only({"id": part.id, "name": part.name}) | {"args": part.args}
            }
        case FunctionResponse():
            response = _set_only({"id": part.id, "name": part.name}) | {"response": part.response}
            return {"functionResponse": response}
        case InlineData():
            data = urlsafe_b64encode(part.data).decode()
            return {"inlineData": {"data": data, "mimeType": part.mime_type}}
        case OtherPart():
            return part.raw
        case _:
            assert_never(part)


def _set_only(fields: dict[str, Any]) -> dict[str, Any]:
    # Not by truth: zero and empty text are values.
    return {
        name: value
        for name, value in fields.items()
        if value is not None and value is not False and value not in ({}, [])
    }


def _checked(read: _Hook, value: Any, path: str) -> Any:
    # What the runtime stamps on an event has not gone through `Event.seal`.
    try:
        return read(value, None)
    except UnstorableError as error:
        raise error.under(path) from None
