"""How often, how long to wait, and which failures are worth it. No event loop, no clock."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from parallel_agent.errors import (
    AgentTimeoutError,
    QuorumError,
    StateConflictError,
    TreeError,
    UsageError,
)
from parallel_agent.model_errors import ModelRateLimitError
from parallel_agent.retry import Retry
from tests.support.ids import shown

SECONDS = st.one_of(st.integers(0, 10**6), st.floats(1e-9, 1e9))
FACTORS = st.one_of(st.integers(1, 100), st.floats(1, 100), st.floats(1, 1e300))


def any_retry() -> st.SearchStrategy[Retry]:
    return st.builds(
        Retry,
        initial_delay=SECONDS,
        max_delay=SECONDS,
        backoff_factor=FACTORS,
        jitter=st.floats(0, 1),
    )


class Fixed(Random):
    """A random source that always says the same, between -1 and 1."""

    def __init__(self, says: float) -> None:
        super().__init__()
        self.says = says
        self.asked = 0

    def uniform(self, a: float, b: float) -> float:
        assert (a, b) == (-1, 1)
        self.asked += 1
        return self.says


def exact(retry: Retry, attempt: int) -> float:
    """The delay without jitter, worked out in logarithms: an independent sum, good to 1e-9."""
    if not retry.initial_delay:
        return 0.0
    log = math.log(retry.initial_delay) + (attempt - 1) * math.log(retry.backoff_factor)
    return min(math.exp(log), retry.max_delay) if log < 709 else retry.max_delay


# ------------------------------------------------------------------------------------------ delays


@given(SECONDS, SECONDS, FACTORS, st.integers(1, 5_000))
def test_without_jitter_a_delay_grows_by_the_factor_up_to_the_most(
    initial: float, most: float, factor: float, attempt: int
) -> None:
    retry = Retry(2, initial_delay=initial, max_delay=most, backoff_factor=factor, jitter=0)
    assert retry.delay(attempt, Fixed(1)) == pytest.approx(exact(retry, attempt), rel=1e-6)


@given(any_retry(), st.integers(1, 5_000), st.randoms())
def test_no_delay_is_longer_than_the_most_jitter_included(
    retry: Retry, attempt: int, random: Random
) -> None:
    assert 0 <= retry.delay(attempt, random) <= retry.max_delay


@given(any_retry(), st.integers(1, 5_000), st.floats(-1, 1))
def test_jitter_is_its_share_of_the_delay_and_no_more(
    retry: Retry, attempt: int, said: float
) -> None:
    base = exact(attrs.evolve(retry, max_delay=1e308), attempt)
    assume(base < 1e307)
    expected = min(base * (1 + retry.jitter * said), retry.max_delay)
    assert retry.delay(attempt, Fixed(said)) == pytest.approx(expected, rel=1e-6, abs=1e-300)


@pytest.mark.parametrize(("said", "expected"), [(-1, 7.5), (0, 10), (1, 12.5)])
def test_jitter_goes_both_ways(said: float, expected: float) -> None:
    assert Retry(2, initial_delay=10, jitter=0.25).delay(1, Fixed(said)) == expected


def test_the_cap_holds_after_jitter_and_not_before() -> None:
    retry = Retry(2, initial_delay=10, max_delay=11, jitter=0.5)
    assert retry.delay(1, Fixed(1)) == 11
    # Cut to eleven first and then halved, this would be five and a half.
    assert retry.delay(2, Fixed(-1)) == 10


@pytest.mark.parametrize("jitter", [0, 0.1, 1])
def test_chance_is_asked_once_for_each_delay(jitter: float) -> None:
    """Whatever the jitter: so what comes of a seed does not hang on one agent's options."""
    random = Fixed(0.5)
    Retry(2, jitter=jitter).delay(1, random)
    assert random.asked == 1


