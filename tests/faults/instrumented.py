"""Load a copy of the runtime in which every await can be made to fail.

The packages' own source is parsed, and every place where it waits becomes a numbered *site*:
``await x``, the two ends of ``async with x``, each step of ``async for _ in x``. At every pass
through a site the copy asks `Faults` whether something is to happen there.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, NoReturn

import attrs

__all__ = ["Fault", "Faults", "Site", "instrumented"]

_PACKAGES = ("parallel_agent", "session")
# No part of a run: checks, and what a contract does for services that do not do it themselves.
_LEFT_ALONE = ("session.conformance", "session.service", "session.portable", "session.watching")
_NEVER_RETURNS = "suspend"  # `parallel_agent.drive.suspend`: it raises, whatever happens


class Fault(Exception):  # noqa: N818  # what it is, not what went wrong
    """What is raised at a site. Nothing in the runtime knows it."""


@attrs.frozen
class Site:
    """A place where the runtime waits. ``before`` and ``after``: whether it may fail there.

    Entering and leaving are atomic: what could not be entered is not left, and what is left has
    been, so the one can fail only before, the other only after. Nor is there anything after what
    never returns.
    """

    name: str
    before: bool = True
    after: bool = True


@attrs.define
class Faults:
    """The switchboard: which sites there are, how often each was passed, and what happens where."""

    sites: list[Site] = attrs.Factory(list)
    passed: Counter[str] = attrs.Factory(Counter)
    _at: str | None = None
    _when: str = ""
    _countdown: int = 0
    _act: Callable[[], None] | None = None

    def arm(self, site: Site, when: str, nth: int, act: Callable[[], None]) -> None:
        """Call ``act`` at the ``nth`` pass of ``site``, ``"before"`` or ``"after"`` it."""
        self._at, self._when, self._countdown, self._act = site.name, when, nth, act

    def disarm(self) -> bool:
        """Let nothing happen any more; say whether it has."""
        happened = self._act is None
        self._at = self._act = None
        return happened

    def reach(self, site: str, when: str) -> None:
        """Called by the instrumented copy."""
        if when == "before":
            self.passed[site] += 1
        if site == self._at and when == self._when:
            self._countdown -= 1
            if self._countdown == 0 and self._act is not None:
                act, self._act = self._act, None
                act()

    # What the copy's source is made to call.

    async def wait(self, site: str, awaitable: Any) -> Any:
        """Stand around an ``await``."""
        try:
            self.reach(site, "before")
        except BaseException:
            if inspect.iscoroutine(awaitable):
                awaitable.close()  # or Python complains that nobody awaited it
            raise
        result = await awaitable
        self.reach(site, "after")
        return result

    async def wait_for_nothing(self, site: str, awaitable: Any) -> NoReturn:
        """Stand before an ``await`` that never returns."""
        await self.wait(site, awaitable)
        message = f"{site} has returned"
        raise AssertionError(message)

    def block(self, site: str, manager: Any) -> _Block:
        """Stand around what an ``async with`` enters and leaves."""
        return _Block(self, site, manager)

    def steps(self, site: str, iterable: Any) -> _Steps:
        """Stand around the steps of an ``async for``."""
        return _Steps(self, site, iterable.__aiter__())


@attrs.define
class _Steps:
    # No async generator: a loop that is left early would leave it to the garbage collector.
    faults: Faults
    site: str
    iterator: Any

    def __aiter__(self) -> _Steps:
        return self

    async def __anext__(self) -> Any:
        return await self.faults.wait(self.site, self.iterator.__anext__())


@attrs.define
class _Block:
    faults: Faults
    site: str
    manager: Any

    async def __aenter__(self) -> Any:
        self.faults.reach(f"{self.site} enter", "before")
        return await self.manager.__aenter__()

    async def __aexit__(self, *details: object) -> Any:
        result = await self.manager.__aexit__(*details)
        self.faults.reach(f"{self.site} exit", "before")
        self.faults.reach(f"{self.site} exit", "after")
        return result


class _Instrument(ast.NodeTransformer):
    def __init__(self, module: str, faults: Faults) -> None:
        self._module = module
        self._faults = faults
        self._inside: list[str] = []

    def _site(self, node: ast.expr, *, before: bool = True, after: bool = True, what: str) -> str:
        where = f"{self._module}:{'.'.join(self._inside)} {what} {ast.unparse(node)[:60]}"
        names = {site.name for site in self._faults.sites}
        name, copy = where, 1
        while name in names or f"{name} enter" in names:
            copy += 1
            name = f"{where} ({copy})"
        if what == "with":
            self._faults.sites.append(Site(f"{name} enter", after=False))
            self._faults.sites.append(Site(f"{name} exit", before=False))
        else:
            self._faults.sites.append(Site(name, before=before, after=after))
        return name

    def _call(self, method: str, site: str, node: ast.expr) -> ast.Call:
        switchboard = ast.Name("__faults__", ast.Load())
        function = ast.Attribute(switchboard, method, ast.Load())
        return ast.copy_location(ast.Call(function, [ast.Constant(site), node], []), node)

    def _named(self, node: Any) -> Any:
        self._inside.append(node.name)
        self.generic_visit(node)
        self._inside.pop()
        return node

    visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _named  # noqa: N815  # ast's names

    def visit_Await(self, node: ast.Await) -> ast.Await:
        self.generic_visit(node)
        function = node.value.func if isinstance(node.value, ast.Call) else None
        called = getattr(function, "attr", getattr(function, "id", ""))
        site = self._site(
            node.value,
            before=called != "__aexit__",
            after=called not in ("__aenter__", _NEVER_RETURNS),
            what="await",
        )
        method = "wait_for_nothing" if called == _NEVER_RETURNS else "wait"
        node.value = self._call(method, site, node.value)
        return node

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AsyncWith:
        self.generic_visit(node)
        for item in node.items:
            site = self._site(item.context_expr, what="with")
            item.context_expr = self._call("block", site, item.context_expr)
        return node

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AsyncFor:
        self.generic_visit(node)
        node.iter = self._call("steps", self._site(node.iter, what="for"), node.iter)
        return node


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, faults: Faults) -> None:
        super().__init__(name, path)
        self._faults = faults

    def path_stats(self, path: str) -> Any:
        raise OSError(path)  # no use of bytecode, and none written

    def source_to_code(  # type: ignore[override]  # a method, as in the base class at run time
        self, data: Any, path: Any, *, _optimize: int = -1
    ) -> CodeType:
        tree = ast.parse(data, path)
        if not self.name.startswith(_LEFT_ALONE):
            tree = _Instrument(self.name, self._faults).visit(tree)
            ast.fix_missing_locations(tree)
        code: CodeType = builtins.compile(tree, path, "exec")
        return code

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__faults__"] = self._faults
        super().exec_module(module)


class _Finder:
    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] not in _PACKAGES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(name, spec.loader.path, self._faults)
        return spec


@contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """Take the packages out of ``sys.modules`` for a while, and put them back as they were."""

    def loaded() -> dict[str, ModuleType]:
        return {name: sys.modules[name] for name in sys.modules if name.partition(".")[0] in names}

    before = loaded()
    for name in before:
        del sys.modules[name]
    try:
        yield
    finally:
        for name in loaded():
            del sys.modules[name]
        sys.modules.update(before)


@cache
def instrumented() -> tuple[Any, Any, Faults]:
    """Return instrumented copies of ``parallel_agent`` and ``session``, and the switchboard.

    The same ones each time: to make them takes seconds.
    """
    faults = Faults()
    finder: Any = _Finder(faults)
    with _without(_PACKAGES):
        sys.meta_path.insert(0, finder)
        try:
            front_door = importlib.import_module("parallel_agent")
            session = importlib.import_module("session")
        finally:
            sys.meta_path.remove(finder)
    return front_door, session, faults
