"""How an actor is driven: in a contextvars context of its own, in a thread, or chunk by chunk."""

from __future__ import annotations

import logging
import threading
from contextlib import aclosing
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

import anyio
from anyio import CapacityLimiter, get_cancelled_exc_class, to_thread

from jotty.core.queue import EventLoop, Within
from jotty.core.queue.forked import end_if_forked
from jotty.core.queue.lineage import generation
from jotty.errors import ActorError

from .outcome import End, Goto, Output

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine
    from contextvars import Context

    from jotty.core.queue import Clock

    from .context import ActorContext

__all__ = ["in_thread", "iterated", "within"]

logger = logging.getLogger(__name__)
logger.addHandler(logging.NullHandler())


async def within(context: Context, coroutine: Coroutine[Any, Any, Any], actor: str = "") -> Any:
    """Await a coroutine in a contextvars context, although the task has another.

    The task is the same, and so are its cancel scopes; only the variables differ.

    Raises:
        ActorError: The coroutine, which is this actor's, raised GeneratorExit: Python's way to close it.
    """
    try:
        suspended = context.run(coroutine.send, None)
    except StopIteration as stop:
        return stop.value
    except GeneratorExit as exc:
        raise ActorError(actor, "raised GeneratorExit") from exc
    rest = Within(context, coroutine, suspended)
    try:
        return await rest
    except GeneratorExit as exc:
        if rest.is_closed:
            raise
        raise ActorError(actor, "raised GeneratorExit") from exc


async def iterated(generator: AsyncGenerator[Any, None], ctx: ActorContext) -> Any:
    """Run a streaming actor: its strings are chunks, and their join is its output unless it yields one last.

    Raises:
        TypeError: It yields anything else, or goes on after its Output, Goto or End.
    """
    chunks: list[str] = []
    last: Output | Goto | End | None = None
    async with aclosing(generator):
        async for item in generator:
            if last is not None:
                raise TypeError(f"{ctx.agent!r} yields {item!r} after {last!r}, which must come last.")
            if isinstance(item, str):
                chunks.append(item)
                ctx.text(item)
            elif isinstance(item, (Output, Goto, End)):
                last = item
            else:
                raise TypeError(
                    f"{ctx.agent!r} yields {item!r}. Yield texts, then at most one Output, Goto or End."
                )
    return "".join(chunks) if last is None else last


class _Job:
    """A call in a thread, which either begins or is called off, never both."""

    def __init__(self, name: str, call: Callable[[], Any]) -> None:
        self._name = name
        self._call = call
        self._home = generation()
        self._turn = threading.Lock()
        self._loop = EventLoop()
        self.ended = anyio.Event()

    def run(self) -> Any:
        if not self.take():
            return None
        try:
            return self._checked(self._called())
        except GeneratorExit as exc:  # in the event loop it would close whoever waits for it
            raise ActorError(self._name, "raised GeneratorExit") from exc
        finally:
            self._loop.call_soon(self.ended.set)

    def _called(self) -> Any:
        try:
            value = self._call()
        except BaseException as exc:
            end_if_forked(self._home, exc)
            raise
        end_if_forked(self._home)
        return value

    def _checked(self, value: Any) -> Any:
        if not isawaitable(value):
            return value
        close = getattr(value, "close", None)
        if close is not None:
            close()
        raise TypeError(
            f"{self._name!r} is a plain function but returns an awaitable. Write it as an async def."
        )

    def take(self) -> bool:
        """Begin it, or keep it from beginning; false if the other was faster."""
        return self._turn.acquire(blocking=False)


async def in_thread(call: Callable[[], Any], ctx: ActorContext, *, clock: Clock, grace: float | None) -> Any:
    """Run a plain function in a thread, which sees the contextvars of the caller.

    The caller holds a token of the default thread limiter for it. If it is cancelled,
    `ctx.cancelled` is set, and after this many seconds the thread is left to itself with a warning; None
    waits for it however long it takes.
    Virtual time stands still while it works.

    Raises:
        TypeError: It returns an awaitable, so it is no plain function.
    """
    job = _Job(ctx.actor, call)
    with clock.hold():
        try:
            return await to_thread.run_sync(job.run, abandon_on_cancel=True, limiter=CapacityLimiter(1))
        except get_cancelled_exc_class():
            ctx.cancelled = True
            await _let_end(job, ctx, grace)
            raise


async def _let_end(job: _Job, ctx: ActorContext, grace: float | None) -> None:
    if job.take():
        return
    with anyio.move_on_after(grace, shield=True):
        await job.ended.wait()
    if not job.ended.is_set():
        logger.warning(
            "The thread of actor %r goes on %g s after it was cancelled, and is left to itself. "
            "Have the actor look at ctx.cancelled. (run %s)",
            ctx.agent,
            grace,
            ctx.run_id,
        )
