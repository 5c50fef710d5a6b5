"""Random graphs whose actors spawn, call and map, against a simple model of what must happen, and when."""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import anyio
import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty.core.orchestration import (
    Actor,
    ActorContext,
    Conductor,
    End,
    Goto,
    GraphOrchestrator,
    Handle,
    actor,
)
from jotty.core.queue import MICROSECONDS, RetryPolicy
from jotty.testing import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Mapping

on_both = pytest.mark.parametrize("backend", ["asyncio", "trio"])

RETRIES = 2
PAUSE = RetryPolicy(delay=1, factor=1, jitter=0)
LONG = 100_000  # seconds after which a run that hangs is given up


class Broken(Exception):
    """What fails here."""


# What actors do


@attrs.frozen
class Sleep:
    seconds: int


@attrs.frozen
class Spawn:
    """Spawn an actor after some of the earlier ones; `needs` and `uses` are given to it, if it has them."""

    what: Program
    after: tuple[int, ...] = ()
    needs: int | None = None
    uses: int | None = None


@attrs.frozen
class Await:
    which: int


@attrs.frozen
class Call:
    what: Program


@attrs.frozen
class Map:
    what: tuple[Program, ...]
    limit: int | None


@attrs.frozen
class Within:
    """Call a conductor, whose actors do this beside each other."""

    what: tuple[Program, ...]
    bound: int | None


Step: TypeAlias = Sleep | Spawn | Await | Call | Map | Within
Ending: TypeAlias = Literal["output", "fail", "goto", "end"]


@attrs.frozen
class Program:
    """What an actor does in each attempt, how many of these fail in the end, and how the last one ends."""

    steps: tuple[Step, ...]
    failures: int = 0
    ending: Ending = "output"


@attrs.frozen
class NodeSpec:
    name: str
    program: Program
    required: tuple[str, ...]
    optional: tuple[str, ...]
    is_wanted: bool


@attrs.frozen
class World:
    """A graph, to all nodes of which a reviewer goes back a few times when they are done."""

    nodes: tuple[NodeSpec, ...]
    targets: tuple[str, ...]


def programs(
    depth: int, endings: st.SearchStrategy[Ending], bounds: st.SearchStrategy[int | None]
) -> st.SearchStrategy[Program]:
    sleeps: st.SearchStrategy[Step] = st.builds(Sleep, st.integers(0, 4))
    steps = sleeps
    if depth:
        inner = programs(depth - 1, endings, bounds)
        index = st.integers(0, 3)
        steps = st.one_of(
            sleeps,
            st.builds(
                Spawn,
                inner,
                st.lists(index, max_size=2).map(tuple),
                st.none() | index,
                st.none() | index,
            ),
            st.builds(Await, index),
            st.builds(Call, inner),
            st.builds(Map, st.lists(inner, max_size=3).map(tuple), st.none() | st.integers(1, 2)),
            st.builds(Within, st.lists(inner, min_size=1, max_size=2).map(tuple), bounds),
        )
    return st.builds(
        Program,
        st.lists(steps, max_size=4 if depth > 1 else 2).map(tuple),
        st.sampled_from([0, 0, 0, 1, RETRIES + 1]),
        endings,
    )


@st.composite
def worlds(
    draw: st.DrawFn,
    endings: tuple[Ending, ...] = ("output",),
    bounds: tuple[int | None, ...] = (None, None, 1, 2),
) -> World:
    names = [f"n{at}" for at in range(draw(st.integers(1, 4)))]
    nodes = []
    for at, name in enumerate(names):
        feeds = {each: draw(st.sampled_from(["no", "required", "optional"])) for each in names[:at]}
        nodes.append(
            NodeSpec(
                name=name,
                program=draw(programs(2, st.sampled_from(endings), st.sampled_from(bounds))),
                required=tuple(each for each in feeds if feeds[each] == "required"),
                optional=tuple(each for each in feeds if feeds[each] == "optional"),
                is_wanted=draw(st.sampled_from([True, True, True, False])),
            )
        )
    targets = draw(st.lists(st.sampled_from(names), max_size=2))
    return World(tuple(nodes), tuple(targets))


# The model


@attrs.frozen
class Ran:
    """What something came to, and when; None stands for what is absent."""

    output: Any
    end: int


