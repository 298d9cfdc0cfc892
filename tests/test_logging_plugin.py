"""The plugin that logs: one record for each thing that happens, and no secret in any of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from parallel_agent import (
    Agent,
    Content,
    Event,
    EventActions,
    FunctionCall,
    InvocationContext,
    ParallelAgent,
    Plugin,
    Runner,
    SequentialAgent,
    Text,
    agent,
)
from parallel_agent.observe.logs import LoggingPlugin
from tests.kernel.scripted import BoomError, FailingService, run_virtual
from tests.workflow.trees import Ended, leaf, open_and_read

SECRET = "hunter2"  # noqa: S105  # nobody's
COMMON = {"what", "invocation_id", "session_id", "user_id", "branch", "path", "agent"}
FORMAT = "%(levelname)s %(invocation_id)s %(branch)s %(message)s"


class Kept(logging.Handler):
    """Keeps records, and the lines that a format makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(FORMAT))
        self.records: list[logging.LogRecord] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.lines.append(self.format(record))

    def said(self, level: int = logging.DEBUG) -> list[str]:
        """The level's initial and the message of each record."""
        return [
            f"{record.levelname[0]} {record.getMessage()}"
            for record in self.records
            if record.levelno >= level
        ]

    def of(self, what: str) -> list[logging.LogRecord]:
        return [record for record in self.records if vars(record)["what"] == what]


@attrs.frozen
class Log:
    logger: logging.Logger
    kept: Kept

    def run(
        self, tree: Agent, *others: Plugin, contents: bool = False, limit: int = 200, **options: Any
    ) -> Ended:
        plugin = LoggingPlugin(logger=self.logger, contents=contents, limit=limit)
        runner_options = {
            name: options.pop(name) for name in ("new_id", "session_service") if name in options
        }
        runner = Runner(tree, plugins=[plugin, *others], **runner_options)

        async def main() -> Ended:
            return await open_and_read(runner, **options)

        ended = run_virtual(main)
        assert plugin._runs == {}
        return ended


def new_log(level: int = logging.DEBUG) -> Log:
    """A logger of its own that nobody else hears."""
    kept = Kept()
    logger = logging.Logger("apart", level)  # noqa: LOG001  # in no tree of loggers
    logger.addHandler(kept)
    return Log(logger, kept)


@pytest.fixture
def log() -> Log:
    return new_log()


def emits(**options: Any) -> Agent:
    return leaf("a", lambda ctx: ctx.emit(Event(**options)))


def messages_of_events(log: Log) -> list[str]:
    return [record.getMessage() for record in log.kept.of("event")]


# -------------------------------------------------------------------------------- what is recorded


def test_a_run_is_told_from_its_start_to_its_end(log: Log) -> None:
    log.run(SequentialAgent("s", [leaf("a", 1.5, "said")]))
    assert log.kept.said() == [
        "I run started",
        "D agent s started",
        "D agent s/a started",
        "D event of s/a: 4 characters",
        "D agent s/a completed after 1.500 s",
        "D agent s completed after 1.500 s",
        "I run completed after 1.500 s, 1 event, 2 completed",
    ]


def test_a_failure_is_an_error_with_type_and_origin(log: Log) -> None:
    log.run(
        SequentialAgent("s", [ParallelAgent("f", [leaf("a", 1, BoomError("hot")), leaf("b", 60)])])
    )
    assert log.kept.said(logging.INFO) == [
        "I run started",
        "I agent s/f/a failed after 1.000 s: BoomError",
        "I agent s/f/b cancelled after 1.000 s",
        "I agent s/f failed after 1.000 s: BoomError",
        "I agent s failed after 1.000 s: BoomError",
        "E run failed after 1.000 s, 1 event, 1 cancelled, 3 failed: BoomError in s/f/a",
    ]
    (end,) = log.kept.of("run_end")
    assert vars(end)["error_type"] == "BoomError"
    assert vars(end)["origin"] == "s/f/a"
    assert vars(end)["agents"] == {"failed": 3, "cancelled": 1}


def test_a_failure_that_was_answered_is_none(log: Log) -> None:
    class Excuse(Plugin):
        async def on_agent_error_callback(self, ctx: InvocationContext, error: Exception) -> str:
            return f"{ctx.path}: {error}"

    log.run(SequentialAgent("s", [leaf("a", BoomError("hot"))]), Excuse())
    assert log.kept.said(logging.INFO) == [
        "I run started",
        "I run completed after 0.000 s, 1 event, 2 completed",
    ]


