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
        parked: The nodes of which an execution was parked, and goes on when they begin again.
        errors: The failures that it went on from, or ended by.
        seconds: How long the executions of each node took.
        known: The nodes that no dataflow knows, by label: what was spawned, or ran in an earlier claim.
        finished: Those of them that are settled.
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
        self.questions = (
            Questions(limit=top.options.max_payload if top.options.check_payloads else None)
            if memory is None
            else Questions(memory.answers, memory.asked)
        )
        self.path: list[str] = []
        self.iterations = 0
        self.parked: set[str] = set()
        self.errors: list[ErrorInfo] = []
        self.seconds: dict[str, float] = {}
        self.known: dict[str, None] = {}
        self.finished: set[str] = set()
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
        known, finished = len(self.known), len(self.finished)
        for flow in self.flows.values():
            known += flow.size - flow.count_idle()
            finished += flow.size - len(flow.unsettled)
        return finished, known

    def know(self, label: str) -> None:
        """Take note of a node that no dataflow knows, and that is not settled, or not any more."""
        self.known[label] = None
        self.finished.discard(label)

    def finish(self, label: str) -> None:
        """Take note that it is settled."""
        if label in self.known:
            self.finished.add(label)

    def forget(self, label: str) -> None:
        """Know a node no longer: it was cancelled."""
        self.known.pop(label, None)
        self.finished.discard(label)

    def take_over(self, prefix: str, flow: Dataflow) -> None:
        """Let a dataflow count the nodes whose labels begin so from now on."""
        self.flows[prefix] = flow
        if self.known:
            for name in flow.graph.nodes:
                self.forget(prefix + name)

    def note(self, kind: str, **data: Any) -> None:
        """Note what is no event, if the run is durable."""
        if self.memory is not None:
            self.memory.note(kind, time=self.announcer.now(), **data)

    def remember(self, kind: str, label: str, data: dict[str, Any]) -> None:
        """Keep what was noted of something spawned or held, for an actor that is tried again."""
        if self.memory is not None:
            self.recall.add(Record(kind, label, data))
