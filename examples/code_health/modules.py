"""Which file an import means."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

__all__ = ["Modules"]

Import: TypeAlias = ast.Import | ast.ImportFrom


class Modules:
    """The modules of a folder, by the names they are imported by.

    A file in a package (a folder with an ``__init__.py``) is named from its outermost package on.
    Any other is imported by its neighbours by its plain name, and from elsewhere by its path.
    """

    def __init__(self, paths: Iterable[str], packages: Sequence[str] = ()) -> None:
        """``packages``: the folder itself and those around it, as far as they are packages."""
        self._paths = frozenset(paths)
        self._packages = tuple(packages)
        self._places: dict[str, list[str]] = defaultdict(list)
        for path in sorted(self._paths):
            for name in {self.name(path), _dotted(path)}:
                self._places[name].append(path)

    def name(self, path: str) -> str:
        """Return the name of the module in a file."""
        *folders, last = path.removesuffix(".py").split("/")
        parts = [] if last == "__init__" else [last]
        while folders and "/".join([*folders, "__init__.py"]) in self._paths:
            parts.insert(0, folders.pop())
        if not folders and "__init__.py" in self._paths:
            parts = [*self._packages, *parts]
        return ".".join(parts) or last

    def find(self, name: str, importer: str) -> str | None:
        """Return the file that ``name`` means in an import of ``importer``, if it is one of these.

        A plain name that the standard library has too is only a neighbour's.
        """
        places = self._places.get(name, ())
        folder = importer.rpartition("/")[0]
        near = [path for path in places if path.rpartition("/")[0] == folder]
        if near and ("/".join(filter(None, [folder, "__init__.py"])) not in self._paths):
            return near[0]
        if len(places) != 1 or ("." not in name and name in sys.stdlib_module_names):
            return None
        return places[0] if "." in name or _is_for_all(places[0]) else None

    def targets(self, node: Import, importer: str) -> Iterator[tuple[str, str]]:
        """Yield the files that an import names, each with the name imported.

        The most particular ones: ``from a import b`` means the module ``a.b`` if there is one.
        The packages around a module are not among them, although they are imported first: each
        package would be in a cycle with whatever is in it.
        """
        if isinstance(node, ast.Import):
            for alias in node.names:
                path = self.find(alias.name, importer)
                if path is not None:
                    yield path, alias.name
            return
        for alias in node.names:
            path = self._member(node, alias.name, importer)
            if path is not None:
                yield path, alias.name

    def _member(self, node: ast.ImportFrom, name: str, importer: str) -> str | None:
        if not node.level:
            module = node.module or ""
            return self.find(f"{module}.{name}", importer) or self.find(module, importer)
        # By place and not by name: that holds without an `__init__.py` too.
        folders = importer.split("/")[:-1]
        up = node.level - 1
        if up > len(folders):
            return None
        parts = folders[: len(folders) - up] + (node.module.split(".") if node.module else [])
        return self._at([*parts, name]) or self._at(parts)

    def _at(self, parts: list[str]) -> str | None:
        inside = "/".join([*parts, "__init__.py"])
        if inside in self._paths:
            return inside
        path = "/".join(parts) + ".py"
        return path if path in self._paths else None


def _is_for_all(path: str) -> bool:
    """Whether everybody may import it by its plain name: a package, or what lies at the top.

    Further in, it may be a script that is called what a library is called.
    """
    folder, _, name = path.rpartition("/")
    return name == "__init__.py" or folder in {"", "src", "lib"}


def _dotted(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
