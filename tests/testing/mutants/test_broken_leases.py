"""C18 to C27, broken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from jotty.core.queue import QueueState, TaskQueue, lifecycle, state
from jotty.core.queue.settlement import Settlement
from jotty.errors import LeaseLost

if TYPE_CHECKING:
    from tests.testing.mutants.conftest import SuiteCatches


def test_c18_a_completion_without_the_fence(suite_catches: SuiteCatches) -> None:
    suite_catches(Settlement, "holds", lambda _, self, head: head.status == "in_progress")


def test_c18_a_journal_without_the_fence(suite_catches: SuiteCatches) -> None:
    suite_catches(state, "_is_held", lambda _, head, lease: head.status == "in_progress")


def test_c18_who_has_a_task_by_its_id_may_settle_it(suite_catches: SuiteCatches) -> None:
    suite_catches(Settlement, "is_held", lambda _, self: True)


def test_c19_an_expired_lease_is_lost_before_anyone_took_over(suite_catches: SuiteCatches) -> None:
    async def settle(settle: Any, self: TaskQueue, what: Settlement) -> Any:
        if what.task.head.lease_until < self.backend.now():
            raise LeaseLost(what.task.id, what.task.lease)
        return await settle(self, what)

    suite_catches(TaskQueue, "_settle", settle)


def test_c19_a_late_heartbeat_is_refused(suite_catches: SuiteCatches) -> None:
    def extend(extend: Any, self: QueueState, task_id: str, lease: int, us: int, now: int) -> Any:
        head = self._heads.get(task_id)
        return None if head and head.lease_until < now else extend(self, task_id, lease, us, now)

    suite_catches(QueueState, "_extend", extend)


def test_c20_a_heartbeat_that_shortens(suite_catches: SuiteCatches) -> None:
    def extended(extended: Any, head: Any, *, now: int, lease_us: int) -> Any:
        return extended(attrs.evolve(head, lease_until=0), now=now, lease_us=lease_us)

    suite_catches(lifecycle, "extended", extended)


def test_c20_a_heartbeat_that_keeps_a_cancel_to_itself(suite_catches: SuiteCatches) -> None:
    async def heartbeat(heartbeat: Any, self: TaskQueue, tasks: Any, **how: Any) -> Any:
        renewed = await heartbeat(self, tasks, **how)
        return [
            one and attrs.evolve(one, head=attrs.evolve(one.head, cancel_requested=False)) for one in renewed
        ]

    suite_catches(TaskQueue, "heartbeat", heartbeat)


def test_c20_a_heartbeat_whose_lease_is_reaped_as_before(suite_catches: SuiteCatches) -> None:
    def extended(extended: Any, head: Any, **how: Any) -> Any:
        return attrs.evolve(extended(head, **how), due=head.due)

    suite_catches(lifecycle, "extended", extended)


def test_c21_a_lease_number_that_is_reset_on_retry(suite_catches: SuiteCatches) -> None:
    suite_catches(
        lifecycle, "retried", lambda retried, head, parents: attrs.evolve(retried(head, parents), lease=0)
    )


def test_c21_a_release_that_takes_its_lease_back(suite_catches: SuiteCatches) -> None:
    suite_catches(
        lifecycle,
        "released",
        lambda released, head, now, **how: attrs.evolve(released(head, now, **how), lease=head.lease - 1),
    )


def test_c24_claims_that_leave_reaping_to_a_daemon(suite_catches: SuiteCatches) -> None:
    async def reap_sometimes(_: Any, self: TaskQueue) -> None:
        del self

    suite_catches(TaskQueue, "_reap_sometimes", reap_sometimes)


def test_c24_a_lost_worker_that_costs_no_attempt(suite_catches: SuiteCatches) -> None:
    def expired(expired: Any, head: Any, now: int) -> Any:
        return expired(attrs.evolve(head, attempt=head.attempt - 1), now)

    suite_catches(lifecycle, "_expired", expired)


def test_c24_a_living_holder_that_is_robbed(suite_catches: SuiteCatches) -> None:
    def claimed(claimed: Any, head: Any, **how: Any) -> Any:
        held = claimed(head, **how)
        return attrs.evolve(held, due=held.due - 1_500_000)

    suite_catches(lifecycle, "claimed", claimed)


def test_c25_the_task_of_a_lost_worker_may_have_neighbours(suite_catches: SuiteCatches) -> None:
    def expired(expired: Any, head: Any, now: int) -> Any:
        verdict = expired(head, now)
        return attrs.evolve(verdict, head=attrs.evolve(verdict.head, isolated=False))

    suite_catches(lifecycle, "_expired", expired)


def test_c26_a_release_that_burns_an_attempt(suite_catches: SuiteCatches) -> None:
    suite_catches(
        lifecycle,
        "released",
        lambda released, head, now, **how: attrs.evolve(released(head, now, **how), attempt=head.attempt),
    )


def test_c26_a_release_that_goes_to_the_end_of_the_line(suite_catches: SuiteCatches) -> None:
    suite_catches(
        lifecycle,
        "released",
        lambda released, head, now, **how: attrs.evolve(released(head, now, **how), run_at=now),
    )
