"""A run is the same whichever way its nodes take: the short one through bare actors, or a long one."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import anyio
import attrs
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jotty.core.orchestration import (
    Actor,
    Conductor,
    End,
    Goto,
    GraphOrchestrator,
    Limit,
    Output,
    result_of,
)
from jotty.core.queue import RetryPolicy
from jotty.testing import VirtualClock

AFTER_A_SECOND = RetryPolicy(delay=1, factor=1, jitter=0)
VARIANTS = ["when", "ctx", "limit", "inputs", "payloads", "parallel", "in time"]


class Broken(Exception):
    """What a failing node raises."""


class Fatal(BaseException):
    """What nobody goes on from."""


@attrs.frozen
class Act:
    """What one call of a node does: how long it waits, and what it comes to."""

    waits: int
    what: str
    target: str = ""

    async def perform(self, clock: VirtualClock, value: Any) -> Any:
        if self.waits:
            await (checkpoint() if self.waits == 1 else clock.sleep(self.waits - 1))
        if self.what in {"fail", "fatal", "exit", "close", "stop"}:
            raise ERRORS[self.what](value)
        return _outcome(self, value)


ERRORS: dict[str, type[BaseException]] = {
    "fail": Broken,
    "fatal": Fatal,
    "exit": SystemExit,
    "close": GeneratorExit,
    "stop": StopAsyncIteration,
}


async def forgotten() -> None: ...


def _outcome(act: Act, value: Any) -> Any:
    match act.what:
        case "goto":
            return Goto(act.target)
        case "goto with":
            return Goto(act.target, given=value)
        case "end":
            return End(value)
        case "output":
            return Output(value)
        case "coroutine":
            return forgotten()
        case "nothing":
            return None
        case _:
            return value


@attrs.frozen
class Spec:
    """One node of a random graph."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    depends_on: tuple[str, ...]
    acts: tuple[Act, ...]
    retries: int
    on_error: str | None
    on_demand: bool
    inner: int  # nodes of the conductor that it is, or 0


@attrs.frozen
class Case:
    """A random graph and how it is run."""

    specs: tuple[Spec, ...]
    order: tuple[str, ...] | None
    options: dict[str, Any]
    on_error: str


@cache
def acts(names: tuple[str, ...], *, may_wait: bool) -> st.SearchStrategy[tuple[Act, ...]]:
    waits = st.sampled_from([0, 0, 0, 0, 1, 2, 3] if may_wait else [0])
    plain = st.sampled_from(["value"] * 8 + ["output", "nothing", "fail", "end", "coroutine", "close"])
    rare = st.sampled_from(["value", "value", "fail", "goto", "goto with", "exit", "fatal", "stop"])
    last = st.tuples(waits, plain).map(lambda each: Act(*each))
    first = st.tuples(waits, rare, st.sampled_from(names)).map(lambda each: Act(*each))
    return st.tuples(st.lists(first, max_size=2), last).map(lambda each: (*each[0], each[1]))


FEEDS = st.sampled_from(["", "", "required", "optional", "depends"])


@st.composite
def cases(draw: st.DrawFn, *, may_wait: bool) -> Case:
    names = [f"n{at}" for at in range(draw(st.integers(2, 9)))]
    specs = []
    for at, name in enumerate(names):
        feeds = {each: draw(FEEDS) for each in names[:at]}

        def fed(how: str, feeds: dict[str, str] = feeds) -> tuple[str, ...]:
            return tuple(each for each, found in feeds.items() if found == how)

        specs.append(
            Spec(
                name=name,
                required=fed("required"),
                optional=fed("optional"),
                depends_on=fed("depends"),
                acts=draw(acts(tuple(names), may_wait=may_wait)),
                retries=draw(st.sampled_from([0, 0, 1, 2])) if may_wait else 0,
                on_error=draw(st.sampled_from([None, None, "continue", "raise"])),
                on_demand=draw(st.sampled_from([False, False, False, True])),
                inner=draw(st.sampled_from([0, 0, 0, 0, 1, 3])) if may_wait else 0,  # who holds others waits
            )
        )
    is_static = draw(st.booleans()) and draw(st.booleans())
    order = (*names, *draw(st.lists(st.sampled_from(names), max_size=2))) if is_static else None
    options = {
        "max_iterations": draw(st.sampled_from([100] * 9 + [1, 2, 3, 4, 5, 6, 7, 8, 9])),
        "outputs": {name: f"supplied {name}" for name in draw(st.sets(st.sampled_from(names), max_size=1))},
        "entry": draw(st.sampled_from([None] * 9 + names)),
    }
    many = draw(st.permutations(specs)) if order is None else specs
    return Case(tuple(many), order, options, draw(st.sampled_from(["raise", "continue"])))


def made(spec: Spec, clock: VirtualClock, variant: str) -> Actor[..., Any]:
    """Return the actor that a spec describes, bare but for what the variant adds."""
    if spec.inner:
        return _held(spec, clock, variant)
    left = list(spec.acts)

    async def run(**inputs: Any) -> Any:
        act = left.pop(0) if len(left) > 1 else left[0]
        return await act.perform(clock, [spec.name, inputs])

    return _actor(spec, run, variant)


