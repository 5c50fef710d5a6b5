"""Retries, timeouts, policies, cancellation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty.core.orchestration import Conductor, GraphOrchestrator, actor, result_of
from jotty.core.queue import RetryLater, RetryPolicy, check_json
from jotty.errors import ActorError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jotty.testing import VirtualClock

    from .conftest import Watch

pytestmark = pytest.mark.anyio


@actor
async def fine() -> str:
    return "fine"


@actor
async def broken(fine: str) -> str:
    raise ValueError("no")


async def test_the_actors_own_exception_is_raised_with_a_note(watch: Watch) -> None:
    run = await watch(fine, broken, run_id="r1")

    assert ValueError is type(run.error)
    assert run.error is not None
    assert ["Raised by actor 'broken', attempt 1, of run r1."] == run.error.__notes__


async def test_what_was_finished_stands_on_the_exception(watch: Watch) -> None:
    run = await watch(fine, broken)
    assert run.error is not None
    result = result_of(run.error)

    assert result is not None
    assert (False, {"fine": "fine"}) == (result["success"], result["actor_outputs"])
    assert [{"agent": "broken", "attempt": 1, "type": "ValueError", "message": "no"}] == result["errors"]
    assert result_of(ValueError()) is None


async def test_the_last_events_tell_of_the_failure(watch: Watch) -> None:
    run = await watch(fine, broken)

    error = {"agent": "broken", "attempt": 1, "type": "ValueError", "message": "no"}
    assert ["agent_error", "workflow_error"] == [event["type"] for event in run.events[-2:]]
    assert [error, error] == [event["error"] for event in run.events[-2:]]


async def test_siblings_are_cancelled_and_awaited(watch: Watch, clock: VirtualClock) -> None:
    log = []

    @actor
    async def sibling() -> None:
        try:
            await clock.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await clock.sleep(1)
            log.append("cleaned up")

    @actor
    async def fails() -> None:
        await clock.sleep(1)
        log.append("failing")
        raise ValueError

    run = await watch(sibling, fails)

    assert ["failing", "cleaned up"] == log
    assert isinstance(run.error, ValueError)
    assert 2.0 == run.events[-1]["time"] - run.events[0]["time"]


async def test_retries_wait_by_the_policy_and_then_fail(watch: Watch) -> None:
    @actor(retries=3, backoff=RetryPolicy(delay=1, factor=2, cap=3, jitter=0))
    async def fails() -> None:
        raise OSError("again")

    run = await watch(fails)

    assert [(1, 1.0), (2, 2.0), (3, 3.0)] == [
        (event["attempt"], event["delay"]) for event in run.told("agent_retry")
    ]
    assert [4] == [event["attempt"] for event in run.told("agent_error")]
    assert 6.0 == run.events[-1]["time"] - run.events[0]["time"]
    assert isinstance(run.error, OSError)


async def test_jitter_comes_from_the_conductors_random(watch: Watch) -> None:
    class Half:
        def random(self) -> float:
            return 0.5

    @actor(retries=1, backoff=8)
    async def fails() -> None:
        raise OSError

    run = await watch(fails, settings={"random": Half()})

    assert [8 * (1 - 0.5 * 0.5)] == [event["delay"] for event in run.told("agent_retry")]


async def test_a_retry_that_succeeds_is_no_failure(watch: Watch) -> None:
    attempts = []

    @actor(retries=2, backoff=1)
    async def flaky(ctx: Any) -> str:
        attempts.append(ctx.attempt)
        if ctx.attempt < 3:
            raise OSError
        return "ok"

    run = await watch(flaky)

    assert [1, 2, 3] == attempts
    assert run.result is not None
    assert (True, [], "ok") == (run.result["success"], run.result["errors"], run.output)
    assert 3 == run.told("agent_complete")[0]["attempt"]


async def test_retry_later_costs_no_attempt(watch: Watch) -> None:
    times = iter([5, 7])

    @actor
    async def busy(ctx: Any) -> int:
        wait = next(times, None)
        if wait:
            raise RetryLater(wait)
        return int(ctx.attempt)

    run = await watch(busy)

    assert 1 == run.output
    assert [5.0, 7.0] == [event["delay"] for event in run.told("agent_retry")]
    assert 12.0 == run.events[-1]["time"] - run.events[0]["time"]


async def test_retry_later_for_ever_is_a_failure(watch: Watch) -> None:
    @actor(backoff=RetryPolicy(max_postponements=2))
    async def busy() -> None:
        raise RetryLater(1)

    run = await watch(busy)

    assert isinstance(run.error, RetryLater)
    assert 2 == len(run.told("agent_retry"))


async def test_a_timeout_is_per_attempt_and_is_retried(watch: Watch, clock: VirtualClock) -> None:
    naps = iter([10, 1])

    @actor(retries=1, backoff=0, timeout=3)
    async def slow() -> str:
        await clock.sleep(next(naps))
        return "done"

    run = await watch(slow)

    assert "done" == run.output
    assert ["TimeoutError"] == [event["error"]["type"] for event in run.told("agent_retry")]
    assert 4.0 == run.events[-1]["time"] - run.events[0]["time"]


async def test_a_timeout_at_the_last_attempt_fails_with_what_took_how_long(
    watch: Watch, clock: VirtualClock
) -> None:
    @actor(timeout=1.5)
    async def slow() -> None:
        await clock.sleep(10)

    run = await watch(slow)

    assert isinstance(run.error, TimeoutError)
    assert "Actor 'slow' took longer than its timeout of 1.5 s." == str(run.error)


async def test_a_result_in_time_is_no_timeout(watch: Watch, clock: VirtualClock) -> None:
    @actor(timeout=1.5)
    async def quick() -> str:
        await clock.sleep(1)
        return "quick"

    assert "quick" == (await watch(quick)).output


async def test_continue_makes_the_actor_absent_and_the_run_no_success(watch: Watch) -> None:
    @actor
    async def needs(broken: str) -> str:
        return broken

    @actor
    async def may_use(broken: str = "default") -> str:
        return broken

    run = await watch(fine, broken, needs, may_use, settings={"on_error": "continue"})

    assert run.result is not None
    assert not run.result["success"]
    assert {"fine": "fine", "may_use": "default"} == run.outputs
    assert [("broken", "ValueError")] == [(each["agent"], each["type"]) for each in run.result["errors"]]
    assert ["agent_skipped"] == run.story("needs")
    assert "workflow_complete" == run.events[-1]["type"]


@pytest.mark.parametrize(("of_actor", "of_conductor"), [("continue", "raise"), ("raise", "continue")])
async def test_the_actors_policy_wins_over_the_conductors(
    watch: Watch, of_actor: Any, of_conductor: str
) -> None:
    @actor(on_error=of_actor)
    async def fails() -> None:
        raise ValueError

    run = await watch(fails, settings={"on_error": of_conductor})

    assert (of_actor == "raise") == isinstance(run.error, ValueError)


async def test_a_failing_condition_fails_its_actor(watch: Watch, clock: VirtualClock) -> None:
    def when(goal: str) -> bool:
        raise KeyError(goal)

    @actor(when=when, retries=3)
    async def asked() -> str:
        return "never"

    @actor
    async def sibling() -> str:
        await clock.sleep(1)
        return "never, too"

    raised = await watch(sibling, asked)
    continued = await watch(sibling, asked, settings={"on_error": "continue"})

    assert isinstance(raised.error, KeyError)
    assert ["agent_start", "agent_cancelled"] == raised.story("sibling")
    assert {"sibling": "never, too"} == continued.outputs


async def test_the_first_failure_is_raised_and_later_ones_are_dropped(
    watch: Watch, clock: VirtualClock
) -> None:
    @actor
    async def first() -> None:
        await clock.sleep(1)
        raise ValueError("first")

    @actor
    async def second() -> None:
        try:
            await clock.sleep(10)
        finally:
            raise ValueError("second")

    run = await watch(second, first)

    assert "first" == str(run.error)
    assert ["agent_start", "agent_cancelled"] == run.story("second")


class Frozen(Exception):
    """An exception that does not like attributes."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)

    def __str__(self) -> str:
        raise RuntimeError("unreadable")


