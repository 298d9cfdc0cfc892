"""Trees of agents as values: what every leaf does, step by step, and the code that does it.

A tree is data, so that it can be drawn, shrunk, printed and pasted back into a test. A leaf is
compiled to an ordinary function (`source_of` shows it), because only real code has real
``yield`` inside real scopes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, assert_never, cast

import attrs
import trio

from parallel_agent import Agent, LoopAgent, ParallelAgent, SequentialAgent, agent

if TYPE_CHECKING:
    from tests.support.recording import Recorder
    from tests.support.timing import Timing

__all__ = [
    "Beside",
    "Chain",
    "Cleanup",
    "Contribute",
    "Emit",
    "Fail",
    "Fan",
    "Leaf",
    "Look",
    "Loop",
    "Node",
    "Pause",
    "ScriptedError",
    "Step",
    "Within",
    "Write",
    "as_code",
    "build",
    "lanes_of",
    "leaves_of",
    "nodes_of",
    "printed",
    "source_of",
    "steps_of",
]


class ScriptedError(Exception):
    """The failure of a leaf that is told to fail."""


def as_code(value: object) -> str:
    """Show an attrs object as the call that makes it, on one line if it is short."""
    arguments: list[str] = []
    skipped = False
    for field in attrs.fields(type(value)):  # type: ignore[arg-type]  # every caller is an attrs class
        if not field.repr:
            continue
        item = getattr(value, field.name)
        if field.default is not attrs.NOTHING and item == field.default:
            skipped = True
        elif field.default is attrs.NOTHING or not skipped:
            arguments.append(_shown(item))
        else:
            arguments.append(f"{field.name}={_shown(item)}")
    name = type(value).__name__
    line = f"{name}({', '.join(arguments)})"
    if "\n" not in line and len(line) <= _LINE:
        return line
    return f"{name}({','.join(_indented(argument) for argument in arguments)},\n)"


def printed(value: object, printer: Any, cycle: bool) -> None:  # noqa: FBT001  # Hypothesis calls it
    """Tell Hypothesis to print what ``repr`` says, and not every field."""
    del cycle
    for number, line in enumerate(repr(value).split("\n")):
        if number:
            printer.break_()
        printer.text(line)


def _shown(item: object) -> str:
    if not isinstance(item, tuple):
        return repr(item)
    shown = [_shown(member) for member in item]
    line = f"[{', '.join(shown)}]"
    if "\n" not in line and len(line) <= _LINE:
        return line
    return f"[{','.join(_indented(member) for member in shown)},\n]"


def _indented(text: str) -> str:
    return "\n    " + text.replace("\n", "\n    ")


_LINE: Final = 72


# Steps.


def _as_steps(steps: Iterable[Step]) -> tuple[Step, ...]:
    return tuple(steps)


def _as_nodes(nodes: Iterable[Node]) -> tuple[Node, ...]:
    return tuple(nodes)


@attrs.frozen(repr=False)
class Emit:
    """Emit an event with a text of its own. ``delta`` is written via the event's actions."""

    delta: Mapping[str, Any] = attrs.field(default=cast("Mapping[str, Any]", {}))
    escalate: bool = False
    partial: bool = False
    output: Any = None
    label: str = attrs.field(default="", repr=False, eq=False)
    lane: str = attrs.field(default="", repr=False, eq=False)
    __repr__ = as_code
    _repr_pretty_ = printed


@attrs.frozen(repr=False)
class Write:
    """Write to ``ctx.state``."""

    key: str
    value: Any
    __repr__ = as_code
    _repr_pretty_ = printed


@attrs.frozen(repr=False)
class Contribute:
    """Contribute to a key with a reducer."""

    key: str
    value: Any
    __repr__ = as_code
    _repr_pretty_ = printed


@attrs.frozen(repr=False)
class Pause:
    """Let virtual time pass."""

    beats: int = 0
    lane: str = attrs.field(default="", repr=False, eq=False)
    __repr__ = as_code
    _repr_pretty_ = printed


@attrs.frozen(repr=False)
class Fail:
    """Raise a `ScriptedError` that names this step."""

    label: str = attrs.field(default="", repr=False, eq=False)
    __repr__ = as_code
    _repr_pretty_ = printed


@attrs.frozen(repr=False)
class Look:
    """Note down what history and state show."""

    __repr__ = as_code
    _repr_pretty_ = printed


@attrs.frozen(repr=False)
class Within:
    """Do ``steps`` under a timeout that expires silently."""

    beats: int
    steps: tuple[Step, ...] = attrs.field(converter=_as_steps)
    lane: str = attrs.field(default="", repr=False, eq=False)
    __repr__ = as_code
    _repr_pretty_ = printed


