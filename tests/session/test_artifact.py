"""The contract of artifact services, on both; names; a service that breaks a promise is caught."""

# ruff: noqa: ARG002  # ignoring what it is given is how many a service is broken

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session.artifact import (
    Artifact,
    ArtifactError,
    ArtifactNameError,
    ArtifactService,
    ArtifactTypeError,
    DamagedArtifactError,
    InMemoryArtifactService,
    artifact_of,
    check_name,
    check_version,
)
from session.conformance import PromiseBrokenError
from session.conformance._artifacts import ARTIFACT_CHECKS, ArtifactCheck, check_artifact_service
from session.content import FunctionCall, InlineData, Text
from session.folder_artifacts import FolderArtifactService
from session.session import SessionKey
from session.state import UnstorableError

KEY = SessionKey("app", "user", "id")

every_check = pytest.mark.parametrize("check", ARTIFACT_CHECKS, ids=lambda check: check.name)


@every_check
async def test_the_service_in_memory_keeps_its_promise(check: ArtifactCheck) -> None:
    await check(InMemoryArtifactService())


@every_check
async def test_the_service_in_a_folder_keeps_its_promise(
    check: ArtifactCheck, tmp_path: Path
) -> None:
    await check(FolderArtifactService(tmp_path))


async def test_parts_are_kept_in_memory_and_not_copied() -> None:
    """They are immutable."""
    service = InMemoryArtifactService()
    part = InlineData(b"data", "image/png")
    await service.save(KEY, "a", part)
    assert await service.load(KEY, "a") is part


async def test_two_services_in_memory_share_nothing() -> None:
    one, other = InMemoryArtifactService(), InMemoryArtifactService()
    await one.save(KEY, "user:a", "text")
    assert await other.list_names(KEY) == []


async def test_a_service_in_memory_that_lost_its_last_artifact_keeps_nothing() -> None:
    service = InMemoryArtifactService()
    for name in ("a", "user:a"):
        await service.save(KEY, name, "text")
        await service.delete(KEY, name)
    assert service._kept == {}


# ---------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "report.md",
        "reports/2024/a.md",
        "user:a",
        "user:a/b",
        "with space.txt",
        ".hidden",
        "...a",
        " a",
        "ab:c",
        "漢字.txt",
        "%2e%2e",
        "a" * 200,
        "é" * 100,
        "/".join(["a" * 99] * 5),
    ],
)
def test_a_relative_path_is_a_name(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "it is empty"),
        ("user:", "it is empty"),
        ("/etc/passwd", "it is an absolute path"),
        ("user:/etc/passwd", "it is an absolute path"),
        ("/", "it is an absolute path"),
        ("C:/a", "it begins with a drive, 'C:'"),
        ("c:a", "it begins with a drive, 'c:'"),
        ("user:C:/a", "it begins with a drive, 'C:'"),
        ("C:\\a", "it holds a backslash"),
        ("\\\\server\\share", "it holds a backslash"),
        ("a\\..\\b", "it holds a backslash"),
        ("..", "it has a segment '..'"),
        ("../a", "it has a segment '..'"),
        ("user:../a", "it has a segment '..'"),
        ("a/../../b", "it has a segment '..'"),
        ("a/./b", "it has a segment '.'"),
        (".", "it has a segment '.'"),
        ("a//b", "it has an empty segment"),
        ("a/", "it has an empty segment"),
        ("a\0b", "it holds the control character '\\x00'"),
        ("a\nb", "it holds the control character '\\n'"),
        ("a\x7f", "it holds the control character '\\x7f'"),
        ("a\x85b", "it holds the control character '\\x85'"),
        ("a\ud800", "it holds a lone surrogate"),
        ("a.", "its segment 'a.' ends in a dot or a space"),
        ("a ", "its segment 'a ' ends in a dot or a space"),
        ("...", "its segment '...' ends in a dot or a space"),
        ("a./b", "its segment 'a.' ends in a dot or a space"),
        ("a" * 201, "it has a segment 201 bytes long, and 200 are the most"),
        ("é" * 101, "it has a segment 202 bytes long, and 200 are the most"),
        ("/".join(["a" * 99] * 5) + "/b", "it is 501 bytes long, and 500 are the most"),
        (1, "text is needed, not a int"),
        (None, "text is needed, not a NoneType"),
    ],
)
def test_what_is_no_relative_path_everywhere_is_no_name(name: Any, why: str) -> None:
    with pytest.raises(ArtifactNameError) as caught:
        check_name(name)
    assert caught.value.why.startswith(why)
    assert caught.value.name == name


