"""Certificates that several tests look at: each takes processes, and is made once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trio

from parallel_agent.certify import Certificate, certify
from tests.support.postgres import Postgres, find_programs, running_postgres

REFUNDS = "examples.refunds.refunds"


def make(target: Any, **options: Any) -> Certificate:
    """Make a certificate, outside of any event loop."""

    async def main() -> Certificate:
        return await certify(target, **options)

    return trio.run(main)


@pytest.fixture(scope="session")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """The agent that refunds twice, killed when it has, and nobody knows."""
    return make(
        f"{REFUNDS}:twice",
        message="order 7",
        check="paid_once",
        at=[14],
        workers=1,
        folder=tmp_path_factory.mktemp("kept"),
    )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    with running_postgres(programs) as server:
        yield server
