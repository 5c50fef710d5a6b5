"""The seam itself: what `QueueBackend` promises to policy, call by call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest

from jotty.core.queue import (
    Change,
    ClaimRequest,
    Head,
    NewTask,
    Outcome,
    Record,
    Ref,
    TaskStatus,
    lifecycle,
)
from jotty.errors import QueueFull, TaskNotFound

from .rules import Rules, claim_one, current

if TYPE_CHECKING:
    from jotty.core.queue import QueueBackend, TaskQueue
    from jotty.testing.clock import VirtualClock


__all__ = ["NOW", "SeamRules", "next_of", "request_of"]

S = TaskStatus
NOW = 1_000_000


def request_of(*lanes: str, limit: int = 1, lease: float = 30.0) -> ClaimRequest:
    """Return a request for tasks of these lanes, with a lease in seconds."""
    return ClaimRequest(lanes or ("default",), limit, "worker", int(lease * 1e6))


def next_of(head: Head, **changes: Any) -> Change:
    """Return the swap from a head to the same with these changes."""
    return Change(head.version, Record(attrs.evolve(head, version=head.version + 1, **changes)))


class SeamRules(Rules):
    """What each method of a backend does, beyond what the contract's rules show of it."""

    async def test_seam_insert_sets_what_only_the_store_knows(
        self, backend: QueueBackend, clock: VirtualClock
    ) -> None:
        """insert: sets seq, created_at, an unset run_at; payload and outcome come back as they were."""
        later = clock.now() + 5
        stored = await backend.insert(
            [Record(Head(id="a"), b"payload"), Record(Head(id="b", run_at=later), None, b"outcome")]
        )
        first, second = (record.head for record in stored)

        assert [(b"payload", None), (None, b"outcome")] == [
            (record.payload, record.outcome) for record in stored
        ]
        assert (clock.now(), later) == (first.run_at, second.run_at)
        assert {clock.now()} == {first.created_at, second.created_at}
        assert 1 <= first.seq < second.seq
        assert [1, 1] == [first.version, second.version]
        assert stored == await backend.get(["a", "b"])

    async def test_seam_insert_makes_edges(self, backend: QueueBackend) -> None:
        """insert: due=0 for a blocked task none of whose dependencies is live, or one of which failed."""
        blocked = S.BLOCKED
        await backend.insert([Record(Head(id="live")), Record(Head(id="over", status=S.COMPLETED))])
        stored = await backend.insert(
            [
                Record(Head(id="a", status=blocked, depends_on=("live",))),
                Record(Head(id="b", status=blocked, depends_on=("over",))),
                Record(Head(id="c", status=blocked, depends_on=("a", "over"))),
            ]
        )

        assert [None, 0, None] == [record.head.due for record in stored]

    async def test_seam_insert_refuses_as_a_whole(self, backend: QueueBackend) -> None:
        """insert: TaskNotFound and QueueFull store nothing."""
        with pytest.raises(TaskNotFound):
            await backend.insert([Record(Head(id="a")), Record(Head(id="b", depends_on=("unknown",)))])
        with pytest.raises(TaskNotFound):
            await backend.insert(
                [Record(Head(id="a", depends_on=("b",))), Record(Head(id="b"))]  # b comes later in the list
            )
        with pytest.raises(QueueFull):
            await backend.insert([Record(Head(id="a")), Record(Head(id="b"))], limit=1)

        assert [None, None] == await backend.get(["a", "b"])
        assert {} == dict(await backend.count())

    async def test_seam_claim_gives_payload_and_outcome(self, backend: QueueBackend) -> None:
        """claim: records come with payload and outcome."""
        (stored,) = await backend.insert([Record(Head(id="a"), b"payload", b"outcome")])
        (record,) = (await backend.claim(request_of())).records

        assert (b"payload", b"outcome") == (record.payload, record.outcome)
        assert S.IN_PROGRESS is record.head.status
        assert stored.head.version + 1 == record.head.version

    async def test_seam_claim_tells_what_comes_next(self, backend: QueueBackend, clock: VirtualClock) -> None:
        """claim: next_at is the soonest run_at in these lanes or due in the store; None if none or full."""
        now = clock.now()
        empty = await backend.claim(request_of())
        await backend.insert([Record(Head(id="b", run_at=now + 7 * NOW, lane="b"))])
        elsewhere = await backend.claim(request_of("a"))
        await backend.insert(
            [Record(Head(id="a", run_at=now + 9 * NOW, lane="a")), Record(Head(id="c", lane="c"))]
        )
        soonest = await backend.claim(request_of("a", "b"))
        full = await backend.claim(request_of("c", lease=3))
        due = await backend.claim(request_of("a", "b", limit=2))
        await clock.advance(8)
        partly = await backend.claim(request_of("a", "b", limit=2, lease=100))

        assert [None, None, now + 7 * NOW] == [empty.next_at, elsewhere.next_at, soonest.next_at]
        assert (["c"], None) == ([record.head.id for record in full.records], full.next_at)
        assert now + 3 * NOW == due.next_at
        assert (["b"], now + 3 * NOW) == ([record.head.id for record in partly.records], partly.next_at)

    async def test_seam_claim_of_none_only_tells(self, backend: QueueBackend, clock: VirtualClock) -> None:
        """claim: a limit of 0 takes nothing, and asks only for mark and next_at."""
        await backend.insert([Record(Head(id="a"))])
        claimed = await backend.claim(request_of(limit=0))

        assert ([], clock.now()) == (claimed.records, claimed.next_at)

    async def test_seam_swap_of_a_stale_version_changes_nothing(self, queue: TaskQueue) -> None:
        """swap: STALE with what is in the store, GONE for no task; the others of the batch take effect."""
        stale, fine = await queue.enqueue_many([NewTask("stale"), NewTask("fine")])
        await queue.reprioritise(stale.id, 1)
        swapped = await queue.backend.swap(
            [
                next_of(stale.head, priority=5),
                next_of(Head(id="gone"), priority=5),
                next_of(fine.head, priority=5),
            ]
        )

        assert [Outcome.STALE, Outcome.GONE, Outcome.OK] == [one.outcome for one in swapped]
        assert [1, None, 5] == [one.record.head.priority if one.record else None for one in swapped]
        assert [1, 5] == [(await current(queue, task)).priority for task in (stale, fine)]

    async def test_seam_swap_keeps_payload_and_outcome_unless_given(self, backend: QueueBackend) -> None:
        """swap: payload and outcome stay where None is given; a new outcome replaces the old."""
        (stored,) = await backend.insert([Record(Head(id="a"), b"payload", b"old")])
        (first,) = await backend.swap([next_of(stored.head, priority=1)])
        assert first.record is not None
        kept = await backend.get(["a"])
        change = next_of(first.record.head)
        await backend.swap([attrs.evolve(change, record=attrs.evolve(change.record, outcome=b"new"))])
        replaced = await backend.get(["a"])

        assert [(b"payload", b"old"), (b"payload", b"new")] == [
            (record.payload, record.outcome) for record in (*kept, *replaced) if record
        ]

    async def test_seam_swap_with_a_taken_key_is_refused(self, backend: QueueBackend) -> None:
        """swap: KEY_TAKEN, with the task that has the key, where a task would come back to life."""
        over, _ = await backend.insert(
            [Record(Head(id="a", key="key", status=S.FAILED)), Record(Head(id="b", key="key"))]
        )
        (swapped,) = await backend.swap([next_of(over.head, status=S.PENDING)])

        assert Outcome.KEY_TAKEN is swapped.outcome
        assert swapped.record is not None
        assert "b" == swapped.record.head.id
        assert [over] == await backend.get(["a"])

    async def test_seam_swap_puts_in_the_time(self, backend: QueueBackend, clock: VirtualClock) -> None:
        """swap: a run_at of 0 means now."""
        (stored,) = await backend.insert([Record(Head(id="a"))])
        await clock.advance(3)
        (swapped,) = await backend.swap([next_of(stored.head, run_at=0)])

        assert swapped.record is not None
        assert clock.now() == swapped.record.head.run_at

    async def test_seam_swap_fires_the_children(self, backend: QueueBackend) -> None:
        """swap: each blocked child with no edge left, or whose parent did not complete, is fired."""
        blocked = S.BLOCKED
        stored = await backend.insert(
            [
                Record(Head(id="p")),
                Record(Head(id="q")),
                Record(Head(id="of p", status=blocked, depends_on=("p",))),
                Record(Head(id="of both", status=blocked, depends_on=("p", "q"))),
            ]
        )
        completed, failed = await backend.swap(
            [
                next_of(stored[0].head, status=S.COMPLETED, finished_at=1),
                next_of(stored[1].head, status=S.FAILED, finished_at=1),
            ]
        )
        of_p, of_both = await backend.get(["of p", "of both"])

        assert [("of p",), ("of both",)] == [completed.fired, failed.fired]
        assert of_p is not None
        assert of_both is not None
        assert [(0, 2), (0, 2)] == [(one.head.due, one.head.version) for one in (of_p, of_both)]

    async def test_seam_swap_to_blocked_makes_edges(self, backend: QueueBackend) -> None:
        """swap: one that makes a task blocked records its edges as insert does."""
        parent, child = await backend.insert(
            [Record(Head(id="p")), Record(Head(id="c", status=S.BACKLOG, depends_on=("p",)))]
        )
        (swapped,) = await backend.swap([next_of(child.head, status=S.BLOCKED)])
        (ended,) = await backend.swap([next_of(parent.head, status=S.COMPLETED, finished_at=1)])
        over = attrs.evolve(child.head, id="d")
        (late,) = await backend.insert([Record(over)])
        (at_once,) = await backend.swap([next_of(late.head, status=S.BLOCKED)])

        assert swapped.record is not None
        assert (None, ("c",)) == (swapped.record.head.due, ended.fired)
        assert at_once.record is not None
        assert 0 == at_once.record.head.due

    async def test_seam_swap_appends_entries_with_the_change(self, backend: QueueBackend) -> None:
        """swap: entries are appended in the same step, and not at all where the swap is refused."""
        (stored,) = await backend.insert([Record(Head(id="a"))])
        change = attrs.evolve(next_of(stored.head, priority=1), entries=[b"1", b"2"])
        await backend.swap([change])
        await backend.swap([change])

        assert [(1, b"1"), (2, b"2")] == await backend.read("a")

    async def test_seam_turn_swaps_then_claims(self, queue: TaskQueue) -> None:
        """turn: swap, then claim; a stale change never stops the claim."""
        stale, waiting, held = await queue.enqueue_many(
            [NewTask("stale", lane="x"), NewTask("waiting"), NewTask("held", priority=1)]
        )
        held = await claim_one(queue)
        swapped, claimed = await queue.backend.turn(
            [
                next_of(attrs.evolve(stale.head, version=9)),
                Change(held.version, Record(_released(held.head))),
            ],
            request_of(limit=5),
        )

        assert [Outcome.STALE, Outcome.OK] == [one.outcome for one in swapped]
        assert [held.id, waiting.id] == [record.head.id for record in claimed.records]
        assert [2, 1] == [record.head.lease for record in claimed.records]

    async def test_seam_turn_without_changes_claims(self, backend: QueueBackend) -> None:
        """turn: nothing to swap is no reason not to claim."""
        await backend.insert([Record(Head(id="a"))])
        swapped, claimed = await backend.turn([], request_of())

        assert ([], ["a"]) == (swapped, [record.head.id for record in claimed.records])

    async def test_seam_extend_renews_what_is_held(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """extend: until = max(old, now + us), due follows, version + 1; None: lost."""
        await queue.enqueue_many([NewTask(0), NewTask(1)])
        first, second = (task.head for task in await queue.claim(worker="w", limit=2, lease_timeout=30))
        await clock.advance(10)
        leases = [(first.id, first.lease), (second.id, second.lease + 1), ("unknown", 1)]
        renewed = await queue.backend.extend(leases, 40 * NOW)
        until = clock.now() + 40 * NOW

        assert [attrs.evolve(first, lease_until=until, due=until, version=3), None, None] == [
            record.head if record else None for record in renewed
        ]

    async def test_seam_an_item_with_a_live_key_stands_for_its_task(self, queue: TaskQueue) -> None:
        """insert: the task with the key takes the item's place in the `depends_on` of later items."""
        first, _, third = await queue.enqueue_many(
            [NewTask("1", key="key"), NewTask("2", key="key"), NewTask("3", depends_on=[Ref(1), Ref(0)])]
        )

        assert (first.id,) == third.depends_on


def _released(head: Head) -> Head:
    return lifecycle.released(head, 1)
