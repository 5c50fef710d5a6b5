"""Durable runs whose workers die anywhere: nothing that is in the journal is done again, and all ends well.

The long form is `pytest -m chaos tests/durable`; JOTTY_CHAOS_EXAMPLES changes its measure.
"""

from __future__ import annotations

import inspect
import os
from binascii import crc32
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import anyio
import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jotty import Conductor, End, Goto, Limit, TaskQueue, WorkflowMode
from jotty.core.orchestration import Actor
from jotty.core.queue import RetryPolicy
from jotty.errors import InvalidState, StorageError
from jotty.testing import BackendProxy, VirtualClock
from jotty_backends.memory import MemoryBackend
from jotty_backends.sqlite import SQLiteBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from jotty import ActorContext
    from jotty.core.orchestration.actor import AnyActor
    from jotty.core.queue import JournalEntry, QueueBackend

T = TypeVar("T")
OpenStore: TypeAlias = "Callable[[VirtualClock], QueueBackend]"
NAMES: Final = ("ann", "bob", "cem", "dan", "eve")
INNER: Final = ("ivo", "jan", "kim")
LEASE: Final = 10.0
PATIENCE: Final = 3600.0
ATTEMPTS: Final = 100
DEEPEST: Final = 2
WRITES: Final = frozenset({"append", "swap", "turn", "claim", "extend"})
SLOW: Final = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
LOOPS: Final = ("asyncio", "trio")
_P: Final = inspect.Parameter


# The plan of a workflow: what its actors do follows from what they are given, and from nothing else


@attrs.frozen
class Deed:
    """One thing that an actor does: a step, a call, a map, a few spawned at once, a question, a wait."""

    kind: str
    key: str
    size: int = 1
    pause: int = 0
    within: tuple[Deed, ...] = ()  # what the spawned do themselves


@attrs.frozen(kw_only=True)
class Role:
    name: str
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    delay: int = 0
    form: str = "actor"  # "plain": it has no ctx; "stream"; "sync": in a thread; "graph": a conductor
    deeds: tuple[Deed, ...] = ()
    flaws: int = 0  # attempts that fail first
    is_broken: bool = False  # it fails for good, and is continued from
    is_wanted: bool = True
    on_demand: bool = False
    goto: str = ""
    gotos: int = 0
    is_guided: bool = False  # it spawns who goes there
    ends: bool = False
    inner: tuple[Role, ...] = ()
    limited: bool = False


@attrs.frozen(kw_only=True)
class Plan:
    roles: tuple[Role, ...]
    max_parallel: int | None = None
    mode: str = "dynamic"
    answers: str = "live"  # while others are at work; "early": before the questions; "late": to the parked

    @property
    def is_ended(self) -> bool:
        return any(role.ends for role in self.roles)

    @property
    def is_straight(self) -> bool:
        """Whether each execution is one, however fast the others are, and though it is tried but once."""
        everyone = [each for role in self.roles for each in (role, *role.inner)]
        return not any(each.gotos or each.ends or each.flaws or each.is_broken for each in everyone)


def mixed(*parts: Any) -> int:
    return crc32(repr(parts).encode())


def deeds(names: st.SearchStrategy[str], depth: int) -> st.SearchStrategy[tuple[Deed, ...]]:
    kinds = ["step", "step", "sleep"]
    kinds += ["call", "map", "spawn", "batch", "ask", "expire", "steps"] if depth else ["ask"]
    one = st.builds(
        Deed,
        kind=st.sampled_from(kinds),
        key=names,
        size=st.integers(1, 3),
        pause=st.integers(0, 3),
        within=deeds(names, depth - 1) if depth else st.just(()),
    )
    some = st.lists(one, min_size=1, max_size=3, unique_by=lambda each: each.key).map(tuple)
    return some if depth == DEEPEST else some | st.just(())


KEYS_USED: Final = ("a", "b", "c", "d/e")
KEYS: Final = st.sampled_from(KEYS_USED)


