"""Sources to look at, and a defect of each kind to plant in somebody's package."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path

import attrs

from examples.code_health.findings import Finding
from examples.code_health.sources import Source, parse


def source(text: str, path: str = "module.py", packages: Iterable[str] = ()) -> Source:
    """A file that exists only here."""
    parsed = parse(path, textwrap.dedent(text).encode())
    assert parsed.tree is not None, parsed.problem
    return attrs.evolve(parsed, packages=tuple(packages))


def names(found: Iterable[Finding]) -> list[str]:
    return [finding["name"] for finding in found]


def lines(found: Iterable[Finding]) -> list[int]:
    return [finding["line"] for finding in found]


SHARED = """\
    total = 0
    for weight, value in sorted(values):
        if weight > total:
            total += weight * value
        values.append((total, weight))
    report = {"total": total, "values": values}
    return report, len(values), sum(weight for weight, _ in values)
"""

# The same but for its layout.
SHARED_AGAIN = """\
    total = 0  # so far

    for weight, value in sorted( values ):
        if weight>total:
            # it counts
            total += weight*value
        values.append( (total, weight) )

    report = {"total": total,  "values": values}
    return report, len(values), sum( weight for weight, _ in values )
"""


def plant(package: Path) -> set[tuple[str, str]]:
    """Plant a defect of each kind in a package; return their kinds and places."""

    def write(name: str, text: str) -> None:
        (package / name).write_text(text, encoding="utf-8")

    branches = "".join(
        f"    if value == {number}:\n        return {number}\n" for number in range(30)
    )
    steps = "".join(f"    value = value + {number}\n" for number in range(90))
    undocumented = "".join(f"def planted_{number}(): return {number}\n" for number in range(6))
    uses = "".join(f"planted_{number}()\n" for number in range(6))
    write("planted_broken.py", "def planted(:\n")
    write("planted_one.py", '"""One."""\nfrom . import planted_two\nprint(planted_two)\n')
    write("planted_two.py", '"""Two."""\nfrom . import planted_one\nprint(planted_one)\n')
    write("planted_import.py", "import zipfile\n")
    write("planted_dead.py", "def _planted_dead():\n    return 1\n")
    write("planted_copy.py", f"def _copied(values):\n{SHARED}\nprint(_copied)\n")
    write("planted_copy_again.py", f"def _again(values):\n{SHARED_AGAIN}\nprint(_again)\n")
    write("planted_complex.py", f"def _complex(value):\n{branches}\nprint(_complex)\n")
    write("planted_long.py", f"def _long(value):\n{steps}\nprint(_long)\n")
    write("planted_undocumented.py", undocumented + uses)
    write("planted_promise.py", "print(1)  # TODO: planted\n")
    return {
        ("parse", "planted_broken.py"),
        ("cycle", "planted_one.py"),
        ("unused_import", "planted_import.py"),
        ("dead_name", "planted_dead.py"),
        ("duplicate", "planted_copy.py"),
        ("complexity", "planted_complex.py"),
        ("length", "planted_long.py"),
        ("docstrings", "planted_undocumented.py"),
        ("todo", "planted_promise.py"),
    }