class Model:
    """Says what a world comes to if nothing bounds how much goes on at once."""

    def __init__(self, world: World) -> None:
        self.starts: Counter[tuple[str, int]] = Counter()
        self.outputs: dict[str, Any] = {}
        self._ends: dict[str, int] = {}
        self._rounds = dict.fromkeys((spec.name for spec in world.nodes), 0)
        reached = {spec.name for spec in world.nodes}
        now, called = 0, ""
        for at in range(len(world.targets) + 1):
            for spec in world.nodes:
                if spec.name in reached:
                    self._settle(spec, now, is_called=spec.name == called)
            now = max([now, *self._ends.values()])
            self.starts["review", now] += 1
            if at < len(world.targets):
                called = world.targets[at]
                reached = _closure(world, called)
                for name in reached:
                    self._rounds[name] += 1
                    self.outputs.pop(name, None)
        self.outputs["review"] = "content"
        self.end = now

    def _settle(self, spec: NodeSpec, now: int, *, is_called: bool) -> None:
        feeds = (*spec.required, *spec.optional)
        begin = max([now, *(self._ends[each] for each in feeds)])
        self._ends[spec.name] = begin
        if not (spec.is_wanted or is_called) or not set(spec.required) <= set(self.outputs):
            return
        ran = self._run(spec.program, spec.name, begin)
        self._ends[spec.name] = ran.end
        if ran.output is not None:
            inputs = {each: self.outputs[each] for each in feeds if each in self.outputs}
            self.outputs[spec.name] = (self._rounds[spec.name], inputs, ran.output)

    def _run(self, program: Program, label: str, begin: int) -> Ran:
        self.starts[label, begin] += 1
        now = begin
        for _ in range(min(program.failures, RETRIES)):
            now = self._attempt(program, label, now).end + 1
        ran = self._attempt(program, label, now)
        return Ran(None, ran.end) if program.failures > RETRIES else ran

    def _attempt(self, program: Program, label: str, now: int) -> Ran:
        handles: list[Ran] = []
        found: list[Any] = []
        for at, step in enumerate(program.steps):
            match step:
                case Sleep(seconds):
                    now += seconds
                case Spawn():
                    handles.append(self._spawn(step, f"{label}/w[{at}]", now, handles))
                case Await(which) if which < len(handles):
                    now = max(now, handles[which].end)
                    found.append(handles[which].output)
                case Call(what):
                    ran = self._run(what, f"{label}/w[{at}]", now)
                    now, found = ran.end, [*found, ({}, ran.output) if ran.output is not None else None]
                case Map(what, limit):
                    now, outputs = self._map(what, limit, f"{label}/m", at, now)
                    found.append(outputs)
                case Within(what):
                    now, output = self._within(what, f"{label}/c[{at}]", now)
                    found.append(output)
        return Ran(tuple(found), max([now, *(each.end for each in handles)]))

    def _spawn(self, step: Spawn, label: str, now: int, handles: list[Ran]) -> Ran:
        given = {
            name: handles[at]
            for name, at in (("needed", step.needs), ("used", step.uses))
            if at is not None and at < len(handles)
        }
        before = [*given.values(), *(handles[at] for at in step.after if at < len(handles))]
        begin = max([now, *(each.end for each in before)])
        if "needed" in given and given["needed"].output is None:
            return Ran(None, begin)
        ran = self._run(step.what, label, begin)
        inputs = {name: each.output for name, each in given.items() if each.output is not None}
        return ran if ran.output is None else Ran((inputs, ran.output), ran.end)

    def _map(
        self, what: tuple[Program, ...], limit: int | None, label: str, at: int, now: int
    ) -> tuple[int, list[Any]]:
        ran: list[Ran] = []
        for item, each in enumerate(what):
            while limit is not None and sum(one.end > now for one in ran) >= limit:
                now = min(one.end for one in ran if one.end > now)
            ran.append(self._run(each, f"{label}[{at}.{item}]", now))
        return max([now, *(each.end for each in ran)]), [each.output for each in ran]

    def _within(self, what: tuple[Program, ...], label: str, now: int) -> tuple[int, Any]:
        self.starts[label, now] += 1
        ran = {f"b{at}": self._run(each, f"{label}/b{at}", now) for at, each in enumerate(what)}
        outputs = {name: each.output for name, each in ran.items() if each.output is not None}
        return max(each.end for each in ran.values()), _merged(outputs)


def _merged(outputs: dict[str, Any]) -> Any:
    return outputs if len(outputs) > 1 else next(iter(outputs.values()), None)


def _closure(world: World, target: str) -> set[str]:
    found = {target}
    for spec in world.nodes:
        if found.intersection((*spec.required, *spec.optional)):
            found.add(spec.name)
    return found


# The same with actors