@st.composite
def role(draw: st.DrawFn, name: str, before: Sequence[str], *, is_inner: bool = False) -> Role:
    feeds = {each: draw(st.sampled_from(["", "needs", "uses"])) for each in before}
    form = draw(
        st.sampled_from(["actor"] * 6 + ["plain", "plain", "sync", "stream"] + ["graph"] * (not is_inner))
    )
    has_ctx = form == "actor"
    return Role(
        name=name,
        needs=tuple(each for each in feeds if feeds[each] == "needs"),
        uses=tuple(each for each in feeds if feeds[each] == "uses"),
        delay=draw(st.integers(0, 3)),
        form=form,
        deeds=draw(deeds(KEYS, DEEPEST)) if has_ctx else (),
        flaws=draw(st.sampled_from([0, 0, 0, 1])) if has_ctx else 0,
        is_broken=draw(st.sampled_from([False] * 7 + [True])),
        is_wanted=draw(st.sampled_from([True] * 5 + [False])),
        inner=draw(roles(INNER, is_inner=True)) if form == "graph" else (),
        limited=draw(st.sampled_from([False, False, True])) if form != "graph" else False,
    )


@st.composite
def roles(draw: st.DrawFn, names: Sequence[str], *, is_inner: bool = False) -> tuple[Role, ...]:
    number = draw(st.sampled_from(range(1, len(names) + 1)))
    found = [draw(role(name, names[:at], is_inner=is_inner)) for at, name in enumerate(names[:number])]
    if draw(st.booleans()):  # one loop, so that what it comes to does not depend on who is faster
        at = draw(st.integers(0, number - 1))
        target = draw(st.sampled_from(names[:number]))
        if found[at].form == "actor":
            found[at] = attrs.evolve(
                found[at], goto=target, gotos=draw(st.integers(1, 2)), is_guided=draw(st.booleans())
            )
            aim = names.index(target)
            if target != found[at].name and draw(st.booleans()):
                found[aim] = attrs.evolve(found[aim], on_demand=True)
    return tuple(found)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    found = list(draw(roles(NAMES)))
    if draw(st.sampled_from([False, False, True])):  # the last one follows all others, and may end the run
        feeds = tuple(each.name for each in found)
        found.append(Role(name="zoe", uses=feeds, ends=draw(st.booleans())))
    return Plan(
        roles=tuple(found),
        max_parallel=draw(st.sampled_from([None, None, 1, 2])),
        mode=draw(st.sampled_from(["dynamic"] * 5 + ["static"])),
        answers=draw(st.sampled_from(["live", "late", "early"])),
    )


# The world in which it runs, and its workers, which die


@attrs.frozen
class Crash:
    """When a worker dies: at a call of the store, before or after that took effect; or at an instant."""

    where: str  # "call" or "instant"
    at: int  # of a thousand: of the calls, or of the time that the whole run takes
    is_after: bool = False


CRASHES: Final = st.builds(
    Crash, where=st.sampled_from(["call", "call", "instant"]), at=st.integers(0, 999), is_after=st.booleans()
)

DEATHS: Final = st.sampled_from([1, 2, 3, 5]).flatmap(
    lambda size: st.lists(CRASHES, min_size=size, max_size=size)
)


@attrs.frozen
class Called:
    """That an actor, or a step of its, was begun; or that somebody went on from what it came to."""

    agent: str
    key: str | None
    is_kept: bool
    last: int  # the last entry of the journal at that moment


class World:
    """One store and its time, and all that actors have done in it."""

    def __init__(self, clock: VirtualClock, backend: QueueBackend) -> None:
        self.clock = clock
        self.backend = backend
        self.last = 0
        self.calls: list[Called] = []
        self.queue = TaskQueue(backend.clone(), clock=clock)


