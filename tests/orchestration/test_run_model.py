"""Whole runs of random graphs against a simple model of what must happen, and when."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty.core.orchestration import Actor, Conductor, Goto, GraphOrchestrator, result_of
from jotty.core.queue import MICROSECONDS, RetryPolicy
from jotty.testing import VirtualClock

pytestmark = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Broken(Exception):
    """What a failing node raises."""


@attrs.frozen
class Spec:
    """One node of a random graph: who feeds it, and how it behaves."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    is_wanted: bool
    delay: int
    failures: int
    retries: int

    @property
    def fails(self) -> bool:
        return self.failures > self.retries


@st.composite
def specs(draw: st.DrawFn) -> list[Spec]:
    names = [f"n{at}" for at in range(draw(st.integers(1, 6)))]
    found = []
    for at, name in enumerate(names):
        feeds = {each: draw(st.sampled_from(["no", "required", "optional"])) for each in names[:at]}
        found.append(
            Spec(
                name=name,
                required=tuple(each for each in names[:at] if feeds[each] == "required"),
                optional=tuple(each for each in names[:at] if feeds[each] == "optional"),
                is_wanted=draw(st.sampled_from([True, True, True, False])),
                delay=draw(st.integers(0, 4)),
                failures=draw(st.sampled_from([0, 0, 0, 1, 2])),
                retries=draw(st.integers(0, 2)),
            )
        )
    return draw(st.permutations(found))


@attrs.frozen
class Expected:
    """What the model says: outputs, the failed, the skipped, and when each that runs begins."""

    outputs: dict[str, Any]
    failed: set[str]
    skipped: set[str]
    begins: dict[str, int]
    ends: dict[str, int]


def expected_of(nodes: list[Spec]) -> Expected:
    found = Expected({}, set(), set(), {}, {})
    for spec in sorted(nodes, key=lambda each: each.name):
        ready = max((found.ends[each] for each in (*spec.required, *spec.optional)), default=0)
        if not spec.is_wanted or not set(spec.required) <= set(found.outputs):
            found.skipped.add(spec.name)
            found.ends[spec.name] = ready
            continue
        attempts = min(spec.failures, spec.retries) + 1
        found.begins[spec.name] = ready
        # every attempt takes the delay, every wait between two of them a second
        found.ends[spec.name] = ready + attempts * spec.delay + (attempts - 1)
        if spec.fails:
            found.failed.add(spec.name)
        else:
            feeds = [each for each in (*spec.required, *spec.optional) if each in found.outputs]
            found.outputs[spec.name] = (spec.name, {each: found.outputs[each] for each in feeds})
    return found


def actor_of(spec: Spec, clock: VirtualClock) -> Actor[..., Any]:
    failures = iter(range(spec.failures))

    async def run(**inputs: Any) -> Any:
        await clock.sleep(spec.delay)
        if next(failures, None) is not None:
            raise Broken(spec.name)
        return spec.name, inputs

    required = ", ".join(spec.required)
    optional = ", ".join(f"{each}=None" for each in spec.optional)
    given_names = ", ".join((*spec.required, *spec.optional))
    source = (
        f"async def call({required}{',' if required else ''}{optional}):\n    return await run({given_names})"
    )

    async def gather(*values: Any) -> Any:
        names = (*spec.required, *spec.optional)
        return await run(**{name: each for name, each in zip(names, values, strict=True) if each is not None})

    space: dict[str, Any] = {"run": gather}
    exec(source, space)  # noqa: S102  # the parameters' names are what is being tested
    return Actor(
        name=spec.name,
        call=space["call"],
        when=None if spec.is_wanted else lambda: False,
        retries=spec.retries,
        backoff=RetryPolicy(delay=1, factor=1, jitter=0),
    )


async def _watched(
    nodes: list[Spec], on_error: str, max_parallel: int | None = None
) -> tuple[Any, BaseException | None, list[Any], int]:
    clock, events = VirtualClock(), list[Any]()
    conductor = Conductor(
        [actor_of(spec, clock) for spec in nodes],
        clock=clock,
        on_error=on_error,  # type: ignore[arg-type]  # one of the two
        max_parallel=max_parallel,
    )
    start = clock.now()
    async with clock.autojump():
        try:
            result = await GraphOrchestrator(conductor).prepare("goal").execute(events.append)
        except Broken as exc:
            return result_of(exc), exc, events, start
    return result, None, events, start


@settings(max_examples=60, deadline=None)
@given(nodes=specs())
def test_everything_runs_once_and_as_soon_as_its_own_parents_are_settled(
    nodes: list[Spec], backend: str
) -> None:
    result, _, events, start = anyio.run(_watched, nodes, "continue", backend=backend)
    model = expected_of(nodes)
    begins = {
        event["agent"]: round(event["time"] - start / MICROSECONDS)
        for event in events
        if event["type"] == "agent_start"
    }

    assert model.outputs == result["actor_outputs"]
    assert model.begins == begins
    assert model.skipped == {event["agent"] for event in events if event["type"] == "agent_skipped"}
    assert model.failed == {error["agent"] for error in result["errors"]}
    assert {1} >= set(Counter(result["metadata"]["path"]).values())
    assert (not model.failed) == result["success"]


