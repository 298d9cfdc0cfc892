"""Our trees in ADK's own runner. With the real google-adk, for ``make deep``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given

from parallel_agent import (
    Content,
    Event,
    EventActions,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Result,
    Retry,
    RunConfig,
    Runner,
    SequentialAgent,
    TreeError,
    agent,
    aio,
)
from session import Codec
from session.state import same
from tests.session.strategies import events as drawn_events
from tests.support.adk import (
    agents,
    calls,
    llm,
    runners,
    says,
    scripted_adk,
    sessions,
    text_of,
    types,
    user,
    workflow,
)
from tests.support.loops import Diary, InLoop, cleaning_up, counting

adk = pytest.importorskip("parallel_agent.adk")
mapping = pytest.importorskip("parallel_agent.adk.events")
artifacts = pytest.importorskip("google.adk.artifacts")
memory = pytest.importorskip("google.adk.memory")
workflows = pytest.importorskip("google.adk.workflow")

pytestmark = pytest.mark.deep

codec = Codec()


@attrs.define
class Adk:
    """A runner of ADK's, and one session."""

    agent: Any
    state: dict[str, Any] = attrs.field(factory=dict[str, Any])
    options: dict[str, Any] = attrs.field(factory=dict[str, Any])
    service: Any = attrs.field(factory=sessions.InMemorySessionService)

    async def open(self, message: str = "go") -> AsyncGenerator[Any, None]:
        if await self.session() is None:
            await self.service.create_session(
                app_name="app", user_id="ann", session_id="s", state=self.state
            )
        kind = "agent" if isinstance(self.agent, agents.BaseAgent) else "node"
        runner = runners.Runner(
            app_name="app", session_service=self.service, **{kind: self.agent}, **self.options
        )
        reading = runner.run_async(user_id="ann", session_id="s", new_message=user(message))
        async with aclosing(reading) as read:
            async for event in read:
                yield event

    async def run(self, message: str = "go") -> list[Any]:
        return [event async for event in self.open(message)]

    async def session(self) -> Any:
        return await self.service.get_session(app_name="app", user_id="ann", session_id="s")


def texts(read: list[Any]) -> list[tuple[str, str]]:
    return [(event.author, text_of(event.content)) for event in read if text_of(event.content)]


@agent
async def report(ctx: InvocationContext) -> Any:
    yield f"{ctx.user_text}: {ctx.state.to_dict()}"


@agent
async def history(ctx: InvocationContext) -> Any:
    yield str([(event.author, event.text) for event in ctx.history()])


# What it says.


def test_a_tree_runs_in_adks_runner(in_loop: InLoop) -> None:
    fan = ParallelAgent("fan", [counting("a", 1), counting("b", 1)])
    tree = SequentialAgent("pipeline", [fan, report])

    async def main() -> None:
        adk_runner = Adk(adk.as_adk_agent(tree))
        read = await adk_runner.run("hello")
        said = [(event.author, event.branch, text_of(event.content)) for event in read]
        assert sorted(said[:2]) == [("a", "fan.a", "a 0"), ("b", "fan.b", "b 0")]
        assert said[2:] == [("fan", None, ""), ("report", None, "hello: {}")]
        recorded = (await adk_runner.session()).events
        assert [event.id for event in recorded[1:]] == [event.id for event in read]
        assert {event.invocation_id for event in recorded} == {read[0].invocation_id}

    in_loop(main())


def comparable(event: Event) -> dict[str, Any]:
    """An event as JSON, without what is another one's in another log; a branch "" is none."""
    obj = codec.encode(event)
    for name in ("id", "invocationId"):
        del obj[name]
    metadata = dict(obj.pop("customMetadata", {}))
    ours = {key: value for key, value in metadata.pop("parallel_agent", {}).items() if key != "seq"}
    return obj | {"branch": obj.get("branch") or None, "metadata": metadata, "ours": ours}


