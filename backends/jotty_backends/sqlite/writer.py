"""The thread that has the connection: callers hand it operations, and it commits them in groups."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from jotty.core.queue import Inbox, Operation, deliver
from jotty.errors import QueueClosed, QueueError, StorageError

from .schema import storage_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jotty.core.queue import Topics
    from jotty_backends.file_lock import FileLock

    from .tables import Tables

__all__ = ["Writer"]

T = TypeVar("T")

_TICK: Final = 0.012  # seconds between two looks at what no one tells us: others' commits and locks
_FILE_CHECKED_EVERY: Final = 0.5  # seconds, while all we do is look


class Writer(Inbox["Tables"]):
    """A thread with a connection; all the operations that wait become one transaction.

    Nothing but that thread's own frame refers to the connection: in a forked child it is therefore never
    closed, which would harm the parent's.

    Args:
        connect: Opens the store, in the thread; it is given what to call when the lock has news.
        url: The store's address, for errors.
        path: The file, which must stay the one that was opened.
        topics: Told what was committed.
        patience: Seconds after which an operation that could not begin fails.
    """

    def __init__(
        self,
        connect: Callable[[Callable[[], None]], tuple[Tables, FileLock]],
        *,
        url: str,
        path: str,
        topics: Topics,
        patience: float,
    ) -> None:
        super().__init__(patience)
        self._connect = connect
        self._url = url
        self._path = path
        self._topics = topics
        self._begun: Sequence[Operation[Tables, Any]] = ()
        self._farewells: list[Operation[Tables, None]] = []
        self._is_blocked = False
        self._is_closing = False
        self._version = 0
        self._looked_at = self._checked_at = 0.0
        self._thread = threading.Thread(target=self._main, name=f"jotty {url}", daemon=True)
        self._thread.start()

    # For the callers, on their event loops

    def stop(self) -> None:
        """Have the thread finish what it was given, and end; returns at once."""
        if not self.is_inherited:
            self._is_closing = True
            self.wake()

    async def aclose(self) -> None:
        """Stop, and return when the thread has ended."""
        farewell: Operation[Tables, None] = Operation(lambda _: None)
        with self._guard:
            if self.is_ended:
                return
            self._farewells.append(farewell)
        self.stop()
        await farewell.done.wait()
        self._thread.join()

    # In the thread

    def _main(self) -> None:
        error: Exception = QueueClosed(self._url)
        try:
            tables, lock = self._connect(self._on_lock)
            try:
                self._version = tables.data_version()
                self._file = self._identity()
                while self._turn(tables, lock):
                    pass
            finally:
                tables.close()
                lock.close()
        except Exception as exc:  # noqa: BLE001 - all who wait are told
            error = self._told(exc)
        finally:
            left = [*self.end(error), *self._begun]
            for operation in left:
                operation.error = error
            deliver([*left, *self._farewells])
            self._topics.bump_all()  # who waits for a change is to find out

    def _on_lock(self) -> None:
        self._is_blocked = False
        self.wake()

    def _turn(self, tables: Tables, lock: FileLock) -> bool:
        """Do what there is to do, or wait for it; False if this was the last."""
        is_idle = not self.has_reads() and (not self.has_writes() or self._is_blocked)
        if is_idle and self._is_closing and not self.has_writes():
            return False
        if is_idle:
            self.sleep(_TICK if self._watchers or self.has_writes() else None)
        if self._watchers:
            self._look(tables)
        if not (self.has_reads() or self.has_writes()):
            lock.release()  # it came when nobody needed it any more
            return True
        self._check_file()
        if reads := self.take_reads():
            self._read(tables, reads)
        if self.has_writes():
            self._write(tables, lock)
        return True

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - at each group of operations
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _check_file(self) -> None:
        """Give up a file that was deleted or replaced: nobody else would see what is written to it."""
        if self._identity() != self._file:
            raise StorageError(self._url, "the file was deleted or replaced while it was open.")

    def _read(self, tables: Tables, reads: Sequence[Operation[Tables, Any]]) -> None:
        self._begun = reads
        try:
            tables.begin("DEFERRED")
        except sqlite3.Error as exc:
            for operation in reads:
                operation.error = self._told(exc)
            self._finish(reads)
            raise  # a connection that cannot even begin is given up; the next call makes another
        for operation in reads:
            try:
                operation.run(tables)
            except Exception as exc:  # noqa: BLE001 - its caller is told
                operation.error = self._told(exc)
        tables.rollback()
        self._finish(reads)

    def _write(self, tables: Tables, lock: FileLock) -> None:
        try:
            if not self._begin(tables, lock):
                self._expire(lock)
                return
        except (sqlite3.Error, OSError) as exc:
            lock.release()
            self._refuse(exc)
            return
        # only now, so that those who came while we waited for our turn are in the group
        batch = self._begun = self.take_writes()
        try:
            self._run(tables, batch)
        finally:
            lock.release()
        self._finish(batch)

    def _begin(self, tables: Tables, lock: FileLock) -> bool:
        """Begin a transaction; False if that has to wait for others."""
        self._is_blocked = True
        if not lock.try_acquire():
            lock.request()
            return False
        try:
            tables.begin()
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return False
        self._is_blocked = False
        return True

    def _expire(self, lock: FileLock) -> None:
        """Fail the operations that could not begin in time."""
        late = self.take_late(time.monotonic())
        if not self.has_writes():
            lock.release()
        for operation in late:
            problem = f"database is locked: others kept it for more than {self._patience:g} s."
            operation.error = StorageError(self._url, problem)
        deliver(late)

    def _refuse(self, cause: Exception) -> None:
        batch = self.take_writes()
        for operation in batch:
            operation.error = self._told(cause)
        deliver(batch)

    def _run(self, tables: Tables, batch: Sequence[Operation[Tables, Any]]) -> None:
        """Run operations in the transaction that has begun, and commit them."""
        try:
            for operation in batch:
                _attempt(operation, tables)
            tables.write_all()
        except Exception as exc:  # noqa: BLE001 - its caller is told
            tables.rollback()
            self._run_apart(tables, batch, exc)
            return
        try:
            topics = tables.commit()
        except sqlite3.Error as exc:
            tables.rollback()
            for operation in batch:
                operation.error = self._told(exc)
            return
        self._topics.bump(topics)

    def _run_apart(self, tables: Tables, batch: Sequence[Operation[Tables, Any]], cause: Exception) -> None:
        """Run each operation in a transaction of its own, since one of them has spoiled the group's."""
        if len(batch) == 1:
            batch[0].error = self._told(cause)
            return
        for operation in batch:
            try:
                tables.begin()
            except sqlite3.Error as exc:
                operation.error = self._told(exc)
            else:
                self._run(tables, [operation])

    def _finish(self, batch: Sequence[Operation[Tables, Any]]) -> None:
        self._begun = ()
        deliver(batch)

    def _look(self, tables: Tables) -> None:
        """Wake who waits if another connection has committed since the last look."""
        now = time.monotonic()
        if now - self._looked_at < _TICK:
            return
        if now - self._checked_at >= _FILE_CHECKED_EVERY:
            self._checked_at = now
            self._check_file()
        self._looked_at = now
        with suppress(sqlite3.Error):  # who next uses the store is told
            version = tables.data_version()
            if version != self._version:
                self._version = version
                self._topics.bump_all()

    def _told(self, exc: Exception) -> Exception:
        """Return what a caller is told of an error in the thread."""
        return storage_error(self._url, exc) if isinstance(exc, (sqlite3.Error, OSError)) else exc


def _attempt(operation: Operation[Tables, Any], tables: Tables) -> None:
    try:
        operation.run(tables)
    except QueueError as refusal:  # it has written nothing, see Tables
        operation.error = refusal
