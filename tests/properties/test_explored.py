"""Small cores of the runtime on every schedule there is, larger ones on many.

`tests.support.core_laws` says what must hold, by what the agents noted themselves. Numbers of
schedules are stated: a kernel or an explorer that loses some would pass everything else.

The last part plants one bug at a time into the kernel: a law that notices none proves nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import copy_context
from itertools import combinations_with_replacement
from random import Random
from traceback import extract_tb
from typing import Any, Final, Self, TypeAlias

import attrs
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.lowlevel import checkpoint, current_task, reschedule

from parallel_agent import (
    Barrier,
    BestEffort,
    BranchCancelledError,
    Escalate,
    Event,
    FailFast,
    FirstSuccess,
    Outcome,
    Quorum,
    QuorumError,
    WaitAll,
    crew,
    drive,
    fan_out,
)
from parallel_agent.activation import Activation
from parallel_agent.branch import EVERYTHING, Branch
from parallel_agent.crew import Crew, Task
from parallel_agent.drive import activate
from parallel_agent.lane import Slot
from parallel_agent.lifecycle import Step
from parallel_agent.stream import Stream
from parallel_agent.testing import Exploration, ExplorationError, explore
from parallel_agent.testing.control import Chooser
from parallel_agent.testing.schedule import AtRandom, ByPriority
from parallel_agent.workflow import parallel
from session import in_memory
from tests.support import core_laws
from tests.support.core_drawing import cores
from tests.support.core_laws import LAWS, End, Law, hold, is_answer
from tests.support.cores import (
    Choice,
    Core,
    Fan,
    Ring,
    Row,
    Worker,
    explored_by,
    perform,
)


def explored(core: Core, laws: Sequence[Law] = LAWS, **options: Any) -> Exploration:
    """Run a core on its schedules, and assert the laws on each."""
    runs = explored_by(core)
    checked = 0

    def check(_result: object) -> None:
        nonlocal checked
        checked += 1
        for law in laws:
            law(runs.book)

    exploration = explore(
        runs.make_tree,
        check,
        allow=Exception,  # what may be raised, a law says
        read=runs.read,
        make_runner=runs.make_runner,
        **{"max_schedules": 50_000, **options},
    )
    assert checked >= exploration.schedules, "some runs could not be opened"
    return exploration


# Every pair of branches, under every policy.

BRANCHES: Final = (
    Worker("x", "write say"),
    Worker("x", "say fail"),
    Worker("x", "nap fail"),
    Worker("x", "say stop say"),
    Worker("x", "share say", clean_up="nap say"),
    Worker("x", "nap nap win", when_cancelled="returns"),
    Worker("x", "write nap say", clean_up="say", when_cancelled="fails"),
    Worker("x", "write fail", again="write win", tries=2),
)
"""What a branch may do: record, fail late and early, escalate, clean up for a while, swallow its
cancellation and return a value, fail in cleaning up, succeed at its second attempt."""


SHORT: Final = (
    Worker("x", "nap fail"),
    Worker("x", "stop nap"),
    Worker("x", "share", clean_up="say"),
    Worker("x", "nap win", when_cancelled="returns"),
)
"""The same in short. Their pairs are run each time, triples of these and pairs of the others in
`make deep`."""

TRIED_AGAIN: Final = Worker("x", "fail", again="win")
"""What fails in triples in which a person has it tried again, and in each only one branch: question
and answer may come between any two steps of the others, and three who ask make tens of thousands
of schedules. Pairs of them are among the pairs."""


@attrs.frozen
class Covered:
    """A policy, and on how many schedules at least pairs of some branches, of all, and triples run.

    At least: so many were seen, and a reduction that takes more steps to depend on each other runs
    more.
    """

    policy: Barrier
    some: int
    pairs: int
    triples: int
    answer: Choice = "skip"


POLICIES: Final = {
    "FailFast": Covered(FailFast(), 76, 1_375, 4_041),
    "WaitAll": Covered(WaitAll(), 65, 1_272, 3_468),
    "BestEffort": Covered(BestEffort(), 65, 1_272, 3_468),
    "FirstSuccess": Covered(FirstSuccess(), 112, 2_099, 14_037),
    "Quorum": Covered(Quorum(2), 102, 1_879, 8_308),
    "Escalate, skipped": Covered(Escalate(), 91, 1_579, 6_011),
    "Escalate, aborted": Covered(Escalate(), 91, 1_579, 5_855, "abort"),
    "Escalate, retried": Covered(Escalate(), 294, 4_168, 12_207, "retry"),
}


def combined(covered: Covered, width: int, drawn_from: Sequence[Worker]) -> Iterator[Core]:
    """All cores of that many branches under a policy."""
    for branches in combinations_with_replacement(drawn_from, width):
        if branches.count(TRIED_AGAIN) > 1:
            continue
        members = [
            attrs.evolve(branch, name=name) for name, branch in zip("abc", branches, strict=False)
        ]
        if covered.answer == "retry":
            members = [
                member if member.again else attrs.evolve(member, again="say") for member in members
            ]
        yield Core(Fan("p", members, covered.policy), answers=(covered.answer,))


def exhausted(some: Iterable[Core]) -> int:
    """Run each on all its schedules, and return how many these were."""
    schedules = 0
    for core in some:
        exploration = explored(core)
        assert exploration.exhausted, core
        schedules += exploration.schedules
    return schedules


@pytest.mark.parametrize("name", POLICIES)
def test_pairs_of_branches_obey_the_laws_on_every_schedule(name: str) -> None:
    covered = POLICIES[name]
    assert exhausted(combined(covered, 2, SHORT)) >= covered.some


@pytest.mark.deep
@pytest.mark.parametrize("name", POLICIES)
def test_every_pair_of_branches_obeys_the_laws_on_every_schedule(name: str) -> None:
    covered = POLICIES[name]
    assert exhausted(combined(covered, 2, BRANCHES)) >= covered.pairs


@pytest.mark.deep
@pytest.mark.parametrize("name", POLICIES)
def test_triples_of_branches_obey_the_laws_on_every_schedule(name: str) -> None:
    covered = POLICIES[name]
    short = SHORT if covered.answer != "retry" else (TRIED_AGAIN, *SHORT[1:])
    assert exhausted(combined(covered, 3, short)) >= covered.triples


# What else a tree is made of, on every schedule.

_TIDY: Final = Worker("a", "write say say", clean_up="nap say")
_MESSY: Final = Worker("b", "share say", when_cancelled="fails")
_READ: Final = Fan("p", [_TIDY, _MESSY])

CORES: Final[dict[str, tuple[Core, int]]] = {
    "a fan-out in a fan-out, which fails": (
        Core(
            Fan(
                "p",
                [Fan("q", [Worker("a"), Worker("b", "say fail")], WaitAll()), Worker("c", "say")],
            )
        ),
        696,
    ),
    "a fan-out in a fan-out, which is cancelled": (
        Core(
            Fan(
                "p",
                [Fan("q", [_TIDY, Worker("b", "look")]), Worker("c", "nap win")],
                FirstSuccess(),
            )
        ),
        820,
    ),
    "a fan-out in a fan-out that has lost its quorum": (
        Core(
            Fan(
                "p",
                [
                    Fan("q", [Worker("a", "fail"), Worker("b", "nap say")], Quorum(2)),
                    Worker("c", "say", clean_up="say"),
                ],
            )
        ),
        216,
    ),
    "an escalation in a fan-out in a fan-out": (
        Core(
            Fan(
                "p",
                [Fan("q", [Worker("a", "stop say"), Worker("b", "write")]), Worker("c", "look")],
            )
        ),
        86,
    ),
    "three branches, of which one escalates and one fails": (
        Core(
            Fan(
                "p",
                [
                    Worker("a", "stop"),
                    Worker("b", "nap fail"),
                    Worker("c", "write", when_cancelled="returns"),
                ],
            )
        ),
        65,
    ),
    "a loop in a fan-out, which its escalation ends": (
        Core(Fan("p", [Ring("l", [Worker("a", "stop")], 9), Worker("b", "say look")])),
        12,
    ),
    "a loop around a fan-out, of which one escalates": (
        Core(Ring("l", [Fan("p", [Worker("a", "stop"), Worker("b", "say say")])], 3)),
        15,
    ),
    "sequences in a fan-out": (
        Core(
            Fan(
                "p",
                [
                    Row("s", [Worker("a", "write"), Worker("b", "look fail")]),
                    Row("t", [Worker("c", "say"), Worker("d", "share", clean_up="say")]),
                ],
            )
        ),
        354,
    ),
    "an open fan-out": (
        Core(Fan("p", [Worker("a", "say look"), Worker("b", "write")], kind="open")),
        858,
    ),
    "an open fan-out, of which a branch fails": (
        Core(Fan("p", [Worker("a", "fail"), Worker("b", "say", clean_up="say")], kind="open")),
        97,
    ),
    "a map under a limit of one": (
        Core(Fan("p", [Worker("a", "write say")], limit=1, kind="map", width=3)),
        1,
    ),
    "a map under a limit of two": (
        Core(Fan("p", [Worker("a", "write say")], limit=2, kind="map", width=3)),
        66,
    ),
    "a limit of two, and one that fails": (
        Core(
            Fan(
                "p",
                [Worker("a", "say"), Worker("b", "say fail"), Worker("c", "say", clean_up="say")],
                limit=2,
            )
        ),
        46,
    ),
    "a retry beside a failure": (
        Core(
            Fan(
                "p",
                [
                    Worker("a", "write say fail", again="write say", tries=2),
                    Worker("b", "say say fail"),
                ],
            )
        ),
        584,
    ),
    "two retries": (
        Core(
            Fan(
                "p",
                [
                    Worker("a", "share fail", again="share say", tries=2),
                    Worker("b", "share say fail", again="look fail", tries=2),
                ],
                BestEffort(),
            )
        ),
        68,
    ),
    "a question that the reader answers": (
        Core(Fan("p", [Worker("a", "write ask say"), Worker("b", "share look say")])),
        91,
    ),
    "a question beside a failure": (
        Core(Fan("p", [Worker("a", "ask say", clean_up="say"), Worker("b", "nap fail")])),
        35,
    ),
    "a reader that breaks at once": (Core(_READ, "break", 0), 1),
    "a reader that breaks after one event": (Core(_READ, "break", 1), 98),
    "a reader that breaks after three events": (Core(_READ, "break", 3), 65),
    "a reader that raises": (Core(_READ, "raise", 2), 262),
    "a reader that is cancelled": (Core(_READ, "scope", 2), 171),
    "a slow reader": (attrs.evolve(Core(_READ), pause=1), 4),
    "a reader that cancels the run": (Core(_READ, "run.cancel", 1), 98),
    "a reader that cancels a question": (
        Core(Fan("p", [Worker("a", "ask"), Worker("b", "say fail")], Escalate()), "run.cancel", 2),
        199,
    ),
}
"""Each with a number of schedules that it has at least: so many were seen."""

LONG: Final = {
    "a fan-out in a fan-out, which fails",
    "a fan-out in a fan-out, which is cancelled",
    "a fan-out in a fan-out that has lost its quorum",
    "sequences in a fan-out",
    "an open fan-out",
    "a retry beside a failure",
    "an open fan-out, of which a branch fails",
    "a reader that raises",
    "a reader that is cancelled",
    "a reader that cancels the run",
    "a reader that cancels a question",
}
"""Those with about a hundred schedules and more."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.deep] if name in LONG else []) for name in CORES],
)
def test_a_core_obeys_the_laws_on_every_schedule(name: str) -> None:
    core, schedules = CORES[name]
    exploration = explored(core)
    assert exploration.exhausted
    assert exploration.schedules >= schedules


