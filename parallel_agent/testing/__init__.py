"""A kit for testing agents that run side by side: every schedule, or as many as are wanted.

`explore` runs a tree under its schedules and checks what comes of each; `replay` runs one of them
again; `race_test` makes a test of it. Plain functions: they run trio themselves, with a clock that
stands still until nothing else can happen.
"""

from __future__ import annotations

from parallel_agent.testing.conformance import AgentFaultError, AgentReport, check_agent
from parallel_agent.testing.errors import (
    DeadlockError,
    EndlessRunError,
    NondeterminismError,
    ScheduleError,
)
from parallel_agent.testing.exploring import Exploration, ExplorationError, explore, replay
from parallel_agent.testing.faults import FailingSessionService, FailingStream, InjectedFaultError
from parallel_agent.testing.races import Race, RaceFinder, watch_races
from parallel_agent.testing.racing import race_test
from parallel_agent.testing.recorder import Recorder
from parallel_agent.testing.schedule import Schedule
from parallel_agent.testing.steps import Access, Step
from parallel_agent.testing.trial import Trial, run_once

__all__ = [
    "Access",
    "AgentFaultError",
    "AgentReport",
    "DeadlockError",
    "EndlessRunError",
    "Exploration",
    "ExplorationError",
    "FailingSessionService",
    "FailingStream",
    "InjectedFaultError",
    "NondeterminismError",
    "Race",
    "RaceFinder",
    "Recorder",
    "Schedule",
    "ScheduleError",
    "Step",
    "Trial",
    "check_agent",
    "explore",
    "race_test",
    "replay",
    "run_once",
    "watch_races",
]
