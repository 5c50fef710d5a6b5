"""Numbers, dates and delivers the events of one run, from whichever thread they come."""

from __future__ import annotations

from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeAlias

from jotty.core.queue import MICROSECONDS, EventLoop

from .result import UsageMeter

if TYPE_CHECKING:
    from collections.abc import Callable

    from jotty.core.queue import Clock

    from .context import ActorContext
    from .events import Event
    from .memory import Memory

__all__ = ["Announcer", "Listener"]

Listener: TypeAlias = "Callable[[Event], object]"


def _ignore(_: Event) -> None: ...


class Announcer:
    """Where the events of a run go; it builds none if nobody listens.

    Attributes:
        run_id: The run.
        usage: What models consumed.
        is_heard: Whether events are delivered to anybody.

    Made on the run's event loop. The listener is called on that loop, in the order of `seq`.
    An event that comes from another thread is delivered soon, in that thread's order.
    """

    def __init__(
        self, run_id: str, clock: Clock, listener: Listener | None, memory: Memory | None = None
    ) -> None:
        self.run_id = run_id
        self.usage = UsageMeter()
        self._clock = clock
        self.is_heard = listener is not None or memory is not None
        self._listen: Callable[[Any], object] = listener or _ignore
        self._memory = memory
        self._seq = 0
        self._loop = EventLoop()
        self._thread = get_ident()

    def now(self) -> float:
        """Return the time as events tell it, in seconds."""
        return self._clock.now() / MICROSECONDS

    def tell(
        self,
        type: str,  # noqa: A002  # the event's own key
        note: dict[str, Any] | None = None,
        at: int | None = None,
        /,
        **fields: Any,
    ) -> None:
        """Deliver an event now; only on the event loop.

        Args:
            type: The event's type.
            note: What the memory of a durable run keeps beside it; see `Memory.put`.
            at: The time, in microseconds, if it is known already.
            **fields: The rest of the event.
        """
        if self.is_heard:
            self._deliver(type, self._clock.now() if at is None else at, fields, note)

    def post(self, event: dict[str, Any], note: dict[str, Any] | None = None) -> None:
        """Deliver an event that is made but for its place: its `run_id`, `seq` and `time` are in order.

        What tells of each node calls this, as it takes half the time of `tell`.
        """
        self._seq = event["seq"] = self._seq + 1
        if self._memory is not None:
            self._memory.put(event, note)
        self._listen(event)

    def tell_of(self, ctx: ActorContext, type: str, fields: dict[str, Any]) -> None:  # noqa: A002
        """Deliver an event of an actor from any thread; nothing if its attempt is over by then."""
        if not self.is_heard:
            return
        now = self._clock.now()
        if get_ident() == self._thread:
            self._deliver_of(ctx, type, now, fields)
        else:
            self._loop.call_soon(self._deliver_of, ctx, type, now, fields)

    def count(self, model: str, input_tokens: int, output_tokens: int, cost: float) -> None:
        """Sum up what a model consumed, from any thread."""
        self.usage.add(model, input_tokens, output_tokens, cost)
        if self._memory is None:
            return
        noted = {"model": model, "input_tokens": input_tokens, "output_tokens": output_tokens, "cost": cost}
        if get_ident() == self._thread:
            self._memory.note("usage", **noted)
        else:
            self._loop.call_soon(partial(self._memory.note, "usage", **noted))

    def _deliver_of(self, ctx: ActorContext, type: str, now: int, fields: dict[str, Any]) -> None:  # noqa: A002
        if not ctx.is_over:
            self._deliver(type, now, {"agent": ctx.agent, "attempt": ctx.attempt, **fields})

    def _deliver(
        self,
        type: str,  # noqa: A002
        now: int,
        fields: dict[str, Any],
        note: dict[str, Any] | None = None,
    ) -> None:
        self._seq += 1
        event = {"type": type, "run_id": self.run_id, "seq": self._seq, "time": now / MICROSECONDS, **fields}
        if self._memory is not None:
            self._memory.put(event, note)
        self._listen(event)
