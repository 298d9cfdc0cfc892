"""Finding and reading the files under review, whatever they are."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.code_health.complexity import complex_functions, long_functions
from examples.code_health.dead_names import dead_names, defined
from examples.code_health.docstrings import little_documented
from examples.code_health.duplicates import duplicates, rows
from examples.code_health.findings import code, is_test
from examples.code_health.imports import imports_of
from examples.code_health.sources import (
    MAX_BYTES,
    ReviewError,
    Source,
    Sources,
    as_folder,
    packages_of,
    parse,
    shared_sources,
    unparsed,
    walk,
)
from examples.code_health.todos import promises
from examples.code_health.unused_imports import imported, unused_imports


def tree_of(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


# ------------------------------------------------------------------------------------- finding


def test_python_files_are_found_at_any_depth_in_a_fixed_order(tmp_path: Path) -> None:
    tree_of(tmp_path, "b/z.py", "b/a.py", "c.py", "a.txt", "b/c/d.py")
    assert [*walk(tmp_path)] == ["c.py", "b/a.py", "b/z.py", "b/c/d.py"]


def test_only_the_folders_asked_for_are_walked(tmp_path: Path) -> None:
    tree_of(tmp_path, "a/one.py", "b/two.py", "c/three.py")
    assert [*walk(tmp_path, ["c", "a"])] == ["c/three.py", "a/one.py"]


@pytest.mark.parametrize(
    "path", [".hidden/a.py", "__pycache__/a.py", "_vendor/a.py", "lib/site-packages/a.py"]
)
def test_what_is_hidden_or_not_theirs_is_left_alone(path: str, tmp_path: Path) -> None:
    assert [*walk(tree_of(tmp_path, path))] == []


def test_virtual_environments_are_left_alone(tmp_path: Path) -> None:
    assert [*walk(tree_of(tmp_path, "env/pyvenv.cfg", "env/a.py", "env/lib/b.py"))] == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    tree_of(tmp_path, "a.py", "folder/b.py")
    (tmp_path / "link.py").symlink_to(tmp_path / "a.py")
    (tmp_path / "round").symlink_to(tmp_path)
    (tmp_path / "nowhere.py").symlink_to(tmp_path / "gone")
    assert [*walk(tmp_path)] == ["a.py", "folder/b.py"]


def test_folders_and_pipes_with_the_name_of_a_file_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    assert [*walk(tmp_path)] == []


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("tests", ["a_pb2.py", "src/a_pb2.py", "src/b.py"]),
        ("*_pb2.py", ["src/b.py", "src/tests/c.py", "tests/d.py"]),
        ("src/tests", ["a_pb2.py", "src/a_pb2.py", "src/b.py", "tests/d.py"]),
        ("src/tests/", ["a_pb2.py", "src/a_pb2.py", "src/b.py", "tests/d.py"]),
        ("src/*", ["a_pb2.py", "tests/d.py"]),
        ("*", []),
    ],
)
def test_a_pattern_excludes_files_and_folders(
    pattern: str, left: list[str], tmp_path: Path
) -> None:
    tree_of(tmp_path, "a_pb2.py", "src/a_pb2.py", "src/b.py", "src/tests/c.py", "tests/d.py")
    assert [*walk(tmp_path, exclude=[pattern])] == left


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing", "No such file or directory"),
        ("file", "that is a file"),
        ("round", "symbolic links|circle"),
        ("nu\0ll", "null"),
        ("x" * 5000, "too long"),
    ],
)
def test_an_unusable_folder_is_refused_with_a_reason(
    name: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with pytest.raises(ReviewError, match=rf"^cannot look into '.*: .*({problem})"):
        as_folder(str(tmp_path / name))


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "project").mkdir()
    assert as_folder("~/project") == tmp_path.resolve() / "project"


def test_the_home_of_nobody_is_no_folder() -> None:
    with pytest.raises(ReviewError, match="No such file or directory"):
        as_folder("~nobody-of-that-name/project")


def test_the_reason_holds_no_control_characters() -> None:
    with pytest.raises(ReviewError) as refused:
        as_folder("/\x1b[2J\n")
    assert str(refused.value).isprintable()


def test_the_packages_around_a_folder_are_known(tmp_path: Path) -> None:
    tree_of(tmp_path, "lib/one/__init__.py", "lib/one/two/__init__.py", "lib/one/two/three/a.py")
    assert packages_of(tmp_path / "lib/one/two") == ("one", "two")
    assert packages_of(tmp_path / "lib") == packages_of(tmp_path / "lib/one/two/three") == ()


# ------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    "data",
    [
        b"def f(:\n",
        b"x = 1\x00\n",
        b"x = '\xff'\n",
        b"# -*- coding: nonsense -*-\n",
        b"# -*- coding: hex -*-\n",
        b"x = " + b"(" * 5000,
        b"x = " + b"-" * 200_000 + b"1",
        b"\xff\xfex\x00=\x00",
        "x = “quoted”\n".encode(),
    ],
    ids=["syntax", "null", "not UTF-8", "unknown", "no text", "deep", "deeper", "UTF-16", "quotes"],
)
def test_a_file_that_does_not_parse_is_a_finding(data: bytes) -> None:
    (finding,) = unparsed(parse("module.py", data))
    assert finding["kind"] == "parse"
    assert finding["message"].startswith("cannot be looked into: `")
    assert len(finding["message"]) < 300


def test_the_line_that_does_not_parse_is_named() -> None:
    (finding,) = unparsed(parse("module.py", b"x = 1\ny = 2\ndef f(:\n"))
    assert finding["line"] == 3


def test_a_file_that_parses_is_no_finding() -> None:
    assert unparsed(parse("module.py", b"")) == []


@pytest.mark.parametrize(
    ("name", "problem"),
    [("gone.py", "No such file"), ("folder.py", "directory"), ("pipe.py", "not a file")],
)
def test_what_cannot_be_read_is_a_finding(name: str, problem: str, tmp_path: Path) -> None:
    """It was a file when it was found."""
    (tmp_path / "folder.py").mkdir()
    os.mkfifo(tmp_path / "pipe.py")
    (finding,) = unparsed(Sources(tmp_path)[name])
    assert problem in finding["message"]


def test_a_huge_file_is_a_finding(tmp_path: Path) -> None:
    with (tmp_path / "huge.py").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    (finding,) = unparsed(Sources(tmp_path)["huge.py"])
    assert "larger than 4,000,000 bytes" in finding["message"]


def test_the_encoding_that_a_file_declares_is_used() -> None:
    parsed = parse("module.py", "# -*- coding: latin-1 -*-\n# é\n".encode("latin-1"))
    assert parsed.lines[1] == "# é"


def test_lines_are_counted_as_the_parser_counts_them() -> None:
    parsed = parse("module.py", b"a = 1\x0c\r\nb = 2\rdef f(): pass\n")
    assert parsed.tree is not None
    assert parsed.lines[parsed.tree.body[2].lineno - 1] == "def f(): pass"


def test_what_the_parser_warns_of_is_not_heard() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse("module.py", b"x = '\\d'\ny = 1 is 1\n").problem == ""


def test_a_file_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    sources = Sources(tmp_path)
    first = sources["a.py"]
    (tmp_path / "a.py").unlink()
    assert sources["a.py"] is first


def test_one_run_shares_its_sources_and_another_does_not(tmp_path: Path) -> None:
    held = shared_sources("run", str(tmp_path))
    assert shared_sources("run", str(tmp_path)) is held
    assert shared_sources("another run", str(tmp_path)) is not held


def test_settings_files_name_entry_points(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project.scripts]\nrun = "package.module:start"\n')
    (tmp_path / "setup.cfg").write_bytes(b"\xff")
    assert {"package", "module", "start"} <= Sources(tmp_path).names_in_settings()


# -------------------------------------------------------------------------- nothing is too strange


def every_analysis(source: Source) -> None:
    """Run all that look at one file."""
    for analysis in (unparsed, complex_functions, long_functions, little_documented, promises):
        analysis(source)
    imports_of(source)
    unused_imports(imported(source))
    dead_names(defined(source))
    duplicates(rows(source))


@given(st.binary() | st.text().map(str.encode))
def test_whatever_is_in_a_file_it_is_a_source_or_a_finding(data: bytes) -> None:
    parsed = parse("module.py", data)
    assert (parsed.tree is None) == bool(unparsed(parsed))
    every_analysis(parsed)


@given(
    st.lists(
        st.sampled_from(
            [
                *("def f(a):", "class C:", "if x:", "else:", "try:", "except ImportError:"),
                *("import os", "from . import a as b", "__all__ = ['f']", "pass", "x: 'C' = 1"),
                *("match x:", "case _:", "# TODO", "'''", "\\", "(", ")", "\t", "    ", "\n", ";"),
            ]
        ),
        max_size=30,
    ).map("\n".join)
)
def test_scraps_of_python_are_sources_or_findings(text: str) -> None:
    every_analysis(parse("module.py", text.encode()))


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "1 + " * 900 + "1",
        "x = a" + ".b" * 900,
        "def f():\n    return " + "not " * 900 + "1",
        "def f():\n    if x: pass\n" + "    elif x: pass\n" * 900,
        "def f(a: " + "list[" * 150 + "'B'" + "]" * 150 + "): pass",
    ],
    ids=["sum", "attributes", "not", "elif", "annotation"],
)
def test_depth_is_no_problem(text: str) -> None:
    parsed = parse("module.py", text.encode())
    assert parsed.tree is not None
    every_analysis(parsed)


# ------------------------------------------------------------------------------------- printing


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("name", "`name`"),
        ("a`b", "`` a`b ``"),
        ("``", "``` `` ```"),
        ("", "`  `"),
        ("\x1b[2J\n", "`?[2J`"),
        ("x" * 200, "`" + "x" * 159 + "…`"),
    ],
)
def test_text_of_any_kind_fits_into_a_code_span(text: str, span: str) -> None:
    assert code(text) == span


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("test_a.py", True),
        ("a/tests/b.py", True),
        ("a/_tests/b.py", True),
        ("conftest.py", True),
        ("a_test.py", True),
        ("testing/a.py", False),
        ("a/latest.py", False),
        ("contest/a.py", False),
        ("contests/a.py", False),
        ("unittests/a.py", True),
        ("end-to-end-tests/a.py", True),
    ],
)
def test_tests_are_known_by_their_place_or_name(path: str, *, expected: bool) -> None:
    assert is_test(path) == expected
