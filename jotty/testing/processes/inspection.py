"""What a store must look like after its processes were killed, whatever they were doing."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from jotty.core.queue import LIVE, TaskStatus
from jotty.testing.verdict import Violation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from jotty.core.queue import JournalEntry, Task, TaskQueue

__all__ = ["inspect"]


async def inspect(queue: TaskQueue, torn: Collection[tuple[str, int]] = ()) -> list[Violation]:
    """Return what is not whole in a store that the programs of this package have written.

    Args:
        queue: The store.
        torn: The batches of which tasks may have been deleted, each by its process and number.
    """
    tasks = {task.id: task async for task in queue.tasks()}
    counted = {status: number for status, number in (await queue.stats()).total.items() if number}
    violations = [
        *_counts(Counter(task.status for task in tasks.values()), counted),
        *_identities(list(tasks.values())),
        *_batches(tasks.values(), torn),
    ]
    for task in tasks.values():
        journal = [entry async for entry in queue.events(task.id, follow=False)]
        violations += [*_outcome(task), *_journal(task, journal), *_dependencies(task, tasks)]
    return violations


def _counts(there: Mapping[TaskStatus, int], counted: Mapping[TaskStatus, int]) -> Iterator[Violation]:
    if there != counted:
        yield Violation("C5", f"the store counts {dict(counted)}, and holds {dict(there)}")


def _identities(tasks: Sequence[Task]) -> Iterator[Violation]:
    if len({task.seq for task in tasks}) < len(tasks):
        yield Violation("C13", "two tasks have one place in the order of enqueue")


def _batches(tasks: Iterable[Task], torn: Collection[tuple[str, int]]) -> Iterator[Violation]:
    """Each task says in its goal how many were enqueued with it."""
    batches: defaultdict[tuple[str, int], list[Task]] = defaultdict(list)
    for task in tasks:
        if isinstance(task.goal, dict) and "size" in task.goal:
            batches[task.goal["by"], task.goal["batch"]].append(task)
    for name, batch in batches.items():
        size = batch[0].goal["size"]
        if len(batch) != size and name not in torn:
            yield Violation("C8", f"of batch {name}, {len(batch)} of {size} tasks are there")
        numbers = [task.goal["number"] for task in sorted(batch, key=lambda task: task.seq)]
        if numbers != sorted(numbers):
            yield Violation("C8", f"batch {name} is in the order {numbers}")


def _outcome(task: Task) -> Iterator[Violation]:
    if (task.status is TaskStatus.COMPLETED) != (task.result is not None):
        yield Violation("C28", f"{task!r} has the result {task.result!r}")


def _journal(task: Task, journal: Sequence[JournalEntry]) -> Iterator[Violation]:
    numbers = [entry.number for entry in journal]
    if numbers != list(range(1, len(journal) + 1)):
        yield Violation("C37", f"the journal of {task!r} has the numbers {numbers}")
    ends = [entry.data["status"] for entry in journal if entry.kind == "end"]
    if ends != ([task.status] if task.status.is_terminal else []):
        yield Violation("C37", f"the journal of {task!r} tells of the ends {ends}")
    told = [entry.data for entry in journal if {"number", "of"} <= entry.data.keys()]
    places = [(data["number"], data["of"]) for data in told]
    if not _is_made_of_whole_groups(places):
        yield Violation("C38", f"the journal of {task!r} has halves of what was written at once: {places}")


def _is_made_of_whole_groups(places: Sequence[tuple[int, int]]) -> bool:
    """Whether entries that were written n at once, each as (0, n) to (n - 1, n), are all there or none."""
    at = 0
    while at < len(places):
        size = places[at][1]
        if places[at : at + size] != [(number, size) for number in range(size)]:
            return False
        at += size
    return True


def _dependencies(task: Task, tasks: Mapping[str, Task]) -> Iterator[Violation]:
    if task.status is not TaskStatus.BLOCKED or task.awaiting or task.due is not None:
        return
    if not any(parent in tasks and tasks[parent].status in LIVE for parent in task.depends_on):
        yield Violation("C35", f"{task!r} is blocked for ever")
