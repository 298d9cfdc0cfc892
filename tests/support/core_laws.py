"""What holds for every core on every schedule. Each law takes a `Book` and raises AssertionError.

Written from the design: what a policy may raise is said here once more, in terms of how the
branches ended, without a line of ``parallel_agent.barrier`` but the classes that name the policies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, Final, TypeAlias

import attrs
import trio

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
    Status,
    WaitAll,
)
from tests.support.cores import (
    USER,
    Appended,
    Asked,
    Began,
    Book,
    Called,
    CleanUpFailedError,
    Delivered,
    Ended,
    Fan,
    LeafFailedError,
    LeftError,
    Look,
    Node,
    Replied,
    Returned,
    Ring,
    Row,
    Settled,
    Worker,
    Wrote,
    nodes_of,
    split,
)

__all__ = ["LAWS", "End", "Law", "hold", "is_answer"]

Law: TypeAlias = Callable[[Book], None]


def hold(book: Book) -> None:
    """Assert every law."""
    for law in LAWS:
        law(book)


# The log.


def the_log_is_contiguous(book: Book) -> None:
    assert [event.seq for event in book.log] == list(range(1, len(book.log) + 1))
    assert list(map(id, book.result.events)) == list(map(id, book.log))


def delivered_equals_log(book: Book) -> None:
    log = list(map(id, book.log))
    got = [id(entry.event) for entry in book.of(Delivered)]
    assert got == log[: len(got)], "not a prefix"
    if not _was_left(book):
        assert got == log, "recorded, and not delivered"
    shielded = {id(call.event) for call in book.of(Called) if call.shielded}
    for event in book.log[len(got) :]:
        # Or an answer that the reader gave before it left.
        assert id(event) in shielded or event.author == USER, f"{event} is nobody's clean-up"


def the_fold_of_the_log_is_the_state(book: Book) -> None:
    state: dict[str, Any] = {}
    for event in book.log:
        state.update(event.state_delta)
    assert dict(book.result.state) == state


def state_changes_at_hand_out(book: Book) -> None:
    state: dict[str, Any] = {}
    for entry in book.of(Delivered):
        state.update(entry.event.state_delta)
        assert entry.state == state, f"{entry.state} when {entry.event} is handed out"


def a_branch_logs_what_it_alone_would_log(book: Book) -> None:
    """Its script, or a beginning of that; then what it cleans up. Writes with the next event."""
    for (path, node), lives in _lives(book).items():
        logged = [
            (event.text, dict(event.state_delta))
            for event in book.log
            if split(event.path)[0] == path and event.author != USER
        ]
        asked = {event.request.prompt for event in book.log if event.request is not None}
        expected = [line for life in lives for line in _lines(life, asked)]
        last = _last_line(lives[-1], node)
        if last is not None and (_has_completed(book, path) or len(logged) > len(expected)):
            expected.append(last)
        if node.tries > 1:
            _check_attempts(node, lives, logged, expected)
        else:
            assert logged == expected, f"{path} logged\n{logged}\nnot\n{expected}"
        for life in lives:
            _check_script(path, node, life)


def _check_attempts(node: Worker, lives: list[_Life], logged: _Lines, expected: _Lines) -> None:
    said = [text for text, _ in logged if text]
    assert said == [text for text, _ in expected if text]
    last = lives[-1]
    kept: dict[str, Any] = {}
    for _, delta in logged:
        kept.update(delta)
    wrote = {entry.key: entry.value for entry in last.entries if isinstance(entry, Wrote)}
    if last.ended.error is None and not last.ended.struck:
        assert kept in (wrote, {}), f"an attempt of {node.name} wrote {wrote}, kept are {kept}"
    else:
        assert not kept, f"{kept} of a failed attempt of {node.name}"


def _check_script(path: str, node: Worker, life: _Life) -> None:
    """What was emitted, in order, is what is written in the script."""
    acts = _acts(node, life)
    said = [entry.event.text for entry in life.entries if isinstance(entry, Called)]
    script = _texts(path, life.attempt, acts, "")
    own = [text for text in said if " bye " not in text]
    assert own == script[: len(own)], f"{path} emitted {own}"
    if life.ended.error is None and not life.ended.struck:
        assert own == script, f"{path} was not cancelled, and emitted only {own}"
    bye = [text for text in said if " bye " in text]
    goodbye = _texts(path, life.attempt, node.clean_up, "bye ")
    assert said == own + bye
    assert bye == goodbye[: len(bye)]
    if life.ended.struck and not isinstance(life.ended.error, BranchCancelledError):
        assert bye == goodbye, f"{path} was to clean up, and emitted only {bye}"


def _texts(path: str, attempt: int, acts: tuple[str, ...], mark: str) -> list[str]:
    return [
        f"{path} {attempt} {mark}{number}"
        for number, act in enumerate(acts)
        if act in ("say", "stop")
    ]


@attrs.define(eq=False)
class _Life:
    """What one attempt of a worker did."""

    attempt: int
    entries: list[Called | Wrote | Asked]
    ended: Ended


_Lines: TypeAlias = list[tuple[str, dict[str, Any]]]


def _lives(book: Book) -> dict[tuple[str, Worker], list[_Life]]:
    found: dict[tuple[str, Worker], list[_Life]] = {}
    ends = {(entry.path, entry.attempt): entry for entry in book.of(Ended)}
    for began in book.of(Began):
        if began.node is not None:
            mine: list[Any] = [
                entry
                for entry in book.entries
                if isinstance(entry, Called | Wrote | Asked)
                and (entry.path, entry.attempt) == (began.path, began.attempt)
            ]
            life = _Life(began.attempt, mine, ends[began.path, began.attempt])
            found.setdefault((began.path, began.node), []).append(life)
    return found


def _lines(life: _Life, asked: set[str]) -> _Lines:
    """What it has emitted, with the writes that went along."""
    lines: _Lines = []
    pending: dict[str, Any] = {}
    for entry in life.entries:
        match entry:
            case Wrote(key=key, value=value):
                pending[key] = value
            case Called(event=event) if event.seq is not None:
                lines.append((event.text, pending))
                pending = {}
            case Asked(text=text) if text in asked:
                lines.append(("", pending))
                pending = {}
            case _:
                pass
    return lines


def _last_line(life: _Life, node: Worker) -> tuple[str, dict[str, Any]] | None:
    """What is recorded for it when it has returned: a value, or writes that are left."""
    if life.ended.error is not None or life.ended.struck:
        return None
    pending: dict[str, Any] = {}
    for entry in life.entries:
        if isinstance(entry, Wrote):
            pending[entry.key] = entry.value
        elif not isinstance(entry, Called) or entry.event.seq is not None:
            pending = {}
    if "win" in _acts(node, life):
        return f"{life.ended.path} wins", pending
    return ("", pending) if pending else None


def _acts(node: Worker, life: _Life) -> tuple[str, ...]:
    return node.acts if life.attempt == 1 or not node.again else node.again


def _has_completed(book: Book, path: str) -> bool:
    """Whether it must have, as far as that shows."""
    for _, fan, event in _recorded(book):
        for outcome in event.actions.outcomes:
            if outcome.status == "completed":
                continue
            marks = ("", *(f"~{number}" for number in range(2, outcome.attempts + 1)))
            if f"{path}/".startswith(tuple(f"{fan}/{outcome.name}{mark}/" for mark in marks)):
                return False
    return book.result.status is Status.COMPLETED or _has_outcome(book, path)


def _has_outcome(book: Book, path: str) -> bool:
    above, _, name = path.rpartition("/")
    return any(
        fan == above and outcome.name == name
        for _, fan, event in _recorded(book)
        for outcome in event.actions.outcomes
    )


def nothing_is_logged_that_nobody_emitted(book: Book) -> None:
    known = {id(call.event) for call in book.of(Called)}
    paths = {began.path for began in book.of(Began)}
    for event in book.log:
        path = split(event.path)[0]
        returned = path in paths and event.text == f"{path} wins"
        assert id(event) in known or not event.text or returned, f"nobody emitted {event}"


def an_emit_returns_when_the_reader_has_come_back(book: Book) -> None:
    delivered: set[int] = set()
    come_back: set[int] = set()
    gone = False
    for entry in book.entries:
        match entry:
            case Delivered(event=event):
                delivered.add(id(event))
            case Returned(leaving=leaving):
                come_back |= delivered
                gone = gone or (leaving and book.core.way != "run.cancel")
            case Settled(call=call, error=None):
                assert call.event.seq is not None, f"{call.event} returned, unrecorded"
                assert gone or id(call.event) in come_back, f"{call.event} returned too early"
            case _:
                pass


def a_branch_sees_what_it_should(book: Book) -> None:
    opened = {
        node.name
        for node in nodes_of(book.core.tree)
        if isinstance(node, Fan) and node.kind == "open"
    }
    # When exactly a branch of an open fan-out is forked, while its owner goes on and others end,
    # does not show; nor does it when an attempt is given up. An answer belongs to who has asked,
    # and what a policy asks is not seen by branches that were forked before.
    uncertain = {
        event.seq
        for event in book.log
        if not opened.isdisjoint(map(_name, event.path.split("/")))
        or event.author == USER
        or (event.request is not None and " failed: " in event.request.prompt)
        or _was_tried_again(book, event)
    }
    handed_out: list[Event] = []
    for entry in book.entries:
        match entry:
            case Delivered(event=event):
                handed_out.append(event)
            case Look(path=path, seqs=seqs):
                seen = [e.seq for e in handed_out if _sees(book.core.tree, path, e.path)]
                model = [seq for seq in seen if seq not in uncertain]
                assert [seq for seq in seqs if seq not in uncertain] == model, f"{path} sees {seqs}"
            case _:
                pass


def _was_tried_again(book: Book, event: Event) -> bool:
    """Whether it belongs to an attempt that was not the last."""
    begun = {
        entry.path if entry.attempt == 1 else f"{entry.path}~{entry.attempt}"
        for entry in book.of(Began)
    }
    # It may have been cancelled before any worker of it began.
    for entry in book.of(Replied):
        if entry.choice == "retry":
            base, attempt = split(_asked_about(entry))
            begun.add(f"{base}~{attempt + 1}")
    path = event.path
    while path:
        base, attempt = split(path)
        again = f"{base}~{attempt + 1}"
        if any(f"{other}/".startswith(f"{again}/") for other in begun):
            return True
        path = path.rpartition("/")[0]
    return False


def _sees(tree: Node, reader: str, writer: str) -> bool:
    fans = {node.name for node in nodes_of(tree) if isinstance(node, Fan)}
    above = ""
    for mine, theirs in zip(reader.split("/"), writer.split("/"), strict=False):
        if split(mine)[0] != split(theirs)[0]:  # attempts of one agent are no siblings
            return _name(above) not in fans
        above = mine
    return True


def a_context_variable_is_its_owners(book: Book) -> None:
    assert book.leaks == []


# Fan-outs.


def every_activation_ends_in_one_status(book: Book) -> None:
    counts = book.statistics
    assert counts.waiting == 0
    assert counts.started == counts.completed + counts.failed + counts.cancelled, counts
    begun = {entry.path for entry in book.of(Began)}
    assert counts.started >= len(begun)
    for kind in (Began, Ended):
        keys = [(entry.path, entry.attempt) for entry in book.of(kind)]
        assert len(keys) == len(set(keys)) == len(book.of(Began))


def outcomes_are_complete_and_in_declaration_order(book: Book) -> None:
    for fan, path, event in _recorded(book):
        names = [outcome.name for outcome in event.actions.outcomes]
        declared = [name for name, _ in fan.branches()]
        if fan.kind == "open" and names != declared:
            # The block was ended before it had started them all.
            assert names == declared[: len(names)]
        else:
            assert names == declared, f"{path}: {names}"
    for fan, outcomes in _newest(book):
        assert [o.name for o in outcomes] == [name for name, _ in fan.branches()][: len(outcomes)]


def every_fan_out_records_its_outcomes_once(book: Book) -> None:
    recorded = [path for _, path, _ in _recorded(book)]
    assert len(recorded) == len(set(recorded))
    tree = book.core.tree
    if book.core.way == "end" and isinstance(tree, Fan) and tree.kind == "parallel":
        assert book.log[-1].path == tree.name
        assert book.log[-1].actions.outcomes


def nothing_of_a_sibling_follows_the_deciding_event(book: Book) -> None:
    fans = {node.name for node in nodes_of(book.core.tree) if isinstance(node, Fan)}
    deciders: dict[str, str] = {}
    for event in book.log:
        for fan, decider in deciders.items():
            if event.path.startswith(f"{fan}/"):
                assert f"{event.path}/".startswith(f"{decider}/"), f"{event} follows {decider}"
        fan = event.path.rpartition("/")[0]
        if event.actions.escalate and _name(fan) in fans:
            deciders.setdefault(fan, event.path)


def losers_are_joined_before_the_outcomes(book: Book) -> None:
    alive: set[str] = set()
    closed: list[str] = []
    for entry in book.entries:
        match entry:
            case Began(path=path):
                assert not any(path.startswith(f"{fan}/") for fan in closed), f"{path} begins late"
                alive.add(path)
            case Ended(path=path):
                alive.discard(path)
            case Appended(event=event):
                late = [fan for fan in closed if event.path.startswith(f"{fan}/")]
                assert not late, f"{event} comes after the outcomes of {late}"
                if event.actions.outcomes:
                    left = [path for path in alive if path.startswith(f"{event.path}/")]
                    assert not left, f"{left} go on after the outcomes of {event.path}"
                    closed.append(event.path)
            case _:
                pass


def no_limit_is_exceeded(book: Book) -> None:
    limits = {
        node.name: node.limit
        for node in nodes_of(book.core.tree)
        if isinstance(node, Fan) and node.limit is not None
    }
    alive: dict[str, set[str]] = {}
    for entry in book.entries:
        if isinstance(entry, Began | Ended):
            fan, _, _ = entry.path.rpartition("/")
            name = _name(fan)
            if name in limits:
                there = alive.setdefault(fan, set())
                (there.add if isinstance(entry, Began) else there.discard)(entry.path)
                assert len(there) <= limits[name], f"{sorted(there)} at once, below {fan}"


# How branches end, and what their fan-out answers.


@attrs.frozen(eq=False)
class End:
    """How a branch has ended. ``counts`` is None if that cannot be told from outside."""

    status: str
    error: BaseException | None = None
    own: bool = False
    counts: bool | None = True
    choice: str | None = None  # what a person said about it, last
    asked: bool = False


def each_branch_ends_as_its_code_did(book: Book) -> None:
    for fan, outcomes in _newest(book):
        for outcome, (_, node) in zip(outcomes, fan.branches(), strict=False):
            assert (outcome.output is None) or outcome.status is Status.COMPLETED
            assert (outcome.error is not None) == (outcome.status is Status.FAILED), outcome
            if isinstance(node, Worker):
                allowed = _ways_to_end(book, split(outcome.path)[0], node)
                assert str(outcome.status) in allowed, f"{outcome}, allowed: {allowed}"
                if outcome.error is not None:
                    ended = _ends(book, split(outcome.path)[0])[-1]
                    assert outcome.error is ended.error
                    assert outcome.own == (not ended.struck), outcome
            scripted: tuple[type[BaseException], ...] = (LeafFailedError, CleanUpFailedError)
            if isinstance(
                outcome.error, QuorumError
            ):  # it names who was cancelled, if nobody failed
                scripted = (*scripted, BranchCancelledError)
            for error in _leaves(outcome.error):
                assert isinstance(error, scripted), repr(error)


def _ends(book: Book, path: str) -> list[Ended]:
    return [entry for entry in book.of(Ended) if entry.path == path]


def _ways_to_end(book: Book, path: str, node: Worker) -> set[str]:
    ended = _ends(book, path)
    if not ended:
        return {"cancelled"}
    last = ended[-1]
    match last.error:
        case None:
            return {"cancelled"} if last.struck else {"completed", "cancelled"}
        case LeafFailedError() if last.attempt < node.tries or _replies(book, path):
            return {"failed", "cancelled"}  # before its next attempt
        case LeafFailedError() | CleanUpFailedError():
            return {"failed"}
        case _:
            return {"cancelled"}


def what_is_raised_is_what_the_policy_allows(book: Book) -> None:
    newest = {fan.name: outcomes for fan, outcomes in _newest(book)}
    for fan, path, error, status in _raised(book, newest):
        outcomes = newest.get(fan.name, ())
        _no_accidents(error)
        if not outcomes or status is Status.CANCELLED:
            assert status is not Status.COMPLETED, f"{path} has completed without outcomes"
            continue
        ends = [_end(book, path, outcome) for outcome in outcomes]
        decider = _decider(book, path)
        assert is_answer(fan.policy, ends, error, decided=decider is not None), (
            f"{path}, {fan.policy}: {error!r} for {ends}"
        )


def is_answer(
    policy: Barrier, ends: list[End], error: BaseException | None, *, decided: bool = False
) -> bool:
    """Whether a fan-out with that policy, whose branches ended like that, may raise ``error``.

    ``decided``: one of its branches has ended the others by an event.
    """
    doubtful = [end for end in ends if end.error is not None and end.counts is None]
    for choice in product([True, False], repeat=len(doubtful)):
        counted = dict(zip(map(id, doubtful), choice, strict=True))
        failures = [
            end
            for end in ends
            if end.error is not None and counted.get(id(end), end.counts is not False)
        ]
        if _answers(policy, ends, failures, error, decided=decided):
            return True
    return False


def _answers(
    policy: Barrier,
    ends: list[End],
    failures: list[End],
    error: BaseException | None,
    *,
    decided: bool,
) -> bool:
    own = [end.error for end in failures if end.own] or [end.error for end in failures]
    match policy:
        case FailFast():
            return error is (own[0] if own else None)
        case WaitAll():
            if not own:
                return error is None
            return type(error) is ExceptionGroup and _are(error.exceptions, own)
        case BestEffort():
            return error is None
        case FirstSuccess() | Quorum():
            wanted = policy.n if isinstance(policy, Quorum) else 1
            completed = sum(end.status == "completed" for end in ends)
            if error is None:
                return completed >= wanted or (decided and len(ends) - len(failures) >= wanted)
            if completed >= wanted or not isinstance(error, QuorumError):
                return False
            if not failures:
                return all(isinstance(one, BranchCancelledError) for one in error.exceptions)
            return _are(error.exceptions, [end.error for end in failures])
        case Escalate():
            aborted = [end.error for end in failures if end.choice == "abort"]
            return any(error is one for one in aborted) if aborted else error is None
        case _:
            raise AssertionError(policy)


def _are(errors: tuple[BaseException, ...], others: list[BaseException | None]) -> bool:
    return list(map(id, errors)) == list(map(id, others))


def _no_accidents(error: BaseException | None) -> None:
    """No cancellation, and no group that no policy has made."""
    for leaf in _leaves(error):
        assert not isinstance(leaf, trio.Cancelled), repr(error)
    assert not isinstance(error, BaseExceptionGroup) or type(error) in (ExceptionGroup, QuorumError)


def the_run_ends_as_its_root_did(book: Book) -> None:
    error, status = book.error, book.result.status
    left = book.core.way != "end"
    returned = [entry.leaving for entry in book.of(Returned)]
    if isinstance(error, LeftError):
        assert book.core.way == "raise"
    elif error is not None:
        assert status is Status.FAILED, f"{error!r}, yet {status}"
    else:
        assert status is not Status.FAILED, "failed without an error"
    if left and any(returned):
        assert status is not Status.COMPLETED, "left or cancelled early, yet completed"
    if not left:
        assert status is not Status.CANCELLED, "nobody has cancelled it"
    assert "stolen" not in [event.text for event in book.log]
    assert "stolen" not in str(book.result.output)


# What the laws need to know of a run.


def _name(path: str) -> str:
    return split(path)[0].rpartition("/")[2].partition("@")[0]


def _was_left(book: Book) -> bool:
    return book.core.way in ("break", "raise", "scope")


def _recorded(book: Book) -> Iterator[tuple[Fan, str, Event]]:
    fans = {node.name: node for node in nodes_of(book.core.tree) if isinstance(node, Fan)}
    for event in book.log:
        if event.actions.outcomes:
            yield fans[_name(event.path)], event.path, event


def _newest(book: Book) -> Iterator[tuple[Fan, tuple[Outcome, ...]]]:
    for node in nodes_of(book.core.tree):
        if isinstance(node, Fan):
            outcomes = book.outcomes(node.name)
            if outcomes:
                yield node, outcomes


def _raised(
    book: Book, newest: dict[str, tuple[Outcome, ...]]
) -> Iterator[tuple[Fan, str, BaseException | None, Status]]:
    """Each fan-out, with what it has raised, and how it ended, as far as that shows."""
    error = None if isinstance(book.error, LeftError) else book.error
    todo: list[tuple[Node, str, BaseException | None, Status]]
    status = book.result.status
    if book.core.way != "end" and error is None:
        status = Status.CANCELLED
    todo = [(book.core.tree, book.core.tree.name, error, status)]
    while todo:
        node, path, error, status = todo.pop()
        match node:
            case Fan():
                yield node, path, error, status
                by_name = {outcome.name: outcome for outcome in newest.get(node.name, ())}
                for name, child in node.branches():
                    if name in by_name:
                        outcome = by_name[name]
                        todo.append((child, outcome.path, outcome.error, outcome.status))
            case Row(members=(*_, last)) if len(node.members) == 1:
                todo.append((last, f"{path}/{last.name}", error, status))
            case Ring(members=(last,), times=1):
                todo.append((last, f"{path}/{last.name}@1", error, status))
            case _:
                pass  # which of them it was does not show


def _end(book: Book, path: str, outcome: Outcome) -> End:
    own = outcome.own
    replies = _replies(book, outcome.path)
    choice = replies[-1] if replies else None
    decider = _decider(book, path)
    counts: bool | None = True
    if decider is not None and decider[1] != outcome.path and outcome.error is not None:
        # A loser of the decision, if it had not ended by then: which is later than its code did.
        failed_at = max(
            position
            for position, entry in enumerate(book.entries)
            if isinstance(entry, Ended)
            and f"{entry.path}/".startswith((f"{outcome.path}/", f"{split(outcome.path)[0]}/"))
        )
        counts = False if failed_at > decider[0] else None
    return End(str(outcome.status), outcome.error, own, counts, choice)


def _decider(book: Book, fan: str) -> tuple[int, str] | None:
    """Return when a branch of ``fan`` has ended the others by an event, and which."""
    for position, entry in enumerate(book.entries):
        if isinstance(entry, Delivered) and entry.event.actions.escalate:
            path = entry.event.path
            if path.rpartition("/")[0] == fan:
                return position, path
    return None


def _replies(book: Book, path: str) -> list[str]:
    """What a person has said about the agent there, whichever attempt it was about."""
    base, _ = split(path)
    return [entry.choice for entry in book.of(Replied) if split(_asked_about(entry))[0] == base]


def _asked_about(reply: Replied) -> str:
    """Return the path of the activation that had failed; empty, if nobody asked about that."""
    before, failed, _ = reply.about.partition(" failed: ")
    return before.rpartition(" ")[2] if failed else ""


def _leaves(error: BaseException | None) -> Iterator[BaseException]:
    todo = [error]
    while todo:
        one = todo.pop(0)
        if isinstance(one, BaseExceptionGroup):
            todo[:0] = one.exceptions
        elif one is not None:
            yield one


LAWS: Final[tuple[Law, ...]] = (
    the_log_is_contiguous,
    delivered_equals_log,
    the_fold_of_the_log_is_the_state,
    state_changes_at_hand_out,
    a_branch_logs_what_it_alone_would_log,
    nothing_is_logged_that_nobody_emitted,
    an_emit_returns_when_the_reader_has_come_back,
    a_branch_sees_what_it_should,
    a_context_variable_is_its_owners,
    every_activation_ends_in_one_status,
    outcomes_are_complete_and_in_declaration_order,
    every_fan_out_records_its_outcomes_once,
    nothing_of_a_sibling_follows_the_deciding_event,
    losers_are_joined_before_the_outcomes,
    no_limit_is_exceeded,
    each_branch_ends_as_its_code_did,
    what_is_raised_is_what_the_policy_allows,
    the_run_ends_as_its_root_did,
)
