"""Every example in README.md and docs/ runs and prints what the page says; every link is good.

A fenced ``python`` block is run; the blocks of one page share their names, as if they stood in
one file. A ``text`` block that follows it is what it prints. ``text unordered`` means: these
lines, in any order, for branches that run side by side. Other blocks are only shown.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio
import trio.testing

import parallel_agent
import parallel_agent.aio
import parallel_agent.config
import parallel_agent.mcp
import parallel_agent.openai
import parallel_agent.sync
import parallel_agent.testing
import session
from docs import generate

ROOT: Final = Path(__file__).resolve().parent.parent
PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DEEP: Final = {"docs/how-to/adk.md"}  # their examples need what the `deep` extra brings
LINKING: Final = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]

FENCE: Final = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
TEST: Final = re.compile(r"`(?P<file>tests/[\w/]+\.py)(?:::(?P<name>\w+))?`")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@attrs.frozen
class Block:
    """A fenced block: the words after its fence, what it holds, and the line it starts on."""

    words: list[str]
    code: str
    line: int

    @property
    def language(self) -> str:
        return self.words[0] if self.words else ""


def blocks(page: str) -> list[Block]:
    return [
        Block(found["info"].split(), found["code"], page.count("\n", 0, found.start()) + 2)
        for found in FENCE.finditer(page)
    ]


def examples(page: str) -> Iterator[tuple[Block, Block | None]]:
    """Each ``python`` block, with the ``text`` block that comes next, if one does."""
    end = Block([], "", 0)
    for block, following in pairwise([*blocks(page), end]):
        if block.language == "python":
            yield block, following if following.language == "text" else None


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip("\n").splitlines()]


def complaints(page: str, name: str) -> list[str]:
    """Run a page's examples; say where one prints something else than the page does."""
    found = list[str]()
    namespace: dict[str, Any] = {"__name__": "__main__"}  # as if each page were a script
    for block, expected in examples(page):
        # As many lines as stand above it, so that a traceback names the page's own line.
        # Nor does it inherit the `from __future__` of this one.
        code = compile("\n" * (block.line - 1) + block.code, name, "exec", dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)  # noqa: S102  # running the examples is the point
        if expected is not None:
            says, prints = lines(expected.code), lines(printed.getvalue())
            if "unordered" in expected.words:
                says, prints = sorted(says), sorted(prints)
            if says != prints:
                shown = "\n".join(prints)
                found.append(f"{name}:{expected.line} is not what the example prints:\n{shown}")
    return found


