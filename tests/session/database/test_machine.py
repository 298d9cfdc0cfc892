"""The database against the memory: whatever is done to both, both look the same."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import attrs
import pytest
import trio
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from session import (
    Codec,
    Event,
    EventActions,
    InMemorySessionService,
    Lease,
    Origin,
    Session,
    SessionBusyError,
    SessionError,
    SessionKey,
    SessionService,
)
from session.database import DatabaseSessionService
from tests.support.databases import as_values, quick_folder
from tests.support.postgres import Postgres

CODEC = Codec()

APPS = ("app", "a\x01")
KEYS = (
    SessionKey("app", "b", "a"),
    SessionKey("app", "b", "é"),
    SessionKey("app", "b\x00", "a"),
    SessionKey("a\x01", "b", "a"),
)
# Few, so that much happens to each.
keys = st.sampled_from(KEYS)
names = st.sampled_from(["b", "b\x00", "nobody"])
state_names = st.sampled_from(["k", "\x00", "app:k", "user:k", "temp:k", "app:\x01"])
values = st.none() | st.sampled_from([0, -0.0, 1, 1.0, True, "", "\x00", {"a": [2**70]}, []])
states = st.dictionaries(state_names, values, max_size=2)
times = st.floats(0, 100)
limits = st.none() | st.integers(-1, 4)


@attrs.frozen
class Draft:
    """An event to be made once for each service, which will number it."""

    text: str
    time: float
    delta: dict[str, Any]
    output: Any
    unset: bool

    def made(self) -> Event:
        """Make it."""
        event = Event(
            self.text,
            actions=self.actions(),
            output=self.output,
            timestamp=self.time,
            origin=Origin(author="a", invocation_id="inv", branch=self.text or None),
        )
        event.seal()
        return event

    def actions(self) -> EventActions:
        """What it changes: its delta, or that the session's own keys of it are gone."""
        own = tuple(name for name in self.delta if self.unset and ":" not in name)
        delta = {**self.delta, **dict.fromkeys(own)}
        return EventActions(state_delta=delta, state_unset=own)


# Small: whole events are test_rows.py's, and what is large is drawn seldom.
drafts = st.builds(Draft, st.sampled_from(["", "x", "\x00"]), times, states, values, st.booleans())
runs = st.sampled_from(["r", "s\x00"])


def shown(error: Exception) -> Any:
    """What both services must say alike."""
    if isinstance(error, SessionBusyError):
        return type(error), error.key, error.owner, error.run_id  # only one says for how long
    return type(error), str(error)