@given(st.text(st.characters(), max_size=300) | st.text("aA/.\\: \0\ud800é", max_size=300))
def test_a_refused_name_can_be_printed_and_is_shown_shortened(name: str) -> None:
    try:
        check_name(name)
    except ArtifactNameError as error:
        message = str(error)
        assert message.isprintable()
        assert message.startswith(repr(name)[:80])
        assert len(message) < 600


def test_errors_are_also_of_the_kind_that_python_has_for_them() -> None:
    assert issubclass(ArtifactNameError, ArtifactError)
    assert issubclass(ArtifactNameError, ValueError)
    assert issubclass(ArtifactTypeError, ArtifactError)
    assert issubclass(ArtifactTypeError, TypeError)
    assert issubclass(DamagedArtifactError, ArtifactError)


def test_what_cannot_be_kept_is_named_by_its_type() -> None:
    with pytest.raises(ArtifactTypeError, match=r"^a FunctionCall cannot be an artifact; give a"):
        artifact_of(FunctionCall("f"))


def test_a_damaged_artifact_is_named_by_its_path() -> None:
    error = DamagedArtifactError("folder/file", "it is gone")
    assert (str(error), error.path, error.why) == (
        "folder/file: it is gone",
        "folder/file",
        "it is gone",
    )


@pytest.mark.parametrize("version", [-1, True, 1.0, "1"])
def test_a_version_is_a_number_from_0_or_none(version: Any) -> None:
    check_version(0)
    check_version(None)
    with pytest.raises(ValueError, match=r"^version must be a number from 0, or None"):
        check_version(version)


# ------------------------------------------------------------------------------- broken services


class CountsFromOne(InMemoryArtifactService):
    async def save(self, key: SessionKey, name: str, artifact: Any) -> int:
        return await super().save(key, name, artifact) + 1


class CountsAllNamesTogether(InMemoryArtifactService):
    count = -1

    async def save(self, key: SessionKey, name: str, artifact: Any) -> int:
        await super().save(key, name, artifact)
        self.count += 1
        return self.count


class KeepsOnlyTheNewest(InMemoryArtifactService):
    async def load(self, key: SessionKey, name: str, *, version: Any = None) -> Artifact | None:
        return await super().load(key, name)


class SavesTheSameOnlyOnce(InMemoryArtifactService):
    async def save(self, key: SessionKey, name: str, artifact: Any) -> int:
        part = artifact_of(artifact)
        versions = self._versions(key, name)
        if part in versions:
            return versions.index(part)
        return await super().save(key, name, artifact)


class LoadsTheFirst(InMemoryArtifactService):
    async def load(self, key: SessionKey, name: str, *, version: Any = None) -> Artifact | None:
        return await super().load(key, name, version=version or 0)


class SortsVersionsAsText(InMemoryArtifactService):
    async def load(self, key: SessionKey, name: str, *, version: Any = None) -> Artifact | None:
        if version is None:
            version = max(await self.list_versions(key, name), default=None, key=str)
        return await super().load(key, name, version=version)


class Changes(InMemoryArtifactService):
    def change(self, part: Artifact) -> Artifact:
        raise NotImplementedError

    async def load(self, key: SessionKey, name: str, *, version: Any = None) -> Artifact | None:
        part = await super().load(key, name, version=version)
        return None if part is None else self.change(part)


class LosesThoughts(Changes):
    def change(self, part: Artifact) -> Artifact:
        return Text(part.text) if isinstance(part, Text) else part


class TranslatesNewlines(Changes):
    def change(self, part: Artifact) -> Artifact:
        return Text(part.text.replace("\r\n", "\n")) if isinstance(part, Text) else part


class ForgetsTypes(Changes):
    def change(self, part: Artifact) -> Artifact:
        return part if isinstance(part, Text) else InlineData(part.data)


class GuessesText(Changes):
    def change(self, part: Artifact) -> Artifact:
        try:
            return part if isinstance(part, Text) else Text(part.data.decode())
        except UnicodeDecodeError:
            return part


class TakesAnything(InMemoryArtifactService):
    async def save(self, key: SessionKey, name: str, artifact: Any) -> int:
        try:
            return await super().save(key, name, artifact)
        except ArtifactTypeError:
            return await super().save(key, name, str(artifact))


class TakesSurrogates(InMemoryArtifactService):
    async def save(self, key: SessionKey, name: str, artifact: Any) -> int:
        try:
            return await super().save(key, name, artifact)
        except UnstorableError:
            return await super().save(key, name, artifact.encode(errors="replace"))


class ClaimsBeforeItLooks(InMemoryArtifactService):
    async def save(self, key: SessionKey, name: str, artifact: Any) -> int:
        version = await super().save(key, name, "")
        self._versions(key, name)[version] = artifact_of(artifact)
        return version


class FailsOnTheUnknown(InMemoryArtifactService):
    async def load(self, key: SessionKey, name: str, *, version: Any = None) -> Artifact | None:
        return self._versions(key, name)[-1 if version is None else version]


