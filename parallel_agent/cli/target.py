"""Find the tree that a command line names: in a Python file, a module, or a graph file.

Whatever kinds of target there are, `load` is the way in: it looks at how the target is written
and asks the loader for that kind.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import attrs

import session
from parallel_agent.agent import Agent, check_agent
from parallel_agent.cli.graph_files import GRAPH_FILES, Code, code_in, is_finished, read_graph, told
from parallel_agent.errors import ConfigError, TreeError, UsageError
from parallel_agent.observe.harmless import harmless, one_line
from parallel_agent.runner import Runner

__all__ = ["WHAT_A_TARGET_IS", "TargetError", "load", "load_code"]

WHAT_A_TARGET_IS: Final = (
    "A target is FILE.py, FILE.py:NAME or package.module:NAME, where NAME is an agent, or a graph "
    "file, FILE.yaml"
)


class TargetError(Exception):
    """There is no tree at the target; the message says why, and what to do.

    ``details`` is the traceback of the user's own code, if that has failed; else empty.
    """

    def __init__(self, message: str, *, details: str = "") -> None:
        """Both are fit to print."""
        super().__init__(message)
        self.details = details


def load(target: str, agents: Sequence[str] = ()) -> Agent:
    """Import what ``target`` names, and return the tree.

    ``agents`` are the files and modules whose agents and functions a graph file may name.

    Without a name it is the only root there: the one agent that stands below no other one.
    Importing runs the file as ``import`` does: not what is under ``if __name__ == "__main__"``.
    Its folder (for a file of a package, the folder of the package; for a module, the working
    folder) goes first on the import path.

    Raises:
        TargetError: there is no such file, module or name, or no agent there, or several.
    """
    place, attribute = _split(target)
    if place.endswith(GRAPH_FILES):
        if attribute:
            message = f"{one_line(place)} is one graph: leave out :{one_line(attribute)}"
            raise TargetError(f"{message}. {WHAT_A_TARGET_IS}")
        code = load_code(agents)
        try:
            return read_graph(place, code)
        except ConfigError as error:
            message, details = told(error, code)
            if not Path(place).exists():
                message, details = f"{one_line(place)} does not exist. {WHAT_A_TARGET_IS}", ""
            raise TargetError(message, details=details) from None
        except ModuleNotFoundError as error:
            raise TargetError(one_line(str(error))) from None
    if agents:
        message = f"--agents is for graph files, and {one_line(place)} is none"
        raise TargetError(message)
    module = _load_file(place) if place.endswith(".py") else _load_module(place)
    return _choose(module, one_line(place), attribute)


def load_code(agents: Sequence[str]) -> Code:
    """Import the files and modules whose agents and functions a graph file may name.

    Raises:
        TargetError: there is none, or it cannot be imported.
    """
    modules: list[tuple[str, ModuleType]] = []
    for place in agents:
        is_file = place.endswith(".py")
        module = _load_file(place) if is_file else _load_module(place)
        modules.append(("" if is_file else place, module))
    return code_in(modules)


def _split(target: str) -> tuple[str, str]:
    if target.endswith((".py", *GRAPH_FILES)):
        return target, ""
    place, colon, attribute = target.rpartition(":")
    if not colon:
        place, attribute = target, ""
    elif not attribute or not place:
        message = f"{one_line(target)!r} has nothing on one side of its colon. {WHAT_A_TARGET_IS}"
        raise TargetError(message)
    return place, attribute


# ------------------------------------------------------------------------------------ a Python file


def _load_file(place: str) -> ModuleType:
    path = Path(place)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        message = f"{one_line(place)} {what}. {WHAT_A_TARGET_IS}"
        raise TargetError(message)
    path = path.resolve()
    folder, names = path.parent, [path.stem]
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    if folder != path.parent:
        if path.stem == "__init__":
            names.pop()
        return _load_of_package(path, ".".join(names), folder)
    before = _put_first(folder)
    # Not by the import path: the file may have a name that Python, or we, use for something else.
    name = path.stem
    if name in sys.modules or name in sys.stdlib_module_names:
        name = f"{name} (target)"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        message = f"{one_line(place)} is no Python file. {WHAT_A_TARGET_IS}"
        raise TargetError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # it is told, with its traceback
        sys.modules.pop(name, None)
        raise _failed(one_line(place), error, folder, before) from None
    return module


def _load_of_package(path: Path, name: str, folder: Path) -> ModuleType:
    module = _import(name, str(path), folder)
    found = getattr(module, "__file__", None)
    if found is None or not Path(found).exists() or not path.samefile(found):
        message = (
            f"{one_line(str(path))} is {name} in its package, "
            f"but another module of that name is found: {one_line(str(found))}"
        )
        raise TargetError(message)
    return module


# ----------------------------------------------------------------------------------------- a module


def _load_module(place: str) -> ModuleType:
    if not all(part.isidentifier() for part in place.split(".")):
        message = f"{one_line(place)!r} is neither a .py file nor a module. {WHAT_A_TARGET_IS}"
        raise TargetError(message)
    return _import(place, place, Path.cwd())


def _import(name: str, place: str, folder: Path) -> ModuleType:
    before = _put_first(folder)
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # it is told, with its traceback
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{name}.".startswith(f"{missing}.") and not _own_frames(error):
            message = f"there is no module {missing!r}. {WHAT_A_TARGET_IS}"
            if (folder / f"{name}.py").is_file():
                message += f". There is a file: {name}.py"
            raise TargetError(message) from None
        raise _failed(one_line(place), error, folder, before) from None


# ------------------------------------------------------------------------------------ what is in it


def _choose(module: ModuleType, place: str, attribute: str) -> Agent:
    if not attribute:
        return _only_root(module, place)
    found: Any = module
    for depth, name in enumerate(attribute.split(".")):
        try:
            found = getattr(found, name)
        except AttributeError:
            where = f"{place}:{'.'.join(attribute.split('.')[:depth])}" if depth else place
            message = f"{where} has no {one_line(name)!r}. {_hint(module)}"
            raise TargetError(message) from None
        except Exception as error:  # noqa: BLE001  # as above: code of the user's own
            message = f"{place} has a {one_line(name)!r} that cannot be looked at"
            raise TargetError(message, details=_traceback(error)) from None
    try:
        check_agent(found, f"{place}:{one_line(attribute)}")
    except TreeError as error:
        hint = one_line(str(error))
        if isinstance(found, Runner):
            hint += "; name the tree that it runs"
        elif callable(found):
            hint += ", or, if it makes a tree, give what it returns a name in the module"
        raise TargetError(f"{hint}. {_hint(module)}") from None
    return found  # type: ignore[no-any-return]  # checked above


def _only_root(module: ModuleType, place: str) -> Agent:
    roots = [named for named in _agents_of(module) if not named.is_below]
    match roots:
        case [root]:
            return root.agent
        case []:
            message = (
                f"no agent was found in {place}. Give the tree a name there, as in "
                f"`tree = SequentialAgent(...)`. {WHAT_A_TARGET_IS}"
            )
        case _:
            listed = "".join(f"\n  {place}:{root.name}" for root in roots)
            message = f"{place} has several trees. Say which one to take:{listed}"
    raise TargetError(message)


@attrs.frozen
class _Named:
    name: str
    agent: Agent
    is_below: bool


def _agents_of(module: ModuleType) -> list[_Named]:
    """Return every agent that the module has a name for, under the first of its names."""
    # By identity: a class of somebody's own may compare its agents, and refuse to be a key.
    found: dict[int, tuple[str, Agent]] = {}
    for name, value in vars(module).items():
        if isinstance(value, Agent) and is_finished(value):
            found.setdefault(id(value), (name, value))
    line = [agent for _, agent in found.values()]
    below = set[int]()
    for agent in line:
        for child in agent.sub_agents:
            if id(child) not in below:
                below.add(id(child))
                line.append(child)
    return [_Named(one_line(name), agent, id(agent) in below) for name, agent in found.values()]


def _hint(module: ModuleType) -> str:
    names = [named.name for named in _agents_of(module)]
    return f"Agents there: {', '.join(names)}" if names else "There is no agent in it"


# ---------------------------------------------------------------------------------- the import path


def _put_first(folder: Path) -> Mapping[str, ModuleType]:
    """Put ``folder`` first on the import path. Return the modules that were loaded before.

    Raises:
        TargetError: something there has the name of our ``session`` package. `python FILE.py`
            would refuse it, too: the user's own code could not import both.
    """
    ours = Path(session.__file__ or "").resolve()
    for other in (folder / "session.py", folder / "session" / "__init__.py"):
        if other.is_file() and other.resolve() != ours:
            message = (
                f"{one_line(str(other))} hides the `session` package that parallel_agent needs: "
                "rename that file (or folder)"
            )
            raise TargetError(message)
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    return dict(sys.modules)


def _taken_names(folder: Path, before: Mapping[str, ModuleType]) -> list[str]:
    """Return the files in ``folder`` whose names modules loaded before have already."""
    taken = list[str]()
    for path in sorted(folder.glob("*.py")):
        loaded = before.get(path.stem)
        place = getattr(loaded, "__file__", None) or ""
        if loaded is not None and Path(place).parent != folder:
            taken.append(path.name)
    return taken


# ---------------------------------------------------------------------------- the user's own errors


def _failed(
    place: str, error: BaseException, folder: Path, before: Mapping[str, ModuleType]
) -> TargetError:
    if isinstance(error, SystemExit):
        message = (
            f"{place} called sys.exit() while it was imported. Put what runs the program under "
            '`if __name__ == "__main__":`'
        )
        return TargetError(message)
    message = f"{place} cannot be imported"
    taken = _taken_names(folder, before) if isinstance(error, ImportError | AttributeError) else []
    if taken:
        message += (
            f" (modules named like {one_line(', '.join(taken[:3]))} were loaded already, from "
            "elsewhere; if those are meant, rename yours)"
        )
    if isinstance(error, UsageError):
        # It says what is wrong and what to do; how we have found out is of no interest.
        frames = [frame for frame in _own_frames(error) if not _is_ours(frame.filename)]
        where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        return TargetError(f"{message}: {type(error).__name__}: {one_line(str(error))}{where}")
    return TargetError(message, details=_traceback(error))


def _is_ours(filename: str) -> bool:
    return Path(filename).is_relative_to(Path(__file__).parents[1])


def _traceback(error: BaseException) -> str:
    """Return the traceback, of the user's own code only."""
    top = traceback.TracebackException.from_exception(error)
    todo: list[traceback.TracebackException | None] = [top]
    seen = set[int]()
    for one in todo:
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.stack = traceback.StackSummary.from_list(
            [frame for frame in one.stack if not _is_machinery(frame.filename)]
        )
        todo += [one.__cause__, one.__context__]
    return harmless("".join(top.format())).rstrip("\n")


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if not _is_machinery(frame.filename)]


def _is_machinery(filename: str) -> bool:
    return filename in _MACHINERY or filename.startswith("<frozen importlib")


_MACHINERY: Final = frozenset({__file__, importlib.__file__})
