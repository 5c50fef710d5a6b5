"""Whatever an actor does with cancellation, and whoever ends its run, nothing is left and nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest
import trio
from anyio import CancelScope, get_cancelled_exc_class, to_thread
from anyio.lowlevel import checkpoint

from jotty.core.orchestration import Actor, Conductor, End, Goto, GraphOrchestrator
from jotty.errors import ActorError
from jotty.testing import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from jotty.core.orchestration import ActorContext

LONG = 1_000  # seconds, of which none ever passes
TURNS = 3  # of the event loop, for what is about to happen

PLACES = {"asyncio": ("asyncio", False), "asyncio in time": ("asyncio", True), "trio": ("trio", False)}


class Broken(Exception):
    """What a failing actor raises."""


def tasks() -> Any:
    """What runs on this event loop; on trio only how much."""
    try:
        return asyncio.all_tasks()
    except RuntimeError:
        return trio.lowlevel.current_statistics().tasks_living


@pytest.fixture(scope="module", autouse=True)
def _collects_only_its_own() -> Iterator[None]:
    """Keep what was there before out of the many collections: most of the time would go there."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def turns(number: int = TURNS) -> None:
    for _ in range(number):
        await checkpoint()


async def until_nobody_works(scene: Scene) -> None:
    with anyio.fail_after(10):
        while scene.working:  # noqa: ASYNC110 - threads set no event
            await anyio.sleep(0.001)


@attrs.define
class Scene:
    """Actors that wait for ever, each in its way, and what becomes of them."""

    clock: VirtualClock
    expected: int = 0
    all_wait: anyio.Event = attrs.field(factory=anyio.Event)
    working: list[str] = attrs.field(factory=list)
    waiting: int = 0
    tasks: list[Any] = attrs.field(factory=list)
    ended: list[str] = attrs.field(factory=list)

    def waits(self) -> None:
        """Note that one more has come to where it waits."""
        self.waiting += 1
        if self.waiting == self.expected:
            self.all_wait.set()

    async def forever(self) -> None:
        self.waits()
        await anyio.sleep_forever()

    @contextmanager
    def at_work(self, name: str) -> Iterator[None]:
        self.working.append(name)
        try:
            yield
        finally:
            self.working.remove(name)
            self.ended.append(name)

    async def child(self) -> None:
        with self.at_work("child"):
            try:
                await self.forever()
            finally:
                with CancelScope(shield=True):
                    await turns(5)


@attrs.frozen
class Kind:
    """A way in which an actor waits.

    Attributes:
        work: What it does.
        waits: In how many places it waits at once.
        only_asyncio: Whether it needs asyncio.
        wants_ctx: Whether it asks its run for something.
        survives_one: Whether it goes on waiting after a single cancellation of its task.
        holds_time: Whether virtual time stands still meanwhile.
    """

    work: Callable[..., Any]
    waits: int = 1
    only_asyncio: bool = False
    wants_ctx: bool = False
    survives_one: bool = False
    holds_time: bool = False


async def just_waits(scene: Scene) -> None:
    await scene.forever()


async def works_shielded(scene: Scene) -> None:
    with CancelScope(shield=True):
        scene.waits()
        await scene.clock.sleep(2)
    await anyio.sleep_forever()


async def cleans_up(scene: Scene) -> None:
    try:
        await scene.forever()
    finally:
        await turns(20)


async def cleans_up_shielded(scene: Scene) -> None:
    try:
        await scene.forever()
    finally:
        with scene.at_work("cleanup"), CancelScope(shield=True):
            await turns(5)
            await scene.clock.sleep(2)


async def has_a_group(scene: Scene) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(scene.child)
        group.start_soon(scene.child)
        await scene.forever()


async def has_a_group_of_asyncio(scene: Scene) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(scene.child())
        group.create_task(scene.child())
        await scene.forever()


async def swallows(scene: Scene) -> str:
    scene.waits()
    for _ in range(4):
        try:
            await anyio.sleep_forever()
        except get_cancelled_exc_class():
            continue
    return "swallowed"


async def has_a_timeout(scene: Scene) -> None:
    with anyio.move_on_after(LONG), scene.clock.timeout(LONG):
        await scene.forever()


async def has_a_timeout_of_asyncio(scene: Scene) -> None:
    async with asyncio.timeout(LONG):
        await scene.forever()


