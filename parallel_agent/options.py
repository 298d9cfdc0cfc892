"""What runs are opened with: the keyword arguments, and what is refused at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import attrs

from parallel_agent.claim import OnBusy
from parallel_agent.errors import MessageTypeError
from parallel_agent.invocation import RunConfig
from session.content import Content
from session.event import USER

__all__ = ["OpenOptions", "ResumeOptions", "as_message", "check_config"]


class OpenOptions(TypedDict, total=False):
    """The keyword arguments of `Runner.open` and `Runner.run`."""

    user_id: str
    session_id: str | None
    state_delta: Mapping[str, Any] | None
    run_config: RunConfig | None
    on_busy: OnBusy


class ResumeOptions(TypedDict, total=False):
    """The keyword arguments of `Runner.resume` and `Runner.reopen`, beside the session's id."""

    user_id: str
    invocation_id: str | None
    responses: Mapping[str, Any] | None
    run_config: RunConfig | None


def as_message(message: object) -> Content | None:
    """Return what the user says as content of the user's.

    Raises:
        MessageTypeError: it is neither text nor content, nor None.
    """
    if message is None:
        return None
    if isinstance(message, str):
        return Content(message, role=USER)
    if isinstance(message, Content):
        return attrs.evolve(message, role=USER)
    wrong = f"a message is text or a Content, not {type(message).__name__}: {message!r:.80}"
    raise MessageTypeError(wrong)


def check_config(run_config: object) -> None:
    """Refuse what is neither a `RunConfig` nor None.

    Raises:
        MessageTypeError: it is neither.
    """
    if run_config is not None and not isinstance(run_config, RunConfig):
        wrong = f"run_config must be a RunConfig, not {run_config!r:.80}"
        raise MessageTypeError(wrong)
