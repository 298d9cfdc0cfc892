"""The models of a file: each is given in code, or made of its entry when it is first asked.

Pure: no I/O. What speaks to servers is imported when a model is made, and not before: a file can
be checked and drawn where neither an SDK nor a key is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, final
from urllib.parse import urlsplit

from parallel_agent.config.format import ModelEntry
from parallel_agent.config.modules import near
from parallel_agent.config.problems import Problem
from parallel_agent.config.source import Source
from parallel_agent.errors import ConfigError
from parallel_agent.llm.model import Model
from parallel_agent.model_errors import MissingExtraError, ModelAuthError
from parallel_agent.schema._problems import shown

__all__ = ["SPOKEN_TO", "FileModel", "file_models"]

SPOKEN_TO: Final = ("openai", "ollama", "vllm", "llamacpp", "lmstudio")
"""What an entry may have as its ``llm``: the servers that `OpenAIModel` knows by these names."""


@final
class FileModel:
    """An entry of ``models``, and what answers for it.

    Args:
        entry: what the file says.
        given: the model that was given for it in code; None if it is to be made.
        place: the entry's place in the file, as it is named in an error.
        refusal: why none can be made of it; None if one can.
    """

    def __init__(
        self, entry: ModelEntry, given: Model | None, place: str, refusal: Problem | None
    ) -> None:
        """See the class."""
        self.entry: Final = entry
        self.given: Final = given
        self.refusal: Final = refusal
        self._place = place
        self._made: Model | None = given

    @property
    def name(self) -> str:
        """What the model is called."""
        entry = self.entry
        return f"{entry.llm} {entry.model}" if self.given is None else self.given.name

    def ready(self, whose: str) -> Model:
        """Return the model; ``whose`` is the node that asks it. The same one every time.

        Raises:
            ConfigError: nothing here speaks to its server.
            MissingExtraError: the SDK is not installed.
            ModelAuthError: the server wants a key, and there is none.
        """
        if self._made is None:
            self._made = self._make(whose)
        return self._made

    def _make(self, whose: str) -> Model:
        if self.refusal is not None:
            raise ConfigError([self.refusal])
        try:
            from parallel_agent.llm.openai_model import OpenAIModel  # an extra
        except ImportError as error:
            what, package = f"node {whose!r}, which asks a model,", error.name or "openai"
            raise MissingExtraError(what, package, "openai") from error
        entry = self.entry
        try:
            return OpenAIModel(
                f"{entry.llm}/{entry.model}", base_url=_base_of(entry.host), api_key=entry.api_key
            )
        except ModelAuthError as error:
            message = f"{self._place}, which node {whose!r} asks: {error}"
            raise ModelAuthError(message) from None


def _base_of(host: str | None) -> str | None:
    """Return where chat completions are: below ``/v1``, if a host is all that is said."""
    if not host:
        return None
    host = host.rstrip("/")
    return host if urlsplit(host).path else f"{host}/v1"


def file_models(
    entries: Sequence[ModelEntry], source: Source, given: Mapping[Any, Any]
) -> tuple[list[FileModel], list[Problem]]:
    """Return the models of a file, and what is wrong with those ``given``: by place or name."""
    problems: list[Problem] = []
    names = [entry.name for entry in entries if entry.name is not None]
    for key in given:
        if key not in names and not (type(key) is int and 0 <= key < len(entries)):
            there = f"there are {len(entries)}, named {', '.join(names)}" if names else ""
            hint = near(key, names) if isinstance(key, str) else ""
            why = f"a model was given for {shown(key)}, and the file has no such entry"
            why += hint or (f"; {there}" if there else "")
            problems.append(source.problem("models", why, at_key=True))
    made: list[FileModel] = []
    for index, entry in enumerate(entries):
        path = f"models[{index}]"
        keys = [key for key in (index, entry.name) if key is not None and key in given]
        model = given[keys[0]] if keys else None
        if len(keys) > 1:
            why = f"two models were given for this entry: by {keys[0]} and by {shown(keys[1])}"
            problems.append(source.problem(path, why))
        elif keys and not isinstance(model, Model):
            why = f"what was given for it is no Model: {shown(model)}"
            problems.append(source.problem(path, why))
        place = f"{source.file}:{source.problem(path, '').line}: {path}"
        made.append(FileModel(entry, model, place, _refusal(entry, index, source)))
    return made, problems


def _refusal(entry: ModelEntry, index: int, source: Source) -> Problem | None:
    if entry.llm in SPOKEN_TO:
        return None
    key = index if entry.name is None else entry.name
    why = (
        f"nothing here speaks to {shown(entry.llm)}, only to {', '.join(SPOKEN_TO)}"
        f"{near(entry.llm, SPOKEN_TO)}; for another, pass a model of your own: "
        f"load_graph(..., models={{{key!r:.80}: model}})"
    )
    return source.problem(f"models[{index}].llm", why)
