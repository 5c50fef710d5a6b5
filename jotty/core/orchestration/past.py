"""What a run's journal says of its earlier claims."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .memory import Record

if TYPE_CHECKING:
    from jotty.core.queue import JournalEntry

__all__ = ["Past"]

_OF_NODES: Final = frozenset({"start", "step", "skip", "error", "route"})


class Past:
    """Folds the entries of a journal, in order.

    Attributes:
        records: What was noted of nodes.
        answers: The answers that questions have had, by key; the first counts.
        asked: When each question that was asked expires, in microseconds or None, by key.
        usages: What models were reported to have consumed: model, input and output tokens, cost.
        begun: The fingerprint of the graph with which the run began, or None.
        last: The number of the last entry, or None.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.answers: dict[str, Any] = {}
        self.asked: dict[str, int | None] = {}
        self.usages: list[tuple[str, int, int, float]] = []
        self.begun: str | None = None
        self.last: int | None = None

    def add(self, entry: JournalEntry) -> None:
        """Take one more entry into account."""
        self.last = entry.number
        kind, data = entry.kind, entry.data
        if kind in _OF_NODES:
            self.records.append(Record(kind, data["agent"], data))
        elif kind == "event":
            self._add_event(data["event"], data)
        elif kind == "run":
            self.begun = data.get("graph", "")
        elif kind in {"answer", "expired"}:
            self.answers.setdefault(data["key"], data["value"])
        elif kind == "question":
            self.asked[data["key"]] = data.get("until")
        elif kind == "usage":
            usage = (data["model"], data["input_tokens"], data["output_tokens"], data["cost"])
            self.usages.append(usage)
        elif kind == "parked":
            self.records.append(Record("parked", "", {}))
        elif kind == "call" and data["action"] == "retry":
            self.records.append(Record("retried", "", {}))

    def _add_event(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        if event["type"] == "agent_cancelled":
            self.records.append(Record("cancelled", event["agent"], data))
