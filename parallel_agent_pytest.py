"""For pytest: a fixture that explores, with options from a marker and the command line.

::

    @pytest.mark.explore(max_schedules=200)
    def test_no_update_is_lost(explore):
        explore(make_tree, check)

The fixture is `parallel_agent.testing.explore` with the marker's options as defaults.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from parallel_agent.testing.exploring import Exploration

__all__ = ["explore"]

# pytest loads this file in every project of the environment. So it is no part of a package, which
# would be imported with it, and imports nothing of ours until a test asks for it.


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("parallel-agent", "exploring schedules")
    group.addoption(
        "--explore-schedules",
        type=int,
        metavar="N",
        help="run so many schedules in tests that use the `explore` fixture",
    )
    group.addoption(
        "--explore-seed", type=int, metavar="N", help="where random schedules come from"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "explore(**options): defaults for the `explore` fixture; see its docstring"
    )


@pytest.fixture
def explore(request: pytest.FixtureRequest) -> Callable[..., Exploration]:
    """`parallel_agent.testing.explore`, with the options of ``@pytest.mark.explore(...)``.

    ``--explore-schedules`` and ``--explore-seed`` come before both.
    """
    from parallel_agent.testing.exploring import explore as explore_schedules

    options: dict[str, Any] = {}
    for marker in reversed(list(request.node.iter_markers("explore"))):
        if marker.args:
            message = "pytest.mark.explore takes keywords: pytest.mark.explore(max_schedules=100)"
            raise TypeError(message)
        options.update(marker.kwargs)
    given = {
        "max_schedules": request.config.getoption("--explore-schedules"),
        "seed": request.config.getoption("--explore-seed"),
    }
    forced = {name: value for name, value in given.items() if value is not None}

    @functools.wraps(explore_schedules)
    def run(*args: Any, **kwargs: Any) -> Exploration:
        __tracebackhide__ = True
        return explore_schedules(*args, **{**options, **kwargs, **forced})

    return run


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a marker that nobody reads: such a test would explore nothing, and pass."""
    marked = any(marker.name == "explore" for marker in item.own_markers)
    if marked and "explore" not in getattr(item, "fixturenames", ()):
        pytest.fail(
            f"{item.name} is marked with pytest.mark.explore, and does not use the fixture: take "
            "`explore` as an argument and call it (a race_test is given its options itself)",
            pytrace=False,
        )
