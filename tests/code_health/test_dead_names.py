"""Names that nobody mentions, and what counts as a mention."""

from __future__ import annotations

import pytest

from examples.code_health.dead_names import dead_names, defined
from examples.code_health.sources import parse
from tests.code_health.planting import names, source


def found_in(*files: tuple[str, str], elsewhere: tuple[str, ...] = ()) -> list[str]:
    looked = [one for path, text in files for one in defined(source(text, path))]
    return names(dead_names(looked, elsewhere))


@pytest.mark.parametrize(
    "text",
    [
        "def _dead(): pass",
        "async def _dead(): pass",
        "class _dead: pass",
        "class _dead(Base): pass",
        "_dead = 1",
        "_dead: int = 1",
        "_dead = _used = 1\n_used",
        "_dead = TypeVar('_dead')",
        "def _dead(): return _dead()",
        "if x:\n    def _dead(): pass",
        "try:\n    _dead = 1\nexcept X:\n    _dead = 2",
        "with x:\n    _dead = 1",
        'def _dead(): pass\n"""_dead is mentioned in a docstring."""',
        "def _dead(): pass\n# _dead",
        "def _dead(): pass\ndef f(_other): pass\nf",
        "def dead(): pass",
        "class dead: pass",
        "dead = 1",
    ],
)
def test_a_dead_name_is_found(text: str) -> None:
    assert [name.removeprefix("_") for name in found_in(("module.py", text))] == ["dead"]


@pytest.mark.parametrize(
    "use",
    [
        "_name",
        "x = [_name]",
        "def f(a=_name): pass\nf",
        "x._name",
        "x._name = 1",
        "f(_name=1)",
        "del _name",
        "_name += 1",
        "x = '_name'\nx",
        "getattr(x, '_name')",
        "x: '_name' = 1\nx",
        "load('package.module:_name')",
        "from m import _name",
        "def f():\n    global _name\nf",
        "f'{_name}'",
        "match x:\n    case C(_name=1): pass",
        "__all__ = ['_name']",
        "y = 1  # type: _name\ny",
    ],
)
@pytest.mark.parametrize("path", ["module.py", "another.py"])
def test_a_mention_is_seen_wherever_it_is(path: str, use: str) -> None:
    definition = "def _name(): pass\n"
    if path == "module.py":
        assert "_name" not in found_in((path, definition + use))
    else:
        assert "_name" not in found_in(("module.py", definition), (path, use))


def test_what_a_file_that_does_not_parse_mentions_is_used() -> None:
    broken = parse("old.py", b"_name()\nprint 'python 2'")
    assert broken.tree is None
    here = source("def _name(): pass\ndef _dead(): pass")
    assert names(dead_names([*defined(here), *defined(broken)])) == ["_dead"]


@pytest.mark.parametrize(
    "text",
    [
        "@register\ndef _name(): pass",
        "@register\nclass _name: pass",
        "class _name(Base, keyword=1): pass",
        "__version__ = 1",
        "_ = 1",
        "_name: int",
        "_a, _b = 1, 2",
        "for _name in x: pass",
        "def main(): pass",
        "def pytest_configure(): pass",
        "def _name(): pass\nglobals()[x]()",
    ],
)
def test_what_may_be_used_without_a_mention_is_left_alone(text: str) -> None:
    assert found_in(("module.py", text)) == []


@pytest.mark.parametrize("path", ["p/__init__.py", "tests/test_a.py", "setup.py", "docs/conf.py"])
def test_public_names_of_some_files_are_for_users_elsewhere(path: str) -> None:
    text = "def public(): pass\ndef _private(): pass"
    assert found_in((path, text)) == ["_private"]


def test_a_name_in_a_settings_file_is_used() -> None:
    assert found_in(("module.py", "def start(): pass"), elsewhere=("start",)) == []


def test_a_public_name_is_said_to_be_there_for_others_perhaps() -> None:
    (private, public) = dead_names(defined(source("def _a(): pass\ndef b(): pass")))
    assert private["message"] == "`_a` is mentioned nowhere else"
    assert public["message"] == "`b` is mentioned nowhere else: dead, or there for users elsewhere"


def test_a_name_defined_twice_is_one_finding() -> None:
    assert found_in(("module.py", "if x:\n    _dead = 1\nelse:\n    _dead = 2")) == ["_dead"]
