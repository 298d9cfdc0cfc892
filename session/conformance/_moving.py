"""Sessions are paged through, cleared away, exported and restored."""

from __future__ import annotations

from session.conformance._kit import (
    CODEC,
    KEY,
    collector,
    create,
    delete,
    expect,
    expect_error,
    expect_same,
    expect_unchanged,
    find,
    get,
    list_keys,
    make_event,
    with_delta,
)
from session.errors import SessionExistsError, SessionNotFoundError
from session.portable import SessionFormatError
from session.service import SessionService
from session.session import SessionKey

CHECKS, _check = collector()


async def _pages(
    service: SessionService, limit: int, user_id: str | None = None
) -> list[list[SessionKey]]:
    pages: list[list[SessionKey]] = []
    after: SessionKey | None = None
    # At most so many: a service that ignores `after` would go on for ever.
    for _ in range(20):
        page = await service.list_page(app_name="app", user_id=user_id, after=after, limit=limit)
        pages.append([info.key for info in page])
        if len(page) < limit:
            break
        after = page[-1].key
    return pages


@_check
async def pages_are_the_listing_in_pieces(service: SessionService) -> None:
    names = [("b", "2"), ("a", "9"), ("b", "10"), ("B", "1"), ("a", "1"), ("b\x00", "1")]
    for user, session in names:
        await create(service, key=SessionKey("app", user, session))
    await create(service, key=SessionKey("apps", "a", "5"))
    whole = [info.key for info in await service.list(app_name="app")]
    for limit in (1, 2, 4, 6, 7):
        pages = await _pages(service, limit)
        expect(f"the pages of {limit} together", [key for page in pages for key in page], whole)
        expect(f"the largest page of {limit}", max(map(len, pages)) <= limit, wanted=True)
    ours = [key for key in whole if key.user_id == "b"]
    pages = await _pages(service, 1, "b")
    expect("the pages of one user", [key for page in pages for key in page], ours)
    # The last one of a page may have been deleted meanwhile.
    gone = SessionKey("app", "a", "5")
    rest = await service.list_page(app_name="app", after=gone)
    expect("the page after a key that is not there", [i.key for i in rest], whole[2:])
    await expect_error(ValueError, "a limit of 0", service.list_page(app_name="app", limit=0))
    await expect_error(
        ValueError,
        "a page after a session of another application",
        service.list_page(app_name="app", after=SessionKey("apps", "a", "5")),
    )


@_check
async def old_sessions_are_deleted_and_no_others(service: SessionService) -> None:
    for user, session, time in (("u", "old", 5.0), ("u", "edge", 10.0), ("v", "old", 6.0)):
        key = SessionKey("app", user, session)
        await create(service, {"user:kept": 1}, key=key)
        await service.append(key, [make_event("a", timestamp=time)], expected_seq=0)
    other = SessionKey("other", "u", "old")
    await create(service, key=other)
    await service.append(other, [make_event("a", timestamp=1.0)], expected_seq=0)
    count = await service.delete_before(app_name="app", time=10.0, user_id="v")
    expect("the number of sessions deleted of one user", count, 1)
    expect("list()", await list_keys(service, "app"), ["u/edge", "u/old"])
    count = await service.delete_before(app_name="app", time=10.0)
    expect("the number of sessions deleted", count, 1)
    expect("list()", await list_keys(service, "app"), ["u/edge"])
    expect("list() of another application", await list_keys(service, "other"), ["u/old"])
    expect(
        "the number deleted when all are new",
        await service.delete_before(app_name="app", time=0.0),
        0,
    )
    again = await create(service, key=SessionKey("app", "v", "new"))
    expect_same("the user's state", dict(again.state), {"user:kept": 1})


async def _export(service: SessionService, key: SessionKey = KEY) -> list[str]:
    lines = service.export_session(
        app_name=key.app_name, user_id=key.user_id, session_id=key.session_id
    )
    return [line async for line in lines]


def _can_restore(service: SessionService) -> bool:
    return type(service).restore is not SessionService.restore


@_check
async def an_exported_session_can_be_restored(service: SessionService) -> None:
    await expect_error(SessionNotFoundError, "export_session() of none", _export(service))
    await create(service, {"start": [1], "app:a": 1})
    batch = [make_event("a", timestamp=7.0, n="\x00"), with_delta({"user:u": 2, "temp:t": 3})]
    await service.append(KEY, batch, expected_seq=0)
    before = await get(service)
    lines = await _export(service)
    expect("the number of lines", len(lines), 3)
    if not _can_restore(service):
        return
    await expect_error(
        SessionExistsError, "import_session() over a session", service.import_session(lines)
    )
    await delete(service)
    await expect_error(
        SessionFormatError, "import_session() of a part", service.import_session(lines[:-1])
    )
    expect("what a refused import_session() leaves", await find(service), None)
    expect("the name that import_session() returns", await service.import_session(lines), KEY)
    after = await get(service)
    expect_same("the state", dict(after.state), dict(before.state))
    for was, now in zip(before.events, after.events, strict=True):
        expect_same("an event", CODEC.encode(now), CODEC.encode(was))
    expect("last_seq", after.last_seq, 2)
    expect("last_update_time", after.last_update_time, before.last_update_time)
    event = make_event("next")
    await service.append(KEY, [event], expected_seq=2)
    expect("the number of the next event", event.seq, 3)


@_check
async def restoring_leaves_shared_state_alone(service: SessionService) -> None:
    if not _can_restore(service):
        return
    await create(service, {"app:a": 1, "user:u": 1, "own": 1})
    await service.append(KEY, [with_delta({"app:b": 1, "own": 2})], expected_seq=0)
    session = await get(service)
    await delete(service)
    second = SessionKey("app", "user", "second")
    await create(service, {"app:a": 5, "app:b": 5}, key=second)
    session.state["user:new"] = 1
    await service.restore(session)
    wanted = {"app:a": 5, "app:b": 5, "user:u": 1, "user:new": 1, "own": 2}
    expect_same("the state", dict((await get(service)).state), wanted)
    now = await get(service)
    await expect_error(SessionExistsError, "restore() over a session", service.restore(session))
    await expect_unchanged(service, now)
    window = await get(service, num_recent_events=0)
    await delete(service)
    await expect_error(ValueError, "restore() of a part", service.restore(window))
    expect("what a refused restore() leaves", await find(service), None)
