"""What goes on beside a worker's event loop: leases above all, and whatever must not wait for the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .keeper import Duty, LeaseKeeper
from .outage import Outage
from .presence import Presence, Tally
from .rescue import Rescue
from .retention import Retention
from .unhandled import UnhandledTasks
from .watchdog import LoopWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .run import WorkerSettings

__all__ = ["Attendants"]


class Attendants:
    """The lease keeper of a worker, and those who work in its thread. To be made on the worker's event loop.

    Args:
        settings: The worker's.
        running: Gives the ids of the tasks that run; called from the keeper's thread.
        stop_task: Called with a task's id and "lost" or "cancel" when its handler is to be stopped.

    Attributes:
        keeper: Keeps the leases.
        unhandled: The tasks that are left to other workers.
        tally: Counts the tasks that came to their end.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        running: Callable[[], Collection[str]],
        stop_task: Callable[[str, str], object],
    ) -> None:
        self._settings = settings
        self._running = running
        self.tally = Tally(settings.clock)
        self.unhandled = UnhandledTasks(settings.worker, settings.random, self._tell_news)
        self.keeper = LeaseKeeper(
            settings.queue.backend,
            settings.clock,
            lease_timeout=settings.lease_timeout,
            heartbeat=settings.heartbeat,
            outage=Outage("Leases could not be renewed", "Leases are renewed again", settings.random),
            on_lost=lambda task_id, _: stop_task(task_id, "lost"),
            on_cancel=lambda task_id: stop_task(task_id, "cancel"),
        )
        self._watch = LoopWatch(running, settings.describe, on_change=self._tell_news)
        self._rescue = Rescue(self.keeper.held, on_released=self.leave)
        self._presence = Presence(
            settings.worker,
            lanes=settings.lanes,
            max_concurrent=settings.max_concurrent,
            changing=self._changing,
        )

    async def attend(self) -> None:
        """Do it all until `keeper.stop`, which must follow.

        Raises:
            SchemaError, StoreCorrupt: The store is not what it was.
        """
        settings = self._settings
        duties: list[Duty] = [self._presence.announce_on, self.unhandled.review_on]
        if settings.retention is not None:
            duties.append(Retention(settings.retention, settings.random).delete_on)
        if not settings.clock.is_virtual:
            # a loop whose keeper works on it can't be seen blocked
            duties += [self._watch.watch_on, self._rescue.wait_on]
        await self.keeper.run(duties)

    def stop_after(self, grace: float) -> None:
        """Have nothing held after so many seconds, even if the loop is blocked; from any thread."""
        self._rescue.stop_after(grace)
        self.keeper.call_soon(self._rescue.wake)

    def leave(self) -> None:
        """Take the worker off the list of those that are there; from any thread."""
        self.keeper.call_soon(self._presence.leave)

    def _tell_news(self) -> None:
        self.keeper.call_soon(self._presence.hurry)

    def _changing(self) -> dict[str, Any]:
        return {
            "running": len(self._running()),
            "ended": self.tally.total,
            "per_minute": self.tally.last_minute(),
            "unhandled": self.unhandled.ids,
            "blocked": round(self._watch.blocked, 1),
        }
