"""When trio itself has died, what is left of a run can be thrown away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent

PROGRAM: Final = """
import gc, trio
from parallel_agent import Runner, agent

class Clock(trio.abc.Clock):
    broken = False
    def start_clock(self): pass
    def current_time(self): return 0.0
    def deadline_to_sleep_time(self, deadline):
        assert not self.broken
        return 0.0

@agent
async def lingers(ctx):
    try:
        yield "x"
    finally:
        with trio.CancelScope(shield=True):
            Clock.broken = True
            await trio.sleep(10)

async def main():
    async with Runner(lingers).open("x") as run:
        async for _ in run:
            break

try:
    trio.run(main, clock=Clock())
except trio.TrioInternalError:
    print("trio has died")
gc.collect()
print("and the program goes on")
"""


def test_the_garbage_collector_gets_rid_of_a_run_whose_event_loop_has_died() -> None:
    """In a process of its own: the run was being left, and its reader did not give up waiting."""
    ended = subprocess.run(  # noqa: S603  # our own program
        [sys.executable, "-c", PROGRAM],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert ended.stdout.splitlines() == ["trio has died", "and the program goes on"]
