"""Checks that a service keeps the promises of its contract. For anyone's own service.

`CHECKS` are for a `SessionService`, `ARTIFACT_CHECKS` for an `ArtifactService`.

Every check is a claim and an async function of one fresh service; it needs no test framework and
no particular event loop, but for those of `SessionService.subscribe`, which need trio. In a test
suite, take them one by one::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
    async def test_my_service(check):
        async with open_my_service() as service:
            await check(service)

or all at once: ``await check_session_service(open_my_service)``.

What no program can see from outside is not checked: that what came back from an append is
durable, and that an append cut off half way leaves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeAlias

from session.conformance import _appends, _moving, _owners, _sessions, _state, _watching
from session.conformance._artifacts import ARTIFACT_CHECKS, ArtifactCheck, check_artifact_service
from session.conformance._kit import Check, PromiseBrokenError
from session.service import SessionService

__all__ = [
    "ARTIFACT_CHECKS",
    "CHECKS",
    "ArtifactCheck",
    "Check",
    "PromiseBrokenError",
    "check_artifact_service",
    "check_session_service",
]

CHECKS: Final[tuple[Check, ...]] = (
    *_sessions.CHECKS,
    *_appends.CHECKS,
    *_state.CHECKS,
    *_moving.CHECKS,
    *_watching.CHECKS,
    *_owners.CHECKS,
)
"""Every check: of sessions themselves, appending, the state, moving sessions, following them; and,
for a service that ``owns`` them, of whose they are.
"""

ServiceFactory: TypeAlias = Callable[
    [], SessionService | AbstractAsyncContextManager[SessionService]
]


async def check_session_service(make: ServiceFactory) -> None:
    """Run every check, each on a service of its own from ``make``. Stops at the first that fails.

    ``make`` returns a service, or an async context manager that opens one and closes it.

    Raises:
        PromiseBrokenError: a check failed.
    """
    for check in CHECKS:
        made = make()
        if isinstance(made, SessionService):
            await check(made)
        else:
            async with made as service:
                await check(service)
