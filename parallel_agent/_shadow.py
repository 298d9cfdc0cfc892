"""Find out whether another ``session`` hides ours, before it is executed."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

__all__ = ["refuse_shadowed_session"]


def refuse_shadowed_session(front_door: str) -> None:
    """Check that ``import session`` finds the package installed beside this one.

    Args:
        front_door: the file of ``parallel_agent/__init__.py``.

    Raises:
        ImportError: something else would be imported; the message names the file and says to
            rename it. It has not been executed by this check.
    """
    ours = Path(front_door).parent.parent / "session" / "__init__.py"
    loaded = sys.modules.get("session")
    spec = find_spec("session") if loaded is None else loaded.__spec__
    found = None if spec is None else spec.origin
    if found is None and loaded is not None:
        found = getattr(loaded, "__file__", None)
    if found is not None and Path(found).resolve() == ours.resolve():
        return
    if found is None:
        where = list(spec.submodule_search_locations or ()) if spec is not None else []
        if not where:
            message = (
                "the `session` package of parallel-agent is missing; install parallel-agent again"
            )
            raise ImportError(message, name="session")
        found = where[0]
    message = (
        f"{found} hides the `session` package that parallel_agent needs: "
        "rename that file (or folder), or take its folder off the import path"
    )
    raise ImportError(message, name="session", path=found)
