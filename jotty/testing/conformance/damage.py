"""H. C47, as far as it can be seen from above the seam: what is damaged is told, and the rest served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jotty.core.queue import Head, Record, TaskStatus
from jotty.errors import StoreCorrupt

from .rules import Rules, claim_one, collect

if TYPE_CHECKING:
    from jotty.core.queue import TaskQueue

__all__ = ["DamageRules"]

DAMAGED = pytest.mark.parametrize("damage", [b"", b"\xff", b"{", b"[]", b'{"gaol":1}', b"null"], ids=repr)


class DamageRules(Rules):
    """C47: bytes that are no task's."""

    @DAMAGED
    async def test_c47_a_damaged_payload_is_told(self, queue: TaskQueue, damage: bytes) -> None:
        """C47: damage: StoreCorrupt, which names the task."""
        await queue.enqueue("goal")
        await queue.backend.insert([Record(Head(id="damaged"), damage)])
        with pytest.raises(StoreCorrupt, match="damaged"):
            await queue.get("damaged")

    @DAMAGED
    async def test_c47_the_rest_is_served_beside_a_damaged_payload(
        self, queue: TaskQueue, damage: bytes
    ) -> None:
        """C47: the rest is served: listed, counted, claimed; the damaged task is failed with that error."""
        await queue.enqueue("first")
        await queue.backend.insert([Record(Head(id="damaged"), damage)])
        await queue.enqueue("last")
        listed = await collect(queue.tasks())
        counted = (await queue.stats()).total
        claimed = [(await claim_one(queue)).goal, (await claim_one(queue)).goal]
        nothing = await queue.claim(worker="worker")
        (failed,) = await collect(queue.tasks(status=TaskStatus.FAILED))

        assert ["first", None, "last"] == [task.goal for task in listed]
        assert [None, "StoreCorrupt", None] == [task.error and task.error["type"] for task in listed]
        assert 3 == counted[TaskStatus.PENDING]
        assert (["first", "last"], []) == (claimed, nothing)
        assert ("damaged", "StoreCorrupt") == (failed.id, (failed.error or {}).get("type"))