class Machine(RuleBasedStateMachine):
    """Does everything to both services; what they return, or raise, must be the same."""

    service: ClassVar[type[DatabaseSessionService]] = DatabaseSessionService

    def __init__(self) -> None:
        """Open nothing yet."""
        super().__init__()
        self.folder = Path(quick_folder())
        self.url = self.empty_database()
        self.model = InMemorySessionService(clock=lambda: 50.0)
        self.real = self.reopened()
        # The model's and the other's: only their tokens differ.
        self.leases: list[dict[bool, Lease]] = []

    def empty_database(self) -> str:
        """A database that has its tables."""
        shutil.copy(empty_file(), self.folder / "sessions.db")
        return f"sqlite:///{self.folder}/sessions.db"

    def reopened(self) -> DatabaseSessionService:
        """A service on the database."""
        return self.service(self.url, durability="normal", clock=lambda: 50.0)

    @initialize()
    def begin(self) -> None:
        """Make a few sessions: otherwise most steps find nothing."""
        for key in KEYS[:3]:
            self.create(key, {})

    def both(self, do: Callable[[SessionService], Awaitable[Any]]) -> Any:
        """Do it to both; return what both return."""
        seen = []
        for service in (self.model, self.real):
            try:
                seen.append(trio.run(do, service))
            except (SessionError, ValueError) as error:
                seen.append(shown(error))
        assert seen[0] == seen[1]
        return seen[0]

    @rule(key=keys, state=states)
    def create(self, key: SessionKey, state: dict[str, Any]) -> None:
        """Create."""

        async def do(service: SessionService) -> Any:
            made = await service.create(
                app_name=key.app_name, user_id=key.user_id, session_id=key.session_id, state=state
            )
            return as_values(made)

        self.both(do)

    @rule(key=keys, batch=st.lists(drafts, max_size=3))
    def append(self, key: SessionKey, batch: Sequence[Draft]) -> None:
        """Append at the end."""
        self.append_at(key, batch, 0)

    @rule(key=keys, batch=st.lists(drafts, max_size=1), off=st.sampled_from([-1, 1, 0]))
    def append_at(self, key: SessionKey, batch: Sequence[Draft], off: int) -> None:
        """Append somewhere."""
        stored = self.model._sessions.get(key)
        expected = max(0, (len(stored.events) if stored else 0) + off)

        async def do(service: SessionService) -> Any:
            made = [draft.made() for draft in batch]
            await service.append(key, made, expected_seq=expected)
            return [CODEC.dumps(event) for event in made]

        self.both(do)

    @rule(key=keys, run_id=runs, resumable=st.booleans())
    def acquire(self, key: SessionKey, run_id: str, resumable: bool) -> None:  # noqa: FBT001  # drawn
        """Take a session."""
        leases: dict[bool, Lease] = {}

        async def do(service: SessionService) -> Any:
            lease = await service.acquire(
                key, run_id=run_id, owner=f"{run_id}'s", resumable=resumable
            )
            leases[service is self.model] = lease
            return lease.key, lease.run_id, lease.owner

        self.both(do)
        if leases:
            self.leases.append(leases)

    @precondition(lambda self: self.leases)
    @rule(
        age=st.integers(0, 3), how=st.sampled_from(["renew", "release", "waiting", "interrupted"])
    )
    def use(self, age: int, how: Any) -> None:
        """Renew a lease or release it, perhaps an old one."""
        leases = self.leases[-1 - age % len(self.leases)]

        async def do(service: SessionService) -> Any:
            lease = leases[service is self.model]
            if how == "renew":
                return await service.renew(lease)
            return await service.release(lease, unfinished=None if how == "release" else how)

        self.both(do)

    @precondition(lambda self: self.leases)
    @rule(age=st.integers(0, 3), batch=st.lists(drafts, max_size=2))
    def append_held(self, age: int, batch: Sequence[Draft]) -> None:
        """Append under a lease, perhaps an old one."""
        leases = self.leases[-1 - age % len(self.leases)]
        key = leases[True].key
        stored = self.model._sessions.get(key)
        expected = len(stored.events) if stored else 0

        async def do(service: SessionService) -> Any:
            made = [draft.made() for draft in batch]
            lease = leases[service is self.model]
            await service.append(key, made, expected_seq=expected, lease=lease)
            return [CODEC.dumps(event) for event in made]

        self.both(do)

    @rule(key=keys, reason=runs)
    def ask_to_stop(self, key: SessionKey, reason: str) -> None:
        """Leave a word."""
        self.both(lambda service: service.ask_to_stop(key, reason))

    @rule(app_name=st.sampled_from(APPS), user_id=st.none() | names)
    def unfinished(self, app_name: str, user_id: str | None) -> None:
        """List what did not finish."""
        self.both(lambda service: service.unfinished(app_name=app_name, user_id=user_id))

    @rule(key=keys, recent=limits, seq=limits, after=st.none() | times)
    def get(
        self, key: SessionKey, recent: int | None, seq: int | None, after: float | None
    ) -> None:
        """Get a window."""

        async def do(service: SessionService) -> Any:
            return as_values(
                await service.get(
                    app_name=key.app_name,
                    user_id=key.user_id,
                    session_id=key.session_id,
                    num_recent_events=recent,
                    after_sequence=seq,
                    after=after,
                )
            )

        self.both(do)

    @rule(key=keys)
    def delete(self, key: SessionKey) -> None:
        """Delete."""
        self.both(
            lambda service: service.delete(
                app_name=key.app_name, user_id=key.user_id, session_id=key.session_id
            )
        )

    @rule(key=keys, time=times, one=st.booleans())
    def delete_before(self, key: SessionKey, time: float, one: bool) -> None:  # noqa: FBT001  # drawn
        """Clear away."""
        self.both(
            lambda service: service.delete_before(
                app_name=key.app_name, time=time, user_id=key.user_id if one else None
            )
        )

    @rule(key=keys, limit=st.integers(0, 3), one=st.booleans())
    def page(self, key: SessionKey, limit: int, one: bool) -> None:  # noqa: FBT001  # drawn
        """Read a page."""
        self.both(
            lambda service: service.list_page(
                app_name=key.app_name,
                user_id=key.user_id if one else None,
                after=key,
                limit=limit,
            )
        )

    @rule(key=keys, kept=st.booleans())
    def move(self, key: SessionKey, kept: bool) -> None:  # noqa: FBT001  # drawn
        """Export, delete or not, import."""

        async def do(service: SessionService) -> Any:
            names = {
                "app_name": key.app_name,
                "user_id": key.user_id,
                "session_id": key.session_id,
            }
            lines = [line async for line in service.export_session(**names)]
            # The order of the keys of the state is nobody's promise.
            shown = lines[1:]
            if not kept:
                await service.delete(**names)
            return shown, await service.import_session(lines)

        self.both(do)

    @rule()
    def reopen(self) -> None:
        """Close the database and open it again."""
        trio.run(self.real.close)
        self.real = self.reopened()

    @rule(app_name=st.sampled_from(APPS), user_id=st.none() | names)
    def list(self, app_name: str, user_id: str | None) -> None:
        """List the sessions."""
        self.both(lambda service: service.list(app_name=app_name, user_id=user_id))

    def check_all(self) -> None:
        """Look at everything there is."""
        for key in [*self.model._sessions]:
            self.get(key, None, None, None)
            self.list(key.app_name, None)
            self.unfinished(key.app_name, None)

    def teardown(self) -> None:
        """Look once more, and clear up."""
        try:
            self.check_all()
        finally:
            trio.run(self.real.close)
            shutil.rmtree(self.folder)


