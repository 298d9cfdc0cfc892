"""What the leaves of a drawn tree did and saw, in one order with what the reader did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import attrs

from parallel_agent import Event, EventActions, InvocationContext

__all__ = ["Called", "Delivered", "Entry", "Looked", "Recorder", "Returned", "Settled", "Wrote"]


@attrs.frozen(eq=False)
class Called:
    """A leaf emits ``event``."""

    path: str
    branch: str | None
    label: str
    event: Event
    delta: Mapping[str, Any]


@attrs.frozen(eq=False)
class Settled:
    """That emit is over; ``error`` is the class of what it raised."""

    call: Called
    error: type[BaseException] | None


@attrs.frozen(eq=False)
class Wrote:
    """A leaf has written, or contributed, to state."""

    path: str
    branch: str | None
    key: str
    value: Any
    contributed: bool = False


@attrs.frozen(eq=False)
class Looked:
    """A leaf has looked at history and state."""

    path: str
    branch: str | None
    seqs: tuple[int, ...]
    state: Mapping[str, Any]


@attrs.frozen(eq=False)
class Began:
    """A leaf's code begins."""

    path: str
    branch: str | None


@attrs.frozen(eq=False)
class Ended:
    """A leaf's code has ended; ``error`` is the class of what it raised."""

    path: str
    error: type[BaseException] | None


@attrs.frozen(eq=False)
class Delivered:
    """The reader has got ``event``."""

    event: Event


@attrs.frozen(eq=False)
class Returned:
    """The reader comes back for the next event, or leaves."""

    leaving: bool = False


Entry: TypeAlias = Called | Settled | Wrote | Looked | Began | Ended | Delivered | Returned


class Recorder:
    """The notebook of one run. ``entries`` are in the order in which things happened."""

    def __init__(self) -> None:
        """Start with an empty notebook."""
        self.entries: list[Entry] = []

    @property
    def calls(self) -> list[Called]:
        """Every emit, in call order."""
        return [entry for entry in self.entries if isinstance(entry, Called)]

    # Called by the code of the leaves.

    @contextmanager
    def running(self, ctx: InvocationContext) -> Iterator[None]:
        """Note begin and end of a leaf's code."""
        self.entries.append(Began(ctx.path, ctx.branch))
        try:
            yield
        except BaseException as error:
            self.entries.append(Ended(ctx.path, type(error)))
            raise
        self.entries.append(Ended(ctx.path, None))

    @contextmanager
    def emitting(
        self,
        ctx: InvocationContext,
        label: str,
        *,
        delta: Mapping[str, Any] | None = None,
        escalate: bool = False,
        partial: bool = False,
        output: Any = None,
    ) -> Iterator[Event]:
        """Note that the event, made here, is emitted inside this block, and how that ends."""
        actions = None
        if delta or escalate:
            actions = EventActions(state_delta=dict(delta or {}), escalate=escalate)
        event = Event(label, actions=actions, partial=partial, output=output)
        call = Called(ctx.path, ctx.branch, label, event, delta or {})
        self.entries.append(call)
        try:
            yield event
        except BaseException as error:
            self.entries.append(Settled(call, type(error)))
            raise
        self.entries.append(Settled(call, None))

    def writes(self, ctx: InvocationContext, key: str, value: Any) -> None:
        """Write to state, and note it."""
        ctx.state[key] = value
        self.entries.append(Wrote(ctx.path, ctx.branch, key, value))

    def contributes(self, ctx: InvocationContext, key: str, value: Any) -> None:
        """Contribute to state, and note it."""
        ctx.state.contribute(key, value)
        self.entries.append(Wrote(ctx.path, ctx.branch, key, value, contributed=True))

    def looks(self, ctx: InvocationContext) -> None:
        """Note what history and state show."""
        seqs = tuple(event.seq or 0 for event in ctx.history())
        self.entries.append(Looked(ctx.path, ctx.branch, seqs, ctx.state.to_dict()))