async def test_strange_exceptions_are_raised_all_the_same(watch: Watch) -> None:
    @actor
    async def strange() -> None:
        raise Frozen

    run = await watch(strange)

    assert isinstance(run.error, Frozen)
    assert result_of(run.error) is not None
    assert "<its text can't be read: RuntimeError>" == run.events[-1]["error"]["message"]


async def test_a_condition_that_ends_the_program_does() -> None:
    def when() -> bool:
        raise SystemExit

    with pytest.raises(SystemExit):
        await Conductor([fine, actor(broken.call, when=when)], on_error="continue").run("goal")


async def test_what_should_end_the_program_is_never_continued_nor_retried(anyio_backend: str) -> None:
    attempts = []

    @actor(retries=2, on_error="continue")
    async def quits() -> None:
        attempts.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await Conductor([quits]).run("goal")

    assert [1] == attempts


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_actor_that_cancels_itself_is_an_actor_error(watch: Watch, anyio_backend: str) -> None:
    @actor
    async def forgets() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    @actor
    async def raises() -> None:
        raise asyncio.CancelledError

    @actor(retries=1, backoff=0)
    async def recovers(ctx: Any) -> str:
        if ctx.attempt == 1:
            raise asyncio.CancelledError
        return "recovered"

    for each in (forgets, raises):
        run = await watch(each)
        assert isinstance(run.error, ActorError)
        assert each.name == run.error.actor
    assert "recovered" == (await watch(recovers)).output


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_branch_that_somebody_else_cancels_is_an_actor_error(
    watch: Watch, anyio_backend: str
) -> None:
    @actor
    async def victim(ctx: Any) -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(10)

    @actor
    async def culprit() -> None:
        await checkpoint()
        tasks[0].cancel()

    tasks: list[Any] = []
    run = await watch(victim, culprit)

    assert isinstance(run.error, ActorError)
    assert "victim" == run.error.actor


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_branch_that_is_cancelled_between_two_attempts_is_an_actor_error(
    watch: Watch, anyio_backend: str
) -> None:
    @actor(retries=1, backoff=1000)
    async def victim(ctx: Any) -> None:
        tasks.append(asyncio.current_task())
        raise ValueError

    @actor
    async def culprit() -> None:
        await checkpoint()
        tasks[0].cancel()

    tasks: list[Any] = []
    run = await watch(victim, culprit)

    assert isinstance(run.error, ActorError)
    assert "victim" == run.error.actor