UNREDUCED: Final = {
    "a branch that fails beside one that records": (
        Core(Fan("p", [Worker("a", "say"), Worker("b", "fail")])),
        4,
    ),
    "a branch that escalates beside one that cleans up": (
        Core(Fan("p", [Worker("a", "stop"), Worker("b", "nap", clean_up="say")])),
        13,
    ),
    "a race": (Core(Fan("p", [Worker("a", "win"), Worker("b", "nap")], FirstSuccess())), 10),
}


@pytest.mark.parametrize("name", UNREDUCED)
def test_nothing_hides_behind_the_reduction(name: str) -> None:
    """Every order of every step, those that nobody can tell apart included."""
    core, schedules = UNREDUCED[name]
    exploration = explored(core, reduce=False)
    assert exploration.exhausted
    assert exploration.schedules == schedules


# Larger trees, at random and by priorities.

LARGE: Final = Core(
    Fan(
        "p",
        [
            Fan(
                "q",
                [
                    Row(
                        "s",
                        [Worker("a", "write say"), Worker("b", "look share say", clean_up="say")],
                    ),
                    Worker("c", "nap nap win", when_cancelled="returns"),
                    Worker("d", "say fail", again="write win", tries=2),
                ],
                FirstSuccess(),
            ),
            Fan("m", [Worker("e", "write nap say", clean_up="say")], limit=2, kind="map", width=4),
            Ring("l", [Worker("f", "say"), Worker("g", "look stop say")], 3),
            Fan("o", [Worker("h", "ask say"), Worker("i", "share say")], kind="open"),
            Worker("j", "nap say nap fail", when_cancelled="fails"),
        ],
        WaitAll(),
    )
)

