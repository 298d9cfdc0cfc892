"""The contract of an agent: what can stand in a tree.

An agent is a definition: immutable, without run state, safe to run twice at once. It is one of
three shapes, told apart once, when it is defined: an async generator (``yield`` emits), a
coroutine (its return value is its output), or, by ``@agent``, a plain function that runs in a
thread.
"""

from __future__ import annotations

import copy
import inspect
import keyword
import sys
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from collections.abc import (
    Set as AbstractSet,
)
from difflib import get_close_matches
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    NoReturn,
    Self,
    TypeAlias,
    TypedDict,
    Unpack,
    cast,
    final,
)

from parallel_agent.context import InvocationContext
from parallel_agent.errors import AgentFunctionError, TreeError
from parallel_agent.limiter import Limiter
from parallel_agent.retry import Retry
from session.content import Content
from session.event import USER, Event

if TYPE_CHECKING:
    from parallel_agent.schema import Schema

__all__ = ["Agent", "AgentCallback", "AgentOptions", "check_agent"]

AgentCallback: TypeAlias = Callable[
    [InvocationContext], "Content | Event | str | Awaitable[Content | Event | str | None] | None"
]
"""Called before or after an agent; plain or async. What it returns becomes an event."""


class AgentOptions(TypedDict, total=False):
    """The keyword arguments that every agent takes; `Agent` says what they mean."""

    description: str
    output_key: str | None
    before_agent_callback: AgentCallback | Sequence[AgentCallback] | None
    after_agent_callback: AgentCallback | Sequence[AgentCallback] | None
    retry: Retry | None
    timeout: float | None
    idle_timeout: float | None
    limiter: Limiter | None


