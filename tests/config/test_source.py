"""From text to values: YAML's core schema and no more, JSON, the environment, and limits."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from parallel_agent.config import ConfigError, load_graph
from parallel_agent.config import json_text as json_module
from parallel_agent.config import source as source_module
from parallel_agent.config import yaml_text as yaml_module
from parallel_agent.config.items import Lines
from parallel_agent.config.problems import Problem, Spot
from parallel_agent.config.source import MAX_BYTES, Source, read_source, read_text
from tests.config.writing import load, problems, write

ENV: Final = {"WORD": "word", "PORT": "8080", "EMPTY": "", "ODD": "a: [b\n#", "TRUE": "true"}


def value_of(text: str, name: str = "a.yaml") -> Any:
    return read_source(text, name, ENV).value


# ---------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((word, None) for word in ("", "~", "null", "Null", "NULL")),
        *((word, True) for word in ("true", "True", "TRUE")),
        *((word, word) for word in ("yes", "no", "on", "off", "y", "N", "tRUE")),
        *(("12", 12), ("-3", -3), ("+4", 4), ("0o14", 12), ("0x1F", 31), ("012", 12)),
        *(("1.5", 1.5), ("-.5", -0.5), ("1e3", 1000.0), ("2.", 2.0), ("+1.5E-1", 0.15)),
        *((word, word) for word in ("1_000", "1:30", "2001-12-14", "0b1", "1e", ".", "=")),
        *(("'12'", "12"), ('"true"', "true"), ("!!str 12", "12"), ("! 12", "12")),
        *(("!!int '12'", 12), ("!!bool 'true'", True), ("|\n  a\n  b\n", "a\nb\n")),
        *(("[a, {b: 1}]", ["a", {"b": 1}]), ("{}", {}), ("[]", [])),
    ],
)
def test_yaml_is_read_by_its_core_schema(text: str, value: object) -> None:
    found = value_of(f"x: {text}")["x"]
    assert (found, type(found)) == (value, type(value))


def test_an_alias_repeats_what_its_anchor_names() -> None:
    assert value_of("a: &a [1, {b: 2}]\nc: *a\n") == {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}


def test_a_merged_table_gives_way_to_keys_of_its_own() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {z: 3, <<: [*a, *b]}\nd: {<<: *a, x: 4}\n"
    assert value_of(text)["c"] == {"z": 3, "x": 1, "y": 1}
    assert value_of(text)["d"] == {"x": 4, "y": 1}


def test_a_quoted_merge_key_is_an_ordinary_one() -> None:
    assert value_of("a: {'<<': 1}") == {"a": {"<<": 1}}


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
tables = st.dictionaries(st.text(), values, max_size=4).filter(lambda one: "${" not in str(one))


@given(tables, st.sampled_from([None, 0, 2]), st.booleans())
def test_json_is_read_as_the_standard_library_reads_it(
    value: dict[str, Any],
    indent: int | None,
    is_ascii: bool,  # noqa: FBT001  # drawn
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii, allow_nan=False)
    assert value_of(text, "a.json") == json.loads(text)


@given(st.text(alphabet='{}[]",:\\ \n0123eE+-.truefalsn') | st.text())
def test_json_is_refused_where_the_standard_library_refuses_it(text: str) -> None:
    def strict(word: str) -> Any:
        raise ValueError(word)

    try:
        expected = json.loads(text, parse_constant=strict)
    except ValueError:
        expected = None
    if isinstance(expected, dict) and "${" not in text:
        assert value_of(text, "a.json") == expected
    elif not isinstance(expected, dict):
        with pytest.raises(ConfigError):
            value_of(text, "a.json")


@given(tables)
def test_yaml_is_read_as_it_was_written(value: dict[str, Any]) -> None:
    written = io.StringIO()
    try:
        YAML(typ="safe", pure=True).dump(value, written)
        text = written.getvalue()
        # What it writes it does not always read itself.
        same = YAML(typ="safe", pure=True).load(text) == value
    except Exception:  # noqa: BLE001  # nor can it write everything
        return
    if same and "<<" not in text and "=" not in text:
        assert value_of(text) == value


# ---------------------------------------------------------------------------------- places


def test_every_value_has_the_place_it_stands_at() -> None:
    source = read_source("a: 1\nb:\n  - x\n  - {c: 'y'}\n", "a.yaml", {})
    assert source.values == {
        "": Spot(1, 1),
        "a": Spot(1, 4),
        "b": Spot(3, 3),
        "b[0]": Spot(3, 5),
        "b[1]": Spot(4, 5),
        "b[1].c": Spot(4, 9),
    }
    assert source.keys == {"a": Spot(1, 1), "b": Spot(2, 1), "b[1].c": Spot(4, 6)}


def test_json_has_the_places_that_yaml_has() -> None:
    text = '{"a": 1,\r\n "b": [\n  true, {"c": "y"}]}'
    yaml, of_json = (read_source(text, name, {}) for name in ("a.yaml", "a.json"))
    assert (yaml.values, yaml.keys, yaml.value) == (of_json.values, of_json.keys, of_json.value)


def test_lines_end_where_editors_end_them() -> None:
    lines = Lines("a\r\nb\rc\x85\nd")
    spots = [lines.spot(position) for position in (-1, 1, 2, 3, 4, 5, 7, 8, 9, 99)]
    assert [(spot.line, spot.column) for spot in spots] == [
        *((1, 1), (1, 2), (1, 2), (2, 1), (2, 2), (3, 1), (3, 3), (4, 1), (4, 2), (4, 2)),
    ]


def test_a_problem_of_what_is_missing_stands_at_what_would_hold_it() -> None:
    source = read_source("a:\n  - {b: 1}\n", "a.yaml", {})
    problem = source.problem("a[0].c[3].d", "it is missing")
    assert (problem.line, problem.column, problem.path) == (2, 5, "a[0].c[3].d")


# ---------------------------------------------------------------------------------- environment


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${WORD}", "word"),
        ("${PORT}", 8080),
        ("'${PORT}'", "8080"),
        ('"${PORT}"', "8080"),
        ("|\n  ${PORT}", "8080"),
        ("${TRUE}", True),
        ("${EMPTY}", None),
        ("'${EMPTY}'", ""),
        ("http://${WORD}:${PORT}/", "http://word:8080/"),
        ("${NOBODY:-}", None),
        ("${NOBODY:-3}", 3),
        ("${EMPTY:-3}", 3),
        ("${WORD:-3}", "word"),
        ("'${NOBODY:-a: b}'", "a: b"),
        ("'$${WORD} ${WORD} $${'", "${WORD} word ${"),
        ("'${ODD}'", "a: [b\n#"),
        ("${ODD}", "a: [b\n#"),
        ("{in: ${WORD}, list: [${PORT}]}", {"in": "word", "list": [8080]}),
        ("'$WORD ${WORD'", "$WORD ${WORD"),
    ],
)
def test_variables_stand_for_what_the_environment_holds(text: str, value: object) -> None:
    assert value_of(f"x: {text}") == {"x": value}


def test_variables_are_not_looked_for_in_keys() -> None:
    assert value_of("${WORD}: 1\n'${NOBODY}': 2\n") == {"${WORD}": 1, "${NOBODY}": 2}


def test_variables_are_not_looked_for_in_comments() -> None:
    assert value_of("a: 1 # ${NOBODY}\n") == {"a": 1}


def test_what_a_variable_holds_is_not_searched_for_variables() -> None:
    source = read_source("a: ${A}", "a.yaml", {"A": "${B}", "B": "b"})
    assert source.value == {"a": "${B}"}


def test_json_has_variables_in_its_texts() -> None:
    assert value_of('{"a": "${PORT}", "${WORD}": 1}', "a.json") == {"a": "8080", "${WORD}": 1}


def test_private_characters_of_a_text_stay_what_they_are() -> None:
    assert value_of("a: '\ue000 ${WORD} \ue001'") == {"a": "\ue000 word \ue001"}


SECRETS: Final = st.text(st.characters(categories=["L", "N", "P", "Z"]), min_size=4, max_size=90)


@given(SECRETS.filter(lambda text: len(set(text)) > 3), st.integers(0, 5))
def test_what_came_from_the_environment_is_in_no_message(
    tmp_path_factory: pytest.TempPathFactory, secret: str, number: int
) -> None:
    texts = [
        "nodes: [{id: '${S}', agent: a}, {id: '${S}', agent: '${S}'}]",
        "nodes: [{id: a, agent: 'x:${S}', guard: '${S}'}]",
        "nodes: [{id: a, model: '${S}'}]\nedges: ['${S}', {node: a, children: ['x ${S}']}]",
        "nodes: [{id: a, agent: '${S}:y', timeout: '${S}'}]\npolicy: '${S}'",
        "nodes: [{id: a, sequential: ['${S}']}]\nname: '${S}'",
        "nodes: [{id: '${S}', agent: echo}]\nedges: [{node: '${S}', children: ['${S}']}]",
    ]
    folder = tmp_path_factory.mktemp("secret")
    found = problems(lambda: load(folder, texts[number], env={"S": secret}))
    said = [one.message for one in found]
    assert said
    name = "".join(letter if letter.isalnum() else "_" for letter in secret)
    for shown in (secret, repr(secret)[1:-1], name):
        assert not any(shown[:41] in line for line in said), said


# ---------------------------------------------------------------------------------- limits


def test_a_file_of_too_many_bytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_bytes(b" " * (MAX_BYTES + 1))
    (problem,) = problems(lambda: load_graph(path))
    assert problem.message == "it has more than 5,000,000 bytes"


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    (problem,) = problems(lambda: load_graph(tmp_path / "none.yaml"))
    assert problem.message == "there is no such file"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (problem,) = problems(lambda: load_graph(tmp_path))
    assert problem.message.startswith("it cannot be read: ")


def test_a_name_that_no_file_can_have_is_told() -> None:
    (problem,) = problems(lambda: read_text(Path("a\0.yaml"), "a"))
    assert problem.message.startswith("it cannot be read: ")


def test_bytes_that_are_no_utf8_are_told_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes("ä: ö\nb: ".encode() + b"\xff")
    (problem,) = problems(lambda: load_graph(path))
    assert (problem.line, problem.column) == (2, 4)
    assert problem.message == "it is no UTF-8: invalid start byte"


def test_a_mark_of_utf8_at_the_start_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"nodes": 3}')
    (problem,) = problems(lambda: load_graph(path))
    assert problem.column == 11


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
def test_lists_nest_fifty_deep_and_no_deeper(name: str) -> None:
    assert value_of('{"a": ' + "[" * 49 + "]" * 49 + "}", name)
    with pytest.raises(ConfigError, match="nested more than 50 deep"):
        value_of('{"a": ' + "[" * 50 + "]" * 50 + "}", name)
    with pytest.raises(ConfigError, match="nested more than 50 deep"):
        value_of('{"a": ' + "[" * 300, name)


@pytest.mark.parametrize("kind", ["[{0}]", "{{a: {0}}}"])
def test_a_bomb_of_aliases_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "MAX_VALUES", 2_000)
    lines = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"a{n}: &a{n} [{', '.join([kind.format(f'*a{n - 1}')] * 9)}]" for n in range(1, 9)]
    with pytest.raises(ConfigError, match="more than 2000 values"):
        value_of("\n".join(lines))


def test_a_bomb_of_merges_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "MAX_VALUES", 2_000)
    # All in one merge: none of them is a value of its own.
    merged = ["&a0 {x: 1}"]
    merged += [f"&a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 8)]
    with pytest.raises(ConfigError, match="more than 2000 values, merged ones too"):
        value_of(f"<<: [{', '.join(merged)}]")


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
def test_a_file_has_no_more_than_so_many_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (yaml_module, json_module):
        monkeypatch.setattr(module, "MAX_VALUES", 5)
    assert value_of('{"a": [1]}', name)
    with pytest.raises(ConfigError, match="more than 5 values"):
        value_of('{"a": [1, 2, 3, 4, 5]}', name)


@pytest.mark.parametrize("number", [".inf", "-.INF", ".nan", "1e999"])
def test_a_number_that_is_none_is_refused_where_it_stands(tmp_path: Path, number: str) -> None:
    text = f"nodes: [{{id: a, agent: echo, timeout: {number}}}]"
    (problem,) = problems(lambda: load(tmp_path, text))
    assert (problem.path, problem.column) == ("nodes[0].timeout", 39)


def test_a_number_of_a_thousand_digits_is_too_long() -> None:
    assert value_of(f"a: {'9' * 1000}")["a"] == int("9" * 1000)
    with pytest.raises(ConfigError, match="a number of 1001 digits is too long"):
        value_of(f"a: {'9' * 1001}")


def test_nothing_is_made_of_a_tag(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for tag in ("!!python/object/apply:os.mkdir", "!!python/name:os.mkdir", "!!binary", "!!set"):
        with pytest.raises(ConfigError, match="plain data"):
            value_of(f"a: {tag} ['{marker}']")
    assert not marker.exists()


# ---------------------------------------------------------------------------------- the extra


def test_yaml_without_its_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(yaml_module, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'parallel-agent\[yaml\]'"):
        load_graph(write(tmp_path, "a: 1"))


def test_json_needs_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(yaml_module, "import_module", missing)
    text = '{"nodes": [{"id": "a", "agent": "echo"}]}'
    assert load(tmp_path, text, "a.json").find_agent("a")


def test_an_error_can_be_pickled_and_lists_its_problems_in_order() -> None:
    late, early = Problem("a.yaml", 3, 1, "b", "no"), Problem("a.yaml", 2, 9, "", "nothing")
    error = pickle.loads(pickle.dumps(ConfigError([late, early])))  # noqa: S301  # made here
    assert error.problems == (early, late)
    assert str(error) == "a.yaml:2:9: nothing\na.yaml:3:1: b: no"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nodes: [{id: a, agent: '${S}'}]", "no agent '${S}' was given; pass it with agents={...}"),
        (
            "nodes: [{id: a, agent: echo, timeout: '${S}'}]",
            "a number or null is needed, not '${S}'",
        ),
        (
            "nodes: [{id: a, agent: echo, retry: ${N}}]",
            "max_attempts is a whole number from 1 on, not '${N}'",
        ),
        (
            "nodes: [{id: a, agent: echo}]\nedges: ['%s${S}']" % ("x" * 75),
            "there is no node '%s${S}…" % ("x" * 75),
        ),
    ],
)
def test_what_came_from_the_environment_is_shown_as_it_was_written(
    tmp_path: Path, text: str, said: str
) -> None:
    (problem,) = problems(lambda: load(tmp_path, text, env={"S": "secret-and-long", "N": "-7"}))
    assert problem.message == said


def test_a_source_hides_short_values_only_in_quotes() -> None:
    source = Source("a.yaml", hidden={"a": "${A}"})
    assert source.hide("a node is needed, not 'a'") == "a node is needed, not '${A}'"