async def test_a_cancelled_caller_leaves_nothing_running(clock: VirtualClock) -> None:
    log, events = list[str](), list[Any]()

    @actor
    async def slow() -> None:
        log.append("begun")
        try:
            await clock.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await checkpoint()
            log.append("ended")

    @actor
    async def after(slow: None) -> None:
        log.append("never")

    run = GraphOrchestrator(Conductor([slow, after, fine], clock=clock)).prepare("goal")
    async with clock.autojump():
        with clock.timeout(1) as scope:
            await run.execute(events.append)

    assert scope.cancelled_caught
    assert ["begun", "ended"] == log
    assert "agent_cancelled" == events[-1]["type"]


async def test_what_waits_for_room_does_not_start_when_the_caller_is_cancelled() -> None:
    events: list[Any] = []

    @actor
    async def first() -> None:
        scope.cancel()
        await checkpoint()

    @actor
    async def second() -> None: ...

    run = GraphOrchestrator(Conductor([first, second], max_parallel=1)).prepare("goal")
    with anyio.CancelScope() as scope:
        await run.execute(events.append)

    assert ["workflow_start", "agent_start", "agent_cancelled"] == [event["type"] for event in events]


async def test_what_ends_well_after_the_caller_was_cancelled_starts_nothing(clock: VirtualClock) -> None:
    events: list[Any] = []

    @actor
    async def waits() -> None:
        await clock.sleep(100)

    @actor
    async def ends_well() -> None:
        with anyio.CancelScope(shield=True):
            await clock.sleep(5)

    @actor
    async def after(ends_well: None) -> None: ...

    run = GraphOrchestrator(Conductor([waits, ends_well, after], clock=clock)).prepare("goal")
    async with clock.autojump():
        with clock.timeout(1):
            await run.execute(events.append)

    expected = ["agent_start", "agent_start", "agent_cancelled", "agent_complete"]
    assert expected == [event["type"] for event in events[1:]]


async def test_nothing_starts_once_the_caller_is_cancelled(clock: VirtualClock) -> None:
    log = []

    @actor
    async def first() -> None:
        scope.cancel()

    @actor
    async def second(first: None) -> None:
        log.append("second begun")
        await checkpoint()
        log.append("second went on")

    with anyio.CancelScope() as scope:
        await Conductor([first, second]).run("goal")

    assert scope.cancelled_caught
    assert "second went on" not in log


async def test_chains_of_actors_that_never_wait_can_be_cancelled() -> None:
    count = []

    @actor
    async def busy(n: int = 0) -> Any:
        from jotty.core.orchestration import Goto

        count.append(n)
        if n == 10:
            scope.cancel()
        return Goto("busy", n=n + 1)

    with anyio.CancelScope() as scope:
        await Conductor([busy]).run("goal", max_iterations=100_000)

    assert scope.cancelled_caught
    assert 100 > len(count)


