"""The extra ``adk``, where it is not installed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest


@pytest.fixture
def _without_adk(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name == "parallel_agent.adk" or name.startswith("parallel_agent.adk."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "google.adk", None)  # as if it were not there


@pytest.mark.usefixtures("_without_adk")
def test_without_google_adk_the_error_names_the_extra() -> None:
    with pytest.raises(ImportError) as raised:
        importlib.import_module("parallel_agent.adk")
    assert str(raised.value) == (
        "parallel_agent.adk needs google-adk: pip install 'parallel-agent[adk]'"
    )


@pytest.mark.usefixtures("_without_adk")
def test_without_google_adk_pytest_can_skip_what_needs_it() -> None:
    with pytest.raises(pytest.skip.Exception):
        pytest.importorskip("parallel_agent.adk")


def test_a_google_adk_that_lacks_something_itself_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "google" / "adk"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import a_part_that_is_not_there\n")
    for name in list(sys.modules):
        if name.split(".")[0] == "google" or name.startswith("parallel_agent.adk"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    try:
        with pytest.raises(ModuleNotFoundError, match="a_part_that_is_not_there"):
            importlib.import_module("parallel_agent.adk")
    finally:
        for name in list(sys.modules):
            if name.split(".")[0] == "google":
                del sys.modules[name]  # what was there before comes back with `monkeypatch`
