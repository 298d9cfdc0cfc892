"""What an activation does about its output: the newest one, and the state key it is stored under.

Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from parallel_agent.invocation import Invocation
from parallel_agent.overlay import State
from parallel_agent.schema import SchemaError
from parallel_agent.transfer import find_target
from session.event import Event

if TYPE_CHECKING:
    # For annotations only: an output is the agent's, but what keeps it asks for a name.
    from parallel_agent.activation import Activation
    from parallel_agent.agent import Agent

__all__ = ["KeepsOutput"]


class KeepsOutput:
    """The part of `parallel_agent.activation.Activation` that keeps its output."""

    __slots__ = ("_has_output", "_output_key", "_transfer_to", "_written_output", "output", "route")

    agent: Agent
    invocation: Invocation
    state: State

    def __init__(self, agent: Agent) -> None:
        """Have no output yet."""
        self.output: Any = None
        self.route: Any = None
        self._has_output = False
        self._output_key = agent.output_key
        self._transfer_to: Agent | None = None
        self._written_output: Any = None

    @property
    def has_output(self) -> bool:
        """Whether an event has given an output of its own, which a text does not replace."""
        return self._has_output

    def _output_after(self, event: Event) -> Any:
        """Return what the output is once ``event`` is recorded."""
        if event.output is not None:
            return event.output
        if not self._has_output and event.is_final and event.text:
            return event.text
        return self.output

    def forget_output(self) -> None:
        """Be without output again, and hand over to nobody: the attempt has failed."""
        self.output = self.route = self._written_output = self._transfer_to = None
        self._has_output = False

    def restore_output(self, events: Iterable[Event]) -> None:
        """Have the output that ``events`` have given, which are of an earlier execution."""
        for event in events:
            self._note_output(event)

    def _check_output(self, output: Any) -> None:
        key = cast("str", self._output_key)
        try:
            self.invocation.shared.check({key: output})
        except SchemaError as error:
            problems = [
                (path, f"{why} (the output of agent {self.agent.name!r}, whose output_key it is)")
                for path, why in error.problems
            ]
            raise SchemaError(problems, error.count) from None

    def _note_output(self, event: Event) -> None:
        if event.partial:
            return
        if event.transfer_to_agent is not None:
            self._transfer_to = find_target(cast("Activation", self), event.transfer_to_agent)
        if event.route is not None:
            self.route = event.route
        if event.output is not None:
            self.output = event.output
            self._has_output = True
        elif not self._has_output:
            self.output = event.final_text or self.output

    def _write_output(self, output: Any) -> None:
        if self._output_key in self.invocation.shared.reducers:
            return  # contributed once, at the end
        if output is not None and output is not self._written_output:
            try:
                self.state[cast("str", self._output_key)] = output
            except SchemaError:
                # Text on the way to an output that fits, perhaps; `store_output` has the last word.
                return
            self._written_output = output

    def store_output(self) -> None:
        """Write the final output under the agent's ``output_key``, if that has not happened yet.

        A leaf's output was written with the event it came from. A key with a reducer gets one
        contribution per activation, here.
        """
        key = self._output_key
        if key is None or self.output is None:
            return
        if key in self.invocation.shared.reducers:
            self.state.contribute(key, self.output)
        else:
            self._check_output(self.output)
            self._write_output(self.output)
