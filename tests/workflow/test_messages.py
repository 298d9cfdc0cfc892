"""Messages into a running stream: recorded, delivered, received; or refused, and then nothing.

What holds for drawn trees and readers is in ``tests/properties/test_two_way.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Final

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from parallel_agent import (
    ActivationEndedError,
    Agent,
    Barrier,
    Content,
    Escalate,
    Event,
    EventActions,
    FailFast,
    InvocationContext,
    Limiter,
    MessageRefusedError,
    ParallelAgent,
    Plugin,
    Retry,
    Run,
    RunConfig,
    Runner,
    SequentialAgent,
    Status,
    UnstorableError,
    agent,
)
from session import InlineData, Text
from session.lease import Lease
from tests.kernel.scripted import BatchingService, FailingService, SlowService, StoreError, quiet
from tests.workflow.trees import Yields, leaf, run_virtual, texts


def listener(name: str, count: int = 1, into: list[str] | None = None, **options: Any) -> Agent:
    """Return an agent that receives so many messages, and says what it heard after each."""

    @agent(name=name, **options)
    async def listen(ctx: InvocationContext) -> Yields:
        for _ in range(count):
            message = await ctx.receive()
            if into is not None:
                into.append(message.text)
            yield f"{name} heard {message.text}"

    return listen


async def read(run: Run, at: Callable[[Event], Any] | None = None) -> list[Event]:
    """Read to the end; call ``at`` at each event, before coming back for the next."""
    got: list[Event] = []
    async for event in run:
        got.append(event)
        if at is not None:
            result = at(event)
            if result is not None:
                await result
    return got


async def silent(ctx: InvocationContext) -> None:
    await trio.sleep_forever()


# ---------------------------------------------------------------------------------- what it becomes


async def test_a_message_is_an_event_of_the_users_on_that_branch(
    autojump_clock: MockClock,
) -> None:
    tree = ParallelAgent("fan", [listener("a"), listener("b")])
    async with Runner(tree).open() as run:
        await wait_all_tasks_blocked()
        await run.send("for b", to="fan.b")
        await run.send("for a", to="fan.a")
        got = await read(run)
    said = {event.text: (event.author, event.branch) for event in got if event.text}
    assert said == {
        "for b": ("user", "fan.b"),
        "for a": ("user", "fan.a"),
        "a heard for a": ("a", "fan.a"),
        "b heard for b": ("b", "fan.b"),
    }
    assert [event.seq for event in got] == [1, 2, 3, 4, 5]
    assert list(run.result.events) == got


async def test_what_send_returns_is_the_event_and_it_is_numbered_when_it_is_read(
    autojump_clock: MockClock,
) -> None:
    async with Runner(listener("a")).open() as run:
        sent = await run.send("hello")
        assert (sent.text, sent.seq, sent.author, sent.branch) == ("hello", None, "user", None)
        assert await anext(run) is sent
        assert sent.seq == 1
        assert sent.invocation_id == run.invocation_id
        await read(run)


async def test_a_message_reaches_the_agent_when_the_reader_comes_back(
    autojump_clock: MockClock,
) -> None:
    heard: list[str] = []
    async with Runner(listener("a", into=heard)).open() as run:
        await run.send("hello")
        event = await anext(run)
        await wait_all_tasks_blocked()
        assert (event.text, heard) == ("hello", [])
        event = await anext(run)
        assert (event.text, heard) == ("a heard hello", ["hello"])
        await read(run)


async def test_messages_come_in_the_order_in_which_they_were_sent(
    autojump_clock: MockClock,
) -> None:
    heard: list[str] = []
    async with Runner(listener("a", 5, heard)).open() as run:
        for number in range(5):
            await run.send(str(number))
        await read(run)
    assert heard == ["0", "1", "2", "3", "4"]


async def test_a_message_that_comes_before_anybody_receives_is_kept(
    autojump_clock: MockClock,
) -> None:
    heard: list[str] = []

    @agent
    async def late(ctx: InvocationContext) -> Yields:
        yield "busy"
        await trio.sleep(10)
        heard.append((await ctx.receive()).text)
        yield "ready"

    async with Runner(late).open() as run:
        await run.send("early")  # the agent has not even begun
        assert texts(await read(run)) == ["early", "busy", "ready"]
    assert heard == ["early"]


async def test_what_a_branch_says_itself_is_no_message_to_it(autojump_clock: MockClock) -> None:
    """The place in which a message waited for the reader must not be used for anything else."""

    @agent
    async def talker(ctx: InvocationContext) -> Yields:
        first = await ctx.receive()
        yield "one"
        yield "two"
        with trio.move_on_after(5):
            yield f"heard {(await ctx.receive()).text} after {first.text}"

    async with Runner(talker).open() as run:
        await run.send("hello")
        assert texts(await read(run)) == ["hello", "one", "two"]


async def test_what_comes_into_a_run_passes_no_plugin(autojump_clock: MockClock) -> None:
    passed: list[str] = []

    class Listener(Plugin):
        async def on_event_callback(
            self,
            ctx: InvocationContext,  # noqa: ARG002  # of the hook
            event: Event,
        ) -> None:
            passed.append(event.text)

    async with Runner(listener("a"), plugins=[Listener()]).open() as run:
        await run.send("hello")
        await read(run)
    assert passed == ["a heard hello"]


async def test_every_agent_of_a_branch_has_the_same_inbox(autojump_clock: MockClock) -> None:
    tree = SequentialAgent("chain", [listener("a"), listener("b")])
    async with Runner(tree).open() as run:
        await run.send("first")
        await run.send("second")
        got = texts(await read(run))
    assert got[-2:] == ["a heard first", "b heard second"]


async def test_the_inbox_is_read_with_async_for(autojump_clock: MockClock) -> None:
    @agent
    async def chat(ctx: InvocationContext) -> Yields:
        async for message in ctx.inbox:
            if message.text == "bye":
                break
            yield f"you said {message.text}"

    async with Runner(chat).open() as run:
        for text in ("a", "b", "bye"):
            await run.send(text)
        assert texts(await read(run))[-2:] == ["you said a", "you said b"]


async def test_a_reader_may_send_at_every_event(autojump_clock: MockClock) -> None:
    tree = ParallelAgent("fan", [listener("a", 3), listener("b", 3)])

    async def answer(event: Event) -> None:
        if event.author != "user" and event.text and event.text[-1] != "2":
            await run.send(str(int(event.text[-1]) + 1), to=event.branch)

    async with Runner(tree).open() as run:
        await wait_all_tasks_blocked()
        await run.send("0", to="fan.a")
        await run.send("0", to="fan.b")
        got = texts(await read(run, answer))
    assert [text for text in got if "a heard" in text] == [f"a heard {n}" for n in range(3)]
    assert [text for text in got if "b heard" in text] == [f"b heard {n}" for n in range(3)]


async def test_sending_does_not_wait_for_the_reader(autojump_clock: MockClock) -> None:
    """Every branch is parked in an emit, and nobody reads."""
    tree = ParallelAgent("fan", [leaf("a", "x", "y"), leaf("b", "x", "y")])
    async with Runner(tree).open() as run:
        await wait_all_tasks_blocked()
        with trio.fail_after(1):
            for branch in ("fan.a", "fan.b", None):
                await run.send("hello", to=branch)
        got = await read(run)
    assert texts(got).count("hello") == 3
    assert trio.current_time() == 0


async def test_another_task_may_send(autojump_clock: MockClock) -> None:
    async def later(run: Run) -> None:
        await trio.sleep(3)
        await run.send("from afar")

    async with trio.open_nursery() as nursery, Runner(listener("a")).open() as run:
        nursery.start_soon(later, run)
        assert texts(await read(run)) == ["from afar", "a heard from afar"]


async def test_what_is_written_is_recorded_before_a_message_is_waited_for(
    autojump_clock: MockClock,
) -> None:
    @agent
    async def writer(ctx: InvocationContext) -> None:
        ctx.state["ready"] = True
        await ctx.receive()

    async with Runner(writer).open() as run:
        event = await anext(run)
        assert dict(event.state_delta) == {"ready": True}
        await run.send("go on")
        await read(run)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("hello", (Text("hello"),)),
        (Content("hello"), (Text("hello"),)),
        (Content(InlineData(b"\x00", "image/png")), (InlineData(b"\x00", "image/png"),)),
        ("", (Text(""),)),
    ],
    ids=["text", "content", "bytes", "nothing"],
)
async def test_a_message_is_text_or_a_content_and_in_the_users_role(
    content: str | Content, parts: tuple[object, ...], autojump_clock: MockClock
) -> None:
    async with Runner(listener("a")).open() as run:
        sent = await run.send(content)
        await read(run)
    assert sent.content == Content(parts, role="user")  # type: ignore[arg-type]  # parts, all of them


async def test_the_text_of_a_result_is_not_what_was_sent_in(autojump_clock: MockClock) -> None:
    @agent
    async def quiet_one(ctx: InvocationContext) -> Yields:
        yield "I listen"
        await ctx.receive()

    async with Runner(quiet_one).open() as run:
        await run.send("no answer needed")
        got = texts(await read(run))
    assert set(got) == {"I listen", "no answer needed"}
    assert run.result.text == "I listen"


# ------------------------------------------------------------------------------ from agent to agent


async def test_an_agent_sends_to_another_branch_in_its_own_name(
    autojump_clock: MockClock,
) -> None:
    tree = ParallelAgent(
        "fan", [leaf("boss", lambda ctx: ctx.send("work", to="fan.hand")), listener("hand")]
    )
    async with Runner(tree).open() as run:
        got = await read(run)
    assert [(event.author, event.branch) for event in got if event.text] == [
        ("boss", "fan.hand"),
        ("hand", "fan.hand"),
    ]


async def test_a_handle_sends_to_the_branch_it_stands_for(autojump_clock: MockClock) -> None:
    hand = listener("hand")

    @agent
    async def boss(ctx: InvocationContext) -> list[str]:
        async with ctx.open_fan_out() as group:
            handles = [group.start(hand), group.start(hand, key="left")]
            for number, handle in enumerate(handles):
                await handle.send(f"task {number}")
            return [await handle for handle in handles]

    async with Runner(boss).open() as run:
        got = await read(run)
    sent = [event for event in got if event.text.startswith("task")]
    assert [(event.author, event.branch) for event in sent] == [
        ("boss", "boss.hand@1"),
        ("boss", "boss.hand@left"),
    ]
    assert run.result.output == ["hand heard task 0", "hand heard task 1"]


async def test_an_agent_may_send_to_itself(autojump_clock: MockClock) -> None:
    @agent
    async def alone(ctx: InvocationContext) -> str:
        await ctx.send("note", to=ctx.branch)
        return (await ctx.receive()).text

    assert (await Runner(alone).run()).output == "note"


# ------------------------------------------------------------------------------------- none is lost


@attrs.frozen
class Talk:
    """Messages sent at these moments, and patience of so long each time somebody receives."""

    sent_at: tuple[int, ...]
    patience: tuple[int, ...]
    receivers: int = 1
    pause: int = 0


def talks() -> st.SearchStrategy[Talk]:
    return st.builds(
        Talk,
        st.lists(st.integers(0, 6), min_size=1, max_size=6).map(lambda at: tuple(sorted(at))),
        st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple),
        st.integers(1, 3),
        st.integers(0, 2),
    )


async def hold(talk: Talk) -> list[tuple[int, str]]:
    """Let the talk take place; return who received what, in order."""
    received: list[tuple[int, str]] = []

    async def receive_some(ctx: InvocationContext, number: int) -> None:
        turn = 0
        while len(received) < len(talk.sent_at):
            # At the very moment that a message comes, too.
            with trio.move_on_after(talk.patience[turn % len(talk.patience)] or 0.5):
                received.append((number, (await ctx.receive()).text))
            turn += 1

    @agent
    async def impatient(ctx: InvocationContext) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(talk.receivers):
                nursery.start_soon(receive_some, ctx, number)

    async def send_all(run: Run) -> None:
        began = trio.current_time()
        for number, at in enumerate(talk.sent_at):
            await trio.sleep_until(began + at)
            await run.send(str(number))

    async with trio.open_nursery() as nursery, Runner(impatient).open() as run:
        nursery.start_soon(send_all, run)
        async for _ in run:
            await trio.sleep(talk.pause)
    return received


@given(talks(), st.random_module())
def test_a_receive_that_is_cancelled_loses_nothing(talk: Talk, seed: object) -> None:
    received = run_virtual(hold, attrs.evolve(talk, receivers=1))
    assert received == [(0, str(number)) for number in range(len(talk.sent_at))]


@given(talks(), st.random_module())
def test_a_message_is_received_once_whoever_waits_for_it(talk: Talk, seed: object) -> None:
    received = run_virtual(hold, talk)
    assert sorted(text for _, text in received) == [str(n) for n in range(len(talk.sent_at))]
    for receiver in range(talk.receivers):  # and each gets what it gets in order
        own = [int(text) for number, text in received if number == receiver]
        assert own == sorted(own)


async def test_a_failed_attempt_leaves_its_messages_to_the_next(
    autojump_clock: MockClock,
) -> None:
    heard: list[str] = []

    @agent(retry=Retry(max_attempts=3))
    async def flaky(ctx: InvocationContext) -> str:
        both = [(await ctx.receive()).text for _ in range(2)]
        heard.extend(both)
        if len(heard) < 5:
            message = "once more"
            raise RuntimeError(message)
        return " ".join(both)

    async with Runner(flaky).open() as run:
        await run.send("a")
        await run.send("b")
        await run.send("c")
        await read(run)
    assert heard == ["a", "b"] * 3
    assert run.result.output == "a b"


async def test_what_agents_below_a_failed_attempt_received_is_there_again(
    autojump_clock: MockClock,
) -> None:
    fails = iter((True, False))

    def maybe(ctx: InvocationContext) -> None:
        if next(fails):
            message = "once more"
            raise RuntimeError(message)

    tree = SequentialAgent(
        "pair", [listener("a"), leaf("check", maybe), listener("b")], retry=Retry(max_attempts=2)
    )
    outer = SequentialAgent("outer", [listener("before"), tree])
    async with Runner(outer).open() as run:
        for text in ("1", "2", "3"):
            await run.send(text)
        got = [text for text in texts(await read(run)) if "heard" in text]
    assert got == ["before heard 1", "a heard 2", "a heard 2", "b heard 3"]


async def test_a_branch_that_a_person_lets_try_again_gets_its_messages_again(
    autojump_clock: MockClock,
) -> None:
    fails = iter((True, False))

    @agent
    async def unlucky(ctx: InvocationContext) -> str:
        text = (await ctx.receive()).text
        if next(fails):
            raise RuntimeError(text)
        return f"done with {text}"

    async def retry(event: Event) -> None:
        if event.request is not None:
            await run.respond(event.request.id, "retry")

    async with Runner(ParallelAgent("fan", [unlucky], barrier=Escalate())).open() as run:
        await wait_all_tasks_blocked()
        await run.send("the work", to="fan.unlucky")
        await read(run, retry)
    assert run.result.output == {"unlucky": "done with the work"}


# -------------------------------------------------------------------------------------- who sees it


async def test_a_message_is_in_its_branchs_history_and_not_in_a_siblings(
    autojump_clock: MockClock,
) -> None:
    seen: dict[str, list[str]] = {}

    def look(ctx: InvocationContext) -> None:
        seen[ctx.agent.name] = texts(ctx.history())

    tree = SequentialAgent(
        "whole",
        [
            ParallelAgent(
                "fan",
                [
                    SequentialAgent("one", [listener("a"), leaf("a_looks", look)]),
                    SequentialAgent("ten", [listener("b"), leaf("b_looks", look)]),
                ],
            ),
            leaf("after", look),
        ],
    )
    async with Runner(tree).open("begin") as run:
        await wait_all_tasks_blocked()
        await run.send("to one", to="fan.one")
        await run.send("to ten", to="fan.ten")
        await read(run)
    assert seen["a_looks"] == ["begin", "to one", "a heard to one"]
    assert seen["b_looks"] == ["begin", "to ten", "b heard to ten"]
    assert sorted(seen["after"]) == sorted(
        ["begin", "to one", "a heard to one", "to ten", "b heard to ten"]
    )


async def test_a_message_to_the_parent_is_not_seen_by_branches_forked_before(
    autojump_clock: MockClock,
) -> None:
    seen: dict[str, list[str]] = {}

    def look(ctx: InvocationContext) -> None:
        seen[ctx.agent.name] = texts(ctx.history())

    tree = SequentialAgent(
        "whole", [ParallelAgent("fan", [leaf("child", 5, look)]), leaf("after", look)]
    )
    async with Runner(tree).open("begin") as run:
        await wait_all_tasks_blocked()
        await run.send("for the parent")
        await read(run)
    assert seen == {"child": ["begin"], "after": ["begin", "for the parent"]}


# ---------------------------------------------------------------------------------- what is refused


async def unchanged(run: Run, send: Callable[[], Any], match: str) -> None:
    """Assert that ``send`` is refused, and that this changes nothing."""
    before, queued, now = run.statistics(), len(run._stream.queue), trio.current_time()
    with trio.fail_after(1), pytest.raises(MessageRefusedError, match=match):
        await send()
    assert trio.current_time() == now
    await wait_all_tasks_blocked()
    assert (run.statistics(), len(run._stream.queue)) == (before, queued)


async def test_a_full_inbox_refuses_at_once(autojump_clock: MockClock) -> None:
    config = RunConfig(inbox_size=2)
    async with Runner(listener("a", 3)).open(run_config=config) as run:
        await run.send("1")
        assert (await anext(run)).text == "1"  # on its way until the reader is back
        await run.send("2")
        with pytest.raises(MessageRefusedError, match="the inbox of the root branch is full: 2"):
            await run.send("too many")
        await anext(run)
        await wait_all_tasks_blocked()
        await run.send("3")  # "1" has been received meanwhile
        got = texts(await read(run))
    assert "too many" not in got
    assert [event.text for event in run.result.events if event.author == "a"] == [
        "a heard 1",
        "a heard 2",
        "a heard 3",
    ]


async def test_nobody_receives_and_the_inbox_is_still_bounded(autojump_clock: MockClock) -> None:
    async with Runner(leaf("deaf", silent)).open(run_config=RunConfig(inbox_size=3)) as run:
        for _ in range(3):
            await run.send("hello?")
            assert (await anext(run)).text == "hello?"
        with trio.move_on_after(1):
            await anext(run)
        await unchanged(run, lambda: run.send("hello?"), "is full: 3 messages wait")


async def test_what_nobody_has_received_when_its_branch_ends_is_in_the_log_alone(
    autojump_clock: MockClock,
) -> None:
    got: list[str] = []
    deaf = ParallelAgent("fan", [leaf("deaf", "begin", 1)])
    async with Runner(SequentialAgent("s", [deaf, listener("a", into=got)])).open() as run:
        async for event in run:
            if event.text == "begin":
                await run.send("to nobody", to="fan.deaf")
            elif event.author == "fan":
                await run.send("to somebody")
    assert got == ["to somebody"]
    sent = [event for event in run.result.events if event.author == "user"]
    assert [(event.branch, event.text) for event in sent] == [
        ("fan.deaf", "to nobody"),
        (None, "to somebody"),
    ]


async def test_of_one_message_is_spoken_as_of_one(autojump_clock: MockClock) -> None:
    said = "is full: 1 message waits for an agent to receive it "
    async with Runner(leaf("deaf", silent)).open(run_config=RunConfig(inbox_size=1)) as run:
        await wait_all_tasks_blocked()
        await run.send("hello?")
        await unchanged(run, lambda: run.send("hello?"), said)


async def test_each_branch_has_an_inbox_of_its_own(autojump_clock: MockClock) -> None:
    tree = ParallelAgent("fan", [listener("a"), listener("b")])
    async with Runner(tree).open(run_config=RunConfig(inbox_size=1)) as run:
        await wait_all_tasks_blocked()
        await run.send("1", to="fan.a")
        await run.send("2", to="fan.b")
        with pytest.raises(MessageRefusedError, match=r"inbox of branch 'fan\.a' is full"):
            await run.send("3", to="fan.a")
        await read(run)


@pytest.mark.parametrize("to", ["fan.c", "fan", "a", "", "fan.a.b", "Fan.a", "whole"])
async def test_an_unknown_branch_is_refused_and_the_running_ones_are_named(
    to: str, autojump_clock: MockClock
) -> None:
    tree = ParallelAgent("fan", [leaf("a", silent), leaf("b", silent)])
    async with Runner(SequentialAgent("whole", [tree])).open() as run:
        await wait_all_tasks_blocked()
        await unchanged(
            run,
            lambda: run.send("hello", to=to),
            f"no branch {to!r} is running .*beside the root branch: fan.a, fan.b",
        )


@pytest.mark.parametrize(
    ("to", "hint"),
    [
        ("a", "did you mean 'talk.pair@1.pair.a'?"),
        ("pair.a", "did you mean 'talk.pair@1.pair.a'?"),
        ("item@b", "did you mean 'talk.item@b'?"),
        ("b", "did you mean 'talk.item@b' or 'talk.other@b'?"),
        ("pipeline", "'pipeline' runs on the root branch: leave out `to`"),
        ("talk", "'talk' runs on the root branch: leave out `to`"),
    ],
)
async def test_which_branch_was_meant_is_told(
    to: str, hint: str, autojump_clock: MockClock
) -> None:
    assert (await refused_in_a_pipeline(to)).endswith(f"); {hint}")


@pytest.mark.parametrize("to", ["aa", "r.a", "talk.item@c", "talk.items@b", "item", "later"])
async def test_a_name_that_is_only_like_a_running_one_is_no_hint(
    to: str, autojump_clock: MockClock
) -> None:
    """The branch of that name may have ended, and then no other one is meant."""
    assert (await refused_in_a_pipeline(to)).endswith("talk.pair@1.pair.a)")


async def refused_in_a_pipeline(to: str) -> str:
    """Return what is said of a message to a branch of that name, sent to a run with many."""

    @agent
    async def talk(ctx: InvocationContext) -> None:
        async with ctx.open_fan_out() as group:
            group.start(leaf("item", silent), key="b")
            group.start(leaf("other", silent), key="b")
            group.start(ParallelAgent("pair", [leaf("a", silent)]))

    async with Runner(SequentialAgent("pipeline", [talk, leaf("later")])).open() as run:
        await wait_all_tasks_blocked()
        with pytest.raises(MessageRefusedError) as refused:
            await run.send("hello", to=to)
    return str(refused.value)


async def test_of_many_branches_some_are_named(autojump_clock: MockClock) -> None:
    tree = ParallelAgent("fan", [leaf(f"a{number:02}", silent) for number in range(12)])
    async with Runner(tree).open() as run:
        await wait_all_tasks_blocked()
        await unchanged(run, lambda: run.send("x", to="y"), r"fan.a00, .*, fan.a09 and 2 more\)")


@pytest.mark.parametrize("to", [5, [], ("fan", "a"), b"fan.a"])
async def test_a_branch_is_named_by_text(to: Any, autojump_clock: MockClock) -> None:
    async with Runner(leaf("a", silent)).open() as run:
        await wait_all_tasks_blocked()
        await unchanged(run, lambda: run.send("hello", to=to), "by its name, or to None, not to")


@pytest.mark.parametrize("content", [None, 5, b"bytes", ["text"], Event("text"), Text("text")])
async def test_what_is_neither_text_nor_content_is_refused(
    content: Any, autojump_clock: MockClock
) -> None:
    async with Runner(leaf("a", silent)).open() as run:
        await wait_all_tasks_blocked()
        await unchanged(run, lambda: run.send(content), "a message is text or a Content, not")


async def test_text_that_cannot_be_stored_is_refused(autojump_clock: MockClock) -> None:
    async with Runner(listener("a")).open(run_config=RunConfig(inbox_size=1)) as run:
        with pytest.raises(UnstorableError):
            await run.send("half a letter: \ud800")
        await run.send("good")
        assert texts(await read(run)) == ["good", "a heard good"]


async def test_a_branch_that_has_ended_is_refused(autojump_clock: MockClock) -> None:
    tree = ParallelAgent("fan", [leaf("short"), leaf("long", silent)])
    async with Runner(tree).open() as run:
        await wait_all_tasks_blocked()
        await unchanged(
            run,
            lambda: run.send("hello", to="fan.short"),
            "no branch 'fan.short' is running .*: fan.long",
        )


async def test_a_run_that_has_ended_is_refused(autojump_clock: MockClock) -> None:
    async with Runner(leaf("a", "x")).open() as run:
        await read(run)
        await unchanged(run, lambda: run.send("hello"), "the run has ended")
        await unchanged(run, lambda: run.send("hello", to="fan.a"), "the run has ended")
    await unchanged(run, lambda: run.send("hello"), "the run has ended")


async def test_a_run_that_has_been_left_is_refused(autojump_clock: MockClock) -> None:
    """Its agents are cleaning up, and go on doing so."""
    errors: list[str] = []

    async def linger(ctx: InvocationContext) -> None:
        try:
            await ctx.emit("begin")
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                for send in (run.send, ctx.send):
                    with pytest.raises(MessageRefusedError) as refused:
                        await send("is anybody there?")
                    errors.append(str(refused.value))
                await ctx.emit("cleaned up")

    async with Runner(leaf("a", linger)).open() as run:
        await anext(run)
    assert [error.partition(":")[0] for error in errors] == [
        "the run has ended, or is about to"
    ] * 2
    assert texts(run.result.events) == ["begin", "cleaned up"]


async def test_a_branch_that_a_sibling_has_ended_is_refused(autojump_clock: MockClock) -> None:
    async def clean_up(ctx: InvocationContext) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)

    async def wait(ctx: InvocationContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            await clean_up(ctx)

    stop = Event("stop", actions=EventActions(escalate=True))
    tree = ParallelAgent("fan", [leaf("ender", 1, lambda ctx: ctx.emit(stop)), leaf("ended", wait)])
    async with Runner(tree).open() as run:
        assert (await anext(run)).text == "stop"
        await unchanged(
            run,
            lambda: run.send("hello", to="fan.ended"),
            "no branch 'fan.ended' is running .*: fan.ender",
        )
        await read(run)


async def test_a_message_queued_when_a_sibling_ends_its_branch_is_withdrawn(
    autojump_clock: MockClock,
) -> None:
    stop = Event("stop", actions=EventActions(escalate=True))
    tree = ParallelAgent("fan", [leaf("ender", lambda ctx: ctx.emit(stop)), leaf("ended", silent)])
    async with Runner(tree).open() as run:
        await wait_all_tasks_blocked()
        sent = await run.send("too late", to="fan.ended")
        assert texts(await read(run)) == ["stop"]
    assert sent.seq is None


async def test_two_branches_of_one_name_are_refused(autojump_clock: MockClock) -> None:
    fan = ParallelAgent("fan", [leaf("a", silent)])

    @agent
    async def twice(ctx: InvocationContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.run_agent, fan)
            nursery.start_soon(ctx.run_agent, fan)

    async with Runner(twice).open() as run:
        await wait_all_tasks_blocked()
        await unchanged(run, lambda: run.send("x", to="fan.a"), "2 branches called 'fan.a' are")


async def test_an_agent_is_refused_what_a_reader_is(autojump_clock: MockClock) -> None:
    @agent
    async def sender(ctx: InvocationContext) -> Yields:
        for to in ("nowhere", "fan.gone"):
            try:
                await ctx.send("hello", to=to)
            except MessageRefusedError as error:
                yield str(error)

    tree = ParallelAgent("fan", [leaf("gone"), SequentialAgent("s", [leaf("w", 1), sender])])
    first, second = texts((await Runner(tree).run()).events)
    assert first == "no branch 'nowhere' is running (running, beside the root branch: fan.s)"
    assert second == "no branch 'fan.gone' is running (running, beside the root branch: fan.s)"


async def test_a_handle_whose_branch_has_ended_refuses(autojump_clock: MockClock) -> None:
    @agent
    async def boss(ctx: InvocationContext) -> Yields:
        async with ctx.open_fan_out() as group:
            handle = group.start(leaf("short"))
            await handle
            with pytest.raises(MessageRefusedError, match=r"'boss\.short@1' has ended: nobody"):
                await handle.send("hello")
        with pytest.raises(MessageRefusedError, match="none"):
            await handle.send("hello")
        yield "refused"

    assert (await Runner(boss).run()).text == "refused"


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "2", None])
def test_an_inbox_has_room_for_one_or_more(size: Any) -> None:
    with pytest.raises(ValueError, match="inbox_size is a whole number from 1 on"):
        RunConfig(inbox_size=size)


async def test_receiving_after_the_agent_has_ended_is_refused(autojump_clock: MockClock) -> None:
    kept: list[InvocationContext] = []

    async def use(ctx: InvocationContext) -> None:
        for call in (kept[0].receive, partial(kept[0].send, "x"), kept[0].inbox.__anext__):
            with pytest.raises(ActivationEndedError):
                await call()

    tree = SequentialAgent("s", [leaf("first", kept.append), leaf("second", use)])
    assert (await Runner(tree).run()).status is Status.COMPLETED


# --------------------------------------------------------------------- a message and the rest of it


@pytest.mark.parametrize("barrier", [FailFast(), Escalate()])
async def test_an_agent_that_waits_for_a_message_is_cancelled_with_its_siblings(
    barrier: Barrier, autojump_clock: MockClock
) -> None:
    async def abort(event: Event) -> None:
        if event.request is not None:
            await run.respond(event.request.id, "abort")

    tree = ParallelAgent("fan", [listener("a"), leaf("b", 1, KeyError("b"))], barrier=barrier)
    async with Runner(tree).open() as run:
        with pytest.raises(KeyError):
            await read(run, abort)
    assert [outcome.status for outcome in run.outcomes("fan")] == ["cancelled", "failed"]


async def test_waiting_for_a_message_takes_nobodys_slot(autojump_clock: MockClock) -> None:
    one = Limiter(1)
    tree = ParallelAgent(
        "fan",
        [
            listener("a", limiter=one),
            SequentialAgent("s", [leaf("later", 1), leaf("b", 1, "b is done", limiter=one)]),
        ],
    )

    async def answer(event: Event) -> None:
        if event.text == "b is done":
            await run.send("your turn", to="fan.a")

    async with Runner(tree).open() as run:
        got = texts(await read(run, answer))
    assert got == ["b is done", "your turn", "a heard your turn"]
    assert one.statistics().in_use == 0


async def test_a_receive_cancelled_while_it_waits_for_its_slot_loses_nothing(
    autojump_clock: MockClock,
) -> None:
    """The message is there, but another agent works, and patience ends before that does."""
    one = Limiter(1)
    heard: list[str] = []

    async def impatient(ctx: InvocationContext) -> None:
        with trio.move_on_after(3) as patience:
            heard.append((await ctx.receive()).text)
        assert patience.cancelled_caught
        heard.append(f"then {(await ctx.receive()).text}")

    busy = SequentialAgent("s", [leaf("later", 1), leaf("busy", 5, limiter=one)])
    tree = ParallelAgent("fan", [leaf("a", impatient, limiter=one), busy])
    async with Runner(tree).open() as run:
        with trio.move_on_after(2):
            await anext(run)
        await run.send("hello", to="fan.a")
        await read(run)
    assert heard == ["then hello"]


async def test_a_message_that_one_gives_up_for_its_slot_wakes_the_next(
    autojump_clock: MockClock,
) -> None:
    """Two agents wait on one branch; the first one's patience ends while it waits for its slot."""
    one = Limiter(1)
    heard: list[str] = []

    async def wait(ctx: InvocationContext, patience: float) -> None:
        with trio.move_on_after(patience):
            heard.append(f"{ctx.agent.name} heard {(await ctx.receive()).text}")

    first = leaf("first", lambda ctx: wait(ctx, 3), limiter=one)
    second = leaf("second", lambda ctx: wait(ctx, 1000), limiter=one)

    async def both(ctx: InvocationContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.run_agent, first)
            await trio.sleep(0.5)
            nursery.start_soon(ctx.run_agent, second)

    busy = SequentialAgent("s", [leaf("later", 1), leaf("busy", 5, limiter=one)])
    async with Runner(ParallelAgent("fan", [leaf("a", both), busy])).open() as run:
        with trio.move_on_after(2):
            await anext(run)
        await run.send("hello", to="fan.a")
        await read(run)
    assert heard == ["second heard hello"]
    assert trio.current_time() == 6


