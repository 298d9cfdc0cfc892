"""Pydantic's models, known by their methods: pydantic itself is never imported."""

# JSON is `Any`, and pyright calls what `isinstance` makes of it "unknown".
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownLambdaType=false

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from parallel_agent.schema._problems import article
from parallel_agent.schema._records import no_such_field
from parallel_agent.schema._shape import ALL_KINDS, Defs, Kinds, Shape, Walk
from session.state import thaw

__all__ = ["Model", "is_model", "model_of"]

_METHODS = ("model_validate", "model_dump", "model_json_schema")


def is_model(cls: type[Any]) -> bool:
    """Whether a class is to be used as pydantic's models are."""
    return all(callable(getattr(cls, name, None)) for name in _METHODS)


def model_of(cls: type[Any]) -> Model:
    """Return the shape of a model."""
    if getattr(cls, "__pydantic_root_model__", False):
        return Model(cls, None, ALL_KINDS)
    found: Any = getattr(cls, "model_config", None)
    config = found if isinstance(found, Mapping) else {}
    fields: Any = getattr(cls, "model_fields", None)
    names = None
    if config.get("extra") not in ("allow", "forbid") and isinstance(fields, Mapping):
        by_name = bool(config.get("populate_by_name") or config.get("validate_by_name"))
        names = tuple(dict.fromkeys(_names(fields, by_name=by_name)))
    return Model(cls, names, frozenset({"object"}))


def _names(fields: Mapping[str, Any], *, by_name: bool) -> Iterator[str]:
    """Yield what the model reads a field from."""
    for name, field in fields.items():
        alias = getattr(field, "validation_alias", None) or getattr(field, "alias", None)
        if alias is None or by_name:
            yield name
        # An alias may be a choice of several, and each a path into the value.
        for choice in getattr(alias, "choices", [alias]):
            for part in getattr(choice, "path", [choice])[:1]:
                if isinstance(part, str):
                    yield part


@attrs.frozen(eq=False)
class Model(Shape):
    """An object that a model reads and writes itself, in pydantic's strict mode for JSON.

    Pydantic ignores unknown names unless told otherwise; here they are refused unless the model
    is told to allow them. In models inside the model pydantic's rule holds.
    """

    cls: type[Any]
    names: tuple[str, ...] | None
    """What may be there; None if the model knows."""
    kinds: Kinds
    needed = "an object"

    def read(self, value: Any, walk: Walk) -> Any:
        if self.names is not None and isinstance(value, dict):
            for name in value:
                if name not in self.names:
                    why = "" if walk.is_full else no_such_field(name, self.names)
                    walk.problem(why, at=name)
        try:
            # Strict mode for Python values would refuse a date as text: JSON has its own door.
            if hasattr(self.cls, "model_validate_json"):
                return self.cls.model_validate_json(json.dumps(value), strict=True)
            return self.cls.model_validate(thaw(value), strict=True)
        except Exception as error:  # noqa: BLE001  # validators are the user's: any error is theirs
            _note(error, walk)

    def write(self, value: Any, walk: Walk) -> Any:
        if type(value) is not self.cls:
            walk.refuse(article(self.cls.__name__), value)
            return None
        try:
            return value.model_dump(mode="json", by_alias=True, round_trip=True)
        except Exception as error:  # noqa: BLE001  # serializers are the user's as well
            walk.blame(error)

    def describe(self) -> str:
        names = ", ".join(self.names or ())
        return f"an object with fields: {names}" if names else article(self.cls.__name__)

    def schema(self, defs: Defs, /) -> dict[str, Any]:
        return defs.named(self, self.cls.__name__, self._schema)

    def _schema(self, _: Defs, place: str) -> dict[str, Any]:
        # Its own parts stay in it, so references to them begin at its place.
        template = f"{place}/$defs/{{model}}"
        schema: dict[str, Any] = self.cls.model_json_schema(ref_template=template)
        if self.names is None:
            return schema
        # A model that holds itself is a reference: there the other word sees no properties.
        closed = "additionalProperties" if "properties" in schema else "unevaluatedProperties"
        return {closed: False, **schema}


def _note(error: Exception, walk: Walk) -> None:
    """Note every problem that pydantic's error lists, each at its place."""
    listed: Any = getattr(error, "errors", None)
    found: Any = listed() if callable(listed) else None
    if not found:
        walk.blame(error)
        return
    walk.cause = walk.cause or error
    for problem in found:
        parts = [part if isinstance(part, int) else str(part) for part in problem["loc"]]
        walk.path.extend(parts)
        walk.problem(str(problem["msg"]))
        del walk.path[len(walk.path) - len(parts) :]
