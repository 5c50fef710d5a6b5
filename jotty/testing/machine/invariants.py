"""What holds after every step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis.stateful import invariant

from jotty.core.queue import TaskStatus
from jotty.testing.moves import LIVE

from .expectation import Expectations, difference, summary

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Invariants"]


class Invariants(Expectations):
    """C5, C9 and C37, seen through a handle that no fault strikes."""

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        """Insist on all of it: one line a step in a failing script."""
        self.check_tasks()
        self.check_counts()
        self.check_keys()
        self.check_journals()

    def check_tasks(self) -> None:
        """Nothing lost, nothing twice, and every field as it must be (C5)."""
        seen = self.seen()
        told = difference(summary(self.model), seen)

        assert not told, f"C5: the tasks are not what they must be\n{told}"
        assert self.model.enqueued - self.model.deleted == len(seen), "C5: nothing lost, nothing twice"

    def check_counts(self) -> None:
        """The counts equal the model's (C5)."""
        total = dict.fromkeys(TaskStatus, 0)
        for model in self.model.tasks.values():
            total[model.status] += 1
        counted = self.run(self.observer.stats()).total

        assert total == counted, (
            f"C5: the counts must be {_above_zero(total)}, and are {_above_zero(counted)}"
        )

    def check_keys(self) -> None:
        """At most one live task has a key (C9)."""
        keys = [model.key for model in self.model.tasks.values() if model.key and model.status in LIVE]

        assert len(keys) == len(set(keys)), f"C9: the live tasks have the keys {keys}"

    def check_journals(self) -> None:
        """One terminal event for each terminal transition, and numbers without holes (C37)."""
        for place, model in enumerate(self.model.tasks.values()):
            entries = self.journal(model.id)
            numbers = [entry.number for entry in entries]
            ends = [entry.data["status"] for entry in entries if entry.kind == "end"]
            assert list(range(1, model.entries + 1)) == numbers, f"C37: task {place} has entries {numbers}"
            assert model.ends == ends, (
                f"C37: task {place} ended as {model.ends}, and its journal tells {ends}"
            )


def _above_zero(counts: Mapping[TaskStatus, int]) -> dict[str, int]:
    return {status.value: number for status, number in counts.items() if number}
