"""What the log says of the files that a task has beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from jotty.core.queue.log.entries import bytes_of, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["NEW", "Noted"]

_PAYLOAD: Final = "payload"
_OUTCOME: Final = "outcome"
_TOLD: Final = "told"
_JOURNAL: Final = "journal"
_LATE: Final = "late"


@attrs.frozen
class Noted:
    """What the log says of a task's files.

    What ends a task stands in the log itself where the system refuses its file: else nothing could end it.

    Attributes:
        has_payload: Whether there is one.
        outcome: The number of the outcome; 0 if there is none yet.
        told: The outcome, where it has no file.
        entries: How many entries the journal has.
        length: How many bytes of its file these are; what follows them never was.
        late: The last entries, where the file has them not.
    """

    has_payload: bool = True
    outcome: int = 0
    told: bytes | None = None
    entries: int = 0
    length: int = 0
    late: tuple[bytes, ...] = ()

    @property
    def in_file(self) -> int:
        """How many entries are in the journal's file."""
        return self.entries - len(self.late)

    def with_late(self, entries: Sequence[bytes]) -> Noted:
        """Return the same with entries that its file does not take."""
        return attrs.evolve(self, entries=self.entries + len(entries), late=(*self.late, *entries))

    def learnt(self, notes: Mapping[str, Any]) -> Noted:
        """Return what is known after a line with these notes."""
        noted = self
        if _PAYLOAD in notes:
            noted = attrs.evolve(noted, has_payload=False)
        if _OUTCOME in notes:
            told = bytes_of(notes[_TOLD]) if _TOLD in notes else None
            noted = attrs.evolve(noted, outcome=notes[_OUTCOME], told=told)
        if _JOURNAL in notes:
            entries, length = notes[_JOURNAL]
            late = tuple(map(bytes_of, notes.get(_LATE, ())))
            noted = attrs.evolve(noted, entries=entries, length=length, late=late)
        return noted

    def notes_since(self, before: Noted) -> dict[str, Any]:
        """Return the notes of what has changed."""
        notes: dict[str, Any] = {}
        if self.has_payload != before.has_payload:
            notes[_PAYLOAD] = None
        if self.outcome != before.outcome:
            notes[_OUTCOME] = self.outcome
            if self.told is not None:
                notes[_TOLD] = text_of(self.told)
        if self.entries != before.entries:
            notes[_JOURNAL] = [self.entries, self.length]
            if self.late:
                notes[_LATE] = [text_of(entry) for entry in self.late]
        return notes


NEW: Final = Noted()
