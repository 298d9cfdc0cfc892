"""ADK agents as leaves of our trees. With the real google-adk, for ``make deep``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import trio
from hypothesis import given

from parallel_agent import (
    Content,
    Event,
    EventActions,
    FunctionResponse,
    HostError,
    InMemoryArtifactService,
    InMemoryMemoryService,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Result,
    Retry,
    Runner,
    SequentialAgent,
    StateConflictError,
    Text,
    TreeError,
    agent,
    aio,
    sync,
)
from session import Codec, CodecError
from session.state import same
from tests.session.strategies import events as drawn_events
from tests.support.adk import (
    agents,
    calls,
    events,
    llm,
    says,
    scripted_adk,
    text_of,
    tools,
    types,
    workflow,
)
from tests.support.loops import Diary, InLoop, cleaning_up

adk = pytest.importorskip("parallel_agent.adk")
mapping = pytest.importorskip("parallel_agent.adk.events")

pytestmark = pytest.mark.deep

MARKS = "google_adk"

codec = Codec()


def leaf(script: Any, name: str = "leaf", **options: Any) -> Any:
    return adk.AdkAgent(scripted_adk(name, script), **options)


async def run(tree: Any, message: str | None = "go", **options: Any) -> Result:
    return await Runner(tree, **options).run(message)


def texts(result: Result) -> list[tuple[str, str]]:
    return [(event.author, event.text) for event in result.events if event.text]


async def says_two(ctx: Any) -> AsyncGenerator[Any, None]:
    yield "first"
    yield "second"


@agent
async def report(ctx: InvocationContext) -> Any:
    yield f"the state is {ctx.state.to_dict()}"


# What it says.


async def test_an_llm_agent_is_a_leaf() -> None:
    writer = llm("writer", says("a draft"), instruction="Be brief.", output_key="draft")
    result = await run(SequentialAgent("pipeline", [adk.AdkAgent(writer), report]))
    assert texts(result) == [("writer", "a draft"), ("report", "the state is {'draft': 'a draft'}")]
    assert result.outputs["writer"] == "a draft"


def test_it_runs_in_the_loop_of_an_asyncio_application(in_loop: InLoop) -> None:
    where: list[Any] = []

    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        where.append((asyncio.get_running_loop(), threading.get_ident()))
        yield "there"

    async def main() -> None:
        result = await aio.Runner(leaf(script)).run("go")
        assert texts(result) == [("leaf", "there")]
        assert where == [(asyncio.get_running_loop(), threading.get_ident())]

    in_loop(main())


async def test_under_trio_it_runs_in_a_loop_of_its_own() -> None:
    where: list[int] = []

    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        await asyncio.sleep(0)
        where.append(threading.get_ident())
        yield "there"

    await run(SequentialAgent("two", [leaf(script, "one"), leaf(script, "other")]))
    assert len(set(where)) == 1
    assert threading.get_ident() not in where


def test_it_runs_from_plain_python() -> None:
    assert sync.run_sync(leaf(says_two), "go").text == "second"


def said_in(event: Event) -> dict[str, Any]:
    """What a sealed event says, as JSON, without who says it, and where."""
    obj = codec.encode(event)
    kept = {"output", "partial", "errorCode", "errorMessage", "longRunningToolIds"}
    kept |= event.other.keys() - {"nodeInfo"}
    said: dict[str, Any] = {name: obj[name] for name in kept if name in obj}
    said["parts"] = obj.get("content", {}).get("parts")
    return said | {"actions": obj["actions"], "metadata": dict(event.custom_metadata)}


@given(drawn_events)
def test_what_an_adk_event_says_our_event_says(event: Event) -> None:
    ours = mapping.from_adk(
        events.Event.model_validate_json(codec.dumps(event)),
        author=event.author,
        branch=event.branch,
        keeps_transfer=True,
        keeps_escalate=True,
    )
    assert not ours.sealed
    ours.seal()
    assert same(said_in(ours), said_in(event))


def test_two_events_that_say_different_things_are_told_apart() -> None:
    one, other = Event("a"), Event("a", actions=EventActions(state_delta={"k": 1}))
    one.seal()
    other.seal()
    assert not same(said_in(one), said_in(other))


async def test_what_an_agent_says_is_not_taken_for_the_users() -> None:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        yield events.Event(author="leaf", message="said")  # ADK makes that a content of the user's

    result = await run(leaf(script))
    assert result.text == "said"


async def test_partial_events_are_delivered_and_not_recorded() -> None:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        yield {"message": "he", "partial": True}
        yield {"message": "hello", "turn_complete": True}

    async with Runner(leaf(script)).open("go") as opened:
        delivered = [(event.text, event.partial) async for event in opened]
    assert delivered == [("he", True), ("hello", False)]
    assert [event.text for event in opened.result.events] == ["hello"]
    assert opened.result.events[0].other["turnComplete"] is True


async def test_a_model_that_streams_is_partial_events() -> None:
    writer = llm("writer", [says("he", partial=True), says("hello")])
    config = agents.RunConfig(streaming_mode=agents.run_config.StreamingMode.SSE)
    async with Runner(adk.AdkAgent(writer, run_config=config)).open("go") as opened:
        delivered = [(event.text, event.partial) async for event in opened]
    assert delivered == [("he", True), ("hello", False)]


async def test_an_error_that_a_model_reports_is_an_event() -> None:
    broken = types.Content(role="model", parts=[])
    answer = says("").model_copy(
        update={"content": broken, "error_code": "SAFETY", "error_message": "no"}
    )
    result = await run(adk.AdkAgent(llm("writer", answer)))
    reported = result.events[-1]
    assert (reported.error_code, reported.error_message) == ("SAFETY", "no")
    assert result.status == "completed"


async def test_a_branch_goes_on_when_the_reader_comes_back() -> None:
    diary: Diary = []

    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        for number in range(3):
            yield str(number)
            diary.append(f"{number} acknowledged")

    async with Runner(leaf(script)).open("go") as opened:
        async for event in opened:
            diary.append(f"{event.text} read")
    read_first = [f"{number} {what}" for number in range(3) for what in ("read", "acknowledged")]
    assert diary == read_first


async def test_its_output_is_its_last_final_text_and_goes_under_its_key() -> None:
    result = await run(leaf(says_two, output_key="said"))
    assert (result.output, result.state["said"]) == ("second", "second")


async def test_an_output_of_an_adk_event_is_the_output() -> None:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        yield {"message": "done", "output": {"score": 3}}

    assert (await run(leaf(script))).output == {"score": 3}


# Who says it, and where.


async def test_the_branch_is_ours_and_adk_knows_it() -> None:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        yield f"on {ctx.branch}"

    tree = ParallelAgent("fan", [leaf(script, "a"), leaf(script, "b")])
    result = await run(tree)
    said = {event.branch: (event.text, dict(event.custom_metadata)) for event in result.events}
    assert said["fan.a"] == ("on fan.a", {})
    assert said["fan.b"] == ("on fan.b", {})


async def test_agents_below_it_are_named_beside() -> None:
    inner = workflow(
        "ParallelAgent", "inner", [scripted_adk("x", says_two), scripted_adk("y", says_two)]
    )
    tree = ParallelAgent("fan", [adk.AdkAgent(inner)])
    said = [event for event in (await run(tree)).events if event.text]
    assert {(event.author, event.branch) for event in said} == {("inner", "fan.inner")}
    marks = [event.custom_metadata[MARKS] for event in said]
    assert {(mark["author"], mark["branch"]) for mark in marks} == {
        ("x", "fan.inner.inner.x"),
        ("y", "fan.inner.inner.y"),
    }


async def test_a_name_of_its_own_replaces_that_of_adk() -> None:
    given_one = leaf(says_two, name="leaf").with_options(name="other")
    result = await run(given_one)
    assert texts(result) == [("other", "first"), ("other", "second")]
    assert result.events[0].custom_metadata[MARKS]["author"] == "leaf"


# What it sees.


async def test_it_sees_our_state_and_its_writes_are_ours() -> None:
    @agent
    async def before(ctx: InvocationContext) -> Any:
        ctx.state["tea"] = {"kinds": ["green"]}
        ctx.state["temp:cups"] = 2
        yield "prepared"

    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        seen = ctx.session.state["tea"]["kinds"]
        yield {"message": "wrote", "state": {"tea": {"kinds": [*seen, "black"]}, "user:likes": 1}}
        yield f"{ctx.session.state['tea']} {ctx.session.state['temp:cups']}"

    result = await run(SequentialAgent("pipeline", [before, leaf(script)]))
    assert result.state == {"tea": {"kinds": ["green", "black"]}, "user:likes": 1}
    assert result.events[-1].text == "{'kinds': ['green', 'black']} 2"


async def test_a_temporary_key_it_writes_is_seen_by_others_and_not_kept() -> None:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        yield {"message": "wrote", "state": {"temp:cups": 3}}

    result = await run(SequentialAgent("pipeline", [leaf(script), report]))
    assert result.events[-1].text == "the state is {'temp:cups': 3}"
    assert result.state == {}


async def test_a_partial_event_writes_nothing() -> None:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        yield {"message": "wr", "partial": True, "state": {"key": 1}}
        yield f"sees {ctx.session.state}"

    assert (await run(leaf(script))).events[-1].text == "sees {}"


async def test_what_it_writes_to_a_key_with_a_reducer_is_its_contribution() -> None:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        yield {"message": "wrote", "state": {"visits": 2}}
        yield f"sees {ctx.session.state['visits']}"

    tree = SequentialAgent("pipeline", [leaf(script, "a"), leaf(script, "b")])
    result = await run(tree, reducers={"visits": "add"})
    assert result.state["visits"] == 4
    assert [text for _, text in texts(result) if "sees" in text] == ["sees 2", "sees 4"]


async def test_branches_that_write_one_key_are_a_conflict() -> None:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        yield {"message": "wrote", "state": {"key": ctx.agent.name}}

    tree = ParallelAgent("fan", [leaf(script, "a"), leaf(script, "b")])
    with pytest.raises(StateConflictError, match=r"fan\.[ab]"):
        await run(tree, on_conflict="error")


async def test_it_sees_what_others_have_written_since_its_last_event() -> None:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        yield "ready"
        while "key" not in ctx.session.state:
            yield "looked"
        yield f"found {ctx.session.state['key']}"

    @agent
    async def writer(ctx: InvocationContext) -> Any:
        yield "waits"
        ctx.state["key"] = "value"
        yield "wrote"

    result = await run(ParallelAgent("fan", [leaf(script), writer]))
    assert ("leaf", "found value") in texts(result)


async def test_what_it_sees_of_the_state_may_be_changed_and_that_changes_nothing_here() -> None:
    @agent
    async def before(ctx: InvocationContext) -> Any:
        ctx.state["tea"] = {"kinds": ["green"]}
        yield "prepared"

    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        ctx.session.state["tea"]["kinds"].append("black")
        yield "changed"

    result = await run(SequentialAgent("pipeline", [before, leaf(script)]))
    assert result.state == {"tea": {"kinds": ["green"]}}


async def test_its_own_lists_are_not_replaced_under_its_hands() -> None:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        mine = ["a"]
        yield {"message": "wrote", "actions": events.EventActions(state_delta={"list": mine})}
        yield f"{ctx.session.state['list'] is mine}"

    assert (await run(leaf(script))).events[-1].text == "True"


async def history(ctx: Any) -> AsyncGenerator[Any, None]:
    yield str([(event.author, text_of(event.content)) for event in ctx.session.events])


async def test_it_sees_the_history_that_its_branch_may_see() -> None:
    @agent
    async def before(ctx: InvocationContext) -> Any:
        yield "earlier"

    @agent
    async def sibling(ctx: InvocationContext) -> Any:
        yield "beside"

    async def late(ctx: Any) -> AsyncGenerator[Any, None]:
        yield "waited"
        yield "waited longer"
        async for item in history(ctx):
            yield item

    tree = SequentialAgent("pipeline", [before, ParallelAgent("fan", [leaf(late), sibling])])
    seen = [text for _, text in texts(await run(tree)) if text.startswith("[")]
    expected = [("user", "go"), ("before", "earlier"), ("leaf", "waited")]
    assert seen == [str([*expected, ("leaf", "waited longer")])]


async def test_a_model_is_shown_what_has_joined() -> None:
    @agent
    async def one(ctx: InvocationContext) -> Any:
        yield "said by one"

    asked = llm("asked", says("so"))
    inner = SequentialAgent("inner", [ParallelAgent("deep", [one]), adk.AdkAgent(asked)])
    await run(ParallelAgent("fan", [inner]))
    (request,) = asked.model.asked
    assert request[0] == ("user", "go")
    assert "[one] said:" in request[1][1]


async def test_a_model_is_shown_what_it_has_said_on_branches_that_have_joined() -> None:
    asked = llm("asked", says("A"), says("B"))

    @agent
    async def first_a_branch(ctx: InvocationContext) -> Any:
        same_one = adk.AdkAgent(asked)
        await ctx.map(same_one, ["tea"])
        await ctx.run_agent(same_one)

    await run(ParallelAgent("fan", [first_a_branch]))
    assert asked.model.asked[1] == [("user", "go"), ("model", "A")]


async def test_agents_below_it_are_shown_what_they_have_said_on_branches_that_have_joined() -> None:
    x, y = (llm(name, says(f"{name} 1"), says(f"{name} 2")) for name in "xy")
    inner = adk.AdkAgent(workflow("ParallelAgent", "inner", [x, y]))

    @agent
    async def first_a_branch(ctx: InvocationContext) -> Any:
        await ctx.map(inner, ["tea"])
        await ctx.run_agent(inner)

    await run(ParallelAgent("fan", [first_a_branch]))
    assert ("model", "x 1") in x.model.asked[1]


async def test_a_model_is_shown_a_message_that_was_sent_into_the_run() -> None:
    asked = llm("asked", says("A"))

    @agent
    async def waiting(ctx: InvocationContext) -> Any:
        yield "waiting"
        await ctx.receive()

    tree = SequentialAgent("line", [waiting, adk.AdkAgent(asked)])
    async with Runner(tree).open("go") as opened:
        async for event in opened:
            if event.text == "waiting":
                await opened.send("hurry")
    assert asked.model.asked[0][-1] == ("user", "hurry")


async def test_agents_below_it_know_their_own_words_and_not_those_of_each_other() -> None:
    x, y = (llm(name, says(f"{name} 1"), says(f"{name} 2")) for name in "xy")
    inner = adk.AdkAgent(workflow("ParallelAgent", "inner", [x, y]))
    await run(ParallelAgent("fan", [LoopAgent("loop", [inner], max_iterations=2)]))
    assert x.model.asked[1] == [("user", "go"), ("model", "x 1")]
    assert y.model.asked[1] == [("user", "go"), ("model", "y 1")]


async def test_a_model_knows_its_own_words_from_those_of_others() -> None:
    looping = llm("looping", says("once"), says("twice"))
    await run(LoopAgent("loop", [adk.AdkAgent(looping, name="called_so")], max_iterations=2))
    assert looping.model.asked[1] == [("user", "go"), ("model", "once")]


async def test_a_message_to_its_branch_is_seen() -> None:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        while len(ctx.session.events) < 4:
            yield "still here"
        async for item in history(ctx):
            yield item

    async with Runner(leaf(script)).open("go") as opened:
        first = await anext(opened)
        await opened.send("hurry")
        rest = [event.text async for event in opened]
    assert first.text == "still here"
    assert "('user', 'hurry')" in rest[-1]


async def test_an_input_takes_the_place_of_the_message() -> None:
    asked = llm("asked", says("A"), says("B"))

    @agent
    async def each(ctx: InvocationContext) -> Any:
        return await ctx.map(adk.AdkAgent(asked), ["tea", {"kind": "milk"}], max_concurrency=1)

    result = await run(each)
    assert result.output == ["A", "B"]
    assert [request[-1] for request in asked.model.asked] == [
        ("user", "tea"),
        ("user", '{"kind": "milk"}'),
    ]


async def test_what_it_sees_of_the_run_is_ours() -> None:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        key = (ctx.app_name, ctx.user_id, ctx.session.id)
        found = await ctx.session_service.get_session(
            app_name=key[0], user_id=key[1], session_id=key[2]
        )
        listed = await ctx.session_service.list_sessions(app_name=key[0])
        yield f"{key} {found is ctx.session} {len(listed.sessions)} {text_of(ctx.user_content)}"

    result = await Runner(leaf(script), app_name="app").run("hi", user_id="ann", session_id="s")
    assert result.text == "('app', 'ann', 's') True 1 hi"


async def test_it_can_make_no_other_session() -> None:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        await ctx.session_service.create_session(app_name="app", user_id="ann")
        yield "made"

    with pytest.raises(NotImplementedError, match="cannot create sessions"):
        await run(leaf(script))


async def test_what_adk_appends_to_the_session_itself_is_recorded() -> None:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        event = events.Event(author="leaf", message="appended", state={"key": 1})
        await ctx.session_service.append_event(ctx.session, event)
        yield f"{ctx.session.state} {len(ctx.session.events)}"

    result = await run(leaf(script))
    assert texts(result) == [("leaf", "appended"), ("leaf", "{'key': 1} 2")]
    assert result.state == {"key": 1}


# Tools.


async def test_a_tool_uses_our_state_artifacts_and_memory() -> None:
    memory = InMemoryMemoryService()

    @agent
    async def earlier(ctx: InvocationContext) -> Any:
        yield "green tea is best"
        await ctx.add_session_to_memory()

    await run(earlier, app_name="tea", memory_service=memory)
    artifacts = InMemoryArtifactService()

    async def brew(cups: int, tool_context: Any) -> dict[str, Any]:
        """Brew some cups."""
        tool_context.state["cups"] = cups
        version = await tool_context.save_artifact("tea.txt", types.Part(text=f"{cups} cups"))
        kept = await tool_context.load_artifact("tea.txt")
        found = await tool_context.search_memory("green")
        names = await tool_context.list_artifacts()
        said = [text_of(entry.content) for entry in found.memories]
        return {"version": version, "kept": kept.text, "memory": said, "names": names}

    brew.__annotations__["tool_context"] = agents.context.Context
    host = llm("host", calls("brew", cups=2), says("enjoy"), tools=[brew])

    @agent
    async def after(ctx: InvocationContext) -> Any:
        kept = await ctx.load_artifact("tea.txt")
        assert isinstance(kept, Text)
        yield kept.text

    result = await run(
        SequentialAgent("pipeline", [adk.AdkAgent(host), after]),
        app_name="tea",
        artifact_service=artifacts,
        memory_service=memory,
    )
    call, answer, *_ = result.events
    assert [(part.name, part.args) for part in call.function_calls] == [("brew", {"cups": 2})]
    assert answer.function_responses[0].response == {
        "version": 0,
        "kept": "2 cups",
        "memory": ["green tea is best"],
        "names": ["tea.txt"],
    }
    assert (dict(answer.actions.artifact_delta), result.state) == ({"tea.txt": 0}, {"cups": 2})
    assert texts(result) == [("host", "enjoy"), ("after", "2 cups")]


async def test_a_call_whose_answer_comes_later_is_answered_by_the_next_message() -> None:
    def approve(what: str) -> None:
        """Ask for an approval."""

    host = llm("host", calls("approve", what="tea"), says("thank you"))
    host.tools = [tools.LongRunningFunctionTool(approve)]
    runner = Runner(adk.AdkAgent(host))
    result = await runner.run("go", session_id="s")
    (asking,) = result.events
    (call,) = asking.function_calls
    assert asking.long_running_tool_ids == (call.id,)
    answer = FunctionResponse("approve", {"result": "yes"}, id=call.id)
    result = await runner.run(Content(answer), session_id="s")
    assert result.text == "thank you"
    asked = host.model.asked[-1]
    assert [role for role, _ in asked] == ["user", "model", "user"]


# Escalating and handing over.


async def escalates(ctx: Any) -> AsyncGenerator[Any, None]:
    yield {"message": "enough", "actions": events.EventActions(escalate=True)}


async def test_an_escalation_ends_the_loop_around_it() -> None:
    loop = LoopAgent("loop", [leaf(escalates)], max_iterations=5)
    assert texts(await run(loop)) == [("leaf", "enough")]


async def test_an_escalation_that_a_loop_of_adk_has_heeded_does_not_end_ours() -> None:
    inner = workflow("LoopAgent", "inner", [scripted_adk("critic", escalates)], max_iterations=5)
    result = await run(LoopAgent("loop", [adk.AdkAgent(inner)], max_iterations=2))
    assert [text for _, text in texts(result)] == ["enough", "enough"]
    said = [event for event in result.events if event.text]
    assert [event.custom_metadata[MARKS]["escalate"] for event in said] == [True, True]


async def test_an_escalation_cancels_the_siblings_of_a_parallel_agent() -> None:
    diary: Diary = []
    tree = ParallelAgent("fan", [leaf(escalates), cleaning_up("sibling", diary)])
    result = await run(tree)
    assert diary == ["sibling cleaned up"]
    assert result.status == "completed"


def transfers_to(name: str) -> Any:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        yield {"message": "over", "actions": events.EventActions(transfer_to_agent=name)}
        yield "never said"

    return script


async def test_handing_over_inside_adk_is_adks_doing() -> None:
    specialist = llm("specialist", says("I know"))
    host = llm("host", calls("transfer_to_agent", agent_name="specialist"), sub_agents=[specialist])
    result = await run(adk.AdkAgent(host))
    assert texts(result) == [("host", "I know")]
    handing = next(event for event in result.events if MARKS in event.custom_metadata)
    assert handing.custom_metadata[MARKS]["transferToAgent"] == "specialist"
    assert handing.actions.transfer_to_agent is None


async def test_handing_over_to_an_agent_of_ours_ends_it() -> None:
    helper = report.with_options(name="helper")
    tree = SequentialAgent("pipeline", [leaf(transfers_to("helper")), helper])
    result = await run(tree)
    assert texts(result)[:2] == [("leaf", "over"), ("helper", "the state is {}")]
    assert "never said" not in [text for _, text in texts(result)]


async def test_a_tool_of_a_model_may_hand_over_to_an_agent_of_ours() -> None:
    def give_up(tool_context: Any) -> str:
        """Let somebody else answer."""
        tool_context.actions.transfer_to_agent = "helper"
        return "given up"

    give_up.__annotations__["tool_context"] = agents.context.Context
    host = llm("host", calls("give_up"), says("never asked"), tools=[give_up])
    tree = SequentialAgent("pipeline", [adk.AdkAgent(host), report.with_options(name="helper")])
    result = await run(tree)
    assert [author for author, _ in texts(result)] == ["helper", "helper"]


# Failing, and being cancelled.


async def breaks(ctx: Any) -> AsyncGenerator[Any, None]:
    yield "before"
    message = "broken"
    raise ValueError(message)


async def test_its_exception_is_the_failure_as_itself() -> None:
    diary: Diary = []
    tree = ParallelAgent("fan", [leaf(breaks), cleaning_up("sibling", diary)])
    with pytest.raises(ValueError, match="broken") as raised:
        await run(tree)
    assert str(raised.value) == "broken"
    assert any("fan/leaf" in note for note in raised.value.__notes__)
    assert diary == ["sibling cleaned up"]


async def test_an_attempt_that_failed_has_written_nothing() -> None:
    attempts: list[Any] = []

    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        attempts.append(dict(ctx.session.state))
        yield {"message": "wrote", "state": {"key": len(attempts)}}
        if len(attempts) == 1:
            message = "once"
            raise ConnectionError(message)

    result = await run(leaf(script, retry=Retry(3, initial_delay=0, jitter=0)))
    assert attempts == [{}, {}]
    assert result.state == {"key": 2}


async def test_what_our_events_cannot_say_is_refused_and_named() -> None:
    class Moody(events.Event):  # type: ignore[misc]  # Any where google-adk is not
        mood: str = "good"

    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        yield Moody(author="leaf")

    with pytest.raises(CodecError, match="mood: there is no such field") as raised:
        await run(leaf(script))
    assert "in an event of the ADK agent 'leaf'" in raised.value.__notes__


async def test_what_has_no_json_form_is_refused_and_named() -> None:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        yield {"message": "\ud800"}

    with pytest.raises(ValueError, match="surrogates") as raised:
        await run(leaf(script))
    assert "in an event of the ADK agent 'leaf'" in raised.value.__notes__


def slow_to_clean_up(diary: Diary) -> Any:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        try:
            diary.append("started")
            yield "started"
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            diary.append("cancelled")
            raise
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            diary.append("cleaned up")

    return script


async def read_until_started(opened: Any) -> None:
    async for event in opened:
        if event.text == "started":
            return


async def test_cancelling_the_run_cancels_it_and_waits() -> None:
    diary: Diary = []
    async with Runner(leaf(slow_to_clean_up(diary))).open("go") as opened:
        async for _ in opened:
            opened.cancel("enough")
    assert diary[-1] == "cleaned up"
    assert (opened.result.status, opened.result.reason) == ("cancelled", "enough")


async def test_leaving_the_block_cancels_it_and_waits() -> None:
    diary: Diary = []
    async with Runner(leaf(slow_to_clean_up(diary))).open("go") as opened:
        await read_until_started(opened)
    assert diary[-1] == "cleaned up"


@pytest.mark.parametrize("count", range(5))
async def test_left_at_whatever_event_it_has_cleaned_up(count: int) -> None:
    diary: Diary = []

    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        diary.append("started")
        try:
            for number in range(5):
                yield {"message": str(number), "state": {"key": number}}
        finally:
            await asyncio.sleep(0)
            diary.append("cleaned up")

    line = SequentialAgent("line", [leaf(script, "first"), leaf(script, "second")])
    tree = ParallelAgent("fan", [line, leaf(script, "beside")])
    async with Runner(tree).open("go") as opened:
        for _ in range(count + 3):
            await anext(opened)
    assert diary.count("started") == diary.count("cleaned up") >= 2
    assert opened.result.status == "cancelled"


async def test_a_failing_sibling_cancels_it_and_waits() -> None:
    diary: Diary = []

    @agent
    async def failing(ctx: InvocationContext) -> Any:
        while "started" not in diary:
            yield "waits"
        message = "sibling"
        raise ValueError(message)

    tree = ParallelAgent("fan", [leaf(slow_to_clean_up(diary)), failing])
    with pytest.raises(ValueError, match="sibling"):
        await run(tree)
    assert diary[-1] == "cleaned up"


def test_cancelling_the_asyncio_task_cancels_it_and_waits(in_loop: InLoop) -> None:
    diary: Diary = []

    async def read(started: asyncio.Event) -> None:
        async with aio.Runner(leaf(slow_to_clean_up(diary))).open("go") as opened:
            async for _ in opened:
                started.set()

    async def main() -> None:
        started = asyncio.Event()
        task = asyncio.create_task(read(started))
        await started.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert diary == ["started", "cancelled", "cleaned up"]

    in_loop(main())


async def test_an_adk_agent_that_cancels_itself_is_an_error() -> None:
    async def script(ctx: Any) -> AsyncGenerator[Any, None]:
        yield "before"
        raise asyncio.CancelledError

    with pytest.raises(HostError, match="cancelled, and not by the agent"):
        await run(leaf(script))


# What is refused.


def test_what_is_no_adk_agent_is_refused() -> None:
    with pytest.raises(TreeError, match="takes an agent of google-adk, not <function"):
        adk.AdkAgent(says_two)
    with pytest.raises(TreeError, match="can stand in a tree as it is"):
        adk.AdkAgent(report)
    with pytest.raises(TreeError, match="call it"):
        adk.AdkAgent(agents.LlmAgent)
    with pytest.raises(TreeError, match="run_config is a RunConfig of google-adk"):
        adk.AdkAgent(scripted_adk("leaf", says_two), run_config={})


def test_its_description_is_adks() -> None:
    adk_agent = scripted_adk("leaf", says_two, description="says two things")
    assert adk.AdkAgent(adk_agent).description == "says two things"
    assert adk.AdkAgent(adk_agent, description="other").description == "other"
    assert adk.AdkAgent(adk_agent).adk_agent is adk_agent


async def test_one_leaf_may_run_twice_at_once() -> None:
    tree = leaf(says_two)
    results: list[Result] = []

    async def once() -> None:
        results.append(await run(tree))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(once)
        nursery.start_soon(once)
    assert [texts(result) for result in results] == [[("leaf", "first"), ("leaf", "second")]] * 2
