"""What happened in a run, and when: its events, or its journal, folded into rows. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import attrs

from jotty.core.queue import MICROSECONDS

from .entries import event_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from jotty.core.queue import JournalEntry

__all__ = ["RowStatus", "Timeline", "TimelineQuestion", "TimelineRow"]

RowStatus: TypeAlias = Literal["running", "waits", "done", "goto", "end", "failed", "skipped", "cancelled"]
_KINDS: Final[Mapping[str, RowStatus]] = {"output": "done", "goto": "goto", "end": "end"}
_ENDINGS: Final = frozenset({"workflow_complete", "workflow_error"})


@attrs.define(eq=False)
class TimelineQuestion:
    """A question that an actor asked.

    Attributes:
        key: Names it, for the answer.
        question: The question.
        options: The answers to choose from, or None for any.
        asked: When it was asked, in seconds.
        until: When it expires, in seconds, or None; known from a journal only.
        answered: When it was answered, or its default taken, in seconds; None if it was not, or nobody told.
        answer: The answer.
        is_default: Whether nobody answered in time, so that it is the default.
        is_open: Whether an answer is still waited for.
    """

    key: str
    question: str
    options: list[Any] | None
    asked: float
    until: float | None = None
    answered: float | None = None
    answer: Any = None
    is_default: bool = False
    is_open: bool = True

    def take(self, answer: Any, at: float, *, is_default: bool = False) -> None:
        """Take an answer, if it is the first."""
        if self.answered is None:
            self.answer, self.answered, self.is_default, self.is_open = answer, at, is_default, False


@attrs.define(eq=False)
class TimelineRow:
    """One execution of an actor, or one step within it.

    An execution that made room while it waited for an answer, and then began anew, is one row.

    Attributes:
        label: The actor's name in the run: `plan/search[a]` for what `plan` has spawned, and `report/write`
            within a conductor `report`.
        step: The key of the step, where it is one (`ctx.step`), else None.
        round: How often a Goto had reset the actor before.
        began: When it began, in seconds since the Unix epoch, as in the events.
        ended: When it was over, or None. What was skipped ended as it began.
        seconds: How long it took; of a row that waited for an answer, once it had it. None until it is over.
        attempts: How many attempts it took so far.
        note: What there is to add: an error, why it was skipped, where a Goto leads.
        questions: What it asked.
        children: What it spawned or holds, and its steps, in the order in which they began.
        depth: In how many others it is.
        is_parked: Whether it has made room until there is an answer: to its own question, or to one of those
            below it.
    """

    label: str
    round: int
    began: float
    depth: int = 0
    is_parked: bool = False
    step: str | None = None
    ended: float | None = None
    seconds: float | None = None
    attempts: int = 1
    note: str = ""
    questions: list[TimelineQuestion] = attrs.field(factory=list)
    children: list[TimelineRow] = attrs.field(factory=list)
    _status: RowStatus = "running"

    @property
    def name(self) -> str:
        """What it is called among its siblings."""
        return self.label.rpartition("/")[2] if self.step is None else self.step

    @property
    def status(self) -> RowStatus:
        """How it stands.

        "waits" is for an answer; "goto" and "end" are what it came to, if that was no output.
        """
        if self._status != "running":
            return self._status
        return "waits" if self.is_parked or any(each.is_open for each in self.questions) else "running"

    @property
    def rows(self) -> Iterator[TimelineRow]:
        """This row, and all below it."""
        yield self
        for child in self.children:
            yield from child.rows

    def end(
        self, status: RowStatus, at: float | None, seconds: float | None = None, *, note: str = ""
    ) -> None:
        """Take note of its end; what it asked is not open any more."""
        self._status, self.ended, self.note, self.is_parked = status, at, note, False
        if seconds is None and at is not None:
            seconds = at - self.began
        self.seconds = seconds
        for each in self.questions:
            each.is_open = False


class Timeline:
    """Folds what is told of a run: its events as they come, or the entries of its task's journal.

    A journal says more: the steps within actors, and the answers to questions. What is told twice, or
    begins anew, is told at its place.

    Attributes:
        began: When the run began, in seconds since the Unix epoch; None until it has.
        ended: When it was over, or None.
        finished: How many nodes of the run were settled at last.
        known: How many there were, as far as was known.
    """

    def __init__(self) -> None:
        self._reset()

    @classmethod
    def of(cls, events: Iterable[Mapping[str, Any]]) -> Timeline:
        """Return the timeline of these events."""
        made = cls()
        for event in events:
            made.add(event)
        return made

    def _reset(self) -> None:
        self.began: float | None = None
        self.ended: float | None = None
        self.finished = self.known = 0
        self._roots: list[TimelineRow] = []
        self._last: dict[str, TimelineRow] = {}
        self._rounds: dict[str, int] = {}
        self._asked: dict[str, TimelineQuestion] = {}

    @property
    def rows(self) -> tuple[TimelineRow, ...]:
        """All rows, each before those below it, otherwise in the order in which they began."""
        return tuple(row for root in self._roots for row in root.rows)

    @property
    def questions(self) -> tuple[TimelineQuestion, ...]:
        """All questions, in the order in which they were asked."""
        return tuple(self._asked.values())

    def asker_of(self, question: TimelineQuestion) -> str:
        """Return the label of the row that asked this."""
        return next(row.label for row in self.rows if question in row.questions)

    def of_label(self, label: str) -> tuple[TimelineRow, ...]:
        """Return the executions of one actor, in their order."""
        return tuple(row for row in self.rows if row.label == label and row.step is None)

    def add(self, event: Mapping[str, Any]) -> None:
        """Take one more event into account."""
        kind = event["type"]
        if kind == "workflow_start":
            self._reset()
            self.began = event["time"]
        elif kind in _ENDINGS:
            self._close(event["time"])
        elif kind in _TAKERS:
            if self.began is None:
                self.began = event["time"]
            _TAKERS[kind](self, event["agent"], event)
        if "known" in event:
            self.finished, self.known = event["finished"], event["known"]

    def add_entry(self, entry: JournalEntry) -> None:
        """Take one more entry of the journal into account; the entries are given from the first."""
        data = entry.data
        if entry.kind == "step" and "key" in data:
            self._take_step(data)
        elif entry.kind == "answer" and data["key"] in self._asked:
            self._asked[data["key"]].take(data["value"], data["time"] / MICROSECONDS)
        elif entry.kind == "expired" and data["key"] in self._asked:
            self._asked[data["key"]].take(data["value"], data["time"], is_default=True)
        elif entry.kind == "end":
            self._close(data["time"] / MICROSECONDS)
        elif entry.kind == "call" and data["action"] == "retry":
            self.ended = None
        elif (event := event_of(entry, "")) is not None:
            self.add(event)
            if entry.kind == "question" and data.get("until") is not None:
                self._asked[data["key"]].until = data["until"] / MICROSECONDS

    # Rows

    def _place(self, row: TimelineRow, parent: str) -> None:
        """Put a row below the execution that it belongs to."""
        above = self._last.get(parent) if parent else None
        row.depth = 0 if above is None else above.depth + 1
        (self._roots if above is None else above.children).append(row)

    def _open(self, label: str, at: float) -> TimelineRow:
        row = TimelineRow(label, self._rounds.get(label, 0), at)
        self._place(row, label.rpartition("/")[0])
        self._last[label] = row
        return row

    def _current(self, label: str, event: Mapping[str, Any]) -> TimelineRow:
        """Return the row that an event is about; its beginning may not have been told."""
        row = self._last.get(label)
        return self._open(label, event["time"]) if row is None else row

    def _close(self, at: float) -> None:
        """Take note of the end of the run; what has not ended by itself is cancelled."""
        self.ended = at
        for row in self.rows:
            if row.ended is None:
                row.end("cancelled", at)

    # Events

    def _start(self, label: str, event: Mapping[str, Any]) -> None:
        before = self._last.get(label)
        self._rounds[label] = event["round"]
        if before is not None and before.round == event["round"] and before.is_parked:
            before.is_parked, before.attempts = False, 1
            return
        row = self._open(label, event["time"])
        if before is not None and before.ended is None:
            before.end("cancelled", event["time"])
        if before is not None and before.round == row.round:  # it will ask again, and nobody tells
            row.questions = [each for each in before.questions if each.answered is None]
            for each in row.questions:
                each.is_open = True

    def _retry(self, label: str, event: Mapping[str, Any]) -> None:
        row, error = self._current(label, event), event["error"]
        row.attempts = event["attempt"] + 1
        row.note = f"{error['type']}: {error['message']}".removesuffix(": ")

    def _complete(self, label: str, event: Mapping[str, Any]) -> None:
        row = self._current(label, event)
        row.attempts = event["attempt"]
        note = f"to {event['target']}" if event["target"] else ""
        row.end(_KINDS[event["kind"]], event["time"], event["seconds"], note=note)
        for each in event["reset"]:
            self._rounds[each] = self._rounds.get(each, 0) + 1

    def _fail(self, label: str, event: Mapping[str, Any]) -> None:
        row = self._last.get(label)
        if row is None or row.ended is not None:  # it could not even begin
            row = self._open(label, event["time"])
        row.attempts, error = event["attempt"], event["error"]
        note = f"{error['type']}: {error['message']}".removesuffix(": ")
        row.end("failed", event["time"], event["seconds"], note=note)

    def _skip(self, label: str, event: Mapping[str, Any]) -> None:
        row = self._open(label, event["time"])
        row.attempts = 0
        row.end("skipped", event["time"], note=event["reason"])

    def _cancel(self, label: str, event: Mapping[str, Any]) -> None:
        row = self._current(label, event)
        is_void = self._rounds.get(label, 0) != row.round
        if not is_void and any(each.is_open for one in row.rows for each in one.questions):
            row.is_parked = True
        elif row.ended is None:
            row.end("cancelled", event["time"])

    def _ask(self, label: str, event: Mapping[str, Any]) -> None:
        key, options = event["key"], event["options"]
        asked = self._asked[key] = TimelineQuestion(key, event["question"], options, event["time"])
        self._current(label, event).questions.append(asked)

    def _take_step(self, data: Mapping[str, Any]) -> None:
        label, at = data["agent"], data["time"]
        row = TimelineRow(label, self._rounds.get(label, 0), at - data["seconds"], step=data["key"])
        row.end("done", at, data["seconds"])
        self._place(row, label)


_TAKERS: Final = {
    "agent_start": Timeline._start,  # noqa: SLF001 - a table of its own methods
    "agent_retry": Timeline._retry,  # noqa: SLF001
    "agent_complete": Timeline._complete,  # noqa: SLF001
    "agent_error": Timeline._fail,  # noqa: SLF001
    "agent_skipped": Timeline._skip,  # noqa: SLF001
    "agent_cancelled": Timeline._cancel,  # noqa: SLF001
    "input_required": Timeline._ask,  # noqa: SLF001
}
