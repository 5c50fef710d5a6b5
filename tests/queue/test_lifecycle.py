from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.core.queue import MICROSECONDS, Head, RetryLater, RetryPolicy, TaskStatus, lifecycle
from jotty.errors import InvalidState
from jotty.testing.moves import LIVE, MOVES, TERMINAL

if TYPE_CHECKING:
    from collections.abc import Callable

S = TaskStatus
NOW = 10**15
SETTLES = ("completed", "failed", "failed for good", "postponed", "released", "released later", "parked")

instants = st.integers(NOW, NOW + 100)
questions = st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True)
policies = st.builds(
    RetryPolicy, jitter=st.sampled_from([0.0, 0.5, 1.0]), max_postponements=st.integers(0, 2)
)
parents = st.sampled_from(sorted(TaskStatus)).map(lambda status: Head(id=status.value, status=status))


@st.composite
def heads(draw: st.DrawFn, statuses: frozenset[TaskStatus] = frozenset(TaskStatus)) -> Head:
    """Generate heads as a store may hold them."""
    status = draw(st.sampled_from(sorted(statuses)))
    is_held = status is S.IN_PROGRESS
    is_parked = status is S.BLOCKED and draw(st.booleans())
    lease = draw(st.integers(int(is_held), 5))
    until = draw(st.integers(NOW - 50, NOW + 200)) if is_held else 0
    expiry = (
        draw(st.none() | st.integers(NOW - 50, NOW + 200)) if is_parked else draw(st.sampled_from([None, 0]))
    )
    return Head(
        id="task",
        seq=draw(st.integers(1, 9)),
        priority=draw(st.integers(1, 5)),
        status=status,
        depends_on=draw(st.sampled_from([(), ("a",), ("a", "b")])),
        on_dependency=draw(st.sampled_from(["fail", "cancel", "run"])),
        awaiting=tuple(draw(questions)) if is_parked else (),
        answered=tuple(draw(st.sampled_from([(), ("a",), ("z",)]))) if not is_parked else (),
        run_at=draw(st.integers(NOW - 100, NOW + 100)),
        due=until if is_held else expiry if status is S.BLOCKED else None,
        lease=lease,
        lease_until=until,
        attempt=draw(st.integers(int(is_held), 3)),
        max_attempts=draw(st.integers(1, 3)),
        retry=draw(policies),
        cancel_requested=is_held and draw(st.booleans()),
        postponed=draw(st.integers(0, 3)),
        isolated=draw(st.booleans()),
        finished_at=NOW - 200 if status in TERMINAL else 0,
        version=draw(st.integers(1, 50)),
    )


held = heads(frozenset({S.IN_PROGRESS}))


def settle(name: str, head: Head, now: int, seconds: float) -> Head:
    random = Random(0)
    settles: dict[str, Callable[[], Head]] = {
        "completed": lambda: lifecycle.completed(head, now),
        "failed": lambda: lifecycle.failed(head, now, retry=True, delay=None, random=random),
        "failed for good": lambda: lifecycle.failed(head, now, retry=False, delay=None, random=random),
        "postponed": lambda: lifecycle.postponed(head, now, RetryLater(seconds)),
        "released": lambda: lifecycle.released(head, now),
        "released later": lambda: lifecycle.released(head, now, delay=seconds),
        "parked": lambda: lifecycle.parked(head, now, awaiting=("a", "b"), until=None),
    }
    return settles[name]()


def any_move(data: st.DataObject, head: Head, now: int) -> Head | None:
    """Make one move that is open to a head in this state; None where policy refuses or sees no need."""
    dependencies = [data.draw(st.none() | parents) for _ in head.depends_on]
    moves: dict[str, Callable[[], Head | None]] = {
        "cancelled": lambda: lifecycle.cancelled(head, now),
        "answered": lambda: lifecycle.answered(head, data.draw(st.sampled_from("abcd"))),
        "accepted": lambda: lifecycle.accepted(head, dependencies, run=data.draw(st.booleans())),
        "retried": lambda: lifecycle.retried(head, dependencies),
        "reprioritised": lambda: lifecycle.reprioritised(head, data.draw(st.integers(1, 5))),
        "examined": lambda: _examined(head, dependencies, now),
    }
    if head.status is S.PENDING:
        moves["claimed"] = lambda: lifecycle.claimed(head, worker="w", now=now, lease_us=50)
    if head.status is S.IN_PROGRESS:
        moves["extended"] = lambda: lifecycle.extended(head, now=now, lease_us=data.draw(st.integers(1, 300)))
        moves |= {name: _settling(name, head, now, data) for name in SETTLES}
    if lifecycle.needs_edges(head):
        moves["fired"] = lambda: lifecycle.fired(head)
    try:
        return moves[data.draw(st.sampled_from(sorted(moves)))]()
    except InvalidState:
        return None


