"""Loops for the tests of hosts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import trio

from tests.support.loops import LOOPS, InLoop, watched
from tests.support.plain import ours, run_in_virtual_time


@pytest.fixture(params=LOOPS)
def in_loop(request: pytest.FixtureRequest) -> Iterator[InLoop]:
    """Run a coroutine in a new loop, whose exception handler must have nothing to do."""
    complaints: list[dict[str, Any]] = []
    yield watched(LOOPS[request.param], complaints)
    assert complaints == []


@pytest.fixture
def _plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the sync host virtual time; see that none of its threads is left."""
    monkeypatch.setattr(trio, "run", run_in_virtual_time)
    yield
    assert ours() == []
