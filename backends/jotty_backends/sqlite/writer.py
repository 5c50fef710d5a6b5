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
_FEW: Final = 4  # operations: with more, the hand-over costs less than what it spares the event loop
_SLOW: Final = 0.002  # seconds: a store that keeps an event loop for that long, on average,
_REST: Final = 20  # is left to the thread for so many times as long as the last time took
_LENT_AT_MOST: Final = 200  # groups in a row: only the thread waits for checkpoints


class Writer(Inbox["Tables"]):
    """A thread with a connection; all the operations that wait become one transaction.

    The thread lends the connection to an event loop for a few brief operations: to hand them over, and to
    wake the loop again, takes two threads several times as long as to do them. It lends nothing where a
    commit waits for the disk, where others have the lock, or where the loop had to wait before.

    As long as the thread runs, its own frame refers to the connection: in a forked child, where that frame
    stays and the thread is not, nobody closes the connection, which would harm the parent's.

    Args:
        connect: Opens the store, in the thread; it is given what to call when the lock has news.
        url: The store's address, for errors.
        path: The file, which must stay the one that was opened.
        topics: Told what was committed.
        patience: Seconds after which an operation that could not begin fails.
        lends: Whether the connection may be lent.
    """

    def __init__(
        self,
        connect: Callable[[Callable[[], None]], tuple[Tables, FileLock]],
        *,
        url: str,
        path: str,
        topics: Topics,
        patience: float,
        lends: bool,
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
        self._lends = lends
        self._store: tuple[Tables, FileLock] | None = None  # to be lent
        self._using = threading.Lock()  # held by who uses the connection
        self._done: list[Operation[Tables, Any]] = []
        self._problem: Exception | None = None
        self._lent = 0
        self._lends_from = self._kept_for = 0.0
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
                if self._lends:
                    self._store = tables, lock
                while self._turn(tables, lock):
                    pass
            finally:
                with self._using:
                    self._store = None
                    tables.close()
                    lock.close()
        except Exception as exc:  # noqa: BLE001 - all who wait are told
            error = self._told(exc)
        finally:
            left = [*self.end(error), *self._begun]
            for operation in left:
                operation.error = error
            deliver([*self._take_done(), *left, *self._farewells])
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
        with self._using:
            if self._problem is not None:
                raise self._problem
            self._serve_in_thread(tables, lock)
            done = self._take_done()
        deliver(done)  # without the connection: who is told may want it at once
        return True

    def _serve_in_thread(self, tables: Tables, lock: FileLock) -> None:
        if self._watchers:
            self._look(tables)
        if not (self.has_reads() or self.has_writes()):
            lock.release()  # it came when nobody needed it any more
            return
        self._check_file()
        self._lent = 0
        tables.checkpoint_at_commit(is_on=True)
        self._serve(tables, lock)

    def _serve(self, tables: Tables, lock: FileLock) -> None:
        if reads := self.take_reads():
            self._read(tables, reads)
        if self.has_writes():
            self._write(tables, lock)

    def _take_done(self) -> list[Operation[Tables, Any]]:
        done, self._done = self._done, []
        return done

    # On an event loop, which the connection is lent to

    def serve_here(self) -> bool:
        """Do what waits, if it is little and nothing is in its way."""
        began = time.monotonic()
        if not self._may_lend(began) or not self._using.acquire(blocking=False):
            return False
        try:
            if self._store is None or self._problem or self._identity() != self._file:
                return False
            self._lent += 1
            tables, lock = self._store
            tables.checkpoint_at_commit(is_on=False)
            self._serve(tables, lock)
            done = self._take_done()
        except Exception as exc:  # noqa: BLE001 - the thread ends with it, and tells who waits
            self._problem = exc
            return False
        except BaseException:  # Ctrl-C: nobody knows how far this came
            self._problem = StorageError(self._url, "a call was interrupted.")
            self.wake()
            raise
        finally:
            self._using.release()
        deliver(done)
        self._note_loan(began, time.monotonic())
        return not self.has_writes()

    def _may_lend(self, now: float) -> bool:
        if self._store is None or self._is_blocked or self.is_inherited:
            return False
        if self._lent >= _LENT_AT_MOST or now < self._lends_from:
            return False
        waiting = [*self._reads, *self._writes]
        return len(waiting) <= _FEW and all(operation.is_brief for operation in waiting)

    def _note_loan(self, began: float, ended: float) -> None:
        self._kept_for += (ended - began - self._kept_for) / 10
        if self._kept_for > _SLOW:
            self._kept_for, self._lends_from = 0.0, ended + _REST * (ended - began)

    # Either of the two

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
        self._done += late

    def _refuse(self, cause: Exception) -> None:
        batch = self.take_writes()
        for operation in batch:
            operation.error = self._told(cause)
        self._done += batch

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
        self._done += batch
        self._begun = ()

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
