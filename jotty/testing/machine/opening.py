"""Time that passes, what falls due in it, and handles that are closed and opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st
from hypothesis.stateful import rule

from jotty.core.queue import TaskQueue
from jotty.errors import QueueClosed

from .arguments import faults, handles
from .expectation import Expectations

if TYPE_CHECKING:
    from jotty.testing.faults import Fault

__all__ = ["OpeningRules"]


class OpeningRules(Expectations):
    """`reap`, `aclose`, and the clock."""

    @rule(seconds=st.sampled_from([1, 0.5, 2, 4, 31, 3600]))
    def time_passes(self, seconds: float) -> None:
        """Let time pass."""
        self.run(self.clock.advance(seconds))

    @rule(seconds=st.sampled_from([3600, -3600]))
    def the_wall_clock_jumps(self, seconds: float) -> None:
        """Set the wall clock, which changes nothing (C45)."""
        self.clock.set_wall(seconds)

    @rule(handle=handles, fault=faults)
    def policy_looks(self, handle: int, fault: Fault | None) -> None:
        """Have policy look at what is due."""
        due = lambda model: model.reap(self.now)  # noqa: E731 - it reads as what it is
        self.expect(handle, fault, TaskQueue.reap, due)

    @rule(handle=handles)
    def reopen(self, handle: int) -> None:
        """Close a handle, whose calls are refused then, and open another (C40)."""
        self.run(self.queues[handle].aclose())
        self.expect(handle, None, TaskQueue.stats, error=QueueClosed)
        self.expect(handle, None, lambda queue: queue.claim(worker="late"), error=QueueClosed)
        self.queues[handle] = self.open(handle)
