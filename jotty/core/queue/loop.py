"""The one seam to the running event loop that anyio has no call for: handing it work from another thread."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EventLoop"]


class EventLoop:
    """The event loop that was running when this was made.

    Made on an event loop; `call_soon` may then be called from any thread.
    """

    __slots__ = ("_call", "native")

    def __init__(self) -> None:
        self.native: Any = current_token().native_token
        # asyncio's loop and trio's token name the same thing differently
        name = "call_soon_threadsafe" if hasattr(self.native, "call_soon_threadsafe") else "run_sync_soon"
        self._call: Callable[..., object] = getattr(self.native, name)

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        """Have the loop call this soon, without waiting for it; nothing happens if the loop has ended."""
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._call(callback, *args)
