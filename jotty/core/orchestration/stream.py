"""A run that is watched while it goes on."""

from __future__ import annotations

import weakref
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

import anyio
from anyio import CancelScope, get_cancelled_exc_class
from anyio.lowlevel import checkpoint

from jotty.core.queue import EventLoop

from .host import start_task

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from .result import Result

__all__ = ["RunStream"]

E = TypeVar("E")
Work: TypeAlias = "Callable[[Callable[[E], None]], Awaitable[Result]]"


class _Host(Generic[E]):
    """The run and its own task; it does not know the stream, which may be dropped."""

    def __init__(self, work: Work[E]) -> None:
        self._work = work
        self.events: deque[E] = deque()
        self.result: Result | None = None
        self.error: BaseException | None = None
        self.news = anyio.Event()
        self.ended = anyio.Event()
        self.is_awaited = False
        self.scope = CancelScope()
        self.loop = EventLoop()

    def put(self, event: E) -> None:
        self.events.append(event)
        if self.is_awaited:
            self.news.set()

    async def run(self) -> None:
        try:
            with self.scope:
                self.result = await self._work(self.put)
        except BaseException as exc:  # kept for result(), since this task has no caller
            if isinstance(exc, (get_cancelled_exc_class(), GeneratorExit)):
                raise
            self.error = exc
        finally:
            self.ended.set()
            self.news.set()


class RunStream(Generic[E]):
    """The events of a run, as they happen: an async iterator and an async context manager.

    The run begins at the first use, in a task of its own, so that no cancel scope is open while the
    stream is between two events. Events that nobody takes are kept. Iteration ends after the last
    event and does not raise what the run raises; `result` does.

    Leaving `async with`, or `aclose()`, cancels the run and waits for its end. A stream that is
    merely dropped cancels its run when it is collected. It belongs to one event loop, and to one
    consumer.
    """

    def __init__(self, work: Work[E], answer: Callable[[str, Any], None] | None = None) -> None:
        """Prepare a stream; needs no running event loop.

        Args:
            work: The run; called with the function that takes its events.
            answer: Takes the answer to a question of the run, if it can be answered.
        """
        self._work = work
        self._answer = answer
        self._context = copy_context()
        self._host: _Host[E] | None = None
        self._is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        """Wait for the next event.

        Raises:
            StopAsyncIteration: The run is over, or the stream was closed.
            RuntimeError: Another task is waiting for it.
        """
        if self._is_closed:
            raise StopAsyncIteration
        host = self._host or self._started()
        if host.is_awaited:
            raise RuntimeError("Another task waits for the next event. A stream has one consumer.")
        if host.events:
            return host.events.popleft()
        host.is_awaited = True
        try:
            while not host.events:
                if host.ended.is_set():
                    raise StopAsyncIteration
                host.news = anyio.Event()
                await host.news.wait()
        finally:
            host.is_awaited = False
        return host.events.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel the run if it still goes on, and wait for its end; later calls do nothing."""
        self._is_closed = True
        host = self._host
        if host is None or host.ended.is_set():
            await checkpoint()
            return
        host.scope.cancel()
        # however the caller is cancelled: nothing is left running
        with CancelScope(shield=True):
            await host.ended.wait()

    def answer(self, key: str, value: Any) -> None:
        """Answer a question: the one of the `input_required` event with this key. The asking actor goes on.

        Raises:
            PayloadError: A queue could not store it, and the workflow has `check_payloads`.
            RuntimeError: The stream is closed, its run is over, or is not one that asks.
            ValueError: No question waits under this key, or this is none of its options.
        """
        host = self._host
        if self._answer is None or self._is_closed or host is None or host.ended.is_set():
            raise RuntimeError("Nothing can be answered: the stream has not begun, is over, or asks nothing.")
        self._answer(key, value)

    async def result(self) -> Result:
        """Wait for the end of the run; may be called at any time, also again, and with events untaken.

        Being cancelled here does not cancel the run.

        Raises:
            Exception: What the run raises.
            RuntimeError: The stream was closed before the run was over.
        """
        host = self._host if self._is_closed else self._started()
        if host is not None:
            await host.ended.wait()
            if host.error is not None:
                raise host.error
            if host.result is not None:
                return host.result
        raise RuntimeError(
            "The stream was closed before its run was over. Take the result before closing it."
        )

    def _started(self) -> _Host[E]:
        if self._host is None:
            self._host = _start(self, self._work, self._context)
        return self._host


def _start(stream: RunStream[E], work: Work[E], context: Any) -> _Host[E]:
    host = _Host(work)
    task = start_task(host.run, context)
    ending = weakref.finalize(stream, _abandon, host, task)
    ending.atexit = False
    return host


def _abandon(host: _Host[Any], task: object) -> None:  # noqa: ARG001  # the task must be kept until then
    host.loop.call_soon(host.scope.cancel)