@attrs.frozen(repr=False)
class Cleanup:
    """Do ``steps``, then ``after`` whatever happened; ``shielded`` or not."""

    steps: tuple[Step, ...] = attrs.field(converter=_as_steps)
    after: tuple[Step, ...] = attrs.field(converter=_as_steps)
    shielded: bool = False
    __repr__ = as_code
    _repr_pretty_ = printed


@attrs.frozen(repr=False)
class Beside:
    """Do ``steps`` while a task in a nursery of the agent's own does ``background``."""

    background: tuple[Step, ...] = attrs.field(converter=_as_steps)
    steps: tuple[Step, ...] = attrs.field(converter=_as_steps)
    label: str = attrs.field(default="", repr=False, eq=False)
    __repr__ = as_code
    _repr_pretty_ = printed


Step: TypeAlias = Emit | Write | Contribute | Pause | Fail | Look | Within | Cleanup | Beside
Shape: TypeAlias = Literal["generator", "coroutine", "generator class", "coroutine class"]


def steps_of(steps: Iterable[Step]) -> Iterator[Step]:
    """Go through ``steps`` and everything inside them."""
    for step in steps:
        yield step
        match step:
            case Within(steps=inner):
                yield from steps_of(inner)
            case Cleanup(steps=inner, after=after):
                yield from steps_of((*inner, *after))
            case Beside(background=background, steps=inner):
                yield from steps_of((*background, *inner))
            case _:
                pass


# Trees.


@attrs.frozen(repr=False)
class Leaf:
    """An agent that does ``steps``. Its steps are numbered when it is made: ``a.1``, ``a.2``..."""

    name: str
    steps: tuple[Step, ...] = attrs.field(converter=_as_steps)
    shape: Shape = "generator"
    output_key: str | None = None
    __repr__ = as_code
    _repr_pretty_ = printed

    def __attrs_post_init__(self) -> None:
        """Number the steps."""
        object.__setattr__(self, "steps", _Numbering(self.name).number(self.steps, self.name))


@attrs.frozen(repr=False)
class Chain:
    """A SequentialAgent."""

    name: str
    children: tuple[Node, ...] = attrs.field(converter=_as_nodes)
    __repr__ = as_code
    _repr_pretty_ = printed


@attrs.frozen(repr=False)
class Fan:
    """A ParallelAgent."""

    name: str
    children: tuple[Node, ...] = attrs.field(converter=_as_nodes)
    __repr__ = as_code
    _repr_pretty_ = printed


@attrs.frozen(repr=False)
class Loop:
    """A LoopAgent."""

    name: str
    children: tuple[Node, ...] = attrs.field(converter=_as_nodes)
    iterations: int = 2
    __repr__ = as_code
    _repr_pretty_ = printed


Node: TypeAlias = Leaf | Chain | Fan | Loop


def nodes_of(tree: Node) -> Iterator[Node]:
    """Go through a tree, parents first."""
    yield tree
    if not isinstance(tree, Leaf):
        for child in tree.children:
            yield from nodes_of(child)


def leaves_of(tree: Node) -> list[Leaf]:
    """Return the leaves of a tree, in declaration order."""
    return [node for node in nodes_of(tree) if isinstance(node, Leaf)]


def lanes_of(tree: Node) -> list[str]:
    """Return the names under which tasks and timeouts of the tree keep time."""
    lanes: dict[str, None] = {}
    for leaf in leaves_of(tree):
        lanes[leaf.name] = None
        for step in steps_of(leaf.steps):
            if isinstance(step, Pause | Within):
                lanes[step.lane] = None
    return list(lanes)


