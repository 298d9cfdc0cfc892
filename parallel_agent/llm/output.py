"""Structured output: what a model's answer must be, and what is made of it.

Strict: see `parallel_agent.schema`. A JSON Schema is checked by the ``jsonschema`` package.

Pure: no event loop, no clock, no I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, cast, final

from parallel_agent.errors import TreeError
from parallel_agent.model_errors import MissingExtraError
from parallel_agent.schema import Schema, SchemaTypeError
from parallel_agent.schema import SchemaError as MisfitError
from session.state import UnstorableError, freeze, thaw

__all__ = ["Output", "references"]

_FENCED: Final = re.compile(r"\A```[a-zA-Z]*\s*\n(.*?)\n?```\s*\Z", re.DOTALL)
"""Servers that were asked for JSON, and do not know how, let models wrap it in Markdown."""

_SHOWN: Final = 5


@final
class Output:
    """What an answer must be.

    Args:
        wanted: a type (attrs class, dataclass, TypedDict, pydantic model, or what else a `Schema`
            is made of), or a JSON Schema.
        whose: the agent's name, for the errors.

    Raises:
        TreeError: values of the type cannot be checked, or the JSON Schema is none.
        MissingExtraError: it is a JSON Schema, and ``jsonschema`` is not installed.
    """

    def __init__(self, wanted: Any, whose: str) -> None:
        """See the class."""
        self._schema: Schema[Any] | None = None
        self._validator: Any = None
        if isinstance(wanted, Mapping):
            self._validator = _validator(cast("Mapping[str, Any]", wanted), whose)
            self.json_schema: Mapping[str, Any] = freeze(wanted)
            return
        if wanted is str:
            message = f"output_schema of {whose!r} is str: text it answers anyway; leave it out"
            raise TreeError(message)
        try:
            self._schema = wanted if isinstance(wanted, Schema) else Schema[Any](wanted)  # pyright: ignore[reportUnknownMemberType]  # of whatever
        except SchemaTypeError as exc:
            message = f"output_schema of {whose!r}: {exc}"
            raise TreeError(message) from None
        self.json_schema = freeze(self._schema.json_schema())

    @property
    def schema(self) -> Schema[Any] | None:
        """The schema of the type; None for a JSON Schema."""
        return self._schema

    def read(self, text: str) -> tuple[str | None, Any]:
        """Return what is wrong with an answer, or None; and its JSON value, if nothing is."""
        text = text.strip()
        fenced = _FENCED.match(text)
        try:
            value: Any = json.loads(text if fenced is None else fenced[1])
            freeze(value)
            if self._schema is not None:
                self._schema.structure(value)
        except (MisfitError, UnstorableError) as exc:
            return str(exc), None
        except (ValueError, RecursionError) as exc:  # a number of too many digits, too
            return f"it is no JSON: {exc}", None
        if self._validator is not None:
            problems = sorted(self._validator.iter_errors(value), key=str)
            if problems:
                told = [f"{one.json_path}: {one.message:.200}" for one in problems[:_SHOWN]]
                return "; ".join(told), None
        return None, value


def _validator(wanted: Mapping[str, Any], whose: str) -> Any:
    try:
        from jsonschema import Draft202012Validator, SchemaError  # an extra
        from jsonschema.validators import validator_for  # likewise
        from referencing import Registry  # what jsonschema looks references up with
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import DRAFT202012
    except ImportError as error:
        what, package = "an output_schema that is a JSON Schema", error.name or "jsonschema"
        raise MissingExtraError(what, package, "jsonschema") from error
    plain: Any = thaw(wanted)
    kind: Any = validator_for(plain, Draft202012Validator)
    try:
        kind.check_schema(plain)
    except SchemaError as exc:
        message = f"output_schema of {whose!r} is no JSON Schema: {exc.json_path}: {exc.message}"
        raise TreeError(message) from None
    # Found now, and not when a model's answer leads there. What is elsewhere is not fetched.
    resource = DRAFT202012.create_resource(plain)
    resolver: Any = Registry[Any]().with_resource("", resource).resolver()
    for reference in references(plain):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            message = f"output_schema of {whose!r} refers to {reference!r}, which is not in it"
            raise TreeError(message) from None
    return kind(plain)


def references(schema: Any, keys: Collection[str] = ("$ref",)) -> Iterator[str]:
    """Yield what a schema refers to by ``keys``, at any depth."""
    todo: list[Any] = [schema]
    for one in todo:
        if isinstance(one, Mapping):
            fields = cast("Mapping[str, Any]", one)
            todo += fields.values()
            yield from (fields[key] for key in keys if isinstance(fields.get(key), str))
        elif isinstance(one, list):
            todo.extend(one)  # pyright: ignore[reportUnknownArgumentType]  # JSON
