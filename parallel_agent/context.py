"""What an agent is given: its context. The public face of an activation, with few things on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from trio.lowlevel import checkpoint

from parallel_agent.activation import NO_INPUT, Activation
from parallel_agent.barrier import Barrier, BestEffort, FailFast, Outcome
from parallel_agent.errors import FanOutError, TreeError
from parallel_agent.history import visible_events
from parallel_agent.inputs import checked_input, checked_items, given_input
from parallel_agent.invocation import RunConfig
from parallel_agent.overlay import State
from parallel_agent.post import receive, send
from parallel_agent.questions import NO_DEFAULT, request_input
from parallel_agent.stored_context import StoredContext
from session.content import Content
from session.event import Event

if TYPE_CHECKING:
    # For annotations only: agents take contexts, so they stand above.
    from parallel_agent.agent import Agent
    from parallel_agent.group import OpenFanOut
    from parallel_agent.tap import OpenAgent

__all__ = ["InvocationContext", "activation_of", "find_outcomes"]

T = TypeVar("T")


class InvocationContext(StoredContext):
    """What an agent knows and can do during one activation.

    Only for the activation it was made for: it must not be used after the agent has ended.
    """

    __slots__ = ()

    @property
    def agent(self) -> Agent:
        """The agent that runs."""
        return self._activation.agent

    @property
    def invocation_id(self) -> str:
        """The run's id, the same for all its agents."""
        return self._activation.invocation.id

    @property
    def branch(self) -> str | None:
        """The branch it runs on, dotted; None on the root branch."""
        return self._activation.place.branch

    @property
    def path(self) -> str:
        """This activation's path from the root of the tree, slashed; unique in the run."""
        return self._activation.place.path

    @property
    def run_config(self) -> RunConfig:
        """How this run behaves."""
        return self._activation.invocation.config

    @property
    def user_content(self) -> Content | None:
        """The message the run was started with."""
        return self._activation.invocation.user_content

    @property
    def user_text(self) -> str:
        """The text of that message; ``""`` without one."""
        content = self.user_content
        return "" if content is None else content.text

    @property
    def state(self) -> State:
        """The session's state as this branch sees it. See `State`."""
        return self._activation.state

    def history(self) -> list[Event]:
        """Return the recorded events that this agent may see, oldest first.

        What the session held before the run; what was visible to the parent when this branch was
        forked; what this branch, and branches forked from it and joined, have recorded since.
        Never anything of a sibling that still runs, or of an attempt of this run that was
        followed by another. Partial events are not recorded.

        Costs a step per event of the session.
        """
        self._note("history")
        return visible_events(self._activation)

    def outcomes(self, name: str) -> tuple[Outcome, ...]:
        """Return how the branches of the fan-out ``name`` ended, in declaration order.

        Of its newest activation; also when it failed.

        Raises:
            KeyError: no fan-out of that name has ended in this run.
        """
        return find_outcomes(self._activation.invocation.outcomes, name)

    async def emit(self, item: Event | Content | str) -> Event:
        """Emit an event; return it when the reader has come back for the next one.

        By then it is recorded, and everybody sees its state writes. ``yield item`` in an agent
        is this call. Text or content is made an event.

        Raises:
            EmitError: ``item`` is no event, or was emitted before.
            UnstorableError: something in it has no JSON form; nothing was recorded.
            StateConflictError: see ``on_conflict`` of the runner.
            BranchCancelledError: a sibling's decision has ended this branch.
            StreamClosedError: the run has ended.
            ActivationEndedError: this agent has ended.
            trio.Cancelled: ``event.seq`` says whether it was recorded all the same.
        """
        return await self._activation.emit(item)

    async def checkpoint_schedule(self) -> None:
        """Let others go on, and let exploration choose here who does.

        For agents that share what the runtime does not know of: an object, a file, a service.
        `parallel_agent.testing` tries the orders in which such places can be passed. Otherwise a
        checkpoint of trio's.
        """
        self._note("schedule")
        await checkpoint()

    @property
    def input(self) -> Any:
        """What this agent was given to work on; what its workflow was given, if it stands in one.

        Structured, strictly, to what the agent declares (the annotation of its function's second
        argument); else the JSON value as it is. None if nothing was given.

        Raises:
            InputError: it does not fit; the message names agent, branch and field.
        """
        return checked_input(self._activation)

    @property
    def documents(self) -> Mapping[str, str]:
        """The documents that this node of a graph reads, by name; see `Document`.

        As they were when the node became ready; of agents below it, as they were for the node.
        """
        return self._activation.documents

    # Other agents. Writes pending here are recorded before one starts.

    async def run_agent(self, agent: Agent, input: Any = NO_INPUT) -> Any:
        """Run another agent in place, on this branch, and return its output.

        Its events go into the same stream.

        Args:
            agent: of this tree or any other.
            input: what it is to work on: JSON, or an object that has a JSON form.

        Raises:
            BaseException: whatever the agent raised, as itself.
        """
        activation = self._running()
        check_runnable(agent, "run_agent")
        given = given_input(input, agent.name)
        child: Activation = await activation.invocation.engine.run_child(
            activation, agent, number=self._number(agent.name), input=given
        )
        return child.output

    def open_agent(self, agent: Agent, input: Any = NO_INPUT) -> OpenAgent:
        """Return a block that runs another agent in place, and shows its events before they count.

        ::

            async with ctx.open_agent(writer) as events:
                async for event in events:
                    if wanted(event):
                        yield event  # passed on, as the writer's; otherwise it is dropped

        What is dropped is not recorded, nor are the state writes that came with it. Leaving the
        block early cancels the agent and waits for it. See `ChildEvents`.

        Raises:
            BaseException: whatever the agent raised, as itself, at the iteration or at the end.
        """
        activation = self._running()
        check_runnable(agent, "open_agent")
        opened: OpenAgent = activation.invocation.engine.open_agent(
            activation, agent, given_input(input, agent.name)
        )
        return opened

    async def map(
        self, agent: Agent, items: Iterable[Any], *, max_concurrency: int | None = None
    ) -> list[Any]:
        """Run ``agent`` on every item, side by side, and return the outputs in order.

        Each runs on a branch of its own, ``agent@1``, ``agent@2``, ... The first failure cancels
        the others, and is raised as itself; with retries, only the item that failed is tried
        again.

        Args:
            agent: of this tree or any other.
            items: the inputs: JSON, or objects that have a JSON form.
            max_concurrency: how many run at a time; None is all.

        Raises:
            UnstorableError: an item has no JSON form; nothing was started.
            FanOutError: ``items`` has no order, or cannot be iterated.
            BaseException: as `FailFast` chooses.
        """
        outcomes = await self.map_outcomes(
            agent, items, barrier=FailFast(), max_concurrency=max_concurrency
        )
        return [outcome.output for outcome in outcomes]

    async def map_outcomes(
        self,
        agent: Agent,
        items: Iterable[Any],
        *,
        barrier: Barrier = BestEffort(),  # noqa: B008  # a value, and frozen
        max_concurrency: int | None = None,
    ) -> list[Outcome]:
        """Run ``agent`` on every item, side by side, and return how each ended, in order.

        See `map`; what is raised is for ``barrier`` to say, by default nothing.
        """
        check_runnable(agent, "map")
        given = [
            (agent, given_input(item, agent.name, "items", position))
            for position, item in enumerate(checked_items(items, "map"))
        ]
        return await self._fork(given, barrier, max_concurrency)

    async def fan_out(
        self,
        tasks: Iterable[Agent | tuple[Agent, Any]],
        *,
        barrier: Barrier = FailFast(),  # noqa: B008  # as above
        max_concurrency: int | None = None,
    ) -> list[Outcome]:
        """Run agents side by side, each on a branch of its own; return how each ended, in order.

        Args:
            tasks: agents, or pairs of an agent and what it is to work on. The same agent may
                come any number of times.
            barrier: what happens when branches fail, and when there are enough.
            max_concurrency: how many run at a time; None is all.

        Raises:
            UnstorableError: an input has no JSON form; nothing was started.
            FanOutError: ``barrier`` needs more branches than there are.
            BaseException: as ``barrier`` chooses.
        """
        given: list[tuple[Agent, Any]] = []
        for position, task in enumerate(checked_items(tasks, "fan_out")):
            pair = task if isinstance(task, tuple) else (task, NO_INPUT)
            if len(pair) != 2:  # noqa: PLR2004  # a pair
                message = f"fan_out() takes agents, and pairs of an agent and its input, not {task}"
                raise FanOutError(message)
            check_runnable(pair[0], "fan_out")
            given.append((pair[0], given_input(pair[1], pair[0].name, "tasks", position)))
        return await self._fork(given, barrier, max_concurrency)

    def _number(self, name: str) -> int | str:
        """Return what tells an agent of that name from others below this activation."""
        return self._activation.next_number(name)

    async def _fork(
        self, given: list[tuple[Agent, Any]], barrier: Barrier, max_concurrency: int | None
    ) -> list[Outcome]:
        activation = self._running()
        engine = activation.invocation.engine
        outcomes: list[Outcome] = await engine.fan_out(
            activation,
            [engine.task(agent, item, self._number(agent.name)) for agent, item in given],
            barrier=barrier,
            max_concurrency=_limit(max_concurrency),
        )
        return outcomes

    def open_fan_out(
        self,
        *,
        barrier: Barrier = FailFast(),  # noqa: B008  # as above
        max_concurrency: int | None = None,
    ) -> OpenFanOut:
        """Return a block in which branches are started while this agent goes on.

        ::

            async with ctx.open_fan_out() as group:
                handles = [group.start(worker, module) for module in modules]
                async for handle in group.finished:
                    yield f"{handle.name}: {await handle}"

        The block ends when all branches have; what of their errors nobody has awaited, it
        raises, as ``barrier`` says. With `FailFast`, the default, the first failure cancels the
        other branches and what the block is doing.
        """
        activation = self._running()
        opened: OpenFanOut = activation.invocation.engine.open_group(
            activation, barrier, _limit(max_concurrency), self._number
        )
        return opened

    # People.

    async def receive(self) -> Event:
        """Wait for the next message to this branch; see `Run.send`."""
        self._note("message")
        return await receive(self._running())

    @property
    def inbox(self) -> AsyncIterator[Event]:
        """The messages to this branch, as they come: ``async for message in ctx.inbox``.

        Does not end by itself: ``break`` when the conversation is over.
        """
        return _Inbox(self)

    async def send(self, content: str | Content, *, to: str | None = None) -> Event:
        """Send a message to another branch of this run; None is the root branch.

        Does not wait for its being read. The event's author is this agent.

        Raises:
            MessageRefusedError: no such branch is running, or its inbox is full.
        """
        activation = self._running()
        await checkpoint()
        self._note("message")
        return send(activation.root, content, to, author=activation.agent.name)

    @overload
    async def request_input(
        self, prompt: str, *, schema: type[T], timeout: float | None = ..., default: T = ...
    ) -> T: ...

    @overload
    async def request_input(
        self, prompt: str, *, schema: Any = ..., timeout: float | None = ..., default: Any = ...
    ) -> Any: ...

    async def request_input(
        self,
        prompt: str,
        *,
        schema: Any = None,
        timeout: float | None = None,
        default: Any = NO_DEFAULT,
    ) -> Any:
        """Ask a person, and wait for the answer; other branches go on meanwhile.

        The question is an event with ``event.request``; `Run.respond` answers it. What is
        written in state is recorded with it.

        Args:
            prompt: the question.
            schema: what the answer must be: a type, dataclass, attrs class, TypedDict, or
                anything with pydantic's ``model_validate``. The answer is structured to it,
                strictly. None takes any JSON value.
            timeout: seconds to wait, once the question has been read; None is for ever.
            default: the answer when time is over, or nobody can see the question, or answer it.

        Raises:
            AgentTimeoutError: time is over, and there is no default.
            RequestError: the question is none; or there is no default, and a plugin, or an
                agent that reads the events of this one, has dropped it, or the run is
                `Runner.run`'s, in which nobody can answer.
            SchemaTypeError: there is no telling what fits ``schema``.
            trio.Cancelled: nobody has answered, and the run is to be suspended
                (``RunConfig(on_wait="suspend")``).
        """
        activation = self._running()
        self._note("message")
        suspended, answer = await request_input(activation, prompt, schema, timeout, default)
        if suspended:
            await activation.invocation.engine.suspend(activation)
        return answer

    def __repr__(self) -> str:
        return f"<InvocationContext {self.path}>"


