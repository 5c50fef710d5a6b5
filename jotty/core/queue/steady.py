"""The store's own time: the same for every process, whatever becomes of the wall clock."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from .clock import MICROSECONDS, SystemClock

__all__ = ["SAVE_EVERY", "Machine", "SteadyClock"]

SAVE_EVERY: Final = MICROSECONDS
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

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
        """Return the store's time; before it has an anchor, the wall-clock time at creation, carried on."""
        return self._machine.uptime() + self._ahead

    def wall(self) -> int:
        """Return the machine's wall-clock time."""
        return self._machine.wall()

    def take_anchor(self, anchor: str) -> bool:
        """Go by a store's anchor; False, and nothing changes, if it is of another boot."""
        boot_id, uptime, wall = anchor.split()
        if boot_id != self._boot_id() or int(uptime) > self._machine.uptime():
            return False
        self._ahead = int(wall) - int(uptime)
        return True

    def new_anchor(self, seen: int | None) -> str:
        """Return an anchor for this boot, to be put in the store, and go by it.

        Args:
            seen: The store's time as it was last saved, less than SAVE_EVERY before it was last used; None
                for a new store.
        """
        latest = 0 if seen is None else seen + SAVE_EVERY
        wall, uptime = max(self._machine.wall(), latest), self._machine.uptime()
        self._ahead = wall - uptime
        return f"{self._boot_id()} {uptime} {wall}"

    def _boot_id(self) -> str:
        return self._machine.boot_id() or "unnamed"
