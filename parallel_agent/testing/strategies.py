"""Hypothesis strategies: trees of agents, what they emit and write, and the orders they run in.

::

    @settings(deadline=None)  # a tree takes as long as it is large
    @given(agent_trees(failures=False), schedules())
    def test_the_order_makes_no_difference(tree, schedule):
        trial = run_once(lambda: tree, schedule)
        assert trial.result.state == run_once(lambda: tree).result.state

One drawn schedule for each tree finds little of what depends on the order. To find that, draw small
trees, and `explore` each of them.

Everything shrinks: a tree to the fewest agents and events that still fail the test, a schedule to
the fewest choices that are not the first. What fails is printed as code one can paste; it needs
what `parallel_agent` and `parallel_agent.testing` export.

Needs the extra ``testing``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

try:
    from hypothesis import strategies as st
except ModuleNotFoundError as _missing:
    if _missing.name != "hypothesis":
        raise
    _message = (
        "parallel_agent.testing.strategies needs Hypothesis: pip install 'parallel-agent[testing]'"
    )
    raise ImportError(_message, name="hypothesis") from None

from parallel_agent.agent import Agent
from parallel_agent.barrier import (
    Barrier,
    BestEffort,
    FailFast,
    FirstSuccess,
    Outcome,
    Quorum,
    WaitAll,
)
from parallel_agent.lifecycle import Status
from parallel_agent.testing.drawn import Allowed, draw_tree
from parallel_agent.testing.numbered import NumberedSchedule
from session.actions import EventActions
from session.content import Content, FunctionCall, FunctionResponse, InlineData, Text
from session.event import Event

__all__ = [
    "agent_trees",
    "contents",
    "events",
    "outcomes",
    "schedules",
    "state_keys",
    "state_values",
]

_POLICIES = (FailFast(), WaitAll(), BestEffort(), FirstSuccess(), Quorum(2))


# Trees, and orders.


def agent_trees(
    *,
    max_depth: int = 2,
    max_width: int = 3,
    max_steps: int = 4,
    policies: Iterable[Barrier] = _POLICIES,
    loops: bool = True,
    retries: bool = True,
    timeouts: bool = True,
    escalations: bool = True,
    failures: bool = True,
    clean_ups: bool = True,
    requests: bool = True,
    state: bool = True,
    contributions: Iterable[str] = (),
) -> st.SearchStrategy[Agent]:
    """Draw trees of scripted and workflow agents.

    Each comes to an end under every schedule, by itself: waiting is for some seconds, a question
    that nobody answers has a default, a loop has a last iteration. Run it on a virtual clock.
    (`Escalate`, if it is among ``policies``, asks a person who must answer.)

    Leaves are called ``a``, ``b``, ...; their events say ``a1``, ``a2``, ..., their failures are
    ``ValueError("a")``. Sequential, parallel and loop agents are ``s1``, ``p1``, ``l1``, ...

    Args:
        max_depth: how many levels of agents there are below the root.
        max_width: how many sub-agents an agent has.
        max_steps: how many steps a leaf's script has; likewise a clean-up, or a `within` in it.
        policies: what parallel agents do about failures; the first is the simplest.
        loops: have loop agents.
        retries: let some agents be tried twice.
        timeouts: give some agents a timeout, and scripts a `within`.
        escalations: let some leaves escalate.
        failures: let some leaves raise.
        clean_ups: let some leaves clean up, shielded or not.
        requests: let some leaves ask a person.
        state: let leaves write, read and add to state keys, and agents store their outputs.
        contributions: keys to which leaves contribute numbers; their runner needs reducers.
    """
    for name, size in (("max_depth", max_depth), ("max_steps", max_steps)):
        _check_size(name, size, 0)
    _check_size("max_width", max_width, 1)
    allowed = Allowed(
        width=max_width,
        steps=max_steps,
        policies=tuple(policies),
        loops=loops,
        retries=retries,
        timeouts=timeouts,
        escalations=escalations,
        failures=failures,
        clean_ups=clean_ups,
        requests=requests,
        state=state,
        contributions=tuple(contributions),
    )
    return draw_tree(allowed, max_depth)


def _check_size(name: str, size: object, least: int) -> None:
    if type(size) is not int or size < least:
        message = f"{name} is a whole number from {least} on, not {size!r:.80}"
        raise ValueError(message)


def schedules(*, max_choices: int = 30, among: int = 6) -> st.SearchStrategy[NumberedSchedule]:
    """Draw schedules for `run_once`, whatever the tree: who goes next, up to ``max_choices`` times.

    Each time one of the first ``among`` that can go: give more for trees that are wider.
    Afterwards, the first that can goes. Shrinks to the schedule in which it always does.
    """
    _check_size("max_choices", max_choices, 0)
    _check_size("among", among, 1)
    number = st.integers(0, among - 1)
    few = st.lists(number, max_size=min(max_choices, 8))
    many = st.lists(number, min_size=max_choices, max_size=max_choices)
    return st.builds(NumberedSchedule, few | many)


# State.

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_NAMES = st.sampled_from("xyz") | _TEXTS.filter(lambda text: ":" not in text and text != "")
_SCOPES = ("", "app:", "user:", "temp:")


def state_keys(*, scopes: Iterable[str] = _SCOPES) -> st.SearchStrategy[str]:
    """Draw keys of the state, of all scopes; the same ones often enough to meet."""
    return _scoped_names(st.sampled_from(tuple(scopes)))


@st.composite
def _scoped_names(draw: st.DrawFn, scopes: st.SearchStrategy[str]) -> str:
    return draw(scopes) + draw(_NAMES)


def state_values() -> st.SearchStrategy[Any]:
    """Draw what can be stored: JSON values."""
    return _VALUES


_NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)
_OBJECTS = st.dictionaries(_TEXTS, _VALUES, max_size=3)


# Events.


def contents() -> st.SearchStrategy[Content]:
    """Draw messages: texts, tool calls and their answers, data."""
    return _CONTENTS


_IDS = st.none() | _TEXTS
_PARTS = st.one_of(
    st.builds(Text, _TEXTS, st.booleans()),
    st.builds(FunctionCall, _TEXTS, _OBJECTS, _IDS),
    st.builds(FunctionResponse, _TEXTS, _OBJECTS, _IDS),
    st.builds(InlineData, st.binary(max_size=8), st.sampled_from(["text/plain", "image/png"])),
)
_CONTENTS = st.builds(
    Content, st.lists(_PARTS, max_size=3), st.sampled_from(["model", "user", None])
)


def events(*, partial: bool | None = None, escalations: bool = True) -> st.SearchStrategy[Event]:
    """Draw events as an agent emits them: not emitted yet, so each can be emitted once.

    Args:
        partial: have only partial events, or none; by default both.
        escalations: let some escalate.
    """
    actions = st.builds(
        EventActions,
        state_delta=st.dictionaries(state_keys(), _VALUES, max_size=3),
        escalate=st.booleans() if escalations else st.just(False),  # noqa: FBT003  # drawn
        skip_summarization=st.booleans(),
    )
    return st.builds(
        Event,
        st.none() | _TEXTS | _CONTENTS,
        actions=st.none() | actions,
        output=_VALUES,
        partial=st.booleans() if partial is None else st.just(partial),
        custom_metadata=_OBJECTS,
    )


def outcomes() -> st.SearchStrategy[Outcome]:
    """Draw how branches of a fan-out end, for policies of one's own.

    For those of one fan-out: ``st.lists(outcomes(), unique_by=lambda outcome: outcome.name)``.
    """
    return st.sampled_from("abcde").flatmap(_outcomes_of)


@functools.cache  # to make a strategy takes longer than to draw from it
def _outcomes_of(name: str) -> st.SearchStrategy[Outcome]:
    place = {"name": st.just(name), "path": st.just(f"fan/{name}")}
    took = {"attempts": st.integers(1, 3), "duration": st.floats(0, 100)}
    return st.one_of(
        st.builds(Outcome, **place, status=st.just(Status.COMPLETED), output=_VALUES, **took),
        st.builds(
            Outcome,
            **place,
            status=st.just(Status.FAILED),
            error=st.builds(ValueError, st.just(name)),
            own=st.booleans(),
            **took,
        ),
        st.builds(Outcome, **place, status=st.just(Status.CANCELLED), attempts=st.integers(0, 3)),
        st.builds(Outcome, **place, status=st.just(Status.WAITING), **took),
    )
