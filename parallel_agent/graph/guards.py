"""Guards: what runs before a graph, and may keep it from running.

Pure: no event loop, no clock.
"""

# Outputs are JSON, and so `Any`: pyright calls what is asked of them "unknown".
# pyright: reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from parallel_agent.barrier import Outcome
from parallel_agent.lifecycle import Status
from parallel_agent.notes import describe

__all__ = ["Refusal", "refusal_of"]

_KEY: Final = "refused_by"


@attrs.frozen
class Refusal:
    """A guard has kept a graph from running. The graph has completed, with this as its output.

    Attributes:
        guard: the guard's name.
        reason: what it said, or why it failed.
        error_type: the class of its error, if it failed; None if it said no.
    """

    guard: str
    reason: str = ""
    error_type: str | None = None

    @classmethod
    def of(cls, output: Any) -> Refusal | None:
        """Return what a graph's output says: ``Refusal.of(run.result.output)``; None if it ran."""
        fields: Mapping[str, Any] = output if isinstance(output, Mapping) else {}
        guard = fields.get(_KEY)
        if not isinstance(guard, str):
            return None
        return cls(guard, str(fields.get("reason", "")), fields.get("error_type"))

    def to_json(self) -> dict[str, Any]:
        """Return it as it is recorded."""
        return {_KEY: self.guard, "reason": self.reason, "error_type": self.error_type}


def refusal_of(guard: str, outcome: Outcome) -> Refusal | None:
    """Return what a guard's end means; None is a yes: True, or an object whose ``validation`` is.

    Whatever is neither yes nor no is no: a guard that was misunderstood guards nothing.
    """
    if outcome.error is not None:
        kind, said = describe(outcome.error)
        return Refusal(guard, said, kind)
    if outcome.status is not Status.COMPLETED:
        return Refusal(guard, f"it was {outcome.status}")
    output: Any = outcome.output
    fields: Mapping[str, Any] = output if isinstance(output, Mapping) else {"validation": output}
    answer, reason = fields.get("validation"), fields.get("reason", "")
    if answer is True:
        return None
    if answer is not False:
        reason = f"it answered neither yes nor no: {output!r:.80}"
    return Refusal(guard, reason if isinstance(reason, str) else f"{reason!r:.200}")
