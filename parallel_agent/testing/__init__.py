"""A kit for testing agents that run side by side: every schedule, or as many as are wanted.

`explore` runs a tree under its schedules and checks what comes of each; `replay` runs one of them
again; `race_test` makes a test of it. Plain functions: they run trio themselves, with a clock that
stands still until nothing else can happen. `scripted` makes agents that do as they are told, of
steps such as `emits`, `sleeps` and `raises`. `check_agent` holds an agent of yours to what agents
must do, and `check_session_service` a service of sessions to its contract.

What needs Hypothesis is in `parallel_agent.testing.strategies`.
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
from parallel_agent.testing.numbered import NumberedSchedule
from parallel_agent.testing.races import Race, RaceFinder, watch_races
from parallel_agent.testing.racing import RaceTest, race_test
from parallel_agent.testing.recorder import Recorder
from parallel_agent.testing.schedule import Schedule
from parallel_agent.testing.scripted import (
    ScriptedAgent,
    ScriptStep,
    adds,
    as_code,
    asks,
    calls,
    cleans_up,
    contributes,
    emits,
    escalates,
    outputs,
    raises,
    reads,
    receives,
    scripted,
    signals,
    sleeps,
    transfers_to,
    waits_for,
    within,
    writes,
)
from parallel_agent.testing.scripted_model import ScriptedModel
from parallel_agent.testing.steps import Access, Step
from parallel_agent.testing.trial import Trial, run_once
from session.conformance import (
    ARTIFACT_CHECKS,
    CHECKS,
    PromiseBrokenError,
    check_artifact_service,
    check_session_service,
)

__all__ = [
    "ARTIFACT_CHECKS",
    "CHECKS",
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
    "NumberedSchedule",
    "PromiseBrokenError",
    "Race",
    "RaceFinder",
    "RaceTest",
    "Recorder",
    "Schedule",
    "ScheduleError",
    "ScriptStep",
    "ScriptedAgent",
    "ScriptedModel",
    "Step",
    "Trial",
    "adds",
    "as_code",
    "asks",
    "calls",
    "check_agent",
    "check_artifact_service",
    "check_session_service",
    "cleans_up",
    "contributes",
    "emits",
    "escalates",
    "explore",
    "outputs",
    "race_test",
    "raises",
    "reads",
    "receives",
    "replay",
    "run_once",
    "scripted",
    "signals",
    "sleeps",
    "transfers_to",
    "waits_for",
    "watch_races",
    "within",
    "writes",
]