@given(drawn_events)
def test_what_our_event_says_adks_says(event: Event) -> None:
    adk_event = mapping.to_adk(
        event,
        author=event.author,
        invocation_id="other",
        above=None,
        keeps_escalate=True,
        temporary={},
    )
    assert adk_event.invocation_id == "other"
    back = mapping.past_from_adk(adk_event, author="tree", name="tree")
    assert same(comparable(back), comparable(event))


async def two_texts(ctx: InvocationContext) -> Any:
    yield Event("he", partial=True)
    yield "hello"


def test_partial_events_are_read_and_not_recorded(in_loop: InLoop) -> None:
    async def main() -> None:
        adk_runner = Adk(adk.as_adk_agent(agent(two_texts)))
        read = await adk_runner.run()
        assert [(text_of(e.content), bool(e.partial)) for e in read] == [
            ("he", True),
            ("hello", False),
        ]
        assert texts((await adk_runner.session()).events) == [
            ("user", "go"),
            ("two_texts", "hello"),
        ]

    in_loop(main())


def test_a_branch_goes_on_when_adk_has_come_back(in_loop: InLoop) -> None:
    diary: Diary = []

    @agent
    async def careful(ctx: InvocationContext) -> Any:
        for number in range(3):
            yield str(number)
            diary.append(f"{number} acknowledged")

    async def main() -> None:
        adk_runner = Adk(adk.as_adk_agent(careful))
        async for event in adk_runner.open():
            for _ in range(10):
                await asyncio.sleep(0)
            recorded = (await adk_runner.session()).events
            assert recorded[-1].id == event.id
            diary.append(f"{text_of(event.content)} read")
        assert diary == [
            f"{number} {what}" for number in range(3) for what in ("read", "acknowledged")
        ]

    in_loop(main())


def test_a_name_of_its_own_is_the_roots(in_loop: InLoop) -> None:
    tree = counting("counter", 1)

    async def main() -> None:
        adk_agent = adk.as_adk_agent(tree, name="other")
        assert (adk_agent.name, isinstance(adk_agent, agents.BaseAgent)) == ("other", True)
        adk_runner = Adk(adk_agent)
        assert texts(await adk_runner.run()) == [("other", "counter 0")]
        assert tree.name == "counter"

    in_loop(main())


# What it sees, and writes.


def test_it_sees_adks_state_and_its_writes_are_adks(in_loop: InLoop) -> None:
    @agent
    async def writer(ctx: InvocationContext) -> Any:
        ctx.state["seen"] = [ctx.state["plain"], ctx.state["user:name"], ctx.state["app:x"]]
        ctx.state["user:name"] = "Bea"
        yield "wrote"

    async def main() -> None:
        adk_runner = Adk(adk.as_adk_agent(writer), {"plain": 1, "user:name": "Ann", "app:x": [2]})
        (read,) = await adk_runner.run()
        assert read.actions.state_delta == {"seen": [1, "Ann", [2]], "user:name": "Bea"}
        state = (await adk_runner.session()).state
        assert state == {"plain": 1, "seen": [1, "Ann", [2]], "user:name": "Bea", "app:x": [2]}

    in_loop(main())


def test_temporary_keys_pass_both_ways_and_are_not_kept(in_loop: InLoop) -> None:
    async def before(ctx: Any) -> AsyncGenerator[Any, None]:
        yield {"message": "before", "state": {"temp:in": 1}}

    @agent
    async def between(ctx: InvocationContext) -> Any:
        ctx.state["temp:out"] = ctx.state["temp:in"] + 1
        yield "between"

    async def after(ctx: Any) -> AsyncGenerator[Any, None]:
        yield f"sees {ctx.session.state}"

    async def main() -> None:
        line = [scripted_adk("before", before), adk.as_adk_agent(between)]
        adk_agent = workflow("SequentialAgent", "line", [*line, scripted_adk("after", after)])
        adk_runner = Adk(adk_agent)
        assert texts(await adk_runner.run())[-1] == ("after", "sees {'temp:in': 1, 'temp:out': 2}")
        assert (await adk_runner.session()).state == {}

    in_loop(main())


