"""One transaction at a time on a connection, with what is written once at its end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from jotty.core.queue import SAVE_EVERY, points

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Sequence

    from jotty.core.queue import SteadyClock

    from .rows import Row

__all__ = ["Transaction", "anchor"]

_COUNT = """
INSERT INTO counts VALUES (?, ?, ?)
  ON CONFLICT (lane, status) DO UPDATE SET number = number + excluded.number
"""
_READ = "SELECT value FROM meta WHERE name = ?"
_WRITE = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
PAGES = 4000
_SEEN = """
INSERT INTO meta VALUES ('seen', ?)
  ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)
"""


class Transaction:
    """A connection, and what a transaction on it gathers.

    Counts and the last seq are rows that every change moves: they are written once a transaction. Rows that
    nothing has asked for yet are written together.

    Args:
        connection: In autocommit mode; used by one thread, which closes it here.
        now: The store's time.

    Attributes:
        execute: The connection's own.
        executemany: The connection's own.
        now: The store's time.
        moves: By (lane, status), how many tasks there are more than when the transaction began.
    """

    def __init__(self, connection: sqlite3.Connection, now: Callable[[], int]) -> None:
        self._connection = connection
        self.execute = connection.execute
        self.executemany = connection.executemany
        self.now = now
        self.moves: Counter[tuple[str, str]] = Counter()
        self._late: dict[str, list[Row]] = {}
        self._last_seq: int | None = None
        self._taken = 0
        self._topics: dict[str, None] = {}
        self._saved_at = 0
        self._changes = 0
        self._checkpoints = True

    def begin(self, kind: str = "IMMEDIATE") -> None:
        """Begin: IMMEDIATE to write, DEFERRED to read."""
        self.moves.clear()
        self._late.clear()
        self._last_seq, self._taken = None, 0
        self._topics = {}
        self._changes = self._connection.total_changes
        points.reached("sqlite.begin.before")
        self.execute(f"BEGIN {kind}")
        points.reached("sqlite.begin.after")

    def commit(self) -> Collection[str]:
        """Commit, and return the topics that have changed."""
        self.write_all()
        points.reached("sqlite.commit.before")
        self.execute("COMMIT")
        points.reached("sqlite.commit.after")
        return self._topics

    def rollback(self) -> None:
        """Undo everything, where SQLite has not done so itself."""
        if self._connection.in_transaction:
            self.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def checkpoint_at_commit(self, *, is_on: bool) -> None:
        """Set whether a commit may have to wait for a checkpoint."""
        if is_on is not self._checkpoints:
            self.execute(f"PRAGMA wal_autocheckpoint = {PAGES if is_on else 0}")
            self._checkpoints = is_on

    def data_version(self) -> int:
        """Return a number that changes whenever another connection has committed."""
        return int(self.execute("PRAGMA data_version").fetchone()[0])

    def later(self, statement: str, rows: Iterable[Row]) -> None:
        """Have a statement executed with these rows before the next `ask`, or the commit."""
        self._late.setdefault(statement, []).extend(rows)

    def is_late(self, statement: str) -> bool:
        """Whether rows for this statement wait to be written."""
        return statement in self._late

    def write_all(self) -> None:
        """Write what still waits, so that nothing is left but to commit."""
        self._write_sums()
        self.write_late()

    def write_late(self) -> None:
        """Write what `later` was given."""
        for statement, rows in self._late.items():
            self.executemany(statement, rows)
        self._late.clear()

    def ask(self, question: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Execute what reads the store, as it is with all that was written so far."""
        if self._late:
            self.write_late()
        return self.execute(question, values)

    def touched(self, topics: Iterable[str]) -> None:
        """Remember what to tell once this is committed."""
        for topic in topics:
            self._topics[topic] = None

    def last_seq(self) -> int:
        """Return the last seq that was given out, be it to a task that is gone by now."""
        if self._last_seq is None:
            found = self.execute("SELECT value FROM meta WHERE name = 'last_seq'").fetchone()
            self._last_seq = int(found[0])
        return self._last_seq

    def take_seqs(self, number: int) -> None:
        """Give out this many seqs."""
        self._last_seq = self.last_seq() + number
        self._taken += number

    def _write_sums(self) -> None:
        if self._taken:
            self.execute("UPDATE meta SET value = ? WHERE name = 'last_seq'", (self._last_seq,))
            self._taken = 0
        moves = [(lane, str(status), number) for (lane, status), number in self.moves.items() if number]
        self.moves.clear()
        if moves:
            self.executemany(_COUNT, moves)
        if not self._late and self._connection.total_changes == self._changes:
            return  # an idle worker's look must not be a commit that wakes the others; no time was given out
        now = self.now()
        if abs(now - self._saved_at) >= SAVE_EVERY:
            self.execute(_SEEN, (now,))
            self._saved_at = now


def anchor(clock: SteadyClock, connection: sqlite3.Connection) -> None:
    """Have a clock go by the store's anchor, which it is given if it has none of this boot."""
    if _take_anchor(clock, connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    if not _take_anchor(clock, connection):
        seen = connection.execute(_READ, ("seen",)).fetchone()
        made = clock.new_anchor(seen[0] if seen else None)
        connection.execute(_WRITE, ("anchor", made))
        connection.execute(_WRITE, ("seen", clock.now()))
    connection.execute("COMMIT")


def _take_anchor(clock: SteadyClock, connection: sqlite3.Connection) -> bool:
    found = connection.execute(_READ, ("anchor",)).fetchone()
    return found is not None and clock.take_anchor(found[0])
