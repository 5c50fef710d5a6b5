"""Actors that never wait run one after the other in one task, which leaves room for everybody else."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty.core.orchestration import Actor, Conductor, Goto, GraphOrchestrator, result_of
from jotty.errors import ActorError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jotty.core.orchestration import ActorContext

AT_ONCE = {
    "asyncio": 65,
    "trio": 130,
}  # nodes; trio shuffles who is to run, so that one may run twice in a row
MANY = 10**6

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Turns:
    """How many turns of the event loop there were at each node."""

    def __init__(self) -> None:
        self.now = 0
        self.at: list[int] = []

    def count(self) -> None:
        self.at.append(self.now)

    def longest(self) -> int:
        """Return how many nodes at most there were in one turn."""
        return max(self.at.count(turn) for turn in set(self.at))

    async def during(self, run: Callable[[], Awaitable[Any]]) -> Any:
        async def tick() -> None:
            while True:
                self.now += 1
                await checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            await checkpoint()
            try:
                return await run()
            finally:
                group.cancel_scope.cancel()


def node(turns: Turns, name: str, before: str | None, kind: str, outcome: Callable[[], Any]) -> Any:
    """Return an actor that never waits; but for the bare ones, the engine does not know."""

    async def act(*_: Any) -> Any:
        turns.count()
        if kind == "fails":
            raise ValueError(name)
        return outcome()

    parameters = [] if before is None else [f"{before}='absent'"]
    space: dict[str, Any] = {"act": act}
    source = f"async def call({', '.join([*parameters, *(['ctx=None'] if kind == 'ctx' else [])])}):"
    exec(f"{source}\n    return await act()", space)  # noqa: S102 - its parameter's name is given
    return Actor(
        name=name,
        call=space["call"],
        when=(lambda: True) if kind == "when" else None,
        on_error="continue" if kind == "fails" else None,
    )


KINDS = ["bare", "bare", "bare", "when", "ctx", "fails"]


async def _looped(kinds: list[str], times: int, turns: Turns) -> Any:
    """Run a chain, of which all but the first node are run again so often."""
    left = iter(range(times))

    def last() -> Any:
        return Goto("n1") if next(left, None) is not None else "done"

    actors = []
    for at, kind in enumerate([*kinds, "bare"]):
        before = f"n{at - 1}" if at else None
        actors.append(node(turns, f"n{at}", before, kind, last if at == len(kinds) else lambda: "output"))
    run = GraphOrchestrator(Conductor(actors)).prepare("goal", max_iterations=MANY)
    return await turns.during(run.execute)


@BACKENDS
@settings(max_examples=25, deadline=None)
@given(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=8))
def test_others_get_their_turn_in_every_loop(kinds: list[str], backend: str) -> None:
    turns = Turns()
    result = anyio.run(_looped, kinds, 300 // len(kinds), turns, backend=backend)

    assert "done" == result["final_output"]
    assert len(turns.at) >= 300
    assert turns.longest() <= AT_ONCE[backend]


@BACKENDS
@pytest.mark.parametrize("first", ["bare", "when", "ctx", "fails"])
@pytest.mark.parametrize("length", [63, 64, 65, 127, 128, 129, 1_000])
def test_others_get_their_turn_in_a_long_chain(length: int, first: str, backend: str) -> None:
    turns = Turns()
    anyio.run(_looped, [first, *["bare"] * (length - 2)], 0, turns, backend=backend)

    assert length == len(turns.at)
    assert turns.longest() <= AT_ONCE[backend]
    assert turns.now <= 20 + length // 16  # nor do they go on at a snail's pace


@BACKENDS
def test_others_get_their_turn_in_a_fan(backend: str) -> None:
    turns = Turns()
    actors = [node(turns, f"n{at}", None, "bare", lambda: 1) for at in range(500)]
    run = GraphOrchestrator(Conductor(actors)).prepare("goal", max_iterations=MANY)

    async def main() -> Any:
        return await turns.during(run.execute)

    anyio.run(main, backend=backend)

    assert 500 == len(turns.at)
    assert turns.longest() <= 2 * AT_ONCE[backend]  # two tasks begin, where there is work for two


@BACKENDS
def test_others_get_their_turn_while_runs_within_follow_each_other(backend: str) -> None:
    turns = Turns()
    inner = [node(turns, f"i{at}", f"i{at - 1}" if at else None, "bare", lambda: 1) for at in range(10)]
    held: list[Any] = [Actor(name="h0", call=_as_call(Conductor(inner, name="h0")))]
    for at in range(1, 40):
        call = _as_call(Conductor(inner, name=f"h{at}"))
        held.append(Actor(name=f"h{at}", call=call, depends_on=(f"h{at - 1}",)))
    run = GraphOrchestrator(Conductor(held)).prepare("goal", max_iterations=MANY)

    async def main() -> Any:
        return await turns.during(run.execute)

    anyio.run(main, backend=backend)

    assert 400 == len(turns.at)
    assert turns.longest() <= AT_ONCE[backend]


def _as_call(conductor: Conductor) -> Any:
    return conductor


@BACKENDS
@pytest.mark.parametrize("kind", ["bare", "when", "ctx"])
@pytest.mark.parametrize("in_time", [False, True], ids=["", "in time"])
def test_a_loop_that_would_go_on_for_long_is_cancelled_soon(
    backend: str, kind: str, *, in_time: bool
) -> None:
    turns = Turns()

    async def main() -> None:
        with anyio.move_on_after(1_000) if in_time else anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def cancel() -> None:
                    while len(turns.at) < 500:
                        await checkpoint()
                    scope.cancel()

                group.start_soon(cancel)
                await _looped([kind, "bare"], MANY, turns)
        assert scope.cancelled_caught

    anyio.run(main, backend=backend)

    assert len(turns.at) < 500 + 4 * AT_ONCE[backend]


def test_events_of_what_never_waits_come_while_it_runs() -> None:
    """A consumer sees them long before the end."""
    seen_at: list[int] = []
    turns = Turns()

    async def main() -> None:
        actors = [
            node(turns, f"n{at}", f"n{at - 1}" if at else None, "bare", lambda: 1) for at in range(1_000)
        ]
        async with GraphOrchestrator(Conductor(actors)).run_stream("goal", max_iterations=MANY) as stream:
            async for event in stream:
                if event["type"] == "agent_start":
                    seen_at.append(len(turns.at))  # noqa: PERF401 - as it comes

    anyio.run(main)

    assert 1_000 == len(seen_at)
    assert all(done - at <= 2 * AT_ONCE["asyncio"] for at, done in enumerate(seen_at))
    assert all(one <= other for one, other in pairwise(seen_at))


# What is raised


async def cancelled_by_hand() -> None:
    raise asyncio.CancelledError


async def stops() -> None:
    raise StopIteration(1)


async def exits() -> None:
    sys.exit("enough")


async def closes() -> None:
    raise GeneratorExit


async def interrupts() -> None:
    raise KeyboardInterrupt


RAISES: dict[Any, type[BaseException]] = {
    cancelled_by_hand: ActorError,
    stops: RuntimeError,
    exits: ActorError,
    closes: ActorError,
    interrupts: KeyboardInterrupt,
}


@pytest.mark.parametrize("way", ["fast", "after a wait", "ctx"])
@pytest.mark.parametrize(("call", "expected"), RAISES.items(), ids=lambda each: each.__name__)
@pytest.mark.parametrize("policy", ["raise", "continue"])
def test_what_an_actor_raises_is_its_failure_and_nothing_else(
    call: Any, expected: Any, way: str, policy: str
) -> None:
    ended: list[str] = []

    async def fails() -> None:
        if way == "after a wait":
            await checkpoint()
        await call()

    async def fails_with(ctx: ActorContext) -> None:
        await call()

    async def beside() -> None:
        try:
            await (checkpoint() if policy == "continue" else anyio.sleep_forever())
        finally:
            ended.append("beside")

    async def after(fails: str = "absent") -> str:
        return fails

    async def main() -> None:
        fail: Any = fails_with if way == "ctx" else fails
        found = Actor(name="fails", call=fail)
        try:
            conductor = Conductor([beside, found, after], on_error=policy)  # type: ignore[arg-type]  # one of two
            outputs.append((await conductor.run("goal"))["actor_outputs"])
        except BaseException as exc:  # noqa: BLE001 - looked at below
            raised.append(exc)

    raised: list[BaseException] = []
    outputs: list[Any] = []
    anyio.run(main)

    if policy == "continue" and expected is not KeyboardInterrupt:
        assert [{"beside": None, "after": "absent"}] == outputs
    else:
        assert [expected] == [type(each) for each in raised]
        result = result_of(raised[0])
        assert result
        assert ["fails"] == [each["agent"] for each in result["errors"]]
        assert "Raised by actor 'fails', attempt 1" in raised[0].__notes__[0]
    assert ["beside"] == ended


# Forks

FORKING = """
import os, sys
import anyio
from anyio.lowlevel import checkpoint
from jotty.core.orchestration import Actor, Conductor, Goto