def test_what_reducers_have_made_of_a_write_is_adks(in_loop: InLoop) -> None:
    @agent
    async def one(ctx: InvocationContext) -> Any:
        ctx.state.contribute("visits", 1)
        yield "visited"

    tree = ParallelAgent("fan", [one, one.with_options(name="other")])

    async def main() -> None:
        adk_runner = Adk(adk.as_adk_agent(tree, reducers={"visits": "add"}), {"visits": 5})
        await adk_runner.run()
        assert (await adk_runner.session()).state == {"visits": 7}

    in_loop(main())


def test_it_sees_adks_history_in_its_order(in_loop: InLoop) -> None:
    async def before(ctx: Any) -> AsyncGenerator[Any, None]:
        yield "before"

    async def main() -> None:
        line = [scripted_adk("first", before), adk.as_adk_agent(history, name="tree")]
        adk_runner = Adk(workflow("SequentialAgent", "line", line))
        seen = [("user", "one"), ("first", "before")]
        assert texts(await adk_runner.run("one"))[-1] == ("tree", str(seen))
        seen += [("history", str(seen)), ("user", "two"), ("first", "before")]
        assert texts(await adk_runner.run("two"))[-1] == ("tree", str(seen))

    in_loop(main())


def test_it_does_not_see_what_adk_runs_beside_it(in_loop: InLoop) -> None:
    async def beside(ctx: Any) -> AsyncGenerator[Any, None]:
        yield "beside"

    async def before(ctx: Any) -> AsyncGenerator[Any, None]:
        for _ in range(3):
            yield "before"

    async def main() -> None:
        line = workflow(
            "SequentialAgent", "line", [scripted_adk("before", before), adk.as_adk_agent(history)]
        )
        adk_runner = Adk(workflow("ParallelAgent", "fan", [line, scripted_adk("beside", beside)]))
        read = await adk_runner.run()
        assert ("beside", "beside") in texts(read)[:-1]
        seen = [("user", "go"), *[("before", "before")] * 3]
        assert texts(read)[-1] == ("history", str(seen))
        assert {event.branch for event in read} == {"fan.beside", "fan.line"}

    in_loop(main())


def test_an_event_that_our_codec_has_written_into_adks_log_is_read(in_loop: InLoop) -> None:
    async def before(ctx: Any) -> AsyncGenerator[Any, None]:
        yield {"message": "stored", "custom_metadata": {"parallel_agent": {"seq": 7}}}

    async def main() -> None:
        line = [scripted_adk("before", before), adk.as_adk_agent(history)]
        read = await Adk(workflow("SequentialAgent", "line", line)).run()
        assert texts(read)[-1] == ("history", str([("user", "go"), ("before", "stored")]))

    in_loop(main())


def test_its_branches_are_below_adks(in_loop: InLoop) -> None:
    tree = SequentialAgent("pipeline", [ParallelAgent("fan", [counting("a", 1)]), report])

    async def main() -> None:
        adk_runner = Adk(workflow("ParallelAgent", "top", [adk.as_adk_agent(tree)]))
        read = await adk_runner.run()
        assert [event.branch for event in read] == [
            "top.pipeline.fan.a",
            "top.pipeline",
            "top.pipeline",
        ]

    in_loop(main())


def test_python_objects_in_adks_state_do_not_stop_it(in_loop: InLoop) -> None:
    adk_agent = adk.as_adk_agent(report)

    async def puts(ctx: Any) -> AsyncGenerator[Any, None]:
        ctx.session.state["odd"] = {1}
        yield "put"

    async def main() -> None:
        line = workflow("SequentialAgent", "line", [scripted_adk("puts", puts), adk_agent])
        assert texts(await Adk(line).run())[-1] == ("report", "go: {'odd': [1]}")

    in_loop(main())


