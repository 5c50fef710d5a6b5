"""E. Finish: C35 and C36, dependencies and retry."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import attrs
import pytest

from jotty.core.queue import Change, NewTask, Query, Record, Ref, TaskStatus
from jotty.errors import InvalidState, TaskNotFound

from .interposed import InterposedBackend
from .rules import Rules, brought_to, claim_one, collect, current, everything, head_of

if TYPE_CHECKING:
    from jotty.core.queue import Task, TaskQueue
    from jotty.core.queue.task import OnDependency
    from jotty.testing.clock import VirtualClock

    from .rules import QueueFactory

__all__ = ["DependencyRules"]

S = TaskStatus
LATER = 3600.0


async def _family(queue: TaskQueue, parents: int, on_dependency: OnDependency = "fail") -> list[Task]:
    """Enqueue parents, each in a lane of its own (`0`, `1`, ...), and last a child of them all."""
    new = [NewTask("parent", lane=str(number)) for number in range(parents)]
    refs = [Ref(number) for number in range(parents)]
    return await queue.enqueue_many([*new, NewTask("child", depends_on=refs, on_dependency=on_dependency)])


async def _end(queue: TaskQueue, lane: str, status: TaskStatus) -> None:
    held = await claim_one(queue, lane=lane, lease_timeout=LATER)
    if status is S.COMPLETED:
        await queue.complete(held)
    elif status is S.FAILED:
        await queue.fail(held, "error", retry=False)
    else:
        await queue.cancel(held.id)
        await queue.release(held)


async def _statuses(queue: TaskQueue, *tasks: Task) -> list[TaskStatus]:
    return [(await head_of(queue, task)).status for task in tasks]


class DependencyRules(Rules):
    """C35 and C36: `depends_on`, and an explicit retry."""

    async def test_c35_a_task_is_blocked_until_all_dependencies_are_completed(self, queue: TaskQueue) -> None:
        """C35: a task with `depends_on` is blocked until all of them are completed."""
        *_, child = await _family(queue, 3)
        states = [child.status]
        for lane in "201":
            await _end(queue, lane, S.COMPLETED)
            states.append((await head_of(queue, child)).status)

        assert [S.BLOCKED, S.BLOCKED, S.BLOCKED, S.PENDING] == states
        assert "child" == (await claim_one(queue)).goal

    async def test_c35_what_is_completed_already_does_not_block(self, queue: TaskQueue) -> None:
        """C35: only what is not completed blocks."""
        parent = await brought_to(queue, S.COMPLETED)
        child = await queue.enqueue("child", depends_on=[parent.id, parent.id])

        assert (S.PENDING, (parent.id,)) == (child.status, child.depends_on)
        assert child == await current(queue, child)

    @pytest.mark.parametrize("ending", [S.FAILED, S.CANCELLED])
    @pytest.mark.parametrize(
        ("on_dependency", "expected"), [("fail", S.FAILED), ("cancel", S.CANCELLED), ("run", S.PENDING)]
    )
    async def test_c35_a_dependency_that_does_not_complete_decides(
        self, queue: TaskQueue, ending: TaskStatus, on_dependency: OnDependency, expected: TaskStatus
    ) -> None:
        """C35: a dependency that fails or is cancelled fails it (or, as asked, cancels or runs it)."""
        parent, child = await _family(queue, 1, on_dependency)
        await _end(queue, "0", ending)
        after = await current(queue, child)

        assert expected is after.status
        assert (parent.id in str(after.error)) == (expected is S.FAILED)

    @pytest.mark.parametrize("ending", [S.FAILED, S.CANCELLED])
    @pytest.mark.parametrize(
        ("on_dependency", "expected"), [("fail", S.FAILED), ("cancel", S.CANCELLED), ("run", S.PENDING)]
    )
    async def test_c35_so_does_one_that_is_over_already(
        self, queue: TaskQueue, ending: TaskStatus, on_dependency: OnDependency, expected: TaskStatus
    ) -> None:
        """C35: also where the dependency failed or was cancelled before the task was enqueued."""
        parent = await brought_to(queue, ending)
        child = await queue.enqueue("child", depends_on=[parent.id], on_dependency=on_dependency)

        assert expected is child.status
        assert child == await current(queue, child)

    @pytest.mark.parametrize(("on_dependency", "expected"), [("fail", S.FAILED), ("cancel", S.CANCELLED)])
    async def test_c35_one_broken_dependency_suffices(
        self, queue: TaskQueue, on_dependency: OnDependency, expected: TaskStatus
    ) -> None:
        """C35: a dependency that fails, fails it, at once: the others need not end first."""
        *_, child = await _family(queue, 3, on_dependency)
        await _end(queue, "1", S.FAILED)
        states = await _statuses(queue, child)
        await _end(queue, "0", S.COMPLETED)
        await _end(queue, "2", S.COMPLETED)

        assert [expected] * 2 == states + await _statuses(queue, child)

    async def test_c35_run_waits_for_the_others(self, queue: TaskQueue) -> None:
        """C35: on_dependency="run" takes a broken dependency for a met one; the others are waited for."""
        *_, child = await _family(queue, 3, "run")
        states = []
        for lane, ending in [("0", S.FAILED), ("1", S.CANCELLED), ("2", S.COMPLETED)]:
            await _end(queue, lane, ending)
            states += await _statuses(queue, child)

        assert [S.BLOCKED, S.BLOCKED, S.PENDING] == states

    async def test_c35_failure_spreads_down_a_chain(self, queue: TaskQueue) -> None:
        """C35: a dependency that fails, fails its dependents, and these theirs."""
        chain = [NewTask("0", lane="0")] + [NewTask(str(at), depends_on=[Ref(at - 1)]) for at in range(1, 20)]
        tasks = await queue.enqueue_many(chain)
        await _end(queue, "0", S.FAILED)

        assert [S.FAILED] * 20 == await _statuses(queue, *tasks)

    async def test_c35_cancelling_a_waiting_parent_spreads(self, queue: TaskQueue) -> None:
        """C35: a dependency that is cancelled while it waits decides as well."""
        parent, child = await _family(queue, 1)
        await queue.cancel(parent.id)

        assert [S.CANCELLED, S.FAILED] == await _statuses(queue, parent, child)

    async def test_c35_a_reaped_lease_spreads(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C35: also when a reaped lease is what failed it."""
        parent = await queue.enqueue("parent", max_attempts=1)
        child = await queue.enqueue("child", depends_on=[parent.id])
        await claim_one(queue, lease_timeout=1)
        await clock.advance(1)
        await queue.reap()

        assert [S.FAILED, S.FAILED] == await _statuses(queue, parent, child)

    async def test_c35_a_task_that_is_tried_again_keeps_its_children_waiting(self, queue: TaskQueue) -> None:
        """C35: only failed and cancelled are failures, not a failed attempt."""
        parent, child = await _family(queue, 1)
        await queue.fail(await claim_one(queue, lane="0"), "error", delay=0)
        states = await _statuses(queue, parent, child)
        await _end(queue, "0", S.COMPLETED)

        assert [S.PENDING, S.BLOCKED] == states
        assert [S.COMPLETED, S.PENDING] == await _statuses(queue, parent, child)

    async def test_c35_after_a_crash_any_worker_goes_on(
        self, factory: QueueFactory, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C35, C4: where whoever ended the parent died right after, its children wait for nobody else."""
        parent, child = await _family(queue, 1)
        held = await claim_one(queue, lane="0")
        (swapped,) = await queue.backend.swap([_ended(held, clock.now())])
        async with factory.open() as other:
            await clock.advance(1)
            await other.claim(worker="other")

        assert (child.id,) == swapped.fired
        assert [S.CANCELLED, S.FAILED] == await _statuses(queue, parent, child)

    async def test_c35_a_retried_parent_is_waited_for_again(self, queue: TaskQueue) -> None:
        """C35: a parent that failed and was retried does not leave its child blocked for ever."""
        parent, _, child = await _family(queue, 2, "run")
        await _end(queue, "0", S.FAILED)
        await queue.retry(parent.id)
        await _end(queue, "1", S.COMPLETED)
        await _end(queue, "0", S.COMPLETED)

        assert [S.PENDING] == await _statuses(queue, child)

    @pytest.mark.parametrize("on_dependency", ["fail", "cancel", "run"])
    async def test_c35_a_retried_parent_whose_end_nobody_saw_still_wakes_its_child(
        self, queue: TaskQueue, clock: VirtualClock, on_dependency: OnDependency
    ) -> None:
        """C35, C4: whoever ended the parent died right after, and it was retried before anybody looked."""
        parent, child = await _family(queue, 1, on_dependency)
        held = await claim_one(queue, lane="0")
        await queue.backend.swap([_ended(held, clock.now())])
        await queue.retry(parent.id)
        await queue.reap()
        await _end(queue, "0", S.COMPLETED)
        await queue.reap()

        assert [S.BLOCKED] != await _statuses(queue, child)

    @pytest.mark.parametrize("how", ["delete", "purge"])
    async def test_c35_deleting_a_broken_dependency_first_breaks_its_children(
        self, factory: QueueFactory, clock: VirtualClock, how: str
    ) -> None:
        """C35, C34: a dependency that failed is not forgotten before its dependents have seen it."""
        backend = InterposedBackend(factory.open_backend())
        async with factory.open() as other, factory.open(backend=backend) as queue:
            parent, child = await _family(other, 1)
            held = await claim_one(other, lane="0")
            await clock.advance(1)

            async def fail_and_die() -> None:
                backend.before.clear()
                await other.backend.swap([_ended(held, clock.now() - 1)])

            # just before the parent is looked for: policy has had its regular look by then, or has it yet
            backend.before["find_finished" if how == "purge" else "get"] = fail_and_die
            await (queue.purge(timedelta(0)) if how == "purge" else queue.delete(parent.id))
            await other.reap()
            gone, after = await other.get(parent.id), await head_of(other, child)

        assert None is gone
        assert S.FAILED is after.status

    async def test_c35_purged_dependencies_that_completed_do_not_block(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C35: what was completed stays met, also when it is purged."""
        *_, child = await _family(queue, 2)
        await _end(queue, "0", S.COMPLETED)
        await clock.advance(1)
        purged = await queue.purge(timedelta(0))
        await _end(queue, "1", S.COMPLETED)

        assert 1 == purged
        assert [S.PENDING] == await _statuses(queue, child)

    async def test_c35_a_backlog_task_is_blocked_when_it_is_accepted(self, queue: TaskQueue) -> None:
        """C35: a task with `depends_on` does not run before they are completed, whenever it is accepted."""
        parent = await queue.enqueue("parent", lane="0")
        tasks = [await queue.enqueue("child", depends_on=[parent.id], status="backlog") for _ in range(3)]
        accepted = await queue.accept(tasks[0].id)
        await _end(queue, "0", S.COMPLETED)
        later = await queue.accept(tasks[1].id)

        assert [S.BACKLOG, S.BLOCKED] == [tasks[0].status, accepted.status]
        assert [S.PENDING, S.PENDING, S.BACKLOG] == await _statuses(queue, *tasks)
        assert S.PENDING is later.status

    async def test_c35_a_backlog_task_with_a_broken_dependency_never_runs(
        self, queue: TaskQueue, clock: VirtualClock
    ) -> None:
        """C35: a dependency that failed fails it when it is accepted, and none that is gone counts as met."""
        parent = await queue.enqueue("parent", lane="0")
        tasks = [await queue.enqueue("child", depends_on=[parent.id], status="backlog") for _ in range(2)]
        await _end(queue, "0", S.FAILED)
        accepted = await queue.accept(tasks[0].id)
        await clock.advance(1)
        await queue.purge(timedelta(0))
        with pytest.raises(InvalidState):
            await queue.accept(tasks[1].id)

        assert S.FAILED is accepted.status

    async def test_c35_blocked_tasks_have_nothing_due(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C35: cost: its dependents; nobody looks at a task whose dependencies are live."""
        *_, child = await _family(queue, 2)
        found = await queue.backend.find(Query(due_before=clock.now() + 10**15))

        assert (None, []) == (child.due, found)

    async def test_c36_refs_point_to_earlier_items(self, queue: TaskQueue) -> None:
        """C36: `depends_on` holds ids, or `Ref(i)` to an earlier item of the same enqueue_many."""
        first = await queue.enqueue("first")
        a, b, c = await queue.enqueue_many(
            [
                NewTask("a"),
                NewTask("b", depends_on=[Ref(0)]),
                NewTask("c", depends_on=[Ref(1), first.id, Ref(0)]),
            ]
        )

        assert [(), (a.id,), (b.id, first.id, a.id)] == [task.depends_on for task in (a, b, c)]
        assert [S.PENDING, S.BLOCKED, S.BLOCKED] == [task.status for task in (a, b, c)]

    @pytest.mark.parametrize("status", ["pending", "backlog"])
    async def test_c36_an_unknown_dependency_is_refused(self, queue: TaskQueue, status: str) -> None:
        """C36: an id that is not in the store: TaskNotFound, nothing written."""
        with pytest.raises(TaskNotFound) as caught:
            await queue.enqueue("goal", depends_on=["unknown"], status=status)

        assert "unknown" == caught.value.task_id
        assert {} == await everything(queue)

    async def test_c36_a_retried_task_starts_at_zero(self, queue: TaskQueue, clock: VirtualClock) -> None:
        """C36: retrying: attempt starts at 0 again; lease and seq go on."""
        task = await queue.enqueue("goal", max_attempts=2)
        for _ in range(2):
            await queue.fail(await claim_one(queue), "error", delay=0)
        await clock.advance(5)
        retried = await queue.retry(task.id)

        assert (S.PENDING, 0, 2, 0) == (
            retried.status,
            retried.attempt,
            retried.lease,
            retried.head.finished_at,
        )
        assert (task.seq, clock.now(), task.head.created_at) == (
            retried.seq,
            retried.head.run_at,
            retried.head.created_at,
        )
        assert (1, 3) == ((await claim_one(queue)).attempt, (await head_of(queue, task)).lease)

    async def test_c36_a_retried_task_is_blocked_if_dependencies_are_live(self, queue: TaskQueue) -> None:
        """C36: retrying a task: blocked if dependencies are live."""
        _, child = await _family(queue, 1)
        await queue.cancel(child.id)
        retried = await queue.retry(child.id)
        await _end(queue, "0", S.COMPLETED)

        assert S.BLOCKED is retried.status
        assert [S.PENDING] == await _statuses(queue, child)

    async def test_c36_a_parent_that_ended_meanwhile_does_not_block_a_retry(self, queue: TaskQueue) -> None:
        """C36: pending if all dependencies are completed by then."""
        _, child = await _family(queue, 1)
        await queue.cancel(child.id)
        await _end(queue, "0", S.COMPLETED)

        assert S.PENDING is (await queue.retry(child.id)).status

    @pytest.mark.parametrize("ending", [S.FAILED, S.CANCELLED, None])
    async def test_c36_retrying_with_a_broken_dependency_is_refused(
        self, queue: TaskQueue, ending: TaskStatus | None
    ) -> None:
        """C36: InvalidState naming one that failed, was cancelled or is missing."""
        parent, child = await _family(queue, 1)
        await queue.cancel(child.id)
        await _end(queue, "0", ending or S.COMPLETED)
        if ending is None:
            await queue.delete(parent.id)
        before = await everything(queue)
        with pytest.raises(InvalidState) as caught:
            await queue.retry(child.id)

        assert child.id == caught.value.task_id
        assert parent.id in str(caught.value)
        assert before == await everything(queue)

    async def test_c36_retrying_the_parent_does_not_revive_its_children(self, queue: TaskQueue) -> None:
        """C36: its children are not revived by retrying the parent; they can be retried after it."""
        parent, child = await _family(queue, 1)
        await _end(queue, "0", S.FAILED)
        await queue.retry(parent.id)
        states = await _statuses(queue, parent, child)
        retried = await queue.retry(child.id)
        await _end(queue, "0", S.COMPLETED)

        assert [S.PENDING, S.FAILED, S.BLOCKED] == [*states, retried.status]
        assert [S.COMPLETED, S.PENDING] == await _statuses(queue, parent, child)

    async def test_c36_a_diamond_runs_each_task_once(self, queue: TaskQueue) -> None:
        """C35, C36: each task runs after those it depends on, and once."""
        await queue.enqueue_many(
            [
                NewTask("a"),
                NewTask("b", depends_on=[Ref(0)]),
                NewTask("c", depends_on=[Ref(0)]),
                NewTask("d", depends_on=[Ref(1), Ref(2)], priority=1),
            ]
        )
        order = []
        while claimed := await queue.claim(worker="worker"):
            order.append(claimed[0].goal)
            await queue.complete(claimed[0])

        assert list("abcd") == order
        assert {S.COMPLETED} == {task.status for task in await collect(queue.tasks())}


def _ended(held: Task, now: int) -> Change:
    """Return the swap that ends a held task as cancelled, for whoever dies right after it."""
    head = held.head
    over = attrs.evolve(
        head, status=S.CANCELLED, finished_at=now, lease_until=0, due=None, version=head.version + 1
    )
    return Change(head.version, Record(over))
