"""The one channel: many branches emit, one reader reads.

Everything a run emits, at any depth, goes through one trio memory channel to one reader. An
event's life: it is *queued* (its emitter parked, the event can still be withdrawn), *drained*
(it will be recorded and, if the reader stays, delivered), *handed out* (state and history change
now, and at no other moment), and *acknowledged* when the reader comes back.

Order: call order per branch; between branches, the order in which the reader drained. The log
has the same order, because the reader is the one who appends.

Cancellation: cancelling an emitter withdraws its event if it is queued, and else leaves it to be
recorded (``event.seq`` says which it was). A cancelled reader loses nothing and may read on.

Errors: when the store fails, the stream closes: the tree is cancelled and joined, the reader
gets the store's error once, emitters get `StreamClosedError`.

Blocking: an emitter parks once per event; the reader parks once per batch.

Everything that touches queue, acknowledgement or rescheduling is protected from
KeyboardInterrupt: an interrupt between taking an event and waking its emitter would lose both.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol, cast

import trio
from trio.lowlevel import ParkingLot, checkpoint_if_cancelled, enable_ki_protection

from parallel_agent.errors import ReadError, StreamClosedError
from parallel_agent.lane import DRAINED, HANDED_OUT, QUEUED, Emitter, Slot
from session.event import Event, stamp_timestamp
from session.lease import Lease
from session.service import SessionService
from session.session import Session, SessionKey

__all__ = ["Stream"]


class _Append(Protocol):
    def __call__(self, key: SessionKey, events: Sequence[Event], *, expected_seq: int) -> None: ...


Resolve = Callable[[Slot, "deque[Slot]"], "BaseException | None"]
"""Settle a slot's late writes, after the slots drained before it; or say why it is refused."""