async def waits_for_a_thread(scene: Scene) -> None:
    def work() -> None:
        with scene.at_work("thread"):
            anyio.from_thread.run_sync(scene.waits)
            for _ in range(20_000):  # longer than anybody waits
                anyio.from_thread.check_cancelled()
                time.sleep(0.001)

    await to_thread.run_sync(work)


def works_in_a_thread(scene: Scene, ctx: ActorContext) -> None:
    anyio.from_thread.run_sync(scene.waits)
    while not ctx.cancelled:
        time.sleep(0.001)


async def calls(scene: Scene, ctx: ActorContext) -> None:
    await ctx.call(scene.child)


async def spawns(scene: Scene, ctx: ActorContext) -> None:
    unawaited, awaited = ctx.spawn(scene.child), ctx.spawn(scene.child)
    await awaited
    await unawaited


async def maps(scene: Scene, ctx: ActorContext) -> None:
    async def child(_: int) -> None:
        await scene.child()

    await ctx.map(child, range(4), limit=2)


async def asks(scene: Scene, ctx: ActorContext) -> None:
    await ctx.ask("?")


async def takes_a_step(scene: Scene, ctx: ActorContext) -> None:
    await ctx.step("step", scene.child)


async def holds_a_run(scene: Scene, ctx: ActorContext) -> None:
    async def inner() -> None:
        await scene.child()

    async def beside(ctx: ActorContext) -> None:
        await ctx.spawn(scene.child)

    await ctx.call(Conductor([inner, beside], name="held", clock=scene.clock))


KINDS = [
    Kind(just_waits),
    Kind(works_shielded),
    Kind(cleans_up),
    Kind(cleans_up_shielded),
    Kind(has_a_group, waits=3),
    Kind(has_a_group_of_asyncio, waits=3, only_asyncio=True),
    Kind(swallows, survives_one=True),
    Kind(has_a_timeout),
    Kind(has_a_timeout_of_asyncio, only_asyncio=True),
    Kind(waits_for_a_thread),
    Kind(works_in_a_thread, wants_ctx=True, holds_time=True),
    Kind(calls, wants_ctx=True),
    Kind(spawns, waits=2, wants_ctx=True),
    Kind(maps, waits=2, wants_ctx=True),
    Kind(asks, wants_ctx=True),
    Kind(takes_a_step, wants_ctx=True),
    Kind(holds_a_run, waits=2, wants_ctx=True),
]


def actor_of(kind: Kind, scene: Scene, name: str) -> Actor[..., Any]:
    """Return an actor that waits in its first round, and returns in the next."""

    async def bare(start: str) -> Any:
        return await first_round(())

    async def with_ctx(start: str, ctx: ActorContext) -> Any:
        return await first_round((ctx,))

    def plain(start: str, ctx: ActorContext) -> Any:
        if ctx.round:
            return "again"
        with scene.at_work(name):
            return kind.work(scene, ctx)

    async def first_round(given: tuple[Any, ...]) -> Any:
        if name in scene.ended:
            return "again"
        if asyncio_task := _asyncio_task():
            scene.tasks.append(asyncio_task)
        with scene.at_work(name):
            return await kind.work(scene, *given)

    is_plain = not asyncio.iscoroutinefunction(kind.work)
    call: Any = plain if is_plain else with_ctx if kind.wants_ctx else bare
    return Actor(name=name, call=call, on_error="raise")


def _asyncio_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def prepared(kind: Kind, scene: Scene, end: Callable[[], Any] | None = None) -> GraphOrchestrator:
    """Return a run of two such actors, and of one that ends it once they wait."""

    async def start() -> str:
        return "start"

    async def ends() -> Any:
        await scene.all_wait.wait()
        await turns()
        return None if end is None else end()

    actors: list[Any] = [start, *(actor_of(kind, scene, f"{kind.work.__name__}_{at}") for at in range(2))]
    if end is not None:
        actors.append(ends)
    scene.expected = 2 * kind.waits
    return GraphOrchestrator(Conductor(actors, clock=scene.clock), thread_grace=None)


def options_of(scene: Scene) -> dict[str, Any]:
    async def on_ask(_: Any) -> None:
        await scene.forever()

    return {"on_ask": on_ask}


# Ways in which a run ends: each returns what `caller` came to