HOW, WAY = sys.argv[1:]

def fork():
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        print("the child ended with", os.waitstatus_to_exitcode(status), flush=True)
        return "the parent's"
    if HOW == "raises":
        raise ValueError("in the child")
    if HOW == "exits":
        sys.exit(3)
    return Goto("forks") if HOW == "goes" else "the child's"

async def forks():
    if WAY == "waits":
        await checkpoint()
    return fork()

async def forks_with(ctx):
    return fork()

async def after(forks):
    return forks

async def main():
    actors = [Actor(name="forks", call=forks_with if WAY == "ctx" else forks), after]
    print("it came to", (await Conductor(actors).run("goal"))["final_output"], flush=True)

anyio.run(main)
"""


@pytest.mark.skipif(not hasattr(sys, "getdlopenflags"), reason="forks are Unix's")
@pytest.mark.parametrize("way", ["fast", "waits", "ctx"])
@pytest.mark.parametrize(("how", "code"), [("returns", 0), ("goes", 0), ("raises", 1), ("exits", 3)])
def test_a_child_that_an_actor_forks_ends_where_the_actor_does(how: str, code: int, way: str) -> None:
    command = [sys.executable, "-c", FORKING, how, way]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert [f"the child ended with {code}", "it came to the parent's"] == ended.stdout.splitlines()
    assert 0 == ended.returncode


@BACKENDS
@pytest.mark.parametrize("before", range(61, 66))
def test_an_actor_that_waits_is_not_interrupted_by_a_turn_for_others(backend: str, before: int) -> None:
    async def main() -> list[str]:
        has_come, is_open = anyio.Event(), anyio.Event()
        ended: list[str] = []

        async def passes() -> None:
            pass

        async def first(ctx: ActorContext) -> None:
            pass

        async def waits() -> str:
            has_come.set()
            await is_open.wait()
            with anyio.move_on_after(0.01):
                await anyio.sleep_forever()
            return "waited"

        async def run() -> None:
            ended.append((await Conductor(actors).run("goal"))["final_output"])

        actors: list[Any] = [Actor(name="n0", call=first)]
        actors += [Actor(name=f"n{at}", call=passes, depends_on=[f"n{at - 1}"]) for at in range(1, before)]
        actors.append(Actor(name="waits", call=waits, depends_on=[f"n{before - 1}"]))
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await has_come.wait()
            is_open.set()
        return ended

    for _ in range(8):  # trio shuffles who is to run
        assert anyio.run(main, backend=backend) == ["waited"]
