"""C12 to C17, broken."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from anyio.lowlevel import checkpoint

from jotty.core.queue import Claimed, ClaimRequest, Query, QueueState, TaskQueue, Topics, lifecycle, state
from jotty_backends import memory
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from tests.testing.mutants.conftest import SuiteCatches


def claimed_by_rank(self: QueueState, request: ClaimRequest, now: int, mark: int, rank: Any) -> Claimed:
    """Claim as a store does that knows no more than an order."""
    ready = [
        head
        for head in self._heads.values()
        if head.status == "pending" and head.lane in request.lanes and head.run_at <= now
    ]
    records = []
    for head in sorted(ready, key=rank)[: request.limit]:
        self._put(lifecycle.claimed(head, worker=request.worker, now=now, lease_us=request.lease_us))
        records.append(self._record(head.id))
    is_full = len(records) >= request.limit > 0
    return Claimed(records, mark, None if is_full else self._next_at(request.lanes))


def test_c12_a_clock_that_is_read_before_the_lock(suite_catches: SuiteCatches) -> None:
    async def claim(_: Any, self: MemoryBackend, request: ClaimRequest) -> Claimed:
        now = self._store.clock.now()
        await checkpoint()
        with self._open_store() as store:
            return store.state.claim(request, now, store.topics.mark)

    suite_catches(MemoryBackend, "claim", claim)


def test_c12_a_claim_that_costs_no_attempt(suite_catches: SuiteCatches) -> None:
    suite_catches(
        lifecycle,
        "claimed",
        lambda claimed, head, **how: attrs.evolve(claimed(head, **how), attempt=head.attempt),
    )


def test_c12_a_backlog_that_is_worked_off_unasked(suite_catches: SuiteCatches) -> None:
    async def accept_all(claim: Any, self: MemoryBackend, request: ClaimRequest) -> Any:
        for record in await self.find(Query(statuses=["backlog"])):  # type: ignore[list-item] # a StrEnum
            self._store.state._put(lifecycle.accepted(record.head, [], run=True))
        return await claim(self, request)

    suite_catches(MemoryBackend, "claim", accept_all)


def test_c13_an_order_that_ignores_run_at(suite_catches: SuiteCatches) -> None:
    def claim(_: Any, self: QueueState, request: ClaimRequest, now: int, mark: int = 0) -> Claimed:
        return claimed_by_rank(self, request, now, mark, lambda head: (head.priority, head.seq))

    suite_catches(QueueState, "claim", claim)


def test_c13_an_order_that_ignores_seq(suite_catches: SuiteCatches) -> None:
    def claim(_: Any, self: QueueState, request: ClaimRequest, now: int, mark: int = 0) -> Claimed:
        return claimed_by_rank(self, request, now, mark, lambda head: (head.priority, head.run_at, -head.seq))

    suite_catches(QueueState, "claim", claim)


def test_c13_five_is_the_most_urgent(suite_catches: SuiteCatches) -> None:
    def claim(claim: Any, self: QueueState, *how: Any) -> Claimed:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(state, "PRIORITIES", range(5, 0, -1))
            claimed: Claimed = claim(self, *how)
        return claimed

    suite_catches(QueueState, "claim", claim)


def test_c13_a_seq_that_is_given_again(suite_catches: SuiteCatches) -> None:
    def remove(remove: Any, self: QueueState, head: Any) -> None:
        remove(self, head)
        self._seq = max((one.seq for one in self._heads.values()), default=0)

    suite_catches(QueueState, "_remove", remove)


def test_c13_a_task_that_is_tried_again_is_a_new_one(suite_catches: SuiteCatches) -> None:
    suite_catches(
        lifecycle,
        "failed",
        lambda failed, head, now, **how: attrs.evolve(failed(head, now, **how), seq=head.seq + 1000),
    )


@pytest.mark.parametrize("microseconds", [-1, 1])
def test_c14_a_task_comes_too_early_or_too_late(suite_catches: SuiteCatches, microseconds: int) -> None:
    def claim(claim: Any, self: QueueState, request: ClaimRequest, now: int, mark: int = 0) -> Any:
        return claim(self, request, now + microseconds, mark)

    suite_catches(QueueState, "claim", claim)


def test_c15_a_claim_that_is_not_atomic(suite_catches: SuiteCatches) -> None:
    async def claim(_: Any, self: MemoryBackend, request: ClaimRequest) -> Claimed:
        with self._open_store() as store:
            claimed = deepcopy(store.state).claim(request, store.clock.now(), store.topics.mark)
        await checkpoint()
        with self._open_store() as store:
            for record in claimed.records:
                store.state._put(record.head)
        return claimed

    suite_catches(MemoryBackend, "claim", claim)


def test_c16_a_lost_wake_up(suite_catches: SuiteCatches) -> None:
    """What happened between the claim and the wait is slept through."""
    suite_catches(Topics, "_has_changed", lambda has_changed, self, topic, mark: False)


def test_c16_nobody_is_woken_for_what_was_unblocked(suite_catches: SuiteCatches) -> None:
    def topics_of(topics_of: Any, head: Any) -> Any:
        return [one for one in topics_of(head) if not (head.depends_on and one.startswith("lane"))]

    suite_catches(memory, "topics_of", topics_of)


def test_c16_a_wait_for_the_first_lane_only(suite_catches: SuiteCatches) -> None:
    async def wait_ready(wait: Any, self: TaskQueue, lanes: Any, mark: int, timeout: float) -> None:
        await wait(self, lanes[:1], mark, timeout)

    suite_catches(TaskQueue, "wait_ready", wait_ready)


def test_c16_a_claim_that_always_waits(suite_catches: SuiteCatches) -> None:
    async def claim(claim: Any, self: TaskQueue, *, wait: float = 0.0, **how: Any) -> Any:
        return await claim(self, wait=max(wait, 0.5), **how)

    suite_catches(TaskQueue, "claim", claim)


def test_c16_a_wait_that_forgets_when_something_is_ready(suite_catches: SuiteCatches) -> None:
    suite_catches(TaskQueue, "_seconds_until", lambda seconds, self, instant: None)


def test_c17_lanes_are_served_one_after_the_other(suite_catches: SuiteCatches) -> None:
    def soonest(soonest: Any, self: QueueState, lanes: Any, priority: int) -> Any:
        return next((found for lane in sorted(lanes) if (found := soonest(self, [lane], priority))), None)

    suite_catches(QueueState, "_soonest", soonest)


def test_c17_an_idle_worker_takes_from_other_lanes(suite_catches: SuiteCatches) -> None:
    def claim(claim: Any, self: QueueState, request: ClaimRequest, *how: Any) -> Any:
        lanes = (*request.lanes, "default")
        return claim(self, attrs.evolve(request, lanes=lanes), *how)

    suite_catches(QueueState, "claim", claim)


def test_c17_a_tag_is_found_within_another(suite_catches: SuiteCatches) -> None:
    def matches(matches: Any, self: Query, head: Any) -> bool:
        is_there = self.tag is None or any(self.tag in tag for tag in head.tags)
        return is_there and bool(matches(attrs.evolve(self, tag=None), head))

    suite_catches(Query, "matches", matches)