class Line(BackendProxy):
    """A worker's way to the store, which is cut when it dies."""

    def __init__(self, inner: QueueBackend, worker: Worker) -> None:
        super().__init__(inner)
        self._worker = worker

    def clone(self) -> QueueBackend:
        return Line(self.inner.clone(), self._worker)

    async def append(self, task_id: str, lease: int, entries: Sequence[bytes]) -> int:
        async def call() -> int:
            last = self._worker.world.last = await self.inner.append(task_id, lease, entries)
            return last

        return await self.around("append", call)

    async def around(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        worker = self._worker
        worker.check()
        if name not in WRITES:
            return await call()
        worker.writes += 1
        if worker.writes != worker.dies_at:
            value = await call()
            worker.check()
            return value
        if worker.dies_after:
            with anyio.CancelScope(shield=True):
                await call()
        worker.die()
        raise StorageError(self.url, "the worker is dead")


class Worker:
    """A worker process with its own conductor, handle on the store, and death."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.world = world
        self.plan = plan
        self.is_dead = False
        self.writes = 0
        self.dies_at = 0
        self.dies_after = False
        self._scope = anyio.CancelScope()

    def check(self) -> None:
        if self.is_dead:
            raise StorageError("store", "the worker is dead, and makes no calls")

    def die(self) -> None:
        self.is_dead = True
        self._scope.cancel()

    def tell(self, agent: str, key: str | None = None, *, is_kept: bool = False) -> None:
        if not self.is_dead:
            self.world.calls.append(Called(agent, key, is_kept, self.world.last))

    async def work(self, task_id: str) -> None:
        """Work until the task is over, or this is dead."""
        handle = self.world.backend.clone()
        queue = TaskQueue(Line(handle, self), clock=self.world.clock)
        conductor = conductor_of(self.plan.roles, self.world.clock, self.tell, self.plan.max_parallel)
        flow = WorkflowMode(conductor, "async", queue, mode=self.plan.mode)
        try:
            with self._scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._stop_at_end, flow, task_id)
                    await flow.process_queue(lease_timeout=LEASE)
                    group.cancel_scope.cancel()
        except (StorageError, BaseExceptionGroup):
            if not self.is_dead:
                raise
        finally:
            with anyio.CancelScope(shield=True):
                await handle.aclose()

    async def _stop_at_end(self, flow: WorkflowMode, task_id: str) -> None:
        async for _ in self.world.queue.events(task_id):
            pass
        flow.stop_processing()


# The actors


Tell = Any


def conductor_of(
    roles: Sequence[Role], clock: VirtualClock, tell: Tell, max_parallel: int | None = None, prefix: str = ""
) -> Conductor:
    return Conductor(
        [actor_of(each, clock, tell, prefix) for each in roles],
        clock=clock,
        max_parallel=max_parallel,
        limits={"few": Limit(concurrent=1)},
        output=roles[-1].name if prefix else None,
    )


def actor_of(role: Role, clock: VirtualClock, tell: Tell, prefix: str) -> AnyActor:
    label = prefix + role.name
    when = None if role.is_wanted else never
    if role.form == "graph":
        inner: Any = conductor_of(role.inner, clock, tell, prefix=f"{label}/")
        return Actor(name=role.name, call=inner, depends_on=role.needs, when=when, on_demand=role.on_demand)
    call = CALLS[role.form](role, label, clock, tell)
    parameters = [_P("ctx", _P.POSITIONAL_OR_KEYWORD)] if role.form == "actor" else []
    parameters += [_P(name, _P.KEYWORD_ONLY) for name in role.needs]
    parameters += [_P(name, _P.KEYWORD_ONLY, default=None) for name in role.uses]
    call.__signature__ = inspect.Signature(parameters)
    return Actor(
        name=role.name,
        call=call,
        when=when,
        retries=role.flaws,
        backoff=RetryPolicy(delay=1, jitter=0),
        on_demand=role.on_demand,
        limit="few" if role.limited else None,
        on_error="continue" if role.is_broken else None,
    )


def tell_begun(role: Role, label: str, tell: Tell) -> None:
    for each in role.needs:
        tell(label.removesuffix(role.name) + each, is_kept=True)
    tell(label)


def plain(role: Role, label: str, clock: VirtualClock, tell: Tell) -> Any:
    async def call(**inputs: Any) -> Any:
        tell_begun(role, label, tell)
        await clock.sleep(role.delay)
        if role.is_broken:
            raise RuntimeError(role.name)
        return End(mixed(inputs)) if role.ends else mixed(inputs)

    return call


def sync(role: Role, label: str, clock: VirtualClock, tell: Tell) -> Any:
    def call(**inputs: Any) -> Any:
        tell_begun(role, label, tell)
        if role.is_broken:
            raise RuntimeError(role.name)
        return mixed(inputs)

    return call


def stream(role: Role, label: str, clock: VirtualClock, tell: Tell) -> Any:
    async def call(**inputs: Any) -> AsyncIterator[str]:
        tell_begun(role, label, tell)
        for number in range(3):
            yield f"{number}."
            await clock.sleep(role.delay / 3)
        yield f"{mixed(inputs)}"
        if role.is_broken:
            raise RuntimeError(role.name)

    return call


def full(role: Role, label: str, clock: VirtualClock, tell: Tell) -> Any:
    async def guide(ctx: ActorContext, number: int) -> Any:
        tell(ctx.agent)
        return Goto(role.goto) if number < role.gotos else "stay"

    async def call(ctx: ActorContext, **inputs: Any) -> Any:
        tell_begun(role, label, tell)
        await clock.sleep(role.delay)
        done = [await Doing(ctx, deed, clock, tell).do() for deed in role.deeds]
        if ctx.attempt <= role.flaws:
            raise ConnectionError(role.name)
        if role.is_broken:
            raise RuntimeError(role.name)
        if role.is_guided:
            done.append(await ctx.call(guide, number=ctx.round))
        elif ctx.round < role.gotos:
            return Goto(role.goto)
        return mixed(ctx.round, inputs, done)

    return call


CALLS: Final = {"plain": plain, "sync": sync, "stream": stream, "actor": full}


def nothing(agent: str, key: str | None = None, *, is_kept: bool = False) -> None: ...


def never() -> bool:
    return False


class Doing:
    """What one actor does for a deed."""

    def __init__(self, ctx: ActorContext, deed: Deed, clock: VirtualClock, tell: Tell) -> None:
        self.ctx, self.deed, self.clock, self.tell = ctx, deed, clock, tell

    def key(self, number: int) -> str:
        return f"{self.deed.key}{number}"

    def _label(self, key: str) -> str:
        return f"{self.ctx.agent}/_leaf[{key.replace('/', '%2F')}]"

    async def do(self) -> Any:
        return await getattr(self, self.deed.kind)()

    async def _pay(self, number: int) -> int:
        self.tell(self.ctx.agent, self.key(number))
        await self.clock.sleep(self.deed.pause)
        return mixed(self.deed.key, number)

    async def _leaf(self, ctx: ActorContext, item: int, more: Any = None) -> int:
        self.tell(ctx.agent)
        await self.clock.sleep(self.deed.pause * (item + 1) / 2)
        done = [await Doing(ctx, each, self.clock, self.tell).do() for each in self.deed.within]
        return mixed(item, more, done)

    async def sleep(self) -> None:
        await self.clock.sleep(self.deed.pause)

    async def step(self, number: int = 0) -> Any:
        found = await self.ctx.step(self.key(number), self._pay, number)
        self.tell(self.ctx.agent, self.key(number), is_kept=True)
        return found

    async def steps(self) -> Any:
        found: dict[int, int] = {}

        async def keep(number: int) -> None:
            found[number] = await self.step(number)

        async with anyio.create_task_group() as group:
            for number in range(self.deed.size):
                group.start_soon(keep, number)
        return [found[number] for number in range(self.deed.size)]

    async def call(self) -> Any:
        found = await self.ctx.call(self._leaf, key=self.deed.key, item=self.deed.size)
        self.tell(self._label(self.deed.key), is_kept=True)
        return found

    async def map(self) -> Any:
        items, limit = range(self.deed.size), self.deed.pause or None
        found = await self.ctx.map(self._leaf, items, key=self.key, limit=limit)
        for number in items:
            self.tell(self._label(self.key(number)), is_kept=True)
        return found

    async def spawn(self) -> Any:
        """Spawn a chain, and await its end."""
        handle = self.ctx.spawn(self._leaf, key=self.deed.key, item=0)
        for number in range(1, self.deed.size + 1):
            handle = self.ctx.spawn(self._leaf, key=self.key(number), item=number, more=handle)
        return await handle

    async def batch(self) -> Any:
        """Spawn what nobody awaits but the spawner's own end."""
        handles = [
            self.ctx.spawn(self._leaf, key=self.key(number), item=number) for number in range(self.deed.size)
        ]
        return [handle.key for handle in handles]

    async def ask(self) -> Any:
        key = f"{self.ctx.agent}.{self.deed.key}"
        return await self.ctx.ask("?", key=key, options=[answer_to(key), 0])

    async def expire(self) -> Any:
        key, timeout = f"{self.ctx.agent}.{self.deed.key}!", self.deed.pause * 10 + 1
        return await self.ctx.ask("?", key=key, timeout=timeout, default=self.deed.key)


def answer_to(key: str) -> int:
    return mixed(key.partition("#")[0])


# A run, and what must be true of it


@attrs.frozen
class Story:
    """What became of a run."""

    result: Any
    events: list[Any]
    entries: list[JournalEntry]
    calls: list[Called]
    claims: int
    attempt: int
    crashes: int
    writes: int
    seconds: float
    tails: list[list[Any]]


async def answer_on(world: World, task_id: str, plan: Plan) -> None:
    if plan.answers == "late":
        await answer_the_parked(world, task_id)
    flow = WorkflowMode(Conductor([never]), "async", world.queue)
    async for event in flow.stream(task_id):
        if event["type"] == "input_required" and not is_left_open(event["key"]):
            await world.clock.sleep(2)
            with suppress(InvalidState):
                await flow.answer(task_id, event["key"], answer_to(event["key"]))


async def answer_the_parked(world: World, task_id: str) -> None:
    while (task := await world.queue.get(task_id)) is not None and not task.status.is_terminal:
        for key in [each for each in task.head.awaiting if not is_left_open(each)][:1]:
            await world.queue.answer(task_id, key, answer_to(key))
        await world.clock.sleep(1)


def is_left_open(key: str) -> bool:
    return key.partition("#")[0].endswith("!")


async def told(plan: Plan, crashes: Sequence[Crash], open_store: OpenStore, measure: Story | None) -> Story:
    clock = VirtualClock(idle=3600)
    world = World(clock, open_store(clock))
    begun, died, writes = clock.now(), 0, 0
    enqueuer = conductor_of(plan.roles, clock, None, plan.max_parallel)
    flow = WorkflowMode(enqueuer, "async", world.queue, mode=plan.mode)
    async with world.queue, clock.autojump():
        task_id = await flow.enqueue_task("g", max_attempts=ATTEMPTS, max_iterations=10_000)
        if plan.answers == "early":
            for asked in (f"{name}.{key}" for name in NAMES for key in KEYS_USED):
                await world.queue.answer(task_id, asked, answer_to(asked))
        async with anyio.create_task_group() as group:
            group.start_soon(answer_on, world, task_id, plan)
            with clock.timeout(PATIENCE) as late:
                for crash in [*crashes, None]:
                    worker = Worker(world, plan)
                    if crash is not None and measure is not None:
                        arm(worker, crash, measure)
                    await worker.work(task_id)
                    writes += worker.writes
                    died += worker.is_dead
                    if not worker.is_dead:
                        break
            assert not late.cancelled_caught, "it came to no end"
        events: list[Any] = [event async for event in flow.stream(task_id)]
        tails = [[one async for one in flow.stream(task_id, after=event["seq"])] for event in events[:-1]]
        entries = [entry async for entry in world.queue.events(task_id, follow=False)]
        task = await world.queue.get(task_id)
        assert task is not None
        result = await flow.result(task_id)
    return Story(
        result=result,
        events=events,
        entries=entries,
        calls=world.calls,
        claims=task.lease,
        attempt=task.attempt,
        crashes=died,
        writes=writes,
        seconds=(clock.now() - begun) / 1e6,
        tails=tails,
    )


def arm(worker: Worker, crash: Crash, measure: Story) -> None:
    if crash.where == "call":
        worker.dies_at = 1 + crash.at * measure.writes // 1000
        worker.dies_after = crash.is_after
    else:
        worker.world.clock.call_later(crash.at / 1000 * measure.seconds, worker.die)


def come_to(result: Any, plan: Plan) -> Any:
    errors = {(error["agent"], error["type"]) for error in result["errors"]}
    if plan.is_ended:  # who was at work when it ended depends on who is faster
        return result["success"], result["final_output"]
    return result["success"], result["final_output"], result["actor_outputs"], errors


class Past:
    """What is in the journal up to an entry, and so must not be done again."""

    def __init__(self) -> None:
        self.done: set[str] = set()
        self.steps: set[tuple[str, str]] = set()
        self.ever: set[tuple[str, str | None]] = set()
        self.rounds: dict[str, int] = {}

    def add(self, entry: JournalEntry) -> Iterator[str]:
        """Take an entry into account, and tell what in it is a repetition."""
        data = entry.data
        if entry.kind == "start":
            yield from self._start(data["agent"], data.get("round", 0))
        elif entry.kind == "step" and "key" in data:
            if (data["agent"], data["key"]) in self.steps:
                yield f"step {data['key']} of {data['agent']} is in the journal twice"
            self.steps.add((data["agent"], data["key"]))
            self.ever.add((data["agent"], data["key"]))
        elif entry.kind == "step" or (entry.kind == "error" and data.get("continued")):
            if data["agent"] in self.done:
                yield f"{data['agent']} was finished again"
            self.done.add(data["agent"])
            self.ever.add((data["agent"], None))
        for label in data.get("reset", ()):
            self._forget(label)

    def _start(self, label: str, number: int) -> Iterator[str]:
        if self.rounds.get(label, 0) != number:
            self.rounds[label] = number
            self._forget(label)
        if label in self.done:
            yield f"{label} was started again"

    def _forget(self, label: str) -> None:
        below = f"{label}/"
        self.done -= {each for each in self.done if each == label or each.startswith(below)}
        self.steps -= {each for each in self.steps if each[0] == label or each[0].startswith(below)}

    def has(self, call: Called) -> bool:
        return call.agent in self.done if call.key is None else (call.agent, call.key) in self.steps


def repeated(story: Story) -> list[str]:
    """What was done again though it was in the journal, each as a sentence."""
    past = Past()
    found: list[str] = []
    for number, entry in enumerate([None, *story.entries]):
        if entry is not None:
            found += past.add(entry)
        for call in (each for each in story.calls if each.last == number):
            # a Goto may have forgotten it meanwhile, whose victim has not heard of that yet
            if call.is_kept and (call.agent, call.key) not in past.ever:
                found.append(f"{call}, but it was not in the journal")
            if not call.is_kept and past.has(call):
                found.append(f"{call}, but it was in the journal")
    return found


def check(plan: Plan, whole: Story, story: Story) -> None:
    assert come_to(story.result, plan) == come_to(whole.result, plan)
    assert [entry.number for entry in story.entries] == list(range(1, len(story.entries) + 1))
    assert not repeated(story)
    check_stream(story)
    check_counts(story)


def check_stream(story: Story) -> None:
    kinds = [event["type"] for event in story.events]
    assert kinds.count("workflow_start") == 1
    assert kinds[0] == "workflow_start"
    assert kinds.count("workflow_complete") + kinds.count("workflow_error") == 1
    assert kinds[-1] == "workflow_complete"
    assert story.tails == [story.events[at + 1 :] for at in range(len(story.events) - 1)]
    at_work: set[str] = set()
    for event in story.events:
        agent, kind = event.get("agent"), event["type"]
        if kind == "agent_start":
            assert agent not in at_work, f"{agent} was started twice"
            at_work.add(agent)
        elif kind in {"agent_complete", "agent_error", "agent_cancelled"} and agent in at_work:
            at_work.discard(agent)
        elif kind in {"agent_complete", "agent_error", "agent_cancelled", "text_chunk", "agent_retry"}:
            assert agent in at_work, f"{kind} of {agent}, which is not at work"
    assert not at_work, f"{at_work} are told to be at work for ever"


def counted_starts(story: Story) -> list[str]:
    """Return the executions in their order; one that was parked goes on as the same when it begins again."""
    at_work: set[str] = set()
    parked: set[str] = set()
    counted: list[str] = []
    for entry in story.entries:
        label = entry.data.get("agent", "")
        if entry.kind == "parked":
            parked |= at_work
        elif entry.kind == "start" and label in parked:
            parked.remove(label)
            at_work.add(label)
        elif entry.kind == "start":
            counted.append(label)
            at_work.add(label)
        elif entry.kind in {"step", "error"} and "key" not in entry.data:
            at_work.discard(label)
        elif entry.kind == "event" and entry.data["event"]["type"] == "agent_cancelled":
            at_work.discard(entry.data["event"]["agent"])
    return counted


def check_counts(story: Story) -> None:
    starts = [event["agent"] for event in story.events if event["type"] == "agent_start"]
    called = [call.agent for call in story.calls if call.key is None and not call.is_kept]
    metadata = story.result["metadata"]
    assert metadata["iterations"] == len(metadata["path"])
    # what goes on with an answer is the same execution, and is not counted again
    has_parked = any(entry.kind == "parked" for entry in story.entries)
    assert is_part_of(metadata["path"], starts) if has_parked else metadata["path"] == starts
    retries = sum(event["type"] == "agent_retry" for event in story.events)
    assert len(called) <= len(starts) + retries + story.crashes * 20
    assert story.attempt <= story.crashes + 1


def is_part_of(some: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether these are found in the others, in their order."""
    rest = iter(whole)
    return all(each in rest for each in some)


async def sync_result(plan: Plan) -> Any:
    clock = VirtualClock(idle=3600)
    conductor = conductor_of(plan.roles, clock, nothing, plan.max_parallel)
    flow = WorkflowMode(conductor, mode=plan.mode)

    async def on_ask(question: Any) -> Any:
        if is_left_open(question.key):
            await anyio.sleep_forever()
        await clock.sleep(2)
        return answer_to(question.key)

    async with clock.autojump():
        return await flow.execute("g", max_iterations=10_000, on_ask=on_ask)


def prove(plan: Plan, crashes: Sequence[Crash], loop: str, open_store: OpenStore) -> None:
    now = anyio.run(sync_result, plan, backend=loop)
    whole = anyio.run(told, plan, (), open_store, None, backend=loop)
    assert come_to(whole.result, plan) == come_to(now, plan)
    if plan.is_straight:
        assert whole.result["metadata"]["iterations"] == now["metadata"]["iterations"]
    check(plan, whole, whole)
    story = anyio.run(told, plan, crashes, open_store, whole, backend=loop)
    check(plan, whole, story)


def in_memory(clock: VirtualClock) -> QueueBackend:
    return MemoryBackend(clock=clock)


@pytest.fixture(scope="module")
def in_files(tmp_path_factory: pytest.TempPathFactory) -> OpenStore:
    directory, numbers = tmp_path_factory.mktemp("stores"), count()
    return lambda clock: SQLiteBackend(directory / f"{next(numbers)}.db", clock=clock)


def wanted(default: int) -> settings:
    examples = int(os.environ.get("JOTTY_CHAOS_EXAMPLES", default))
    return settings(max_examples=examples, deadline=None, suppress_health_check=SLOW)


@pytest.mark.parametrize("loop", LOOPS)
@settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
@given(plan=plans(), crashes=DEATHS)
def test_a_run_whose_workers_die_comes_to_what_it_would_have_come_to(
    loop: str, plan: Plan, crashes: list[Crash]
) -> None:
    prove(plan, crashes, loop, in_memory)


@pytest.mark.parametrize("loop", LOOPS)
@settings(max_examples=20, deadline=None, suppress_health_check=SLOW)
@given(plan=plans(), crashes=DEATHS)
def test_so_does_one_in_files(in_files: OpenStore, loop: str, plan: Plan, crashes: list[Crash]) -> None:
    prove(plan, crashes, loop, in_files)


@pytest.mark.chaos
@pytest.mark.parametrize("loop", LOOPS)
@wanted(3000)
@given(plan=plans(), crashes=DEATHS)
def test_thousands_of_runs_whose_workers_die(loop: str, plan: Plan, crashes: list[Crash]) -> None:
    prove(plan, crashes, loop, in_memory)


@pytest.mark.chaos
@pytest.mark.parametrize("loop", LOOPS)
@wanted(300)
@given(plan=plans(), crashes=DEATHS)
def test_hundreds_of_runs_in_files_whose_workers_die(
    in_files: OpenStore, loop: str, plan: Plan, crashes: list[Crash]
) -> None:
    prove(plan, crashes, loop, in_files)
