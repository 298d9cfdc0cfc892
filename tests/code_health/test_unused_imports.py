"""Imports that nobody uses, and the many ways to use one."""

from __future__ import annotations

import pytest

from examples.code_health.sources import parse
from examples.code_health.unused_imports import imported, unused_imports
from tests.code_health.planting import lines, names, source


def found_in(text: str, path: str = "module.py") -> list[str]:
    return names(unused_imports(imported(source(text, path))))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import os", ["os"]),
        ("import os.path", ["os"]),
        ("import os as system", ["system"]),
        ("from os import path, sep", ["path", "sep"]),
        ("from . import other", ["other"]),
        ("def f():\n    import os", ["os"]),
        ("import os\nos = 1", ["os"]),
        ("import os\nx.os", ["os"]),
        ("if TYPE_CHECKING:\n    from os import path", ["path"]),
        ("import os\ndef f(os): pass", ["os"]),
        ('import os\n"""os"""', ["os"]),
        ("import os\nx = 'os'", ["os"]),
        ("import os  # noqa: E402", ["os"]),
        ("import os  # see os", ["os"]),
        ("try:\n    import os\nexcept KeyError:\n    pass", ["os"]),
    ],
)
def test_an_unused_import_is_found(text: str, expected: list[str]) -> None:
    assert found_in(text) == expected


@pytest.mark.parametrize(
    "use",
    [
        "os.sep",
        "def f(a=os): pass",
        "def f():\n    return os",
        "@os.cache\ndef f(): pass",
        "class C(os.PathLike): pass",
        "del os",
        "os += 1",
        "x: os.PathLike",
        "x: 'os.PathLike'",
        "def f(a: 'list[os.PathLike]') -> None: pass",
        "def f() -> 'os.PathLike': pass",
        "x = List['os.PathLike']",
        "x = cast('os.PathLike', 1)",
        "T = typing.TypeVar('T', bound='os.PathLike')",
        "A: TypeAlias = 'os.PathLike'",
        "A: typing.TypeAlias = 'os.PathLike'",
        "x = 1  # type: os.PathLike",
        "__all__ = ['os']",
        "__all__: list[str] = ['os']",
        "__all__ += ['os']",
        "__all__.extend(['os'])",
        "__all__ = other.__all__ + ['os']",
        "f'{os}'",
        "match x:\n    case os.sep: pass",
        "lambda: os",
    ],
)
def test_a_use_is_seen(use: str) -> None:
    assert found_in(f"import os\n{use}\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "from __future__ import annotations",
        "from os import *",
        "import os as os",
        "from os import path as path",
        "from gettext import gettext as _",
        "import readline",
        "import os  # noqa",
        "import os  # noqa: F401",
        "import os  # NOQA:E402,F401 for a reason",
        "import os  # pylint: disable=unused-import",
        "from os import (  # noqa: F401\n    path,\n    sep,\n)",
        "from os import (\n    path,  # noqa: F401\n)",
        "# ruff: noqa\nimport os",
        "# flake8: noqa: F401\nimport os",
        "# pylint: disable=unused-import\nimport os",
        "try:\n    import os\nexcept ImportError:\n    os = None",
        "try:\n    import os\nexcept (KeyError, ModuleNotFoundError):\n    pass",
        "with suppress(ImportError):\n    import os",
        "class C:\n    from os import path",
        "if x:\n    import os  # noqa: F401\nelse:\n    import other as os",
    ],
)
def test_an_import_that_is_meant_is_left_alone(text: str) -> None:
    assert found_in(text) == []


def test_one_excuse_is_for_one_name() -> None:
    assert found_in("from os import (\n    path,  # noqa: F401\n    sep,\n)") == ["sep"]


def test_the_line_is_that_of_the_name() -> None:
    found = unused_imports(imported(source("from os import (\n    path,\n    sep,\n)\nsep")))
    assert lines(found) == [2]


@pytest.mark.parametrize("text", ["from . import a", "from p.a import X", "import p.a"])
@pytest.mark.parametrize("path", ["p/__init__.py", "p/conftest.py"])
def test_a_package_hands_on_what_is_its_own(path: str, text: str) -> None:
    assert found_in(text, path) == []


def test_a_package_does_not_hand_on_what_is_not() -> None:
    assert found_in("import os\nfrom collections import abc", "p/__init__.py") == ["os", "abc"]


def test_a_compatibility_module_hands_on_everything() -> None:
    assert found_in("from io import StringIO", "p/_compat.py") == []


def test_a_parameter_of_a_test_may_be_an_imported_fixture() -> None:
    text = "from fixtures import client\ndef test_a(client): pass"
    assert found_in(text, "tests/test_a.py") == []


@pytest.mark.parametrize(
    "use", ["pytestmark = pytest.mark.usefixtures('os')", "request.getfixturevalue('os')"]
)
def test_a_fixture_that_is_asked_for_by_name_is_used(use: str) -> None:
    assert found_in(f"import os\n{use}", "tests/test_a.py") == []


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ("from p.a import path\nprint 'python 2'", []),
        ("from p.b import path\nprint 'python 2'", ["path"]),
    ],
)
def test_what_a_file_that_does_not_parse_may_take_from_here_is_used(
    use: str, expected: list[str]
) -> None:
    broken = parse("p/old.py", use.encode())
    assert broken.tree is None
    here = source("from os import path", "p/a.py")
    assert names(unused_imports([*imported(here), *imported(broken)])) == expected


@pytest.mark.parametrize(
    "use",
    [
        "from p.a import path",
        "from .a import path",
        "from p.a import *",
        "from p import a\na.path",
        "from p import a as b\nb.path",
        "import p.a as b\nb.path",
        "import p.a\np.a.path",
        "patch('p.a.path')",
    ],
)
def test_what_another_file_takes_from_here_is_used(use: str) -> None:
    here = source("from os import path", "p/a.py")
    found = unused_imports([*imported(here), *imported(source(use, "p/b.py"))])
    assert "p/a.py" not in [finding["path"] for finding in found]


@pytest.mark.parametrize(
    "use", ["from p.c import path", "from os import path\npath", "c.path", "patch('p.c.path')"]
)
def test_what_another_file_takes_from_elsewhere_is_not(use: str) -> None:
    here = source("from os import path", "p/a.py")
    found = unused_imports([*imported(here), *imported(source(use, "p/b.py"))])
    assert "p/a.py" in [finding["path"] for finding in found]


@pytest.mark.timeout(30)
def test_blank_lines_cost_no_more_than_others() -> None:
    """Quadratic, these would take minutes, in which no signal is heard."""
    blank = "\n" * 200_000
    assert names(unused_imports(imported(source(f"import os{blank}x = 1\n")))) == ["os"]
