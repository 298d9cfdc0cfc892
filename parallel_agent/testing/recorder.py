"""A reader that keeps what comes, and gets to the end whatever happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from parallel_agent.agent import Agent
from parallel_agent.barrier import Outcome
from parallel_agent.invocation import RunConfig
from parallel_agent.lifecycle import Status
from parallel_agent.result import Result
from parallel_agent.run import Run
from parallel_agent.runner import Runner
from session.content import Content
from session.event import USER, Event

__all__ = ["Recorder"]


@final
class Recorder:
    """Runs a tree, or what a runner runs, to its end, and keeps what came of it.

    ::

        recorder = Recorder(tree)
        await recorder.run("hello")
        assert recorder.texts == ["a", "b"]
        assert isinstance(recorder.error, ValueError)
        assert recorder.outcomes("fan")[0].status == "failed"

    What it has by then is there to be looked at while the run goes on, too.

    Args:
        tree: the tree, or the runner if it is to have options.

    Attributes:
        events: what was delivered, in order.
        error: what the run failed with; None if it has not.
    """

    def __init__(self, tree: Agent | Runner) -> None:
        """See the class."""
        self._runner = tree if isinstance(tree, Runner) else Runner(tree)
        self._began = False
        self._run: Run | None = None
        self.events: list[Event] = []
        self.error: Exception | None = None

    async def run(
        self,
        message: str | Content | None = None,
        *,
        user_id: str = USER,
        session_id: str | None = None,
        state_delta: Mapping[str, Any] | None = None,
        run_config: RunConfig | None = None,
    ) -> None:
        """Open a run and read it to its end. Takes the arguments of `Runner.open`.

        What the run raises is kept, not raised. Cancelled, it keeps what it has got.

        Raises:
            RuntimeError: it has recorded a run already.
        """
        if self._began:
            raise RuntimeError("a recorder records one run; make another one")
        self._began = True
        opened = self._runner.open(
            message,
            user_id=user_id,
            session_id=session_id,
            state_delta=state_delta,
            run_config=run_config,
        )
        try:
            async with opened as self._run:
                async for event in self._run:
                    self.events.append(event)
        except Exception as exc:  # noqa: BLE001  # what the run failed with
            self.error = exc

    @property
    def texts(self) -> list[str]:
        """The texts of the events, without those that have none."""
        return [event.text for event in self.events if event.text]

    @property
    def status(self) -> Status:
        """How the run stands; failed, if it could not even be opened."""
        if self._run is not None:
            return self._run.status
        return Status.PENDING if self.error is None else Status.FAILED

    @property
    def result(self) -> Result | None:
        """What the run came to; None if it could not be opened, or has not ended."""
        run = self._run
        ended = run is not None and run.status not in (Status.PENDING, Status.RUNNING)
        return run.result if run is not None and ended else None

    @property
    def notes(self) -> list[str]:
        """The notes on the error."""
        return list(getattr(self.error, "__notes__", ()))

    def outcomes(self, name: str) -> tuple[Outcome, ...]:
        """Return how the branches of the fan-out ``name`` ended; see `Run.outcomes`.

        Raises:
            KeyError: no fan-out of that name has ended, or the run has not begun.
        """
        if self._run is None:
            message = f"no fan-out named {name!r} has ended: the run has not begun"
            raise KeyError(message)
        return self._run.outcomes(name)

    def __repr__(self) -> str:
        return f"<Recorder {self.status}: {len(self.events)} events, error {self.error!r:.80}>"
