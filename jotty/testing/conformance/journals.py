"""F. Journal: C37 and C38."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from jotty.core.queue import JournalEntry, RetryPolicy, TaskStatus
from jotty.errors import InvalidState, LeaseLost, PayloadError, StoreCorrupt

from .rules import Rules, claim_one, collect, current, everything, under_way, watched

if TYPE_CHECKING:
    from jotty.core.queue import Task, TaskQueue
    from jotty.testing.clock import VirtualClock

    from .rules import QueueFactory

__all__ = ["JournalRules"]

S = TaskStatus


async def _journal(queue: TaskQueue, task: Task, after: int = 0) -> list[JournalEntry]:
    return await collect(queue.events(task.id, after, follow=False))


def _events(*numbers: int) -> list[dict[str, Any]]:
    return [{"kind": "event", "n": number} for number in numbers]


class JournalRules(Rules):
    """C37 and C38: the journal, and questions and answers."""

    async def test_c37_entries_are_numbered_without_holes(self, queue: TaskQueue) -> None:
        """C37: append-only, numbered 1, 2, 3... without holes."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        last = [await queue.record(held, _events(*numbers)) for numbers in [(1, 2), (3,), (), (4, 5, 6)]]
        entries = await _journal(queue, held)

        assert [2, 3, 3, 6] == last
        assert [JournalEntry(n, "event", {"n": n}) for n in range(1, 7)] == entries

    async def test_c37_a_journal_belongs_to_its_task_across_leases(
        self, factory: QueueFactory, queue: TaskQueue
    ) -> None:
        """C37: per task, across leases, and for every handle."""
        await queue.enqueue("goal")
        first = await claim_one(queue)
        await queue.record(first, _events(1))
        await queue.enqueue("other", priority=1)
        other_task = await claim_one(queue)
        await queue.record(other_task, _events(9))
        await queue.release(first)
        async with factory.open() as other:
            second = await claim_one(other)
            number = await other.record(second, _events(2))
            entries = await _journal(other, second)

        assert first.id == second.id
        assert 2 == number
        assert [1, 2] == [entry.data["n"] for entry in entries]
        assert [(1, 9)] == [(entry.number, entry.data["n"]) for entry in await _journal(queue, other_task)]

    async def test_c37_reading_after_n_gives_what_came_later(self, queue: TaskQueue) -> None:
        """C37: reading after N returns exactly what came later, in order, however much it is."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        await queue.record(held, _events(*range(1, 1204)))

        assert list(range(1, 1204)) == [entry.number for entry in await _journal(queue, held)]
        assert [1201, 1202, 1203] == [entry.data["n"] for entry in await _journal(queue, held, 1200)]
        assert [] == await _journal(queue, held, 1203)
        assert [] == await _journal(queue, held, 99_999)

    async def test_c37_appends_of_a_lost_lease_raise(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C37: appends of a lost lease raise LeaseLost, while the holder goes on."""
        await queue.enqueue("goal")
        lost = await claim_one(queue, lease_timeout=1)
        await clock.advance(1)
        await queue.reap()
        held = await claim_one(queue)
        with pytest.raises(LeaseLost):
            await queue.record(lost, _events(1))
        await queue.record(held, _events(2))

        assert [(1, 2)] == [(entry.number, entry.data["n"]) for entry in await _journal(queue, held)]

    async def test_c37_one_end_for_each_terminal_transition(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C37: one terminal event for each terminal transition."""
        task = await queue.enqueue("goal", max_attempts=1)
        await queue.fail(await claim_one(queue), "error")
        await queue.retry(task.id)
        await queue.cancel(task.id)
        await queue.retry(task.id)
        await claim_one(queue, lease_timeout=1)
        await clock.advance(1)
        await queue.reap()
        await queue.retry(task.id)
        held = await claim_one(queue)
        await queue.complete(held, 1)
        await queue.complete(held, 1)
        ends = [entry for entry in await _journal(queue, task) if entry.kind == "end"]

        assert ["failed", "cancelled", "failed", "completed"] == [entry.data["status"] for entry in ends]
        assert clock.now() == ends[-1].data["time"]
        assert "end" == (await _journal(queue, task))[-1].kind

    async def test_c37_a_dependent_that_never_ran_has_its_end_too(self, queue: TaskQueue) -> None:
        """C37: one terminal event for each terminal transition, whoever made it."""
        parent = await queue.enqueue("parent")
        child = await queue.enqueue("child", depends_on=[parent.id])
        await queue.cancel(parent.id)

        assert ["failed"] == [entry.data["status"] for entry in await _journal(queue, child)]

    async def test_c37_client_calls_are_in_the_journal(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C37: answers and client calls enter the journal in the same atomic step as the change they make."""
        task = await queue.enqueue("goal", status="suggested")
        await queue.accept(task.id, run=False)
        await queue.accept(task.id)
        await queue.reprioritise(task.id, 1)
        await queue.answer(task.id, "question", {"a": None})
        await queue.cancel(task.id)
        await queue.retry(task.id)
        with pytest.raises(InvalidState):
            await queue.retry(task.id)
        told = [(entry.kind, entry.data.get("action")) for entry in await _journal(queue, task)]
        answers = [entry.data for entry in await _journal(queue, task) if entry.kind == "answer"]

        assert [
            ("call", "accept"),
            ("call", "accept"),
            ("call", "reprioritise"),
            ("answer", None),
            ("call", "cancel"),
            ("end", None),
            ("call", "retry"),
        ] == told
        assert [{"key": "question", "value": {"a": None}, "time": clock.now()}] == answers

    async def test_c37_a_change_is_never_seen_without_its_entry(
        self, factory: QueueFactory, queue: TaskQueue
    ) -> None:
        """C37: client calls enter the journal in the same atomic step as the change they make."""
        untold: list[Task] = []
        async with factory.open() as other:
            for _ in range(10):
                task = await queue.enqueue("goal")

                async def look(task: Task = task) -> None:
                    is_over = (await current(other, task)).status.is_terminal
                    told = [entry.kind for entry in await _journal(other, task)]
                    if is_over and told != ["call", "end"]:
                        untold.append(task)

                await watched(partial(queue.cancel, task.id), look)

        assert [] == untold

    @pytest.mark.parametrize(
        "wrong",
        [{}, {"kind": 1}, {"n": 1}, {"kind": "end"}, {"kind": "call"}, {"kind": "answer"}, "text", None],
        ids=repr,
    )
    async def test_c37_a_worker_cannot_write_what_the_queue_writes(
        self, queue: TaskQueue, wrong: Any
    ) -> None:
        """C37, C7: an entry is a dict with a text under `kind`, and the queue's own kinds are its own."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        with pytest.raises(PayloadError):
            await queue.record(held, [*_events(1), wrong])

        assert [] == await _journal(queue, held)

    async def test_c37_following_ends_with_the_end(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C37: whoever follows a journal gets every entry in order, the terminal event last, and in time."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        await queue.record(held, _events(1))
        seen: list[int] = []

        async def follow(other: TaskQueue) -> None:
            async for entry in other.events(held.id):
                seen.append(entry.number)  # noqa: PERF401 - the test looks at it meanwhile

        async with factory.open() as other, under_way(clock, lambda: follow(other)) as following:
            await clock.advance(1)
            at_first = list(seen)
            await queue.record(held, _events(2, 3))
            await clock.advance(0.25)
            then = list(seen)
            await queue.complete(held)
            await clock.advance(0.25)

            assert ([1], [1, 2, 3], [1, 2, 3, 4]) == (at_first, then, seen)
            assert (True, None) == (following.is_over, following.error)

    async def test_c37_following_what_is_over_ends_at_once(self, queue: TaskQueue) -> None:
        """C37: the events of a task that is over are all there."""
        await queue.enqueue("goal")
        done = await queue.complete(await claim_one(queue))

        assert ["end"] == [entry.kind for entry in await collect(queue.events(done.id))]

    async def test_c38_an_answer_given_before_the_question_is_there(self, queue: TaskQueue) -> None:
        """C38: a blocked task whose answer is there always wakes: it does not even park."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        await queue.answer(held.id, "b", 1)
        parked = await queue.park(held, ["a", "b"])

        assert (S.PENDING, ("b",), ()) == (parked.status, parked.answered, parked.awaiting)
        assert held.id == (await claim_one(queue)).id

    async def test_c38_one_of_the_awaited_answers_suffices(self, queue: TaskQueue) -> None:
        """C38, C1: the awaited answer given: pending; any other leaves it blocked."""
        await queue.enqueue("goal")
        parked = await queue.park(await claim_one(queue), ["a", "b", "a"])
        other = await queue.answer(parked.id, "c", 1)
        answered = await queue.answer(parked.id, "b", 2)

        assert ("a", "b") == parked.awaiting
        assert [S.BLOCKED, S.PENDING] == [other.status, answered.status]
        assert ((), ("c", "b")) == (answered.awaiting, answered.answered)

    async def test_c38_parking_gives_the_attempt_back(self, queue: TaskQueue) -> None:
        """C31, C38: parking gives the attempt back, and holds no lease."""
        await queue.enqueue("goal", max_attempts=1)
        parked = await queue.park(await claim_one(queue), ["question"])

        assert (S.BLOCKED, 0, 1, None, 0) == (
            parked.status,
            parked.attempt,
            parked.lease,
            parked.due,
            parked.head.lease_until,
        )
        assert parked == await current(queue, parked)

    async def test_c38_a_question_may_expire(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C1: blocked -> pending (the awaited answer expired)."""
        await queue.enqueue("goal")
        until = datetime.fromtimestamp(clock.wall() / 1e6, UTC) + timedelta(seconds=60)
        parked = await queue.park(await claim_one(queue), ["question"], until=until)
        await clock.advance(59.9)
        early = await queue.claim(worker="worker")
        await clock.advance(1.1)
        held = await claim_one(queue)

        assert until == parked.due
        assert [] == early
        assert (parked.id, (), ()) == (held.id, held.awaiting, held.answered)

    async def test_c38_an_answered_question_does_not_expire(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C38: with its answer, nothing is due any more."""
        await queue.enqueue("goal")
        until = datetime.fromtimestamp(clock.wall() / 1e6, UTC) + timedelta(seconds=5)
        parked = await queue.park(await claim_one(queue), ["question"], until=until)
        answered = await queue.answer(parked.id, "question", 1)
        await clock.advance(10)

        assert None is answered.due
        assert 0 == await queue.reap()

    async def test_c38_the_first_answer_stands(self, queue: TaskQueue) -> None:
        """C38: a question has one answer; a second is refused, and not written."""
        task = await queue.enqueue("goal")
        await queue.answer(task.id, "question", 1)
        before = await everything(queue)
        with pytest.raises(InvalidState):
            await queue.answer(task.id, "question", 2)

        assert before == await everything(queue)

    async def test_c38_what_was_journaled_is_there_after_reopening(self, factory: QueueFactory) -> None:
        """C38: what was journaled survives, also a retry."""
        async with factory.open() as queue:
            await queue.enqueue("goal", retry=RetryPolicy(delay=0))
            held = await claim_one(queue)
            await queue.record(held, _events(1, 2))
            await queue.fail(held, "error", retry=False)
            await queue.retry(held.id)
        async with factory.open() as queue:
            entries = await _journal(queue, held)

        assert ["event", "event", "end", "call"] == [entry.kind for entry in entries]

    @pytest.mark.parametrize("damage", [b"\xff", b"{", b"[]", b"{}", b'{"kind":1', b""], ids=repr)
    async def test_c47_a_damaged_entry_is_told(self, queue: TaskQueue, damage: bytes) -> None:
        """C47: damage: StoreCorrupt; what stands before it is read all the same."""
        await queue.enqueue("goal")
        held = await claim_one(queue)
        await queue.record(held, _events(1))
        await queue.backend.append(held.id, held.lease, [damage])
        reader = queue.events(held.id, 1)
        with pytest.raises(StoreCorrupt, match=f"entry 2 of task {held.id}"):
            await anext(reader)

        assert [JournalEntry(1, "event", {"n": 1})] == [await anext(queue.events(held.id))]
