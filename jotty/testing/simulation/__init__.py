"""A crowd on one store, in virtual time, with all that may go wrong: the same again for the same seed."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import anyio
import attrs

from jotty.core.queue import LIVE, load_backend
from jotty.testing.clock import VirtualClock
from jotty.testing.processes.inspection import inspect
from jotty.testing.verdict import Violation, check_history

from .process import SimulatedProcess
from .programs import SimulatedWorker, change_minds, produce
from .world import SimulatedFaults, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyio.abc import TaskGroup

    from jotty.core.queue import QueueBackend, TaskQueue
    from jotty.testing.history import Event
    from jotty.testing.verdict import Verdict

__all__ = ["SimulatedFaults", "Simulation", "simulate"]

PRODUCERS: Final = 2
LOOK_EVERY: Final = 1.0
PATIENCE: Final = 900.0  # virtual seconds, after all harm is done, until all tasks must be over
MOST_CALLS: Final = 2000  # for a task: a crowd that needs more runs in circles


@attrs.frozen(kw_only=True)
class Simulation:
    """What a simulation came to.

    Attributes:
        seed: What it followed from.
        history: All that was told, in order, each event at an instant of its own.
        verdict: What `check_history` and a look at the store say of it, and its figures.
        seconds: How much virtual time it took.
        calls: How many calls of the store it took.
    """

    seed: int
    history: tuple[Event, ...]
    verdict: Verdict
    seconds: float
    calls: int

    @property
    def ok(self) -> bool:
        """Whether no promise was broken."""
        return self.verdict.ok

    def to_jsonl(self) -> str:
        """Return the history, a line an event."""
        return "".join(f"{event.to_json()}\n" for event in self.history)

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.seconds:.0f} virtual seconds, {self.calls} calls: {self.verdict}"


def simulate(
    seed: int,
    *,
    workers: int = 4,
    tasks: int = 100,
    faults: SimulatedFaults | None = None,
    new_store: Callable[[VirtualClock], Callable[[], QueueBackend]] | None = None,
    lease_timeout: float = 10.0,
    max_concurrent: int = 2,
    loop: str = "asyncio",
) -> Simulation:
    """Run producers, workers and clients on a fresh store, with faults, and judge what they tell.

    Nothing sleeps really, and everything follows from the seed: for the memory store the history is the same
    to the byte, on the same event loop, in every process. It runs an event loop of its own, so it must not be
    called from within one.

    Args:
        seed: What all chance follows from.
        workers: How many workers there are, each a `QueueManager` in a process of its own.
        tasks: How many tasks are enqueued.
        faults: What goes wrong; None for some of everything.
        new_store: As for `task_queue_machine`; None for memory.
        lease_timeout: Seconds that a lease lasts.
        max_concurrent: How many tasks a worker runs at once.
        loop: "asyncio" or "trio".

    Example:
        @given(st.integers())
        def test_no_promise_is_broken(seed):
            simulation = simulate(seed, workers=3, tasks=30)
            assert simulation.ok, simulation
    """
    crowd = _Crowd(
        seed,
        workers=workers,
        tasks=tasks,
        faults=SimulatedFaults() if faults is None else faults,
        new_store=new_store or _memory,
        lease=lease_timeout,
        max_concurrent=max_concurrent,
    )
    with _fixed_order(seed, loop):
        return anyio.run(crowd.run, backend=loop)


class _Crowd:
    """One simulation."""

    def __init__(
        self,
        seed: int,
        *,
        workers: int,
        tasks: int,
        faults: SimulatedFaults,
        new_store: Callable[[VirtualClock], Callable[[], QueueBackend]],
        lease: float,
        max_concurrent: int,
    ) -> None:
        self._seed = seed
        self._workers = workers
        self._tasks = tasks
        self._faults = faults
        self._new_store = new_store
        self._lease = lease
        self._max_concurrent = max_concurrent
        self._managers: list[SimulatedWorker] = []

    async def run(self) -> Simulation:
        """Run it to its end."""
        clock = VirtualClock()
        begun = clock.now()
        world = World(self._seed, self._new_store(clock), clock, faults=self._faults, lease=self._lease)
        async with world.observer as observer:
            async with clock.autojump():
                await self._live(world)
            await _tell_final(world, observer)
            left = [task async for task in observer.tasks() if task.status in LIVE]
            found = await inspect(observer)
        verdict = check_history(world.events)
        found += [Violation("C24", f"{task!r} never came to its end") for task in left]
        found += [Violation("C41", f"{name} ended with {error!r}") for name, error in world.failures]
        return Simulation(
            seed=self._seed,
            history=tuple(world.events),
            verdict=attrs.evolve(verdict, violations=(*verdict.violations, *found)),
            seconds=(clock.now() - begun) / 1e6,
            calls=world.calls,
        )

    async def _live(self, world: World) -> None:
        async with anyio.create_task_group() as group:
            start_worker = partial(self._start_worker, world, group)
            for _ in range(self._workers):
                start_worker()
            async with anyio.create_task_group() as busy:
                for number in range(PRODUCERS):
                    share = self._tasks // PRODUCERS + (number < self._tasks % PRODUCERS)
                    producer = SimulatedProcess(world, f"producer-{number}")
                    busy.start_soon(producer.live, partial(produce, producer, share))
                client = SimulatedProcess(world, "client")
                busy.start_soon(client.live, partial(change_minds, client, self._tasks // 10))
                span = 1 + self._tasks / (self._workers * self._max_concurrent)
                busy.start_soon(world.do_harm, span, start_worker, busy)
            world.calm_down()
            await self._outlast(world)
            for worker in self._managers:
                worker.stop()
            with world.clock.timeout(PATIENCE):
                while world.workers:
                    await world.clock.sleep(LOOK_EVERY)
            group.cancel_scope.cancel()

    def _start_worker(self, world: World, group: TaskGroup) -> SimulatedProcess:
        return world.start_worker(group, self._work)

    async def _work(self, process: SimulatedProcess) -> None:
        worker = SimulatedWorker(process, self._max_concurrent)
        self._managers.append(worker)
        await worker.work()

    async def _outlast(self, world: World) -> None:
        """Wait until every task is over, for as long as there is hope."""
        with world.clock.timeout(PATIENCE):
            while world.calls < MOST_CALLS * (self._tasks + 10):
                total = (await world.observer.stats()).total
                if not any(total[status] for status in LIVE):
                    return
                await world.clock.sleep(LOOK_EVERY)


async def _tell_final(world: World, observer: TaskQueue) -> None:
    process = SimulatedProcess(world, "observer")
    async for task in observer.tasks():
        entries = [entry async for entry in observer.events(task.id, follow=False)]
        process.history.tell(
            "final",
            task.id,
            task.lease,
            status=task.status,
            result=task.result,
            attempt=task.attempt,
            entries=len(entries),
        )


def _memory(clock: VirtualClock) -> Callable[[], QueueBackend]:
    return load_backend("memory").from_url("", clock=clock).clone


@contextmanager
def _fixed_order(seed: int, loop: str) -> Iterator[None]:
    """Have trio run tasks in an order that follows from the seed; asyncio's is always the same."""
    if loop != "trio":
        yield
        return
    # there is no other way: trio's own plugin for hypothesis does just this
    scheduler: Any = import_module("trio._core._run")
    was_fixed, state = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()  # noqa: SLF001
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # noqa: SLF001
    scheduler._r.seed(seed)  # noqa: SLF001
    try:
        yield
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = was_fixed  # noqa: SLF001
        scheduler._r.setstate(state)  # noqa: SLF001
