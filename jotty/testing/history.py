"""What happened, as events that each process appends to a file of its own, and that are merged afterwards."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Event", "History", "HistoryReader", "now_us", "read_history"]

SUFFIX: Final = ".history"
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def _write(descriptor: int, data: bytes) -> None:
    if hasattr(os, "writev"):  # which stores do not use: a tracer can tell their writes from ours
        os.writev(descriptor, [data])
    else:
        os.write(descriptor, data)


def now_us() -> int:
    """Return microseconds since the machine's start: one clock for all its processes, which never jumps."""
    return (time.monotonic_ns() if _CLOCK is None else time.clock_gettime_ns(_CLOCK)) // 1000


@attrs.frozen
class Event:
    """One thing that happened; `check_history` judges what it can of those that are there.

    An event of a call is written when the call has returned; `since` among its details is when it began (the
    same instant, if it is not told). One that announces a call is written before it: whatever the call does,
    it does later, even if it is never heard of again.

    - `enqueued`: storing the task was acknowledged (`key`, `depends_on`, `on_dependency`, `delay_us`,
      `max_attempts`; `is_new`: whether this call made it)
    - `claiming`: a claim begins (`call`: its number); all that it gives is told before `answered`
    - `claimed`: the task was given to this process (`lease_us`, `attempt`)
    - `answered`: a claim has returned (`call`)
    - `renewed`: a heartbeat was acknowledged (`lease_us`)
    - `started`: the work on the task begins
    - `effect`: the work does what others can see
    - `settling`: a write begins that takes the task out of progress (`status`: the next one, `attempt`)
    - `settled`: that write was acknowledged (`status`, `attempt`, `result`)
    - `recorded`: journal entries were acknowledged (`first`, `last`: their numbers)
    - `lost`: this process was told that the lease is not its any more
    - `retrying`, `deleting`: a client's call begins, after which an ended task may run again, or be gone
    - `deleted`: deleting the task was acknowledged
    - `seen`: a follower was given a journal entry (`number`)
    - `killed`, `stopped`, `continued`: what was done to the process
    - `final`: what the store says at the end (`status`, `result`, `attempt`, `entries`: how many)

    Attributes:
        time: When it was written, in microseconds of a clock that all processes share.
        process: Whom it happened to: a name that no later process has again.
        kind: One of the above, or any other, which is not judged.
        task: The task's id; empty where it is not about one.
        lease: The number of the claim that it is about; 0 where it is about none.
        details: What else there is to tell, strict JSON.
    """

    time: int
    process: str
    kind: str
    task: str = ""
    lease: int = 0
    details: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def since(self) -> int:
        """When the call began that this event tells of."""
        return int(self.details.get("since", self.time))

    def to_json(self) -> str:
        """Return it as one line."""
        fields = {"time": self.time, "process": self.process, "kind": self.kind}
        if self.task:
            fields["task"] = self.task
        if self.lease:
            fields["lease"] = self.lease
        return json.dumps({**fields, **self.details})

    @classmethod
    def from_json(cls, line: str | bytes) -> Event:
        """Return the event that a line tells of.

        Raises:
            ValueError: It is no such line.
        """
        fields = json.loads(line)
        try:
            own = {name: fields.pop(name) for name in ("time", "process", "kind")}
            return cls(**own, task=fields.pop("task", ""), lease=fields.pop("lease", 0), details=fields)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"no event: {line!r:.200}") from error


class History:
    """Where a process writes what happens to it: each event is in the file once `tell` has returned.

    It survives kill -9 of the process, whose last line may then be torn.

    Args:
        directory: Where the histories of all processes are.
        process: The process's name, and the file's.
    """

    def __init__(self, directory: str | os.PathLike[str], process: str) -> None:
        self.process = process
        path = Path(directory) / f"{process}{SUFFIX}"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def tell(self, kind: str, task: str = "", lease: int = 0, **details: Any) -> None:
        """Append one event, which happens now; from any thread."""
        self.tell_all([self.event(kind, task, lease, **details)])

    def event(self, kind: str, task: str = "", lease: int = 0, **details: Any) -> Event:
        """Return an event that happens now, without telling it."""
        return Event(self.now(), self.process, kind, task, lease, details)

    def now(self) -> int:
        """Return the time by the clock of its events, in microseconds."""
        return now_us()

    def tell_all(self, events: Iterable[Event]) -> None:
        """Append events with one write."""
        lines = "".join(f"{event.to_json()}\n" for event in events)
        if lines:
            _write(self._descriptor, lines.encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class HistoryReader:
    """Reads the histories in a directory while they grow.

    Args:
        directory: Where the histories are.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self._directory = Path(directory)
        self._offsets: dict[str, int] = {}

    def read(self) -> list[Event]:
        """Return the events that were written since the last call, in order of their time.

        A last line without its end is left for the next call: its process is writing it, or was killed then.

        Raises:
            ValueError: A line is no event; names the file.
        """
        events: list[Event] = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX) and entry.stat().st_size > self._offsets.get(entry.path, 0):
                    events += self._read(entry.path)
        return sorted(events, key=lambda event: event.time)

    def _read(self, path: str) -> list[Event]:
        offset = self._offsets.get(path, 0)
        with Path(path).open("rb") as file:
            file.seek(offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offsets[path] = offset + len(whole) + len(newline)
        try:
            return [Event.from_json(line) for line in whole.splitlines()]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def read_history(directory: str | os.PathLike[str]) -> list[Event]:
    """Return all that the processes of a run have written, in order of its time.

    Raises:
        ValueError: A line is no event, and not just the torn last one of a killed process.
    """
    return HistoryReader(directory).read()
