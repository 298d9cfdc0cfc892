"""A database service keeps every promise of the contract."""

from __future__ import annotations

import pytest

from session.conformance import CHECKS, Check
from session.database import DatabaseSessionService

every_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)


@every_check
async def test_a_database_keeps_its_promise(check: Check, url: str) -> None:
    async with DatabaseSessionService(url, durability="normal") as service:
        await check(service)
