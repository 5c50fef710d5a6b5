"""What a durable run keeps, and what it remembers of its earlier claims: the seam to the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

__all__ = ["Memory", "Recall", "Record", "Suspended"]


@attrs.frozen
class Record:
    """What a claim has noted of one node.

    Attributes:
        kind: "start", "step", "skip", "error", "route", "cancelled"; of no node: "retried" and "parked".
        label: The node: `write`, or `plan/search[a]` for what `plan` has spawned or holds.
        data: The rest of the entry; see `entries`.
    """

    kind: str
    label: str
    data: Mapping[str, Any]

    @property
    def round(self) -> int:
        """How often a Goto had reset the node."""
        return int(self.data.get("round", 0))

    @property
    def is_outcome(self) -> bool:
        """Whether the node came to something from which the run went on."""
        return self.kind == "step" or (self.kind == "error" and bool(self.data.get("continued")))


class Recall:
    """The records of one level of a run, and of all that its nodes have spawned or hold.

    Attributes:
        records: Those of the nodes of this level, in order.
        steps: Those of the steps within the actor whose level this is, by key.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.steps: dict[str, Record] = {}
        self._below: dict[str, Recall] = {}
        self._rounds: dict[str, int] = {}
        self._latest: dict[str, tuple[str | None, Record | None]] = {}

    def add(self, record: Record) -> None:
        """Take a record in its place; a node that begins another round loses what it held before."""
        *parents, name = record.label.split("/")
        level = self
        for parent in parents:
            level = level.below(parent)
        if (key := record.data.get("key")) is not None:
            level.below(name).steps[key] = record
            return
        if record.kind in {"retried", "parked"}:
            return
        if record.kind == "start" and level._rounds.get(name, 0) != record.round:  # noqa: SLF001 - its own kind
            level._rounds[name] = record.round  # noqa: SLF001
            level._below.pop(name, None)  # noqa: SLF001
        level.records.append(record)
        if record.kind == "start":
            level._latest[name] = record.data.get("inputs"), None  # noqa: SLF001
        elif record.is_outcome and name in level._latest:  # noqa: SLF001
            level._latest[name] = level._latest[name][0], record  # noqa: SLF001

    def below(self, name: str) -> Recall:
        """Return the level within a node."""
        found = self._below.get(name)
        if found is None:
            found = self._below[name] = Recall()
        return found

    def at(self, label: str) -> Recall:
        """Return the level within a node, however deep it stands."""
        level = self
        for name in label.split("/"):
            level = level.below(name)
        return level

    def outcome_of(self, name: str, inputs: str | None) -> Record | None:
        """Return what a node of this level came to when it last ran, if it had the same inputs."""
        of, record = self._latest.get(name, (None, None))
        return record if of == inputs else None


class Memory(Protocol):
    """Where a durable run notes what happens, and finds what was noted in earlier claims."""

    @property
    def records(self) -> Sequence[Record]:
        """What earlier claims have noted of nodes, in order."""
        ...

    @property
    def answers(self) -> Mapping[str, Any]:
        """The answers that questions have had, by key."""
        ...

    @property
    def asked(self) -> Mapping[str, int | None]:
        """When each question that was asked expires, in microseconds or None, by key."""
        ...

    @property
    def usages(self) -> Sequence[tuple[str, int, int, float]]:
        """What models were reported to have consumed: model, input and output tokens, cost."""
        ...

    @property
    def begun(self) -> str | None:
        """The fingerprint of the graph with which the run began; None if it has not."""
        ...

    @property
    def limit(self) -> int:
        """The most bytes of JSON that an output may have."""
        ...

    def put(self, event: Mapping[str, Any], note: Mapping[str, Any] | None = None) -> None:
        """Take an event; it is stored soon, after all that was put before.

        Args:
            event: As it is now.
            note: What is kept beside it: the digest of the `inputs`, the `round`, the `output` as JSON.
                None for an event that says nothing about what is done.
        """
        ...

    def start(self, agent: str, time: float, inputs: str) -> None:
        """Take that an execution begins, the first of its node: what `put` is told of most.

        Args:
            agent: Its label.
            time: When, in seconds.
            inputs: The digest of what it is given.
        """
        ...

    def step(self, agent: str, time: float, seconds: float, progress: tuple[int, int], output: bytes) -> None:
        """Take that it has come to an output at its first attempt.

        Args:
            agent: Its label.
            time: When, in seconds.
            seconds: How long it took.
            progress: How many nodes are settled, and how many known.
            output: As JSON.
        """
        ...

    def note(self, kind: str, **data: Any) -> None:
        """Take what is no event; it is stored as one is."""
        ...

    async def flush(self) -> None:
        """Return once all that was put is stored; while the store does not answer, this waits."""
        ...

    def follow_answers(self) -> AsyncIterator[tuple[str, Any]]:
        """Iterate over the answers that come from now on, by key, without end."""
        ...


class Suspended(Exception):
    """The run can only go on when one of its questions is answered.

    Attributes:
        awaiting: The keys of the questions.
        until: When the first of them expires, in microseconds of the run's clock, or None.
    """

    def __init__(self, awaiting: Sequence[str], until: int | None) -> None:
        self.awaiting = tuple(awaiting)
        self.until = until
        super().__init__(f"The run waits for an answer to {', '.join(awaiting)}.")
