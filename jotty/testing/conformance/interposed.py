"""A backend before another, that does something just before or after a call of it: for races, on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from jotty.testing.proxy import BackendProxy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jotty.core.queue import Query, QueueBackend, Record

__all__ = ["InterposedBackend"]

T = TypeVar("T")


class InterposedBackend(BackendProxy):
    """Passes every call on, and lets something happen around it.

    Args:
        inner: The backend that does the work.

    Attributes:
        before: By a method's name, what to await before each call of it.
        after: The same, after the call.
    """

    scheme = "interposed"

    def __init__(self, inner: QueueBackend) -> None:
        super().__init__(inner)
        self.before: dict[str, Callable[[], Awaitable[object]]] = {}
        self.after: dict[str, Callable[[], Awaitable[object]]] = {}

    async def find(self, query: Query) -> list[Record]:
        """Pass it on; what finds by the time of the end goes by the name `find_finished`."""
        name = "find" if query.finished_before is None else "find_finished"
        return await self.around(name, lambda: self.inner.find(query))

    async def around(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make the call, and let happen what is to, before and after."""
        if before := self.before.get(name):
            await before()
        value = await call()
        if after := self.after.get(name):
            await after()
        return value
