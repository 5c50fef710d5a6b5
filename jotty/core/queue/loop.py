"""The one seam to the running event loop that anyio has no call for: handing it work from another thread."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Awaitable, Callable

__all__ = ["EventLoop", "Signal"]


class Signal(Protocol):
    """What one task waits for, until it is set, once and for all; both on one event loop."""

    def is_set(self) -> bool:
        """Whether it was set."""
        ...

    def set(self) -> object:
        """Have the task that waits go on."""
        ...

    def wait(self) -> Awaitable[object]:
        """Return once it is set; at once, and then without a checkpoint, if it is."""
        ...


class EventLoop:
    """The event loop that was running when this was made.

    Made on an event loop; `call_soon` may then be called from any thread.
    """

    __slots__ = ("_is_asyncio", "_running", "native")

    def __init__(self) -> None:
        self.native: Any = current_token().native_token
        # asyncio's loop and trio's token name the same thing differently
        self._is_asyncio = hasattr(self.native, "call_soon_threadsafe")
        self._running = import_module("asyncio").get_running_loop if self._is_asyncio else None

    def is_running(self) -> bool:
        """Whether this is certainly the loop that runs here; False where that would take long to tell."""
        try:
            return self._running is not None and self._running() is self.native
        except RuntimeError:  # no loop of asyncio's is
            return False

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        """Have the loop call this soon, without waiting for it; nothing happens if the loop has ended."""
        call = self.native.call_soon_threadsafe if self._is_asyncio else self.native.run_sync_soon
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            call(callback, *args)

    def after_this_round(self, callback: Callable[[], object]) -> None:
        """Call this when the tasks that are ready now have run; on the loop itself."""
        if self._is_asyncio:
            self.native.call_soon(callback)
        else:
            self.native.run_sync_soon(callback)

    def signal(self) -> Signal:
        """Return what a task on this loop may wait for."""
        return _FutureSignal(self.native) if self._is_asyncio else anyio.Event()


class _FutureSignal:
    """A signal for asyncio, far cheaper than an event of anyio's: each call to a store waits for one."""

    __slots__ = ("_future", "_is_set", "_loop")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._is_set = False
        self._future: Future[None] | None = None

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def wait(self) -> Awaitable[None]:
        if self._is_set:
            return _nothing()
        self._future = self._loop.create_future()  # a new one each time: a cancelled wait ends the last
        return self._future


async def _nothing() -> None:
    pass
