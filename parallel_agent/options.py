"""What runs are opened with: the keyword arguments, and what is refused at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import attrs

from parallel_agent.claim import OnBusy
from parallel_agent.errors import MessageTypeError
from parallel_agent.invocation import RunConfig
from session.content import Content
from session.event import USER

__all__ = ["OpenOptions", "ResumeOptions", "as_message", "check_config", "check_resume"]


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
    on_busy: Literal["error", "queue"]


def check_resume(options: Mapping[str, Any]) -> None:
    """Refuse what a run cannot be resumed with.

    Raises:
        TypeError: there is no such option.
        ValueError: ``on_busy`` is none of its values.
        MessageTypeError: ``responses`` or ``run_config`` is of the wrong kind.
    """
    for name in options:
        if name not in ResumeOptions.__annotations__:
            known = ", ".join(ResumeOptions.__annotations__)
            message = f"a run is not resumed with {name!r}; there are {known}"
            raise TypeError(message)
    on_busy = options.get("on_busy", "error")
    if on_busy not in ("error", "queue"):
        message = f"on_busy of a run to be resumed is 'error' or 'queue', not {on_busy!r:.80}"
        raise ValueError(message)
    responses = options.get("responses")
    if responses is not None and not isinstance(responses, Mapping):
        wrong = f"responses is a mapping from ids of requests to answers, not {responses!r:.80}"
        raise MessageTypeError(wrong)
    check_config(options.get("run_config"))


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
