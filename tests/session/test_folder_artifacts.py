"""What `FolderArtifactService` does beside the contract, which test_artifact.py checks."""

from __future__ import annotations

import errno
import json
import os
import shutil
import string
import tempfile
import threading
import unicodedata
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from session.artifact import (
    ArtifactError,
    ArtifactNameError,
    ArtifactService,
    DamagedArtifactError,
    InMemoryArtifactService,
)
from session.content import InlineData, Text
from session.folder_artifacts import FolderArtifactService, _disk
from session.folder_artifacts._disk import Disk
from session.folder_artifacts._names import content_file, decode, owner_of, stored
from session.session import SessionKey

KEY = SessionKey("app", "user", "id")
HERE = "app/user/id"


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def listing(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def unfinished_in(folder: Path) -> list[str]:
    return listing(folder / "@unfinished")


# -------------------------------------------------------------------------- what lies in the folder


async def test_the_folder_is_laid_out_for_people(tmp_path: Path) -> None:
    service = FolderArtifactService(tmp_path)
    key = SessionKey("my_app", "Alice", "4-2")
    await service.save(key, "charts/Sales 2024.png", b"picture")
    await service.save(key, "charts/Sales 2024.png", b"better")
    await service.save(key, "user:notes.md", "words\r\n")
    assert files_in(tmp_path) == [
        "my_app/!alice/4-2/charts/!sales 2024.png@/0/@artifact.json",
        "my_app/!alice/4-2/charts/!sales 2024.png@/0/Sales 2024.png",
        "my_app/!alice/4-2/charts/!sales 2024.png@/1/@artifact.json",
        "my_app/!alice/4-2/charts/!sales 2024.png@/1/Sales 2024.png",
        "my_app/!alice/@user/notes.md@/0/@artifact.json",
        "my_app/!alice/@user/notes.md@/0/notes.md",
    ]
    charts = tmp_path / "my_app/!alice/4-2/charts/!sales 2024.png@"
    assert (charts / "1/Sales 2024.png").read_bytes() == b"better"
    assert (tmp_path / "my_app/!alice/@user/notes.md@/0/notes.md").read_bytes() == b"words\r\n"


async def test_what_a_version_is_is_said_in_plain_json(tmp_path: Path) -> None:
    await FolderArtifactService(tmp_path).save(KEY, "é.txt", InlineData(b"abc", "text/plain"))
    text = (tmp_path / HERE / "%c3%a9.txt@/0/@artifact.json").read_text("utf-8")
    assert '"name": "é.txt"' in text
    assert json.loads(text) == {
        "name": "é.txt",
        "kind": "data",
        "mime_type": "text/plain",
        "thought": False,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }


async def test_a_long_name_is_cut_off_and_keeps_its_ending(tmp_path: Path) -> None:
    service = FolderArtifactService(tmp_path)
    names = [f"{'四半期売上報告書' * 3}.pdf", f"{'四半期売上報告書' * 3}/a", "X" * 200]
    for name in names:
        await service.save(KEY, name, name)
    assert sorted(await service.list_names(KEY)) == sorted(names)
    assert any(path.endswith(".pdf") and "~" in path for path in files_in(tmp_path))


async def test_a_relative_folder_is_the_one_at_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    service = FolderArtifactService("kept")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    await service.save(KEY, "a", "text")
    assert service.folder == tmp_path / "kept"
    assert files_in(tmp_path / "kept") == [f"{HERE}/a@/0/@artifact.json", f"{HERE}/a@/0/a"]


async def test_nothing_is_made_before_the_first_save(tmp_path: Path) -> None:
    service = FolderArtifactService(tmp_path / "a/b")
    await service.load(KEY, "a")
    await service.list_names(KEY)
    await service.delete(KEY, "a")
    assert listing(tmp_path) == []
    await service.save(KEY, "a", "text")
    assert listing(tmp_path) == ["a"]


async def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    service = FolderArtifactService(tmp_path / "link")
    await service.save(KEY, "a", "text")
    assert await service.load(KEY, "a") == Text("text")
    assert repr(service) == f"FolderArtifactService({str(tmp_path / 'link')!r})"


def test_a_file_is_no_folder_for_artifacts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="artifacts need a folder, not a file"):
        FolderArtifactService(tmp_path / "file")


def test_an_empty_path_is_not_taken_for_the_current_folder() -> None:
    with pytest.raises(ValueError, match="folder is empty"):
        FolderArtifactService("")


