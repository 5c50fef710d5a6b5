"""Renewing leases from a thread of its own, so that a blocked event loop does not lose them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from jotty.errors import QueueClosed, SchemaError, StorageError, StoreCorrupt

from .clock import microseconds
from .loop import EventLoop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .backend import QueueBackend, Record
    from .clock import Clock

__all__ = ["LeaseKeeper"]

logger = logging.getLogger("jotty.queue")

HEARTBEATS_PER_LEASE: Final = 3


class LeaseKeeper:
    """Renews the leases it is told to hold, three times in the length of a lease, until it is stopped.

    It works in a thread, with its own event loop and its own handle on the store; under a virtual clock it
    works in the caller's loop, so that a simulation is deterministic. What it learns is told in that loop.

    Args:
        backend: The store; a clone of it is used.
        clock: Which kind of time this is.
        lease_timeout: Seconds by which a lease is renewed.
        on_lost: Called with a task's id and lease when it is no longer held.
        on_cancel: Called with a task's id when its cancel was requested.

    Attributes:
        is_ready: Set once it works, or has failed to; nothing that may block the loop should run before.
    """

    def __init__(
        self,
        backend: QueueBackend,
        clock: Clock,
        *,
        lease_timeout: float,
        on_lost: Callable[[str, int], object],
        on_cancel: Callable[[str], object],
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._lease_us = microseconds(lease_timeout)
        self._interval = lease_timeout / HEARTBEATS_PER_LEASE
        self._on_lost = on_lost
        self._on_cancel = on_cancel
        self._held: dict[str, int] = {}
        self._scope: anyio.CancelScope | None = None
        self._thread_loop: EventLoop | None = None
        self._is_stopped = False
        self.is_ready = anyio.Event()

    def hold(self, task_id: str, lease: int) -> None:
        """Renew this lease from now on."""
        self._held[task_id] = lease

    def drop(self, task_id: str, lease: int) -> None:
        """Let this lease go its own way; nothing happens if another one is held by now."""
        if self._held.get(task_id) == lease:
            del self._held[task_id]

    def stop(self) -> None:
        """End `run` soon; from the loop that runs it."""
        self._is_stopped = True
        if self._scope is None:
            return  # whoever makes the scope looks at the flag afterwards
        if self._thread_loop is None:
            self._scope.cancel()
        else:
            self._thread_loop.call_soon(self._scope.cancel)

    async def run(self) -> None:
        """Renew until stopped. Cancelling it does not end the thread: `stop` must follow."""
        self._owner = EventLoop()
        try:
            if self._clock.is_virtual:
                self.is_ready.set()
                with anyio.CancelScope() as self._scope:
                    if not self._is_stopped:
                        await self._renew(self._backend, self._clock.sleep)
                return
            with anyio.CancelScope(shield=True):
                limiter = anyio.CapacityLimiter(1)
                await anyio.to_thread.run_sync(anyio.run, self._run_in_thread, limiter=limiter)
        finally:
            self.is_ready.set()

    async def _run_in_thread(self) -> None:
        clone = self._backend.clone()
        self._thread_loop = EventLoop()
        self._owner.call_soon(self.is_ready.set)
        with anyio.CancelScope() as self._scope:
            if self._is_stopped:
                return
            try:
                await self._renew(clone, anyio.sleep)
            finally:
                with anyio.CancelScope(shield=True):
                    await clone.aclose()

    async def _renew(self, backend: QueueBackend, sleep: Callable[[float], Awaitable[None]]) -> None:
        is_open = False
        pause = self._interval
        while True:
            await sleep(pause)
            leases = list(self._held.items())
            pause = self._interval
            if not leases:
                continue
            try:
                if not is_open:
                    await backend.open()
                    is_open = True
                records = await backend.extend(leases, self._lease_us)
            except QueueClosed:
                return
            except (SchemaError, StoreCorrupt):
                raise
            except StorageError as failure:
                pause = min(self._interval / 4, 1.0)
                logger.warning("Could not renew %d leases, trying again: %s", len(leases), failure)
                continue
            self._owner.call_soon(self._tell, leases, records)

    def _tell(self, leases: list[tuple[str, int]], records: list[Record | None]) -> None:
        for (task_id, lease), record in zip(leases, records, strict=True):
            if self._held.get(task_id) != lease:
                continue  # settled meanwhile
            if record is None:
                self._on_lost(task_id, lease)
            elif record.head.cancel_requested:
                self._on_cancel(task_id)
