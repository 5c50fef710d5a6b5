"""The log of a store, through all its generations: what `LogBackend` asks for."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import attrs

from jotty.core.queue.log.seam import Log, LogRead
from jotty.core.queue.points import reached
from jotty.errors import StorageError, StoreCorrupt

from .contents import FileContents
from .directory import cut, read_at, sync, write
from .envelope import read_batches, sealed_batch
from .generation import LOG, Generation, header_of
from .lock import StoreLock
from .note import Note, noted_length
from .snapshot import Snapshot, SnapshotDraft

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from .directory import Directory

__all__ = ["FileLog"]

logger = logging.getLogger("jotty.queue.file")

_CHUNK: Final = 1 << 20
_SMALL: Final = 4 << 20  # bytes; no log is too long with fewer
_SUSPECT: Final = "what was written last may not have come to the disk."


@attrs.frozen
class _Place:
    """A position: between two batches of a log, or between two lines of its snapshot."""

    generation: int
    offset: int
    is_in_snapshot: bool = False


def _is_snapshot(name: str) -> bool:
    return name.startswith("snapshot-") and name.endswith(".jsonl")


class FileLog(Log):
    """A log in a directory that has been made and checked.

    Args:
        root: The directory; closed here.
        url: The store's address, for errors.
        is_synced: Whether what is appended must survive the loss of power.
        patience: Seconds to wait for the lock where a damaged line is to be judged.
    """

    def __init__(self, root: Directory, *, url: str, is_synced: bool, patience: float) -> None:
        self._root = root
        self._url = url
        self._is_synced = is_synced
        self._patience = patience
        self._lock: StoreLock | None = None
        self._note = Note(root)
        self._snapshot: Snapshot | None = None
        self._snapshot_size = 0
        self._has_damage = False
        self._log = Generation.opened(root, url)
        self._at = _Place(0, 0)  # behind the last batch that was read or written

    def close(self) -> None:
        """Close the files."""
        if self._lock is not None:
            self._lock.close()
        self._note.close()
        if self._snapshot is not None:
            self._snapshot.close()
        self._log.close()
        self._root.close()

    def contents(self) -> FileContents:
        """Return the files beside the log."""
        return FileContents(self._root, url=self._url, is_synced=self._is_synced)

    def lock(self, timeout: float) -> AbstractContextManager[None]:
        """Have the lock of the lock file, which is opened only now: who reads needs none."""
        return self._open_lock().held(timeout)

    def _open_lock(self) -> StoreLock:
        if self._lock is None:
            self._lock = StoreLock(self._root, self._url)
        return self._lock

    # Reading

    def has_grown(self, position: _Place) -> bool:
        """Look at the size of the log."""
        return self._size() != position.offset

    def read_since(self, position: Any) -> LogRead:
        """Return what follows, about a megabyte at most."""
        if position is None:
            return self._read_anew()
        if position.is_in_snapshot:
            return self._read_snapshot(position)
        size = self._size()
        if size is None:
            return self._follow(position)
        return self._read_log(position, size)

    def _size(self) -> int | None:
        """Return the size of the log; None if that of another generation has taken its place.

        Raises:
            StorageError: The whole directory is gone, or is another.
        """
        try:
            found = os.lstat(f"{self._root.path}/{LOG}")
            if (found.st_dev, found.st_ino) == self._log.identity:
                return found.st_size
            here = os.lstat(self._root.path)
            if (here.st_dev, here.st_ino) == self._root.identity:
                return None
        except (FileNotFoundError, NotADirectoryError):
            pass
        raise StorageError(self._url, "the directory was deleted or replaced while it was open.")

    def _read_anew(self) -> LogRead:
        noted = noted_length(self._root)  # before the log, which others make longer
        self._change_to(Generation.opened(self._root, self._url))
        if noted is not None and noted[0] == self._log.number:
            self._check_length(noted[1])
        name = self._log.snapshot
        if name is None:
            read = self._read_log(_Place(self._log.number, self._log.start), self._size() or 0)
            return attrs.evolve(read, is_anew=True)
        try:
            self._snapshot = Snapshot(self._root, name, self._url)
        except FileNotFoundError:
            if self._size() is None:  # another generation has begun just now
                return self._read_anew()
            raise StoreCorrupt(self._url, f"{name} is missing. Restore it from a backup.") from None
        self._snapshot_size = self._snapshot.size
        read = self._read_snapshot(_Place(self._log.number, 0, is_in_snapshot=True))
        return attrs.evolve(read, is_anew=True)

    def _change_to(self, log: Generation) -> None:
        if self._snapshot is not None:
            self._snapshot.close()
        self._log.close()
        self._log, self._snapshot, self._snapshot_size = log, None, 0
        self._has_damage = False

    def _read_snapshot(self, position: _Place) -> LogRead:
        if self._snapshot is None:
            return self._read_anew()
        lines, end = self._snapshot.read(position.offset)
        if end < self._snapshot.size:
            return LogRead(lines, attrs.evolve(position, offset=end))
        self._snapshot.close()
        return LogRead(lines, _Place(position.generation, self._log.start))

    def _follow(self, position: _Place) -> LogRead:
        """Go over to the next generation; whose beginning one has read to need not read its snapshot."""
        new = Generation.opened(self._root, self._url)
        if new.number != position.generation + 1:
            new.close()
            return self._read_anew()
        if position.offset < new.base:
            new.close()
            return self._read_log(position, new.base)
        self._change_to(new)
        with suppress(OSError):
            self._snapshot_size = self._root.status(str(new.snapshot)).st_size
        return self.read_since(_Place(new.number, new.start + position.offset - new.base))

    def _read_log(self, position: _Place, size: int) -> LogRead:
        if size < position.offset:
            raise StoreCorrupt(self._url, f"{LOG} is shorter than it was. Restore it from a backup.")
        chunk = _CHUNK
        while size > position.offset:
            data = read_at(self._log.descriptor, position.offset, min(position.offset + chunk, size))
            batches = read_batches(data)
            if batches.damaged:
                if self._may_judge():
                    return self._judged(position)
                self._set_aside(position, data, batches.damaged)
            position = attrs.evolve(position, offset=position.offset + batches.length)
            if batches.lines:
                self._at = position
                return LogRead(batches.lines, position)
            if not batches.length:
                if len(data) < chunk:
                    break  # the rest is being written, or what is left of one who died at it
                chunk *= 2
        self._at = position
        return LogRead((), position)

    # Damage

    def _may_judge(self) -> bool:
        """Whether the lock could be had, but is not."""
        try:
            return not self._open_lock().is_held
        except OSError:
            return False

    def _judged(self, position: _Place) -> LogRead:
        """Read while nobody writes: what is unsound then is damaged."""
        try:
            with self.lock(self._patience):
                return self.read_since(position)
        except TimeoutError as late:
            problem = f"others kept it locked for more than {self._patience:g} s."
            raise StorageError(self._url, problem) from late

    def _check_length(self, length: int) -> None:
        """Tell of a log that has lost its end, and leave word of it among what is damaged."""
        found = os.fstat(self._log.descriptor).st_size
        if found >= length:
            return
        problem = (
            f"{LOG} has lost its last {length - found} bytes: tasks may be missing, or as they once were."
        )
        logger.warning("%s: %s", self._url, problem)
        with suppress(OSError):
            aside = self._root.child("damaged", create=True)
            name = f"{LOG}-{self._log.number}-{found}-lost"
            aside.create(name, f"{problem}\n".encode(), is_synced=self._is_synced)

    def _set_aside(self, position: _Place, data: bytes, damaged: Sequence[tuple[int, int]]) -> None:
        """Copy damaged lines, which the next snapshot leaves out."""
        self._has_damage = True
        for start, end in damaged:
            name = f"{LOG}-{position.generation}-{position.offset + start}"
            logger.warning("%s: %s holds a damaged line, set aside as damaged/%s.", self._url, LOG, name)
            with suppress(OSError):  # where nothing can be written, it stays where it is
                aside = self._root.child("damaged", create=True)
                aside.create(name, data[start:end] + b"\n", is_synced=self._is_synced)

    # Writing

    def append(self, lines: Sequence[str]) -> _Place:
        """Write lines in one piece, behind the last batch that is whole."""
        self._check_writable()
        descriptor, end, data = self._log.descriptor, self._at.offset, sealed_batch(lines)
        left = os.fstat(descriptor).st_size - end
        if left:
            logger.warning("%s: cut off %s bytes of %s that were never whole.", self._url, left, LOG)
            cut(descriptor, end)
        try:
            reached("file.append.before")
            write(descriptor, data)
            reached("file.append.after")
        except OSError:
            with suppress(OSError):  # then the next who writes does it
                cut(descriptor, end)
            raise
        if self._is_synced:
            self._sync()
        self._at = _Place(self._log.number, end + len(data))
        self._note.set_length(self._at.generation, self._at.offset)
        return self._at

    def _check_writable(self) -> None:
        if not self._log.is_writable:
            raise PermissionError(errno.EACCES, "the system does not let it be written", LOG)
        if self._note.is_suspect:
            raise StorageError(self._url, _SUSPECT)

    def _sync(self) -> None:
        try:
            sync(self._log.descriptor)
        except OSError:
            # nobody knows what has come to the disk, and a second try would say that all has: all is to be
            # written anew
            self._note.suspect()
            raise

    # Snapshots

    def is_worn(self) -> bool:
        """Whether some of it may have lost its way to the disk."""
        return self._note.is_suspect

    def is_long(self, lines: int, tasks: int) -> bool:
        """Whether the log is much longer than its snapshot, or holds damaged lines."""
        del lines, tasks
        return self._has_damage or self._at.offset > _SMALL + 3 * self._snapshot_size

    def draft(self) -> SnapshotDraft:
        """Return the file that is to be the next snapshot."""
        return SnapshotDraft(self._root)

    def snapshot(self, lines: SnapshotDraft, position: _Place) -> _Place:
        """Begin another log, from that snapshot on; the old one is there until it takes its place.

        That survives the loss of power at every level: else it would take all tasks, not the last ones alone.
        """
        old = self._log
        if position.generation != old.number:
            return self._at
        since = read_at(old.descriptor, position.offset, self._at.offset)
        if since and self._note.is_suspect:
            raise StorageError(self._url, _SUSPECT)
        name = f"snapshot-{old.number + 1}.jsonl"
        lines.finish(name)
        header = header_of(old.number + 1, position.offset, name)
        self._root.prepare(LOG, header + since)
        with self._note.suspecting():
            self._root.establish(LOG)
        self._change_to(Generation.opened(self._root, self._url))
        self._snapshot_size = self._root.status(name).st_size
        with suppress(OSError):  # the old ones harm nobody
            self._root.remove(*(one for one in self._root.names() if _is_snapshot(one) and one != name))
        self._at = _Place(self._log.number, len(header) + len(since))
        self._note.set_length(self._at.generation, self._at.offset)
        return self._at
