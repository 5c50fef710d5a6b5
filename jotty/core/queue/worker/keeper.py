"""What a worker does beside its event loop: renewing leases above all, so that a blocked one loses none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread

from jotty.core.queue.backend import QueueBackend
from jotty.core.queue.clock import Clock, SystemClock, microseconds
from jotty.core.queue.loop import EventLoop
from jotty.core.queue.task import check_seconds
from jotty.errors import QueueClosed, SchemaError, StorageError, StoreCorrupt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jotty.core.queue.backend import Record

    from .outage import Outage

__all__ = ["Duty", "LeaseKeeper", "Store", "heartbeat_of"]

HEARTBEATS_PER_LEASE: Final = 3

Store = Callable[[], Awaitable[QueueBackend]]
Duty = Callable[[Store, Clock], Coroutine[Any, Any, None]]


def heartbeat_of(lease_timeout: float, heartbeat: float | None) -> float:
    """Return the seconds between two renewals: what was asked for, or else a third of the lease.

    Raises:
        ValueError: One is no number of seconds above zero, or a lease has no room for three heartbeats.
    """
    check_seconds("lease_timeout", lease_timeout, above_zero=True)
    if heartbeat is None:
        return lease_timeout / HEARTBEATS_PER_LEASE
    check_seconds("heartbeat", heartbeat, above_zero=True)
    if microseconds(lease_timeout) + 1 < HEARTBEATS_PER_LEASE * microseconds(heartbeat):
        raise ValueError(
            f"lease_timeout={lease_timeout:g} s is under three heartbeats of {heartbeat:g} s, so that one "
            f"late renewal could lose the lease. Make it {HEARTBEATS_PER_LEASE * heartbeat:g} s or more, or "
            f"the heartbeat {lease_timeout / HEARTBEATS_PER_LEASE:g} s or less."
        )
    return heartbeat


class LeaseKeeper:
    """Renews the leases it is told to hold, with every heartbeat, until it is stopped.

    It works in a thread, with its own event loop and its own handle on the store; under a virtual clock it
    works in the caller's loop, so that a simulation is deterministic. What it learns is told in that loop.

    Args:
        backend: The store; a clone of it is used.
        clock: Which kind of time this is.
        lease_timeout: Seconds by which a lease is renewed.
        heartbeat: Seconds between two renewals.
        outage: Told when a renewal fails.
        on_lost: Called with a task's id and lease when it is no longer held.
        on_cancel: Called with a task's id when its cancel was requested.

    Attributes:
        held: The leases that are renewed, by task.
        is_ready: Set once it works, or has failed to; nothing that may block the loop should run before.
    """

    def __init__(
        self,
        backend: QueueBackend,
        clock: Clock,
        *,
        lease_timeout: float,
        heartbeat: float,
        outage: Outage,
        on_lost: Callable[[str, int], object],
        on_cancel: Callable[[str], object],
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._lease_us = microseconds(lease_timeout)
        self._heartbeat = heartbeat
        self._outage = outage
        self._on_lost = on_lost
        self._on_cancel = on_cancel
        self._scope: anyio.CancelScope | None = None
        self._loop: EventLoop | None = None
        self._is_stopped = False
        self._failure: Exception | None = None
        self.held: dict[str, int] = {}
        self.is_ready = anyio.Event()
        self._has_work = anyio.Event()

    def hold(self, task_id: str, lease: int) -> None:
        """Renew this lease from now on."""
        self.held[task_id] = lease
        if self._clock.is_virtual:
            self._has_work.set()

    def drop(self, task_id: str, lease: int) -> None:
        """Let this lease go its own way; nothing happens if another one is held by now."""
        if self.held.get(task_id) == lease:
            self.held.pop(task_id, None)  # a rescue may have been faster

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Have its loop, where the duties are done, call this soon; from any thread."""
        if (loop := self._loop) is not None:
            loop.call_soon(callback)

    def stop(self) -> None:
        """End `run` soon; from the loop that runs it."""
        self._is_stopped = True
        if self._loop is not None and self._scope is not None:
            # else, whoever makes the scope looks at the flag afterwards
            self._loop.call_soon(self._scope.cancel)

    async def run(self, duties: Sequence[Duty] = ()) -> None:
        """Renew until stopped. Cancelling it does not end the thread: `stop` must follow.

        Args:
            duties: What else is to be done there, with the same handle, until it is cancelled; they raise
                nothing.

        Raises:
            SchemaError, StoreCorrupt: The store is not what it was.
        """
        self._owner = EventLoop()
        try:
            if self._clock.is_virtual:
                self.is_ready.set()
                await self._work(_opened(self._backend), self._clock, duties)
            else:
                with anyio.CancelScope(shield=True):
                    limiter = anyio.CapacityLimiter(1)
                    await anyio.to_thread.run_sync(anyio.run, self._work_in_thread, duties, limiter=limiter)
        finally:
            self.is_ready.set()
        if self._failure is not None:
            raise self._failure

    async def _work_in_thread(self, duties: Sequence[Duty]) -> None:
        clone = self._backend.clone()
        self._owner.call_soon(self.is_ready.set)
        try:
            await self._work(_opened(clone), SystemClock(), duties)
        finally:
            with anyio.CancelScope(shield=True):
                await clone.aclose()

    async def _work(self, store: Store, clock: Clock, duties: Sequence[Duty]) -> None:
        self._loop = EventLoop()
        async with anyio.create_task_group() as group:
            self._scope = group.cancel_scope
            if self._is_stopped:
                self._scope.cancel()
            for duty in duties:
                group.start_soon(duty, store, clock)
            await self._renew(store, clock)
            self._scope.cancel()

    async def _renew(self, store: Store, clock: Clock) -> None:
        pause = self._heartbeat
        while True:
            await clock.sleep(pause)
            leases = list(self.held.items())
            pause = self._heartbeat
            if not leases:
                await self._idle(clock)
                continue
            try:
                records = await (await store()).extend(leases, self._lease_us)
            except QueueClosed:
                return
            except (SchemaError, StoreCorrupt) as damage:
                self._failure = damage  # raised by run(), where no task group wraps it
                return
            except StorageError as failure:
                pause = self._outage.failed(failure, longest=min(self._heartbeat / 4, 1.0))
                continue
            self._outage.over()
            self._owner.call_soon(self._tell, leases, records)

    async def _idle(self, clock: Clock) -> None:
        """Under a virtual clock, wait for a lease to be held; a thread just looks at each heartbeat."""
        if clock.is_virtual:
            self._has_work = anyio.Event()
            with clock.timeout(clock.every(0.0)):
                await self._has_work.wait()

    def _tell(self, leases: list[tuple[str, int]], records: list[Record | None]) -> None:
        for (task_id, lease), record in zip(leases, records, strict=True):
            if self.held.get(task_id) != lease:
                continue  # settled meanwhile
            if record is None:
                self._on_lost(task_id, lease)
            elif record.head.cancel_requested:
                self._on_cancel(task_id)


def _opened(backend: QueueBackend) -> Store:
    """Return what gives the store, opened at the first use that succeeds."""
    opening = anyio.Lock()
    is_open = False

    async def store() -> QueueBackend:
        nonlocal is_open
        if not is_open:
            async with opening:
                if not is_open:
                    await backend.open()
                    is_open = True
        return backend

    return store
