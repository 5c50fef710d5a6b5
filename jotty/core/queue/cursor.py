"""Reading page by page, so that a reader may come and go."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["Cursor"]

T = TypeVar("T")


class Cursor(Generic[T]):
    """An async iterator over what a function fetches.

    Unlike an async generator it survives a cancelled `__anext__` (the next one goes on from there), and may
    be left at any time without being closed.

    Args:
        fetch: Returns the next items, at least one, or None at the end; a cancelled call must lose none.
    """

    def __init__(self, fetch: Callable[[], Awaitable[Sequence[T] | None]]) -> None:
        self._fetch = fetch
        self._items: deque[T] = deque()
        self._is_over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Return the next item, waiting for it if need be.

        Raises:
            StopAsyncIteration: There are no more.
        """
        while not self._items:
            page = None if self._is_over else await self._fetch()
            if page is None:
                self._is_over = True
                raise StopAsyncIteration
            self._items.extend(page)
        return self._items.popleft()

    async def aclose(self) -> None:
        """End the iteration; nothing is held that would have to be given back."""
        self._is_over = True
        self._items.clear()
        await checkpoint()