async def test_an_actor_that_exits_fails_and_does_not_end_the_process(watch: Watch) -> None:
    @actor
    async def exits() -> None:
        raise SystemExit(3)

    @actor
    def exits_in_a_thread() -> None:
        raise SystemExit("no more")

    for one, code in ((exits, "3"), (exits_in_a_thread, "'no more'")):
        run = await watch(one)

        assert isinstance(run.error, ActorError)
        assert (one.name, f"called sys.exit({code})") == (run.error.actor, run.error.deed)
        assert isinstance(run.error.__cause__, SystemExit)


async def test_an_actor_that_raises_generator_exit_has_failed(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def at_once() -> None:
        raise GeneratorExit

    @actor(retries=1)
    async def later() -> None:
        await clock.sleep(1)
        raise GeneratorExit

    @actor
    def in_a_thread() -> None:
        raise GeneratorExit

    @actor
    async def streaming() -> AsyncIterator[str]:
        yield "text"
        raise GeneratorExit

    for one in (at_once, later, in_a_thread, streaming):
        run = await watch(one)

        assert isinstance(run.error, ActorError)
        assert (one.name, "raised GeneratorExit") == (run.error.actor, run.error.deed)
        assert isinstance(run.error.__cause__, GeneratorExit)
        assert "workflow_error" == run.events[-1]["type"]


async def test_a_condition_that_raises_generator_exit_has_failed_its_actor(watch: Watch) -> None:
    def when() -> bool:
        raise GeneratorExit

    run = await watch(fine, actor(broken.call, when=when), settings={"on_error": "continue"})

    assert {"fine": "fine"} == run.outputs
    assert ["ActorError"] == [event["error"]["type"].rpartition(".")[2] for event in run.told("agent_error")]


@settings(deadline=None, max_examples=50)
@given(
    text=st.text(st.characters(codec=None), max_size=20) | st.just("\ud800"),
    times=st.sampled_from([1, 500_000]),
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_error_is_told_in_what_any_queue_can_store(backend: str, text: str, times: int) -> None:
    told: list[Any] = []

    @actor(retries=1, backoff=0)
    async def fails() -> None:
        raise ValueError(text * times)

    async def scenario() -> None:
        run = GraphOrchestrator(Conductor([fails])).prepare("goal")
        with pytest.raises(ValueError, match=r"^") as raised:
            await run.execute(told.append)

        result = result_of(raised.value)
        assert result is not None
        errors = [event["error"] for event in told if "error" in event] + result["errors"]
        assert 4 == len(errors)
        assert 1 == len({error["message"] for error in errors})
        check_json(errors, limit=64 * 1024)
        assert text * times == str(raised.value)

    anyio.run(scenario, backend=backend)


async def test_an_ordinary_error_is_told_as_it_is(watch: Watch) -> None:
    @actor
    async def fails() -> None:
        raise ValueError("Ein Fehler: \N{SNOWMAN}\n\tin zwei Zeilen")

    run = await watch(fails)

    assert "Ein Fehler: \N{SNOWMAN}\n\tin zwei Zeilen" == run.events[-1]["error"]["message"]


async def test_of_a_long_error_the_beginning_is_told(watch: Watch) -> None:
    @actor
    async def fails() -> None:
        raise ValueError("a \ud800 " + "x" * 1_000_000)

    run = await watch(fails)

    message = run.events[-1]["error"]["message"]
    assert message.startswith("a \\ud800 xxx")
    assert message.endswith("x…")


async def test_of_a_group_it_is_told_what_is_in_it(watch: Watch) -> None:
    async def fails(number: int) -> None:
        raise ValueError(f"no {number}")

    @actor
    async def broken() -> None:
        errors = [ValueError(f"no {number}") for number in range(5)]
        raise ExceptionGroup("many", [ExceptionGroup("some", errors[:2]), *errors[2:]])

    @actor
    async def grouped() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fails, 7)

    many = await watch(broken, run_id="r1")
    one = await watch(grouped)

    (told,) = many.told("agent_error")
    assert told["error"]["message"].endswith("): ValueError: no 0; ValueError: no 1; ValueError: no 2; ...")
    assert many.error is not None
    assert [
        "In it: ValueError: no 0; ValueError: no 1; ValueError: no 2; ...",
        "Raised by actor 'broken', attempt 1, of run r1.",
    ] == many.error.__notes__
    assert "ValueError: no 7" in one.told("agent_error")[0]["error"]["message"]


async def test_of_a_condition_that_fails_it_is_told_that_it_was_that(watch: Watch) -> None:
    @actor(when=lambda goal: goal["x"])
    async def asked(goal: str) -> None: ...

    run = await watch(asked, run_id="r1")

    assert run.error is not None
    assert ["Raised by when= of actor 'asked', of run r1."] == run.error.__notes__
