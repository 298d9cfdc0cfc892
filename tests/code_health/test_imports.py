"""Which file an import means, and the cycles in the import graph."""

from __future__ import annotations

import ast
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.code_health.findings import Finding
from examples.code_health.imports import cycles, edges, groups, imports_of, way_round
from examples.code_health.modules import Modules
from tests.code_health.planting import source

graphs = st.dictionaries(
    st.sampled_from("abcdefgh"), st.lists(st.sampled_from("abcdefgh"), unique=True)
)


def target(text: str, importer: str, *paths: str, packages: tuple[str, ...] = ()) -> list[str]:
    (node,) = ast.parse(text).body
    assert isinstance(node, ast.Import | ast.ImportFrom)
    modules = Modules([*paths, importer], packages)
    return [path for path, _ in modules.targets(node, importer)]


def found_in(files: dict[str, str]) -> list[Finding]:
    modules = Modules(files)
    looked = [one for path, text in files.items() for one in imports_of(source(text, path))]
    return cycles(edges(looked, modules), modules)


# ------------------------------------------------------------------------------ which file it means


@pytest.mark.parametrize(
    ("text", "importer", "expected"),
    [
        ("import p.a", "p/b.py", ["p/a.py"]),
        ("import p.a as a, os", "main.py", ["p/a.py"]),
        ("import p", "p/a.py", ["p/__init__.py"]),
        ("from p import a, X", "main.py", ["p/a.py", "p/__init__.py"]),
        ("from p.a import X", "main.py", ["p/a.py"]),
        ("from . import a", "p/b.py", ["p/a.py"]),
        ("from . import X", "p/b.py", ["p/__init__.py"]),
        ("from .a import X", "p/__init__.py", ["p/a.py"]),
        ("from .. import a", "p/q/c.py", ["p/a.py"]),
        ("from ..a import X", "p/q/__init__.py", ["p/a.py"]),
        ("from .q import c", "p/a.py", ["p/q/c.py"]),
        ("from ... import a", "p/q/c.py", []),
        ("from .... import a", "p/q/c.py", []),
        ("import a", "p/b.py", []),
        ("import numpy", "main.py", []),
        ("from numpy import p", "main.py", []),
        ("import other", "main.py", ["other.py"]),
        ("import other", "p/b.py", ["other.py"]),
        ("import yaml", "p/b.py", []),
        ("import yaml", "scripts/main.py", ["scripts/yaml.py"]),
        ("import scripts.yaml", "p/b.py", ["scripts/yaml.py"]),
    ],
)
def test_an_import_means_a_file(text: str, importer: str, expected: list[str]) -> None:
    paths = ("p/__init__.py", "p/a.py", "p/b.py", "p/q/__init__.py", "p/q/c.py", "other.py")
    assert target(text, importer, *paths, "scripts/yaml.py") == expected


def test_a_package_in_a_source_folder_is_imported_by_its_own_name() -> None:
    paths = ("src/p/__init__.py", "src/p/a.py")
    assert target("import p.a", "tests/test_a.py", *paths) == ["src/p/a.py"]


def test_without_an_init_file_the_path_is_the_name() -> None:
    assert target("from p.q import a", "main.py", "p/q/a.py") == ["p/q/a.py"]


def test_a_relative_import_needs_no_init_file() -> None:
    assert target("from .a import X", "p/b.py", "p/a.py") == ["p/a.py"]


def test_the_folder_itself_may_be_a_package() -> None:
    paths = ("__init__.py", "a.py")
    assert target("import p.q.a", "b.py", *paths, packages=("p", "q")) == ["a.py"]
    assert target("from . import a", "b.py", *paths, packages=("p", "q")) == ["a.py"]


def test_a_script_imports_its_neighbour() -> None:
    assert target("import a", "one/main.py", "one/a.py", "two/a.py") == ["one/a.py"]


def test_of_two_files_with_one_name_none_is_meant_from_elsewhere() -> None:
    assert target("import a", "main.py", "one/a.py", "two/a.py") == []


