"""How often an agent is tried, and how long to wait before it is tried again.

Pure: no event loop, no clock, and no random source of its own.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias, cast

import attrs

from parallel_agent.errors import UsageError
from parallel_agent.model_errors import ModelRateLimitError
from parallel_agent.notes import members

__all__ = ["Retry", "RetryOn"]

RetryOn: TypeAlias = "type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]"
"""Which failures are worth another attempt: types, or a function that says."""


def _is_attempts(_retry: object, _attribute: object, value: object) -> None:
    if type(value) is not int or value < 1:
        message = f"max_attempts is a whole number from 1 on, not {value!r}"
        raise ValueError(message)


def _is_seconds(_retry: object, attribute: attrs.Attribute[Any], value: object) -> None:
    longest = sys.float_info.max  # a whole number can be too large for a float
    if type(value) not in (int, float) or not 0 <= value <= longest:  # type: ignore[operator]  # a number, see before
        message = f"{attribute.name} is seconds, 0 or more, not {value!r}"
        raise ValueError(message)


def _is_factor(_retry: object, _attribute: object, value: object) -> None:
    if type(value) not in (int, float) or not 1 <= value < math.inf:  # type: ignore[operator]  # as above
        message = f"backoff_factor is a number from 1 on, not {value!r}"
        raise ValueError(message)


def _is_share(_retry: object, _attribute: object, value: object) -> None:
    if type(value) not in (int, float) or not 0 <= value <= 1:  # type: ignore[operator]  # as above
        message = f"jitter is a share of the delay, from 0 to 1, not {value!r}"
        raise ValueError(message)


def _is_condition(_retry: object, _attribute: object, value: object) -> None:
    several = isinstance(value, tuple)
    kinds = cast("tuple[object, ...]", value) if several else (value,)
    are_types = all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds)
    is_function = callable(value) and not isinstance(value, type)
    if not kinds or not (are_types or (is_function and not inspect.iscoroutinefunction(value))):
        message = f"on is an exception type, several in a tuple, or a function, not {value!r}"
        raise ValueError(message)


@attrs.frozen
class Retry:
    """Try an agent that fails again, after a delay that grows.

    Before attempt ``n + 1`` it waits ``initial_delay * backoff_factor ** (n - 1)`` seconds, up to
    ``jitter`` times that more or less, and never more than ``max_delay``.

    A failure that an agent below has already been tried again for, as often as its own `Retry`
    allows, is not tried again: retries do not multiply.

    Args:
        max_attempts: how often it is tried in all, the first included.
        initial_delay: seconds before the second attempt.
        max_delay: seconds, the most that any delay may be, jitter included.
        backoff_factor: by how much each delay is longer than the one before.
        jitter: the share of a delay that is left to chance, from 0 to 1.
        on: which failures are worth another attempt: exception types, or a function of the
            exception. By default all but `UsageError`, which would only come again. A group
            (several branches failed) is, if everything in it is, or if its own type is given.

    Raises:
        ValueError: an argument is out of its range.
    """

    max_attempts: int = attrs.field(default=3, validator=_is_attempts)
    initial_delay: float = attrs.field(default=1.0, kw_only=True, validator=_is_seconds)
    max_delay: float = attrs.field(default=60.0, kw_only=True, validator=_is_seconds)
    backoff_factor: float = attrs.field(default=2.0, kw_only=True, validator=_is_factor)
    jitter: float = attrs.field(default=0.1, kw_only=True, validator=_is_share)
    on: RetryOn = attrs.field(default=Exception, kw_only=True, validator=_is_condition)

    def delay(self, attempt: int, random: Random, error: BaseException | None = None) -> float:
        """Return the seconds to wait after ``attempt``, counted from 1, has failed with ``error``.

        Not less than a server wants that has had too many requests (`ModelRateLimitError`), as
        far as ``max_delay`` allows.
        """
        delay = self._delay(attempt, random)
        wanted = error.retry_after if isinstance(error, ModelRateLimitError) else None
        return delay if wanted is None else min(max(delay, wanted), self.max_delay)

    def _delay(self, attempt: int, random: Random) -> float:
        try:
            # A float all along: whole numbers would grow past what can be multiplied.
            base = self.initial_delay * float(self.backoff_factor) ** (attempt - 1)
        except OverflowError:
            base = math.inf if self.initial_delay else 0.0
        share = 1 + self.jitter * random.uniform(-1, 1)
        # Infinity times a share of nothing is not a number.
        return self.max_delay if base == math.inf else min(base * share, self.max_delay)

    def wants(self, error: BaseException) -> bool:
        """Return whether a failure is worth another attempt."""
        inside = members(error)
        if inside and not self._names_group(error):
            return all(self.wants(one) for one in inside)
        if not isinstance(error, Exception):
            return False
        on = self.on
        if isinstance(on, (type, tuple)):
            return isinstance(error, on) and not (on is Exception and isinstance(error, UsageError))
        return bool(on(error))

    def _names_group(self, error: BaseException) -> bool:
        on: object = self.on
        kinds = cast("tuple[object, ...]", on) if isinstance(on, tuple) else (on,)
        matching = [kind for kind in kinds if isinstance(kind, type) and isinstance(error, kind)]
        return any(issubclass(kind, BaseExceptionGroup) for kind in matching)