class Agent:
    """Something that runs: one node of a tree, with the agents below it.

    Subclass it with one method, ``run``, an async generator or a coroutine. (A subclass without
    it is a base for others, of which no object can be made.)::

        class Greeter(Agent):
            async def run(self, ctx):
                yield f"hello, {ctx.user_text}"

    Args:
        name: an identifier, unique in its tree, not ``"user"``.
        sub_agents: the agents below this one, in order. Each agent object stands in a tree once.
        description: one line for people and for models that choose among agents.
        output_key: the state key under which the agent's output is stored.
        before_agent_callback: called, in order, before the agent; the first that returns
            something is emitted *instead of* running the agent.
        after_agent_callback: called, in order, after the agent; the first that returns
            something is emitted as one more event.

        retry: try it again when it fails; see `Retry`.
        timeout: seconds that one attempt may take, from its real start: waiting for a slot does
            not count. Then everything below it is cancelled, and it fails with
            `AgentTimeoutError`.
        idle_timeout: seconds that may pass between two events of the agent, or of those below
            it, likewise. Time during which an event waits for the reader, or the agent for a
            person or a message, does not count.
        limiter: at most so many of the agents that share it work at the same time.

    Raises:
        TreeError: a bad or duplicate name, an agent used twice, a cycle, a child that is no
            agent, an option out of its range; all the culprits are named.
        AgentFunctionError: ``run`` is missing, or it is neither an async generator function nor a
            coroutine function of the context.
    """

    more_options: ClassVar[Sequence[str]] = ()
    """The names of further options that a class of agents takes as ``**options``; for errors."""

    run_shape: str = "coroutine"
    """What ``run`` is: ``"generator"`` (async) or ``"coroutine"``."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Find out once, when the class is made, what shape its ``run`` has."""
        super().__init_subclass__(**kwargs)
        if "run_shape" in cls.__dict__:
            return  # it says for itself, object by object
        run = cls.run
        if run is Agent.run:
            return  # a base for others
        if inspect.isasyncgenfunction(run):
            cls.run_shape = "generator"
        elif inspect.iscoroutinefunction(run):
            cls.run_shape = "coroutine"
        else:
            message = (
                f"{cls.__name__}.run must be `async def run(self, ctx)`, with or without `yield`"
            )
            raise AgentFunctionError(message)
        if inspect.isfunction(inspect.getattr_static(cls, "run")):
            try:
                inspect.signature(run).bind(None, None)
            except TypeError as exc:
                message = (
                    f"{cls.__name__}.run is called with one argument, the context, "
                    f"but its signature is {inspect.signature(run)} ({exc})"
                )
                raise AgentFunctionError(message) from None

    def __init__(
        self,
        name: str,
        sub_agents: Iterable[Agent] = (),
        **options: Unpack[AgentOptions],
    ) -> None:
        """See the class."""
        if "_tree_index" in vars(self):
            message = f"{self!r} is defined already; make a new agent, definitions do not change"
            raise TreeError(message)
        if type(self).run is Agent.run:
            message = f"{type(self).__name__} must implement `async def run(self, ctx)`"
            raise AgentFunctionError(message)
        self._sub_agents = _as_children(self, name, sub_agents)
        self._set_up(name, options)

    def _set_up(self, name: str, options: AgentOptions, *, is_copy: bool = False) -> None:
        unknown = [option for option in options if option not in AgentOptions.__annotations__]
        if unknown:
            _refuse_option(type(self), name, unknown[0], is_copy=is_copy)
        self._name = name
        self._options = _checked_options(name, options)
        limits = ("retry", "timeout", "idle_timeout")
        self._has_attempts = any(self._options.get(limit) is not None for limit in limits)
        indices = [child._tree_index for child in self._sub_agents]  # noqa: SLF001  # agents among themselves
        self._tree_index: _Index = _Index(self, indices)

    @property
    def name(self) -> str:
        """Its name, unique in the tree."""
        return self._name

    @property
    def sub_agents(self) -> tuple[Agent, ...]:
        """The agents directly below it, in declaration order."""
        return self._sub_agents

    @property
    def description(self) -> str:
        """What it is for, in one line."""
        return self._options.get("description", "")

    @property
    def output_key(self) -> str | None:
        """The state key under which its output is stored, if any."""
        return self._options.get("output_key")

    @property
    def before_agent_callback(self) -> tuple[AgentCallback, ...]:
        """The callbacks called before it."""
        return self._options.get("before_agent_callback", ())  # type: ignore[return-value]  # a tuple, see _checked_options

    @property
    def after_agent_callback(self) -> tuple[AgentCallback, ...]:
        """The callbacks called after it."""
        return self._options.get("after_agent_callback", ())  # type: ignore[return-value]  # as above

    @property
    def retry(self) -> Retry | None:
        """How it is tried again, if it is."""
        return self._options.get("retry")

    @property
    def timeout(self) -> float | None:
        """How many seconds one attempt may take, if there is a limit."""
        return self._options.get("timeout")

    @property
    def idle_timeout(self) -> float | None:
        """How many seconds may pass between two of its events, if there is a limit."""
        return self._options.get("idle_timeout")

    @property
    def limiter(self) -> Limiter | None:
        """What it shares with others, so many of which work at the same time."""
        return self._options.get("limiter")

    @property
    def shape(self) -> str:
        """What it is, in words: what must not change while a run of it is to be resumed."""
        return type(self).__name__

    @property
    def has_attempts(self) -> bool:
        """Whether it is tried again, or within some time; known once, not asked at every start."""
        return self._has_attempts

    @property
    def input_schema(self) -> Schema[Any] | None:
        """What its input must be; None if it takes any, or none."""
        return None

    @property
    def output_schema(self) -> Schema[Any] | None:
        """What its output is, if it says so; None if nobody knows."""
        return None

    @property
    def needs_input(self) -> bool:
        """Whether it cannot do without an input."""
        return self.input_schema is not None

    def with_options(self, *, name: str | None = None, **options: Unpack[AgentOptions]) -> Self:
        """Return a copy with some options changed. This agent stays as it is.

        With another name, this is how one agent stands in several places of a tree. (Agents below
        it are not copied, so a copy of an agent that has any belongs into another tree.)

        Raises:
            TreeError: an option is out of its range; the name is none, or that of an agent below.
        """
        changed = copy.copy(self)
        name = self._name if name is None else name
        changed._set_up(name, {**self._options, **options}, is_copy=True)  # noqa: SLF001  # nobody has seen it yet
        return changed

    def find_agent(self, name: str) -> Agent | None:
        """Return the agent of that name in this tree, this one included; None if there is none."""
        return self._tree_index.find(name)

    def run(self, ctx: InvocationContext) -> AsyncGenerator[Any, None] | Coroutine[Any, Any, Any]:
        """Do the agent's work. Implement it as ``async def``, with ``yield`` or without.

        What it yields is emitted, and each ``yield`` returns when the reader has come back. A
        coroutine's return value is the agent's output.
        """
        message = f"{type(self).__name__} must implement `async def run(self, ctx)`"
        raise NotImplementedError(message)

    def __repr__(self) -> str:
        children = f", {len(self._sub_agents)} sub-agents" if self._sub_agents else ""
        return f"<{type(self).__name__} {self._name}{children}>"


