"""What is there before these tests is none of the garbage collector's business meanwhile."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect() -> Iterator[None]:
    """Make ``gc.collect()`` quick, which many of these tests call."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
