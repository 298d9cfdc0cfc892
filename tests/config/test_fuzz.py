"""Whatever a file holds, it is a graph, or a `ConfigError` whose problems lie in the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from parallel_agent.config import ConfigError, loading
from parallel_agent.config.format import read_format
from parallel_agent.config.source import Source, read_source
from tests.config.writing import FILES, OPTIONS, is_inside

GOOD: Final = {path.name: path.read_text("utf-8") for path in sorted(FILES.iterdir())}
BITS: Final = [
    *(
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "<<: ",
        "? ",
        "| ",
        "> ",
        "'",
        '"',
        "#",
        "%",
        "!",
    ),
    *("!!python/object:os.system ", "!!int ", "${X}", "${", "null", "true", "-1", "1e999", ".nan"),
    *("0x10", "\t", "\r", "\x85", "\u2028", "\x00", "\ud7ff", "---\n", "...\n", "user", "START"),
    *("children", "fan_in", "ordered_children", "guard: true", "loop", "map", "policy", "when"),
    *("model", "max_times: 1", "default: true", "react: {}", "2001-01-01", "9" * 5000),
]
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(BITS) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
named = st.sampled_from(sorted(GOOD))
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def check(folder: Path, name: str, data: bytes) -> list[str]:
    """Load a file, and return what is wrong with it; raise what nobody promised."""
    path = folder / name
    path.write_bytes(data)
    text = data.decode("utf-8-sig", errors="replace")
    try:
        loading.load_graph(path, **OPTIONS)
    except ConfigError as error:
        found = error.problems
    else:
        return []
    assert found
    assert [one for one in found if not is_inside(one, text)] == []
    assert [one for one in found if not str(one).isprintable()] == []
    return [str(one) for one in found]


@st.composite
def mutated_texts(draw: st.DrawFn, text: str) -> str:
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(start + 40, len(text))))
        text = text[:start] + draw(st.sampled_from(BITS) | st.text(max_size=5)) + text[end:]
    return text


@st.composite
def mutated_lines(draw: st.DrawFn, text: str) -> str:
    lines = text.splitlines(keepends=True)
    for _ in range(draw(st.integers(1, 4))):
        at, other = (draw(st.integers(0, len(lines) - 1)) for _ in "ab")
        match draw(st.sampled_from(["drop", "copy", "swap", "indent"])):
            case "drop" if len(lines) > 1:
                del lines[at]
            case "copy":
                lines.insert(other, lines[at])
            case "swap":
                lines[at], lines[other] = lines[other], lines[at]
            case _:
                lines[at] = "  " + lines[at]
    return "".join(lines)


@st.composite
def mutated_values(draw: st.DrawFn, value: Any) -> Any:
    """Replace something in a value by something else, drop it, or say it twice."""
    if not value or not isinstance(value, list | dict) or draw(st.integers(0, 5)) == 0:
        return draw(JSON)
    keys = list(range(len(value))) if isinstance(value, list) else sorted(value)
    key = draw(st.sampled_from(keys))
    copy: Any = value.copy()
    match draw(st.sampled_from(["inside", "inside", "inside", "drop", "take"])):
        case "drop":
            del copy[key]
        case "take":
            copy[key] = copy[draw(st.sampled_from(keys))]
        case _:
            copy[key] = draw(mutated_values(value[key]))
    return copy


@relaxed
@given(st.data())
def test_a_file_with_other_text_in_it_is_read_or_refused(
    tmp_path: Path, data: st.DataObject
) -> None:
    name = data.draw(named)
    text = data.draw(mutated_texts(GOOD[name]) | mutated_lines(GOOD[name]))
    check(tmp_path, name, text.encode("utf-8", errors="surrogatepass"))


@relaxed
@given(st.data())
def test_a_file_with_other_values_in_it_is_read_or_refused(
    tmp_path: Path, data: st.DataObject
) -> None:
    value = plain(data.draw(named))
    text = json.dumps(data.draw(mutated_values(value)), indent=1, allow_nan=True)
    check(tmp_path, data.draw(st.sampled_from(["flow.json", "flow.yaml"])), text.encode())


@relaxed
@given(st.binary() | st.text().map(str.encode), st.sampled_from(["flow.json", "flow.yml", "flow"]))
def test_any_bytes_at_all_are_read_or_refused(tmp_path: Path, data: bytes, name: str) -> None:
    check(tmp_path, name, data)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_what_is_mutated_is_good_before(tmp_path: Path, name: str) -> None:
    assert check(tmp_path, name, GOOD[name].encode()) == []


def plain(name: str) -> Any:
    """What a good file holds."""
    return read_source(GOOD[name], name, {"MODEL_KEY": "k"}).value


def test_the_checker_finds_an_error_that_nobody_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = read_format

    def careless(source: Source) -> Any:
        source.value["edges"]
        return honest(source)

    monkeypatch.setattr(loading, "read_format", careless)

    def fails(value: Any) -> bool:
        try:
            check(tmp_path, "flow.json", json.dumps(value).encode())
        except KeyError:
            return True
        return False

    find(mutated_values(plain("review.yml")), fails, settings=settings(max_examples=2000))


def test_the_checker_finds_a_place_outside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Source.problem

    def careless(source: Source, path: str, message: str, **options: Any) -> Any:
        problem = honest(source, path, message, **options)
        return type(problem)(problem.file, 999, 1, path, message)

    monkeypatch.setattr(Source, "problem", careless)
    with pytest.raises(AssertionError):
        check(tmp_path, "flow.json", b"{}")