async def test_what_one_service_saved_another_reads(tmp_path: Path) -> None:
    await FolderArtifactService(tmp_path).save(KEY, "a", "text")
    other = FolderArtifactService(tmp_path)
    assert await other.load(KEY, "a") == Text("text")
    assert await other.save(KEY, "a", "second") == 1


# --------------------------------------------------------------------------------- names, drawn

pieces = st.sampled_from(["a", "A", "b.md", "..", ".", "", " ", "con", "é", "\0", "\\", "C:", "@"])
names = (
    st.text(st.characters(), max_size=12)
    | st.lists(pieces | st.text(max_size=3), max_size=5).map("/".join)
    | st.text("aéZ.", min_size=190, max_size=210)
)
prefixes = st.sampled_from(["", "", "user:"])


async def outcome_of(save: Callable[[], Awaitable[int]]) -> object:
    try:
        return await save()
    except ArtifactNameError as error:
        return str(error)


def climbed_out(base: Path, inside: Path) -> list[str]:
    """What is in ``base`` and not on the way to ``inside``, or in it."""
    return [
        str(path.relative_to(base))
        for path in base.rglob("*")
        if not (path.is_relative_to(inside) or inside.is_relative_to(path))
    ]


@given(st.builds(str.__add__, prefixes, names))
async def test_a_name_is_refused_by_both_services_or_kept_by_both(name: str) -> None:
    memory = InMemoryArtifactService()
    with tempfile.TemporaryDirectory() as base:
        inside = Path(base, "1/2/3/4")
        folder = FolderArtifactService(inside)
        outcomes = [
            await outcome_of(lambda service=service: service.save(KEY, name, name))  # type: ignore[misc]  # bound on purpose
            for service in (memory, folder)
        ]
        assert outcomes[0] == outcomes[1]
        assert climbed_out(Path(base), inside) == []
        if outcomes[0] == 0:
            for service in (memory, folder):
                assert await service.load(KEY, name) == Text(name)
                assert await service.list_names(KEY) == [name]
                await service.delete(KEY, name)
                assert await service.list_names(KEY) == []


@pytest.mark.parametrize("name", ["../x", "../../x", "../../../x"])
def test_a_service_that_climbs_out_would_be_seen(name: str, tmp_path: Path) -> None:
    inside = tmp_path / "1/2/3/4"
    inside.mkdir(parents=True)
    (inside / "kept").touch()
    assert climbed_out(tmp_path, inside) == []
    (inside / name).touch()
    assert climbed_out(tmp_path, inside) != []


owner_names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8) | st.text(
    "aA/.\\: @~%!\0", min_size=1, max_size=4
)
# Long enough to be cut off, and the same at both ends.
texts = owner_names | st.builds("{0}{1}{0}".format, st.just("é" * 50), owner_names)


@given(texts, texts)
def test_two_texts_have_two_folders_on_every_file_system(one: str, other: str) -> None:
    def as_seen_by_a_careless_system(name: str) -> str:
        return unicodedata.normalize("NFKC", name.casefold()).rstrip(". ")

    same = as_seen_by_a_careless_system(stored(one)) == as_seen_by_a_careless_system(stored(other))
    assert same == (one == other)


DEVICES = ["con", "prn", "aux", "nul", "com1", "lpt9"]


@given(texts | st.sampled_from([*DEVICES, "con.txt", "NUL.a.b", "con .txt", "conx", "x.con"]))
def test_a_folder_name_is_one_on_every_file_system(text: str) -> None:
    name = stored(text)
    assert set(name) <= set(string.ascii_lowercase + string.digits + "_-. !%~")
    assert 0 < len(name) <= 150
    assert name[0] not in ". "
    assert name[-1] not in ". "
    assert name.partition(".")[0].rstrip() not in DEVICES


@given(texts)
def test_a_folder_name_that_was_not_cut_off_says_what_it_stands_for(text: str) -> None:
    name = stored(text)
    assert decode(name) == text or "~" in name


@given(st.text("aA.b%é", min_size=1, max_size=90))
def test_the_file_of_an_artifact_never_hides_what_is_said_of_it(segment: str) -> None:
    assert "@" not in content_file(segment)
    assert "/" not in content_file(segment)


# -------------------------------------------------------------------------------- at the same time


