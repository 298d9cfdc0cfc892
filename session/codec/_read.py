"""From JSON to events: a cattrs converter, the hooks that make it strict, and its errors."""

# JSON is `Any`, and pyright calls what `isinstance` makes of it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownLambdaType=false

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final, NewType, get_origin

import attrs
from cattrs import BaseValidationError, Converter
from cattrs.cols import homogenous_tuple_structure_factory
from cattrs.errors import AttributeValidationNote, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from session.actions import KEPT_ACTIONS, KEPT_FIELDS, KEPT_NODE_INFO, BranchOutcome, EventActions
from session.codec._values import (
    Hook,
    camel,
    checked,
    read_float,
    read_int,
    read_object,
    read_text,
    reads,
    wanted,
)
from session.content import (
    Content,
    FunctionCall,
    FunctionResponse,
    InlineData,
    OtherPart,
    Part,
    Text,
)
from session.event import OURS, Event, Origin
from session.state import FrozenDict, FrozenList, UnstorableError, freeze

READ_ERRORS: Final = (BaseValidationError, UnstorableError, RecursionError)
"""What `read_event` raises when it is given no event; `problems` explains it."""

# What cattrs makes of the JSON, where that is not yet one of our classes.

_Json = NewType("_Json", object)


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
    unset: tuple[str, ...] = ()
    journal: Mapping[str, Any] | None = None


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


def make_converter() -> Converter:
    """Return a converter that can read events."""
    converter = Converter()

    def register(cls: type, **options: Any) -> None:
        converter.register_structure_hook(cls, _reads_object(converter, cls, **options))

    for kind, hook in (
        (str, read_text),
        (bool, reads("true or false", bool)),
        (int, read_int),
        (float, read_float),
        (bytes, _read_bytes),
        (_Json, lambda value, _: freeze(value)),
    ):
        converter.register_structure_hook(kind, hook)
    is_kind = converter.register_structure_hook_func
    is_kind(lambda kind: kind == Mapping[str, Any], read_object)
    is_kind(lambda kind: kind == Mapping[str, int], _read_versions)
    converter.register_structure_hook_factory(_is_tuple, _reads_list)
    # In the order in which they need each other: cattrs looks hooks up when it makes one.
    for cls in (FunctionCall, FunctionResponse, InlineData, BranchOutcome, _Ours):
        register(cls)
    register(_NodeInfo, kept=KEPT_NODE_INFO)
    register(EventActions, kept=KEPT_ACTIONS, without=("outcomes", "state_unset", "journal"))
    converter.register_structure_hook(Part, _reads_part(_reads_object(converter, _StoredPart)))
    register(Content, prepare=_complete_content)
    register(
        _StoredEvent, kept=KEPT_FIELDS - {"nodeInfo"}, without=("ours",), prepare=_part_metadata
    )
    return converter


def read_event(converter: Converter, obj: object) -> Event:
    """Return the sealed event that ``obj`` stands for. Raises one of `READ_ERRORS`."""
    return _as_event(converter.structure(obj, _StoredEvent))


def _reads_object(
    converter: Converter,
    cls: type,
    *,
    kept: Iterable[str] = (),
    without: Iterable[str] = (),
    prepare: Callable[[dict[str, Any]], object] = len,  # which does nothing
) -> Hook:
    """Return what reads a JSON object as ``cls``; names in ``kept`` go to its ``other``."""
    structure: Hook = make_dict_structure_fn(cls, converter)
    names = _names(cls, without=("other", *without))
    kept_names = {name: name for name in kept} | {_snake(name): name for name in kept}

    def read(value: Any, _: Any) -> Any:
        fields, other = _sort(value, names, kept_names)
        if other:
            fields["other"] = FrozenDict(other)
        prepare(fields)
        return structure(fields, cls)

    return read


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _names(cls: type, *, without: Iterable[str] = ()) -> dict[str, str]:
    """Both spellings of the fields of ``cls``, and the name of the attribute each stands for."""
    names = [name for name in attrs.fields_dict(cls) if name not in without]
    return {camel(name): name for name in names} | {name: name for name in names}


def _sort(
    value: Any, ours: Mapping[str, str], kept: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell the fields of an object that are ours from those only kept; refuse all others."""
    if not isinstance(value, dict):
        raise wanted("an object", value)
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
    stored.actions.state_unset = stored.ours.unset
    stored.actions.journal = stored.ours.journal
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


def _reads_part(read: Hook) -> Hook:
    def read_part(value: Any, _: Any) -> Part:
        if not isinstance(value, dict):
            raise wanted("an object", value)
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


def _reads_list(kind: Any, converter: Converter) -> Hook:
    read = homogenous_tuple_structure_factory(kind, converter)

    def read_list(value: Any, kind: Any) -> Any:
        # cattrs takes whatever can be iterated: text, the keys of an object.
        if type(value) not in (list, FrozenList):
            raise wanted("a list", value)
        return read(value, kind)

    return read_list


def _read_bytes(value: Any, kind: Any) -> bytes:
    # ADK writes the URL-safe alphabet; what came over other ways may have the plain one.
    text = read_text(value, kind).replace("-", "+").replace("_", "/")
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise UnstorableError("", "this is no base64") from None


def _read_versions(value: Any, kind: Any) -> Any:
    versions = read_object(value, kind)
    for name, version in versions.items():
        checked(read_int, version, name)
    return versions


def problems(error: BaseException, path: str) -> Iterator[tuple[str, str]]:
    """Walk the tree of errors that cattrs makes; its notes say where each branch belongs."""
    match error:
        case BaseValidationError():
            for inner in error.exceptions:
                yield from problems(inner, _place(inner, path))
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
            name = f"customMetadata.{OURS}" if note.name == "ours" else camel(note.name)
            return f"{path}.{name}" if path else name
    return path