def test_of_several_failures_the_one_that_the_run_ends_with_is_told(log: Log) -> None:
    below = leaf("below", BoomError("hot"))

    async def replace(ctx: InvocationContext) -> None:
        try:
            await ctx.run_agent(below)
        except BoomError as error:
            raise ValueError("hotter") from error  # a short one

    log.run(SequentialAgent("s", [leaf("a", replace)]))
    (end,) = log.kept.of("run_end")
    assert end.getMessage().endswith(": ValueError in s/a")


def test_a_failing_store_is_no_agents_error(log: Log) -> None:
    log.run(leaf("a", "said"), session_service=FailingService(1))
    (end,) = log.kept.of("run_end")
    assert end.levelno == logging.ERROR
    assert (
        end.getMessage() == "run failed after 0.000 s, 0 events, 1 cancelled, by no agent's error"
    )


def test_a_cancelled_run_is_information(log: Log) -> None:
    async def main() -> None:
        plugin = LoggingPlugin(logger=log.logger)
        async with Runner(leaf("a", 60), plugins=[plugin]).open("hi"):
            await trio.sleep(2)

    run_virtual(main)
    assert log.kept.said(logging.INFO)[-1] == (
        "I run cancelled after 2.000 s, 0 events, 1 cancelled"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"content": "said", "partial": True}, "4 characters; partial"),
        ({}, "empty"),
        ({"output": 1}, "empty"),
        ({"error_code": "TOO_HOT", "error_message": SECRET}, "error TOO_HOT"),
        (
            {"actions": EventActions(state_delta={"k": 1, "x": 2}, escalate=True)},
            "state k, x; escalates",
        ),
        ({"actions": EventActions(artifact_delta={"a.txt": 1})}, "artifacts a.txt"),
        (
            {"content": Content((Text("hm"), FunctionCall("find", {"q": SECRET})))},
            "2 characters; 1 function call",
        ),
    ],
    ids=["partial", "empty", "output", "error", "state", "artifacts", "calls"],
)
def test_an_event_is_told_by_its_kind(log: Log, options: Any, message: str) -> None:
    log.run(emits(**options))
    assert messages_of_events(log)[0] == f"event of a: {message}"


def test_outcomes_of_branches_are_counted(log: Log) -> None:
    log.run(ParallelAgent("f", [leaf("a"), leaf("b")]))
    assert messages_of_events(log) == ["event of f: 2 outcomes"]


def test_writes_through_the_context_are_told_by_their_keys(log: Log) -> None:
    def write(ctx: InvocationContext) -> None:
        ctx.state["k"] = SECRET

    log.run(leaf("a", write, "said"))
    assert messages_of_events(log) == ["event of a: 4 characters; state k"]


def test_many_keys_are_counted_and_long_ones_cut(log: Log) -> None:
    keys = [f"{number:02}{'k' * 200}" for number in range(25)]
    log.run(emits(actions=EventActions(state_delta=dict.fromkeys(keys, 1))))
    (record,) = log.kept.of("event")
    listed = vars(record)["state_keys"]
    assert len(listed) == 21
    assert listed[-1] == "… 5 more"
    assert {len(key) for key in listed[:-1]} == {101}


# --------------------------------------------------------------------------------------- attributes


def test_every_record_says_where_it_belongs(log: Log) -> None:
    tree = ParallelAgent("f", [leaf("a", "said", BoomError("hot")), leaf("b", 1)])
    ended = log.run(tree, user_id="ann", session_id="s1", new_id=lambda: "run1")
    assert ended.run.invocation_id == "run1"
    for record in log.kept.records:
        found = vars(record)
        assert found.keys() >= COMMON
        assert (found["invocation_id"], found["session_id"], found["user_id"]) == (
            "run1",
            "s1",
            "ann",
        )
        assert found["agent"] == found["path"].rpartition("/")[2]
        assert found["branch"] == {"f": None, "f/a": "f.a", "f/b": "f.b"}[found["path"]]
    assert log.kept.lines[0] == "INFO run1 None run started"
    assert "DEBUG run1 f.a agent f/a started" in log.kept.lines


def test_attributes_do_not_clash_with_those_of_a_log_record(log: Log) -> None:
    log.run(ParallelAgent("f", [leaf("a", "said", BoomError("hot")), leaf("b", 1)]))
    taken = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
    kinds_of_records = {vars(record)["what"] for record in log.kept.records}
    assert kinds_of_records == {"run_start", "run_end", "agent_start", "agent_end", "event"}
    plain = logging.makeLogRecord({})
    for record in log.kept.records:
        ours = vars(record).keys() - vars(plain).keys() - {"message", "taskName"}
        assert ours >= COMMON
        assert not ours & taken


