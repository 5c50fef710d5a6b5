"""Chaos: producers and workers on one store, killed and stopped at random, until all the work is done."""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

import attrs

from .caller import ALL_CALLS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from jotty.testing.verdict import Verdict

    from .harness import Harness, Process

__all__ = ["Chaos"]

PRODUCERS: Final = 2
REPORT_EVERY: Final = 5.0
LEASE: Final = 1.5


@attrs.define(kw_only=True)
class Chaos:
    """What is done to a store, and how much of it.

    Beside producers and workers there is a caller, which makes each call there is, deletes included. Half of
    the workers have a `QueueManager`, the others claim and settle by themselves; every other one runs
    on trio. One that was killed is replaced at once.

    Attributes:
        harness: Where the processes run.
        random: Decides who is harmed, when and how.
        tasks: How many tasks there are at least.
        kills: How many processes to kill at least.
        workers: How many workers there are at any time.
        interval: Seconds between two deeds, on average.
        stops: The share of deeds that stop a worker for a while, instead of killing it.
        points: Named points of the backend, at which some workers kill themselves.
        report: Told how it goes.
        patience: Seconds that the work that is left may take, once nobody is harmed any more.
    """

    harness: Harness
    random: Random
    tasks: int
    kills: int
    workers: int = 8
    interval: float = 0.25
    stops: float = 0.1
    points: Sequence[str] = ()
    report: Callable[[str], object] = print
    patience: float = 120.0
    _crew: list[Process] = attrs.field(factory=list, init=False)
    _producers: list[Process] = attrs.field(factory=list, init=False)
    _caller: Process = attrs.field(init=False)
    _stopped: list[tuple[float, Process]] = attrs.field(factory=list, init=False)
    _shares: dict[str, int] = attrs.field(factory=dict, init=False)
    _started: int = attrs.field(default=0, init=False)

    def run(self) -> Verdict:
        """Do all of it, and judge the history.

        Raises:
            AssertionError: A process ended with an error, or the work was not done in time.
        """
        self._crew = [self._new_worker() for _ in range(self.workers)]
        self._producers = [self._new_producer(self.tasks // PRODUCERS) for _ in range(PRODUCERS)]
        self._caller = self._new_caller()
        reported = time.monotonic()
        while self._killed() < self.kills or any(process.is_alive for process in self._producers):
            self._do_harm()
            self._let_go_on(time.monotonic())
            self._replace_the_dead()
            self.harness.check()
            if time.monotonic() - reported > REPORT_EVERY:
                reported = time.monotonic()
                self.report(self._progress())
            time.sleep(self.random.expovariate(1 / self.interval))
        self._let_go_on(float("inf"))
        self.harness.end(self._caller)
        self.harness.wait_for(self._is_done, "all the work was done", timeout=self.patience)
        self.harness.end(timeout=self.patience)
        return self.harness.verdict()

    def _do_harm(self) -> None:
        able = [process for process in [*self._crew, self._caller] if process.is_alive]
        if self._killed() < self.kills:  # afterwards, the producers are to come to their end
            able += [process for process in self._producers if process.is_alive]
        if not able:
            return
        victim = self.random.choice(able)
        if self.random.random() >= self.stops:
            self.harness.kill(victim)
        elif not victim.is_stopped:
            self.harness.stop(victim)
            self._stopped.append((time.monotonic() + self.random.uniform(0.1, 2 * LEASE), victim))

    def _let_go_on(self, now: float) -> None:
        for until, process in list(self._stopped):
            if until <= now or not process.is_alive:
                self._stopped.remove((until, process))
                if process.is_alive:
                    self.harness.go_on(process)

    def _replace_workers(self) -> None:
        self._crew = [one if one.is_alive else self._new_worker() for one in self._crew]

    def _replace_the_dead(self) -> None:
        self._replace_workers()
        if self._caller.was_killed:
            self._caller = self._new_caller()
        for number, producer in enumerate(self._producers):
            if producer.was_killed and (left := self._left_of(producer)) > 0:
                self._producers[number] = self._new_producer(left)

    def _left_of(self, producer: Process) -> int:
        told = (event for event in self.harness.events() if event.process == producer.name)
        return self._shares[producer.name] - sum(event.kind == "enqueued" for event in told)

    def _new_producer(self, tasks: int) -> Process:
        expected = self.kills * self.interval
        batch = self.random.choice([1, 3, 10])
        producer = self.harness.start(
            "producer",
            tasks=tasks,
            batch=batch,
            depends=0.1,
            delays=0.2,
            longest=1.0,
            max_attempts=5,
            pause=expected * PRODUCERS * batch / self.tasks,
            lifetime=expected * 4 + self.patience,
        )
        self._shares[producer.name] = tasks
        return producer

    def _new_worker(self) -> Process:
        self._started += 1
        loop = "trio" if self._started % 2 and find_spec("trio") else "asyncio"
        lifetime = self.kills * self.interval * 4 + self.patience
        point = self.random.choice(self.points) if self.points and self.random.random() < 0.2 else None
        visit = self.random.randrange(1, 30)
        if self._started % 4 < 2:
            return self.harness.start(
                "manager",
                loop=loop,
                lifetime=lifetime,
                kill_at=point,
                visit=visit,
                lease_timeout=LEASE,
                max_concurrent=3,
                seconds=0.2,
                records=2,
                fails=0.02,
            )
        return self.harness.start(
            "worker",
            loop=loop,
            lifetime=lifetime,
            kill_at=point,
            visit=visit,
            lease_timeout=LEASE,
            limit=2,
            seconds=0.2,
            records=3,
            fails=0.02,
            releases=0.02,
        )

    def _new_caller(self) -> Process:
        return self.harness.start(
            "caller",
            calls=[
                call for call in ALL_CALLS if call != "purge"
            ],  # only what it has ended itself may be gone
            times=1_000_000,
            pause=0.02,
            lease_timeout=LEASE,
            lifetime=self.kills * self.interval * 4 + self.patience,
        )

    def _killed(self) -> int:
        return sum(process.was_killed for process in self.harness.processes)

    def _is_done(self) -> bool:
        self._replace_workers()  # those that kill themselves at a point go on doing so
        return self.harness.is_drained()

    def _progress(self) -> str:
        kinds = [event.kind for event in self.harness.events()]
        return (
            f"{self._killed()} kills, {kinds.count('enqueued')} tasks acknowledged, "
            f"{kinds.count('started')} runs, {kinds.count('error')} errors"
        )
