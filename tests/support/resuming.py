"""Cut a run off at any event of its log, and go on with it in another runner and service.

What is cut off is never a live run: a run is let come to its end, and what its log held after so
many events is put into a fresh service, by way of its stored form, as the log of a run that never
released its session. So there is one case for each event boundary, and no process to kill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from parallel_agent import (
    Agent,
    Event,
    InMemorySessionService,
    InvocationContext,
    LoopAgent,
    ParallelAgent,
    Plugin,
    Result,
    Run,
    RunConfig,
    Runner,
    SequentialAgent,
    Status,
)
from parallel_agent.testing import ScriptStep, emits, scripted
from parallel_agent.testing.acts import Adds, Asks, Escalates, Reads, Writes
from parallel_agent.testing.script import CleansUp, Within
from parallel_agent.testing.scripted import ScriptedAgent
from session import Session, SessionKey, fold
from session.codec import Codec

__all__ = [
    "APP",
    "FIRST",
    "KEY",
    "REDUCERS",
    "Cut",
    "Told",
    "Watch",
    "cut_log",
    "differences",
    "kinds",
    "kinds_at",
    "play",
    "resume",
    "told_apart",
    "troubles",
    "without_races",
]

APP: Final = "app"
KEY: Final = SessionKey(APP, "user", "s")
REDUCERS: Final = {"t": "add", "u": "add"}

FIRST: Final = 2
"""How many events there are at least of a run that can be resumed: what was said, the start."""

_CODEC: Final = Codec()


class Watch(Plugin):
    """Notes what ran: attempts by their paths, and what they could see when they began."""

    def __init__(self) -> None:
        """Note nothing yet."""
        super().__init__("watch")
        self.began: list[str] = []
        self.saw: dict[str, Counter[tuple[str, str]]] = {}

    async def before_agent_callback(self, ctx: InvocationContext) -> None:
        """Note it."""
        self.began.append(ctx.path)
        self.saw[ctx.path] = Counter(_told(ctx.history()))


@attrs.frozen(eq=False)
class Told:
    """What came of a run, as far as it was let go on.

    Attributes:
        lines: its session's log, in the stored form.
        delivered: what its reader got, this time.
        error: what left its block.
        began: the paths of the attempts that ran, this time.
        saw: by path, what an attempt could see when it began.
    """

    lines: tuple[str, ...]
    delivered: tuple[Event, ...]
    result: Result
    error: BaseException | None
    run: Run
    began: tuple[str, ...]
    saw: Mapping[str, Counter[tuple[str, str]]]
    unfinished: tuple[str, ...]

    @property
    def log(self) -> list[Event]:
        """Its events and records, made anew from the stored form."""
        return [_CODEC.loads(line) for line in self.lines]

    @property
    def run_id(self) -> str:
        return self.result.invocation_id

    def places(self, kind: str, path: str | None = None) -> list[int]:
        """Return how many events there were when a record of that kind, and path, had come."""
        return [
            at
            for at, event in enumerate(self.log, 1)
            if (event.journal or {}).get("kind") == kind and path in (None, event.path)
        ]

    def after(self, text: str) -> int:
        """Return how many events there were when the one with this text had come."""
        return next(at for at, event in enumerate(self.log, 1) if event.text == text)

    def ended_at(self, path: str) -> int:
        """Return how many events there were when the end of ``path`` was recorded."""
        (at,) = self.places("end", path)
        return at


@attrs.frozen(eq=False)
class Cut:
    """A log that ends where its run was cut off: what `resume` goes on with."""

    lines: Sequence[str]
    run_id: str

    async def service(self) -> InMemorySessionService:
        """Return a fresh service that holds it."""
        service = InMemorySessionService(clock=lambda: 0.0)
        events = [_CODEC.loads(line) for line in self.lines]
        last = max((event.seq or 0 for event in events), default=0)
        await service.restore(Session(KEY, events, fold({}, events), last, 0.0))
        lease = await service.acquire(KEY, run_id=self.run_id, owner="test", resumable=True)
        await service.release(lease, unfinished="interrupted")
        return service


def cut_log(told: Told, at: int, change: Callable[[list[str]], object] | None = None) -> Cut:
    """Return the first ``at`` events of a log; ``change`` may damage them."""
    lines = list(told.lines[:at])
    if change is not None:
        change(lines)
    return Cut(lines, told.run_id)


OnEvent = Callable[[Run, Event], Any]


async def play(
    tree: Agent,
    *,
    service: InMemorySessionService | None = None,
    on_event: OnEvent | None = None,
    config: RunConfig | None = None,
    message: str | None = "hi",
    plugins: Iterable[Plugin] = (),
    resumable: bool = True,
    **options: Any,
) -> Told:
    """Run a tree to its end, and tell about it."""
    watch = Watch()
    service = service or InMemorySessionService(clock=lambda: 0.0)
    runner = _runner(tree, service, [watch, *plugins], resumable=resumable, **options)
    opened = runner.open(message, session_id="s", run_config=config)
    return await _read(runner, opened, watch, on_event)


async def resume(
    tree: Agent,
    cut: Cut,
    *,
    on_event: OnEvent | None = None,
    responses: Mapping[str, Any] | None = None,
    config: RunConfig | None = None,
    plugins: Iterable[Plugin] = (),
    **options: Any,
) -> Told:
    """Go on with a run that was cut off, in a service and a runner of its own.

    Raises:
        BaseException: what keeps it from being resumed at all.
    """
    watch = Watch()
    runner = _runner(tree, await cut.service(), [watch, *plugins], resumable=True, **options)
    opened = runner.reopen("s", responses=responses, run_config=config)
    return await _read(runner, opened, watch, on_event)


def _runner(
    tree: Agent, service: InMemorySessionService, plugins: Iterable[Plugin], **options: Any
) -> Runner:
    options.setdefault("reducers", REDUCERS)
    options.setdefault("clock", lambda: 0.0)
    return Runner(tree, app_name=APP, session_service=service, plugins=plugins, **options)


async def _read(runner: Runner, opened: Any, watch: Watch, on_event: OnEvent | None) -> Told:
    delivered: list[Event] = []
    run: Run | None = None
    error: BaseException | None = None
    try:
        async with opened as run:
            async for event in run:
                delivered.append(event)
                answer = None if on_event is None else on_event(run, event)
                if answer is not None:
                    await answer
    except Exception as exc:
        if run is None:
            raise
        error = exc
    stored = await runner.session_service.get(app_name=APP, user_id="user", session_id="s")
    assert stored is not None
    return Told(
        lines=tuple(_CODEC.dumps(event) for event in stored.events),
        delivered=tuple(delivered),
        result=run.result,
        error=error,
        run=run,
        began=tuple(watch.began),
        saw=watch.saw,
        unfinished=tuple(one.status for one in await runner.unfinished()),
    )


# What must be the same.


def _told(events: Iterable[Event]) -> list[tuple[str, str]]:
    return [(event.path, event.text) for event in events]


def kinds(error: BaseException | None) -> Any:
    """Return the class and the words of a failure, and of those in it."""
    if error is None:
        return None
    inside = [kinds(one) for one in getattr(error, "exceptions", ())]
    kind = type(error)
    return f"{kind.__module__}.{kind.__qualname__}", str(error), inside


def differences(resumed: Told, whole: Told) -> list[str]:
    """Say what of a resumed run is not as in the run that nobody cut off."""
    found: list[str] = []

    def same(what: str, one: Any, other: Any) -> None:
        if one != other:
            found.append(f"{what}: {one!r}, not {other!r}")

    ours, theirs = resumed.result, whole.result
    same("status", ours.status, theirs.status)
    same("error", kinds(resumed.error), kinds(whole.error))
    same("output", ours.output, theirs.output)
    same("outputs", dict(ours.outputs), dict(theirs.outputs))
    same("state", dict(ours.state), dict(theirs.state))
    events = Counter(_told(ours.events)), Counter(_told(theirs.events))
    same("events missing", dict(events[1] - events[0]), {})
    same("events too many", dict(events[0] - events[1]), {})
    same("text", _texts_of(ours), _texts_of(theirs))
    waits = theirs.status is Status.WAITING
    same("left", resumed.unfinished, ("waiting",) if waits else ())
    return found


def _texts_of(result: Result) -> bool:
    # Which text is the last one may be a race; whether there is one is not.
    return bool(result.text)


def told_apart(resumed: Told, whole: Told, at: int, *, saw: bool = True) -> list[str]:
    """Say what was run again that had ended, or not run that had not; and who saw what else.

    ``at`` is how many events of the whole run's log were there when it was cut off. ``saw`` is
    False if that is to be another: what a checkpoint or an answer has kept is seen at once.
    """
    found: list[str] = []
    over: set[str] = set()
    for event in whole.log[:at]:
        note = event.journal or {}
        if note.get("kind") in ("end", "attempt"):
            over |= {event.path, note.get("begun", event.path)}
        over |= set(note.get("ends", ()))
    wanted = Counter(path for path in whole.began if not is_below(path, over))
    began = Counter(resumed.began)
    if again := began - wanted:
        found.append(f"run, and should not: {sorted(again.elements())}")
    if missing := wanted - began:
        found.append(f"not run, and should: {sorted(missing.elements())}")
    for path, view in resumed.saw.items() if saw else ():
        if view != whole.saw.get(path):
            found.append(f"{path} saw {dict(view)}, not {dict(whole.saw.get(path, {}))}")
    return found


async def troubles(
    tree: Agent | Callable[[], Agent],
    *,
    twice: bool = False,
    cuts: Iterable[int] | None = None,
    saw: bool = True,
    **options: Any,
) -> list[str]:
    """Cut a run off everywhere, go on, and say what is not as in the run that nobody cut off.

    ``twice`` cuts the resumed run off as well, everywhere; ``cuts`` is where, if not everywhere.
    A function makes a tree for each run.
    """

    def make() -> Agent:
        return tree if isinstance(tree, Agent) else tree()

    whole = await play(make(), **options)
    found: list[str] = []
    options.pop("message", None)
    for at in range(FIRST, len(whole.lines) + 1) if cuts is None else cuts:
        again = await resume(make(), cut_log(whole, at), **options)
        found += [f"cut at {at}: {one}" for one in differences(again, whole)]
        found += [f"cut at {at}: {one}" for one in told_apart(again, whole, at, saw=saw)]
        # Not everywhere: that would take as long as the square of the log.
        for second in range(at + 2 + at % 3, len(again.lines), 5) if twice else ():
            last = await resume(make(), cut_log(again, second), **options)
            found += [f"cut at {at}, {second}: {one}" for one in differences(last, whole)]
        if found:
            break
    return found


def is_below(path: str, above: Iterable[str]) -> bool:
    """Whether ``path`` is one of ``above``, or below one."""
    return any(f"{path}/".startswith(f"{one}/") for one in above)


def kinds_at(log: Iterable[Event]) -> list[str]:
    """Return the kinds of a log's records, in order."""
    return [event.journal["kind"] for event in log if event.is_record and event.journal]


