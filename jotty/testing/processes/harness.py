"""Starts processes that share a store, does them harm, and collects what they have told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import anyio
import attrs

from jotty.core.queue import LIVE, open_queue
from jotty.testing.history import History, HistoryReader
from jotty.testing.verdict import Verdict, check_history

from .child import Order
from .inspection import inspect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    from jotty.core.queue import TaskQueue
    from jotty.testing.history import Event

__all__ = ["Harness", "Process"]

T = TypeVar("T")
PATIENCE: Final = 30.0
LOOK_EVERY: Final = 0.01
_MODULES: Final = "jotty.testing.processes"


@attrs.define(eq=False)
class Process:
    """A process under the harness.

    Attributes:
        name: Its name in the history.
        popen: The process itself.
        errors: Where its standard error goes.
        is_stopped: Whether it was stopped, and not continued since.
    """

    name: str
    popen: subprocess.Popen[bytes]
    errors: Path
    is_stopped: bool = False

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended; collects it if it has."""
        return self.popen.poll() is None

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.popen.poll() == -signal.SIGKILL

    def send(self, word: str) -> None:
        """Send a word to its standard input; one that has ended meanwhile does not hear it."""
        assert self.popen.stdin is not None
        with suppress(BrokenPipeError):
            self.popen.stdin.write(f"{word}\n".encode())