class _Numbering:
    """Gives every step that needs one a name of its own, in the order of the code."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0

    def _next(self) -> str:
        self._count += 1
        return f"{self._name}.{self._count}"

    def number(self, steps: Iterable[Step], lane: str) -> tuple[Step, ...]:
        return tuple(self._numbered(step, lane) for step in steps)

    def _numbered(self, step: Step, lane: str) -> Step:
        match step:
            case Emit():
                return attrs.evolve(step, label=self._next(), lane=lane)
            case Fail():
                return attrs.evolve(step, label=self._next())
            case Pause():
                return attrs.evolve(step, lane=lane)
            case Within(steps=inner):
                timer = f"{self._next()}/timeout"
                return attrs.evolve(step, lane=timer, steps=self.number(inner, lane))
            case Cleanup(steps=inner, after=after):
                numbered = self.number(inner, lane)
                return attrs.evolve(step, steps=numbered, after=self.number(after, lane))
            case Beside(background=background, steps=inner):
                label = self._next()
                return attrs.evolve(
                    step,
                    label=label,
                    background=self.number(background, f"{label}/background"),
                    steps=self.number(inner, lane),
                )
            case Write() | Contribute() | Look():
                return step
            case _:
                assert_never(step)


# From a leaf to code.


def source_of(leaf: Leaf) -> str:
    """Return the function that `build` makes an agent of."""
    method = leaf.shape.endswith("class")
    writer = _Source("yield" if leaf.shape.startswith("generator") else "await")
    writer.line(f"async def {leaf.name}({'self, ' if method else ''}ctx):")
    with writer:
        writer.line("with watch.running(ctx):")
        with writer:
            writer.block(leaf.steps)
        if leaf.shape.startswith("generator"):
            writer.line("if False: yield  # a generator, whatever the steps are")
    return writer.text


class _Source:
    """Writes code, indented."""

    def __init__(self, way: Literal["yield", "await"]) -> None:
        self._lines: list[str] = []
        self._depth = 0
        self._way = way

    @property
    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *_details: object) -> None:
        self._depth -= 1

    def line(self, text: str) -> None:
        self._lines.append("    " * self._depth + text)

    def block(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self._step(step)
        if not steps:
            self.line("pass")

    def _step(self, step: Step) -> None:
        match step:
            case Emit(delta=delta, escalate=escalate, partial=partial, output=output, label=label):
                options = {
                    "delta": delta or None,
                    "escalate": escalate or None,
                    "partial": partial or None,
                    "output": output,
                }
                said = "".join(
                    f", {key}={value!r}" for key, value in options.items() if value is not None
                )
                self.line(f"with watch.emitting(ctx, {label!r}{said}) as event:")
                with self:
                    self.line("yield event" if self._way == "yield" else "await ctx.emit(event)")
            case Write(key=key, value=value):
                self.line(f"watch.writes(ctx, {key!r}, {value!r})")
            case Contribute(key=key, value=value):
                self.line(f"watch.contributes(ctx, {key!r}, {value!r})")
            case Pause(beats=beats, lane=lane):
                self.line(f"await timing.pause({lane!r}, {beats})")
            case Fail(label=label):
                self.line(f"raise ScriptedError({label!r})")
            case Look():
                self.line("watch.looks(ctx)")
            case Within(beats=beats, steps=steps, lane=lane):
                self.line(f"with timing.within({lane!r}, {beats}):")
                with self:
                    self.block(steps)
            case Cleanup(steps=steps, after=after, shielded=shielded):
                self._cleanup(steps, after, shielded=shielded)
            case Beside(background=background, steps=steps, label=label):
                self._beside(background, steps, label.replace(".", "_"))
            case _:
                assert_never(step)

    def _cleanup(self, steps: Sequence[Step], after: Sequence[Step], *, shielded: bool) -> None:
        self.line("try:")
        with self:
            self.block(steps)
        self.line("finally:")
        with self:
            if not shielded:
                self.block(after)
                return
            self.line("with trio.CancelScope(shield=True):")
            with self:
                self.block(after)

    def _beside(self, background: Sequence[Step], steps: Sequence[Step], name: str) -> None:
        way, self._way = self._way, "await"
        self.line(f"async def beside_{name}():")
        with self:
            self.block(background)
        self._way = way
        self.line(f"async with trio.open_nursery() as nursery_{name}:")
        with self:
            self.line(f"nursery_{name}.start_soon(beside_{name})")
            self.block(steps)


def build(tree: Node, watch: Recorder, timing: Timing) -> Agent:
    """Make the agents of a tree. What they do is noted by ``watch`` and timed by ``timing``."""
    if isinstance(tree, Leaf):
        return _build_leaf(tree, watch, timing)
    children = [build(child, watch, timing) for child in tree.children]
    match tree:
        case Chain(name=name):
            return SequentialAgent(name, children)
        case Fan(name=name):
            return ParallelAgent(name, children)
        case Loop(name=name, iterations=iterations):
            return LoopAgent(name, children, max_iterations=iterations)
        case _:
            assert_never(tree)


def _build_leaf(leaf: Leaf, watch: Recorder, timing: Timing) -> Agent:
    names: dict[str, Any] = {
        "ScriptedError": ScriptedError,
        "timing": timing,
        "trio": trio,
        "watch": watch,
    }
    exec(_compiled(source_of(leaf), f"<leaf {leaf.name}>"), names)  # noqa: S102  # our own code
    function = names[leaf.name]
    if not leaf.shape.endswith("class"):
        return agent(function, name=leaf.name, output_key=leaf.output_key)
    scripted = cast("type[Agent]", type("Scripted", (Agent,), {"run": function}))
    return scripted(leaf.name, output_key=leaf.output_key)


@functools.lru_cache(1000)
def _compiled(source: str, name: str) -> CodeType:
    return compile(source, name, "exec")