@pytest.fixture(autouse=True)
def _virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    run = trio.run

    def run_in_virtual_time(*args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("clock", trio.testing.MockClock(autojump_threshold=0))
        return run(*args, **kwargs)

    monkeypatch.setattr(trio, "run", run_in_virtual_time)


RUNNABLE: Final = [
    pytest.param(page, marks=[pytest.mark.deep] if name_of(page) in DEEP else []) for page in PAGES
]


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_the_examples_print_what_the_page_says(page: Path) -> None:
    assert complaints(page.read_text("utf-8"), name_of(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_fence_is_closed_and_has_a_language(page: Path) -> None:
    text = page.read_text("utf-8")
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks(text))
    assert {block.language for block in blocks(text)} <= {"python", "text", "sh", "mermaid"}


def test_the_first_steps_are_run() -> None:
    for page in ("README.md", "docs/tutorial.md"):
        assert any(expected for _, expected in examples((ROOT / page).read_text("utf-8")))


# ------------------------------------------------------------------------------ what pages refer to


def anchors(page: str) -> set[str]:
    """The anchors that the headings of a page get."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def dead_links(page: str, folder: Path) -> list[str]:
    """Relative links whose file, or heading in it, does not exist."""
    dead = list[str]()
    for found in LINK.finditer(FENCE.sub("", page)):
        path, _, anchor = found["target"].partition("#")
        if path.startswith(("https:", "http:", "mailto:")):
            continue
        target = folder / path
        if path and not target.exists():
            dead.append(found["target"])
        elif anchor:
            there = target.read_text("utf-8") if path else page
            if anchor not in anchors(there):
                dead.append(found["target"])
    return dead


def unknown_tests(page: str) -> list[str]:
    """Test files, and tests in them, that a page names and nobody wrote."""
    unknown = list[str]()
    for found in TEST.finditer(page):
        file = ROOT / found["file"]
        if not file.exists() or (
            found["name"] and f"def {found['name']}(" not in file.read_text("utf-8")
        ):
            unknown.append(found[0])
    return unknown


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert dead_links(page.read_text("utf-8"), page.parent) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    assert unknown_tests(page.read_text("utf-8")) == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set[Path](), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in reached:
            reached.add(page)
            targets = (found["target"] for found in LINK.finditer(page.read_text("utf-8")))
            paths = ((page.parent / target.partition("#")[0]).resolve() for target in targets)
            todo += [path for path in paths if path.suffix == ".md" and path.exists()]
    assert set(PAGES) <= reached


# ------------------------------------------------------------------- what pages say of the code


DOORS: Final = [
    parallel_agent,
    session,
    parallel_agent.config,
    parallel_agent.mcp,
    parallel_agent.openai,
    parallel_agent.testing,
    parallel_agent.aio,
    parallel_agent.sync,
]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_the_reference_names_everything_that_is_exported(door: Any) -> None:
    reference = (ROOT / "docs" / "reference.md").read_text("utf-8")
    assert [name for name in door.__all__ if f"`{name}" not in reference] == []


def test_what_is_drawn_from_tables_matches_them() -> None:
    """Otherwise: python -m docs.generate."""
    page = generate.PAGE.read_text("utf-8")
    assert generate.filled_in(page) == page


def test_the_readme_has_exactly_the_two_commands_to_set_up() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    shell = next(block.code for block in blocks(readme) if block.language == "sh")
    commands = [line.partition("#")[0].strip() for line in shell.splitlines()]
    assert commands == ["make run", "make test"]


# ---------------------------------------------------------------------- the checkers find bad pages

PAGE: Final = """\
# A page

```python
value = 1
```

## Of `code`, and more

```python
print(value)
print(2)
```

```text{words}
{says}
```
"""


def test_an_example_that_prints_what_the_page_says_passes() -> None:
    assert complaints(PAGE.format(words="", says="1\n2"), "page.md") == []


def test_an_example_that_prints_something_else_is_found_by_line() -> None:
    (complaint,) = complaints(PAGE.format(words="", says="2\n1"), "page.md")
    assert complaint.startswith("page.md:15 ")


def test_lines_in_any_order_pass_when_the_page_says_so() -> None:
    assert complaints(PAGE.format(words=" unordered", says="2\n1"), "page.md") == []
    assert complaints(PAGE.format(words=" unordered", says="1\n1"), "page.md") != []


def test_an_error_in_an_example_names_the_line_of_the_page() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        complaints("\n\n```python\n\n1 / 0\n```\n", "page.md")
    assert (raised.traceback[-1].path, raised.traceback[-1].lineno + 1) == ("page.md", 5)


def test_an_example_sleeps_in_virtual_time() -> None:
    page = "```python\nimport trio\ntrio.run(trio.sleep, 10_000)\nprint('slept')\n```\n"
    assert complaints(f"{page}\n```text\nslept\n```\n", "page.md") == []


@pytest.mark.parametrize("target", ["nowhere.md", "#of-code", "README.md#nothing"])
def test_a_dead_link_is_found(target: str) -> None:
    page = PAGE.format(words="", says="")
    assert dead_links(f"{page}[this]({target})", ROOT) == [target]


@pytest.mark.parametrize("target", ["README.md", "#of-code-and-more", "https://example.org/x#y"])
def test_a_good_link_passes(target: str) -> None:
    page = PAGE.format(words="", says="")
    assert dead_links(f"{page}[this]({target})", ROOT) == []


def test_a_test_that_does_not_exist_is_found() -> None:
    named = ["`tests/test_docs.py::test_nothing`", "`tests/nothing.py`"]
    assert unknown_tests(" ".join([*named, "`tests/test_docs.py`"])) == named


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="lifecycle"):
        generate.filled_in("")
