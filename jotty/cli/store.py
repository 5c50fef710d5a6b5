"""The queue that a command works on."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import anyio

from jotty.core.queue import QueueBackend, load_backend, open_queue
from jotty.errors import StorageError

from .failing import UsageError, called_rightly
from .logs import logged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from jotty.core.queue import TaskQueue

__all__ = ["PATIENCE", "answering", "opened", "queue_at", "tells_workers"]

PATIENCE: Final = 30.0  # seconds for a store to answer; a command never waits for ever


@asynccontextmanager
async def opened(url: str | None, *, creates: bool = False) -> AsyncIterator[TaskQueue]:
    """Open the queue at this URL, and close it at the end.

    Args:
        url: Where it is.
        creates: Whether to make a store where there is none, if the backend leaves the choice.

    Raises:
        UsageError: There is no URL, it is wrong, or it is that of a queue which only one process can see.
        StorageError: The store can't be opened, or does not answer.
    """
    queue = queue_at(url, creates=creates)
    with logged(logging.WARNING):  # of what is damaged, say
        try:
            with answering(queue.url):
                await queue.__aenter__()
            yield queue
        finally:
            with anyio.move_on_after(PATIENCE, shield=True):
                await queue.aclose()


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Bound what is done with a store in time.

    Raises:
        StorageError: It took longer.
    """
    with anyio.move_on_after(PATIENCE) as scope:
        yield
    if scope.cancelled_caught:
        raise StorageError(url, f"it does not answer within {PATIENCE:g} s.")


def tells_workers(queue: TaskQueue) -> bool:
    """Whether a queue's store knows who works on it."""
    return type(queue.backend).announce is not QueueBackend.announce


def queue_at(url: str | None, *, creates: bool) -> TaskQueue:
    """Return the queue at this URL, not opened yet; the arguments and errors are those of `opened`."""
    if not url:
        raise UsageError("Which queue? Pass --queue URL, like sqlite:///tasks.db, or set JOTTY_QUEUE.")
    if url.partition(":")[0] == "memory":
        raise UsageError(
            f"{url!r} is a queue in the memory of one process, so no other command could see its tasks. "
            "Use one that is kept, like sqlite:///tasks.db."
        )
    with called_rightly():
        return open_queue(url if creates else _existing(url))


def _existing(url: str) -> str:
    """Return the URL with the wish not to create a store, where its backend has that option."""
    scheme, colon, rest = url.partition(":")
    if not colon or "create" not in load_backend(scheme).options:
        return url
    return f"{url}{'&' if '?' in rest else '?'}create=0"