@settings(max_examples=40, deadline=None)
@given(nodes=specs(), bound=st.integers(1, 3))
def test_a_bound_on_parallel_executions_changes_times_but_no_outputs(
    nodes: list[Spec], bound: int, backend: str
) -> None:
    result, _, events, _ = anyio.run(_watched, nodes, "continue", bound, backend=backend)

    assert expected_of(nodes).outputs == result["actor_outputs"]
    assert bound >= most_at_once(events)


def most_at_once(events: list[Any]) -> int:
    """Return how many executions went on at once, those included that were cancelled and had not ended."""
    steps = {"agent_start": 1, "agent_complete": -1, "agent_error": -1, "agent_cancelled": -1}
    return max(accumulate(steps.get(event["type"], 0) for event in events))


@settings(max_examples=60, deadline=None)
@given(nodes=specs())
def test_the_first_failure_is_raised_as_it_is_and_everyone_else_is_cancelled(
    nodes: list[Spec], backend: str
) -> None:
    result, error, events, _ = anyio.run(_watched, nodes, "raise", backend=backend)
    model = expected_of(nodes)
    first = min((model.ends[name] for name in model.failed), default=None)
    firsts = {name for name in model.failed if model.ends[name] == first}
    kinds = Counter(event["type"] for event in events)

    assert bool(firsts) == isinstance(error, Broken)
    assert error is None or str(error) in firsts
    assert (error is None) == result["success"]
    assert kinds["agent_start"] == kinds["agent_complete"] + kinds["agent_error"] + kinds["agent_cancelled"]
    assert 1 == kinds["workflow_complete"] + kinds["workflow_error"]
    assert result["actor_outputs"] == {name: model.outputs[name] for name in result["actor_outputs"]}


@attrs.frozen
class Router:
    """A node that goes elsewhere a few times before it gives an output."""

    name: str
    above: tuple[str, ...]
    delay: int
    targets: tuple[str, ...]
    on_demand: bool
    cleanup: int


@st.composite
def routers(draw: st.DrawFn) -> list[Router]:
    names = [f"n{at}" for at in range(draw(st.integers(2, 5)))]
    return [
        Router(
            name=name,
            above=tuple(each for each in names[:at] if draw(st.booleans())),
            delay=draw(st.integers(0, 3)),
            targets=tuple(draw(st.lists(st.sampled_from(names), max_size=2))),
            on_demand=draw(st.sampled_from([False, False, True])),
            cleanup=draw(st.integers(0, 2)),
        )
        for at, name in enumerate(names)
    ]


async def _routed(nodes: list[Router], max_parallel: int | None = None) -> tuple[Any, list[Any]]:
    clock, events = VirtualClock(), list[Any]()
    serial = iter(range(10_000))

    def actor_of_router(spec: Router) -> Actor[..., Any]:
        targets = iter(spec.targets)

        async def run(**inputs: Any) -> Any:
            try:
                await clock.sleep(spec.delay)
            except anyio.get_cancelled_exc_class():
                with anyio.CancelScope(shield=True):
                    await clock.sleep(spec.cleanup)
                raise
            target = next(targets, None)
            return (next(serial), tuple(sorted(inputs.items()))) if target is None else Goto(target)

        return Actor(name=spec.name, call=run, depends_on=spec.above, on_demand=spec.on_demand)

    actors = [actor_of_router(spec) for spec in nodes]
    conductor = Conductor(actors, clock=clock, max_parallel=max_parallel)
    async with clock.autojump():
        result = await GraphOrchestrator(conductor).prepare("goal", None, 10_000).execute(events.append)
    return result, events


@settings(max_examples=80, deadline=None)
@given(nodes=routers())
def test_whatever_the_routing_outputs_fit_each_other_and_no_round_runs_twice(
    nodes: list[Router], backend: str
) -> None:
    result, events = anyio.run(_routed, nodes, backend=backend)
    outputs = result["actor_outputs"]
    feeds = {
        spec.name: {each: outputs[each] for each in spec.above if each in outputs}
        for spec in nodes
        if spec.name in outputs
    }
    starts = Counter((event["agent"], event["round"]) for event in events if event["type"] == "agent_start")

    assert feeds == {name: dict(output[1]) for name, output in outputs.items()}
    assert {1} >= set(starts.values())
    assert sum(starts.values()) == result["metadata"]["iterations"]
    assert result["success"]


@settings(max_examples=40, deadline=None)
@given(nodes=routers())
def test_an_actor_never_runs_beside_itself(nodes: list[Router], backend: str) -> None:
    _, events = anyio.run(_routed, nodes, backend=backend)
    running: set[str] = set()
    for event in events:
        if event["type"] == "agent_start":
            assert event["agent"] not in running
            running.add(event["agent"])
        elif event["type"] in ("agent_complete", "agent_cancelled"):
            running.remove(event["agent"])

    assert set() == running
