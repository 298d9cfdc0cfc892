"""The notebook: every cell runs, in order and in one loop, and shows what is kept below it."""

from __future__ import annotations

import ast
import asyncio
import builtins
import contextlib
import inspect
import io
import json
import re
from pathlib import Path
from types import CodeType
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
NOTEBOOK: Final = ROOT / "examples" / "notebook.ipynb"

Cell = dict[str, Any]


def cells(kind: str) -> list[Cell]:
    found: list[Cell] = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == kind]


def shown(cell: Cell) -> list[str]:
    """The lines that are kept below a cell."""
    text = ""
    for output in cell["outputs"]:
        match output["output_type"]:
            case "stream":
                text += "".join(output["text"])
            case "execute_result":
                text += "".join(output["data"]["text/plain"]) + "\n"
            case other:
                text += f"a {other} is nothing that belongs there\n"
    return text.splitlines()


async def execute(cell: Cell, namespace: dict[str, Any]) -> list[str]:
    """Run a cell as a notebook does; return what it prints, and its last value."""
    name = f"<cell {cell['id']}>"
    tree = ast.parse("".join(cell["source"]), name)
    last = tree.body[-1]
    if isinstance(last, ast.Expr):
        tree.body[-1] = ast.Assign([ast.Name("_", ast.Store())], last.value)
        ast.fix_missing_locations(tree)
    code: CodeType = compile(
        tree, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    namespace["_"] = None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if code.co_flags & inspect.CO_COROUTINE:
            await eval(code, namespace)  # noqa: S307  # running the cells is the point
        else:
            exec(code, namespace)  # noqa: S102  # likewise
    value = namespace["_"]
    return printed.getvalue().splitlines() + ([] if value is None else repr(value).splitlines())


async def complaints(notebook: list[Cell]) -> list[str]:
    """Run cells; say which shows something else than is kept below it."""
    found = list[str]()
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    for cell in notebook:
        says, prints = shown(cell), await execute(cell, namespace)
        if "unordered" in cell["metadata"].get("tags", ()):
            says, prints = sorted(says), sorted(prints)
        if says != prints:
            found.append(f"{cell['id']}: {prints}")
    return found


def test_every_cell_shows_what_is_kept_below_it() -> None:
    notebook = cells("code")
    assert len(notebook) > 4
    assert asyncio.run(complaints(notebook)) == []


def test_it_has_the_form_of_a_notebook() -> None:
    whole = json.loads(NOTEBOOK.read_text("utf-8"))
    assert (whole["nbformat"], whole["nbformat_minor"]) == (4, 5)
    assert set(whole) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    ids = [cell["id"] for cell in whole["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", one) for one in ids)
    for cell in cells("markdown"):
        assert set(cell) == {"cell_type", "id", "metadata", "source"}
    for number, cell in enumerate(cells("code"), 1):
        assert set(cell) == {
            "cell_type",
            "execution_count",
            "id",
            "metadata",
            "outputs",
            "source",
        }
        assert cell["execution_count"] == number


# ------------------------------------------------------------------------- the checker finds errors


def cell(source: str, *texts: str, value: str | None = None, tags: tuple[str, ...] = ()) -> Cell:
    outputs: list[Any] = [{"output_type": "stream", "name": "stdout", "text": list(texts)}]
    if value is not None:
        outputs.append({"output_type": "execute_result", "data": {"text/plain": [value]}})
    return {"id": "it", "source": [source], "outputs": outputs, "metadata": {"tags": tags}}


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (cell("print(1)", "1\n"), cell("print(1)", "2\n")),
        (cell("1 + 1", value="2"), cell("1 + 1")),
        (cell("print(2)\nprint(1)", "1\n2\n", tags=("unordered",)), cell("print(2)", "2\n2\n")),
        (
            cell("import asyncio\nawait asyncio.sleep(0, 'x')", value="'x'"),
            cell("import asyncio\nawait asyncio.sleep(0, 'x')", value="x"),
        ),
    ],
)
def test_a_cell_that_shows_something_else_is_found(good: Cell, bad: Cell) -> None:
    assert asyncio.run(complaints([good])) == []
    assert len(asyncio.run(complaints([bad]))) == 1


def test_cells_share_their_names() -> None:
    assert asyncio.run(complaints([cell("value = 3"), cell("print(value)", "3\n")])) == []


def test_an_error_kept_below_a_cell_is_found() -> None:
    broken = cell("pass")
    broken["outputs"] = [{"output_type": "error", "ename": "ValueError"}]
    assert len(asyncio.run(complaints([broken]))) == 1