class Stage:
    """Makes actors of a world, and counts who is at work."""

    def __init__(
        self, world: World, clock: VirtualClock, *, cleanup: int = 0, on_error: Any = "continue"
    ) -> None:
        self.clock = clock
        self.at_work = 0
        self.most_at_work = 0
        self._cleanup = cleanup
        self._on_error = on_error
        self._targets = iter(world.targets)
        self._names = [spec.name for spec in world.nodes]
        self._routes = 2  # how often something spawned goes elsewhere, so that a run ends
        self.actors = [*(self._node(spec) for spec in world.nodes), self._review()]

    def _review(self) -> Actor[..., Any]:
        async def review() -> Any:
            target = next(self._targets, None)
            return "content" if target is None else Goto(target)

        return Actor(name="review", call=review, depends_on=tuple(self._names))

    def _node(self, spec: NodeSpec) -> Actor[..., Any]:
        async def node(ctx: ActorContext, **inputs: Any) -> Any:
            given = {name: each for name, each in inputs.items() if each is not None}
            found = await self._play(ctx, spec.program)
            return found if isinstance(found, (Goto, End)) else (ctx.round, given, found)

        return self._actor(
            spec.name, node, ("ctx", *spec.required), spec.optional, None if spec.is_wanted else lambda: False
        )

    def _actor(
        self, name: str, call: Any, required: tuple[str, ...], optional: tuple[str, ...], when: Any = None
    ) -> Actor[..., Any]:
        kind = inspect.Parameter.KEYWORD_ONLY
        call.__signature__ = inspect.Signature(
            [
                *(inspect.Parameter(each, kind) for each in required),
                *(inspect.Parameter(each, kind, default=None) for each in optional),
            ]
        )
        policy = {"retries": RETRIES, "backoff": PAUSE, "on_error": self._on_error}
        return Actor(name=name, call=call, when=when, **policy)

    async def _play(self, ctx: ActorContext, program: Program) -> Any:
        handles: list[Handle] = []
        found: list[Any] = []
        for at, step in enumerate(program.steps):
            match step:
                case Sleep(seconds):
                    await self._work(seconds)
                case Spawn():
                    handles.append(self._spawn(ctx, step, str(at), handles))
                case Await(which) if which < len(handles):
                    found.append(await handles[which])
                case Call(what):
                    found.append(await ctx.call(self._worker(what, ()), key=str(at)))
                case Map():
                    found.append(await self._map(ctx, step, at))
                case Within():
                    found.append(await ctx.call(self._conductor(step), key=str(at)))
        if ctx.attempt <= program.failures:
            for handle in handles:
                await handle
            raise Broken(ctx.agent)
        return self._ending(ctx, program, tuple(found))

    def _ending(self, ctx: ActorContext, program: Program, found: tuple[Any, ...]) -> Any:
        if program.ending == "fail":
            raise Broken(ctx.agent)
        if program.ending == "end":
            return End(ctx.agent)
        if program.ending == "goto" and self._routes:
            self._routes -= 1
            return Goto("b0" if "/c[" in ctx.agent else self._names[0])
        return found

    async def _work(self, seconds: float) -> None:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            await self.clock.sleep(seconds)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self.clock.sleep(self._cleanup)
            raise
        finally:
            self.at_work -= 1

    def _spawn(self, ctx: ActorContext, step: Spawn, key: str, handles: list[Handle]) -> Handle:
        wanted = (("needed", step.needs), ("used", step.uses))
        given = {name: handles[at] for name, at in wanted if at is not None and at < len(handles)}
        after = [handles[at] for at in step.after if at < len(handles)]
        return ctx.spawn(self._worker(step.what, tuple(given)), key=key, after=after, **given)

    def _worker(self, program: Program, given_names: tuple[str, ...]) -> Actor[..., Any]:
        async def work(ctx: ActorContext, **inputs: Any) -> Any:
            given = {name: each for name, each in inputs.items() if each is not None}
            found = await self._play(ctx, program)
            return found if isinstance(found, (Goto, End)) else (given, found)

        required = tuple(each for each in given_names if each == "needed")
        return self._actor("w", work, ("ctx", *required), tuple(set(given_names).difference(required)))

    async def _map(self, ctx: ActorContext, step: Map, at: int) -> Any:
        async def work(ctx: ActorContext, item: int) -> Any:
            return await self._play(ctx, step.what[item])

        mapped = self._actor("m", work, ("ctx", "item"), ())
        items = range(len(step.what))
        return await ctx.map(mapped, items, key=lambda item: f"{at}.{item}", limit=step.limit)

    def _conductor(self, step: Within) -> Actor[..., Any]:
        def part(name: str, program: Program) -> Actor[..., Any]:
            async def work(ctx: ActorContext) -> Any:
                return await self._play(ctx, program)

            return self._actor(name, work, ("ctx",), ())

        actors = [part(f"b{at}", each) for at, each in enumerate(step.what)]
        conductor = Conductor(actors, name="c", max_parallel=step.bound, on_error=self._on_error)
        return actor(conductor, on_error=self._on_error)