def test_runs_at_the_same_time_are_kept_apart(log: Log) -> None:
    async def main() -> None:
        runner = Runner(leaf("a", 1, "said"), plugins=[LoggingPlugin(logger=log.logger)])
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(runner.run, "hi")

    run_virtual(main)
    by_run: dict[str, list[str]] = {}
    for record in log.kept.records:
        by_run.setdefault(vars(record)["invocation_id"], []).append(vars(record)["what"])
    assert len(by_run) == 3
    whole = ["run_start", "agent_start", "event", "agent_end", "run_end"]
    assert list(by_run.values()) == [whole] * 3


# ------------------------------------------------------------------------------------------ secrets


def leaking() -> Agent:
    """Lets a secret out in every way an agent has."""

    @agent(output_key="k")
    async def talk(ctx: InvocationContext) -> Any:
        ctx.state["k2"] = [SECRET]
        yield SECRET
        yield Event(SECRET, partial=True)
        yield Event(
            Content((FunctionCall(SECRET, {SECRET: SECRET}, id=SECRET),)),
            output=SECRET,
            error_message=SECRET,
            custom_metadata={"m": SECRET},
            actions=EventActions(state_delta={"k3": {"deep": SECRET}}),
        )
        raise ExceptionGroup(SECRET, [BoomError(SECRET), ValueError(SECRET)])

    return talk


class Clumsy(Plugin):
    async def on_agent_error_callback(self, ctx: InvocationContext, error: Exception) -> None:
        message = f"{SECRET} {ctx.path} {error}"
        raise ValueError(message)


@pytest.mark.parametrize("others", [(), (Clumsy(),)], ids=["alone", "with a plugin that fails"])
def test_nothing_that_was_said_is_in_any_record(log: Log, others: tuple[Plugin, ...]) -> None:
    ended = log.run(ParallelAgent("f", [leaking(), leaf("b", 1)]), *others, message=SECRET)
    assert ended.error is not None
    assert len(log.kept.records) > 8
    for record in log.kept.records:
        assert SECRET not in repr(vars(record))
        assert (record.exc_info, record.exc_text, record.stack_info) == (None, None, None)
    assert not [line for line in log.kept.lines if SECRET in line]


def test_kinds_of_failures_are_told_without_their_messages(log: Log) -> None:
    log.run(leaking())
    log.run(leaking(), Clumsy())
    kinds = [vars(record)["error_type"] for record in log.kept.of("run_end")]
    assert kinds == [
        "ExceptionGroup(BoomError, ValueError)",
        "PluginError(Clumsy.on_agent_error_callback: ValueError)",
    ]


def test_with_contents_texts_values_and_messages_are_quoted(log: Log) -> None:
    async def speak(ctx: InvocationContext) -> None:
        ctx.state["k"] = {"name": "Zoë"}
        await ctx.emit("it's\nhot")

    log.run(leaf("a", speak, BoomError("100 %s")), contents=True)
    assert messages_of_events(log) == [
        r"""event of a: text "it's\nhot"; state k={'name': 'Zoë'}""",
    ]
    assert log.kept.said(logging.ERROR) == [
        "E run failed after 0.000 s, 1 event, 1 failed: BoomError: '100 %s' in a"
    ]


def test_with_contents_a_reason_is_given(log: Log) -> None:
    async def main() -> None:
        plugin = LoggingPlugin(logger=log.logger, contents=True)
        async with Runner(leaf("a", 60), plugins=[plugin]).open("hi") as run:
            await trio.sleep(2)
            run.cancel("no\nmore")

    run_virtual(main)
    assert log.kept.said()[-1].endswith(r"1 cancelled: 'no\nmore'")


def test_with_contents_what_is_long_is_cut(log: Log) -> None:
    log.run(
        emits(content="x" * 1000, actions=EventActions(state_delta={"k": "y" * 1000})),
        contents=True,
        limit=10,
    )
    assert messages_of_events(log)[0] == f"event of a: text '{'x' * 10}'…; state k='{'y' * 9}…"


NASTY = st.text(
    st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Lu", "Po"]), min_size=1, max_size=20
)