class LosesTheFirstEvent(DatabaseSessionService):
    """A service with a bug."""

    async def get(self, **rest: Any) -> Session | None:
        """Get, but not all of it."""
        session = await super().get(**rest)
        if session is not None and session.events:
            del session.events[0]
        return session


class BrokenMachine(Machine):
    """The same, on a service that is wrong."""

    service: ClassVar[type[DatabaseSessionService]] = LosesTheFirstEvent


def test_the_machine_finds_a_service_that_is_wrong() -> None:
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        run_state_machine_as_test(
            BrokenMachine,
            settings=settings(
                max_examples=200,
                stateful_step_count=20,
                phases=[Phase.generate],
                report_multiple_bugs=False,
                database=None,
            ),
        )


_EMPTY: list[Path] = []


def empty_file() -> Path:
    """A file with empty tables, made once."""
    if not _EMPTY:
        file = Path(tempfile.mkdtemp()) / "empty.db"
        trio.run(DatabaseSessionService(file).__aenter__)
        service = DatabaseSessionService(file)
        trio.run(service.close)
        _EMPTY.append(file)
    return _EMPTY[0]


TestMachine = Machine.TestCase
assert settings.default is not None
_EXAMPLES = settings.default.max_examples
# Each step opens event loops and commits: an eighth of what a plain property is given.
TestMachine.settings = settings(max_examples=_EXAMPLES // 8, stateful_step_count=20)


def test_postgresql_looks_like_the_memory_as_well(postgres: Postgres) -> None:
    class PostgresMachine(Machine):
        def empty_database(self) -> str:
            return postgres.new_database("empty")

    run_state_machine_as_test(PostgresMachine, settings=TestMachine.settings)
