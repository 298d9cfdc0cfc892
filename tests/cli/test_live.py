"""The live view as a plugin of real runs. Time is virtual; only the terminal is not real."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import AsyncIterator

import pytest
import trio
from rich.console import Console
from trio.testing import MockClock

from parallel_agent import (
    Agent,
    Event,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Plugin,
    Runner,
    SequentialAgent,
    agent,
)
from parallel_agent.observe.live import LiveView

CURSOR_BACK = "\x1b[?25h"


@agent
async def says(ctx: InvocationContext) -> AsyncIterator[str]:
    await trio.sleep(2)
    yield f"heard {ctx.user_text}"


@agent
async def fails(ctx: InvocationContext) -> None:
    await trio.sleep(5)
    message = "no such \x1b[31mthing"
    raise ValueError(message)


@agent
async def never(ctx: InvocationContext) -> None:
    await trio.sleep_forever()


def view_in(clock: MockClock, *, terminal: bool = False) -> tuple[LiveView, io.StringIO]:
    file = io.StringIO()
    console = Console(file=file, width=80, height=24, force_terminal=terminal, color_system=None)
    return LiveView(console=console, clock=clock.current_time), file


def last_view(file: io.StringIO) -> list[str]:
    return [line.rstrip() for line in file.getvalue().splitlines()]


async def test_a_finished_run_stays_on_the_screen(autojump_clock: MockClock) -> None:
    view, file = view_in(autojump_clock)
    tree = SequentialAgent("line", [LoopAgent("twice", [says], max_iterations=2)])
    await Runner(tree, plugins=[view]).run("you")
    assert last_view(file) == [
        "✓ line               4.0s",
        "└── ✓ twice          4.0s",
        "    └── ✓ says x2    4.0s     2  heard you",
        "completed  4.0s  2 events  3 completed",
    ]


async def test_a_failure_shows_where_it_happened(autojump_clock: MockClock) -> None:
    view, file = view_in(autojump_clock)
    async with Runner(ParallelAgent("fan", [says, fails, never]), plugins=[view]).open() as run:
        with pytest.raises(ValueError, match="no such"):
            async for _ in run:
                pass
    assert [line.split() for line in last_view(file)] == [
        ["✗", "fan", "5.0s", "1", "ValueError:", "no", "such", "\\x1b[31mthing"],
        ["├──", "✓", "says", "2.0s", "1", "heard"],
        ["├──", "✗", "fails", "5.0s", "ValueError:", "no", "such", "\\x1b[31mthing"],
        ["└──", "⊘", "never", "5.0s"],
        ["failed", "5.0s", "2", "events", "1", "completed,", "2", "failed,", "1", "cancelled"],
    ]


async def test_markup_in_a_text_is_shown_as_it_stands(autojump_clock: MockClock) -> None:
    async def marked(ctx: InvocationContext) -> str:
        return "[red]not red[/red] [/] :smile: [link=x]"

    view, file = view_in(autojump_clock)
    await Runner(agent(marked, name="marked"), plugins=[view]).run()
    assert "[red]not red[/red] [/] :smile: [link=x]" in last_view(file)[0]


async def test_no_text_reaches_the_terminal_as_a_command(autojump_clock: MockClock) -> None:
    async def evil(ctx: InvocationContext) -> AsyncIterator[str]:
        yield "\x1b[2J\x1b]0;title\x07\x9b1m\u202eback\r"

    view, file = view_in(autojump_clock)
    await Runner(agent(evil, name="evil"), plugins=[view]).run()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", file.getvalue())


async def test_on_a_terminal_it_is_drawn_while_the_run_goes_on(autojump_clock: MockClock) -> None:
    view, file = view_in(autojump_clock, terminal=True)
    async with Runner(ParallelAgent("fan", [says, never]), plugins=[view]).open() as run:
        async for _ in run:
            break
        # The first view was drawn when the run began.
        assert "● fan" in file.getvalue()
        assert CURSOR_BACK not in file.getvalue()
    assert "⊘ fan" in file.getvalue()


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled"])
async def test_the_terminal_gets_its_cursor_back(how: str, autojump_clock: MockClock) -> None:
    view, file = view_in(autojump_clock, terminal=True)
    tree: Agent = {"completed": says, "failed": fails, "cancelled": never}[how]
    with trio.move_on_after(10):
        async with Runner(tree, plugins=[view]).open() as run:
            try:
                async for _ in run:
                    pass
            except ValueError:
                pass
    assert run.result.status == how
    assert file.getvalue().endswith(CURSOR_BACK)


async def test_what_agents_print_comes_out_above(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    async def prints(ctx: InvocationContext) -> None:
        print("[b]printed[/b]")  # noqa: T201  # that is the point

    view, file = view_in(autojump_clock, terminal=True)
    await Runner(agent(prints, name="prints"), plugins=[view]).run()
    before, _, after = file.getvalue().partition("[b]printed[/b]")
    assert before
    assert "✓ prints" in after
    assert capsys.readouterr().out == ""


async def test_half_a_line_that_an_agent_prints_is_not_lost(autojump_clock: MockClock) -> None:
    kept = list[object]()

    async def prints(ctx: InvocationContext) -> None:
        print("half a line", end="")  # noqa: T201  # that is the point
        kept.append(sys.stdout)  # as handlers of `logging` do

    view, file = view_in(autojump_clock, terminal=True)
    await Runner(agent(prints, name="prints"), plugins=[view]).run()
    _, _, after = file.getvalue().partition("half a line")
    assert "✓ prints" in after


async def test_runs_at_the_same_time_are_all_shown(autojump_clock: MockClock) -> None:
    view, file = view_in(autojump_clock)
    runner = Runner(says, plugins=[view])

    async def later(message: str, seconds: float) -> None:
        await trio.sleep(seconds)
        await runner.run(message)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(later, f"call {number}", number / 2)
    assert [line.split("heard ")[1] for line in last_view(file) if "heard" in line] == [
        "call 0",
        "call 1",
        "call 2",
    ]
    assert view.runs == ()


async def test_a_second_run_is_drawn_like_the_first(autojump_clock: MockClock) -> None:
    view, file = view_in(autojump_clock)
    runner = Runner(says, plugins=[view])
    await runner.run("one")
    await runner.run("two")
    assert last_view(file)[0::2] == [
        f"✓ says    2.0s     1  heard {word}" for word in ("one", "two")
    ]


async def test_a_plugin_that_answers_for_the_tree_does_not_confuse_it(
    autojump_clock: MockClock,
) -> None:
    class Answers(Plugin):
        async def before_run_callback(self, _ctx: InvocationContext) -> str:
            return "no need to run"

    view, file = view_in(autojump_clock)
    await Runner(SequentialAgent("line", [says]), plugins=[Answers(), view]).run()
    assert last_view(file) == [
        "✓ line        0.0s     1  no need to run",
        "└── · says",
        "completed  0.0s  1 event  1 pending, 1 completed",
    ]


async def test_a_run_that_is_cancelled_before_its_first_step_is_shown_as_that(
    autojump_clock: MockClock,
) -> None:
    view, file = view_in(autojump_clock)
    async with Runner(says, plugins=[view]).open() as run:
        run.cancel("changed my mind")
    assert [line.split()[:2] for line in last_view(file)] == [["·", "says"], ["cancelled", "0.0s"]]


async def test_pieces_of_a_message_are_counted_when_it_is_whole(autojump_clock: MockClock) -> None:
    async def types(ctx: InvocationContext) -> AsyncIterator[Event]:
        yield Event("so ", partial=True)
        yield Event("it goes", partial=True)
        yield Event("so it goes")

    view, file = view_in(autojump_clock)
    await Runner(agent(types, name="types"), plugins=[view]).run()
    assert last_view(file)[0].split() == ["✓", "types", "0.0s", "1", "so", "it", "goes"]


async def test_a_terminal_without_box_characters_gets_others(autojump_clock: MockClock) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    view = LiveView(console=Console(file=file, width=60), clock=autojump_clock.current_time)
    await Runner(SequentialAgent("line", [says]), plugins=[view]).run()
    file.flush()
    assert raw.getvalue().decode("ascii").splitlines()[1].rstrip().startswith("`-- + says ")


class Broken(io.StringIO):
    """A pipe that nobody reads."""

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.mark.parametrize("is_terminal", [True, False])
async def test_a_view_that_cannot_be_drawn_leaves_the_run_alone(
    *, is_terminal: bool, autojump_clock: MockClock
) -> None:
    async def prints(ctx: InvocationContext) -> str:
        print("and nobody hears")  # noqa: T201  # on a terminal, through the view
        return "done"

    view = LiveView(console=Console(file=Broken(), force_terminal=is_terminal))
    result = await Runner(agent(prints, name="prints"), plugins=[view]).run()
    assert result.text == "done"
    assert isinstance(view.trouble, BrokenPipeError)


async def test_letters_that_the_terminal_has_not_are_escaped(autojump_clock: MockClock) -> None:
    async def tell(ctx: InvocationContext) -> str:
        return "é中"

    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    view = LiveView(console=Console(file=file, width=60))
    await Runner(agent(tell, name="tell"), plugins=[view]).run()
    assert (rb"\xe9\u4e2d" in raw.getvalue(), view.trouble) == (True, None)