# Definition.


@final
class _Index:
    """The agents of a tree by name, in the order they were added.

    A parent adds itself to the table of its largest child instead of copying it, so building a
    tree of any shape costs little more than a step per agent. ``size`` says how many entries of
    the shared table are this tree's own; the rest belong to trees built around it later.
    """

    __slots__ = ("size", "table")

    def __init__(self, parent: Agent, below: Iterable[_Index]) -> None:
        indices = sorted(below, key=lambda index: -index.size)
        largest = indices[0] if indices else None
        if largest is None:
            self.table: dict[str, tuple[int, Agent]] = {}
        elif len(largest.table) == largest.size:
            self.table = largest.table
        else:
            self.table = dict(largest.entries())
        added: list[str] = []
        try:
            for index in indices[1:]:
                for name, (_, agent) in index.entries():
                    _add(self.table, name, agent, added)
            _add(self.table, parent.name, parent, added)
        except TreeError:
            for name in added:  # the table may be another tree's, too
                del self.table[name]
            raise
        self.size: int = len(self.table)

    def entries(self) -> list[tuple[str, tuple[int, Agent]]]:
        return list(self.table.items())[: self.size]

    def find(self, name: str) -> Agent | None:
        position, agent = self.table.get(name, (self.size, None))
        return agent if position < self.size else None


def _add(table: dict[str, tuple[int, Agent]], name: str, agent: Agent, added: list[str]) -> None:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        hint = "letters, digits and underscores, no digit first"
        if not isinstance(name, str):
            hint = "the name comes first, then the agents below"
        elif name == "<lambda>":
            hint = "give a lambda one: agent(function, name=...)"
        message = f"agent name {name!r:.80} is no identifier: {hint}"
        raise TreeError(message)
    if name == USER:
        message = f"no agent may be called {USER!r}: it is the author of what people say"
        raise TreeError(message)
    there = table.get(name)
    if there is not None:
        if there[1] is agent:
            message = (
                f"agent {name!r} stands in the tree twice; "
                "with_options(name=...) makes a copy with another name"
            )
        else:
            message = (
                f"two agents in the tree are called {name!r} ({there[1]!r} and {agent!r}); "
                "names are unique; with_options(name=...) makes a copy with another name"
            )
        raise TreeError(message)
    table[name] = (len(table), agent)
    added.append(name)


def check_agent(agent: object, what: str) -> None:
    """Refuse what is no agent, or not yet one; ``what`` names the place it was given to.

    Raises:
        TreeError: with what to do about it.
    """
    if not isinstance(agent, Agent):
        message = f"{what} is no agent but {agent!r:.80}{_what_to_do_with(agent)}"
        raise TreeError(message)
    if "_tree_index" not in vars(agent):
        message = (
            f"{what}, a {type(agent).__name__}, is no agent yet: "
            "its __init__ has not called super().__init__(name, ...), or has not ended"
        )
        raise TreeError(message)


