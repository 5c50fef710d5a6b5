"""Actors that forget to await what they ask their run for: they fail, and nothing is taken for an answer."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty import ActorContext, Goto, actor

if TYPE_CHECKING:
    from .conftest import Watch

pytestmark = pytest.mark.anyio


async def helper(goal: str) -> str:
    return goal


def use(ctx: ActorContext, method: str) -> Any:
    calls: dict[str, Any] = {
        "ask": lambda: ctx.ask("Send it?"),
        "call": lambda: ctx.call(helper),
        "map": lambda: ctx.map(helper, [1]),
        "step": lambda: ctx.step("k", helper, "x"),
    }
    return calls[method]()


@pytest.mark.parametrize("method", ["ask", "call", "map", "step"])
@pytest.mark.parametrize("outcome", ["sent", Goto("after")])
async def test_an_actor_that_does_not_await_it_fails(watch: Watch, method: str, outcome: Any) -> None:
    sent = []

    @actor
    async def send(ctx: ActorContext) -> Any:
        if use(ctx, method):
            return outcome
        return "kept"

    @actor
    async def after(send: str) -> None:
        sent.append(send)

    run = await watch(send, after, on_ask=lambda _: "no")
    gc.collect()

    assert isinstance(run.error, TypeError)
    assert (
        str(run.error)
        == f"Actor 'send' calls ctx.{method}() and does not await it. Write: await ctx.{method}(...)."
    )
    assert sent == run.told("input_required") == []


async def test_an_actor_that_fails_otherwise_fails_by_that(watch: Watch) -> None:
    @actor
    async def send(ctx: ActorContext) -> None:
        use(ctx, "ask")
        raise KeyError("why")

    run = await watch(send)
    gc.collect()

    assert type(run.error) is KeyError


async def test_who_forgets_it_may_be_tried_again(watch: Watch) -> None:
    @actor(retries=1, backoff=0)
    async def send(ctx: ActorContext) -> Any:
        question = ctx.ask("Send it?")
        return await question if ctx.attempt == 2 else "sent"

    run = await watch(send, on_ask=lambda _: "no")

    assert run.output == "no"


async def test_what_is_awaited_late_or_in_a_task_is_not_forgotten(watch: Watch) -> None:
    @actor
    async def collect(ctx: ActorContext) -> list[str]:
        got: list[str] = []

        async def one(number: int) -> None:
            got.append(await ctx.call(helper, key=str(number)))

        begun = [ctx.call(helper, key=f"late {number}") for number in range(40)]
        async with anyio.create_task_group() as group:
            for number in range(40):
                group.start_soon(one, number)
            group.start_soon(ctx.step, "direct", helper, "x")
        return got + [await each for each in begun]

    run = await watch(collect)

    assert run.output == ["goal"] * 80