async def test_waiting_for_a_message_is_not_being_idle(autojump_clock: MockClock) -> None:
    async def later(run: Run) -> None:
        await trio.sleep(100)
        await run.send("at last")

    async with (
        trio.open_nursery() as nursery,
        Runner(listener("a", idle_timeout=5)).open() as run,
    ):
        nursery.start_soon(later, run)
        await read(run)
    assert run.result.text == "a heard at last"


SERVICES: Final = [
    partial(SlowService, 1),
    partial(BatchingService, 1),
    partial(BatchingService, 0),
]


@pytest.mark.parametrize("service", SERVICES, ids=["slow", "slow batching", "batching"])
async def test_a_service_that_takes_its_time_records_messages_the_same_way(
    service: Callable[[], SlowService], autojump_clock: MockClock
) -> None:
    runner = Runner(
        ParallelAgent("fan", [listener("a", 2), listener("b", 2)]), session_service=service()
    )
    async with runner.open() as run:
        await wait_all_tasks_blocked()
        for text in ("1", "2"):
            for to in ("fan.a", "fan.b"):
                await run.send(text, to=to)
        got = await read(run)
    for name in ("a", "b"):
        own = [event.text for event in got if event.branch == f"fan.{name}"]
        assert [text for text in own if "heard" in text] == [f"{name} heard 1", f"{name} heard 2"]
        assert own.index("1") < own.index(f"{name} heard 1")
    assert [event.seq for event in got] == list(range(1, 10))