async def save_all(services: list[FolderArtifactService], count: int) -> dict[int, bytes]:
    """Save ``count`` artifacts of one name at once, and return which version each became."""
    saved: dict[int, bytes] = {}

    async def save(number: int) -> None:
        data = f"data {number}".encode()
        version = await services[number % len(services)].save(KEY, "a/b", data)
        assert version not in saved
        saved[version] = data

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(save, number)
    return saved


@pytest.mark.parametrize("services", [1, 5])
async def test_fifty_tasks_that_save_one_name_get_fifty_versions(
    services: int, tmp_path: Path
) -> None:
    made = [FolderArtifactService(tmp_path) for _ in range(services)]
    saved = await save_all(made, 50)
    assert sorted(saved) == await made[0].list_versions(KEY, "a/b") == [*range(50)]
    for version, data in saved.items():
        assert await made[-1].load(KEY, "a/b", version=version) == InlineData(data)
    assert unfinished_in(tmp_path) == []


async def test_who_finds_the_number_taken_takes_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one race that matters, made to happen: between the look and the renaming."""
    rename = os.rename
    faster = iter(["first", "second"])

    def rename_later(*args: Any, **kwargs: Any) -> None:
        text = next(faster, None)
        if text is not None:
            Disk(tmp_path).save(owner_of(KEY, "a"), "a", Text(text))
        rename(*args, **kwargs)

    monkeypatch.setattr(os, "rename", rename_later)
    service = FolderArtifactService(tmp_path)
    assert await service.save(KEY, "a", "third") == 2
    texts = [await service.load(KEY, "a", version=version) for version in range(3)]
    assert set(texts) == {Text("first"), Text("second"), Text("third")}
    assert texts[2] == Text("third")


async def test_a_save_into_an_artifact_that_is_deleted_meanwhile_begins_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FolderArtifactService(tmp_path)
    for _ in range(3):
        await service.save(KEY, "a", "old")
    rename = os.rename

    def delete_first(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(os, "rename", rename)
        Disk(tmp_path).delete(owner_of(KEY, "a"), "a")
        rename(*args, **kwargs)

    monkeypatch.setattr(os, "rename", delete_first)
    assert await service.save(KEY, "a", "new") == 0
    assert await service.list_versions(KEY, "a") == [0]
    assert await service.load(KEY, "a") == Text("new")


async def test_a_save_whose_artifact_is_deleted_right_after_has_succeeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FolderArtifactService(tmp_path)
    rename = os.rename

    def delete_afterwards(*args: Any, **kwargs: Any) -> None:
        rename(*args, **kwargs)
        monkeypatch.setattr(os, "rename", rename)
        Disk(tmp_path).delete(owner_of(KEY, "a"), "a")

    monkeypatch.setattr(os, "rename", delete_afterwards)
    assert await service.save(KEY, "a", "text") == 0
    assert await service.load(KEY, "a") is None


async def test_two_who_delete_the_same_do_not_trip_over_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FolderArtifactService(tmp_path)
    await service.save(KEY, "a", "text")
    rename = os.rename

    def delete_first(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(os, "rename", rename)
        Disk(tmp_path).delete(owner_of(KEY, "a"), "a")
        rename(*args, **kwargs)

    monkeypatch.setattr(os, "rename", delete_first)
    await service.delete(KEY, "a")
    assert await service.list_names(KEY) == []


async def test_a_save_whose_draft_was_swept_away_fails_and_does_not_try_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def sweep_first(*args: Any, **kwargs: Any) -> None:
        shutil.rmtree(tmp_path / "@unfinished")
        rename(*args, **kwargs)

    monkeypatch.setattr(os, "rename", sweep_first)
    with pytest.raises(FileNotFoundError):
        await FolderArtifactService(tmp_path).save(KEY, "a", "text")


def before_reading(
    monkeypatch: pytest.MonkeyPatch, file: str, happens: Callable[[], object]
) -> None:
    """Have something happen before ``file`` is read for the first time."""
    read = _disk._read

    def read_later(path: Path) -> bytes:
        if path.name == file:
            monkeypatch.setattr(_disk, "_read", read)
            happens()
        return read(path)

    monkeypatch.setattr(_disk, "_read", read_later)


@pytest.mark.parametrize("file", ["a", "@artifact.json"])
async def test_what_is_deleted_while_it_is_loaded_is_not_there(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FolderArtifactService(tmp_path)
    await service.save(KEY, "a", "text")
    before_reading(monkeypatch, file, lambda: Disk(tmp_path).delete(owner_of(KEY, "a"), "a"))
    assert await service.load(KEY, "a") is None


async def test_what_is_saved_anew_while_it_is_loaded_is_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FolderArtifactService(tmp_path)
    await service.save(KEY, "a", Text("old", thought=True))
    disk, owner = Disk(tmp_path), owner_of(KEY, "a")

    def save_anew() -> None:
        disk.delete(owner, "a")
        disk.save(owner, "a", Text("new"))

    before_reading(monkeypatch, "a", save_anew)
    assert await service.load(KEY, "a") == Text("new")


async def test_what_is_saved_anew_between_two_looks_at_one_file_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FolderArtifactService(tmp_path)
    await service.save(KEY, "a", "old")
    disk, owner = Disk(tmp_path), owner_of(KEY, "a")
    look = os.lstat

    def look_between(path: Path) -> os.stat_result:
        if path.name != "a":
            return look(path)
        monkeypatch.setattr(os, "lstat", look)
        disk.delete(owner, "a")
        try:
            return look(path)
        finally:
            disk.save(owner, "a", Text("new"))

    monkeypatch.setattr(os, "lstat", look_between)
    assert await service.load(KEY, "a") in {None, Text("new")}


def while_removing(monkeypatch: pytest.MonkeyPatch, *, times: int) -> None:
    """Let so many removals come upon something that was moved into the folder meanwhile."""
    remove, full = shutil.rmtree, iter(range(times))

    def remove_the_rest(folder: Path, **options: Any) -> None:
        if not options and next(full, None) is not None:
            raise OSError(errno.ENOTEMPTY, "Directory not empty", str(folder))
        remove(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", remove_the_rest)


async def test_what_is_moved_into_a_folder_that_is_being_removed_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FolderArtifactService(tmp_path)
    await service.save(KEY, "a", "text")
    while_removing(monkeypatch, times=2)
    await service.delete(KEY, "a")
    assert unfinished_in(tmp_path) == []


async def test_a_folder_that_cannot_be_emptied_is_not_tried_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FolderArtifactService(tmp_path)
    await service.save(KEY, "a", "text")
    while_removing(monkeypatch, times=1_000)
    with pytest.raises(OSError, match="not empty"):
        await service.delete(KEY, "a")


async def test_what_is_deleted_while_it_is_listed_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FolderArtifactService(tmp_path)
    name = "x" * 200
    await service.save(KEY, name, "text")
    disk, owner = Disk(tmp_path), owner_of(KEY, name)
    before_reading(monkeypatch, "@artifact.json", lambda: disk.delete(owner, name))
    assert await service.list_names(KEY) == []


@pytest.mark.parametrize("name", ["a", "x" * 200])
async def test_what_is_deleted_before_it_is_looked_into_has_no_versions(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FolderArtifactService(tmp_path)
    disk, owner = Disk(tmp_path), owner_of(KEY, name)
    scan = os.scandir

    def delete_first(path: Path) -> Any:
        if str(path).endswith("@"):
            monkeypatch.setattr(os, "scandir", scan)
            disk.delete(owner, name)
        return scan(path)

    for look in (
        service.load(KEY, name),
        service.list_versions(KEY, name),
        service.list_names(KEY),
    ):
        await service.save(KEY, name, "text")
        monkeypatch.setattr(os, "scandir", delete_first)
        assert not await look


async def test_an_artifact_about_to_get_its_first_version_is_not_there_yet(tmp_path: Path) -> None:
    service = FolderArtifactService(tmp_path)
    (tmp_path / HERE / "a@").mkdir(parents=True)
    assert await service.list_names(KEY) == []
    assert await service.load(KEY, "a") is None


# ----------------------------------------------------------------------- cancelled, failed, threads


def call_before_flush(
    monkeypatch: pytest.MonkeyPatch, number: int, call: Callable[[], object]
) -> Callable[[], int]:
    """Have ``call`` called before the flush with this number. Returned: how many there were."""
    flush = os.fsync
    count = iter(range(1000))

    def flush_later(opened: int) -> None:
        if next(count) == number:
            call()
        flush(opened)

    monkeypatch.setattr(os, "fsync", flush_later)
    return lambda: next(count)


async def test_a_save_cancelled_before_it_began_leaves_nothing(tmp_path: Path) -> None:
    service = FolderArtifactService(tmp_path / "kept")
    with trio.CancelScope() as scope:
        scope.cancel()
        await service.save(KEY, "a", "text")
    assert scope.cancelled_caught
    assert listing(tmp_path) == []


@pytest.mark.parametrize("number", range(9))
async def test_a_save_cancelled_in_the_middle_is_finished(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FolderArtifactService(tmp_path)
    saved = []
    with trio.CancelScope() as scope:
        flushes = call_before_flush(
            monkeypatch, number, lambda: trio.from_thread.run_sync(scope.cancel)
        )
        saved.append(await service.save(KEY, "a", b"data"))
        assert flushes() == 9
    assert saved == [0]
    assert scope.cancel_called
    assert await service.load(KEY, "a") == InlineData(b"data")
    assert unfinished_in(tmp_path) == []


@pytest.mark.parametrize("number", range(9))
async def test_a_save_that_fails_leaves_all_of_a_version_or_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "no space left")

    service = FolderArtifactService(tmp_path)
    call_before_flush(monkeypatch, number, fail)
    with pytest.raises(OSError, match="no space left"):
        await service.save(KEY, "a", b"data")
    versions = await service.list_versions(KEY, "a")
    # The last flush follows the renaming.
    assert versions == ([0] if number == 8 else [])
    assert await service.load(KEY, "a") == (InlineData(b"data") if versions else None)
    assert files_in(tmp_path / "@unfinished") == []
    assert await service.save(KEY, "a", b"again") == len(versions)


async def test_what_could_not_be_removed_from_the_disk_does_not_go_unnoticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FolderArtifactService(tmp_path)
    await service.save(KEY, "a", "text")

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "not allowed")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        with pytest.raises(PermissionError):
            await service.delete(KEY, "a")
    assert await service.list_names(KEY) == []
    assert files_in(tmp_path / "@unfinished") != []


async def test_what_a_process_left_behind_when_it_died_disturbs_nobody(tmp_path: Path) -> None:
    service = FolderArtifactService(tmp_path)
    left = tmp_path / "@unfinished" / "0123"
    left.mkdir(parents=True)
    (left / "a").write_bytes(b"half")
    assert await service.save(KEY, "a", "text") == 0
    assert await service.list_names(KEY) == ["a"]


async def test_the_event_loop_goes_on_while_the_disk_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    flushing = trio.Event()

    def wait() -> None:
        trio.from_thread.run_sync(flushing.set)
        assert go_on.wait(10)

    call_before_flush(monkeypatch, 0, wait)
    service = FolderArtifactService(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.save, KEY, "a", "text")
        await flushing.wait()
        go_on.set()  # reached only if the save does not hold the loop
    assert await service.list_versions(KEY, "a") == [0]


async def test_artifacts_are_served_while_all_of_trios_own_threads_are_busy(tmp_path: Path) -> None:
    limiter = trio.to_thread.current_default_thread_limiter()
    busy = [object() for _ in range(int(limiter.total_tokens))]
    for borrower in busy:
        limiter.acquire_on_behalf_of_nowait(borrower)
    try:
        with trio.fail_after(10):  # it would wait forever
            assert await FolderArtifactService(tmp_path).save(KEY, "a", "text") == 0
    finally:
        for borrower in busy:
            limiter.release_on_behalf_of(borrower)


# ------------------------------------------------------------------------ links, damage, strangers

Call = Callable[[ArtifactService], Awaitable[object]]


async def load(service: ArtifactService) -> object:
    return await service.load(KEY, "a/b")


async def save(service: ArtifactService) -> object:
    return await service.save(KEY, "a/b", "new")


async def list_names(service: ArtifactService) -> object:
    return await service.list_names(KEY)


async def list_versions(service: ArtifactService) -> object:
    return await service.list_versions(KEY, "a/b")


async def delete(service: ArtifactService) -> None:
    await service.delete(KEY, "a/b")


ALL = (load, save, list_names, list_versions, delete)

WAYS = [
    ("app", ALL),
    ("app/user", ALL),
    ("app/user/id", ALL),
    ("app/user/id/a", ALL),
    ("app/user/id/a/b@", ALL),
    ("app/user/id/a/b@/0", (load, save, list_names, list_versions)),
    ("app/user/id/a/b@/0/b", (load,)),
    ("app/user/id/a/b@/0/@artifact.json", (load,)),
    ("@unfinished", (save, delete)),
]
ways = pytest.mark.parametrize(
    ("place", "call"), [(place, call) for place, calls in WAYS for call in calls]
)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files_in(folder)}


async def with_one_artifact(folder: Path) -> FolderArtifactService:
    service = FolderArtifactService(folder)
    await service.save(KEY, "a/b", "text")
    return service


@ways
async def test_a_link_in_the_folder_is_not_followed(place: str, call: Call, tmp_path: Path) -> None:
    """Each is a link to exactly what should be there, so only the check is in the way."""
    folder, outside = tmp_path / "kept", tmp_path / "outside"
    service = await with_one_artifact(folder)
    shutil.move(folder / place, outside)
    (folder / place).symlink_to(outside)
    before = snapshot(tmp_path)
    with pytest.raises(DamagedArtifactError) as caught:
        await call(service)
    assert caught.value.path == str(folder / place)
    assert "link" in caught.value.why
    assert snapshot(tmp_path) == before


@ways
async def test_what_the_links_stood_for_is_read_without_them(
    place: str, call: Call, tmp_path: Path
) -> None:
    """So the test above is about links."""
    service = await with_one_artifact(tmp_path)
    assert (tmp_path / place).exists()
    await call(service)


async def test_deleting_does_not_reach_through_links(tmp_path: Path) -> None:
    folder, outside = tmp_path / "kept", tmp_path / "outside"
    service = await with_one_artifact(folder)
    outside.mkdir()
    (outside / "precious").touch()
    (folder / HERE / "a/b@/1").symlink_to(outside)
    await service.delete(KEY, "a/b")
    assert await service.list_names(KEY) == []
    assert unfinished_in(folder) == []
    assert files_in(outside) == ["precious"]


def stray_file(folder: Path) -> Path:
    path = folder / HERE / "a/notes.txt"
    path.touch()
    return path


def stray_file_among_the_versions(folder: Path) -> Path:
    path = folder / HERE / "a/b@/1"
    path.touch()
    return path


def stray_folder_among_the_versions(folder: Path) -> Path:
    path = folder / HERE / "a/b@/01"
    path.mkdir()
    return path


def copied_artifact(folder: Path) -> Path:
    """What a person may do: a plain name where an encoded one belongs."""
    path = folder / HERE / "a/Copy of B@"
    shutil.copytree(folder / HERE / "a/b@", path)
    return path


def artifact_with_a_slash(folder: Path) -> Path:
    path = folder / HERE / "a%2fb@"
    shutil.copytree(folder / HERE / "a/b@", path)
    return path


def users_artifact_in_the_session(folder: Path) -> Path:
    path = folder / HERE / "user%3ab@"
    shutil.copytree(folder / HERE / "a/b@", path)
    return path


def artifact_under_another_digest(folder: Path) -> Path:
    path = folder / HERE / "b~0123@"
    shutil.copytree(folder / HERE / "a/b@", path)
    return path


def artifact_of_no_possible_name(folder: Path) -> Path:
    path = folder / HERE / "b~0123@"
    shutil.copytree(folder / HERE / "a/b@", path)
    about = path / "0/@artifact.json"
    about.write_text(about.read_text().replace("a/b", r"\ud800"))
    return path


@pytest.mark.parametrize(
    ("plant", "calls"),
    [
        (stray_file, (list_names,)),
        (stray_file_among_the_versions, (load, save, list_names, list_versions)),
        (stray_folder_among_the_versions, (load, save, list_names, list_versions)),
        (copied_artifact, (list_names,)),
        (artifact_with_a_slash, (list_names,)),
        (users_artifact_in_the_session, (list_names,)),
        (artifact_under_another_digest, (list_names,)),
        (artifact_of_no_possible_name, (list_names,)),
    ],
)
async def test_what_no_service_put_there_is_named(
    plant: Callable[[Path], Path], calls: tuple[Call, ...], tmp_path: Path
) -> None:
    service = await with_one_artifact(tmp_path)
    planted = plant(tmp_path)
    for call in calls:
        with pytest.raises(DamagedArtifactError, match="remove it") as caught:
            await call(service)
        assert caught.value.path == str(planted)


async def test_hidden_files_are_overlooked(tmp_path: Path) -> None:
    """Looking into a folder is enough to make some systems leave one there."""
    service = await with_one_artifact(tmp_path)
    for place in (".", HERE, f"{HERE}/a", f"{HERE}/a/b@", f"{HERE}/a/b@/0"):
        (tmp_path / place / ".DS_Store").touch()
    assert await service.list_names(KEY) == ["a/b"]
    assert await service.save(KEY, "a/b", "second") == 1
    assert await service.load(KEY, "a/b", version=0) == Text("text")


ABOUT = {"name": "a/b", "kind": "text", "mime_type": None, "thought": False, "sha256": "0"}


@pytest.mark.parametrize(
    "about",
    [
        b"",
        b"no json",
        b"\xff\xff",
        b"[" * 100_000,
        b"1" * 5000,
        b"null",
        b"[1]",
        b"{}",
        *(
            json.dumps({**ABOUT, **change}).encode()
            for change in (
                {"unknown": 1},
                {"name": 1},
                {"kind": "picture"},
                {"mime_type": 1},
                {"thought": "no"},
                {"sha256": None},
                {"name": "a/c"},
            )
        ),
    ],
    ids=lambda about: repr(about[:60]),
)
async def test_what_does_not_say_what_a_version_is_is_named(about: bytes, tmp_path: Path) -> None:
    service = await with_one_artifact(tmp_path)
    path = tmp_path / HERE / "a/b@/0/@artifact.json"
    path.write_bytes(about)
    with pytest.raises(DamagedArtifactError) as caught:
        await service.load(KEY, "a/b")
    assert caught.value.path == str(path)
    assert len(str(caught.value)) < len(str(path)) + 120


@pytest.mark.parametrize(
    "change",
    [{"kind": "data"}, {"kind": "data", "mime_type": "\ud800"}, {"sha256": "0"}],
)
async def test_bytes_that_are_not_what_is_said_of_them_are_named(
    change: dict[str, str], tmp_path: Path
) -> None:
    service = await with_one_artifact(tmp_path)
    path = tmp_path / HERE / "a/b@/0/@artifact.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DamagedArtifactError, match="; delete the artifact") as caught:
        await service.load(KEY, "a/b")
    assert caught.value.path == str(path.with_name("b"))


async def test_a_version_changed_by_hand_is_refused(tmp_path: Path) -> None:
    service = await with_one_artifact(tmp_path)
    path = tmp_path / HERE / "a/b@/0/b"
    path.write_text("TEXT")
    with pytest.raises(DamagedArtifactError, match="not those that were saved") as caught:
        await service.load(KEY, "a/b")
    assert caught.value.path == str(path)


@pytest.mark.parametrize("file", ["b", "@artifact.json"])
async def test_a_missing_file_of_a_version_is_named(file: str, tmp_path: Path) -> None:
    service = await with_one_artifact(tmp_path)
    path = tmp_path / HERE / "a/b@/0" / file
    path.unlink()
    with pytest.raises(DamagedArtifactError, match="it is missing") as caught:
        await service.load(KEY, "a/b")
    assert caught.value.path == str(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
async def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    service = await with_one_artifact(tmp_path)
    path = tmp_path / HERE / "a/b@/0/b"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DamagedArtifactError, match="it should be a file"):
        await service.load(KEY, "a/b")


async def test_a_damaged_version_leaves_the_others_and_the_listing(tmp_path: Path) -> None:
    service = await with_one_artifact(tmp_path)
    assert await service.save(KEY, "a/b", "second") == 1
    (tmp_path / HERE / "a/b@/0/b").write_text("?")
    assert await service.load(KEY, "a/b") == Text("second")
    assert await service.list_names(KEY) == ["a/b"]
    assert await service.save(KEY, "a/b", "third") == 2


async def test_a_version_removed_by_hand_is_not_there_and_its_number_not_given_again(
    tmp_path: Path,
) -> None:
    service = await with_one_artifact(tmp_path)
    await service.save(KEY, "a/b", "second")
    shutil.rmtree(tmp_path / HERE / "a/b@/0")
    assert await service.load(KEY, "a/b", version=0) is None
    assert await service.list_versions(KEY, "a/b") == [1]
    assert await service.save(KEY, "a/b", "third") == 2


async def test_deleting_is_a_way_out_of_damage(tmp_path: Path) -> None:
    service = await with_one_artifact(tmp_path)
    stray_file_among_the_versions(tmp_path)
    with pytest.raises(ArtifactError):
        await service.load(KEY, "a/b")
    await service.delete(KEY, "a/b")
    assert await service.save(KEY, "a/b", "anew") == 0
    assert unfinished_in(tmp_path) == []
