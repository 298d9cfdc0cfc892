"""Finding what is to be certified, in the process that runs it."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

import attrs

from parallel_agent.agent import Agent
from parallel_agent.certify.errors import CertifyError
from parallel_agent.runner import Runner, RunnerOptions

__all__ = ["Program", "find", "load_program", "reference"]

_WHAT: Final = (
    "a tree, a function without parameters that makes one, or a function `(**options)` that makes "
    "a Runner with these options"
)

_MAIN: Final = "__certified__"


@attrs.frozen(eq=False)
class Program:
    """What is run, and what looks at the end of it."""

    make: Agent | Callable[..., object]
    check: Callable[[Any], object] | None
    prepare: Callable[[], object] | None

    def runner(self, options: RunnerOptions) -> Runner:
        """Return a runner with these options, for one run."""
        made: object = self.make
        if not isinstance(made, Agent):
            made = self.make(**options) if _takes_options(self.make) else self.make()  # type: ignore[operator]  # a function
        if isinstance(made, Runner):
            if not _takes_options(self.make):
                message = (
                    "a Runner must be made with the options that certifying gives it: "
                    "`def make(**options): return Runner(tree, ..., **options)`"
                )
                raise CertifyError(message)
            return made
        if not isinstance(made, Agent):
            message = f"what is certified is {_WHAT}, not {made!r:.80}"
            raise CertifyError(message)
        return Runner(made, **options)


def _takes_options(make: object) -> bool:
    if isinstance(make, Agent):
        return False
    parameters = inspect.signature(cast("Callable[..., object]", make)).parameters.values()
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)


def load_program(target: str, *, check: str | None, prepare: str | None, loader: str) -> Program:
    """Import what the names stand for.

    Raises:
        CertifyError: there is nothing of that name, or not of the kind it must be.
    """
    found = cast("Callable[[str], object]", find(loader))(target)
    if not isinstance(found, Agent) and not callable(found):
        message = f"{target} is {found!r:.80}; what is certified is {_WHAT}"
        raise CertifyError(message)
    return Program(found, _function(check, target), _function(prepare, target))


def _function(name: str | None, target: str) -> Callable[..., object] | None:
    if name is None:
        return None
    if ":" not in name:  # beside the tree
        place = target if target.endswith(".py") else target.rpartition(":")[0] or target
        name = f"{place}:{name}"
    found: object = find(name)
    if not callable(found):
        message = f"{name} is no function: {found!r:.80}"
        raise CertifyError(message)
    return found


def find(target: str) -> Any:
    """Return what ``FILE.py:NAME`` or ``package.module:NAME`` names.

    Raises:
        CertifyError: there is no such file, module, or name.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        message = f"{target!r} is not FILE.py:NAME or package.module:NAME"
        raise CertifyError(message)
    found: Any = _module(place)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            message = f"{place} has no {name!r}"
            raise CertifyError(message) from None
    return found


def _module(place: str) -> ModuleType:
    if not place.endswith(".py"):
        try:
            return importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name and f"{place}.".startswith(f"{error.name}."):
                message = f"there is no module {place!r}"
                raise CertifyError(message) from None
            raise
    path = Path(place).resolve()
    for known in [*sys.modules.values()]:  # of the tree, when its check is looked for
        if getattr(known, "__file__", None) == str(path):
            return known
    if not path.is_file():
        message = f"there is no file {place}"
        raise CertifyError(message)
    sys.path.insert(0, str(path.parent))
    name = path.stem if path.stem.isidentifier() and path.stem not in sys.modules else _MAIN
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        message = f"{place} is no Python file"
        raise CertifyError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def reference(function: object, what: str) -> str:
    """Return the name by which another process finds ``function``.

    Raises:
        CertifyError: it has none: it is no function at the top of a module.
    """
    name, module = getattr(function, "__qualname__", None), getattr(function, "__module__", None)
    if isinstance(function, Agent) or name is None or module is None:
        message = (
            f"{what} is run in other processes, which must find it: give a function at the top of "
            f"a module, or its name (FILE.py:NAME, package.module:NAME), not {function!r:.80}"
        )
        raise CertifyError(message)
    found: Any = sys.modules.get(module)
    place = module
    if module == "__main__":
        place = getattr(found, "__file__", None)
        if place is not None:
            place = str(Path(place).resolve())
    for part in name.split("."):
        found = getattr(found, part, None)
    if place is None or found is not function:
        message = (
            f"{what} is run in other processes, which cannot find {name} of {module}: put it at "
            "the top of a module that can be imported"
        )
        raise CertifyError(message)
    return f"{place}:{name}"
