"""`FileBackend`, and the `FileTaskQueue` over it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from jotty.core.queue import MAX_PAYLOAD, Clock, Durability, TaskQueue, check_seconds
from jotty.core.queue.log_backend import BUSY_TIMEOUT, LogBackend
from jotty_backends.url_options import OPTIONS, as_durability

from .store import open_store

if TYPE_CHECKING:
    from jotty.core.queue import Random

    from .log import FileLog

__all__ = ["FileBackend", "FileTaskQueue"]

_EFFECTS: Final = (
    "append",
    "create",
    "journal",
    "lock",
    "mkdir",
    "note",
    "remove",
    "rename",
    "sync",
    "unlock",
    "write",
)


class FileBackend(LogBackend):
    """A `QueueBackend` in a directory of plain files, for any number of processes of one machine.

    Every process holds the heads of all tasks in memory. Directory and files are for their owner alone; a
    directory that is a symbolic link is refused, and none in it is followed. After a fork, the child opens a
    handle of its own.

    Args:
        directory: Created at `open`, in a directory that exists; relative to the working directory of this
            moment.
        durability: What a returned write survives: "process" (kill -9 of every process) or "power" (loss of
            power as well, at the price of some fsyncs for each group of writes).
        create: Whether to make the directory if there is none; else that is a StorageError.
        busy_timeout: Seconds after which a call fails that others keep from the directory.
        clock: Another source of time than the store's own.

    Raises:
        ValueError: An argument is wrong.
    """

    scheme = "file"
    options = OPTIONS
    capabilities = frozenset({"event_loops", "files", "processes"})
    points = tuple(f"file.{effect}.{side}" for effect in _EFFECTS for side in ("after", "before"))

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        durability: Durability = "process",
        create: bool = True,
        busy_timeout: float = BUSY_TIMEOUT,
        clock: Clock | None = None,
    ) -> None:
        named = os.fspath(directory)
        if not named or "\0" in named:
            raise ValueError(f"directory must name a directory, not {named!r}.")
        if named.startswith("file:"):
            raise ValueError(
                f"directory must be a path, not the URL {named!r}. Pass the URL to open_queue()."
            )
        check_seconds("busy_timeout", busy_timeout)
        self.durability = as_durability(durability)
        self._path = str(Path(named).absolute())
        self._create = create
        place = f"file:{os.path.realpath(self._path)}"
        super().__init__(f"file:///{quote(named)}", clock=clock, busy_timeout=busy_timeout, place=place)

    @classmethod
    def from_url(cls, location: str, *, clock: Clock | None = None, **options: Any) -> FileBackend:
        """Make a handle on `///relative/directory` or `////absolute`; percent-encoding is undone."""
        path = unquote(location.removeprefix("///"))
        if not location.startswith("///") or not path:
            raise ValueError(
                f"file:{location} names no directory. Write file:///relative or file:////absolute."
            )
        return cls(path, clock=clock, **options)

    def open_log(self, *, create: bool) -> FileLog:
        """Return the log of the store."""
        return open_store(
            self._path,
            self.url,
            create=create and self._create,
            is_synced=self.durability == "power",
            patience=self._busy_timeout,
        )


class FileTaskQueue(TaskQueue):
    """A `TaskQueue` in a directory of plain files, shared by any number of processes of one machine.

    Args:
        directory: Created at first use.
        durability: What a returned write survives: "process" (kill -9) or "power" (loss of power as well).
        clock: Another source of time, for tests.
        random: Where ids and jitter come from.
        max_size: The most live tasks; None for no bound.
        max_payload: The most bytes of JSON a task, a result or a journal entry may have.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] = "tasks",
        *,
        durability: Durability = "process",
        clock: Clock | None = None,
        random: Random | None = None,
        max_size: int | None = None,
        max_payload: int = MAX_PAYLOAD,
    ) -> None:
        super().__init__(
            FileBackend(directory, durability=durability, clock=clock),
            clock=clock,
            random=random,
            max_size=max_size,
            max_payload=max_payload,
        )