class InventsEmptyText(InMemoryArtifactService):
    async def load(self, key: SessionKey, name: str, *, version: Any = None) -> Artifact | None:
        return await super().load(key, name, version=version) or Text("")


class LoadsFromTheEnd(InMemoryArtifactService):
    async def load(self, key: SessionKey, name: str, *, version: Any = None) -> Artifact | None:
        if version is not None and version < 0:
            version += len(self._versions(key, name))
        return await super().load(key, name, version=version)


class ListsAsItComes(InMemoryArtifactService):
    async def list_names(self, key: SessionKey) -> list[str]:
        return [name for names in self._kept.values() for name in names]


class ListsWithoutCase(InMemoryArtifactService):
    async def list_names(self, key: SessionKey) -> list[str]:
        return sorted(await super().list_names(key), key=str.casefold)


class ListsEveryVersion(InMemoryArtifactService):
    async def list_names(self, key: SessionKey) -> list[str]:
        names = await super().list_names(key)
        return [name for name in names for _ in self._versions(key, name)]


class Renames(InMemoryArtifactService):
    """A service that looks for something else than it was told."""

    def named(self, name: str) -> str:
        return name

    def keyed(self, key: SessionKey, name: str) -> SessionKey:
        return key

    async def save(self, key: SessionKey, name: str, artifact: Any) -> int:
        return await super().save(self.keyed(key, name), self.named(name), artifact)

    async def load(self, key: SessionKey, name: str, *, version: Any = None) -> Artifact | None:
        return await super().load(self.keyed(key, name), self.named(name), version=version)

    async def list_names(self, key: SessionKey) -> list[str]:
        return await super().list_names(self.keyed(key, ""))

    async def list_versions(self, key: SessionKey, name: str) -> list[int]:
        return await super().list_versions(self.keyed(key, name), self.named(name))

    async def delete(self, key: SessionKey, name: str) -> None:
        await super().delete(self.keyed(key, name), self.named(name))


def naming(change: Callable[[str], str]) -> type[Renames]:
    class Names(Renames):
        def named(self, name: str) -> str:
            return change(name) if isinstance(name, str) else name

    return Names


def keying(change: Callable[[SessionKey], SessionKey]) -> type[Renames]:
    class Keys(Renames):
        def keyed(self, key: SessionKey, name: str) -> SessionKey:
            return change(key)

    return Keys


class GivesEveryoneTheUsersArtifacts(Renames):
    def keyed(self, key: SessionKey, name: str) -> SessionKey:
        return SessionKey("app", "user", "session") if name.startswith("user:") else key


class KeepsUserArtifactsInTheSession(InMemoryArtifactService):
    def _inner(self, name: str) -> str:
        return name.replace("user:", "user%")

    async def save(self, key: SessionKey, name: str, artifact: Any) -> int:
        return await super().save(key, self._inner(name), artifact)

    async def load(self, key: SessionKey, name: str, *, version: Any = None) -> Artifact | None:
        return await super().load(key, self._inner(name), version=version)

    async def list_names(self, key: SessionKey) -> list[str]:
        return [name.replace("user%", "user:") for name in await super().list_names(key)]


class DeletesNothing(InMemoryArtifactService):
    async def delete(self, key: SessionKey, name: str) -> None:
        check_name(name)


class DeletesTheNewest(InMemoryArtifactService):
    async def delete(self, key: SessionKey, name: str) -> None:
        self._versions(key, name).pop()


class DeletesTheFolder(InMemoryArtifactService):
    async def delete(self, key: SessionKey, name: str) -> None:
        for found in await self.list_names(key):
            if found.startswith(name):
                await super().delete(key, found)


class DeletesForEveryUser(InMemoryArtifactService):
    async def delete(self, key: SessionKey, name: str) -> None:
        check_name(name)
        for names in self._kept.values():
            names.pop(name, None)


class FailsToDeleteTheUnknown(InMemoryArtifactService):
    async def delete(self, key: SessionKey, name: str) -> None:
        if not self._versions(key, name):
            raise KeyError(name)
        await super().delete(key, name)


class TakesAnyNameToLoad(InMemoryArtifactService):
    async def load(self, key: SessionKey, name: str, *, version: Any = None) -> Artifact | None:
        try:
            return await super().load(key, name, version=version)
        except ArtifactNameError:
            return None


class RaisesPlainValueErrors(InMemoryArtifactService):
    async def delete(self, key: SessionKey, name: str) -> None:
        try:
            await super().delete(key, name)
        except ArtifactNameError as error:
            raise ValueError(str(error)) from None