@given(st.integers(), st.integers(1, 9))
def test_the_same_seed_gives_the_same_delays(seed: int, count: int) -> None:
    retry = Retry(count + 1, jitter=1)

    def delays() -> list[float]:
        random = Random(seed)  # noqa: S311  # jitter, no secret
        return [retry.delay(attempt, random) for attempt in range(1, count + 1)]

    assert delays() == delays()


def test_by_default_a_delay_starts_at_a_second_doubles_and_stops_at_a_minute() -> None:
    retry = Retry()
    assert retry.max_attempts == 3
    assert [retry.delay(attempt, Fixed(0)) for attempt in range(1, 9)] == [
        1, 2, 4, 8, 16, 32, 60, 60,
    ]  # fmt: skip


@pytest.mark.parametrize("jitter", [0, 0.5, 1])
@pytest.mark.parametrize("attempt", [1_100, 10**6])
@pytest.mark.parametrize(("initial", "factor"), [(1, 2), (1.0, 2), (1, 2.0), (0.1, 1e300)])
def test_a_delay_too_large_for_a_number_is_the_most(
    initial: float, factor: float, attempt: int, jitter: float
) -> None:
    retry = Retry(2, initial_delay=initial, backoff_factor=factor, jitter=jitter)
    assert retry.delay(attempt, Fixed(0.5)) == 60


@pytest.mark.parametrize("attempt", [1, 2, 5_000])
def test_no_initial_delay_is_never_a_delay(attempt: int) -> None:
    assert Retry(2, initial_delay=0, backoff_factor=10).delay(attempt, Fixed(1)) == 0


# ------------------------------------------------------------------------------ what is worth it


class OwnError(ValueError):
    pass


def test_by_default_every_failure_is_worth_it_but_a_mistake_in_the_code() -> None:
    retry = Retry()
    assert retry.wants(ValueError())
    assert retry.wants(AgentTimeoutError("a", None, "timeout", 1))
    assert retry.wants(StateConflictError("k", "a", "b"))
    assert not retry.wants(UsageError())
    assert not retry.wants(TreeError())


@pytest.mark.parametrize("retry", [Retry(), Retry(on=lambda _: True)], ids=["any", "asked"])
def test_what_is_no_failure_is_never_worth_it(retry: Retry) -> None:
    assert not retry.wants(KeyboardInterrupt())
    assert not retry.wants(SystemExit())
    assert not retry.wants(BaseExceptionGroup("", [ValueError(), KeyboardInterrupt()]))


def test_a_type_wants_its_subclasses_too() -> None:
    retry = Retry(on=ValueError)
    assert retry.wants(ValueError())
    assert retry.wants(OwnError())
    assert not retry.wants(KeyError())


def test_a_tuple_wants_what_is_any_of_its_types() -> None:
    retry = Retry(on=(OwnError, KeyError))
    assert retry.wants(OwnError())
    assert retry.wants(KeyError())
    assert not retry.wants(ValueError())


def test_a_usage_error_is_worth_it_if_asked_for() -> None:
    assert Retry(on=UsageError).wants(TreeError())
    assert Retry(on=lambda _: True).wants(TreeError())


def test_a_function_decides_by_the_exception() -> None:
    retry = Retry(on=lambda error: str(error) == "busy")
    assert retry.wants(ValueError("busy"))
    assert not retry.wants(ValueError("gone"))


def test_what_a_function_says_counts_by_its_truth() -> None:
    def says(error: Exception) -> bool:
        return error.args  # type: ignore[return-value]  # as users will

    assert Retry(on=says).wants(ValueError("x")) is True
    assert Retry(on=says).wants(ValueError()) is False


@given(st.recursive(st.booleans(), lambda inside: st.lists(inside, min_size=1, max_size=3)))
def test_a_group_is_worth_it_if_everything_in_it_is(shape: Any) -> None:
    def build(shape: Any) -> Exception:
        if isinstance(shape, list):
            return ExceptionGroup("group", [build(inside) for inside in shape])
        return KeyError() if shape else ValueError()

    def every(shape: Any) -> bool:
        return all(every(inside) for inside in shape) if isinstance(shape, list) else shape

    error = build(shape)
    assert Retry(on=KeyError).wants(error) == every(shape)
    assert Retry(on=lambda one: isinstance(one, KeyError)).wants(error) == every(shape)