async def test_a_store_that_fails_on_a_message_ends_the_run_with_its_error(
    autojump_clock: MockClock,
) -> None:
    class Failing(FailingService):
        async def append(
            self,
            key: Any,
            events: Any,
            *,
            expected_seq: int,
            lease: Lease | None = None,
        ) -> None:
            if events[0].text == "hello":
                raise StoreError
            await super().append(key, events, expected_seq=expected_seq, lease=lease)

    runner = Runner(listener("a"), session_service=Failing(99))
    with quiet(generation=0):
        async with runner.open() as run:
            await run.send("hello")
            with pytest.raises(StoreError):
                await read(run)
    assert run.result.status is Status.FAILED


# ----------------------------------------------------------------------- nobody is left to send any


def behind_a_shield(diary: list[str], wait: Callable[[InvocationContext], Any]) -> Agent:
    async def stubborn(ctx: InvocationContext) -> None:
        try:
            await ctx.emit("begin")
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                try:
                    await wait(ctx)
                finally:
                    diary.append("gave up")

    return leaf("stubborn", stubborn)


@pytest.mark.parametrize("way", ["break", "raise", "cancel"])
async def test_a_shielded_receive_does_not_keep_a_run_from_being_left(
    way: str, autojump_clock: MockClock
) -> None:
    diary: list[str] = []
    tree = behind_a_shield(diary, lambda ctx: ctx.receive())
    leaving = pytest.raises(KeyError) if way == "raise" else nullcontext()
    with trio.CancelScope() as outer, leaving:
        async with Runner(tree).open() as run:
            await anext(run)
            if way == "raise":
                raise KeyError
            if way == "cancel":
                outer.cancel()
                await trio.sleep_forever()
    assert diary == ["gave up"]
    assert run.result.status is Status.CANCELLED


