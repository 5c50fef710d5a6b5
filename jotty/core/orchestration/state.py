"""What a run and the runs within it share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from .memory import Recall, Record
from .parking import Parking
from .questions import Questions

if TYPE_CHECKING:
    from .announcer import Announcer
    from .dataflow import Dataflow
    from .memory import Memory
    from .result import ErrorInfo
    from .run import Run

__all__ = ["RunState"]


class Work(Protocol):
    """Something that is at work, or waits: an execution, or something spawned.

    Attributes:
        is_idle: Whether it waits.
    """

    is_idle: bool


class RunState:
    """The course of a run as a whole.

    Attributes:
        top: The run around all others.
        parking: What parks it where only an answer lets it go on.
        tell: See `Announcer.tell`.
        announcer: Where its events go.
        memory: Where a durable run notes what happens, or None.
        recall: What was noted of its nodes.
        questions: What it has asked.
        path: The nodes in the order in which they were started.
        iterations: How many executions count towards the bound.
        errors: The failures that it went on from, or ended by.
        seconds: How long the executions of each node took.
        known: How many nodes were spawned so far.
        finished: How many of those are settled.
        flows: The dataflows of the run and of those within it, by what stands before their labels.
        active: How many executions are at work, rather than waiting for others or for an answer.
    """

    def __init__(self, top: Run, announcer: Announcer, memory: Memory | None) -> None:
        self.top = top
        self.parking = Parking(top)
        self.tell = announcer.tell
        self.announcer = announcer
        self.memory = memory
        self.recall = Recall()
        self.questions = Questions() if memory is None else Questions(memory.answers, memory.asked)
        self.path: list[str] = []
        self.iterations = 0
        self.errors: list[ErrorInfo] = []
        self.seconds: dict[str, float] = {}
        self.known = 0
        self.finished = 0
        self.flows: dict[str, Dataflow] = {}
        self.active = 0

    def idle(self, work: Work) -> None:
        """Count this as being at work no more; if nothing is, the run may come to rest."""
        if not work.is_idle:
            work.is_idle = True
            self.active -= 1
            if not self.active:
                self.parking.rest()

    def wake(self, work: Work) -> None:
        """Count this as being at work again."""
        if work.is_idle:
            work.is_idle = False
            self.active += 1

    def progress(self) -> tuple[int, int]:
        """Return how many nodes are settled, and how many are known."""
        known, left = self.known, self.known - self.finished
        for flow in self.flows.values():
            known += flow.size
            left += len(flow.unsettled)
        return known - left, known

    def note(self, kind: str, **data: Any) -> None:
        """Note what is no event, if the run is durable."""
        if self.memory is not None:
            self.memory.note(kind, time=self.announcer.now(), **data)

    def remember(self, kind: str, label: str, data: dict[str, Any]) -> None:
        """Keep what was noted of something spawned or held, for an actor that is tried again."""
        if self.memory is not None:
            self.recall.add(Record(kind, label, data))