DRAWN: Final = 20
"""How many schedules of each drawn tree are run in `make deep`."""

MANY: Final = 20_000
"""How many of the large tree."""


def drawn_schedules(seed: int, many: int) -> Iterator[Chooser]:
    """Half of them by fair chances, half by priorities."""
    for number in range(many):
        random = Random(f"{seed} {number}")  # noqa: S311  # a schedule is no secret
        yield AtRandom(random) if number % 2 else ByPriority(random, depth=3, steps=60)


def obeys(core: Core, seed: int, many: int) -> None:
    """Assert the laws on some schedules of a core."""
    for chooser in drawn_schedules(seed, many):
        book, trial = perform(core, chooser)
        try:
            hold(book)
        except AssertionError as error:
            error.add_note(f"on {trial.schedule}")
            raise


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=30)
@given(cores(), st.integers(0, 2**32))
def test_drawn_trees_obey_the_laws_on_some_schedules(core: Core, seed: int) -> None:
    obeys(core, seed, 4)


@pytest.mark.deep
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=5_000)
@given(cores(), st.integers(0, 2**32))
def test_drawn_trees_obey_the_laws_on_many_schedules(core: Core, seed: int) -> None:
    obeys(core, seed, DRAWN)


def test_a_large_tree_obeys_the_laws_on_some_schedules() -> None:
    obeys(LARGE, 0, 30)


