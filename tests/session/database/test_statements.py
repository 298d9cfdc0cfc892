"""What the writer says is compiled once for each prefix and kind of database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine, literal_column
from sqlalchemy.dialects import postgresql, sqlite

from session.database.schema import Schema
from session.database.statements import Statements


def statements_of(prefix: str, url: str = "sqlite://", insert: Any = sqlite.insert) -> Statements:
    engine = create_engine(url)
    made = Statements.of(Schema.of(prefix), engine, insert, literal_column("0"))
    engine.dispose()
    return made


def test_a_second_engine_of_a_kind_gets_the_same_statements() -> None:
    assert statements_of("pa_") is statements_of("pa_")


def test_each_prefix_has_statements_of_its_own() -> None:
    assert "INSERT INTO one_event" in statements_of("one_").add_event.text
    assert "INSERT INTO two_event" in statements_of("two_").add_event.text


def test_each_kind_of_database_has_statements_of_its_own() -> None:
    here = statements_of("pa_")
    there = statements_of("pa_", "postgresql+psycopg://nowhere", postgresql.insert)
    assert "?" in here.add_event.text
    assert "?" not in there.add_event.text


def test_many_prefixes_do_not_mix_up_their_statements() -> None:
    for number in [*range(17), 0]:
        assert f"INTO many{number}_event" in statements_of(f"many{number}_").add_event.text