def test_it_uses_adks_artifacts_and_memory(in_loop: InLoop) -> None:
    @agent
    async def keeper(ctx: InvocationContext) -> Any:
        await ctx.save_artifact("tea.txt", "green")
        await ctx.save_artifact("tea.txt", b"\x00\xff")
        first = await ctx.load_artifact("tea.txt", version=0)
        newest = await ctx.load_artifact("tea.txt")
        nothing = await ctx.load_artifact("coffee.txt")
        yield f"{first} {newest} {nothing} {await ctx.list_artifacts()}"
        await ctx.add_session_to_memory()
        for entry in await ctx.search_memory("green"):
            yield f"{entry.author} said {entry.content.text[:10]}"

    async def main() -> None:
        kept, remembered = artifacts.InMemoryArtifactService(), memory.InMemoryMemoryService()
        options = {"artifact_service": kept, "memory_service": remembered}
        read = await Adk(adk.as_adk_agent(keeper), options=options).run()
        assert [dict(event.actions.artifact_delta) for event in read[:2]] == [
            {"tea.txt": 0},
            {"tea.txt": 1},
        ]
        shown = "Text(text='green', thought=False) InlineData(data=<2 bytes>, "
        assert text_of(read[2].content).startswith(shown)
        assert text_of(read[2].content).endswith(" None ['tea.txt']")
        assert texts(read)[1] == ("keeper", f"keeper said {shown[:10]}")
        names = {"app_name": "app", "user_id": "ann", "session_id": "s"}
        assert await kept.list_versions(filename="tea.txt", **names) == [0, 1]

    in_loop(main())


# How it ends.


def test_what_made_it_fail_is_raised_as_itself(in_loop: InLoop) -> None:
    diary: Diary = []
    failure = ValueError("broken")

    @agent
    async def failing(ctx: InvocationContext) -> Any:
        yield "before"
        raise failure

    async def main() -> None:
        tree = ParallelAgent("fan", [failing, cleaning_up("sibling", diary)])
        adk_runner = Adk(adk.as_adk_agent(tree))
        with pytest.raises(ValueError, match="broken") as raised:
            await adk_runner.run()
        assert raised.value is failure
        assert diary == ["sibling cleaned up"]
        assert ("failing", "before") in texts((await adk_runner.session()).events)

    in_loop(main())


def test_closing_the_generator_cancels_the_tree_and_waits(in_loop: InLoop) -> None:
    diary: Diary = []

    async def main() -> None:
        tree = ParallelAgent("fan", [cleaning_up("a", diary), cleaning_up("b", diary)])
        async with aclosing(Adk(adk.as_adk_agent(tree)).open()) as reading:
            async for _ in reading:
                break
        assert sorted(diary) == ["a cleaned up", "b cleaned up"]

    in_loop(main())


def test_cancelling_the_reader_cancels_the_tree_and_waits(in_loop: InLoop) -> None:
    diary: Diary = []

    async def main() -> None:
        started = asyncio.Event()

        async def read() -> None:
            async for _ in Adk(adk.as_adk_agent(cleaning_up("a", diary))).open():
                started.set()

        task = asyncio.create_task(read())
        await started.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert diary == ["a cleaned up"]

    in_loop(main())


@agent
async def escalating(ctx: InvocationContext) -> Any:
    yield Event("enough", actions=EventActions(escalate=True))


def test_an_escalation_ends_adks_loop(in_loop: InLoop) -> None:
    async def main() -> None:
        loop = workflow("LoopAgent", "loop", [adk.as_adk_agent(escalating)], max_iterations=5)
        assert texts(await Adk(loop).run()) == [("escalating", "enough")]

    in_loop(main())


def test_an_escalation_that_a_loop_of_ours_has_heeded_does_not_end_adks(in_loop: InLoop) -> None:
    async def main() -> None:
        tree = SequentialAgent("pipeline", [LoopAgent("inner", [escalating])])
        loop = workflow("LoopAgent", "loop", [adk.as_adk_agent(tree)], max_iterations=2)
        assert [text for _, text in texts(await Adk(loop).run())] == ["enough", "enough"]

    in_loop(main())


def test_a_question_is_read_and_ends_the_run_as_waiting(in_loop: InLoop) -> None:
    @agent
    async def asking(ctx: InvocationContext) -> Any:
        yield f"answered {await ctx.request_input('Go on?', schema=bool)}"

    async def main() -> None:
        read = await Adk(adk.as_adk_agent(asking)).run()
        (call,) = read[-1].get_function_calls()
        assert (call.name, call.args["message"]) == ("adk_request_input", "Go on?")
        assert read[-1].long_running_tool_ids == {call.id}

    in_loop(main())