Ending = tuple[Any, BaseException | None]


async def caught(work: Callable[[], Awaitable[Any]]) -> Ending:
    try:
        return await work(), None
    except Exception as exc:  # noqa: BLE001 - looked at by the test
        return None, exc


async def by_the_callers_scope(kind: Kind, scene: Scene, in_time: Any) -> None:
    run = prepared(kind, scene).prepare("goal", **options_of(scene))
    with CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def cancel() -> None:
                await scene.all_wait.wait()
                await turns()
                scope.cancel()

            group.start_soon(cancel)
            with in_time():
                await run.execute()
    assert scope.cancelled_caught or kind.survives_one


async def by_a_failure(kind: Kind, scene: Scene, in_time: Any) -> None:
    def fail() -> None:
        raise Broken

    with in_time():
        _, error = await caught(prepared(kind, scene, fail).prepare("goal", **options_of(scene)).execute)
    assert isinstance(error, Broken)


async def by_an_end(kind: Kind, scene: Scene, in_time: Any) -> None:
    run = prepared(kind, scene, lambda: End("ended")).prepare("goal", **options_of(scene))
    with in_time():
        result = await run.execute()
    assert "ended" == result["final_output"]
    assert result["success"]


async def by_a_goto(kind: Kind, scene: Scene, in_time: Any) -> None:
    run = prepared(kind, scene, lambda: Goto("start")).prepare("goal", **options_of(scene))
    with in_time():
        result = await run.execute()
    name = kind.work.__name__
    assert {"start": "start", f"{name}_0": "again", f"{name}_1": "again"} == result["actor_outputs"]


async def by_its_timeout(kind: Kind, scene: Scene, in_time: Any) -> None:
    run = prepared(kind, scene, lambda: scene.clock.skip(LONG)).prepare(
        "goal", timeout=LONG, **options_of(scene)
    )
    with in_time():
        _, error = await caught(run.execute)
    assert isinstance(error, TimeoutError) or kind.survives_one


ENDINGS = [by_the_callers_scope, by_a_failure, by_an_end, by_a_goto, by_its_timeout]


@contextmanager
def nothing_left(scene: Scene, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    before, task = tasks(), _asyncio_task()
    cancelling = task and task.cancelling()
    yield
    assert [] == scene.working
    assert before == tasks()
    assert cancelling == (task and task.cancelling())
    gc.collect()  # what was never awaited or retrieved is told of now
    assert [] == [each for each in caplog.records if each.name == "asyncio"]


def times(*, in_time: bool) -> Any:
    return (lambda: anyio.fail_after(LONG)) if in_time else nullcontext


kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.work.__name__)
places = pytest.mark.parametrize(("anyio_backend", "in_time"), PLACES.values(), ids=PLACES)
asyncio_places = pytest.mark.parametrize(
    ("anyio_backend", "in_time"), list(PLACES.values())[:2], ids=list(PLACES)[:2]
)


@pytest.mark.anyio
@kinds
@places
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)
async def test_a_run_that_ends_ends_all_of_its_actors(
    kind: Kind, ending: Any, anyio_backend: str, caplog: pytest.LogCaptureFixture, *, in_time: bool
) -> None:
    if kind.only_asyncio and anyio_backend == "trio":
        pytest.skip("it is asyncio's own")
    if kind.holds_time and ending is by_its_timeout:
        pytest.skip("virtual time stands still")
    scene = Scene(VirtualClock())
    async with scene.clock.autojump():
        await turns()
        with nothing_left(scene, caplog):
            await ending(kind, scene, times(in_time=in_time))

    assert scene.waiting >= scene.expected


# A task that asyncio itself cancels


async def cancelled(caller: asyncio.Task[Any], how: str) -> int:
    """Cancel a task; return how often."""
    caller.cancel()
    if how == "once":
        return 1
    if how == "in cleanup":
        await turns(2)
    caller.cancel()
    return 2