class _Inbox:
    """What `InvocationContext.inbox` is."""

    def __init__(self, ctx: InvocationContext) -> None:
        self._ctx = ctx

    def __aiter__(self) -> _Inbox:
        return self

    async def __anext__(self) -> Event:
        return await self._ctx.receive()


def check_runnable(agent: object, what: str) -> None:
    """Refuse what is no agent. By its look: the class stands above."""
    if not hasattr(agent, "_tree_index"):
        hint = "; make it one with @agent" if callable(agent) else ""
        message = f"what {what}() was given is no agent but {agent!r:.80}{hint}"
        raise TreeError(message)


def _limit(max_concurrency: int | None) -> int | None:
    if max_concurrency is not None and (type(max_concurrency) is not int or max_concurrency < 1):
        message = f"max_concurrency is a whole number from 1 on, or None, not {max_concurrency!r}"
        raise FanOutError(message)
    return max_concurrency


def find_outcomes(outcomes: Mapping[str, Sequence[Outcome]], name: str) -> tuple[Outcome, ...]:
    """Return the outcomes of the fan-out ``name``, or raise a KeyError that lists what there is."""
    try:
        return tuple(outcomes[name])
    except (KeyError, TypeError):  # TypeError: it cannot even be looked up
        known = ", ".join(sorted(outcomes)) or "none yet"
        message = f"no fan-out named {name!r} has ended in this run (ended: {known})"
        raise KeyError(message) from None


def activation_of(ctx: InvocationContext) -> Activation:
    """Return the runtime's side of a context. For workflow agents."""
    return ctx._activation  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # this is the door
