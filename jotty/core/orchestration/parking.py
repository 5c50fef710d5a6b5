"""When a durable run that waits for a person leaves its worker, and how answers reach it before that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import CancelScope

from .memory import Suspended

if TYPE_CHECKING:
    from .memory import Memory
    from .run import Run

__all__ = ["Parking"]


class Parking:
    """Watches whether anything but an answer makes more of a run.

    Args:
        run: The run around all others.

    Attributes:
        suspended: Why the run has been parked, once it is.
    """

    def __init__(self, run: Run) -> None:
        self.suspended: Suspended | None = None
        self._run = run
        self._following: CancelScope | None = None

    def follow_answers(self) -> None:
        """See that an answer reaches who waits for it while others are at work."""
        if self._run.state.memory is not None and self._following is None:
            self._following = CancelScope()
            memory, scope = self._run.state.memory, self._following
            self._run.tasks.start(scope, self._take_answers, memory, scope)

    def unfollow_answers(self) -> None:
        """Look for answers no longer, once nobody waits for one."""
        if self._following is not None and not self._run.state.questions.waiting:
            self._following.cancel()
            self._following = None

    async def _take_answers(self, memory: Memory, scope: CancelScope) -> None:
        with scope:
            async for key, value in memory.follow_answers():
                if key not in self._run.state.questions.answers:
                    self._run.state.questions.take(key, value)

    def rest(self) -> None:
        """Park a durable run of which nothing but an answer makes more."""
        run, state = self._run, self._run.state
        if state.memory is None or state.active or not state.questions.waiting or run.is_stopped:
            return
        # what is ready is about to be taken, and what is stopping makes others ready
        if any(flow.stopping or flow.count_ready() for flow in state.flows.values()):
            return
        state.note("parked")
        self.suspended = Suspended(list(state.questions.waiting), state.questions.next_expiry)
        run.halt()
        run.tasks.cancel()
