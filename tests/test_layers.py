"""The floors, as far as import-linter (configured in ``pyproject.toml``) cannot hold them.

Each checker takes one parsed module and returns its complaints, so that it can be shown a bad one
first: a checker that finds nothing anywhere would look the same as clean code.
"""

from __future__ import annotations

import ast
import itertools
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs
import pytest

ROOT: Final = Path(__file__).parent.parent
PACKAGES: Final = ("session", "parallel_agent")
MAX_LINES: Final = 500

# What a floor without I/O has no use for: event loops, databases, clocks.
IMPURE: Final = frozenset({"asyncio", "sqlite3", "threading", "time", "trio"})

# (module, what it imports inside a function). Right for an optional extra only; say which.
LATE_IMPORTS: Final[frozenset[tuple[str, str]]] = frozenset(
    {
        # The extra `sql`: a command without --db needs no database library, nor its time to load.
        ("parallel_agent.cli.store", "session.database"),
        ("parallel_agent.cli.store", "session.database.url"),
        # The extra `openai`: a model that is given by its name.
        ("parallel_agent.llm.providers", "parallel_agent.llm.openai_model"),
        # Likewise, and the extra `mcp`: what the nodes of a file need.
        ("parallel_agent.config.models", "parallel_agent.llm.openai_model"),
        ("parallel_agent.config.file_tools", "parallel_agent.tools.mcp_toolset"),
        # The extra `jsonschema`: an output_schema that is one.
        ("parallel_agent.llm.output", "jsonschema"),
        ("parallel_agent.llm.output", "jsonschema.validators"),
        ("parallel_agent.llm.output", "referencing"),
        ("parallel_agent.llm.output", "referencing.exceptions"),
        ("parallel_agent.llm.output", "referencing.jsonschema"),
    }
)


@attrs.frozen
class Module:
    """A parsed module and the name it is imported by."""

    name: str
    source: str
    is_package: bool = False

    @property
    def parents(self) -> list[str]:
        """The packages around it, outermost first: a package's own name is not among them."""
        return list(itertools.accumulate(self.name.split(".")[:-1], "{}.{}".format))


@attrs.frozen
class Import:
    """One imported name; ``package`` is set in ``from package import name``."""

    line: int
    target: str
    package: str | None
    binds_root: bool = False
    in_function: bool = False


def imports_of(module: Module) -> list[Import]:
    """Every import in the module, relative ones made absolute."""
    return list(_walk(ast.parse(module.source), module, in_function=False))


def _walk(node: ast.AST, module: Module, *, in_function: bool) -> Iterator[Import]:
    match node:
        case ast.Import(names=names, lineno=line):
            for alias in names:
                binds_root = alias.asname is None
                yield Import(line, alias.name, None, binds_root, in_function)
        case ast.ImportFrom(names=names, lineno=line):
            package = _absolute(node, module)
            for alias in names:
                yield Import(line, f"{package}.{alias.name}", package, in_function=in_function)
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            in_function = True
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, module, in_function=in_function)


def _absolute(node: ast.ImportFrom, module: Module) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    up = node.level - module.is_package
    return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])


# ------------------------------------------------------------------------------------- checkers


def impure_imports(module: Module) -> list[str]:
    """A pure floor imports no event loop, no database and no clock, not even for typing."""
    return [
        f"{module.name}:{found.line} is a pure floor and imports {found.target}"
        for found in imports_of(module)
        if (found.package or found.target).partition(".")[0] in IMPURE
    ]


def front_door_imports(module: Module) -> list[str]:
    """No module imports a package that it is part of: that door opens after the module is built."""
    complaints = list[str]()
    for found in imports_of(module):
        # `import a.b` (without `as`) binds `a`.
        name = found.target.partition(".")[0] if found.binds_root else found.target
        door = found.package or name
        if door in module.parents:
            complaints.append(f"{module.name}:{found.line} imports its own front door {door}")
    return complaints


def late_imports(module: Module) -> set[tuple[str, str]]:
    """The imports inside functions, as entries for `LATE_IMPORTS`."""
    return {
        (module.name, found.package or found.target)
        for found in imports_of(module)
        if found.in_function
    }


def too_long(module: Module) -> list[str]:
    """At 500 lines, ask whether two ideas live in the module."""
    lines = len(module.source.splitlines())
    return [f"{module.name} has {lines} lines"] if lines > MAX_LINES else []


