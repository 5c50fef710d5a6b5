"""`lines:///tasks.log`: a log in one file, of which every process keeps the tasks in memory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jotty.core.queue import Durability, Log, LogBackend, LogRead
from jotty.errors import StoreCorrupt

from .files import locked, open_own, path_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from jotty.core.queue import Clock

__all__ = ["LinesBackend"]


class LinesLog(Log):
    """Each line of the file is a JSON list: what was appended together, which is seen together or not at all.

    A position is the file, by its inode, and an offset in it. A snapshot is another file in its place.
    """

    def __init__(self, path: Path, url: str, *, create: bool) -> None:
        self._path = path
        self._url = url
        self._file = open_own(path, os.O_RDWR | (os.O_CREAT if create else 0))
        self._lock = open_own(Path(f"{path}.lock"), os.O_RDWR | os.O_CREAT)
        self._end = 0

    def lock(self, timeout: float) -> AbstractContextManager[None]:
        """Keep all others from appending."""
        return locked(self._lock, timeout)

    def read_since(self, position: Any) -> LogRead:
        """Return what follows; a last line without its end is being written, or its writer died at it."""
        if self._path.stat().st_ino != self._inode():
            os.close(self._file)
            self._file = open_own(self._path, os.O_RDWR)
        inode, offset = position or (None, 0)
        is_anew = inode != self._inode()
        start = 0 if is_anew else offset
        data = os.pread(self._file, os.fstat(self._file).st_size - start, start)
        whole = data[: data.rfind(b"\n") + 1]
        self._end = start + len(whole)
        return LogRead(self._lines(whole), (self._inode(), self._end), is_anew=is_anew)

    def append(self, lines: Sequence[str]) -> Any:
        """Add a line to the file, in place of what one who died may have left half written."""
        data = json.dumps(lines).encode() + b"\n"
        os.ftruncate(self._file, self._end)
        if os.pwrite(self._file, data, self._end) < len(data):
            os.ftruncate(self._file, self._end)
            raise OSError(f"{self._path} took only a part of {len(data)} bytes")
        self._end += len(data)
        return self._inode(), self._end

    def snapshot(self, lines: Any, position: Any) -> Any:
        """Write another file, and put it in this one's place."""
        del position  # everything has been read, and all of it is in the lines
        new = Path(f"{self._path}.new")
        draft = open_own(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(os.dup(draft), "w", encoding="ascii") as file:
            file.writelines(f"{json.dumps([line])}\n" for line in lines)
        new.replace(self._path)
        os.close(self._file)
        self._file, self._end = draft, os.fstat(draft).st_size
        return self._inode(), self._end

    def close(self) -> None:
        """Close the files."""
        os.close(self._file)
        os.close(self._lock)

    def _inode(self) -> int:
        return os.fstat(self._file).st_ino

    def _lines(self, data: bytes) -> list[str]:
        try:
            return [line for batch in data.splitlines() for line in json.loads(batch)]
        except ValueError as wrong:
            raise StoreCorrupt(self._url, f"{self._path} holds a line that is no JSON.") from wrong


class LinesBackend(LogBackend):
    """A `QueueBackend` over one file that is appended to, for any number of processes of one machine."""

    scheme = "lines"
    capabilities = frozenset({"event_loops", "processes"})
    durability: Durability = "process"

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        self._path = Path(path).absolute()  # what "relative" means is settled now
        super().__init__(f"lines:///{quote(str(self._path))}", clock=clock)

    @classmethod
    def from_url(cls, location: str, *, clock: Clock | None = None, **options: Any) -> LinesBackend:
        """Make a handle on the file that a URL names."""
        return cls(path_of(location), clock=clock, **options)

    def open_log(self, *, create: bool) -> LinesLog:
        """Return the log in the file."""
        return LinesLog(self._path, self.url, create=create)