class Stream:
    """The channel of one run, and its only reader's side.

    Args:
        session: the live session; changed here, at hand-out, and nowhere else.
        service: where events are recorded.
        clock: seconds since the epoch; read once per batch.
        stop: cancels the run's tree; called when the store fails.
        on_escalate: called at the hand-out of an escalating event, with its emitter.
        resolve: settles late writes and finds conflicts; None if the run can have neither.
        lease: the right to record.
    """

    def __init__(
        self,
        *,
        session: Session,
        service: SessionService,
        clock: Callable[[], float],
        stop: Callable[[str], None],
        on_escalate: Callable[[Emitter], None],
        resolve: Resolve,
        check_conflicts: bool,
        lease: Lease | None = None,
    ) -> None:
        """Open the stream. The reader is whoever calls `read` first."""
        self.session = session
        self.closed = False
        # The reader has left: nobody can send a message or answer a question any more.
        self.unread = False
        # Where agents wait for somebody outside.
        self.lots: set[ParkingLot] = set()
        self.ended = False
        self.failure: BaseException | None = None
        self.delivered = 0
        self._service = service
        self._append = service.append if lease is None else partial(service.append, lease=lease)
        self._append_nowait: _Append | None = None
        if not service.blocks:
            nowait = service.append_nowait
            self._append_nowait = nowait if lease is None else partial(nowait, lease=lease)
        self._clock = clock
        self._stop = stop
        self._on_escalate = on_escalate
        self._resolve = resolve
        self._check_conflicts = check_conflicts
        # What crosses the channel is the news that something is queued: one send for a round of
        # branches instead of one for each event, which made up a tenth of an event's cost.
        # Unbounded, yet bounded: an emitter waits for its acknowledgement, so there is at most
        # one event per waiting task.
        self.queue: deque[Slot | None] = deque()
        self._send, self._receive = trio.open_memory_channel[None](math.inf)
        self.announced = False
        # What is being recorded, and what can be handed out because it has been.
        self._drained: deque[Slot] = deque()
        self._batch: deque[Slot] = deque()
        self._held: Slot | None = None
        self.reading = False

    # The emitters' side: `Activation.emit` fills a slot of its lane and posts it.

    def finish(self, failure: BaseException | None) -> None:
        """Say that the tree has ended. What it emitted before that is still read first."""
        if not self.closed:
            self.failure = failure
        self.queue.append(None)
        self.announce()

    def announce(self) -> None:
        """Wake the reader: something is queued."""
        if not self.announced:
            self.announced = True
            self._send.send_nowait(None)

    # The reader's side.

    @enable_ki_protection
    async def read(self) -> Event:
        """Acknowledge the event handed out last and return the next.

        Raises:
            StopAsyncIteration: the run has ended.
            ReadError: another task is reading.
            BaseException: the run's failure, once, after everything recorded before it.
        """
        self.begin_reading()
        try:
            # Cancelled here or in `refill`, the reader loses nothing: what is drained stays.
            await checkpoint_if_cancelled()
            while True:
                event = self.next_nowait()
                if event is not None:
                    return event
                await self.refill()
        finally:
            self.reading = False

    # The same in its parts, for a reader that lives outside trio and cannot await `read`.

    def begin_reading(self) -> None:
        """Come back for the next event: acknowledge the one handed out last.

        Set ``reading`` to False when you have it.

        Raises:
            ReadError: another task is reading.
        """
        if self.reading:
            message = "two tasks are reading one run at the same time; a run has one reader"
            raise ReadError(message)
        self.reading = True
        held = self._held
        if held is not None:
            self._held = None
            held.acknowledge()

    def next_nowait(self) -> Event | None:
        """Hand out the next event; None if there is none yet, and `refill` must be awaited.

        Raises: as `read`.
        """
        batch = self._batch
        while True:
            while batch:
                slot = batch.popleft()
                event = self._hand_out(slot)
                if event is not None and slot.shown:
                    self._held = slot
                    self.delivered += 1
                    return event
                slot.acknowledge()
            if self.ended:
                break
            if not self.queue or self._append_nowait is None or self.closed:
                return None
            self._record_next(self._append_nowait)
        failure, self.failure = self.failure, None
        if failure is not None:
            raise _never_an_end(failure)
        raise StopAsyncIteration

    @property
    def is_readable(self) -> bool:
        """Whether `next_nowait` has something to hand out, or the end, or may find something."""
        return bool(
            self._batch or self.ended or (self.queue and not self.blocks and not self.closed)
        )

    @property
    def blocks(self) -> bool:
        """Whether nothing can be recorded but in `refill`."""
        return self._append_nowait is None

    def wait(self) -> Coroutine[Any, Any, None]:
        """Wait until `next_nowait` may have something to hand out; `refill` only if it must.

        So nothing is recorded for a reader that does not come back for it. Cancelled while it
        waits, it loses nothing.
        """
        return self.refill() if self.blocks or self.closed else self._wait()

    async def refill(self) -> None:
        """Wait for something to be queued, drain it, and record it.

        Returns when `next_nowait` may have something to hand out. When the store fails, it
        cancels the tree and waits for its end. Cancelled while it waits, it loses nothing.
        """
        if self.closed:
            await self._join()
            return
        await self._wait()
        if self._append_nowait is not None:
            self._record_next(self._append_nowait)
            return
        service = self._service
        if service.batches:
            # The branches woken with the first are about to emit as well: give them their turn.
            await trio.lowlevel.cancel_shielded_checkpoint()
        session = self.session
        try:
            events = self._drain(one=not service.batches)
            if events:
                # All or nothing, so never cancelled half way.
                with trio.CancelScope(shield=True):
                    await self._append(session.key, events, expected_seq=session.last_seq)
        except BaseException as exc:  # noqa: BLE001  # the reader gets it, when the tree has ended
            self.fail(exc)
            return
        self._batch, self._drained = self._drained, self._batch

    @enable_ki_protection
    async def pump(self) -> BaseException | None:
        """Record and acknowledge what still comes, undelivered, until the tree has ended.

        The caller has cancelled the tree and shields this call. Returns a KeyboardInterrupt that
        arrived meanwhile: leaving early on it would leave tasks behind.
        """
        interrupt: BaseException | None = None
        self.unread = True
        self._wake_waiting()
        while True:
            held, self._held = self._held, None
            if held is not None:
                held.acknowledge()
            while self._batch:
                slot = self._batch.popleft()
                self._hand_out(slot)
                slot.acknowledge()
            if self.ended:
                return interrupt
            try:
                if self.closed:
                    await self._wait()
                    self.close()
                else:
                    await self.refill()
            except GeneratorExit:
                raise  # the event loop has died, and this is the garbage collector: nobody waits
            except KeyboardInterrupt as exc:
                interrupt = exc
            except BaseException as exc:  # noqa: BLE001  # kept: raised when the block ends
                self.fail(exc)

    def close(self) -> None:
        """Refuse everything from here on; wake whoever still waits (foreign nurseries)."""
        self.closed = True
        waiting = [*self._batch, *self._drained]
        self._batch.clear()
        self._drained.clear()
        while self.queue:
            slot = self.queue.popleft()
            if slot is None:
                self.ended = True
            elif slot.state == QUEUED:
                waiting.append(slot)
        for slot in waiting:
            message = "the run's stream is closed: nothing can be emitted any more"
            slot.refuse(StreamClosedError(message))
        self._wake_waiting()

    def _wake_waiting(self) -> None:
        """Wake the agents that wait for somebody outside: they find out that nobody will come."""
        lots, self.lots = self.lots, set()
        for lot in lots:
            lot.unpark_all()

    def fail(self, error: BaseException) -> None:
        """End the run for an ``error`` that is not the tree's: cancel it, close the stream."""
        if not self.closed:
            self.close()
            self._stop(f"the run's stream failed: {type(error).__name__}")
        self.failure = error

    async def _wait(self) -> None:
        """Wait until something is queued, or the tree has ended. Cancelled, it loses nothing."""
        # The end may be taken by a reader outside trio, while this waits for it in its stead.
        while not self.queue and not self.ended:
            try:
                await self._receive.receive()
            finally:
                self.announced = False  # whatever happened: one announcement too many is harmless

    def _record_next(self, append: _Append) -> None:
        """Drain and record one event, in a service that never blocks.

        One at a time, right before it is handed out: so the log holds what was delivered, and
        nothing more, whenever the reader leaves.
        """
        queue = self.queue
        while queue:
            slot = queue.popleft()
            if slot is None:
                self.ended = True
                return
            if slot.state == QUEUED and self._admit(slot, self._batch):
                event = slot.event
                self._batch.append(slot)
                if event is not None:
                    try:
                        stamp_timestamp(event, self._clock())
                        if not event.partial:
                            session = self.session
                            append(session.key, (event,), expected_seq=session.last_seq)
                    except BaseException as exc:  # noqa: BLE001  # as in `refill`
                        self.fail(exc)
                return

    async def _join(self) -> None:
        """Wait, after the store failed, until the tree has ended."""
        with trio.CancelScope(shield=True):
            while not self.ended:
                await self._wait()
                self.close()

    def _drain(self, *, one: bool) -> list[Event]:
        """Drain what is queued, up to and including the first escalating event."""
        drained = self._drained
        queue = self.queue
        now = self._clock()
        events: list[Event] = []
        while queue:
            slot = queue.popleft()
            if slot is None:
                self.ended = True
                break
            if slot.state != QUEUED or not self._admit(slot, drained):
                continue
            drained.append(slot)
            event = slot.event
            if event is not None:
                stamp_timestamp(event, now)
                if not event.partial:
                    events.append(event)
                    if event.escalates:
                        # Its hand-out may end siblings, of which nothing may follow.
                        break
            if one:
                break
        return events

    def _admit(self, slot: Slot, before: deque[Slot]) -> bool:
        """Take a queued slot out of its emitter's reach, after others; or refuse it, and say no."""
        if self._check_conflicts or slot.late is not None:
            refusal = self._resolve(slot, before)
            if refusal is not None:
                slot.refuse(refusal)
                return False
        slot.state = DRAINED
        return True

    def _hand_out(self, slot: Slot) -> Event | None:
        """Make the slot's event visible. Nothing else changes state or history."""
        slot.state = HANDED_OUT
        lane = slot.lane
        if lane.flight is not None and slot in lane.flight:
            lane.flight.remove(slot)
            if not lane.flight:
                lane.flight = None
        event = slot.event
        if event is not None and not event.partial:
            session = self.session
            session.apply(event)
            temporary = slot.temporary
            if temporary is not None:
                if slot.layer is None:
                    session.state.update(temporary)
                else:
                    slot.layer.apply(temporary)
            if event.escalates:
                self._on_escalate(cast("Emitter", slot.emitter))
        return event


def _never_an_end(error: BaseException) -> BaseException:
    """Keep a failure from passing for the end of the iteration, as Python does for generators."""
    if not isinstance(error, StopAsyncIteration):
        return error
    stopped = RuntimeError("the session service raised StopAsyncIteration")
    stopped.__cause__ = error
    return stopped