class Harness:
    """Runs the programs of this package on one store; a context manager that leaves no process behind.

    Args:
        url: The store, as `open_queue` takes it.
        directory: An empty directory for the histories and what the processes print.
        tuning: Constants of modules that every process is to change, by dotted name.

    Attributes:
        url, tuning: As above.
        directory: As above, as a path.
        processes: All that were started, in that order.
    """

    def __init__(
        self, url: str, directory: str | os.PathLike[str], *, tuning: Mapping[str, Any] | None = None
    ) -> None:
        self.url = url
        self.tuning = dict(tuning or {})
        self.directory = Path(directory)
        self.processes: list[Process] = []
        self._numbers: Iterator[int] = count(1)
        self._own = History(directory, "harness")
        self._reader = HistoryReader(directory)
        self._events: list[Event] = []
        self._noted: set[Process] = set()
        self._failed: set[Process] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(
        self,
        program: str,
        *,
        loop: str = "asyncio",
        wall: float = 0.0,
        kill_at: str | None = None,
        visit: int = 1,
        lifetime: float = 120.0,
        url: str | None = None,
        through: Sequence[str] = (),
        **options: Any,
    ) -> Process:
        """Start a program of this package: "producer", "worker", "manager", "follower", "caller"...

        Args:
            program: Its module.
            loop: Its event loop, "asyncio" or "trio".
            wall: By how many seconds its wall clock is to be ahead.
            kill_at: A named point at which it is to kill itself.
            visit: At which visit of that point, from 1.
            lifetime: Seconds after which it ends at the latest.
            url: Another address of the store; by default the harness's own.
            through: A command to start it by, which ends with running its last arguments.
            options: The program's own.
        """
        name = f"{program}-{next(self._numbers)}"
        order = Order(
            url=url or self.url,
            directory=str(self.directory),
            name=name,
            options=options,
            loop=loop,
            lifetime=round(lifetime),
            wall=wall,
            kill_at=kill_at,
            visit=visit,
            tuning=self.tuning,
        )
        return self.run(name, [*through, sys.executable, "-m", f"{_MODULES}.{program}", order.to_json()])

    def run(self, name: str, command: Sequence[str], **environment: str) -> Process:
        """Start any command under the harness."""
        errors = self.directory / f"{name}.errors"
        with errors.open("wb") as file, (self.directory / f"{name}.out").open("wb") as out:
            popen = subprocess.Popen(  # noqa: S603 - the commands are the tests' own
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=file,
                env=os.environ | environment,
            )
        process = Process(name, popen, errors)
        self.processes.append(process)
        return process

    # Harm

    def kill(self, process: Process) -> None:
        """End a process by SIGKILL, and wait until it is gone."""
        process.popen.send_signal(signal.SIGKILL)
        process.popen.wait(PATIENCE)
        self._note_if_killed(process)

    def stop(self, process: Process) -> None:
        """Have a process stand still, by SIGSTOP."""
        self._own_event("stopped", process)
        process.popen.send_signal(signal.SIGSTOP)
        process.is_stopped = True

    def go_on(self, process: Process) -> None:
        """Let a stopped process go on, by SIGCONT."""
        process.popen.send_signal(signal.SIGCONT)
        process.is_stopped = False
        self._own_event("continued", process)

    # Waiting

    def events(self) -> list[Event]:
        """Return all that was told so far; processes that died by SIGKILL are noted as killed."""
        for process in self.processes:
            self._note_if_killed(process)
        self._events += self._reader.read()
        return self._events

    def until(
        self, kind: str, *processes: Process, number: int = 1, timeout: float = PATIENCE
    ) -> list[Event]:
        """Wait until each of these processes (or any) has told of an event so often; return these events.

        Raises:
            AssertionError: It did not within the timeout, or a process has ended with an error.
        """
        names = {process.name for process in processes}

        def is_there() -> list[Event] | None:
            found = [one for one in self.events() if one.kind == kind and (one.process in names or not names)]
            told = Counter(one.process for one in found) if names else {"": len(found)}
            return found if all(told[name] >= number for name in names or {""}) else None

        return self.wait_for(is_there, f"{kind!r} was told {number} times", timeout=timeout)

    def wait_for(self, look: Callable[[], T | None], what: str, *, timeout: float = PATIENCE) -> T:
        """Look again and again until there is something true to see, and return that.

        Raises:
            AssertionError: There is nothing within the timeout, or a process has ended with an error.
        """
        deadline = time.monotonic() + timeout
        while not (found := look()):
            self.check()
            assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s"
            time.sleep(LOOK_EVERY)
        return found

    def check(self) -> None:
        """Insist that no process has ended with an error, but for those that were let.

        Raises:
            AssertionError: One has; says with which.
        """
        for process in set(self.processes) - self._failed:
            code = process.popen.poll()
            assert code in {None, 0, -signal.SIGKILL}, (
                f"{process.name} ended with {code}:\n{process.errors.read_text()[-4000:]}"
            )

    def go(self, *processes: Process) -> None:
        """Wait until these are ready, then have them go on, all at once."""
        self.until("ready", *processes)
        for process in processes:
            process.send("go")

    def finish(self, *processes: Process, timeout: float = PATIENCE) -> None:
        """Wait until these processes (or all) have ended by themselves.

        Raises:
            AssertionError: One has not within the timeout, or with an error.
        """
        for process in processes or self.processes:
            self.wait_for(partial(_has_ended, process), f"{process.name} ended", timeout=timeout)
        self.check()

    def outlast(self, process: Process, *, timeout: float = PATIENCE) -> None:
        """Wait until a process has ended, be it with an error."""
        process.popen.wait(timeout)
        self._failed.add(process)

    def outlive(self, process: Process, *, timeout: float = PATIENCE) -> bool:
        """Wait until a process has ended, and return whether it was killed.

        Raises:
            AssertionError: It has not within the timeout, or with an error.
        """
        self.finish(process, timeout=timeout)
        return process.was_killed

    def end(self, *processes: Process, timeout: float = PATIENCE) -> None:
        """Ask these processes (or all) to come to their end, and wait until they have."""
        asked = [process for process in processes or self.processes if process.is_alive]
        for process in asked:
            process.send("end")
        self.finish(*asked, timeout=timeout)

    # The end

    def ask(self, question: Callable[[TaskQueue], Any], *, loop: str = "asyncio") -> Any:
        """Return what a fresh handle on the store answers.

        Args:
            question: An async function of a queue.
            loop: The event loop.
        """

        async def ask() -> Any:
            async with open_queue(self.url) as queue:
                return await question(queue)

        return anyio.run(ask, backend=loop)

    def drain(self, *, timeout: float = PATIENCE) -> None:
        """Wait until every task in the store is over.

        Raises:
            AssertionError: That is not so within the timeout, or a process has ended with an error.
        """
        self.wait_for(self.is_drained, "every task was over", timeout=timeout)

    def is_drained(self) -> bool:
        """Whether every task in the store is over."""
        return bool(self.ask(_is_over))

    def verdict(self) -> Verdict:
        """Read what the store says at the end, and judge that and the whole history."""
        self._events = [event for event in self.events() if event.kind != "final"]  # of an earlier verdict
        self.ask(self._tell_final)
        verdict = check_history(self.events())
        torn = {tuple(event.details["batch"]) for event in self.events() if event.kind == "deleting"}
        found = self.ask(partial(inspect, torn=torn))
        return attrs.evolve(verdict, violations=(*verdict.violations, *found))

    async def _tell_final(self, queue: TaskQueue) -> None:
        finals = [
            self._own.event(
                "final",
                task.id,
                task.lease,
                status=task.status,
                result=task.result,
                attempt=task.attempt,
                entries=await _last_number(queue, task.id),
            )
            async for task in queue.tasks()
        ]
        self._own.tell_all(finals)

    def close(self) -> None:
        """Kill what is still alive, and wait for it."""
        for process in self.processes:
            if process.is_alive:
                process.popen.kill()
        for process in self.processes:
            process.popen.wait()
            assert process.popen.stdin is not None
            process.popen.stdin.close()
        self._own.close()

    def _note_if_killed(self, process: Process) -> None:
        if process not in self._noted and process.was_killed:
            self._noted.add(process)
            self._own_event("killed", process)

    def _own_event(self, kind: str, process: Process) -> None:
        event = attrs.evolve(self._own.event(kind), process=process.name)
        self._own.tell_all([event])


async def _is_over(queue: TaskQueue) -> bool:
    total = (await queue.stats()).total
    return not any(total[status] for status in LIVE)


def _has_ended(process: Process) -> bool:
    return not process.is_alive


async def _last_number(queue: TaskQueue, task: str) -> int:
    last = 0
    async for entry in queue.events(task, follow=False):
        last = entry.number
    return last