def test_a_name_of_the_standard_library_is_only_a_neighbours() -> None:
    assert target("import json", "main.py", "scripts/json.py") == []
    assert target("import json", "scripts/main.py", "scripts/json.py") == ["scripts/json.py"]


# -------------------------------------------------------------------------------------- the cycles


def test_a_cycle_is_found_with_its_first_import() -> None:
    (finding,) = found_in(
        {"p/__init__.py": "", "p/a.py": "import os\nfrom . import b\n", "p/b.py": "import p.a\n"}
    )
    assert (finding["path"], finding["line"], finding["measure"]) == ("p/a.py", 2, 2)
    assert finding["message"] == "2 modules import one another: `p.a` → `p.b` → `p.a`"


def test_of_a_knot_the_shortest_way_round_is_named() -> None:
    (finding,) = found_in(
        {
            "a.py": "import b",
            "b.py": "import c",
            "c.py": "import a, d",
            "d.py": "import c",
        }
    )
    assert finding["message"] == (
        "4 modules import one another: the shortest way round is `c` → `d` → `c`"
    )


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    import b",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import b",
        "import typing\nif typing.TYPE_CHECKING:\n    import b\nelse:\n    b = None",
        "if not TYPE_CHECKING:\n    b = None\nelse:\n    import b",
        "if __name__ == '__main__':\n    import b",
        "class C:\n    def m(self):\n        import b",
    ],
)
def test_an_import_that_does_not_run_at_import_makes_no_cycle(text: str) -> None:
    assert found_in({"a.py": text, "b.py": "import a"}) == []


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    import b\nexcept ImportError:\n    b = None",
        "if x:\n    import b",
        "class C:\n    import b",
        "with x:\n    import b",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import b",
        "if not TYPE_CHECKING:\n    import b",
    ],
)
def test_an_import_inside_of_something_that_runs_does(text: str) -> None:
    assert len(found_in({"a.py": text, "b.py": "import a"})) == 1


def test_a_package_and_what_is_in_it_are_no_cycle() -> None:
    files = {"p/__init__.py": "from .a import X", "p/a.py": "from p.b import Y", "p/b.py": ""}
    assert found_in(files) == []


def test_the_front_door_imported_from_inside_is_one() -> None:
    files = {"p/__init__.py": "from .a import X", "p/a.py": "from p import Y"}
    assert len(found_in(files)) == 1


def test_a_module_that_imports_itself_is_none() -> None:
    assert found_in({"a.py": "import a"}) == []


@given(graphs)
def test_groups_are_what_reaches_one_another(graph: dict[str, list[str]]) -> None:
    """Compared with the closure of the graph, by Warshall's three loops."""
    nodes = sorted({*graph, *itertools.chain.from_iterable(graph.values())})
    reach = {(one, other) for one in nodes for other in graph.get(one, ())}
    for between, one, other in itertools.product(nodes, repeat=3):
        if (one, between) in reach and (between, other) in reach:
            reach.add((one, other))
    expected = {
        tuple(sorted({one, *(o for o in nodes if (one, o) in reach and (o, one) in reach)}))
        for one in nodes
    }
    assert groups(graph) == sorted([*group] for group in expected if len(group) > 1)


@given(graphs)
def test_the_way_round_is_a_shortest_cycle(graph: dict[str, list[str]]) -> None:
    graph = {node: [other for other in others if other != node] for node, others in graph.items()}
    for group in groups(graph):
        way = way_round(graph, group)
        steps = [*itertools.pairwise([*way, way[0]])]
        assert all(other in graph[one] for one, other in steps)
        shorter = (
            cycle
            for length in range(2, len(way))
            for cycle in itertools.permutations(group, length)
            if all(o in graph.get(n, ()) for n, o in itertools.pairwise([*cycle, cycle[0]]))
        )
        assert next(shorter, None) is None


def test_a_long_chain_is_no_problem() -> None:
    graph = {str(number): [str(number + 1)] for number in range(20_000)} | {"20000": ["0"]}
    (group,) = groups(graph)
    assert len(group) == 20_001