def test_a_question_with_a_default_is_answered_by_that(in_loop: InLoop) -> None:
    @agent
    async def asking(ctx: InvocationContext) -> Any:
        yield f"answered {await ctx.request_input('Go on?', timeout=0, default='no')}"

    async def main() -> None:
        config = RunConfig(on_wait="stay")
        read = await Adk(adk.as_adk_agent(asking, run_config=config)).run()
        assert texts(read)[-1] == ("asking", "answered no")

    in_loop(main())


# In other places of ADK's.


@agent
async def scoring(ctx: InvocationContext) -> Any:
    return {"score": 1}


def test_a_model_may_hand_over_to_it(in_loop: InLoop) -> None:
    tree = SequentialAgent(
        "tree", [scoring, ParallelAgent("fan", [counting("a", 1)]), counting("last", 1)]
    )

    async def main() -> None:
        hand_over = calls("transfer_to_agent", agent_name="tree")
        host = llm("host", hand_over, says("again"), sub_agents=[adk.as_adk_agent(tree)])
        adk_runner = Adk(host)
        read = await adk_runner.run()
        assert texts(read) == [("a", "a 0"), ("last", "last 0")]
        assert {text_of(e.content): e.branch for e in read if text_of(e.content)} == {
            "a 0": "fan.a",
            "last 0": None,
        }
        assert texts(await adk_runner.run("more")) == [("host", "again")]

    in_loop(main())


def test_as_a_node_its_output_is_the_trees(in_loop: InLoop) -> None:
    tree = ParallelAgent("tree", [scoring, scoring.with_options(name="other")])

    def show(node_input: Any) -> str:
        return f"got {node_input}"

    async def main() -> None:
        graph = workflows.Workflow(
            name="graph", edges=[(workflows.START, adk.as_adk_agent(tree), show)]
        )
        read = await Adk(graph).run()
        assert read[-1].output == "got {'scoring': {'score': 1}, 'other': {'score': 1}}"

    in_loop(main())


def test_there_and_back_again_it_is_the_same_tree(in_loop: InLoop) -> None:
    """A tree of ours, as an ADK agent, as a leaf of ours: the same texts, and the same state."""

    def make_tree() -> Any:
        @agent
        async def writer(ctx: InvocationContext) -> Any:
            ctx.state["draft"] = f"about {ctx.user_text}"
            yield "written"

        return SequentialAgent("pipeline", [writer, LoopAgent("loop", [escalating]), report])

    def said(result: Result) -> Any:
        return [event.text for event in result.events if event.text], dict(result.state)

    async def main() -> None:
        alone = await aio.Runner(make_tree()).run("tea")
        wrapped = adk.AdkAgent(adk.as_adk_agent(make_tree()))
        assert said(await aio.Runner(wrapped).run("tea")) == said(alone)

    in_loop(main())


async def test_there_and_back_again_under_trio_it_fails_as_itself() -> None:
    failure = ValueError("broken")

    @agent
    async def failing(ctx: InvocationContext) -> Any:
        yield "before"
        raise failure

    wrapped = adk.AdkAgent(adk.as_adk_agent(failing))
    with pytest.raises(ValueError, match="broken") as raised:
        await Runner(wrapped).run("tea")
    assert raised.value is failure


def test_an_adk_agent_in_our_tree_in_adks_runner(in_loop: InLoop) -> None:
    async def main() -> None:
        asked = llm("asked", says("hello"), output_key="greeting")
        tree = SequentialAgent("pipeline", [adk.AdkAgent(asked), report])
        read = await Adk(adk.as_adk_agent(tree)).run("hi")
        assert texts(read) == [("asked", "hello"), ("report", "hi: {'greeting': 'hello'}")]
        assert asked.model.asked == [[("user", "hi")]]

    in_loop(main())