@pytest.mark.anyio
@kinds
@asyncio_places
@pytest.mark.parametrize("how", ["once", "twice", "in cleanup"])
async def test_a_caller_that_is_cancelled_by_asyncio_ends_when_its_actors_have_ended(
    kind: Kind, how: str, anyio_backend: str, caplog: pytest.LogCaptureFixture, *, in_time: bool
) -> None:
    scene = Scene(VirtualClock())
    run = prepared(kind, scene).prepare("goal", **options_of(scene))
    seen: list[int] = []

    async def call() -> None:
        task = asyncio.current_task()
        assert task
        try:
            with times(in_time=in_time)():
                await run.execute()
        finally:
            seen.append(task.cancelling())

    async with scene.clock.autojump():
        await turns()
        with nothing_left(scene, caplog):
            caller = asyncio.create_task(call())
            await scene.all_wait.wait()
            await turns()
            asked = await cancelled(caller, how)
            await asyncio.wait([caller])
            assert [] == scene.working

    assert caller.cancelled()
    if not in_time:  # a group of anyio's with a group in one of its tasks loses the count
        assert [asked] == seen


@pytest.mark.anyio
@kinds
@asyncio_places
async def test_an_actors_task_that_somebody_cancels_fails_the_run_and_ends_the_others(
    kind: Kind, anyio_backend: str, caplog: pytest.LogCaptureFixture, *, in_time: bool
) -> None:
    if kind.survives_one:
        pytest.skip("it goes on")
    scene = Scene(VirtualClock())
    run = prepared(kind, scene).prepare("goal", **options_of(scene))
    found: list[Ending] = []

    async def call() -> None:
        with times(in_time=in_time)():
            found.append(await caught(run.execute))

    async with scene.clock.autojump():
        await turns()
        with nothing_left(scene, caplog):
            caller = asyncio.create_task(call())
            await turns(1)
            before = asyncio.all_tasks()
            await scene.all_wait.wait()
            await turns()
            (scene.tasks or list(asyncio.all_tasks() - before))[0].cancel()
            await caller
            await until_nobody_works(scene)  # its thread only hears of it

    assert isinstance(found[0][1], ActorError)


# Streams


def streamed(kind: Kind, scene: Scene) -> Any:
    return prepared(kind, scene).run_stream("goal", **options_of(scene))


@pytest.mark.anyio
@kinds
@pytest.mark.parametrize("how", ["closed", "closed as its caller is cancelled", "dropped"])
async def test_a_stream_that_is_given_up_ends_all_of_its_actors(
    kind: Kind, how: str, anyio_backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    if kind.only_asyncio and anyio_backend == "trio":
        pytest.skip("it is asyncio's own")
    scene = Scene(VirtualClock())
    async with scene.clock.autojump():
        await turns()
        with nothing_left(scene, caplog):
            stream = streamed(kind, scene)
            await anext(stream)
            await scene.all_wait.wait()
            await turns()
            with CancelScope() as scope:
                if how == "closed as its caller is cancelled":
                    scope.cancel()
                if how != "dropped":
                    await stream.aclose()
                    assert [] == scene.working
            del stream
            gc.collect()
            await until_nobody_works(scene)
            await turns()
    await turns(5)


@pytest.mark.anyio
@places
async def test_nothing_begins_after_an_actor_that_swallows_that_its_run_is_cancelled(
    anyio_backend: str, *, in_time: bool
) -> None:
    scene, begun = Scene(VirtualClock(), expected=1), list[str]()

    async def first() -> str:
        return await swallows(scene)

    async def second(first: str) -> None:
        begun.append(first)

    with CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def cancel() -> None:
                await scene.all_wait.wait()
                scope.cancel()

            group.start_soon(cancel)
            with times(in_time=in_time)():
                await Conductor([first, second]).run("goal")

    assert [] == begun
    assert scope.cancelled_caught


@pytest.mark.anyio
@places
async def test_what_is_spawned_when_the_run_is_cancelled_already_does_not_begin(
    anyio_backend: str, *, in_time: bool
) -> None:
    scene, log = Scene(VirtualClock(), expected=1), list[str]()

    async def child() -> None:
        log.append("begun")

    async def plan(ctx: ActorContext) -> None:
        try:
            await scene.forever()
        finally:
            with CancelScope(shield=True):
                ctx.spawn(child)
                await turns(20)
                log.append("cleaned up")

    with CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def cancel() -> None:
                await scene.all_wait.wait()
                scope.cancel()

            group.start_soon(cancel)
            with times(in_time=in_time)():
                await Conductor([plan]).run("goal")

    assert ["cleaned up"] == log
    assert scope.cancelled_caught