def _examined(head: Head, dependencies: list[Head | None], now: int) -> Head | None:
    verdict = lifecycle.examine(head, dependencies, now)
    return verdict.head if verdict else None


def _settling(name: str, head: Head, now: int, data: st.DataObject) -> Callable[[], Head]:
    return lambda: settle(name, head, now, data.draw(st.floats(0, 1000)))


@given(st.data(), heads(), st.lists(st.integers(0, 60), max_size=15))
def test_c01_a_walk_makes_only_moves_of_the_contract(
    data: st.DataObject, head: Head, steps: list[int]
) -> None:
    now = NOW
    for seconds in steps:
        now += seconds
        moved = any_move(data, head, now)
        if moved is None:
            continue

        assert moved.status is head.status or moved.status in MOVES[head.status]
        assert head.version + 1 == moved.version
        assert_bookkeeping(head, moved, now)
        head = moved


def assert_bookkeeping(old: Head, new: Head, now: int) -> None:
    """Check what holds for every move: C2, C13, C20, C21, and that nothing is due which should not be."""
    for name in ("id", "seq", "lane", "key", "depends_on", "max_attempts", "created_at", "retry", "timeout"):
        assert getattr(old, name) == getattr(new, name), name
    is_claim = (old.status, new.status) == (S.PENDING, S.IN_PROGRESS)
    assert old.lease + is_claim == new.lease, "C21: lease grows by exactly one a claim"
    assert new.attempt - old.attempt in {-1, 0, 1, -old.attempt}
    assert (new.status is S.IN_PROGRESS) == bool(new.lease_until)
    assert (new.status in TERMINAL) == bool(new.finished_at)
    if new.status is S.IN_PROGRESS:
        assert new.lease_until == new.due
    elif new.status is not S.BLOCKED:
        assert new.due is None
        assert () == new.awaiting
    if old.status in TERMINAL:
        assert new.status in LIVE, "C2: terminal states change by nothing but a retry"
    elif new.status in TERMINAL:
        assert now == new.finished_at


@given(heads(frozenset({S.PENDING})), instants, st.integers(1, 10**9))
def test_c12_a_claim_spends_an_attempt_under_a_new_lease(head: Head, now: int, lease_us: int) -> None:
    moved = lifecycle.claimed(head, worker="w", now=now, lease_us=lease_us)

    assert (S.IN_PROGRESS, "w", now, now + lease_us) == (
        moved.status,
        moved.worker,
        moved.started_at,
        moved.lease_until,
    )
    assert (head.lease + 1, head.attempt + 1) == (moved.lease, moved.attempt)


@given(held, instants, st.integers(1, 10**9))
def test_c20_a_lease_never_becomes_shorter(head: Head, now: int, lease_us: int) -> None:
    moved = lifecycle.extended(head, now=now, lease_us=lease_us)
    unchanged = attrs.evolve(moved, lease_until=head.lease_until, due=head.lease_until, version=head.version)

    assert max(head.lease_until, now + lease_us) == moved.lease_until
    assert attrs.evolve(head, due=head.lease_until) == unchanged


@given(held, instants)
def test_c26_a_release_gives_back_the_attempt_and_the_place(head: Head, now: int) -> None:
    moved = lifecycle.released(attrs.evolve(head, cancel_requested=False), now)

    assert (S.PENDING, head.attempt - 1, head.run_at, head.seq) == (
        moved.status,
        moved.attempt,
        moved.run_at,
        moved.seq,
    )


@given(held, instants, st.floats(0.001, 1e6))
def test_c26_a_release_with_a_delay_comes_that_much_later(head: Head, now: int, delay: float) -> None:
    moved = lifecycle.released(attrs.evolve(head, cancel_requested=False), now, delay=delay)

    assert round(delay * MICROSECONDS) == moved.run_at - now


