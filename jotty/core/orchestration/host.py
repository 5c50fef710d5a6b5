"""The one seam for a task that outlives the call which starts it, and still has an owner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from anyio.lowlevel import current_token

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context

__all__ = ["start_task"]


def start_task(work: Callable[[], Coroutine[Any, Any, None]], context: Context) -> object:
    """Start a task of no task group on the running event loop; keep what is returned while it runs.

    The work must raise nothing but its cancellation.
    """
    native: Any = current_token().native_token
    if hasattr(native, "create_task"):
        return native.create_task(work(), context=context)
    import trio

    return trio.lowlevel.spawn_system_task(work, context=context)
