"""A process of a simulation: its clock, its way to the store, and what becomes of it."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from jotty.core.queue import TaskQueue
from jotty.errors import StorageError
from jotty.testing.history import Event, History
from jotty.testing.processes.recording import RecordedBackend
from jotty.testing.proxy import BackendProxy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from jotty.core.queue import QueueBackend

    from .world import World

__all__ = ["SimulatedProcess"]

T = TypeVar("T")
TICK = 1e-6


class _SimulatedHistory(History):
    """Keeps events in the order in which they happen, each at an instant of its own."""

    def __init__(self, process: SimulatedProcess) -> None:
        self.process = process.name
        self._process = process

    def now(self) -> int:
        return self._process.world.clock.now()

    def event(self, kind: str, task: str = "", lease: int = 0, **details: Any) -> Event:
        event = super().event(kind, task, lease, **details)
        self._process.world.clock.skip(TICK)
        return event

    def tell_all(self, events: Iterable[Event]) -> None:
        """Append events; the dead tell none."""
        if not self._process.is_dead:
            self._process.world.events.extend(events)

    def close(self) -> None:
        """Do nothing: no file is open."""


class _ProcessClock:
    """The world's time, as long as the process is let run."""

    is_virtual = True

    def __init__(self, process: SimulatedProcess) -> None:
        self._process = process
        self._clock = process.world.clock
        self._timeouts: dict[anyio.CancelScope, Callable[[], None]] = {}

    def now(self) -> int:
        return self._clock.now()

    def wall(self) -> int:
        return self._clock.wall()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        await self._process.lets_run()

    @contextmanager
    def timeout(self, seconds: float | None) -> Iterator[anyio.CancelScope]:
        with anyio.CancelScope() as scope:
            self.move_timeout(scope, seconds)
            try:
                yield scope
            finally:
                self.move_timeout(scope, None)

    def move_timeout(self, scope: anyio.CancelScope, seconds: float | None) -> None:
        if drop := self._timeouts.pop(scope, None):
            drop()
        if seconds is not None and seconds <= 0:
            scope.cancel()
        elif seconds is not None:
            action = partial(self._process.when_it_runs, scope.cancel)
            self._timeouts[scope] = self._clock.call_later(seconds, action)

    def every(self, seconds: float) -> float:
        return self._clock.every(seconds)

    def hold(self) -> AbstractContextManager[None]:
        return self._clock.hold()


class _Line(BackendProxy):
    """The way to the store: each call takes its time there and back, and may be lost on either way."""

    def __init__(self, inner: QueueBackend, process: SimulatedProcess) -> None:
        super().__init__(inner)
        self._process = process

    async def around(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        process = self._process
        process.world.calls += 1
        if name == "wait":
            await self._check_alive()
            value = await call()
            await self._check_alive()
            return value
        # a process has its calls made whole: what a real one has sent is not called back
        with anyio.CancelScope(shield=True):
            return await self._carried(name, call)
        raise AssertionError("A shielded scope is never left early.")

    async def _carried(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        await self._travel()
        if self._process.has_bad_luck():
            raise StorageError(self.url, f"{name} did not reach it.")
        value = await call()
        is_lost = name != "open" and self._process.has_bad_luck()
        await self._travel()
        if is_lost:
            raise StorageError(self.url, f"its answer to {name} was lost.")
        return value

    async def _travel(self) -> None:
        await self._check_alive()
        faults = self._process.world.faults
        await self._process.world.clock.sleep(self._process.random.uniform(0.1, 1.0) * faults.latency)
        await self._check_alive()

    async def _check_alive(self) -> None:
        await self._process.lets_run()
        if self._process.is_dead:
            raise StorageError(self.url, "the process is dead, and makes no calls.")


class SimulatedProcess:
    """Something that works on the store by itself, and can be stopped, thawed and killed.

    Args:
        world: Where it lives.
        name: Its name, which no other has.

    Attributes:
        clock: Its time.
        random: Its source of chance.
        history: What it tells.
        queue: Its handle on the store.
        is_dead: Whether it was killed.
        is_stopped: Whether it stands still.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.random = Random(f"{world.seed} {name}")
        self.clock = _ProcessClock(self)
        self.history = _SimulatedHistory(self)
        self.is_dead = self.is_stopped = False
        self._inner = world.open_backend()
        backend = RecordedBackend(_Line(self._inner, self), self.history)
        self.queue = TaskQueue(backend, clock=self.clock, random=self.random)
        self._scope = anyio.CancelScope()
        self._goes_on = anyio.Event()
        self._postponed: list[Callable[[], object]] = []

    async def live(self, program: Callable[[], Awaitable[object]]) -> None:
        """Run a program until it ends, or is killed."""
        try:
            with self._scope:
                await self._run(program)
        finally:
            with anyio.CancelScope(shield=True):
                await self._inner.aclose()

    async def _run(self, program: Callable[[], Awaitable[object]]) -> None:
        try:
            await program()
        except Exception as error:  # noqa: BLE001 - the verdict tells of it
            if not self.is_dead:
                self.world.failures.append((self.name, error))
                self.history.tell("error", type=type(error).__name__)
        except BaseExceptionGroup:  # the last words of the dead, which nobody hears
            if not self.is_dead:
                raise

    def kill(self) -> None:
        """End it without a word: from now on it makes no call, and tells nothing."""
        self.history.tell("killed")
        self.is_dead = True
        self._scope.cancel()
        self._let_go_on()

    def stop(self) -> None:
        """Have it stand still, whatever it is doing."""
        self.history.tell("stopped")
        self.is_stopped, self._goes_on = True, anyio.Event()

    def go_on(self) -> None:
        """Let it go on, if it was stopped."""
        if self.is_stopped and not self.is_dead:
            self.history.tell("continued")
            self._let_go_on()

    def _let_go_on(self) -> None:
        self.is_stopped = False
        self._goes_on.set()
        postponed, self._postponed = self._postponed, []
        for action in postponed:
            action()

    async def lets_run(self) -> None:
        """Return when it does not stand still."""
        while self.is_stopped:
            await self._goes_on.wait()

    def when_it_runs(self, action: Callable[[], object]) -> None:
        """Do something now, or when it goes on."""
        if self.is_stopped:
            self._postponed.append(action)
        else:
            action()

    def has_bad_luck(self) -> bool:
        """Whether the next thing between it and the store goes wrong."""
        return self.random.random() < self.world.errors / 2
