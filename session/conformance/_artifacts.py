"""Artifacts are kept in versions, found by their owner and name, whatever those are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias

import attrs

from session.artifact import ArtifactNameError, ArtifactService, ArtifactTypeError
from session.conformance._kit import KEY, BrokenError, PromiseBrokenError, expect, expect_error
from session.content import Content, FunctionCall, InlineData, OtherPart, Part, Text
from session.session import SessionKey

Run: TypeAlias = Callable[[ArtifactService], Awaitable[None]]

OTHER_SESSION: Final = SessionKey("app", "user", "other")
OTHER_USER: Final = SessionKey("app", "other", "session")
OTHER_APP: Final = SessionKey("other", "user", "session")


@attrs.frozen
class ArtifactCheck:
    """One promise: ``name`` says it, calling the check with a fresh service puts it to the test."""

    name: str
    run: Run = attrs.field(repr=False)

    async def __call__(self, service: ArtifactService) -> None:
        """Run the check.

        Raises:
            PromiseBrokenError: the service broke the promise, or failed in trying to keep it.
        """
        try:
            await self.run(service)
        except BrokenError as error:
            raise PromiseBrokenError(self.name, str(error)) from None
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise PromiseBrokenError(self.name, why) from error


_checks: list[ArtifactCheck] = []


def _check(run: Run) -> Run:
    _checks.append(ArtifactCheck(run.__name__, run))
    return run


# Versions.


@_check
async def versions_count_from_0_without_gaps(service: ArtifactService) -> None:
    saved = [await service.save(KEY, "a.md", f"text {number}") for number in range(12)]
    expect("the numbers that save() returns", saved, [*range(12)])
    expect("list_versions()", await service.list_versions(KEY, "a.md"), [*range(12)])
    expect("another name's first version", await service.save(KEY, "b.md", ""), 0)


@_check
async def every_version_stays_as_it_was_saved(service: ArtifactService) -> None:
    texts = ["first", "second", "first", ""]
    for text in texts:
        await service.save(KEY, "a.md", text)
    for version, text in enumerate(texts):
        seen = await service.load(KEY, "a.md", version=version)
        expect(f"load() of version {version}", seen, Text(text))


@_check
async def the_newest_version_is_loaded_unless_told_otherwise(service: ArtifactService) -> None:
    for number in range(12):
        await service.save(KEY, "a.md", f"text {number}")
    expect("load() without a version", await service.load(KEY, "a.md"), Text("text 11"))


@_check
async def a_part_comes_back_as_it_went_in(service: ArtifactService) -> None:
    parts: list[Part] = [
        Text("äöü 漢字 🙂\r\n\n \x00\ufeff"),
        Text(""),
        Text("a thought", thought=True),
        InlineData(b""),
        InlineData(bytes(range(256)), "image/png"),
        InlineData(b"text", "text/plain; charset=utf-8"),
        InlineData(b"\xff\xfe\r\n", ""),
    ]
    for number, part in enumerate(parts):
        await service.save(KEY, f"{number}.txt", part)
        expect("load()", await service.load(KEY, f"{number}.txt"), part)


@_check
async def text_is_short_for_words_and_bytes_for_data(service: ArtifactService) -> None:
    await service.save(KEY, "a", "text")
    expect("load() of saved text", await service.load(KEY, "a"), Text("text"))
    await service.save(KEY, "a", b"text")
    expect("load() of saved bytes", await service.load(KEY, "a"), InlineData(b"text"))


@_check
async def what_is_neither_words_nor_bytes_is_refused(service: ArtifactService) -> None:
    refused: list[Any] = [FunctionCall("f"), OtherPart({"a": 1}), Content("a"), None, 1, ["a"]]
    for artifact in refused:
        attempt = service.save(KEY, "a", artifact)
        await expect_error(ArtifactTypeError, f"save() of {artifact!r}", attempt)
    await expect_error(ValueError, "save() of a lone surrogate", service.save(KEY, "a", "\ud800"))
    expect("what a refused save() leaves", await service.list_names(KEY), [])
    expect("the version after refused ones", await service.save(KEY, "a", "text"), 0)


@_check
async def what_is_not_there_is_none(service: ArtifactService) -> None:
    for name in ("unknown", "user:unknown", "a/b"):
        expect("load() of an unknown name", await service.load(KEY, name), None)
        expect("load() of its version 0", await service.load(KEY, name, version=0), None)
        expect("list_versions() of it", await service.list_versions(KEY, name), [])
    await service.save(KEY, "a", "text")
    for version in (1, 10**30):
        seen = await service.load(KEY, "a", version=version)
        expect("load() of an unknown version", seen, None)
    expect("list_names() of another session", await service.list_names(OTHER_SESSION), [])


@_check
async def a_version_below_0_is_refused(service: ArtifactService) -> None:
    await service.save(KEY, "a", "text")
    await expect_error(ValueError, "load(version=-1)", service.load(KEY, "a", version=-1))


# Owners.


@_check
async def names_are_listed_in_order(service: ArtifactService) -> None:
    names = ["b", "user:c", "a/b", "a", "B", "a.b", "user:a/b", "é", "10", "9"]
    for name in names:
        await service.save(KEY, name, name)
        await service.save(KEY, name, name)
    expect("list_names()", await service.list_names(KEY), sorted(names))


@_check
async def an_artifact_belongs_to_its_session(service: ArtifactService) -> None:
    await service.save(KEY, "a", "text")
    for key in (OTHER_SESSION, OTHER_USER, OTHER_APP):
        await _expect_nothing(service, key, "a")
        expect("the first version there", await service.save(key, "a", str(key)), 0)
    expect("load()", await service.load(KEY, "a"), Text("text"))


@_check
async def the_users_artifacts_are_seen_by_all_sessions_of_the_user(
    service: ArtifactService,
) -> None:
    await service.save(KEY, "user:a", "first")
    second = await service.save(OTHER_SESSION, "user:a", "second")
    expect("the version saved by another session", second, 1)
    for key in (KEY, OTHER_SESSION):
        expect("list_names()", await service.list_names(key), ["user:a"])
        expect("load()", await service.load(key, "user:a"), Text("second"))
        await _expect_nothing(service, key, "a", listed=["user:a"])
    for key in (OTHER_USER, OTHER_APP):
        await _expect_nothing(service, key, "user:a")


# Deletion.


@_check
async def a_deleted_artifact_is_gone_with_all_its_versions(service: ArtifactService) -> None:
    for name in ("a", "user:a"):
        await service.save(KEY, name, "first")
        await service.save(KEY, name, "second")
        await service.delete(KEY, name)
        await _expect_nothing(service, KEY, name)
        expect("the first version after it", await service.save(KEY, name, "anew"), 0)
        expect("load()", await service.load(KEY, name), Text("anew"))
        await service.delete(KEY, name)


@_check
async def deleting_leaves_everything_else(service: ArtifactService) -> None:
    kept = [(KEY, "a/b"), (KEY, "b"), (KEY, "user:a"), (OTHER_SESSION, "a"), (OTHER_USER, "a")]
    for key, name in kept:
        await service.save(key, name, "kept")
    await service.delete(KEY, "a")  # is not there: nothing happens
    await service.save(KEY, "a", "text")
    await service.delete(KEY, "a")
    await service.delete(KEY, "unknown")
    for key, name in kept:
        expect(f"load() of {name!r} of {key}", await service.load(key, name), Text("kept"))


# Names.


@_check
async def bad_names_are_refused_by_every_method(service: ArtifactService) -> None:
    bad: list[Any] = ["", "/a", "../a", "a//b", "a\\b", "a\0", "a.", "\ud800", "C:/a", "user:", 1]
    bad += ["x" * 201, "/".join(["x" * 100] * 6)]
    for name in bad:
        saved = service.save(KEY, name, "text")
        await expect_error(ArtifactNameError, f"save() of {name!r}", saved)
        await expect_error(ArtifactNameError, f"load() of {name!r}", service.load(KEY, name))
        listed = service.list_versions(KEY, name)
        await expect_error(ArtifactNameError, f"list_versions() of {name!r}", listed)
        await expect_error(ArtifactNameError, f"delete() of {name!r}", service.delete(KEY, name))
    expect("what refused names leave", await service.list_names(KEY), [])


@_check
async def odd_names_name_different_artifacts(service: ArtifactService) -> None:
    names = ["a", "A", "a/A", "a/0", "a/a.md/b", ".a", " a", "a b", "á", "a\u0301", "漢字", "🙂"]
    names += ["%41", "!a", "a@", "@user", "@0", "~", "con", "CON", "con.txt", "0", "00", "$HOME"]
    names += ["x" * 200, "x" * 199 + "y", "X" * 200, f"{'漢' * 60}/{'X' * 200}.md"[:240], "ab:c"]
    names += ["user:a", "user:user:a", "User:a", "app:a", "*?<>|\"'", "user:@user", "user:é"]
    for name in names:
        await service.save(KEY, name, name)
    for name in names:
        expect(f"load() of {name!r}", await service.load(KEY, name), Text(name))
        expect(f"list_versions() of {name!r}", await service.list_versions(KEY, name), [0])
    expect("list_names()", await service.list_names(KEY), sorted(names))


@_check
async def odd_owners_are_different_owners(service: ArtifactService) -> None:
    odd = ["a", "A", "..", "../..", "/etc", "a/b", "a\\b", "@user", "é", "e\u0301", "\0", "a."]
    odd += ["a ", "x" * 300, "x" * 301]
    keys = [SessionKey(*names) for name in odd for names in ((name, "x", "y"), ("x", name, "y"))]
    sessions = [*keys, *(SessionKey("x", "y", name) for name in odd)]
    for key in sessions:
        await service.save(key, "a", repr(key))
    for key in keys:
        await service.save(key, "user:a", f"user:{key!r}")
    for key in sessions:
        expect(f"load() for {key!r}", await service.load(key, "a"), Text(repr(key)))
    for key in keys:
        seen = await service.load(key, "user:a")
        expect(f"load() for the user of {key!r}", seen, Text(f"user:{key!r}"))
        expect(f"list_names() for {key!r}", await service.list_names(key), ["a", "user:a"])


async def _expect_nothing(
    service: ArtifactService, key: SessionKey, name: str, *, listed: Iterable[str] = ()
) -> None:
    expect(f"load() of {name!r} by {key}", await service.load(key, name), None)
    expect(f"list_versions() of {name!r}", await service.list_versions(key, name), [])
    expect(f"list_names() of {key}", await service.list_names(key), [*listed])


ARTIFACT_CHECKS: Final[tuple[ArtifactCheck, ...]] = tuple(_checks)
"""Every check of an artifact service."""

ArtifactServiceFactory: TypeAlias = Callable[
    [], ArtifactService | AbstractAsyncContextManager[ArtifactService]
]


async def check_artifact_service(make: ArtifactServiceFactory) -> None:
    """Run every check, each on a service of its own from ``make``. Stops at the first that fails.

    ``make`` returns a service that keeps nothing yet, or an async context manager that opens one.

    Raises:
        PromiseBrokenError: a check failed.
    """
    for check in ARTIFACT_CHECKS:
        made = make()
        if isinstance(made, ArtifactService):
            await check(made)
        else:
            async with made as service:
                await check(service)
