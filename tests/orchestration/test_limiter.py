from __future__ import annotations

import asyncio
import gc
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty.core.orchestration import Limit
from jotty.core.orchestration.limiter import Limiter, Limiters
from jotty.core.queue import MICROSECONDS
from jotty.testing import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE = 60 * MICROSECONDS


@attrs.frozen
class Visitor:
    """Arrives, waits for at most so long, stays for so long; seconds."""

    arrives: float
    stays: float
    patience: float | None
    counts: bool


@attrs.define
class Diary:
    """What happened at a limiter."""

    came: list[int] = attrs.field(factory=list)
    entered: dict[int, int] = attrs.field(factory=dict)
    starts: list[int] = attrs.field(factory=list)
    left: list[int] = attrs.field(factory=list)
    gave_up: list[int] = attrs.field(factory=list)
    inside: int = 0
    most: int = 0

    @contextmanager
    def visit(self) -> Iterator[None]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            yield
        finally:
            self.inside -= 1


seconds = st.integers(0, 90) | st.floats(0, 5)
visitors = st.builds(
    Visitor,
    arrives=seconds,
    stays=seconds,
    patience=st.none() | seconds,
    counts=st.sampled_from([True, True, False]),
)
limits = st.one_of(
    st.builds(Limit, concurrent=st.integers(1, 3)),
    st.builds(Limit, per_minute=st.integers(1, 3)),
    st.builds(Limit, concurrent=st.integers(1, 3), per_minute=st.integers(1, 3)),
)


async def held(limit: Limit, crowd: list[Visitor]) -> Diary:
    """Let a crowd through a limiter until all have left or lost their patience."""
    clock, diary = VirtualClock(), Diary()
    limiter = Limiter(limit, clock)

    async def visit(number: int, visitor: Visitor) -> None:
        await clock.sleep(visitor.arrives)
        diary.came.append(number)
        with clock.timeout(visitor.patience):
            await limiter.acquire(counts=visitor.counts)
            with diary.visit():
                diary.entered[number] = clock.now()
                if visitor.counts:
                    diary.starts.append(clock.now())
                with anyio.CancelScope(shield=True):  # once inside nobody leaves early
                    await clock.sleep(visitor.stays)
                limiter.release()
                diary.left.append(number)
        if number not in diary.left:
            diary.gave_up.append(number)

    async with clock.autojump(), anyio.create_task_group() as group:
        for number, visitor in enumerate(crowd):
            group.start_soon(visit, number, visitor)
    assert limiter._held == 0
    assert limiter._admitted == 0
    return diary


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(backend: str, function: Any, *args: Any) -> Any:
    return anyio.run(function, *args, backend=backend)


@given(limit=limits, crowd=st.lists(visitors, max_size=14))
@settings(max_examples=120, deadline=None)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_limit_holds_and_everybody_gets_through(backend: str, limit: Limit, crowd: list[Visitor]) -> None:
    diary = run(backend, held, limit, crowd)

    window = limit.per_minute or len(crowd) + 1
    spans = [last - first for first, last in zip(diary.starts, diary.starts[window:], strict=False)]
    patient = {number for number, visitor in enumerate(crowd) if visitor.patience is None}
    assert diary.most <= (limit.concurrent or len(crowd))
    assert [span for span in spans if span < MINUTE] == []
    for counts in (True, False):
        # those who are let in at one instant go on in the event loop's own order
        came = [number for number in diary.came if crowd[number].counts is counts]
        times = [diary.entered[number] for number in came if number in diary.entered]
        assert times == sorted(times)
    assert patient <= set(diary.left)
    assert set(range(len(crowd))) == {*diary.left, *diary.gave_up}
    assert Counter(diary.came) == Counter([*diary.left, *diary.gave_up])