@given(held, instants, st.none() | st.floats(0, 1e6), st.integers())
def test_c31_a_failure_waits_its_backoff_or_is_final(
    head: Head, now: int, delay: float | None, seed: int
) -> None:
    head = attrs.evolve(head, cancel_requested=False)
    moved = lifecycle.failed(head, now, retry=True, delay=delay, random=Random(seed))
    wait = head.retry.backoff(head.attempt, Random(seed)) if delay is None else delay

    if head.attempt >= head.max_attempts:
        assert (S.FAILED, now) == (moved.status, moved.finished_at)
    else:
        assert (S.PENDING, now + round(wait * MICROSECONDS)) == (moved.status, moved.run_at)
    assert head.attempt == moved.attempt


@given(held, instants)
def test_c31_an_error_not_to_be_retried_is_final(head: Head, now: int) -> None:
    head = attrs.evolve(head, cancel_requested=False)

    assert S.FAILED is lifecycle.failed(head, now, retry=False, delay=None, random=Random(0)).status


@given(held, instants, st.floats(0, 1000))
def test_c31_a_postponement_costs_no_attempt_but_is_counted(head: Head, now: int, seconds: float) -> None:
    head = attrs.evolve(head, cancel_requested=False)
    moved = lifecycle.postponed(head, now, RetryLater(seconds))

    if head.postponed >= head.retry.max_postponements:
        assert S.FAILED is moved.status
    else:
        assert (S.PENDING, head.attempt - 1, head.postponed + 1) == (
            moved.status,
            moved.attempt,
            moved.postponed,
        )
        assert max(round(seconds * MICROSECONDS), MICROSECONDS // 10) == moved.run_at - now


@given(held, instants)
def test_c31_a_plain_failure_ends_a_row_of_postponements(head: Head, now: int) -> None:
    head = attrs.evolve(head, cancel_requested=False, attempt=1, max_attempts=2)

    assert 0 == lifecycle.failed(head, now, retry=True, delay=0, random=Random(0)).postponed


@given(held, instants, questions, st.none() | instants)
def test_c38_parking_waits_for_an_answer_that_is_not_there(
    head: Head, now: int, awaiting: list[str], until: int | None
) -> None:
    head = attrs.evolve(head, cancel_requested=False)
    moved = lifecycle.parked(head, now, awaiting=awaiting, until=until)

    assert head.attempt - 1 == moved.attempt
    if set(awaiting) & set(head.answered):
        assert (S.PENDING, (), None) == (moved.status, moved.awaiting, moved.due)
    else:
        assert (S.BLOCKED, tuple(awaiting), until) == (moved.status, moved.awaiting, moved.due)


@given(heads(LIVE), st.sampled_from("abcdz"))
def test_c38_an_answer_wakes_who_waits_for_it(head: Head, key: str) -> None:
    if key in head.answered:
        with pytest.raises(InvalidState):
            lifecycle.answered(head, key)
        return
    moved = lifecycle.answered(head, key)

    assert (*head.answered, key) == moved.answered
    assert (S.PENDING if key in head.awaiting else head.status) is moved.status


@pytest.mark.parametrize("name", SETTLES)
@given(head=held, now=instants)
def test_c33_a_requested_cancel_is_what_becomes_of_it(name: str, head: Head, now: int) -> None:
    moved = settle(name, attrs.evolve(head, cancel_requested=True), now, 1.0)

    assert (S.COMPLETED if name == "completed" else S.CANCELLED) is moved.status


@given(heads(), instants)
def test_c33_cancelling(head: Head, now: int) -> None:
    moved = lifecycle.cancelled(head, now)

    if head.status in TERMINAL or head.cancel_requested:
        assert moved is None
    elif head.status is S.IN_PROGRESS:
        assert attrs.evolve(head, cancel_requested=True, version=head.version + 1) == moved
    else:
        assert moved is not None
        assert (S.CANCELLED, now, None, ()) == (moved.status, moved.finished_at, moved.due, moved.awaiting)


@given(held, instants)
def test_c24_only_an_expired_lease_is_taken_away(head: Head, now: int) -> None:
    verdict = lifecycle.examine(head, [], now)

    if now < head.lease_until:
        assert verdict is None
        return
    assert verdict is not None
    moved = verdict.head
    if head.cancel_requested:
        assert S.CANCELLED is moved.status
    elif head.attempt >= head.max_attempts:
        assert S.FAILED is moved.status
        assert verdict.error is not None
        assert "worker lost" in verdict.error[1]
    else:
        assert (S.PENDING, head.run_at, head.attempt, True) == (
            moved.status,
            moved.run_at,
            moved.attempt,
            moved.isolated,
        )


@given(heads(frozenset({S.BLOCKED})), st.lists(parents, min_size=2, max_size=2), instants)
def test_c35_dependencies_decide_about_a_blocked_task(head: Head, both: list[Head], now: int) -> None:
    head = attrs.evolve(head, awaiting=(), due=0, depends_on=("a", "b"))
    verdict = lifecycle.examine(head, both, now)
    states = {parent.status for parent in both}
    is_broken = bool(states & {S.FAILED, S.CANCELLED})

    assert verdict is not None
    if is_broken and head.on_dependency != "run":
        expected = S.FAILED if head.on_dependency == "fail" else S.CANCELLED
    else:
        expected = S.BLOCKED if states & LIVE else S.PENDING
    assert expected is verdict.head.status
    assert (expected is S.FAILED) == (verdict.error is not None)


@given(heads(frozenset({S.BLOCKED})), instants)
def test_c38_a_question_expires_when_its_time_is_up(head: Head, now: int) -> None:
    head = attrs.evolve(head, awaiting=("a",))
    verdict = lifecycle.examine(head, [], now)

    if head.due is None or head.due > now:
        assert verdict is None
    else:
        assert verdict is not None
        assert (S.PENDING, (), None) == (verdict.head.status, verdict.head.awaiting, verdict.head.due)


@given(heads(), instants)
def test_nothing_is_decided_about_what_is_not_due(head: Head, now: int) -> None:
    assert lifecycle.examine(attrs.evolve(head, due=None), [], now) is None
    assert lifecycle.examine(attrs.evolve(head, due=now + 1), [], now) is None


@given(heads(frozenset({S.PENDING})), instants)
def test_what_is_due_without_a_reason_is_due_no_more(head: Head, now: int) -> None:
    verdict = lifecycle.examine(attrs.evolve(head, due=0), [], now)

    assert verdict is not None
    assert attrs.evolve(head, due=None, version=head.version + 1) == verdict.head


@given(heads(), st.lists(st.none() | parents, max_size=2))
def test_c36_a_retry_starts_afresh_where_it_may(head: Head, dependencies: list[Head | None]) -> None:
    head = attrs.evolve(head, depends_on=tuple("ab"[: len(dependencies)]))
    states: set[Any] = {parent.status if parent else None for parent in dependencies}
    is_broken = bool(states & {None, S.FAILED, S.CANCELLED}) and head.on_dependency != "run"
    if head.status not in {S.FAILED, S.CANCELLED} or is_broken:
        with pytest.raises(InvalidState):
            lifecycle.retried(head, dependencies)
        return
    moved = lifecycle.retried(head, dependencies)

    assert (S.BLOCKED if states & LIVE else S.PENDING) is moved.status
    assert (0, 0, 0, 0, False, False) == (
        moved.attempt,
        moved.run_at,
        moved.finished_at,
        moved.postponed,
        moved.cancel_requested,
        moved.isolated,
    )


@given(heads(frozenset({S.BLOCKED})), st.lists(st.sampled_from(sorted(TaskStatus))))
def test_policy_must_look_once_nothing_holds_a_task_or_something_broke_it(
    head: Head, states: list[TaskStatus]
) -> None:
    is_held = bool(set(states) & LIVE)
    is_broken = bool(set(states) & {S.FAILED, S.CANCELLED}) and head.on_dependency != "run"

    assert (is_broken or not is_held) == lifecycle.is_fired_by(head, states)


@given(heads(frozenset({S.PENDING})), instants, st.integers(1, 99))
def test_insert_completes_a_head(head: Head, now: int, seq: int) -> None:
    unset = lifecycle.inserted(attrs.evolve(head, run_at=0), seq=seq, now=now, depends_on=("a",))
    given_time = lifecycle.inserted(head, seq=seq, now=now, depends_on=())

    assert (now, now, seq, ("a",)) == (unset.run_at, unset.created_at, unset.seq, unset.depends_on)
    assert head.run_at == given_time.run_at