# Trees in which no order makes a difference.


def without_races(tree: Agent) -> Agent:
    """Return a tree whose end is the same in every order, made of a drawn one.

    Each agent gets keys of its own; and no direct child of a parallel agent escalates, for that
    would end its siblings wherever they are.
    """
    return _rebuilt(tree, beside=False)


def _rebuilt(tree: Agent, *, beside: bool) -> Agent:
    options: Any = {
        "retry": tree.retry,
        "timeout": tree.timeout,
        "output_key": None if tree.output_key is None else f"{tree.name}_out",
    }
    if isinstance(tree, ScriptedAgent):
        steps = _own(tree.name, tree.steps, beside=beside)
        return scripted(tree.name, *steps, **options)
    is_wide = isinstance(tree, ParallelAgent) and len(tree.sub_agents) > 1
    below = [_rebuilt(child, beside=is_wide) for child in tree.sub_agents]
    match tree:
        case ParallelAgent():
            most = tree.max_concurrency
            return ParallelAgent(
                tree.name, below, barrier=tree.barrier, max_concurrency=most, **options
            )
        case LoopAgent():
            return LoopAgent(tree.name, below, max_iterations=tree.max_iterations, **options)
        case _:
            return SequentialAgent(tree.name, below, **options)


def _own(name: str, steps: Iterable[ScriptStep], *, beside: bool) -> list[ScriptStep]:
    made: list[ScriptStep] = []
    for step in steps:
        match step:
            case Writes() | Adds():
                made.append(attrs.evolve(step, key=f"{name}_{step.key}"))
            case Asks() if step.key is not None:
                made.append(attrs.evolve(step, key=f"{name}_{step.key}"))
            case Reads():
                made.append(Reads(tuple(f"{name}_{key}" for key in step.keys)))
            case Escalates() if beside:
                made.append(emits(step.text))
            case CleansUp() | Within():
                inside = tuple(_own(name, step.steps, beside=beside))
                made.append(attrs.evolve(step, steps=inside))
            case _:
                made.append(step)
    return made
