from __future__ import annotations

from pathlib import Path

import pytest

from parallel_agent.certify import points
from parallel_agent.certify.points import Notes, Points, read_notes


class KilledError(Exception):
    """In the place of a SIGKILL."""


def die() -> None:
    raise KilledError


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notes:
    monkeypatch.setattr(points, "kill_this_process", die)
    return Notes(tmp_path / "notes")


def test_notes_of_several_processes_stand_one_after_the_other(tmp_path: Path) -> None:
    for number in range(3):
        Notes(tmp_path / "notes").write("process", number=number, text="é\n")
    assert [note["number"] for note in read_notes(tmp_path / "notes")] == [0, 1, 2]


def test_nothing_noted_is_no_notes(tmp_path: Path) -> None:
    assert read_notes(tmp_path / "notes") == []


def test_a_boundary_is_noted_before_the_process_dies_there(notes: Notes, tmp_path: Path) -> None:
    counted = Points(notes, 2)
    counted.reach("before", "x")
    with pytest.raises(KilledError):
        counted.reach("after", "x")
    assert [note["at"] for note in read_notes(tmp_path / "notes")] == [1, 2]


def test_the_commit_that_was_announced_is_a_boundary_and_no_other(notes: Notes) -> None:
    counted = Points(notes, 2)
    counted.announce_commit("x")
    counted.in_writer("before commit", 1)
    counted.committed()
    counted.announce_commit("y")
    counted.in_writer("after commit", 1)
    with pytest.raises(KilledError):
        counted.in_writer("before commit", 1)


def test_a_commit_that_nobody_announced_kills_nobody(notes: Notes) -> None:
    Points(notes, None).in_writer("before commit", 1)
    Points(notes, 1).in_writer("before commit", 1)