@pytest.mark.parametrize("asks", [False, True], ids=["receive", "request_input"])
async def test_who_has_been_waiting_behind_a_shield_is_woken_when_the_reader_leaves(
    asks: bool,  # noqa: FBT001  # a parameter of the test
    autojump_clock: MockClock,
) -> None:
    async def stubborn(ctx: InvocationContext) -> None:
        with trio.CancelScope(shield=True):
            await (ctx.request_input("well?") if asks else ctx.receive())

    async with Runner(leaf("a", stubborn)).open() as run:
        with trio.move_on_after(5) as patience:
            while True:
                await anext(run)  # the question, if it is one
        assert patience.cancelled_caught
    assert run.result.status is Status.CANCELLED


async def test_a_shielded_receive_does_not_keep_a_run_alive_whose_store_has_failed(
    autojump_clock: MockClock,
) -> None:
    diary: list[str] = []
    tree = ParallelAgent(
        "fan",
        [behind_a_shield(diary, lambda ctx: ctx.receive()), leaf("b", 1, "this one fails")],
    )
    runner = Runner(tree, session_service=FailingService(2))
    async with runner.open() as run:
        with pytest.raises(StoreError):
            await read(run)
    assert diary == ["gave up"]


async def test_who_has_been_waiting_behind_a_shield_is_woken_when_the_store_fails(
    autojump_clock: MockClock,
) -> None:
    async def stubborn(ctx: InvocationContext) -> None:
        with trio.CancelScope(shield=True):
            await ctx.receive()

    tree = ParallelAgent("fan", [leaf("a", stubborn), leaf("b", 1, "this one fails")])
    async with Runner(tree, session_service=FailingService(1)).open() as run:
        with pytest.raises(StoreError):
            await read(run)
    assert run.statistics().cancelled == 3


async def test_a_cancelled_run_that_is_read_on_still_delivers_messages(
    autojump_clock: MockClock,
) -> None:
    """Clean-up may ask what to do, as long as somebody is there to say it."""
    diary: list[str] = []

    async def last_words(ctx: InvocationContext) -> None:
        diary.append((await ctx.receive()).text)

    async with Runner(behind_a_shield(diary, last_words)).open() as run:
        await anext(run)
        run.cancel()
        await run.send("clean up well")
        await read(run)
    assert diary == ["clean up well", "gave up"]
    assert run.result.status is Status.CANCELLED
