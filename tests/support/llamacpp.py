"""A llama.cpp server of the tests' own: its real one, with a model that is made here.

`make llamacpp` installs it from PyPI (xllamacpp is llama.cpp with its server, built, in a wheel),
in an environment of its own. It listens on the loopback interface only. Where it is not installed,
the tests that need it are skipped; with ``PARALLEL_AGENT_REQUIRE_LLAMACPP=1`` that is an error.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from tests.support.databases import quick_folder
from tests.support.tiny_model import write_model

__all__ = ["REQUIRED", "Llamacpp", "find_python", "running_llamacpp"]

REQUIRED: Final = "PARALLEL_AGENT_REQUIRE_LLAMACPP"
_ENVIRONMENT: Final = Path(__file__).parents[2] / ".venv-llamacpp"
_PROGRAM: Final = Path(__file__).with_name("llamacpp_server.py")


def find_python() -> Path | None:
    """The interpreter that llama.cpp is installed for."""
    installed = any(_ENVIRONMENT.glob("lib/python3*/site-packages/xllamacpp"))
    python = _ENVIRONMENT / "bin" / "python"
    return python if installed and python.exists() else None


@attrs.frozen
class Llamacpp:
    """A server that runs.

    Attributes:
        root: where it is; what speaks chat completions is at `url`.
        key: who may ask.
        slots: how many answers it makes at a time; others wait.
        context: how many tokens it takes, question and answer together. A character is one.
    """

    root: str
    key: str
    slots: int
    context: int
    _process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        """The base of the URLs of the protocol."""
        return f"{self.root}/v1"

    def kill(self) -> None:
        """End it at once, in the middle of whatever it says."""
        self._process.kill()
        self._process.wait()


@contextmanager
def running_llamacpp(python: Path, *, slots: int = 4, context: int = 8192) -> Iterator[Llamacpp]:
    """Start a server, and stop it at the end."""
    folder = Path(quick_folder())
    key = "only-for-tests"
    try:
        model = folder / "tiny.gguf"
        write_model(model)
        log = folder / "log"
        with log.open("wb") as errors:
            process = subprocess.Popen(  # noqa: S603  # what is installed here
                [python, "-I", _PROGRAM, model, key, str(slots), str(context)],
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        with process:
            try:
                root = _said(process)
                assert root, f"llama.cpp did not start: {log.read_text(errors='replace')[-2000:]}"
                yield Llamacpp(root, key, slots, context, process)
            finally:
                process.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _said(process: subprocess.Popen[str]) -> str:
    """Return where it is, when it says so; nothing if it ends instead."""
    assert process.stdout is not None
    # llama.cpp may print lines of its own before that.
    lines = (line.strip() for line in process.stdout)
    return next((line for line in lines if line.startswith("http://")), "")