KNOWN_BAD: dict[str, list[type[ArtifactService]]] = {
    "versions_count_from_0_without_gaps": [CountsFromOne, CountsAllNamesTogether],
    "every_version_stays_as_it_was_saved": [KeepsOnlyTheNewest, SavesTheSameOnlyOnce],
    "the_newest_version_is_loaded_unless_told_otherwise": [LoadsTheFirst, SortsVersionsAsText],
    "a_part_comes_back_as_it_went_in": [LosesThoughts, TranslatesNewlines, ForgetsTypes],
    "text_is_short_for_words_and_bytes_for_data": [GuessesText],
    "what_is_neither_words_nor_bytes_is_refused": [
        TakesAnything,
        TakesSurrogates,
        ClaimsBeforeItLooks,
    ],
    "what_is_not_there_is_none": [FailsOnTheUnknown, InventsEmptyText],
    "a_version_below_0_is_refused": [LoadsFromTheEnd],
    "names_are_listed_in_order": [ListsAsItComes, ListsWithoutCase, ListsEveryVersion],
    "an_artifact_belongs_to_its_session": [
        keying(lambda key: SessionKey(key.app_name, key.user_id, "any")),
        keying(lambda key: SessionKey(key.app_name, "any", key.session_id)),
        keying(lambda key: SessionKey("any", key.user_id, key.session_id)),
    ],
    "the_users_artifacts_are_seen_by_all_sessions_of_the_user": [
        KeepsUserArtifactsInTheSession,
        GivesEveryoneTheUsersArtifacts,
        naming(lambda name: name.removeprefix("user:")),
    ],
    "a_deleted_artifact_is_gone_with_all_its_versions": [DeletesNothing, DeletesTheNewest],
    "deleting_leaves_everything_else": [
        DeletesTheFolder,
        DeletesForEveryUser,
        FailsToDeleteTheUnknown,
    ],
    "bad_names_are_refused_by_every_method": [
        TakesAnyNameToLoad,
        RaisesPlainValueErrors,
        naming(lambda name: name.replace("\\", "/")),
        naming(lambda name: name.replace("\ud800", "?")),
        naming(lambda name: name[:200]),
    ],
    "odd_names_name_different_artifacts": [
        naming(str.lower),
        naming(str.strip),
        naming(lambda name: name[:100]),
        naming(lambda name: name.encode("ascii", "replace").decode()),
    ],
    "odd_owners_are_different_owners": [
        keying(lambda key: SessionKey(*(n.lower() for n in (key.app_name, key.user_id, "x")))),
        keying(lambda key: SessionKey(key.app_name, key.user_id[:100], key.session_id)),
        keying(lambda key: SessionKey(key.app_name, key.user_id.strip(), key.session_id)),
        keying(lambda key: SessionKey("a", "b", str(key).replace("..", ""))),
    ],
}


def test_every_check_is_proved_on_a_broken_service() -> None:
    assert sorted(check.name for check in ARTIFACT_CHECKS) == sorted(KNOWN_BAD)


@pytest.mark.parametrize(
    ("check", "broken"),
    [(check, broken) for check in ARTIFACT_CHECKS for broken in KNOWN_BAD[check.name]],
    ids=lambda value: value.name if isinstance(value, ArtifactCheck) else value.__name__,
)
async def test_a_broken_promise_is_caught(
    check: ArtifactCheck, broken: type[ArtifactService]
) -> None:
    with pytest.raises(PromiseBrokenError) as caught:
        await check(broken())
    assert caught.value.promise == check.name


# ------------------------------------------------------------------------------------ the suite


async def test_all_checks_can_be_run_at_once_each_on_a_service_of_its_own() -> None:
    made: list[ArtifactService] = []

    def make() -> ArtifactService:
        made.append(InMemoryArtifactService())
        return made[-1]

    await check_artifact_service(make)
    assert len(made) == len(ARTIFACT_CHECKS)


async def test_a_service_may_need_to_be_opened_and_closed() -> None:
    opened: list[str] = []

    @asynccontextmanager
    async def open_service() -> AsyncGenerator[ArtifactService, None]:
        opened.append("open")
        yield InMemoryArtifactService()
        opened.append("close")

    await check_artifact_service(open_service)
    assert opened == ["open", "close"] * len(ARTIFACT_CHECKS)


async def test_an_error_of_the_services_own_is_a_broken_promise_and_its_cause() -> None:
    with pytest.raises(PromiseBrokenError, match="KeyError") as caught:
        await check_artifact_service(FailsToDeleteTheUnknown)
    assert isinstance(caught.value.__cause__, KeyError)


@every_check
def test_a_checks_name_is_a_claim(check: ArtifactCheck) -> None:
    assert len(check.name.split("_")) >= 3
    assert repr(check) == f"ArtifactCheck(name={check.name!r})"
