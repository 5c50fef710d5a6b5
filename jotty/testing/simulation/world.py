"""What the processes of a simulation share, and what befalls them."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Final

import attrs

from jotty.core.queue import TaskQueue

from .process import SimulatedProcess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

    from jotty.core.queue import QueueBackend
    from jotty.testing.clock import VirtualClock
    from jotty.testing.history import Event

__all__ = ["SimulatedFaults", "World"]

LONGEST_ABSENCE: Final = 3.0  # leases
PATIENCE: Final = 100  # tenths of a lease


def _share(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} must be a share from 0.0 to 1.0, not {value!r}.")


@attrs.frozen(kw_only=True)
class SimulatedFaults:
    """What goes wrong in a simulation, and how often.

    Attributes:
        errors: The share of calls of the store that fail: half of them before they took effect, half after.
        crashes: How many workers vanish without a word; each is replaced a little later.
        pauses: How many workers stand still for a while, many of them beyond their leases, and go on.
        clock_jumps: How often the wall clock is set, an hour either way.
        naps: How often the whole machine sleeps beyond all leases.
        latency: Seconds that a call takes at most to the store, and its answer back.
    """

    errors: float = attrs.field(default=0.01, validator=_share)
    crashes: int = 3
    pauses: int = 3
    clock_jumps: int = 2
    naps: int = 1
    latency: float = 0.005

    @classmethod
    def none(cls) -> SimulatedFaults:
        """Return those of a perfect world."""
        return cls(errors=0, crashes=0, pauses=0, clock_jumps=0, naps=0)


class World:
    """A store, the time, and all processes.

    Args:
        seed: What all chance follows from.
        open_backend: Opens the store, each time as another handle.
        clock: The time.
        faults: What goes wrong.
        lease: Seconds that a lease lasts.

    Attributes:
        events: What was told, in order.
        calls: How many calls of the store were begun.
        errors: The share of calls that fail now.
        workers: The workers that live.
        failures: Which process ended with what error.
    """

    def __init__(
        self,
        seed: int,
        open_backend: Callable[[], QueueBackend],
        clock: VirtualClock,
        *,
        faults: SimulatedFaults,
        lease: float,
    ) -> None:
        self.seed = seed
        self.open_backend = open_backend
        self.clock = clock
        self.faults = faults
        self.lease = lease
        self.random = Random(f"{seed} world")
        self.errors = faults.errors
        self.events: list[Event] = []
        self.calls = 0
        self.workers: list[SimulatedProcess] = []
        self.failures: list[tuple[str, Exception]] = []
        self.observer = TaskQueue(open_backend(), clock=clock, random=Random(seed))
        self._started = 0

    def start_worker(
        self, group: TaskGroup, program: Callable[[SimulatedProcess], Awaitable[object]]
    ) -> SimulatedProcess:
        """Start a worker; it is one of `workers` until it ends."""
        self._started += 1
        process = SimulatedProcess(self, f"worker-{self._started}")
        self.workers.append(process)
        group.start_soon(self._live, process, program)
        return process

    async def _live(
        self, process: SimulatedProcess, program: Callable[[SimulatedProcess], Awaitable[object]]
    ) -> None:
        try:
            await process.live(lambda: program(process))
        finally:
            self._forget(process)

    def _forget(self, process: SimulatedProcess) -> None:
        if process in self.workers:
            self.workers.remove(process)

    async def do_harm(
        self, span: float, start_worker: Callable[[], SimulatedProcess], group: TaskGroup
    ) -> None:
        """Do all harm within about a span of time, in seconds, in an order that the seed decides."""
        faults = self.faults
        kinds = [
            *["crash"] * faults.crashes,
            *["pause"] * faults.pauses,
            *["jump"] * faults.clock_jumps,
            *["nap"] * faults.naps,
        ]
        self.random.shuffle(kinds)
        for kind in kinds:
            await self.clock.sleep(self.random.expovariate(len(kinds) / span))
            if kind == "jump":
                self.clock.set_wall(self.random.choice([3600, -3600]))
            elif kind == "nap":
                self.clock.skip(self.random.uniform(0.5, LONGEST_ABSENCE) * self.lease)
            elif victim := await self._victim():
                away = self.random.uniform(0, LONGEST_ABSENCE) * self.lease
                if kind == "pause":
                    victim.stop()
                    group.start_soon(self._thaw, victim, away)
                else:
                    victim.kill()
                    self._forget(victim)
                    group.start_soon(self._replace, start_worker, away / LONGEST_ABSENCE)

    async def _victim(self) -> SimulatedProcess | None:
        """Return a worker that can be harmed, once there is one; None if there will be none."""
        for _ in range(PATIENCE):
            if able := [one for one in self.workers if not one.is_stopped]:
                return self.random.choice(able)
            await self.clock.sleep(self.lease / 10)
        return None

    async def _thaw(self, process: SimulatedProcess, seconds: float) -> None:
        await self.clock.sleep(seconds)
        process.go_on()

    async def _replace(self, start_worker: Callable[[], object], seconds: float) -> None:
        await self.clock.sleep(seconds)
        start_worker()

    def calm_down(self) -> None:
        """Let nothing go wrong any more."""
        self.errors = 0.0
        for process in self.workers:
            process.go_on()
