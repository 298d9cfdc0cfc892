"""Models by their names: ``ollama/qwen2.5:7b``."""

from __future__ import annotations

from parallel_agent.errors import TreeError
from parallel_agent.llm.model import Model
from parallel_agent.model_errors import MissingExtraError

__all__ = ["as_model"]


def as_model(given: object, whose: str) -> Model:
    """Return a model as it is, and that of a name at the server that the name says.

    Raises:
        TreeError: it is neither.
        MissingExtraError: the SDK is not installed.
        ModelAuthError: the server wants a key, and there is none.
    """
    if isinstance(given, Model):
        return given
    if not isinstance(given, str) or not given:
        message = f"model of {whose!r} is a Model or the name of one, not {given!r:.80}"
        raise TreeError(message)
    try:
        from parallel_agent.llm.openai_model import OpenAIModel  # an extra
    except ImportError as error:
        package = error.name or "openai"
        raise MissingExtraError("a model at a server", package, "openai") from error
    return OpenAIModel(given)