@pytest.mark.deep
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_large_tree_obeys_the_laws_on_many_schedules(seed: int) -> None:
    obeys(LARGE, seed, MANY // 4)


def test_schedules_that_are_drawn_differ() -> None:
    schedules = Counter(perform(LARGE, chooser)[1].schedule for chooser in drawn_schedules(0, 10))
    assert len(schedules) == 10


# The policies' own statement, by hand.

_A, _B = ValueError("a"), KeyError("b")


def _failed(error: Exception, *, own: bool = True, choice: str | None = None) -> End:
    return End("failed", error, own, choice=choice)


_DONE, _CUT = End("completed"), End("cancelled")


@pytest.mark.parametrize(
    ("policy", "ends", "right", "wrong"),
    [
        (FailFast(), [_failed(_A), _failed(_B)], _A, [_B, None, ExceptionGroup("", [_A, _B])]),
        (FailFast(), [_failed(_A, own=False), _failed(_B)], _B, [_A, None]),
        (FailFast(), [_failed(_A, own=False), _DONE], _A, [None]),
        (FailFast(), [_DONE, _CUT], None, [_A]),
        (WaitAll(), [_failed(_A), _DONE], ExceptionGroup("", [_A]), [_A, None]),
        (WaitAll(), [_failed(_A), _failed(_B)], ExceptionGroup("", [_A, _B]), [_A, None]),
        (WaitAll(), [_failed(_A), _failed(_B)], None, []),
        (BestEffort(), [_failed(_A), _failed(_B)], None, [_A, ExceptionGroup("", [_A, _B])]),
        (FirstSuccess(), [_failed(_A), _DONE], None, [_A, QuorumError(0, 1, 2, [_A])]),
        (FirstSuccess(), [_failed(_A), _failed(_B)], QuorumError(0, 1, 2, [_A, _B]), [None, _A]),
        (Quorum(2), [_failed(_A), _DONE, _CUT], QuorumError(1, 2, 3, [_A]), [None, _A]),
        (Escalate(), [_failed(_A, choice="skip"), _DONE], None, [_A]),
        (Escalate(), [_failed(_A), _failed(_B, choice="abort")], _B, [_A, None]),
    ],
)
def test_the_statement_of_the_policies_is_the_documented_one(
    policy: Barrier, ends: list[End], right: Exception | None, wrong: list[Exception | None]
) -> None:
    if wrong:
        assert is_answer(policy, ends, right)
    for answer in wrong:
        assert not is_answer(policy, ends, answer)
    reversed_group = ExceptionGroup("", [_B, _A])
    assert not is_answer(policy, ends, reversed_group)
    cancelled = BranchCancelledError("x")
    assert not is_answer(policy, ends, cancelled)


# The laws where a person has it tried again: once they were wrong about each of these.

TRIED_AGAIN_BY_A_PERSON: Final = {
    "a fan-out": Core(
        Fan("p", [Fan("q", [Worker("a", "fail")])], Escalate()), answers=("retry", "skip")
    ),
    "what looks at what it has said": Core(
        Fan("p", [Worker("a", "say look fail")], Escalate()), answers=("retry", "skip")
    ),
    "what had tried again itself": Core(
        Fan("p", [Worker("a", "fail", again="nap fail", tries=2)], Escalate()),
        answers=("retry", "abort"),
    ),
    "what is aborted below each time": Core(
        Fan("p", [Fan("q", [Worker("a", "fail")], Escalate())], Escalate()),
        answers=("retry", "abort"),
    ),
    "what is cancelled before it begins again": Core(
        Row(
            "r",
            [
                Fan(
                    "p", [Worker("a", "say fail"), Worker("b", "say nap nap nap stop")], Escalate()
                ),
                Worker("c", "look"),
            ],
        ),
        answers=("retry",),
    ),
}


@pytest.mark.parametrize("name", TRIED_AGAIN_BY_A_PERSON)
def test_the_laws_allow_for_what_a_person_has_had_tried_again(name: str) -> None:
    obeys(TRIED_AGAIN_BY_A_PERSON[name], 1, 6)


# Bugs, planted one at a time.

Plant: TypeAlias = Callable[[pytest.MonkeyPatch], None]


def _dropped_event(patch: pytest.MonkeyPatch) -> None:
    right = Stream._hand_out

    def hand_out(self: Stream, slot: Slot) -> Event | None:
        event = right(self, slot)
        return None if event is not None and event.seq == 2 else event

    patch.setattr(Stream, "_hand_out", hand_out)


def _number_left_out(patch: pytest.MonkeyPatch) -> None:
    right = vars(in_memory)["stamp_seq"]
    patch.setattr(
        in_memory, "stamp_seq", lambda event, seq: right(event, seq if seq < 3 else seq + 1)
    )


def _write_lost_at_hand_out(patch: pytest.MonkeyPatch) -> None:
    right = Stream._hand_out

    def hand_out(self: Stream, slot: Slot) -> Event | None:
        before = dict(self.session.state)
        event = right(self, slot)
        if event is not None and event.seq == 2:
            self.session.state.clear()
            self.session.state.update(before)
        return event

    patch.setattr(Stream, "_hand_out", hand_out)


def _state_changes_late(patch: pytest.MonkeyPatch) -> None:
    right = Stream._hand_out
    late: dict[int, dict[str, Any]] = {}

    def hand_out(self: Stream, slot: Slot) -> Event | None:
        state = self.session.state
        before = {**state, **late.pop(id(self), {})}
        event = right(self, slot)
        after = dict(state)
        if not (event is not None and event.actions.outcomes):
            late[id(self)] = {key: after[key] for key in after if after[key] != before.get(key)}
            state.clear()
            state.update(before)
        else:
            state.update(before)
        return event

    patch.setattr(Stream, "_hand_out", hand_out)


def _writes_left_at_the_end_lost(patch: pytest.MonkeyPatch) -> None:
    async def flush(_self: Activation) -> None:
        await checkpoint()

    patch.setattr(Activation, "flush", flush)


def _event_recorded_twice(patch: pytest.MonkeyPatch) -> None:
    right = Activation.emit

    async def emit(self: Activation, event: Event) -> Any:
        if event.text.endswith("1 0"):
            await right(self, Event(event.text))
        return await right(self, event)

    patch.setattr(Activation, "emit", emit)


def _acknowledged_at_hand_out(patch: pytest.MonkeyPatch) -> None:
    right = Stream._hand_out

    def hand_out(self: Stream, slot: Slot) -> Event | None:
        event = right(self, slot)
        if slot.task is not None:
            task, slot.task = slot.task, None
            reschedule(task)
        return event

    patch.setattr(Stream, "_hand_out", hand_out)


def _siblings_visible(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Branch, "limit_for", lambda _self, _writer: EVERYTHING)


def _leaked_context_variable(patch: pytest.MonkeyPatch) -> None:
    async def in_the_parents_context(activation: Activation) -> None:
        task = current_task()
        assert task.parent_nursery is not None
        task.context = task.parent_nursery.parent_task.context
        await checkpoint()
        await activate(activation)

    patch.setattr(crew, "activate", in_the_parents_context)


def _an_end_counted_twice(patch: pytest.MonkeyPatch) -> None:
    right = Activation.end

    def end(self: Activation, step: Step) -> None:
        right(self, step)
        if step is Step.CANCEL:
            self.invocation.counts.completed += 1

    patch.setattr(Activation, "end", end)


def _outcomes_in_the_order_of_ending(patch: pytest.MonkeyPatch) -> None:
    right = Crew.join

    def join(self: Crew, tasks: Iterable[tuple[int, Task]]) -> list[Outcome]:
        right(self, tasks)
        outcomes = list(self.outcomes.values())
        self.owner.invocation.outcomes[self.owner.agent.name] = tuple(outcomes)
        return outcomes

    patch.setattr(Crew, "join", join)


def _double_join(patch: pytest.MonkeyPatch) -> None:
    right = Crew.answer

    async def answer(self: Crew, outcomes: list[Outcome], **options: Any) -> None:
        await self.record(outcomes)
        await right(self, outcomes, **options)

    patch.setattr(Crew, "answer", answer)


def _losers_not_sealed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(crew, "seal_subtree", lambda _top: None)


class _Impatient:
    """A nursery that does not wait for those who have been cancelled."""

    def __init__(self) -> None:
        self._left = 0
        self._over = trio.Event()

    async def __aenter__(self) -> Self:
        return self

    def start_soon(self, watch: Callable[..., Any], position: int, child: Activation) -> None:
        async def run() -> None:
            await watch(position, child)
            self._left -= 1
            fan: Crew = watch.__self__  # type: ignore[attr-defined]  # a method
            if fan.closed or not self._left:
                self._over.set()

        self._left += 1
        trio.lowlevel.spawn_system_task(run, context=copy_context())

    async def __aexit__(self, *_details: object) -> None:
        await self._over.wait()


def _cancel_without_join(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fan_out, "trio", _Trio)


class _Trio:
    open_nursery = _Impatient


def _limits_ignored(patch: pytest.MonkeyPatch) -> None:
    async def unlimited(*args: Any, **options: Any) -> list[Outcome]:
        return await fan_out.fan_out(*args, **{**options, "max_concurrency": None})

    patch.setattr(parallel, "fan_out", unlimited)


def _a_loser_wins(patch: pytest.MonkeyPatch) -> None:
    right = Activation.end

    def end(self: Activation, step: Step) -> None:
        if step is Step.CANCEL and self.was_started and self.parent is not None:
            self.output, step = "stolen", Step.COMPLETE
        right(self, step)

    patch.setattr(Activation, "end", end)


def _failing_in_cleaning_up_counts_as_failing(patch: pytest.MonkeyPatch) -> None:
    async def failed_of_itself(_activation: Activation, _failure: BaseException) -> bool:
        await trio.lowlevel.checkpoint_if_cancelled()
        return True

    patch.setattr(drive, "failed_of_itself", failed_of_itself)


def _swallowed_error(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Crew, "_failure", lambda *_anything, **_options: None)


def _accidental_group(patch: pytest.MonkeyPatch) -> None:
    right = Crew._failure

    def failure(self: Crew, *args: Any, **options: Any) -> BaseException | None:
        error = right(self, *args, **options)
        return ExceptionGroup("", [error]) if isinstance(error, Exception) else error

    patch.setattr(Crew, "_failure", failure)


def _the_runs_failure_lost(patch: pytest.MonkeyPatch) -> None:
    right = Stream.finish
    patch.setattr(Stream, "finish", lambda self, _failure: right(self, None))


_TWO: Final = Core(Fan("p", [Worker("a", "write say"), Worker("b", "share say")]))
_SLOW: Final = attrs.evolve(_TWO, pause=1)
_LEFT: Final = Core(Fan("p", [Worker("a", "say write"), Worker("b")]))
_CANCELLED: Final = Core(
    Fan(
        "p",
        [
            Worker("a", "say fail"),
            Worker("b", "say say", clean_up="nap say", when_cancelled="fails"),
        ],
    )
)
_ESCALATED: Final = Core(
    Fan("p", [Worker("a", "stop nap say"), Worker("b", "nap nap", clean_up="nap say")])
)
_RACED: Final = Core(Fan("p", [Worker("a", "win"), Worker("b", "nap nap win")], FirstSuccess()))
_LIMITED: Final = Core(Fan("p", [Worker("a"), Worker("b"), Worker("c")], limit=2))
_LOOKED: Final = Core(Fan("p", [Worker("a", "say"), Worker("b", "nap look")]))

CAUGHT: Final[list[tuple[Plant, Law, Core]]] = [
    (_number_left_out, core_laws.the_log_is_contiguous, _TWO),
    (_dropped_event, core_laws.delivered_equals_log, _TWO),
    (_write_lost_at_hand_out, core_laws.the_fold_of_the_log_is_the_state, _TWO),
    (_state_changes_late, core_laws.state_changes_at_hand_out, _TWO),
    (_writes_left_at_the_end_lost, core_laws.a_branch_logs_what_it_alone_would_log, _LEFT),
    (_event_recorded_twice, core_laws.nothing_is_logged_that_nobody_emitted, _LOOKED),
    (_acknowledged_at_hand_out, core_laws.an_emit_returns_when_the_reader_has_come_back, _SLOW),
    (_siblings_visible, core_laws.a_branch_sees_what_it_should, _LOOKED),
    (_leaked_context_variable, core_laws.a_context_variable_is_its_owners, _TWO),
    (_an_end_counted_twice, core_laws.every_activation_ends_in_one_status, _CANCELLED),
    (
        _outcomes_in_the_order_of_ending,
        core_laws.outcomes_are_complete_and_in_declaration_order,
        _TWO,
    ),
    (_double_join, core_laws.every_fan_out_records_its_outcomes_once, _TWO),
    (_losers_not_sealed, core_laws.nothing_of_a_sibling_follows_the_deciding_event, _ESCALATED),
    (_cancel_without_join, core_laws.losers_are_joined_before_the_outcomes, _CANCELLED),
    (_limits_ignored, core_laws.no_limit_is_exceeded, _LIMITED),
    (_a_loser_wins, core_laws.each_branch_ends_as_its_code_did, _RACED),
    (
        _failing_in_cleaning_up_counts_as_failing,
        core_laws.each_branch_ends_as_its_code_did,
        _CANCELLED,
    ),
    (_swallowed_error, core_laws.what_is_raised_is_what_the_policy_allows, _CANCELLED),
    (_accidental_group, core_laws.what_is_raised_is_what_the_policy_allows, _CANCELLED),
    (_the_runs_failure_lost, core_laws.the_run_ends_as_its_root_did, _CANCELLED),
]


def test_every_law_has_caught_a_bug() -> None:
    assert {law for _, law, _ in CAUGHT} == set(LAWS)


@pytest.mark.parametrize("core", dict.fromkeys(core for _, _, core in CAUGHT), ids=repr)
def test_without_a_bug_the_cores_made_for_them_obey_the_laws(core: Core) -> None:
    assert explored(core).exhausted


# A broken kernel leaves coroutines behind; that is not what is tested.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("plant", "law", "core"), [pytest.param(*row, id=row[0].__name__.strip("_")) for row in CAUGHT]
)
def test_exploring_catches(
    plant: Plant, law: Law, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(ExplorationError) as raised:
        explored(core, [law])
    assert isinstance(raised.value.error, AssertionError)
    assert law.__name__ in [frame.name for frame in extract_tb(raised.value.error.__traceback__)]