def _what_to_do_with(no_agent: object) -> str:
    kinds = type(no_agent).__mro__
    hint = "; make it one with @agent" if callable(no_agent) else ""
    # Google ADK's are told by their look: it need not be installed.
    if any(str(kind.__module__).startswith("google.adk.") for kind in kinds):
        return "; make it a leaf: parallel_agent.adk.AdkAgent(...)"
    if isinstance(no_agent, type) and issubclass(no_agent, Agent):
        return "; make an object of it: call it"
    return hint


def _as_children(parent: Agent, name: str, sub_agents: Iterable[Agent]) -> tuple[Agent, ...]:
    # A set would do but for its order, which is another one in the next process.
    has_no_order = isinstance(sub_agents, AbstractSet | Mapping)
    if has_no_order or isinstance(sub_agents, Agent) or not isinstance(sub_agents, Iterable):
        message = f"sub_agents of {name!r} must be a list of agents, not {sub_agents!r}"
        raise TreeError(message)
    children = tuple(sub_agents)
    for position, child in enumerate(children):
        if child is parent:
            message = f"agent {name!r} is to stand below itself; a tree has no cycles"
            raise TreeError(message)
        check_agent(child, f"sub_agents[{position}] of {name!r}")
    return children


def _refuse_option(kind: type[Agent], name: str, option: str, *, is_copy: bool) -> NoReturn:
    parameters = list(inspect.signature(kind.__init__).parameters.values())
    own = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    if is_copy and option in own:
        message = (
            f"agent {name!r} has no option {option!r} that a copy may change: "
            f"make a new {kind.__name__} with it"
        )
        raise TypeError(message)
    known = dict.fromkeys(
        [*AgentOptions.__annotations__, *(() if is_copy else (*own, *kind.more_options))]
    )
    places = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
    near = get_close_matches(option, [*known, *(() if is_copy else places)], 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    message = f"agent {name!r} has no option {option!r}{hint}; there are {', '.join(known)}"
    raise TypeError(message)


def _checked_options(name: str, options: AgentOptions) -> AgentOptions:
    """Return the options as they are kept, or refuse one, naming it."""
    checked: dict[str, Any] = dict(options)
    if not isinstance(options.get("description", ""), str):
        message = f"description of {name!r} must be text, not {options.get('description')!r:.80}"
        raise TreeError(message)
    if "output_key" in options:
        _as_output_key(name, options["output_key"])
    for option in ("before_agent_callback", "after_agent_callback"):
        if option in checked:
            checked[option] = _as_callbacks(name, checked[option])
    for option in ("timeout", "idle_timeout"):
        if option in checked:
            checked[option] = _as_seconds(name, option, checked[option])
    _as_kind(name, "retry", checked.get("retry"), Retry)
    _as_kind(name, "limiter", checked.get("limiter"), Limiter)
    return cast("AgentOptions", checked)


def _as_kind(name: str, option: str, value: object, kind: type[object]) -> None:
    if value is not None and not isinstance(value, kind):
        message = f"{option} of {name!r} must be a {kind.__name__}, not {value!r:.80}"
        raise TreeError(message)


def _as_seconds(name: str, option: str, value: object) -> float | None:
    if value is None:
        return None
    longest = sys.float_info.max  # a whole number can be too large for a float
    if not isinstance(value, int | float) or type(value) is bool or not 0 <= value <= longest:
        message = f"{option} of {name!r} must be seconds, 0 or more, not {value!r:.80}"
        raise TreeError(message)
    return float(value)


def _as_output_key(name: str, key: str | None) -> str | None:
    if key is not None and (not isinstance(key, str) or not key):
        message = f"output_key of {name!r} must be text that is not empty, not {key!r}"
        raise TreeError(message)
    return key


def _as_callbacks(
    name: str, given: AgentCallback | Sequence[AgentCallback] | None
) -> tuple[AgentCallback, ...]:
    is_many = not callable(given) and isinstance(given, Iterable | None)
    callbacks: tuple[AgentCallback, ...] = tuple(given or ()) if is_many else (given,)  # type: ignore[arg-type,assignment]  # checked below
    for callback in callbacks:
        if not callable(callback):
            message = f"a callback of {name!r} is not callable: {callback!r}"
            raise TreeError(message)
    return callbacks