@attrs.frozen
class Played:
    """What a world came to."""

    stage: Stage
    events: list[Any]
    result: Mapping[str, Any] | None
    error: BaseException | None
    start: int
    tasks_left: int

    @property
    def starts(self) -> Counter[tuple[str, int]]:
        return Counter(
            (event["agent"], round(event["time"] - self.start / MICROSECONDS))
            for event in self.events
            if event["type"] == "agent_start"
        )

    @property
    def story(self) -> list[tuple[Any, ...]]:
        return [(each["type"], each.get("agent"), each["seq"], each["time"]) for each in self.events]


async def play(
    world: World, max_parallel: int | None = None, cleanup: int = 0, on_error: str = "continue"
) -> Played:
    clock, events = VirtualClock(), list[Any]()
    stage = Stage(world, clock, cleanup=cleanup, on_error=on_error)
    conductor = Conductor(stage.actors, clock=clock, max_parallel=max_parallel)
    start, before = clock.now(), _tasks()
    result: Mapping[str, Any] | None = None
    error: BaseException | None = None
    async with clock.autojump():
        run = GraphOrchestrator(conductor).prepare("goal", None, LONG, timeout=LONG)
        try:
            result = await run.execute(events.append)
        except (Broken, TimeoutError) as exc:
            error = exc
    return Played(stage, events, result, error, start, _tasks() - before)


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return trio.lowlevel.current_statistics().tasks_living


def ended(played: Played) -> Counter[str]:
    """Count executions that have not ended when the run is over; those of one agent never overlap."""
    running: Counter[str] = Counter()
    for event in played.events:
        if event["type"] == "agent_start":
            running[event["agent"]] += 1
        elif event["type"] in ("agent_complete", "agent_error", "agent_cancelled"):
            running[event["agent"]] -= 1
        assert set(running.values()) <= {0, 1}
    return +running


@on_both
@settings(max_examples=60, deadline=None)
@given(world=worlds(bounds=(None,)))
def test_everything_runs_once_a_round_as_soon_as_it_may_and_settles_with_what_it_spawned(
    world: World, backend: str
) -> None:
    played = anyio.run(play, world, backend=backend)
    model = Model(world)

    assert played.error is None
    assert played.result is not None
    assert model.outputs == played.result["actor_outputs"]
    assert model.starts == played.starts
    assert model.end == played.events[-1]["time"] - played.start / MICROSECONDS
    assert sum(model.starts.values()) == played.result["metadata"]["iterations"]
    assert (0, Counter()) == (played.tasks_left, ended(played))


@on_both
@settings(max_examples=60, deadline=None)
@given(world=worlds(), bound=st.integers(1, 3))
def test_a_bound_changes_times_but_no_outputs_and_is_never_exceeded(
    world: World, bound: int, backend: str
) -> None:
    played = anyio.run(play, world, bound, backend=backend)
    model = Model(world)

    assert played.error is None
    assert played.result is not None
    assert model.outputs == played.result["actor_outputs"]
    assert Counter(agent for agent, _ in model.starts.elements()) == Counter(
        agent for agent, _ in played.starts.elements()
    )
    assert bound >= played.stage.most_at_work
    assert (0, Counter()) == (played.tasks_left, ended(played))


@on_both
@settings(max_examples=80, deadline=None)
@given(
    world=worlds(endings=("output", "output", "output", "fail", "goto", "end")),
    bound=st.none() | st.integers(1, 3),
    cleanup=st.integers(0, 2),
    on_error=st.sampled_from(["raise", "continue"]),
)
def test_whatever_is_raised_ended_or_gone_to_nothing_is_left(
    world: World, bound: int | None, cleanup: int, on_error: str, backend: str
) -> None:
    played = anyio.run(play, world, bound, cleanup, on_error, backend=backend)
    kinds = Counter(event["type"] for event in played.events)

    assert not isinstance(played.error, TimeoutError)
    assert on_error == "raise" or played.error is None
    assert 1 == kinds["workflow_complete"] + kinds["workflow_error"]
    assert 0 == played.stage.at_work
    assert bound is None or bound >= played.stage.most_at_work
    assert (0, Counter()) == (played.tasks_left, ended(played))


@settings(max_examples=40, deadline=None)
@given(world=worlds(), bound=st.none() | st.integers(1, 3))
def test_the_same_run_twice_tells_the_same(world: World, bound: int | None) -> None:
    first, second = (anyio.run(play, world, bound) for _ in range(2))

    assert first.story == second.story


@settings(max_examples=60, deadline=None)
@given(world=worlds(bounds=(None,)))
def test_the_same_happens_at_the_same_time_on_an_event_loop_that_shuffles(world: World) -> None:
    """Trio does, with what becomes ready at once."""
    first, second = (anyio.run(play, world, backend="trio") for _ in range(2))

    assert first.starts == second.starts
    assert first.result is not None
    assert second.result is not None
    assert first.result["actor_outputs"] == second.result["actor_outputs"]