# ------------------------------------------------------------------------------------- the code


def load(path: Path) -> Module:
    """Read a module of ours."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    return Module(
        ".".join(parts[:-1] if is_package else parts), path.read_text("utf-8"), is_package
    )


MODULES: Final = [
    load(path) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))
]


def pure_floors() -> set[str]:
    """The list that import-linter works from."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (contract,) = (
        contract
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["name"].startswith("Pure floors")
    )
    return set(contract["source_modules"])


def everything_from(
    checker: Callable[[Module], Iterable[str]], modules: Iterable[Module]
) -> list[str]:
    """All complaints of a checker."""
    return [complaint for module in modules for complaint in checker(module)]


def test_both_packages_were_read() -> None:
    assert set(PACKAGES) <= {module.name for module in MODULES}


def test_pure_floors_import_no_event_loop_no_database_and_no_clock() -> None:
    pure = [module for module in MODULES if module.name in pure_floors()]
    assert {module.name for module in pure} == pure_floors()
    assert everything_from(impure_imports, pure) == []


def test_no_module_imports_its_own_front_door() -> None:
    assert everything_from(front_door_imports, MODULES) == []


def test_imports_inside_functions_are_those_on_the_list() -> None:
    found = {entry for module in MODULES for entry in late_imports(module)}
    assert found == LATE_IMPORTS


def test_no_module_is_longer_than_500_lines() -> None:
    assert everything_from(too_long, MODULES) == []


# -------------------------------------------------------------------- the checkers find bad code


def snippet(source: str, name: str = "parallel_agent.workflow.loop") -> Module:
    """A module that exists only here."""
    return Module(name, textwrap.dedent(source))


@pytest.mark.parametrize(
    "source",
    [
        "import trio",
        "import trio.lowlevel as low",
        "from time import monotonic",
        "import json, sqlite3",
        "def now():\n    import time",
        "if TYPE_CHECKING:\n    import trio",
    ],
)
def test_the_purity_checker_finds(source: str) -> None:
    assert len(impure_imports(snippet(source))) == 1


@pytest.mark.parametrize(
    "source", ["import timeit", "from session import time", "from . import trio"]
)
def test_the_purity_checker_passes(source: str) -> None:
    assert impure_imports(snippet(source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import parallel_agent",
        "import parallel_agent as pa",
        "import parallel_agent.errors",
        "from parallel_agent import Runner",
        "from parallel_agent import errors",
        "from .. import errors",
        "from parallel_agent.workflow import ParallelAgent",
        "from . import parallel",
        "if TYPE_CHECKING:\n    from parallel_agent import Runner",
        "def run():\n    from parallel_agent import Runner",
    ],
)
def test_the_front_door_checker_finds(source: str) -> None:
    assert len(front_door_imports(snippet(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from parallel_agent.errors import AgentError",
        "import parallel_agent.errors as errors",
        "from ..errors import AgentError",
        "from session import Event",
        "import parallel_agent_extras",
    ],
)
def test_the_front_door_checker_passes(source: str) -> None:
    assert front_door_imports(snippet(source)) == []


def test_a_front_door_may_import_the_rooms_behind_it() -> None:
    door = Module("parallel_agent", "from parallel_agent.errors import AgentError", is_package=True)
    assert front_door_imports(door) == []


def test_relative_imports_of_a_package_start_at_the_package_itself() -> None:
    package = Module("parallel_agent.workflow", "from .loop import LoopAgent", is_package=True)
    assert [found.package for found in imports_of(package)] == ["parallel_agent.workflow.loop"]


def test_the_late_import_checker_finds_imports_at_any_depth_of_a_function() -> None:
    module = snippet(
        """
        import early

        if early:
            import early_too

        class Agent:
            import early_three

            async def run(self):
                with self:
                    import late
                def inner():
                    from late.too import name
        """,
        name="m",
    )
    assert late_imports(module) == {("m", "late"), ("m", "late.too")}


def test_the_length_checker_counts_to_500() -> None:
    assert too_long(snippet("x = 1\n" * 500)) == []
    assert too_long(snippet("x = 1\n" * 501)) == ["parallel_agent.workflow.loop has 501 lines"]
