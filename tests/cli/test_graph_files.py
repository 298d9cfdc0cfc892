"""Graph files on the command line: run, looked at, drawn; and the schema of what they hold."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import Final

import pytest

from tests.cli.kit import Call, Write

pytest.importorskip("ruamel.yaml")

FLOW: Final = """
    name: flow
    nodes:
      - {id: split, agent: split}
      - {id: long, agent: long}
      - {id: short, agent: short}
      - {id: report, agent: report}
    edges:
      - node: split
        children:
          - {node: long, if: is_long}
          - {node: short, default: true}
      - {node: report, fan_in: [long, short]}
"""

CODE: Final = """
    @agent
    async def split(ctx) -> list[str]:
        return ctx.user_text.split()

    def is_long(words):
        return len(words) > 3

    @agent
    async def long(ctx, words: list[str]) -> str:
        return "long"

    async def short(ctx):  # a function becomes an agent when a node names it
        return "short"

    @agent
    async def report(ctx, found: list[str]) -> str:
        return f"it is {found[0]}"

    def _hidden(ctx):
        return "hidden"
"""


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    """A graph file, whose nodes are in a Python file beside it."""
    return put(tmp_path, FLOW)


def put(folder: Path, text: str, name: str = "flow.yaml") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text), "utf-8")
    return path


def test_a_graph_file_is_run_with_the_code_it_is_given(
    call: Call, write: Write, flow: Path
) -> None:
    code = write(CODE, "code.py")
    assert call("run", "-q", flow, "--agents", code, "-m", "a b c d").out == "it is long\n"
    assert call("run", "-q", flow, "--agents", code, "a b").out == "it is short\n"


def test_the_message_is_given_once(call: Call, write: Write, flow: Path) -> None:
    ended = call("run", flow, "--agents", write(CODE, "code.py"), "a", "-m", "b")
    assert ended.status == 2
    assert "the message is given twice" in ended.err


def test_without_the_code_it_says_what_to_add(call: Call, flow: Path) -> None:
    ended = call("run", flow, "-m", "x")
    assert ended.status == 2
    assert f"{flow}:4:" in ended.err
    assert f"Error: {flow} has 5 problems. Name the code of its nodes with --agents" in ended.err


def test_what_is_hidden_in_the_code_is_not_named(call: Call, write: Write, tmp_path: Path) -> None:
    flow = put(tmp_path, "nodes: [{id: a, agent: _hidden}]\nedges: []\n")
    assert call("validate", flow, "--agents", write(CODE, "code.py")).status == 1


def test_code_is_for_graph_files_only(call: Call, write: Write) -> None:
    tree = write('tree = agent(lambda ctx: 1, name="tree")\n')
    ended = call("run", tree, "--agents", tree)
    assert ended.status == 2
    assert "--agents is for graph files" in ended.err


def test_code_that_is_not_there_is_told(call: Call, flow: Path) -> None:
    ended = call("validate", flow, "--agents", "nowhere.py")
    assert ended.status == 2
    assert "Error: nowhere.py does not exist" in ended.err


def test_a_graph_file_without_problems_is_valid(call: Call, write: Write, flow: Path) -> None:
    ended = call("validate", flow, "--agents", write(CODE, "code.py"))
    assert (ended.status, ended.out) == (0, f"{flow}: a graph that can run\n")


def test_problems_are_told_line_by_line(call: Call, write: Write, tmp_path: Path) -> None:
    flow = put(
        tmp_path,
        FLOW.replace("fan_in: [long", "fan_in: [lung").replace("agent: long", "agnt: long"),
    )
    ended = call("validate", flow, "--agents", write(CODE, "code.py"))
    assert ended.status == 1
    lines = ended.out.splitlines()
    assert all(line.startswith(f"{flow}:") for line in lines)
    assert any(
        "agnt" in line and "agent" in line and line.startswith(f"{flow}:5:") for line in lines
    )


def test_a_file_that_is_no_yaml_is_told_with_its_line(call: Call, tmp_path: Path) -> None:
    flow = put(tmp_path, "nodes: [\n")
    ended = call("validate", flow)
    assert ended.status == 1
    assert ended.out.startswith(f"{flow}:2:")


def test_a_tree_may_be_validated_too(call: Call, write: Write) -> None:
    tree = write('tree = agent(lambda ctx: 1, name="tree")\n')
    assert call("validate", tree).out == f"{tree}: tree is a tree that can run\n"


def test_several_are_looked_at_and_one_that_is_wrong_is_enough(
    call: Call, write: Write, flow: Path, tmp_path: Path
) -> None:
    wrong = put(tmp_path, "nodes: 7\n", "wrong.yaml")
    ended = call("validate", wrong, flow, "--agents", write(CODE, "code.py"))
    assert ended.status == 1
    assert f"{flow}: a graph that can run" in ended.out


def test_it_is_drawn_for_mermaid_and_for_graphviz(call: Call, write: Write, flow: Path) -> None:
    code = write(CODE, "code.py")
    mermaid = call("draw", flow, "--agents", code).out
    assert mermaid.startswith("flowchart TD\n")
    assert "otherwise" in mermaid
    assert call("draw", flow, "--agents", code, "--format", "dot").out.startswith("digraph")


def test_the_name_of_the_file_says_the_format(
    call: Call, write: Write, flow: Path, tmp_path: Path
) -> None:
    code = write(CODE, "code.py")
    for name, start in [
        ("a.dot", "digraph"),
        ("a.md", "```mermaid\nflowchart"),
        ("a.mmd", "flowchart"),
    ]:
        assert call("draw", flow, "--agents", code, "-o", tmp_path / name).status == 0
        assert (tmp_path / name).read_text("utf-8").startswith(start)


def test_a_name_that_says_no_format_is_refused(call: Call, write: Write, tmp_path: Path) -> None:
    tree = write('tree = agent(lambda ctx: 1, name="tree")\n')
    ended = call("draw", tree, "-o", tmp_path / "a.png")
    assert ended.status == 2
    assert "no format goes with '.png'" in ended.err
    assert not (tmp_path / "a.png").exists()


def test_an_svg_needs_graphviz_and_says_so(
    call: Call, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = write('tree = agent(lambda ctx: 1, name="tree")\n')
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    ended = call("draw", tree, "--format", "svg")
    assert ended.status == 2
    assert "there is no `dot`: install graphviz" in ended.err


def test_an_svg_is_what_graphviz_draws(
    call: Call, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = write('tree = agent(lambda ctx: 1, name="tree")\n')
    fake = tmp_path / "dot"
    fake.write_text("#!/bin/sh\nprintf '<svg>'; wc -l; exit ${FAIL:-0}\n", "utf-8")
    fake.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _name: str(fake))
    assert call("draw", tree, "-o", tmp_path / "a.svg").status == 0
    assert (tmp_path / "a.svg").read_text("utf-8").startswith("<svg>")
    monkeypatch.setenv("FAIL", "1")
    assert call("draw", tree, "--format", "svg").status == 2


def test_a_file_that_cannot_be_written_is_told(call: Call, write: Write, tmp_path: Path) -> None:
    tree = write('tree = agent(lambda ctx: 1, name="tree")\n')
    ended = call("draw", tree, "-o", tmp_path / "no" / "a.dot")
    assert ended.status == 2
    assert "cannot be written" in ended.err


def test_the_schema_is_printed_for_editors(call: Call, tmp_path: Path) -> None:
    schema = json.loads(call("schema").out)
    assert {"nodes", "edges"} <= schema["properties"].keys()
    assert call("schema", "-o", tmp_path / "s.json").status == 0
    assert json.loads((tmp_path / "s.json").read_text("utf-8")) == schema


def test_the_outline_of_a_graph_file_is_shown(call: Call, write: Write, flow: Path) -> None:
    out = call("tree", flow, "--agents", write(CODE, "code.py")).out
    assert out.startswith("flow")
    assert "report" in out


def test_a_run_of_a_graph_file_can_be_gone_on_with(
    call: Call, write: Write, tmp_path: Path
) -> None:
    pytest.importorskip("sqlalchemy")
    code = write(
        """
        @agent
        async def ask(ctx):
            return await ctx.request_input("go on?", schema=bool)
        """,
        "code.py",
    )
    flow = put(tmp_path, "name: flow\nnodes: [{id: ask, agent: ask}]\nedges: []\n")
    given = (flow, "--agents", code, "--db", tmp_path / "s.db")
    ended = call("run", *given, "--suspend", "-m", "x")
    assert ended.status == 3
    assert f"flow.yaml --agents {code}" in ended.err  # the command that goes on with it
    assert call("resume", *given, "--respond", "ask=yes").status == 0


def test_a_graph_that_a_guard_has_kept_from_running_says_so(
    call: Call, write: Write, tmp_path: Path
) -> None:
    code = write(
        """
        @agent
        async def polite(ctx):
            return {"validation": False, "reason": "say please"}

        @agent
        async def work(ctx):
            return "done"
        """,
        "code.py",
    )
    flow = put(
        tmp_path,
        "nodes: [{id: polite, agent: polite, guard: true}, {id: work, agent: work}]\nedges: []\n",
    )
    ended = call("run", flow, "--agents", code, "-m", "x", "--plain")
    assert ended.status == 0
    assert "refused by polite: say please" in ended.err


def test_a_file_may_name_its_schema(call: Call, tmp_path: Path, write: Write) -> None:
    flow = put(
        tmp_path,
        '{"$schema": "./s.json", "nodes": [{"id": "a", "agent": "long"}], "edges": []}',
        "flow.json",
    )
    assert call("validate", flow, "--agents", write(CODE, "code.py")).status == 0
