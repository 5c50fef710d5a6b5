from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import attrs
import pytest

from jotty import Conductor, TaskQueue, WorkflowMode
from jotty.core.orchestration import Actor
from jotty.errors import StorageError
from jotty.testing import BackendProxy, VirtualClock
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jotty import Task
    from jotty.core.queue import JournalEntry, QueueBackend

T = TypeVar("T")


class Line(BackendProxy):
    """A way to the store that can be cut: nothing passes any more, in either direction."""

    def __init__(self, inner: QueueBackend, process: Process) -> None:
        super().__init__(inner)
        self._process = process

    def clone(self) -> QueueBackend:
        return Line(self.inner.clone(), self._process)

    async def around(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        self._process.check_alive()
        value = await call()
        self._process.check_alive()
        return value


class Process:
    """A process with a conductor and a handle on the store of its own; it may die as by kill -9."""

    def __init__(self, store: Store, actors: Any, mode: str, order: list[str] | None, settings: Any) -> None:
        self.is_dead = False
        self._store = store
        self._scope = anyio.CancelScope()
        self.queue = TaskQueue(Line(store.backend.clone(), self), clock=store.clock)
        conductor = Conductor(actors, clock=store.clock, **settings)
        self.flow = WorkflowMode(conductor, "async", self.queue, mode=mode, agent_order=order)

    def check_alive(self) -> None:
        if self.is_dead:
            raise StorageError("store", "the process is dead")

    def die(self) -> None:
        """Let nothing of what it does from now on have an effect."""
        self.is_dead = True
        self._scope.cancel()

    async def work(self, **options: Any) -> None:
        """Work on the queue until there is nothing left to do, or this is dead."""
        self._scope = anyio.CancelScope()
        self._store.at_work.append(self)
        with self._scope:
            try:
                async with self._store.clock.autojump():
                    await self.flow.process_queue(drain=True, **options)
            except (StorageError, BaseExceptionGroup):
                if not self.is_dead:
                    raise
            finally:
                self._store.at_work.remove(self)


@attrs.frozen
class Store:
    """A store on which processes work, one after the other or side by side."""

    clock: VirtualClock
    backend: QueueBackend
    queue: TaskQueue
    at_work: list[Process] = attrs.field(factory=list)

    def process(
        self, *actors: Any, mode: str = "dynamic", order: list[str] | None = None, **settings: Any
    ) -> Process:
        return Process(self, actors, mode, order, settings)

    def die(self) -> None:
        """Let those die that are at work."""
        for process in self.at_work:
            process.die()

    async def task(self, task_id: str) -> Task:
        task = await self.queue.get(task_id)
        assert task is not None
        return task

    async def journal(self, task_id: str, *kinds: str) -> list[JournalEntry]:
        entries = [entry async for entry in self.queue.events(task_id, follow=False)]
        return [entry for entry in entries if not kinds or entry.kind in kinds]

    async def events(self, task_id: str, *types: str, after: int = 0) -> list[Any]:
        """The events of a run that is over."""
        flow = WorkflowMode(Conductor([_nothing]), "async", self.queue)
        events: list[Any] = [event async for event in flow.stream(task_id, after)]
        return [event for event in events if not types or event["type"] in types]

    async def output(self, task_id: str) -> Any:
        return (await self.queue.result(task_id, 0.0))["final_output"]


async def _nothing() -> None: ...


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(idle=3600)


@pytest.fixture
def store(clock: VirtualClock) -> Store:
    backend = MemoryBackend(clock=clock)
    return Store(clock, backend, TaskQueue(backend.clone(), clock=clock))


class Counted:
    """Actors that count their calls by name."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def made(self, name: str, *needs: str, act: Callable[[], Any] | None = None, **options: Any) -> Any:
        """An actor whose output tells what it was made of."""

        async def call(**inputs: Any) -> Any:
            self.calls.append(name)
            found = None if act is None else act()
            return f"{name}({','.join(inputs[each] for each in needs)})" if found is None else found

        parameters = [inspect.Parameter(each, inspect.Parameter.KEYWORD_ONLY) for each in needs]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # see inspect.signature
        return Actor(name=name, call=call, **options)

    def taken(self) -> list[str]:
        taken, self.calls = self.calls, []
        return taken


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def calls() -> list[str]:
    return []