def test_a_lost_quorum_is_a_group_like_any_other() -> None:
    lost = QuorumError(0, 1, 2, [KeyError(), OSError()])
    assert Retry(on=(KeyError, OSError)).wants(lost)
    assert not Retry(on=KeyError).wants(lost)
    assert not Retry().wants(QuorumError(0, 1, 2, [KeyError(), TreeError()]))


def test_a_group_is_worth_it_if_its_own_type_is_given() -> None:
    lost = QuorumError(0, 1, 2, [KeyError(), OSError()])
    assert Retry(on=QuorumError).wants(lost)
    assert Retry(on=(OwnError, ExceptionGroup)).wants(lost)
    assert not Retry(on=QuorumError).wants(ExceptionGroup("", [KeyError()]))


# -------------------------------------------------------------------------------------- arguments


async def ask_somebody(_error: Exception) -> bool:
    """What cannot be a condition: what a call gives is true, whatever it says."""
    return False


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_attempts": 0}, "max_attempts is a whole number from 1 on, not 0"),
        ({"max_attempts": True}, "max_attempts is a whole number from 1 on, not True"),
        ({"max_attempts": 2.0}, "max_attempts is a whole number from 1 on, not 2.0"),
        ({"max_attempts": None}, "max_attempts is a whole number from 1 on, not None"),
        ({"initial_delay": -1}, "initial_delay is seconds, 0 or more, not -1"),
        ({"initial_delay": "1"}, "initial_delay is seconds, 0 or more, not '1'"),
        ({"initial_delay": math.nan}, "initial_delay is seconds, 0 or more, not nan"),
        ({"max_delay": 10**400}, "max_delay is seconds, 0 or more, not 1000"),
        ({"max_delay": math.inf}, "max_delay is seconds, 0 or more, not inf"),
        ({"max_delay": False}, "max_delay is seconds, 0 or more, not False"),
        ({"backoff_factor": 0.5}, "backoff_factor is a number from 1 on, not 0.5"),
        ({"backoff_factor": math.inf}, "backoff_factor is a number from 1 on, not inf"),
        ({"jitter": 1.5}, "jitter is a share of the delay, from 0 to 1, not 1.5"),
        ({"jitter": -0.1}, "jitter is a share of the delay, from 0 to 1, not -0.1"),
        ({"on": ()}, "on is an exception type, several in a tuple, or a function, not ()"),
        ({"on": KeyboardInterrupt}, "on is an exception type"),
        ({"on": (ValueError, KeyboardInterrupt)}, "on is an exception type"),
        ({"on": (ValueError, lambda _: True)}, "on is an exception type"),
        ({"on": [ValueError]}, "on is an exception type"),
        ({"on": ValueError()}, "on is an exception type"),
        ({"on": int}, "on is an exception type"),
        ({"on": ask_somebody}, "on is an exception type"),
    ],
    ids=shown,
)
def test_an_argument_out_of_its_range_is_refused_by_name(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match="is") as caught:
        Retry(**options)
    assert str(caught.value).startswith(said)


def test_it_is_a_value() -> None:
    assert Retry(2, on=KeyError) == Retry(max_attempts=2, on=KeyError)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Retry().max_attempts = 4  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize(("asked", "expected"), [(None, 1), (0.5, 1), (5, 5), (500, 60)])
def test_a_server_that_has_had_too_many_requests_is_given_time(
    asked: float | None, expected: float
) -> None:
    retry = Retry(initial_delay=1, jitter=0, max_delay=60)
    error = ModelRateLimitError("slow down", retry_after=asked)
    assert retry.delay(1, Random(1), error) == expected  # noqa: S311  # jitter is no secret
    assert retry.delay(1, Random(1), ValueError()) == 1  # noqa: S311  # as above