@given(crowd=st.lists(visitors, max_size=10), concurrent=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_without_a_rate_all_are_let_in_as_they_came(crowd: list[Visitor], concurrent: int) -> None:
    patient = [attrs.evolve(each, patience=None) for each in crowd]

    diary = run("asyncio", held, Limit(concurrent=concurrent), patient)

    assert diary.came == list(diary.entered)
    assert len(patient) == len(diary.left)


@given(per_minute=st.integers(1, 5), number=st.integers(1, 17))
@settings(max_examples=40, deadline=None)
def test_a_rate_is_used_up_to_the_last_place(per_minute: int, number: int) -> None:
    diary = run("trio", held, Limit(per_minute=per_minute), [Visitor(0, 0, None, counts=True)] * number)

    begin = diary.starts[0]
    expected = [begin + index // per_minute * MINUTE for index in range(number)]
    assert expected == diary.starts


@pytest.mark.anyio
async def test_who_comes_back_passes_those_who_wait_for_the_minute() -> None:
    clock = VirtualClock()
    limiter = Limiter(Limit(concurrent=1, per_minute=1), clock)
    await limiter.acquire()
    limiter.release()
    order: list[str] = []

    async def enter(name: str, *, counts: bool) -> None:
        await limiter.acquire(counts=counts)
        order.append(f"{name} {(clock.now() - begin) // MICROSECONDS}")
        limiter.release()

    begin = clock.now()
    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(lambda: enter("starter", counts=True))
        await clock.sleep(5)
        group.start_soon(lambda: enter("returner", counts=False))

    assert order == ["returner 5", "starter 60"]


@pytest.mark.anyio
async def test_a_free_place_is_taken_without_suspending() -> None:
    limiter = Limiter(Limit(concurrent=2), VirtualClock())
    others: list[str] = []
    ran_meanwhile = ["?"]

    async def other() -> None:
        await checkpoint()
        others.append("ran")

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await limiter.acquire()
        ran_meanwhile = list(others)
        limiter.release()

    assert ran_meanwhile == []


@pytest.mark.anyio
async def test_nobody_overtakes_by_trying() -> None:
    clock = VirtualClock()
    limiter = Limiter(Limit(concurrent=1), clock)
    assert limiter.try_acquire()
    entered, tried = anyio.Event(), True

    async def wait() -> None:
        await limiter.acquire()
        entered.set()

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await clock.advance(1)
        limiter.release()
        tried = limiter.try_acquire()
        await entered.wait()

    assert tried is False
    limiter.release()
    assert limiter.try_acquire()


@pytest.mark.anyio
async def test_a_cancelled_wait_takes_nothing_though_it_was_let_in_already() -> None:
    clock = VirtualClock()
    limiter = Limiter(Limit(concurrent=1, per_minute=2), clock)
    await limiter.acquire()
    entered: list[str] = []

    async def wait(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            await limiter.acquire()
            entered.append(name)

    first, second = anyio.CancelScope(), anyio.CancelScope()
    async with anyio.create_task_group() as group:
        group.start_soon(wait, "first", first)
        await clock.advance(1)
        group.start_soon(wait, "second", second)
        await clock.advance(1)
        first.cancel()
        limiter.release()  # lets the first in, which is cancelled before it wakes
        await clock.advance(1)

    assert entered == ["second"]


@pytest.mark.anyio
async def test_an_acquire_that_is_cancelled_before_takes_nothing() -> None:
    limiter = Limiter(Limit(concurrent=1), VirtualClock())

    with anyio.CancelScope() as scope:
        scope.cancel()
        await limiter.acquire()

    assert scope.cancelled_caught
    assert limiter.try_acquire()


@pytest.mark.anyio
async def test_the_next_in_line_keeps_time_when_the_first_is_gone() -> None:
    clock = VirtualClock()
    limiter = Limiter(Limit(per_minute=1), clock)
    await limiter.acquire()
    begin, first = clock.now(), anyio.CancelScope()

    async def impatient() -> None:
        with first:
            await limiter.acquire()

    async with clock.autojump(), anyio.create_task_group() as group:
        group.start_soon(impatient)
        await clock.sleep(1)
        group.start_soon(limiter.acquire)
        await clock.sleep(1)
        first.cancel()

    assert 60 * MICROSECONDS == clock.now() - begin


@pytest.mark.anyio
async def test_a_start_counts_from_when_the_waiter_wakes() -> None:
    """Else those who are let in but held up start close to those who follow."""
    clock = VirtualClock()
    limiter = Limiter(Limit(concurrent=1, per_minute=1), clock)
    await limiter.acquire(counts=False)
    starts: list[int] = []

    async def start() -> None:
        await limiter.acquire()
        starts.append(clock.now())
        limiter.release()

    async with anyio.create_task_group() as group:
        group.start_soon(start)
        group.start_soon(start)
        await clock.advance(1)
        limiter.release()
        clock.skip(30)  # the event loop is blocked
        await clock.advance(100)

    assert 60 * MICROSECONDS == starts[1] - starts[0]


@pytest.mark.anyio
async def test_a_minute_is_over_after_sixty_seconds_to_the_microsecond() -> None:
    clock = VirtualClock()
    limiter = Limiter(Limit(per_minute=1), clock)
    await limiter.acquire()

    clock.skip(59.999999)
    tried_before = limiter.try_acquire()
    clock.skip(0.000001)

    assert tried_before is False
    assert limiter.try_acquire()


@pytest.mark.anyio
async def test_a_release_too_many_is_an_error() -> None:
    limiter = Limiter(Limit(concurrent=1), VirtualClock())

    with pytest.raises(RuntimeError, match="acquire"):
        limiter.release()


def test_limiters_are_one_for_a_name_and_an_event_loop(backend: str) -> None:
    limiters = Limiters({"a": Limit(concurrent=1), "b": Limit(per_minute=1)}, VirtualClock())

    async def use() -> tuple[bool, bool]:
        taken = limiters.of("a").try_acquire()
        return taken, limiters.of("a") is limiters.of("a") is not limiters.of("b")

    assert (True, True) == run(backend, use)
    assert (True, True) == run(backend, use)  # though the first loop's place was never given back


def test_limiters_go_with_their_event_loop(backend: str) -> None:
    limiters = Limiters({"a": Limit(concurrent=1)}, VirtualClock())

    async def use() -> None:
        await limiters.of("a").acquire()
        with anyio.move_on_after(0):
            await limiters.of("a").acquire()

    run(backend, use)
    gc.collect()

    assert len(limiters._by_loop) == 0


def test_two_event_loops_at_once_have_their_own_limiters() -> None:
    limiters = Limiters({"a": Limit(concurrent=1)}, VirtualClock())

    async def take() -> bool:
        return limiters.of("a").try_acquire()

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    taken = [loop.run_until_complete(take()) for loop in (first, second, first)]
    first.close()
    second.close()

    assert taken == [True, True, False]


@pytest.mark.anyio
async def test_an_unknown_limit_is_named() -> None:
    limiters = Limiters({"openai": Limit(concurrent=1)}, VirtualClock())

    with pytest.raises(ValueError, match=r"'opeani'.*openai"):
        limiters.of("opeani")
