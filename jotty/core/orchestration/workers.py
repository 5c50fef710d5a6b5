"""The tasks of a run: each carries out node after node, and there are only as many as actors that wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
from anyio import CancelScope
from anyio.lowlevel import checkpoint

from .fast_path import FastPath

if TYPE_CHECKING:
    from .execution import Execution
    from .outcome import Done, Failed
    from .run import Run

__all__ = ["Workers"]

CHECKPOINT_EVERY: Final = 64  # actors that never wait must not keep the event loop from everyone else
MOST_STARTING: Final = 2  # each calls the next ones when its actor waits, so that they double in number


class Workers:
    """The workers of one run.

    One that has finished a node goes on with the next that is ready; others are started only when an actor
    waits for something. So a chain makes one task in all, and so do actors that never wait.

    Args:
        run: The run.
        host: The execution in which it goes on, where a conductor is an actor of another.
    """

    def __init__(self, run: Run, host: Execution | None) -> None:
        self._run = run
        self._host = host
        self._fast_path: FastPath | None = None
        self._over: anyio.Event | None = None
        self._is_open = False
        self._rested = 0  # how many executions there had been when others had their turn
        self._starting = 0  # workers that have not taken anything yet

    def open(self) -> None:
        """Start the first; others may be called from now on."""
        self._over, self._is_open = anyio.Event(), True
        if not self._run.options.is_coded:
            self._fast_path = FastPath(self._run)
        self.call()

    def close(self) -> None:
        """Start none any more."""
        self._is_open = False

    def call(self) -> None:
        """Start workers if there is more than those will take that are starting; each calls the next ones."""
        run = self._run
        if run.is_stopped or not self._is_open or not run.slots.is_free:
            return
        while self._starting < min(run.flow.count_ready(), MOST_STARTING):
            self._starting += 1
            scope = CancelScope()
            run.tasks.start(scope, self._work, scope)

    async def wait(self) -> None:
        """Return when all is over: while there is no room around, there are no workers."""
        if self._is_over or self._over is None:  # all of it was replayed
            return
        try:
            await self._over.wait()
        except BaseException:
            self._run.halt()  # none may be called any more
            raise

    def dismiss(self) -> None:
        """Tell who waits that nothing begins any more."""
        if self._over is not None:
            self._over.set()

    @property
    def turns_left(self) -> int:
        """How many executions may begin before everyone else on the event loop has a turn."""
        return max(0, self._rested + CHECKPOINT_EVERY - self._run.state.iterations)

    @property
    def _is_over(self) -> bool:
        return self._run.flow.is_over or self._run.is_stopped

    async def _work(self, scope: CancelScope) -> None:
        self._starting -= 1
        run, memory = self._run, self._run.state.memory
        execution: Execution | None = None
        try:
            with scope:
                execution = self._next(scope)
                while execution is not None:
                    if memory is not None:
                        await memory.flush()  # what it follows from must be stored before it begins
                    outcome: Done | Failed | None
                    outcome = run.performer.begin(execution) if execution.node.is_plain else None
                    if has_waited := outcome is None:  # or may
                        self.call()
                        outcome = await run.performer.perform(execution)
                    if run.is_void(execution):
                        break
                    run.settle(execution, outcome)
                    settled, execution = execution, None
                    if not (has_waited and run.tasks.is_cancelled()):
                        execution = self._next(scope)
                    self._idle(settled)
                    # what has begun may have told the event loop already what it waits for
                    if execution is not None and execution.rest is None and not self.turns_left:
                        self._rested = run.state.iterations
                        await checkpoint()
        except BaseException:
            run.halt()
            raise
        finally:
            if execution is not None:
                self._leave(execution)
            run.slots.offer()
            if self._is_over:
                self.dismiss()

    def _next(self, scope: CancelScope) -> Execution | None:
        """Take what is ready, if there is room."""
        run, flow, slots = self._run, self._run.flow, self._run.slots
        if scope.cancel_called:
            return None
        if self._fast_path is not None and slots.is_free and not run.is_stopped:
            execution = self._fast_path.run()
            if execution is not None:
                slots.seize()
                execution.scope = scope
                return execution
        while not run.is_stopped and flow.count_ready() and slots.try_take():
            execution = run.admit(run.graph.nodes[flow.take() or ""])
            if execution is None:
                slots.give_back(quietly=True)
                continue
            execution.scope = scope
            return execution
        run.state.parking.rest()  # what was ready may only have been skipped
        return None

    def _leave(self, execution: Execution) -> None:
        """Drop an execution that was cancelled, whatever it came to, and start what waited for its end."""
        run = self._run
        run.reporter.cancelled(execution)
        run.flow.stopped(execution.node.name)
        run.places.free(execution)
        self._idle(execution)
        self.call()
        run.state.parking.rest()

    def _idle(self, execution: Execution) -> None:
        """Count an execution as being at work no more; where it was the last one, the host goes on."""
        state = self._run.state
        if self._host is not None and self._is_over:
            state.wake(self._host.work)
        state.idle(execution)
