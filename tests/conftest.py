"""Hypothesis profiles, chosen by the environment variable ``HYPOTHESIS_PROFILE``; clearing up."""

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# No deadlines: the first example of a property pays for imports, and a loaded machine is no bug.
settings.register_profile("default", deadline=None, max_examples=50)

# The same examples every time, so that a red build is about the change and not about luck.
# Luck has its place: `default` draws anew on every developer's machine, `deep` thousands.
settings.register_profile(
    "ci", deadline=None, max_examples=40, derandomize=True, print_blob=True, database=None
)

settings.register_profile("deep", deadline=None, max_examples=5_000, print_blob=True)

settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect() -> None:
    """Make ``gc.collect()`` quick, which many tests call, and the collections that come unasked.

    What there is before a module's first test (eleven thousand tests, for one thing) is none of
    the collector's business any more: it lives to the end, or needs no collector to die.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _clears_up(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect what a broken kernel has left behind, in the test that is allowed to leave it."""
    yield
    if request.node.get_closest_marker("filterwarnings") is not None:
        gc.collect()
        gc.freeze()  # as before a module: what is left is no garbage
