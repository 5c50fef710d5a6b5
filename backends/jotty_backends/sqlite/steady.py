"""The store's own time: the same for every process, whatever becomes of the wall clock."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jotty.core.queue import MICROSECONDS, SystemClock

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SAVE_EVERY", "Machine", "SteadyClock"]

SAVE_EVERY: Final = MICROSECONDS
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_READ: Final = "SELECT value FROM meta WHERE name = ?"
_WRITE: Final = "INSERT OR REPLACE INTO meta VALUES (?, ?)"

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def _uptime() -> int:
    return time.monotonic_ns() if _CLOCK is None else time.clock_gettime_ns(_CLOCK)


class Machine:
    """What a machine tells of the time."""

    def boot_id(self) -> str:
        """Return what names this boot; empty where the system does not tell."""
        try:
            return _BOOT_ID.read_text(encoding="ascii").strip()
        except OSError:
            return ""

    def wall(self) -> int:
        """Return the wall-clock time in microseconds since the epoch."""
        return time.time_ns() // 1000

    def uptime(self) -> int:
        """Return microseconds since the boot, those asleep included where the system counts them."""
        return _uptime() // 1000


class SteadyClock(SystemClock):
    """A clock that is anchored in a store: a wall-clock time, and the uptime at that moment.

    All processes of one boot read the same time from it, which never jumps. The first that opens the store
    after a boot anchors it anew: at the wall-clock time, but not before the last time seen in the store.
    Where the system does not name its boots, an uptime that is less than the anchor's tells of a new one.

    Args:
        machine: What tells the time.
    """

    def __init__(self, machine: Machine | None = None) -> None:
        super().__init__()
        self._machine = machine or Machine()
        self._ahead = self._machine.wall() - self._machine.uptime()

    def now(self) -> int:
        """Return the store's time; before `anchor`, the wall-clock time at creation, carried on."""
        return self._machine.uptime() + self._ahead

    def wall(self) -> int:
        """Return the machine's wall-clock time."""
        return self._machine.wall()

    def anchor(self, connection: sqlite3.Connection) -> None:
        """Take the store's anchor, or give it one, in a transaction of its own."""
        if not self._take_anchor(connection):
            connection.execute("BEGIN IMMEDIATE")
            if not self._take_anchor(connection):
                self._give_anchor(connection)
            connection.execute("COMMIT")

    def _take_anchor(self, connection: sqlite3.Connection) -> bool:
        found = connection.execute(_READ, ("anchor",)).fetchone()
        if found is None:
            return False
        boot_id, uptime, wall = found[0].split()
        if boot_id != self._boot_id() or int(uptime) > self._machine.uptime():
            return False
        self._ahead = int(wall) - int(uptime)
        return True

    def _give_anchor(self, connection: sqlite3.Connection) -> None:
        seen = connection.execute(_READ, ("seen",)).fetchone()
        # the store's time is saved now and then: it was less than that much later when last used
        latest = seen[0] + SAVE_EVERY if seen else 0
        wall, uptime = max(self._machine.wall(), latest), self._machine.uptime()
        connection.execute(_WRITE, ("anchor", f"{self._boot_id()} {uptime} {wall}"))
        connection.execute(_WRITE, ("seen", wall))
        self._ahead = wall - uptime

    def _boot_id(self) -> str:
        return self._machine.boot_id() or "unnamed"
