"""Running a goal through another library's orchestrator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from .events import Event
    from .result import Result

__all__ = ["relayed"]

LAST_WORDS: Final = 5.0  # seconds that a stream may take to close once its run is over or cancelled


async def relayed(stream: AsyncIterator[Event], tell: Callable[[Event], None]) -> Result:
    """Pass on the events of a stream, and return the result that its `workflow_complete` carries.

    Raises:
        RuntimeError: The stream ended without that event.
    """
    result: Result | None = None
    try:
        async for event in stream:
            tell(event)
            if event["type"] == "workflow_complete":
                result = event["result"]
    finally:
        close: Any = getattr(stream, "aclose", None)
        if close is not None:
            with anyio.move_on_after(LAST_WORDS, shield=True):
                await close()
    if result is None:
        raise RuntimeError("The orchestrator's stream ended without an event 'workflow_complete'.")
    return result
