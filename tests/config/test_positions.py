"""What is wrong with a file is told with the line and column where it stands.

``refused.txt`` is the table: files, and all that is said of each.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import attrs
import pytest

from parallel_agent.config import ConfigError, load_graph
from tests.config.writing import load, refused


@attrs.frozen
class Case:
    name: str
    file: str
    env: dict[str, str]
    text: str
    said: list[str]


def read_cases(table: str) -> list[Case]:
    cases: list[Case] = []
    for part in re.split(r"^=== ", table, flags=re.MULTILINE)[1:]:
        head, _, rest = part.partition("\n")
        text, _, said = rest.partition(">>>\n")
        found = re.fullmatch(r"([^\[=]+?)(?: \[(.+)\])?((?: [A-Z]+=\S+)*)", head)
        assert found is not None, head
        env = dict(pair.split("=") for pair in found[3].split())
        cases.append(Case(found[1], found[2] or "flow.yaml", env, text, said.split("\n")))
    return cases


TABLE: Final = (Path(__file__).parent / "refused.txt").read_text("utf-8")
CASES: Final = [
    attrs.evolve(case, said=[line for line in case.said if line]) for case in read_cases(TABLE)
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_says_where_and_what(tmp_path: Path, case: Case) -> None:
    assert refused(tmp_path, case.text, case.file, env=case.env) == case.said


def test_every_case_of_the_table_is_refused() -> None:
    assert len(CASES) == TABLE.count("\n===") > 40
    assert [case.name for case in CASES if not case.said] == []


def test_a_problem_names_its_file_as_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("flow.yaml").write_text("nodes: 3\n")
    with pytest.raises(ConfigError) as caught:
        load_graph("flow.yaml")
    assert str(caught.value) == "flow.yaml:1:8: nodes: a list is needed, not 3"


def test_what_the_table_begins_its_files_with_loads(tmp_path: Path) -> None:
    nodes = "nodes:\n  - {id: a, agent: echo}\n"
    models = "models: [{llm: ollama, model: m}]\nprompts: [{template: {}}]\n"
    assert load(tmp_path, nodes + models).name == "flow"
