"""C28 to C36, broken."""

from __future__ import annotations

from random import random as unseeded
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from anyio.lowlevel import checkpoint

from jotty.core.queue import (
    LIVE,
    Query,
    QueueState,
    RetryPolicy,
    TaskQueue,
    TaskStatus,
    client,
    lifecycle,
    settlement,
    state,
)
from jotty.core.queue.settlement import Settlement
from jotty.errors import PayloadError
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from tests.testing.mutants.conftest import SuiteCatches

S = TaskStatus


def with_outcome(change: Any, outcome: bytes | None) -> Any:
    return attrs.evolve(change, record=attrs.evolve(change.record, outcome=outcome))


def test_c28_a_result_that_follows_its_state(suite_catches: SuiteCatches) -> None:
    async def swap(swap: Any, self: MemoryBackend, changes: Any) -> Any:
        swapped = await swap(self, [with_outcome(one, None) for one in changes])
        await checkpoint()
        for change, done in zip(changes, swapped, strict=True):
            if done.outcome == "ok" and change.record.outcome is not None:
                self._store.state._outcomes[done.record.head.id] = change.record.outcome
        return [
            attrs.evolve(one, record=(await self.get([one.record.head.id]))[0]) if one.record else one
            for one in swapped
        ]

    suite_catches(MemoryBackend, "swap", swap)


def test_c28_a_result_that_is_not_stored(suite_catches: SuiteCatches) -> None:
    suite_catches(settlement, "result_outcome", lambda outcome, result, limit: outcome(None, limit))


def test_c29_a_second_result_that_wins(suite_catches: SuiteCatches) -> None:
    def holds(holds: Any, self: Settlement, head: Any) -> bool:
        return bool(holds(self, head)) or (head.status == "completed" and head.lease == self.task.lease)

    suite_catches(Settlement, "holds", holds)


def test_c29_a_second_completion_is_an_error(suite_catches: SuiteCatches) -> None:
    suite_catches(Settlement, "is_done", lambda is_done, self, head: head in self.in_doubt)


def test_c30_a_wrong_result_costs_the_task(suite_catches: SuiteCatches) -> None:
    async def complete(complete: Any, self: TaskQueue, task: Any, result: Any = None) -> Any:
        try:
            return await complete(self, task, result)
        except PayloadError as error:
            await self.fail(task, error, retry=False)
            raise

    suite_catches(TaskQueue, "complete", complete)


def test_c30_a_wrong_result_is_told_as_text(suite_catches: SuiteCatches) -> None:
    async def complete(complete: Any, self: TaskQueue, task: Any, result: Any = None) -> Any:
        try:
            return await complete(self, task, result)
        except PayloadError:
            return await complete(self, task, repr(result))

    suite_catches(TaskQueue, "complete", complete)


def test_c31_a_retry_at_once(suite_catches: SuiteCatches) -> None:
    suite_catches(
        lifecycle, "failed", lambda failed, head, now, **how: failed(head, now, **how | {"delay": 0.0})
    )


def test_c31_one_attempt_more(suite_catches: SuiteCatches) -> None:
    def failed(failed: Any, head: Any, now: int, **how: Any) -> Any:
        after = failed(attrs.evolve(head, max_attempts=head.max_attempts + 1), now, **how)
        return attrs.evolve(after, max_attempts=head.max_attempts)

    suite_catches(lifecycle, "failed", failed)


def test_c31_an_error_that_is_forgotten_while_the_next_attempt_waits(suite_catches: SuiteCatches) -> None:
    def change(change: Any, self: Settlement, head: Any, now: int) -> Any:
        made = change(self, head, now)
        if made.record.head.status == "pending":
            return attrs.evolve(made, record=attrs.evolve(made.record, outcome=None))
        return made

    suite_catches(Settlement, "change", change)