def _actor(spec: Spec, run: Any, variant: str) -> Actor[..., Any]:
    names = (*spec.required, *spec.optional)
    parameters = [*spec.required, *(f"{each}='absent'" for each in spec.optional), "given='none'"]
    if variant == "ctx":
        parameters.append("ctx=None")
    if variant == "inputs":
        parameters.append("**more")  # what depends_on gives is in it
    source = f"async def call({', '.join(parameters)}):\n    return await run(given=given, "
    source += ", ".join(f"{each}={each}" for each in names) + ")"
    space: dict[str, Any] = {"run": run}
    exec(source, space)  # noqa: S102 - the parameters' names are what is being tested
    return Actor(
        name=spec.name,
        call=space["call"],
        depends_on=spec.depends_on,
        when=(lambda: True) if variant == "when" else None,
        limit="many" if variant == "limit" else None,
        retries=spec.retries,
        backoff=AFTER_A_SECOND,
        on_error=spec.on_error,  # type: ignore[arg-type]  # one of the two
        on_demand=spec.on_demand,
    )


def _held(spec: Spec, clock: VirtualClock, variant: str) -> Actor[..., Any]:
    """Return a conductor of a chain whose last node is what the spec says."""
    inner: list[Actor[..., Any]] = []
    for at in range(spec.inner):
        is_last = at == spec.inner - 1
        acts = tuple(each for each in spec.acts if not each.target) if is_last else (Act(0, "value"),)
        before = (f"i{at - 1}",) if at else ()
        inner.append(made(Spec(f"i{at}", before, (), (), acts, 0, None, False, 0), clock, variant))
    return Actor(
        name=spec.name,
        call=as_call(conductor_of(inner, clock, variant, name=spec.name)),
        depends_on=(*spec.required, *spec.optional, *spec.depends_on),
        retries=spec.retries,
        backoff=AFTER_A_SECOND,
        on_error=spec.on_error,  # type: ignore[arg-type]
        on_demand=spec.on_demand,
    )


def as_call(conductor: Conductor) -> Any:
    return conductor


def conductor_of(actors: list[Any], clock: VirtualClock, variant: str, **more: Any) -> Conductor:
    return Conductor(
        actors,
        clock=clock,
        limits={"many": Limit(concurrent=1_000)} if variant == "limit" else None,
        max_parallel=10**6 if variant == "parallel" else None,
        **more,
    )


@attrs.frozen
class Story:
    """What a run told, and what it came to."""

    result: str
    error: str
    notes: list[str]
    events: list[str]
    order: list[str]


def told(value: Any) -> str:
    """Return what was raised, but for what differs by chance."""
    return re.sub(r"0x[0-9a-f]+", "0x", repr(value))


async def run_of(case: Case, variant: str, *, is_heard: bool = True) -> Story:
    clock, events = VirtualClock(), list[Any]()
    conductor = conductor_of(
        [made(spec, clock, variant) for spec in case.specs], clock, variant, on_error=case.on_error
    )
    orchestrator = GraphOrchestrator(
        conductor,
        "dynamic" if case.order is None else "static",
        case.order,
        check_payloads=variant == "payloads",
    )
    result, error = None, None
    with anyio.fail_after(1_000) if variant == "in time" else anyio.CancelScope():
        async with clock.autojump():
            try:
                run = orchestrator.prepare("goal", run_id="run", **case.options)
                result = await run.execute(events.append if is_heard else None)
            except BaseException as exc:  # noqa: BLE001 - looked at below
                error = exc
    if error is not None:
        result = result_of(error)
    for event in events:
        if event["type"] == "workflow_error":
            del event["result"]  # as result_of has it
    notes = [] if error is None else getattr(error, "__notes__", [])
    order = [f"{each['type']} {each.get('agent')}" for each in events]
    return Story(told(result), told(error), list(notes), [told(each) for each in events], order)


def same(one: Story, other: Story) -> None:
    assert one.error == other.error
    assert one.notes == other.notes
    assert one.order == other.order
    assert one.events == other.events
    assert one.result == other.result


MANY = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.filterwarnings("ignore:coroutine 'forgotten' was never awaited")
@MANY
@given(case=cases(may_wait=True))
def test_a_graph_runs_the_same_whichever_way_its_nodes_take(case: Case, variant: str) -> None:
    """All of it: each event, their order and times, the outcome, the error and its notes.

    But a run within another hears of its end when the event loop has its turn, where there is a deadline at
    once, and asks whether it has ended after nodes that may have waited, not after those that only return.
    """
    if variant in {"ctx", "limit", "in time"}:
        case = attrs.evolve(case, specs=tuple(attrs.evolve(each, inner=0) for each in case.specs))
    one, other = anyio.run(run_of, case, "bare"), anyio.run(run_of, case, variant)
    if variant == "in time":  # the tasks of a group are cancelled in no order
        one, other = (attrs.evolve(each, events=[], order=sorted(each.order)) for each in (one, other))
    same(one, other)


@pytest.mark.parametrize("variant", ["bare", *VARIANTS])
@pytest.mark.filterwarnings("ignore:coroutine 'forgotten' was never awaited")
@MANY
@given(case=cases(may_wait=False))
def test_where_nothing_waits_the_order_is_the_same_on_every_event_loop(case: Case, variant: str) -> None:
    same(anyio.run(run_of, case, "bare"), anyio.run(run_of, case, variant, backend="trio"))


@pytest.mark.filterwarnings("ignore:coroutine 'forgotten' was never awaited")
@MANY
@given(case=cases(may_wait=True))
def test_a_run_that_nobody_hears_comes_to_the_same(case: Case) -> None:
    async def unheard() -> Story:
        return await run_of(case, "bare", is_heard=False)

    heard, silent = anyio.run(run_of, case, "bare"), anyio.run(unheard)

    assert [] == silent.events
    assert (heard.result, heard.error, heard.notes) == (silent.result, silent.error, silent.notes)