@given(NASTY, NASTY, NASTY, NASTY, st.booleans())
def test_no_text_whatever_makes_a_second_line(
    text: str,
    key: str,
    session: str,
    user: str,
    contents: bool,  # noqa: FBT001  # as Hypothesis passes it
) -> None:
    log = new_log()

    async def emit(ctx: InvocationContext) -> None:
        actions = EventActions(state_delta={key: text}, artifact_delta={key: 1})
        await ctx.emit(Event(text, actions=actions, error_code=text))

    error = type(text.replace("\0", "\n"), (Exception,), {})(text)  # a name cannot hold \0
    log.run(
        leaf("a", emit, error),
        contents=contents,
        message=text,
        session_id=session,
        user_id=user,
        new_id=lambda: user,
    )
    assert len(log.kept.records) == 5
    for line in log.kept.lines:
        assert line.isprintable(), line
    for record in log.kept.records:
        for value in vars(record).values():
            assert not isinstance(value, str) or value.isprintable()


# ------------------------------------------------------------------------------------------- levels


def test_what_no_level_asks_for_is_not_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    put_together: list[str] = []
    log_it = LoggingPlugin._log

    def count(self: LoggingPlugin, level: int, what: str, *args: Any) -> None:
        put_together.append(what)
        log_it(self, level, what, *args)

    monkeypatch.setattr(LoggingPlugin, "_log", count)
    quiet = new_log(logging.WARNING)
    quiet.run(leaf("a", "said"))
    assert quiet.kept.records == []
    loud = new_log(logging.INFO)
    loud.run(leaf("a", "said"))
    kinds_of_records = [vars(record)["what"] for record in loud.kept.records]
    assert kinds_of_records == put_together == ["run_start", "run_end"]


def test_a_failure_is_logged_where_only_errors_are() -> None:
    log = new_log(logging.ERROR)
    log.run(SequentialAgent("s", [leaf("a", BoomError("hot"))]))
    assert log.kept.said() == ["E run failed after 0.000 s, 0 events, 2 failed: BoomError in s/a"]


def test_disabled_logging_disables_it(log: Log) -> None:
    logging.disable(logging.CRITICAL)
    try:
        log.run(leaf("a", "said"))
    finally:
        logging.disable(logging.NOTSET)
    assert log.kept.records == []


@pytest.fixture
def caught() -> Iterator[Kept]:
    kept = Kept()
    logger = logging.getLogger("parallel_agent")
    level = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    yield kept
    logger.setLevel(level)
    logger.removeHandler(kept)


def test_by_default_it_logs_to_the_logger_of_the_package(caught: Kept) -> None:
    async def main() -> None:
        await Runner(leaf("a", "said"), plugins=[LoggingPlugin()]).run("hi")

    run_virtual(main)
    assert caught.said() == [
        "I run started",
        "I run completed after 0.000 s, 1 event, 1 completed",
    ]


@pytest.mark.parametrize(
    "logger", ["parallel_agent", logging.LoggerAdapter(logging.getLogger(), {})]
)
def test_what_is_no_logger_is_refused_with_what_to_do(logger: Any) -> None:
    with pytest.raises(
        TypeError, match=r"logger is a logging.Logger, .* logging.getLogger\(name\)"
    ):
        LoggingPlugin(logger=logger)


# ------------------------------------------------------------------------------------ in company


def test_a_run_that_a_plugin_before_it_answers_still_has_an_end(log: Log) -> None:
    class Closed(Plugin):
        async def before_run_callback(self, ctx: InvocationContext) -> str:
            return f"{ctx.agent.name} is closed"

    async def main() -> None:
        plugins = [Closed(), LoggingPlugin(logger=log.logger)]
        await Runner(leaf("a"), plugins=plugins).run("hi")

    run_virtual(main)
    assert [vars(record)["what"] for record in log.kept.records] == [
        "event",
        "agent_end",
        "run_end",
    ]


def test_after_a_plugin_that_redacts_it_logs_what_is_left(log: Log) -> None:
    class Redact(Plugin):
        async def on_event_callback(self, ctx: InvocationContext, event: Event) -> None:
            event.content = Content(event.text.replace(SECRET, f"<{ctx.agent.name}>"))

    async def main() -> None:
        plugins = [Redact(), LoggingPlugin(logger=log.logger, contents=True)]
        await Runner(leaf("a", f"it is {SECRET}"), plugins=plugins).run("hi")

    run_virtual(main)
    assert messages_of_events(log) == ["event of a: text 'it is <a>'"]