def test_c31_errors_of_any_size(suite_catches: SuiteCatches) -> None:
    def error_outcome(outcome: Any, error: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("jotty.core.queue.record._MAX_MESSAGE", 10**6)
            return outcome(error)

    suite_catches(settlement, "error_outcome", error_outcome)


def test_c31_a_postponement_that_costs_an_attempt(suite_catches: SuiteCatches) -> None:
    suite_catches(
        lifecycle,
        "postponed",
        lambda postponed, head, *how: attrs.evolve(postponed(head, *how), attempt=head.attempt),
    )


def test_c31_postponing_for_ever(suite_catches: SuiteCatches) -> None:
    suite_catches(
        lifecycle,
        "postponed",
        lambda postponed, head, *how: postponed(attrs.evolve(head, postponed=0), *how),
    )


def test_c32_a_retry_storm_without_jitter(suite_catches: SuiteCatches) -> None:
    def backoff(backoff: Any, self: RetryPolicy, attempt: int, random: Any) -> Any:
        return backoff(attrs.evolve(self, jitter=0), attempt, random)

    suite_catches(RetryPolicy, "backoff", backoff)


def test_c32_jitter_that_nobody_can_repeat(suite_catches: SuiteCatches) -> None:
    def backoff(backoff: Any, self: RetryPolicy, attempt: int, random: Any) -> Any:
        return backoff(attrs.evolve(self, jitter=0), attempt, random) * (1 - self.jitter * unseeded())

    suite_catches(RetryPolicy, "backoff", backoff)


def test_c32_waits_beyond_their_cap(suite_catches: SuiteCatches) -> None:
    def backoff(backoff: Any, self: RetryPolicy, attempt: int, random: Any) -> Any:
        return backoff(attrs.evolve(self, cap=2 * self.cap), attempt, random)

    suite_catches(RetryPolicy, "backoff", backoff)


def test_c32_waits_that_overflow(suite_catches: SuiteCatches) -> None:
    def backoff(_: Any, self: RetryPolicy, attempt: int, random: Any) -> Any:
        return min(self.cap, self.delay * self.factor ** (attempt - 1)) * (1 - self.jitter * random.random())

    suite_catches(RetryPolicy, "backoff", backoff)


def test_c33_a_running_task_is_cancelled_over_its_workers_head(suite_catches: SuiteCatches) -> None:
    def cancelled(cancelled: Any, head: Any, now: int) -> Any:
        after = cancelled(head, now)
        return (
            lifecycle._finished(head, S.CANCELLED, now) if after and after.status == "in_progress" else after
        )

    suite_catches(lifecycle, "cancelled", cancelled)


def test_c33_what_is_completed_after_a_cancel_is_cancelled(suite_catches: SuiteCatches) -> None:
    def completed(completed: Any, head: Any, now: int) -> Any:
        return lifecycle._finished(head, S.CANCELLED, now) if head.cancel_requested else completed(head, now)

    suite_catches(lifecycle, "completed", completed)


@pytest.mark.parametrize("move", ["failed", "released", "parked"])
def test_c33_a_cancel_that_is_forgotten(suite_catches: SuiteCatches, move: str) -> None:
    suite_catches(
        lifecycle,
        move,
        lambda original, head, now, **how: original(attrs.evolve(head, cancel_requested=False), now, **how),
    )


def test_c33_cancelling_what_is_over_is_said_to_work(suite_catches: SuiteCatches) -> None:
    async def cancel(cancel: Any, self: TaskQueue, task_id: str) -> bool:
        return await cancel(self, task_id) is not None

    suite_catches(client.QueueClient, "cancel", cancel)


def test_c34_a_purge_of_a_live_task(suite_catches: SuiteCatches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TERMINAL", frozenset(TaskStatus))
    monkeypatch.setattr(state, "LIVE", LIVE - {S.PENDING})

    def matches(matches: Any, self: Query, head: Any) -> bool:
        before = self.finished_before
        if before is None or head.status != "pending":
            return bool(matches(self, head))
        return bool(head.created_at < before)

    monkeypatch.setattr(QueueState, "_finished_until", lambda self, instant: iter(list(self._heads.values())))
    suite_catches(Query, "matches", matches)


def test_c34_a_purge_of_what_has_just_reached_the_limit(suite_catches: SuiteCatches) -> None:
    async def purge(purge: Any, self: TaskQueue, older_than: Any) -> Any:
        find = self.backend.find

        async def find_more(query: Query) -> Any:
            if query.finished_before is not None:
                query = attrs.evolve(query, finished_before=query.finished_before + 1)
            return await find(query)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.backend, "find", find_more)
            return await purge(self, older_than)

    suite_catches(client.QueueClient, "purge", purge)


def test_c34_a_journal_that_survives_its_task(suite_catches: SuiteCatches) -> None:
    def forget(forget: Any, self: QueueState, head: Any) -> None:
        journal = self._journals.get(head.id)
        forget(self, head)
        if journal:
            self._journals[head.id] = journal

    suite_catches(QueueState, "_forget", forget)


def test_c34_a_task_that_was_retried_meanwhile_is_deleted(suite_catches: SuiteCatches) -> None:
    def delete(delete: Any, self: QueueState, task_id: str, version: int) -> bool:
        head = self._heads.get(task_id)
        if head:
            self._forget(head)
            self._remove(head)
        return head is not None

    suite_catches(QueueState, "_delete", delete)


def test_c35_a_failure_that_its_dependents_do_not_hear_of(suite_catches: SuiteCatches) -> None:
    def fire(fire: Any, self: QueueState, parent: Any) -> Any:
        return fire(self, parent) if parent.status == "completed" else ()

    suite_catches(QueueState, "_fire_children", fire)


def test_c35_the_first_dependency_suffices(suite_catches: SuiteCatches) -> None:
    def unblocked(unblocked: Any, head: Any, parents: Any, now: int) -> Any:
        return unblocked(head, [one for one in parents if one and one.status not in LIVE], now)

    def unlink(unlink: Any, self: QueueState, parent: Any) -> Any:
        blocked = unlink(self, parent)
        for child in blocked:
            self._parents[child.id] = set()
        return blocked

    with pytest.MonkeyPatch.context() as patch:
        original = lifecycle._unblocked
        patch.setattr(lifecycle, "_unblocked", lambda *how: unblocked(original, *how))
        suite_catches(QueueState, "_unlink", unlink)


def test_c35_what_is_asked_for_in_case_of_failure_is_ignored(suite_catches: SuiteCatches) -> None:
    def unblocked(unblocked: Any, head: Any, *how: Any) -> Any:
        verdict = unblocked(attrs.evolve(head, on_dependency="fail"), *how)
        return attrs.evolve(verdict, head=attrs.evolve(verdict.head, on_dependency=head.on_dependency))

    suite_catches(lifecycle, "_unblocked", unblocked)


def test_c35_an_edge_that_is_not_drawn_again(suite_catches: SuiteCatches) -> None:
    def watch(watch: Any, self: QueueState, head: Any) -> Any:
        old = self._heads.get(head.id)
        return head if old and old.status == head.status else watch(self, head)

    suite_catches(QueueState, "_watch", watch)


def test_c35_a_purge_before_the_dependents_have_seen_the_end(suite_catches: SuiteCatches) -> None:
    async def examine_fired(_: Any, self: TaskQueue) -> None:
        del self

    suite_catches(client.QueueClient, "_examine_fired", examine_fired)


def test_c36_an_unknown_dependency_counts_as_completed(suite_catches: SuiteCatches) -> None:
    def plan(plan: Any, self: QueueState, record: Any, now: int, aliases: Any, planned: Any) -> None:
        known = tuple(
            one
            for one in record.head.depends_on
            if aliases.get(one, one) in self._heads or aliases.get(one, one) in planned
        )
        plan(
            self,
            attrs.evolve(record, head=attrs.evolve(record.head, depends_on=known)),
            now,
            aliases,
            planned,
        )

    suite_catches(QueueState, "_plan", plan)


def test_c36_a_retry_with_the_attempts_that_are_left(suite_catches: SuiteCatches) -> None:
    suite_catches(
        lifecycle,
        "retried",
        lambda retried, head, parents: attrs.evolve(retried(head, parents), attempt=head.attempt),
    )


def test_c36_a_retry_in_spite_of_a_broken_dependency(suite_catches: SuiteCatches) -> None:
    suite_catches(lifecycle, "_refuse_broken", lambda refuse, head, parents: None)


def test_c36_a_retry_that_does_not_wait(suite_catches: SuiteCatches) -> None:
    suite_catches(
        lifecycle,
        "retried",
        lambda retried, head, parents: attrs.evolve(retried(head, parents), status=S.PENDING),
    )
