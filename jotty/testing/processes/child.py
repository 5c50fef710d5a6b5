"""What the programs of this package have in common: how they are started, told to go on, and ended."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import asynccontextmanager
from importlib import import_module
from random import Random
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import anyio
import attrs

from jotty.core.queue import EventLoop, open_queue, points
from jotty.errors import (
    InvalidState,
    LeaseLost,
    QueueFull,
    SchemaError,
    StorageError,
    StoreCorrupt,
    TaskNotFound,
)
from jotty.testing.history import History

from .recording import RecordedBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from jotty.core.queue import Task, TaskQueue

__all__ = ["Child", "Order", "run_program", "tune"]

Options = TypeVar("Options")
PAUSE: Final = 0.05  # seconds, after the store has failed


@attrs.frozen(kw_only=True)
class Order:
    """What a program is started with, as JSON in its only argument.

    Attributes:
        url: The store.
        directory: Where to write the history.
        name: The process's name there.
        options: The program's own.
        loop: The event loop: "asyncio" or "trio".
        lifetime: Seconds after which the process ends itself, should nobody else do so.
        wall: By how many seconds this process's wall clock is ahead of the machine's.
        kill_at: A named point at which the process kills itself; None for nowhere.
        visit: At which visit of that point it does, from 1.
        tuning: Constants of modules to change first, by dotted name: to have happen soon what is rare.
    """

    url: str
    directory: str
    name: str
    options: dict[str, Any] = attrs.field(factory=dict)
    loop: str = "asyncio"
    lifetime: int = 120
    wall: float = 0.0
    kill_at: str | None = None
    visit: int = 1
    tuning: dict[str, Any] = attrs.field(factory=dict)

    def to_json(self) -> str:
        """Return it as the program's argument."""
        return json.dumps(attrs.asdict(self))


class Child(Generic[Options]):
    """A program at work.

    Args:
        order: What it was started with.
        options: Its own options.

    Attributes:
        name: The process's name.
        options: Its own options.
        history: Where it writes.
        random: Its own generator, the same for the same name.
        queue: The store under test, recorded.
        is_ending: Whether it was asked to come to its end.
    """

    def __init__(self, order: Order, options: Options) -> None:
        self.name = order.name
        self.options = options
        self.history = History(order.directory, order.name)
        self.random = Random(order.name)
        self.queue: TaskQueue = open_queue(order.url)
        self.queue.backend = RecordedBackend(self.queue.backend, self.history)
        self.is_ending = False
        self._go = anyio.Event()
        self._end = anyio.Event()
        self._loop = EventLoop()
        threading.Thread(target=self._listen, daemon=True).start()

    async def go(self) -> None:
        """Tell that this process is ready, and return when it is told to go on."""
        self.history.tell("ready")
        await self._go.wait()

    async def ended(self) -> None:
        """Return when the process is asked to come to its end."""
        await self._end.wait()

    @asynccontextmanager
    async def patience(self) -> AsyncIterator[None]:
        """Go on after a refusal, a lost lease or a store that fails, which others may cause; it is told."""
        try:
            yield
        except LeaseLost as lost:
            self.history.tell("lost", lost.task_id, lost.lease)
        except (QueueFull, InvalidState, TaskNotFound) as refusal:
            self.history.tell("refused", text=str(refusal))
        except (StoreCorrupt, SchemaError):
            raise
        except StorageError as error:
            self.history.tell("error", text=str(error))
            await anyio.sleep(PAUSE)

    def tell_enqueued(self, task: Task, since: int, *, is_new: bool = True) -> None:
        """Tell that storing this task was acknowledged."""
        head = task.head
        # of one that was read again after others had it, run_at is that of a later attempt
        delay = 0 if head.lease else max(head.run_at - head.created_at, 0)
        self.history.tell(
            "enqueued",
            task.id,
            since=since,
            key=head.key,
            depends_on=head.depends_on,
            on_dependency=head.on_dependency,
            delay_us=delay,
            max_attempts=head.max_attempts,
            seq=head.seq,
            is_new=is_new,
        )

    def _listen(self) -> None:
        for line in sys.stdin:
            self._loop.call_soon(self._heed, line.strip())
        os._exit(1)  # whoever started this is gone

    def _heed(self, word: str) -> None:
        if word == "end":
            self.is_ending = True
            self._end.set()
        self._go.set()


def run_program(program: Callable[[Child[Options]], Awaitable[None]], options: type[Options]) -> None:
    """Run a program of this package with what it was started with.

    Args:
        program: What it does.
        options: What makes its options of the order's.
    """
    order = Order(**json.loads(sys.argv[1]))
    if hasattr(signal, "alarm"):
        signal.alarm(order.lifetime)
    _set_wall(order.wall)
    tune(order.tuning)
    if order.kill_at is not None:
        points.listen(_Killer(order.kill_at, order.visit))
    anyio.run(_run, program, order, options, backend=order.loop)


def tune(tuning: Mapping[str, Any]) -> None:
    """Change constants of modules, by dotted name."""
    for constant, value in tuning.items():
        module, _, name = constant.rpartition(".")
        setattr(import_module(module), name, value)


async def _run(
    program: Callable[[Child[Options]], Awaitable[None]], order: Order, options: type[Options]
) -> None:
    child = Child(order, options(**order.options))
    try:
        await program(child)
    finally:
        with anyio.CancelScope(shield=True):
            await child.queue.aclose()
    child.history.tell("done")


def _set_wall(seconds: float) -> None:
    """Set this process's wall clock: the system's own cannot be set without harm to everything else."""
    if seconds:
        real, ahead = time.time_ns, round(seconds * 1e9)
        time.time_ns = lambda: real() + ahead
        time.time = lambda: (real() + ahead) / 1e9


class _Killer:
    """Kills this process at a visit of a named point."""

    def __init__(self, point: str, visit: int) -> None:
        self._point = point
        self._left = visit

    def __call__(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
