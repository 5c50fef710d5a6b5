"""Goto, End and actors that run on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty.core.orchestration import End, Goto, actor
from jotty.errors import GraphError, MaxIterationsExceeded

if TYPE_CHECKING:
    from jotty.testing import VirtualClock

    from .conftest import Watch

pytestmark = pytest.mark.anyio


async def test_a_review_loops_until_it_is_content(watch: Watch) -> None:
    @actor
    async def write(goal: str, feedback: str = "") -> str:
        return goal + feedback

    @actor
    async def review(write: str) -> Any:
        return write if "!" in write else Goto("write", feedback="!")

    run = await watch(write, review)

    assert "goal!" == run.output
    assert ["write", "review", "write", "review"] == run.path
    assert [0, 0, 1, 1] == [event["round"] for event in run.told("agent_start")]
    assert ["output", "goto", "output", "output"] == [event["kind"] for event in run.told("agent_complete")]


async def test_inputs_of_a_goto_win_over_everything_and_hold_for_its_retries(watch: Watch) -> None:
    seen = []

    @actor(retries=1, backoff=0)
    async def write(goal: str, tone: str, facts: int = 0) -> str:
        seen.append((goal, tone, facts))
        if len(seen) == 2:
            raise ValueError
        return "text"

    @actor
    async def review(write: str) -> Any:
        return "done" if len(seen) > 1 else Goto("write", goal="other", facts=2)

    await watch(write, review, context={"tone": "dry"})

    assert [("goal", "dry", 0), ("other", "dry", 2), ("other", "dry", 2)] == seen


async def test_a_goto_cancels_and_awaits_what_descends_from_its_target(
    watch: Watch, clock: VirtualClock
) -> None:
    log = []

    @actor
    async def plan() -> str:
        log.append("plan")
        return "plan"

    @actor
    async def build(plan: str) -> str:
        try:
            await clock.sleep(10)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await clock.sleep(2)
            log.append("build cleaned up")
            raise
        log.append("built")
        return "built"

    @actor
    async def change(goal: str) -> Any:
        await clock.sleep(1)
        log.append("change")
        return Goto("plan")

    run = await watch(plan, build, change)

    assert ["plan", "change", "build cleaned up", "plan", "built"] == log
    assert ["agent_start", "agent_cancelled", "agent_start", "agent_complete"] == run.story("build")
    assert {"plan": "plan", "build": "built"} == run.outputs
    assert [13.0] == [run.events[-1]["time"] - run.events[0]["time"]]


async def test_what_is_still_ending_takes_up_room(watch: Watch, clock: VirtualClock) -> None:
    going_on, most = [0], [0]

    def busy(name: str, seconds: float, outcome: Any = None) -> Any:
        async def work() -> Any:
            going_on[0] += 1
            most[0] = max(most[0], going_on[0])
            try:
                await clock.sleep(seconds)
            except anyio.get_cancelled_exc_class():
                with anyio.CancelScope(shield=True):
                    await clock.sleep(5)
                raise
            finally:
                going_on[0] -= 1
            return outcome

        return actor(work, name=name, depends_on=[] if name in {"first", "changes"} else ["first"])

    names = [busy("first", 0), busy("changes", 1, Goto("slow")), busy("slow", 3), busy("a", 1), busy("b", 1)]
    run = await watch(*names, settings={"max_parallel": 2})

    assert 2 == most[0]
    assert ["first", "changes", "slow", "a", "b", "slow"] == run.path


async def test_a_late_result_of_a_cancelled_execution_is_dropped(watch: Watch, clock: VirtualClock) -> None:
    values = iter(["late", "right"])

    @actor
    async def target() -> str:
        return "target"

    @actor
    async def stubborn(target: str) -> str:
        value = next(values)
        with anyio.CancelScope(shield=True):
            await clock.sleep(5)
        return value

    @actor
    async def change(goal: str) -> Any:
        await clock.sleep(1)
        return Goto("target")

    run = await watch(target, stubborn, change)

    assert "right" == run.output
    assert ["agent_start", "agent_cancelled", "agent_start", "agent_complete"] == run.story("stubborn")


async def test_a_failure_of_a_cancelled_execution_is_dropped(watch: Watch, clock: VirtualClock) -> None:
    runs = []

    @actor
    async def target() -> str:
        return "target"

    @actor
    async def breaking(target: str) -> str:
        runs.append(1)
        try:
            await clock.sleep(5 if len(runs) == 1 else 0)
        except anyio.get_cancelled_exc_class():
            raise ValueError("while being cancelled") from None
        return "fine"

    @actor
    async def change(goal: str) -> Any:
        await clock.sleep(1)
        return Goto("target")

    run = await watch(target, breaking, change)

    assert run.error is None
    assert "fine" == run.output


async def test_one_who_sends_elsewhere_and_does_not_descend_counts_as_skipped(watch: Watch) -> None:
    @actor
    async def triage(goal: str) -> Any:
        return Goto("billing", amount=3)

    @actor(on_demand=True)
    async def billing(amount: int) -> str:
        return f"pay {amount}"

    @actor(on_demand=True)
    async def support(goal: str) -> str:
        return "never"

    @actor
    async def reply(billing: str = "", support: str = "", triage: str = "") -> str:
        return f"{billing}{support}{triage}."

    run = await watch(triage, billing, support, reply)

    assert "pay 3." == run.output
    assert ["triage", "billing", "reply"] == run.path
    assert {"billing": "pay 3", "reply": "pay 3."} == run.outputs


async def test_a_goto_does_not_ask_the_condition_of_its_target(watch: Watch) -> None:
    @actor(when=lambda: False)
    async def rare(goal: str) -> str:
        return "rare"

    @actor
    async def choose(goal: str) -> Any:
        return Goto("rare")

    run = await watch(rare, choose)

    assert "rare" == run.output


async def test_a_target_waits_for_its_parents(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def slow() -> str:
        await clock.sleep(5)
        return "slow"

    @actor
    async def target(slow: str, note: str = "") -> str:
        return slow + note

    @actor
    async def hurry(goal: str) -> Any:
        return Goto("target", note="!")

    run = await watch(slow, target, hurry)

    assert "slow!" == run.output
    assert ["slow", "hurry", "target"] == run.path


async def test_inputs_of_a_goto_take_the_place_of_an_absent_output(watch: Watch) -> None:
    @actor(when=lambda: False)
    async def facts() -> str:
        return "never"

    @actor
    async def write(facts: str) -> str:
        return facts

    @actor
    async def help_out(goal: str) -> Any:
        return Goto("write", facts="made up")

    assert "made up" == (await watch(facts, write, help_out)).output


async def test_a_goto_to_oneself_runs_again(watch: Watch) -> None:
    @actor
    async def count(n: int = 0) -> Any:
        return Goto("count", n=n + 1) if n < 3 else n

    assert 3 == (await watch(count)).output


async def test_a_goto_skips_no_output_of_others(watch: Watch, clock: VirtualClock) -> None:
    runs = []

    @actor
    async def dear() -> str:
        runs.append("dear")
        return "dear"

    @actor
    async def loop(dear: str, n: int = 0) -> Any:
        return Goto("loop", n=n + 1) if n < 2 else dear

    run = await watch(dear, loop)

    assert ["dear"] == runs
    assert "dear" == run.output


@pytest.mark.parametrize("goto", [Goto("nowhere"), Goto("a", unknown=1)])
async def test_a_goto_that_leads_nowhere_fails_its_actor_without_retries(watch: Watch, goto: Goto) -> None:
    @actor(retries=5)
    async def a() -> Any:
        return goto

    run = await watch(a)

    assert isinstance(run.error, GraphError)
    assert ["agent_start", "agent_error"] == run.story("a")


async def test_an_endless_loop_is_ended_with_counts_and_path(watch: Watch) -> None:
    @actor
    async def ping() -> str:
        return "ping"

    @actor
    async def pong(ping: str) -> Goto:
        return Goto("ping")

    run = await watch(ping, pong, max_iterations=5)

    assert isinstance(run.error, MaxIterationsExceeded)
    assert 5 == run.error.limit
    assert {"ping": 3, "pong": 2} == run.error.counts
    assert ["ping", "pong", "ping", "pong", "ping"] == run.error.path
    assert "workflow_error" == run.events[-1]["type"]


async def test_exactly_max_iterations_are_allowed(watch: Watch) -> None:
    @actor
    async def count(n: int = 1) -> Any:
        return Goto("count", n=n + 1) if n < 5 else n

    assert 5 == (await watch(count, max_iterations=5)).output


async def test_attempts_are_no_iterations(watch: Watch) -> None:
    tries = iter([1, 2])

    @actor(retries=2)
    async def flaky() -> str:
        if next(tries, None):
            raise ValueError
        return "ok"

    assert "ok" == (await watch(flaky, max_iterations=1)).output


async def test_end_finishes_the_run_and_cancels_what_runs(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def slow() -> None:
        await clock.sleep(100)

    @actor
    async def decide(goal: str) -> End:
        await clock.sleep(1)
        return End("enough")

    @actor
    async def never(decide: str) -> None: ...

    run = await watch(slow, decide, never)

    assert "enough" == run.output
    assert {"decide": "enough"} == run.outputs
    assert ["agent_start", "agent_cancelled"] == run.story("slow")
    assert [] == run.story("never")
    assert 1.0 == run.events[-1]["time"] - run.events[0]["time"]
    assert "workflow_complete" == run.events[-1]["type"]


async def test_end_wins_over_the_conductors_output(watch: Watch) -> None:
    @actor
    async def first() -> str:
        return "first"

    @actor
    async def last(first: str) -> End:
        return End()

    run = await watch(first, last, settings={"output": "first"})

    assert run.output is None
    assert {"first": "first", "last": None} == run.outputs


async def test_a_static_run_follows_a_goto_back(watch: Watch) -> None:
    @actor
    async def write(feedback: str = "") -> str:
        return f"text{feedback}"

    @actor
    async def review(write: str) -> Any:
        return write if write.endswith("!") else Goto("write", feedback="!")

    @actor
    async def publish(write: str, review: str = "") -> str:
        return f"published {write}"

    run = await watch(write, review, publish, mode="static")

    assert ["write", "review", "write", "review", "publish"] == run.path
    assert "published text!" == run.output


async def test_a_join_of_on_demand_actors_waits_until_none_of_them_can_come(
    watch: Watch, clock: VirtualClock
) -> None:
    @actor
    async def triage(goal: str) -> Any:
        await clock.sleep(5)
        return Goto("late")

    @actor(on_demand=True)
    async def late(goal: str) -> str:
        return "late"

    @actor
    async def join(late: str = "nothing") -> str:
        return late

    run = await watch(join, late, triage)

    assert ["triage", "late", "join"] == run.path
    assert "late" == run.output


async def test_on_demand_actors_that_nobody_wants_let_the_run_end(watch: Watch) -> None:
    @actor(on_demand=True)
    async def first(goal: str) -> str:
        return goal

    @actor
    async def after(first: str) -> str:
        return first

    @actor
    async def may(first: str = "none") -> str:
        return first

    run = await watch(first, after, may)

    assert {"may": "none"} == run.outputs
    assert ["agent_skipped"] == run.story("after")


async def test_supplied_outputs_stay_when_a_goto_passes_them(watch: Watch) -> None:
    @actor
    async def a() -> str:
        return "a"

    @actor
    async def b(a: str) -> str:
        raise AssertionError

    @actor
    async def c(b: str) -> Any:
        seen.append(b)
        return Goto("a") if len(seen) == 1 else b

    seen: list[str] = []
    run = await watch(a, b, c, outputs={"b": "given"})

    assert "given" == run.output
    assert ["given", "given"] == seen