def test_one_agent_may_run_twice_at_once(in_loop: InLoop) -> None:
    async def main() -> None:
        adk_agent = adk.as_adk_agent(counting("counter", 3))
        reads = await asyncio.gather(Adk(adk_agent).run(), Adk(adk_agent).run())
        assert [len(read) for read in reads] == [3, 3]

    in_loop(main())


def test_what_a_runner_refuses_is_refused_at_once() -> None:
    async def answering(ctx: Any) -> AsyncGenerator[Any, None]:
        yield "text"

    with pytest.raises(TreeError, match="Runner was given is no agent"):
        adk.as_adk_agent("tree")
    with pytest.raises(TreeError, match="'leaf' is ADK's already"):
        adk.as_adk_agent(scripted_adk("leaf", answering))
    with pytest.raises(ValueError, match="on_conflict"):
        adk.as_adk_agent(report, on_conflict="never")
    with pytest.raises(ValueError, match="must be a valid Python identifier"):
        adk.as_adk_agent(report, name="no name")


def test_a_clone_is_another_agent_of_the_same_tree(in_loop: InLoop) -> None:
    async def main() -> None:
        adk_agent = adk.as_adk_agent(counting("counter", 1))
        fan = workflow("SequentialAgent", "both", [adk_agent, adk_agent.clone({"name": "other"})])
        assert texts(await Adk(fan).run()) == [("counter", "counter 0"), ("other", "counter 0")]

    in_loop(main())


def test_what_json_has_no_number_for_is_nothing(in_loop: InLoop) -> None:
    async def main() -> None:
        adk_runner = Adk(adk.as_adk_agent(report), {"odd": float("nan")})
        assert texts(await adk_runner.run()) == [("report", "go: {'odd': None}")]

    in_loop(main())


@pytest.mark.parametrize("count", range(1, 6))
def test_closed_at_whatever_event_it_has_cleaned_up(in_loop: InLoop, count: int) -> None:
    diary: Diary = []

    @agent
    async def careful(ctx: InvocationContext) -> Any:
        diary.append("started")
        try:
            for number in range(5):
                yield str(number)
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
            diary.append("cleaned up")

    async def main() -> None:
        tree = ParallelAgent("fan", [careful, careful.with_options(name="other")])
        async with aclosing(Adk(adk.as_adk_agent(tree)).open()) as reading:
            for _ in range(count):
                await anext(reading)
        assert diary.count("started") == diary.count("cleaned up") == 2

    in_loop(main())


def test_an_attempt_that_failed_writes_nothing_in_adk(in_loop: InLoop) -> None:
    attempts: list[int] = []

    @agent(retry=Retry(2, initial_delay=0, jitter=0))
    async def flaky(ctx: InvocationContext) -> Any:
        attempts.append(1)
        ctx.state["attempt"] = len(attempts)
        yield "wrote"
        if len(attempts) == 1:
            message = "once"
            raise ConnectionError(message)

    async def main() -> None:
        adk_runner = Adk(adk.as_adk_agent(flaky))
        read = await adk_runner.run()
        assert [event.actions.state_delta for event in read][:2] == [{}, {}]
        assert (await adk_runner.session()).state == {"attempt": 2}

    in_loop(main())


def test_messages_with_bytes_arrive(in_loop: InLoop) -> None:
    @agent
    async def looking(ctx: InvocationContext) -> Any:
        assert isinstance(ctx.user_content, Content)
        yield str([type(part).__name__ for part in ctx.user_content.parts])

    async def main() -> None:
        service = sessions.InMemorySessionService()
        await service.create_session(app_name="app", user_id="ann", session_id="s")
        runner = runners.Runner(
            app_name="app", agent=adk.as_adk_agent(looking), session_service=service
        )
        blob = types.Part(inline_data=types.Blob(data=b"\xff", mime_type="image/png"))
        message = types.Content(role="user", parts=[types.Part(text="look"), blob])
        reading = runner.run_async(user_id="ann", session_id="s", new_message=message)
        read = [event async for event in reading]
        assert texts(read) == [("looking", "['Text', 'InlineData']")]

    in_loop(main())
