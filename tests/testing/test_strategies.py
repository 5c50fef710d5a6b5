"""The strategies: what they give can be used, and their smallest examples are the plainest."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from jotty.core.orchestration import result_of
from jotty.core.queue import MemoryTaskQueue, NewTask, RetryPolicy
from jotty.testing import (
    ActorGraph,
    ActorPlan,
    SampleHistory,
    VirtualClock,
    actor_graphs,
    check_history,
    contexts,
    goals,
    histories,
    json_values,
    payloads_refused,
    retry_policies,
    tasks,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from jotty.core.orchestration import Result

both_loops = pytest.mark.parametrize("loop", ["asyncio", "trio"])
SHRINKING = settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def smallest(strategy: st.SearchStrategy[Any], condition: Callable[[Any], bool] = lambda _: True) -> Any:
    return find(strategy, condition, settings=SHRINKING)


# Payloads


@pytest.mark.parametrize(
    ("strategy", "expected"), [(goals(), "0"), (json_values(), None), (contexts(), {})], ids=str
)
def test_the_smallest_payload_is_the_plainest(strategy: st.SearchStrategy[Any], expected: Any) -> None:
    assert expected == smallest(strategy)


def test_the_smallest_refused_payload_is_refused_itself() -> None:
    assert "" == smallest(payloads_refused()).path


# Tasks


def test_the_smallest_task_has_a_goal_and_no_option() -> None:
    assert NewTask("0") == smallest(tasks())


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (lambda task: task.delay is not None, NewTask("0", delay=0.0)),
        (lambda task: task.tags, NewTask("0", tags=["a"])),
        (lambda task: task.status == "backlog", NewTask("0", status="backlog")),
    ],
)
def test_the_smallest_task_with_an_option_has_no_other(
    option: Callable[[NewTask], bool], expected: NewTask
) -> None:
    assert expected == smallest(tasks(), option)


@both_loops
@settings(deadline=None)
@given(batch=st.lists(tasks(), max_size=4))
def test_every_task_can_be_enqueued(batch: list[NewTask], loop: str) -> None:
    async def enqueue() -> list[Any]:
        async with MemoryTaskQueue(clock=VirtualClock(), random=Random(0)) as queue:
            return [(task.goal, task.lane) for task in await queue.enqueue_many(batch)]

    keyed = [new.key for new in batch if new.key]
    stored = anyio.run(enqueue, backend=loop)

    assert len(batch) == len(stored)
    if len(keyed) == len(set(keyed)):
        assert [(new.goal, new.lane) for new in batch] == stored


def test_the_smallest_policy_is_the_default_one() -> None:
    assert RetryPolicy() == smallest(retry_policies())
    assert RetryPolicy(jitter=0.0) == smallest(retry_policies(), lambda policy: policy.jitter == 0)


@given(retry_policies(), st.integers(1, 10**6), st.integers())
def test_every_policy_waits_within_its_cap(policy: RetryPolicy, attempt: int, seed: int) -> None:
    assert 0 <= policy.backoff(attempt, Random(seed)) <= policy.cap


# Graphs


async def run(graph: ActorGraph) -> tuple[Result, float]:
    clock = VirtualClock()
    begun = clock.now()
    async with clock.autojump():
        try:
            result = await graph.conductor(clock).run("goal", max_iterations=1000)
        except RuntimeError as error:
            found = result_of(error)
            if found is None:
                raise
            result = found
    return result, (clock.now() - begun) / 1e6


@both_loops
@settings(deadline=None)
@given(graph=actor_graphs())
def test_every_graph_runs_and_its_result_fits_its_description(graph: ActorGraph, loop: str) -> None:
    result, _ = anyio.run(run, graph, backend=loop)

    assert [] == graph.problems(result)


@given(actor_graphs(routing=False))
def test_without_routing_the_outputs_are_known_beforehand(graph: ActorGraph) -> None:
    assert set(graph.outputs()) <= {plan.name for plan in graph.plans}


def test_the_smallest_graph_is_one_actor_that_gives_its_output_at_once() -> None:
    assert ActorGraph(plans=(ActorPlan(name="ann"),)) == smallest(actor_graphs())


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (lambda graph: any(plan.may_fail for plan in graph.plans), ActorPlan(name="ann", failures=1)),
        (
            lambda graph: any("ann" in plan.moves for plan in graph.plans),
            ActorPlan(name="ann", moves=("ann",)),
        ),
        (lambda graph: any(plan.moves for plan in graph.plans), ActorPlan(name="ann", moves=("end",))),
        (
            lambda graph: any(not plan.is_wanted for plan in graph.plans),
            ActorPlan(name="ann", is_wanted=False),
        ),
        (lambda graph: any(plan.delay for plan in graph.plans), ActorPlan(name="ann", delay=1)),
    ],
)
def test_the_smallest_graph_that_does_something_does_nothing_else(
    condition: Callable[[ActorGraph], bool], expected: ActorPlan
) -> None:
    assert ActorGraph(plans=(expected,)) == smallest(actor_graphs(), condition)


def test_the_smallest_dependency_is_between_two() -> None:
    found = smallest(actor_graphs(), lambda graph: any(plan.needs for plan in graph.plans))

    assert {ActorPlan(name="ann"), ActorPlan(name="bob", needs=("ann",))} == set(found.plans)


PAIR = ActorGraph(plans=(ActorPlan(name="ann"), ActorPlan(name="bob", needs=("ann",))))


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({"ann": {"by": "ann", "number": 2, "of": {}}}, "bob was made of"),
        ({"ann": None}, "bob needs ann, which is absent"),
    ],
    ids=["a stale input", "an absent one"],
)
def test_what_does_not_fit_is_told(outputs: dict[str, Any], said: str) -> None:
    result, _ = anyio.run(run, PAIR)
    changed = {name: one for name, one in {**result["actor_outputs"], **outputs}.items() if one is not None}
    problems = PAIR.problems({**result, "actor_outputs": changed})

    assert any(problem.startswith(said) for problem in problems)


def test_an_actor_takes_its_time_and_its_retries() -> None:
    slow = ActorPlan(name="ann", delay=4, failures=2, retries=2)
    result, seconds = anyio.run(run, ActorGraph(plans=(slow,)))

    assert (True, 3 * 4 + 2) == (result["success"], round(seconds))


# Histories


@given(histories())
def test_a_true_history_breaks_nothing(history: SampleHistory) -> None:
    assert (None, ()) == (history.breaks, check_history(history.events).violations)


@given(histories(broken=True))
def test_a_broken_one_breaks_the_rule_it_names(history: SampleHistory) -> None:
    verdict = check_history(history.events)

    assert {history.breaks} == {violation.rule for violation in verdict.violations}
    assert {"broken"} == {event.task for one in verdict.violations for event in one.events}


def test_the_smallest_history_is_one_task_that_completes() -> None:
    kinds = ["enqueued", "claiming", "claimed", "answered", "started"]
    kinds += ["renewed", "effect", "settling", "settled", "final"]

    assert kinds == [event.kind for event in smallest(histories()).events]


@pytest.mark.parametrize("rule", ["C2", "C15", "C22", "C23", "C44"])
def test_the_smallest_broken_history_tells_of_one_task(rule: str) -> None:
    history = smallest(histories(broken=True), lambda one: one.breaks == rule)

    assert {"broken"} == {event.task for event in history.events}
    assert attrs.evolve(history, breaks=None) != history
