"""Where a log keeps what tasks have beside their heads: payloads, outcomes and journals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from .entries import bytes_of, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from jotty.core.queue.task import Head

__all__ = ["Contents", "InlineContents", "Vanished"]


class Vanished(LookupError):
    """Something of a task is not where it was; another process may have deleted it meanwhile."""


class Contents(ABC):
    """Payloads, outcomes and journals of tasks; used by one thread.

    Something of a task is *noted* in the log: `keep` returns the notes, as JSON by name, that go into the
    task's line, and `learn` takes them in where another process reads that line.

    Attributes:
        is_certain: Whether what is not where it was is damaged, rather than deleted by another process just
            now; then nothing raises `Vanished`.
    """

    is_certain = False

    @abstractmethod
    def keep(
        self,
        head: Head,
        payload: bytes | None,
        outcome: bytes | None,
        entries: Sequence[bytes],
        undo: list[Callable[[], object]],
        *,
        is_new: bool,
    ) -> dict[str, Any]:
        """Take in what comes with a head, and return the notes of it; what is None or empty stays as it was.

        Args:
            head: The task.
            payload: Its payload.
            outcome: What replaces its outcome.
            entries: What is added to its journal.
            undo: Where to put what takes this back again.
            is_new: Whether the task is; else its payload is None, and stays.
        """

    @abstractmethod
    def learn(self, head: Head, notes: Mapping[str, Any]) -> None:
        """Take in the notes of a line that another process wrote; other names in it mean nothing here."""

    @abstractmethod
    def notes(self) -> Callable[[Head], dict[str, Any]]:
        """Return what gives all of a task's notes as they are at this moment, whatever changes later."""

    @abstractmethod
    def payload(self, head: Head) -> bytes | None:
        """Return the payload; None if the task has none.

        Raises:
            Vanished: It is not where it was.
        """

    @abstractmethod
    def outcome(self, head: Head) -> bytes | None:
        """Return the outcome; None if there is none yet.

        Raises:
            Vanished: It is not where it was.
        """

    @abstractmethod
    def last_entry(self, head: Head) -> int:
        """Return the number of the last entry of the journal; 0 if there is none."""

    @abstractmethod
    def entries(self, head: Head, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Return entries of the journal after a number.

        Raises:
            Vanished: It is not where it was.
        """

    @abstractmethod
    def forget(self, head: Head, undo: list[Callable[[], object]]) -> None:
        """Let go of all that a task has; it is being deleted."""

    def flush(self) -> None:  # noqa: B027 - there may be nothing to do
        """Have what was kept survive what the log survives; called before the log is appended to.

        Where that fails, nothing is appended, and what was kept is taken back. It is called again before the
        next time, and then owes all that it did not do.
        """

    def settle(self) -> None:  # noqa: B027 - as above
        """Remove for good what was forgotten or replaced; called once the log says so."""

    def sweep(self, last_seq: int, heads: Callable[[int, int], Sequence[Head]]) -> Iterator[None]:
        """Remove what belongs to no task, left behind by processes that died; a little at each step.

        Args:
            last_seq: The last seq given out; of what is beyond, nothing is known.
            heads: Gives the tasks whose seq is from one number up to another.
        """
        del last_seq, heads
        return iter(())


class InlineContents(Contents):
    """All in memory, and whole in the notes: for a log that is the only place there is."""

    def __init__(self) -> None:
        self._payloads: dict[str, bytes] = {}
        self._outcomes: dict[str, bytes] = {}
        self._journals: dict[str, list[bytes]] = {}

    def keep(
        self,
        head: Head,
        payload: bytes | None,
        outcome: bytes | None,
        entries: Sequence[bytes],
        undo: list[Callable[[], object]],
        *,
        is_new: bool,
    ) -> dict[str, Any]:
        """Take in what comes with a head, and return it as JSON."""
        del is_new
        notes: dict[str, Any] = {}
        if payload is not None:
            undo.append(_putting_back(self._payloads, head.id))
            self._payloads[head.id] = payload
            notes["payload"] = text_of(payload)
        if outcome is not None:
            undo.append(_putting_back(self._outcomes, head.id))
            self._outcomes[head.id] = outcome
            notes["outcome"] = text_of(outcome)
        if entries:
            undo.append(self._cutting_off(head.id))
            self._journals.setdefault(head.id, []).extend(entries)
            notes["entries"] = [text_of(entry) for entry in entries]
        return notes

    def learn(self, head: Head, notes: Mapping[str, Any]) -> None:
        """Take in what a line holds."""
        if "payload" in notes:
            self._payloads[head.id] = bytes_of(notes["payload"])
        if "outcome" in notes:
            self._outcomes[head.id] = bytes_of(notes["outcome"])
        if "entries" in notes:
            entries = [bytes_of(entry) for entry in notes["entries"]]
            self._journals.setdefault(head.id, []).extend(entries)

    def notes(self) -> Callable[[Head], dict[str, Any]]:
        """Return what gives all that a task has."""
        payloads, outcomes = self._payloads.copy(), self._outcomes.copy()
        journals = {task_id: entries.copy() for task_id, entries in self._journals.items()}

        def notes_of(head: Head) -> dict[str, Any]:
            notes: dict[str, Any] = {}
            if head.id in payloads:
                notes["payload"] = text_of(payloads[head.id])
            if head.id in outcomes:
                notes["outcome"] = text_of(outcomes[head.id])
            if head.id in journals:
                notes["entries"] = [text_of(entry) for entry in journals[head.id]]
            return notes

        return notes_of

    def payload(self, head: Head) -> bytes | None:
        """Return the payload."""
        return self._payloads.get(head.id)

    def outcome(self, head: Head) -> bytes | None:
        """Return the outcome."""
        return self._outcomes.get(head.id)

    def last_entry(self, head: Head) -> int:
        """Return the number of the last entry of the journal."""
        return len(self._journals.get(head.id, ()))

    def entries(self, head: Head, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Return entries of the journal after a number."""
        found = self._journals.get(head.id, [])[after : after + limit]
        return list(enumerate(found, start=after + 1))

    def forget(self, head: Head, undo: list[Callable[[], object]]) -> None:
        """Let go of all that a task has."""
        for store in (self._payloads, self._outcomes, self._journals):
            if head.id in store:
                undo.append(_putting_back(store, head.id))
                del store[head.id]

    def _cutting_off(self, task_id: str) -> Callable[[], object]:
        number = len(self._journals.get(task_id, ()))

        def cut_off() -> None:
            del self._journals[task_id][number:]
            if not number:
                del self._journals[task_id]

        return cut_off


def _putting_back(store: dict[str, Any], name: str) -> Callable[[], object]:
    """Return what gives a name the value that it has now, or has not."""
    if name not in store:
        return lambda: store.pop(name)
    value = store[name]
    return lambda: store.__setitem__(name, value)
