"""Names for the cases of a test that are the same each time: what processes share the work by."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

__all__ = ["shown"]


def shown(value: object) -> str:
    """Return the ``repr``, without addresses, and with sets in order."""
    if isinstance(value, AbstractSet) and value:
        return f"{{{', '.join(sorted(map(repr, value)))}}}"
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(value))
