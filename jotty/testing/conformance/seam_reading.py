"""The seam itself, continued: what a backend finds, appends, deletes and waits for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from jotty.core.queue import Head, Query, Record, TaskStatus
from jotty.errors import LeaseLost, QueueClosed

from .rules import Rules, brought_to, claim_one, current, everything, on_another_loop, under_way
from .seam import NOW, next_of, request_of
from .terms import needs

if TYPE_CHECKING:
    from collections.abc import Callable

    from jotty.core.queue import QueueBackend, TaskQueue
    from jotty.testing.clock import VirtualClock

__all__ = ["SeamReadingRules"]

S = TaskStatus


class SeamReadingRules(Rules):
    """What each method of a backend does that does not move tasks."""

    async def test_seam_get_keeps_the_order_asked_for(self, backend: QueueBackend) -> None:
        """get: None for one that is not there; without payload where it is not asked for."""
        await backend.insert([Record(Head(id=name), name.encode()) for name in "abc"])
        found = await backend.get(["c", "x", "a", "c"])
        bare = await backend.get(["a"], payload=False)

        assert [b"c", None, b"a", b"c"] == [record.payload if record else None for record in found]
        assert [None] == [record.payload for record in bare if record]
        assert [] == await backend.get([])

    async def test_seam_get_of_many(self, backend: QueueBackend) -> None:
        """get: as many ids as are asked for."""
        ids = [f"task {number}" for number in range(2500)]
        await backend.insert([Record(Head(id=task_id)) for task_id in ids])
        found = await backend.get(ids, payload=False)

        assert ids == [record.head.id for record in found if record]

    async def test_seam_find_reads_in_pages(self, backend: QueueBackend) -> None:
        """find: in the order of seq, after a seq, at most limit."""
        stored = await backend.insert([Record(Head(id=f"{number}"), b"payload") for number in range(7)])
        first = await backend.find(Query(limit=3))
        second = await backend.find(Query(limit=10, after_seq=first[-1].head.seq, payload=True))

        assert ["0", "1", "2"] == [record.head.id for record in first]
        assert ["3", "4", "5", "6"] == [record.head.id for record in second]
        assert (None, b"payload") == (first[0].payload, second[0].payload)
        assert [] == await backend.find(Query(after_seq=stored[-1].head.seq))

    async def test_seam_find_takes_every_condition_together(self, backend: QueueBackend) -> None:
        """find: every condition that is not None must hold."""
        await backend.insert(
            [
                Record(Head(id="0", lane="a", tags=("t",), key="k", status=S.FAILED, finished_at=5)),
                Record(Head(id="1", lane="a", tags=("t", "u"), key="k")),
                Record(Head(id="2", lane="b", tags=("u",), status=S.BACKLOG)),
                Record(Head(id="3", lane="a", status=S.CANCELLED, finished_at=9)),
            ]
        )

        async def ids(**conditions: Any) -> str:
            return "".join(record.head.id for record in await backend.find(Query(**conditions)))

        assert ["01", "13", "013"] == [
            await ids(key="k"),
            await ids(statuses=[S.PENDING, S.CANCELLED]),
            await ids(lane="a"),
        ]
        assert ["12", "1", "1", "0", ""] == [
            await ids(tag="u"),
            await ids(tag="u", lane="a"),
            await ids(key="k", statuses=[S.PENDING, S.BLOCKED]),
            await ids(finished_before=9),
            await ids(statuses=[]),
        ]
        assert "03" == "".join(sorted(await ids(finished_before=10)))
        assert "1" == await ids(lane="a", after_seq=1, tag="t")

    async def test_seam_find_by_due(self, backend: QueueBackend) -> None:
        """find: due at or before the instant, in the order (due, seq)."""
        blocked = S.BLOCKED
        await backend.insert(
            [
                Record(Head(id=name, status=blocked, awaiting=("q",), due=due))
                for name, due in [("a", 30), ("b", 10), ("c", None), ("d", 20), ("e", 10)]
            ]
        )

        async def ids(due_before: int, limit: int = 9) -> str:
            found = await backend.find(Query(due_before=due_before, limit=limit))
            return "".join(record.head.id for record in found)

        assert ["", "be", "bed", "beda", "b"] == [
            await ids(9),
            await ids(10),
            await ids(29),
            await ids(30),
            await ids(99, limit=1),
        ]

    async def test_seam_count_is_by_lane_and_state(self, backend: QueueBackend) -> None:
        """count: by (lane, status), without zeros."""
        stored = await backend.insert([Record(Head(id=name, lane=name[0])) for name in ("a1", "a2", "b1")])
        await backend.swap([next_of(stored[2].head, lane="a")])

        assert {("a", S.PENDING): 3} == dict(await backend.count())

    async def test_seam_append_is_fenced(self, queue: TaskQueue) -> None:
        """append: the last number, or LeaseLost."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        last = await queue.backend.append(held.id, held.lease, [b"1", b"2"])
        for task_id, lease in [(held.id, held.lease + 1), (held.id, 0), ("unknown", 1)]:
            with pytest.raises(LeaseLost):
                await queue.backend.append(task_id, lease, [b"3"])

        assert 2 == last
        assert [(2, b"2")] == await queue.backend.read(held.id, 1)
        assert [(1, b"1")] == await queue.backend.read(held.id, 0, 1)
        assert [] == await queue.backend.read("unknown")
        assert held.version == (await current(queue, held)).version

    async def test_seam_delete_asks_for_state_and_version(self, queue: TaskQueue) -> None:
        """delete: terminal only, and only under the version that was seen."""
        live = await brought_to(queue, S.PENDING)
        over = await brought_to(queue, S.CANCELLED)
        parent = await queue.enqueue("parent", lane="p")
        deleted = await queue.backend.delete(
            [(live.id, live.version), (over.id, over.version + 1), ("unknown", 1)]
        )
        again = await queue.backend.delete([(over.id, over.version)])

        assert [[False] * 3, [True]] == [deleted, again]
        assert {live.id, parent.id} == set(await everything(queue))

    async def test_seam_wait_with_a_stale_mark_returns_at_once(
        self, backend: QueueBackend, clock: VirtualClock
    ) -> None:
        """wait: at once if the topic has changed already; a mark of -1 gives the current one."""
        mark = await backend.wait("lane:default", -1, 0)
        await backend.insert([Record(Head(id="a"))])
        async with under_way(clock, lambda: backend.wait("lane:default", mark, 3600)) as lane:
            await clock.advance(0.25)

            assert lane.is_over
            assert mark < lane.value
        async with under_way(clock, lambda: backend.wait("task:a", mark, 3600)) as task:
            await clock.advance(0.25)

            assert task.is_over

    async def test_seam_wait_returns_by_its_timeout(self, backend: QueueBackend, clock: VirtualClock) -> None:
        """wait: after the timeout, where nothing has changed."""
        mark = (await backend.claim(request_of())).mark
        async with under_way(clock, lambda: backend.wait("lane:default", mark, 2)) as waiting:
            await clock.advance(2)

            assert waiting.is_over

    async def test_seam_wait_wakes_for_journal_and_state(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """wait: the topic of a task changes when it or its journal is written."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        calls: list[Any] = [
            lambda: queue.record(held, [{"kind": "event"}]),
            lambda: queue.reprioritise(held.id, 1),
            lambda: queue.complete(held),
        ]
        for call in calls:
            mark = await queue.backend.wait(f"task:{held.id}", -1, 0)
            async with under_way(
                clock, partial(queue.backend.wait, f"task:{held.id}", mark, 3600)
            ) as waiting:
                await call()
                await clock.advance(0.25)

                assert waiting.is_over

    async def test_seam_the_time_is_the_clocks(self, backend: QueueBackend, clock: VirtualClock) -> None:
        """now: the store's time in microseconds."""
        before = backend.now()
        await clock.advance(1.5)

        assert 1_500_000 == backend.now() - before

    async def test_seam_closing_is_idempotent_and_final(
        self, open_backend: Callable[[], QueueBackend]
    ) -> None:
        """aclose: idempotent; then QueueClosed everywhere."""
        backend = open_backend()
        await backend.open()
        twin = backend.clone()
        await backend.aclose()
        await backend.aclose()
        calls: list[Any] = [
            lambda: backend.insert([Record(Head(id="a"))]),
            lambda: backend.claim(request_of()),
            lambda: backend.swap([]),
            lambda: backend.turn([], request_of()),
            lambda: backend.extend([], 1),
            lambda: backend.get(["a"]),
            lambda: backend.find(Query()),
            backend.count,
            lambda: backend.append("a", 1, []),
            lambda: backend.read("a"),
            lambda: backend.delete([]),
            lambda: backend.wait("lane:default", -1, 0),
        ]
        for call in calls:
            with pytest.raises(QueueClosed):
                await call()
        await twin.open()
        stored = await twin.insert([Record(Head(id="a"))])
        await twin.aclose()

        assert ["a"] == [record.head.id for record in stored]

    @needs("event_loops")
    async def test_seam_a_clone_works_in_another_thread(
        self, queue: TaskQueue, clock: VirtualClock, anyio_backend: str
    ) -> None:
        """clone: a second handle on the store, to be used in another thread: to keep leases, say."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        twin = queue.backend.clone()

        async def renew() -> list[Record | None]:
            await twin.open()
            try:
                return await twin.extend([(held.id, held.lease)], 90 * NOW)
            finally:
                await twin.aclose()

        (renewed,) = await on_another_loop(clock, anyio_backend, renew)

        assert renewed is not None
        assert clock.now() + 90 * NOW == renewed.head.lease_until
        assert renewed.head == (await current(queue, held)).head
