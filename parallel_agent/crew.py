"""The branches of one fan-out at work: forked, watched, cancelled, joined, answered for.

What `parallel_agent.fan_out` and `parallel_agent.group` have in common; what is promised is said
there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Any, Final, Literal

import attrs
import trio
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    enable_ki_protection,
)

from parallel_agent.activation import NO_INPUT, Activation
from parallel_agent.agent import Agent
from parallel_agent.barrier import Barrier, Outcome, Tally, Verdict, failure_despite, had_failed
from parallel_agent.branch import Branch, Place
from parallel_agent.drive import activate, can_be_noted, pass_on, suspend
from parallel_agent.errors import FanOutError, RunEndedError
from parallel_agent.lane import Lane
from parallel_agent.lifecycle import Status
from parallel_agent.notes import describe, holds, members, note_clean_up, note_origin, note_other
from parallel_agent.outcomes import outcome_of, record_of
from parallel_agent.post import put_back
from parallel_agent.questions import ask
from parallel_agent.subtree import cancel_subtree, seal_subtree, stop_starting

__all__ = ["Crew", "Task", "note_trouble"]

CHOICES: Final[Any] = Literal["retry", "skip", "abort"]
"""What a person may choose when a branch has failed; see `parallel_agent.barrier.Escalate`."""


@attrs.frozen(eq=False)
class Task:
    """What a branch is to run. ``number`` tells branches of one agent apart, or names this one."""

    agent: Agent
    input: Any = NO_INPUT
    number: int | str | None = None

    @property
    def name(self) -> str:
        """The name of the branch."""
        return self.agent.name if self.number is None else f"{self.agent.name}@{self.number}"


class Crew:
    """The branches of one fan-out while they run.

    Attributes:
        closed: nothing more is to start: the rest was cancelled, or a branch has escalated.
        failed: the branches that failed, by position.
        outcomes: how branches ended, by position.
        on_failure: called when the rest is cancelled because of a failure.
        again: the newest activation of branches that are tried again, by position.
        broken: what the policy itself has raised.
    """

    def __init__(self, owner: Activation, barrier: Barrier, *, width: int | None) -> None:
        """Make a crew of ``width`` branches below ``owner``; None if more may come."""
        if not isinstance(barrier, Barrier):
            message = f"barrier is a policy such as FailFast(), not {barrier!r:.80}"
            raise FanOutError(message)
        if width is not None and width < barrier.least_width():
            message = (
                f"{barrier!r} needs {barrier.least_width()} branches or more, and "
                f"{owner.agent.name!r} starts {width}"
            )
            raise FanOutError(message)
        self.owner = owner
        self.barrier = barrier
        self.waits_alone = False  # a branch that waits for a person does not make its owner wait
        self.tally = Tally(width)
        self.closed = False
        self.outcomes: dict[int, Outcome] = {}
        self.failed: dict[int, Activation] = {}
        self._live: dict[Activation, None] = {}
        self._branches: list[Branch] = []
        self._decider: Activation | None = None  # the branch whose event has ended the others
        # The paths of branches whose failure is not the fan-out's: a sibling's decision ended
        # them, or a person chose to go on without them.
        self._excused: set[str] = set()
        self._asking: dict[Activation, trio.CancelScope] = {}
        self.broken: BaseException | None = None
        self.on_failure: Callable[[str], object] | None = None
        self.again: dict[int, Activation] = {}

    def fork(self, task: Task) -> Activation:
        """Make the branch of a task, and the activation that is to run on it."""
        owner = self.owner
        invocation = owner.invocation
        branch = Branch(
            owner.lane.branch,
            f"{owner.agent.name}.{task.name}",
            forked=invocation.tick(),
            forked_seq=invocation.horizon(),
        )
        self._branches.append(branch)
        place = Place(
            task.agent.name,
            invocation_id=invocation.id,
            line=branch,
            parent=owner.place,
            number=task.number,
        )
        return self._adopt(task.agent, place, Lane(branch), task.input)

    async def settle(self, branch: Branch) -> None:
        """Record what the owner has written since ``branch`` was made, and let it see that."""
        owner = self.owner
        await owner.flush()
        branch.forked = owner.invocation.tick()
        branch.forked_seq = owner.invocation.horizon()

    def _adopt(self, agent: Agent, place: Place, lane: Lane, input: Any) -> Activation:
        child = Activation(
            agent,
            place,
            invocation=self.owner.invocation,
            lane=lane,
            parent=self.owner,
            on_escalate=self._end_others,
            input=input,
        )
        child.crew = self
        self._live[child] = None
        self.owner.adopt(child)
        if self.closed:
            child.barren = True
        return child

    async def watch(self, position: int, child: Activation) -> None:
        """Run one branch to its end, and do about it what the barrier says."""
        try:
            await self._watch(position, child)
        finally:
            self.let_go(child)

    def let_go(self, child: Activation) -> None:
        """Count a branch no longer among those that run: nobody is to wait for it."""
        self._live.pop(child, None)

    @enable_ki_protection
    async def _watch(self, position: int, child: Activation) -> None:
        since: float | None = None
        while True:
            await activate(child)
            is_noted = await can_be_noted(child)
            outcome = outcome_of(child)
            now = trio.current_time()
            if since is None:
                since = now - outcome.duration
            else:  # a person has had it tried again
                tried = child.place.own_attempt - (not child.was_started)
                outcome = attrs.evolve(outcome, attempts=tried, duration=now - since)
            verdict = self._verdict(child, outcome)
            if is_noted:
                ends = self._live if verdict is Verdict.CANCEL_REST and not self.closed else ()
                self.owner.invocation.journal.ended(child, ends=ends)
            self._live.pop(child, None)
            self.owner.release(child)
            if verdict is not Verdict.ASK:
                break
            again, verdict, outcome = await self._ask(child, outcome)
            if again is None:
                break
            child = self.again[position] = again
        self.tally = self._counted(outcome)
        self.outcomes[position] = outcome
        if outcome.error is not None:
            self.failed[position] = child
        if self._decider is not None and child.lane.sealed:
            self._excused.add(outcome.path)
        child.on_escalate = None
        if verdict is Verdict.CANCEL_REST and not self.closed:
            await self._cancel_rest(child, outcome)

    async def weighed(self, child: Activation) -> None:
        """Wait until a branch that has ended has been answered for, or a person is being asked."""
        while child in self._live:
            await cancel_shielded_checkpoint()

    def _verdict(self, child: Activation, outcome: Outcome) -> Verdict:
        if outcome.error is not None and not isinstance(outcome.error, Exception):
            return Verdict.CANCEL_REST  # Ctrl-C, SystemExit: no policy waits for the others
        if self.broken is not None:
            return Verdict.GO_ON  # all are cancelled already, and it is not asked again
        try:
            verdict = self.barrier.on_outcome(outcome, self._counted(outcome))
            if not isinstance(verdict, Verdict):  # pyright: ignore[reportUnnecessaryIsInstance]  # it is the user's
                raise self._refused("on_outcome", verdict, "a Verdict")  # noqa: TRY301  # as if it had raised
        except Exception as exc:  # noqa: BLE001  # raised when all have been joined
            self.broken = exc
            return Verdict.CANCEL_REST
        if verdict is Verdict.ASK and self.closed:
            # A loser's failure: there is nothing left to ask about. Not so that of the branch
            # whose own event has ended the others, unless it was cancelled from further out, and
            # failed in cleaning up.
            if child is not self._decider or not outcome.own:
                self._excused.add(outcome.path)
            return Verdict.GO_ON
        return verdict

    async def _cancel_rest(self, child: Activation, outcome: Outcome) -> None:
        self.closed = True
        # Whoever was woken in the same tick takes that step first: a branch that is about to
        # fail of itself, its sleep being over, would else be cancelled or not as the scheduler
        # takes them, and with it the error that is raised. But nothing new starts any more.
        for other in self._live:
            stop_starting(other)
        await cancel_shielded_checkpoint()
        if not self._live and not self._asking and self.on_failure is None:
            return  # the name is a step per level above: not for nobody, at every level
        reason = f"branch {child.place.branch} {outcome.status}"
        self.cancel(reason)
        failed = outcome.error is not None or self.broken is not None
        if failed and self.on_failure is not None:
            self.on_failure(reason)

    async def _ask(
        self, child: Activation, outcome: Outcome
    ) -> tuple[Activation | None, Verdict, Outcome]:
        """Ask a person what to do about a branch that failed. Return its next try, or its end."""
        owner = self.owner
        kind, said = describe(outcome.error) if outcome.error is not None else ("", "")
        prompt = getattr(self.barrier, "prompt", "A branch has failed.")
        prompt = f"{prompt} {outcome.path} failed: {kind}: {said}"
        how, answer = "expired", "skip"
        with trio.CancelScope() as scope:
            self._asking[child] = scope
            try:
                how, answer = await ask(owner, prompt, CHOICES, failed=child.place)
            except (trio.Cancelled, RunEndedError):
                pass  # whoever cancelled is about to join: the failure is an outcome
            except Exception as exc:  # noqa: BLE001  # a plugin's, say: nobody has been asked
                how = "dropped"
                if outcome.error is not None:
                    note_other(outcome.error, owner.place.path, exc)
            finally:
                del self._asking[child]
        if how == "suspended":
            waiting = attrs.evolve(outcome, status=Status.WAITING, error=None, own=False)
            return None, Verdict.GO_ON, waiting
        if answer == "retry" and not self.closed:
            child.place.void = True
            put_back(child)
            again = self._adopt(child.agent, child.place.again(), child.lane, child.input)
            again.entrance, again.documents = child.entrance, child.documents
            return again, Verdict.GO_ON, outcome
        if answer == "abort" or how in ("dropped", "nobody"):  # nobody has excused it
            return None, Verdict.CANCEL_REST, outcome
        self._excused.add(outcome.path)
        return None, Verdict.GO_ON, outcome

    def _counted(self, outcome: Outcome) -> Tally:
        tally = self.tally
        match outcome.status:
            case Status.COMPLETED:
                return attrs.evolve(tally, completed=tally.completed + 1)
            case Status.FAILED:
                return attrs.evolve(tally, failed=tally.failed + 1)
            case Status.CANCELLED:
                return attrs.evolve(tally, cancelled=tally.cancelled + 1)
            case _:
                return tally

    def _end_others(self, escalating: Activation) -> None:
        """End the siblings of a branch whose escalating event is being handed out, at once."""
        if self._decider is not None:
            return
        self._decider, self.closed = escalating, True
        for child in self.cancel(f"branch {escalating.place.branch} escalated", but=escalating):
            seal_subtree(child)

    def seal(self, child: Activation) -> None:
        """Seal a branch that a sibling's escalation had ended before the run was resumed."""
        if self._decider is not None:
            seal_subtree(child)

    def cancel(self, reason: str, *, but: Activation | None = None) -> list[Activation]:
        """Cancel all branches that have not ended, but for one. Does not wait for them."""
        others = self.others(but)
        for child in others:
            cancel_subtree(child, reason)
        for question in self._asking.values():
            question.cancel(reason)
        return others

    def fail(self, error: BaseException) -> None:
        """End all branches: what starts them cannot go on. The error is raised once they have."""
        if self.broken is None:
            self.broken = error
        self.closed = True
        self.cancel(f"{self.owner.place.path} cannot go on: {type(error).__name__}")

    def is_asking(self, child: Activation) -> bool:
        """Return whether a person is being asked what to do about a branch that has failed."""
        return child in self._asking

    def others(self, child: Activation | None) -> list[Activation]:
        """Return the branches that have not ended, but for one."""
        return [
            other
            for other in self._live
            if other is not child and other.status in (Status.PENDING, Status.RUNNING)
        ]

    def cancel_one(self, child: Activation, reason: str) -> None:
        """Cancel one branch, or the question what to do about it. Does not wait."""
        question = self._asking.get(child)
        if question is not None:
            question.cancel(reason)
        else:
            cancel_subtree(child, reason)

    # When all have ended.

    def join(self, tasks: Iterable[tuple[int, Task]]) -> list[Outcome]:
        """Let the owner see what its branches recorded; return how each of ``tasks`` ended.

        ``tasks`` are given with their positions, in the order of declaration.
        """
        joined = self.owner.invocation.tick()
        for branch in self._branches:
            if branch.joined is None:
                branch.joined = joined
        outcomes: list[Outcome] = []
        for position, task in tasks:
            outcome = self.outcomes.get(position)
            if outcome is None:
                outcome = self._unstarted(task)
                if self._decider is not None:
                    self._excused.add(outcome.path)
            outcomes.append(outcome)
        self.owner.invocation.outcomes[self.owner.agent.name] = tuple(outcomes)
        return outcomes

    def _unstarted(self, task: Task) -> Outcome:
        path = f"{self.owner.place.path}/{task.name}"
        return Outcome(task.name, path, Status.CANCELLED, attempts=0)

    async def answer(
        self, outcomes: list[Outcome], *, handled: AbstractSet[str] = frozenset()
    ) -> None:
        """Take the owner's slot back and record the outcomes.

        Cancelled, it answers all the same: a failure is never lost.

        Raises:
            BaseException: the failure, if there is one; not of the paths that were ``handled``.
        """
        try:
            await self._answer(outcomes, handled)
        finally:
            self.let_questions_go(outcomes)

    def let_questions_go(self, outcomes: list[Outcome]) -> None:
        """Forget what branches that wait have asked, unless the owner ends as waiting, too."""
        left = [outcome.path for outcome in outcomes if outcome.status is Status.WAITING]
        if left and not (self.owner.suspended or self.waits_alone):
            self.owner.invocation.requests.let_go(left)

    async def _answer(self, outcomes: list[Outcome], handled: AbstractSet[str]) -> None:
        owner = self.owner
        interrupt: BaseException | None = None
        try:
            await owner.slots.step_back()
        except trio.Cancelled as exc:
            interrupt = exc
        trouble = await self.record(outcomes)
        interrupt = interrupt if trouble is None else trouble
        interrupted = isinstance(interrupt, trio.Cancelled | RunEndedError)
        error = self._failure(outcomes, handled, interrupted=interrupted)
        if error is not None:
            self._own_up(error, outcomes, interrupted=interrupted)
            note_trouble(error, interrupt)
            context = error.__context__
            try:
                raise error
            finally:
                # Python would put there what is being handled: the cancellation of a block, say.
                with suppress(Exception):  # a frozen exception keeps it
                    error.__context__ = context
        if interrupt is not None:
            raise interrupt
        if any(outcome.status is Status.WAITING for outcome in outcomes) and (
            self.barrier.waits_for_all(outcomes) and not self.waits_alone
        ):
            await suspend(owner)

    async def record(self, outcomes: list[Outcome]) -> BaseException | None:
        """Record the outcomes; return what kept them from being recorded, if something did."""
        try:
            await self.owner.emit(record_of(outcomes))
        except (trio.Cancelled, Exception) as exc:  # noqa: BLE001  # the caller raises it, or notes it
            # Something of the branches' may still be on its way.
            self.owner.lane.unsettled = True
            return exc
        return None

    def _failure(
        self, outcomes: list[Outcome], handled: AbstractSet[str], *, interrupted: bool
    ) -> BaseException | None:
        for outcome in outcomes:
            # Ctrl-C and SystemExit are nobody's failure to weigh.
            if outcome.error is not None and not isinstance(outcome.error, Exception):
                return outcome.error
        if self.broken is not None:
            return self.broken
        if handled:
            # They count as failed, but what they raised has been dealt with. (By path: another
            # branch may have raised the same object.)
            outcomes = [
                attrs.evolve(outcome, error=None) if outcome.path in handled else outcome
                for outcome in outcomes
            ]
        if self._excused:
            outcomes = [self._as_counted(outcome) for outcome in outcomes]
        cut_off = {o.path for o in outcomes if interrupted and o.status is Status.CANCELLED}
        # If the branch whose event has ended the others fails, it has decided nothing.
        if self._decider is None or self._decider.error is None:
            cut_off |= self._excused
        try:
            error = failure_despite(self.barrier, outcomes, cut_off)
        except Exception as exc:  # noqa: BLE001  # the policy's own; the caller raises it
            return exc
        if error is not None and not isinstance(error, BaseException):  # pyright: ignore[reportUnnecessaryIsInstance]  # it is the user's
            return self._refused("failure", error, "an exception or None")
        return error

    def _refused(self, method: str, answer: object, wanted: str) -> FanOutError:
        message = f"{self.barrier!r}.{method}() returned {answer!r:.80}; {wanted} is needed"
        return FanOutError(message)

    def _as_counted(self, outcome: Outcome) -> Outcome:
        if outcome.path not in self._excused:
            return outcome
        return attrs.evolve(outcome, status=Status.CANCELLED, error=None, own=False)

    def _own_up(self, error: BaseException, outcomes: list[Outcome], *, interrupted: bool) -> None:
        """Note whose failure the owner is about to raise, and the others on it."""
        if members(error) and all(child.error is not error for child in self.failed.values()):
            # A group of the barrier's: worth another attempt, unless one in it had all of its own.
            failed = list(self.failed.values())
            failed = [child for child in failed if child.own] or failed
            for child in failed:
                if child.error is not None and holds(child.error, child.given_up):
                    self.owner.given_up = child.given_up
            counted = [outcome for outcome in outcomes if outcome.path not in self._excused]
            of_itself = not interrupted or error is self.broken
            of_itself = of_itself or had_failed(self.barrier, counted, self.tally.width)
            self.owner.combined = (error, of_itself)
            return
        raisers = [child for _, child in sorted(self.failed.items()) if child.error is error]
        chosen = next((child for child in raisers if child.own), raisers[0] if raisers else None)
        if chosen is not None:
            pass_on(self.owner, chosen, error)
            source = chosen
            if len(raisers) > 1:
                # One object, raised in several branches: it names the one that raised it last.
                while source.source is not None and source.source.error is error:
                    source = source.source
                note_origin(error, source.place.path)
        for outcome in outcomes:
            is_chosen = chosen is not None and outcome.path == chosen.place.path
            if outcome.error is not None and not is_chosen:
                note_other(error, outcome.path, outcome.error)


def note_trouble(error: BaseException, trouble: BaseException | None) -> None:
    """Note on ``error`` what kept the outcomes from being recorded, if that is worth it."""
    if isinstance(trouble, Exception) and not isinstance(trouble, RunEndedError):
        note_clean_up(error, trouble)
