"""Handing over: which agent goes on in place of one that asks for it.

An event with ``actions.transfer_to_agent`` names an agent of the tree. It runs when the agent that
emitted the event has ended, in its place: on its branch, and for its output. Google ADK's transfer.

Pure: nothing here waits.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from parallel_agent.errors import TransferError

if TYPE_CHECKING:
    # For annotations only: an activation checks a transfer before it emits one.
    from parallel_agent.activation import Activation
    from parallel_agent.agent import Agent

__all__ = ["MAX_TRANSFERS", "find_target"]

MAX_TRANSFERS: Final = 25
"""How many agents may hand over to each other in a row."""


def find_target(activation: Activation, name: str) -> Agent:
    """Return the agent to hand over to.

    Looked for in the tree of the activation's agent, then in those around it.

    Raises:
        TransferError: nobody has that name; or it is the agent itself, or waits for it above; or
            too many have handed over already.
    """
    agent = activation.agent
    target: Agent | None = None
    above: Activation | None = activation
    while above is not None and target is None:
        target = above.agent.find_agent(name)
        above = above.parent
    if target is None:
        message = (
            f"agent {agent.name!r} cannot transfer to {name!r}: no agent has that name"
            f"{_hint(activation, name)}"
        )
        raise TransferError(message)
    if target is agent or _runs_above(activation, target):
        what = "itself" if target is agent else f"{name!r}, which stands above it"
        message = f"agent {agent.name!r} cannot transfer to {what}"
        raise TransferError(message)
    if activation.transfers >= MAX_TRANSFERS:
        message = (
            f"agent {agent.name!r} cannot transfer to {name!r}: {MAX_TRANSFERS} agents have "
            "handed over to each other already, and none has come to an end"
        )
        raise TransferError(message)
    return target


def _hint(activation: Activation, name: str) -> str:
    """Say which name was meant, or where names are looked for."""
    agents: dict[str, Agent] = {}
    above: Activation | None = activation
    while above is not None:
        line = [above.agent]
        for agent in line:
            if agent.name not in agents:
                agents[agent.name] = agent
                line.extend(agent.sub_agents)
        above = above.parent
    near = get_close_matches(name, agents, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return " (only agents of the tree count, not those that are started at run time)"


def _runs_above(activation: Activation, target: Agent) -> bool:
    """Whether ``target`` waits for this one: not so if it has handed over and ended by now."""
    below, above = activation, activation.parent
    while above is not None:
        if above.agent is target and above.transfers == below.transfers:
            return True
        below, above = above, above.parent
    return False
