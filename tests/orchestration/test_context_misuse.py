"""What is easily got wrong with `ctx`, and what it says then, in a run and in a test of an actor alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from jotty.core.orchestration import ActorContext, Conductor, actor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio


async def read(page: str) -> str:
    return page


async def step_of_a_coroutine(ctx: ActorContext) -> Any:
    return await ctx.step("k", read("a"))  # type: ignore[arg-type]  # all these are the point


async def step_of_a_value(ctx: ActorContext) -> Any:
    return await ctx.step("k", "read", "a")  # type: ignore[arg-type]


async def step_without_a_key(ctx: ActorContext) -> Any:
    return await ctx.step(read, "a")  # type: ignore[arg-type]


async def map_with_one_key(ctx: ActorContext) -> Any:
    return await ctx.map(read, ["a"], key="k")  # type: ignore[arg-type]


async def map_over_no_list(ctx: ActorContext) -> Any:
    return await ctx.map(read, 3)  # type: ignore[arg-type]


async def after_a_handle(ctx: ActorContext) -> Any:
    first = ctx.spawn(read, page="a")
    return await ctx.spawn(read, page="b", after=first)  # type: ignore[arg-type]


MISTAKES = [
    (step_of_a_coroutine, r"step takes a function.*apart: ctx.step\('page', fetch, url\)"),
    (step_of_a_value, "step takes a function, not 'read'"),
    (step_without_a_key, "Give a key"),
    (map_with_one_key, "key of map must be a function of the item, or None, not 'k'"),
    (map_over_no_list, "map takes a list of items, not 3"),
    (after_a_handle, r"after takes a list of handles: after=\[handle\]"),
]


@pytest.mark.parametrize(("mistake", "told"), MISTAKES)
async def test_a_run_says_what_to_write_instead(
    mistake: Callable[[ActorContext], Awaitable[Any]], told: str
) -> None:
    with pytest.raises(TypeError, match=told):
        await Conductor([actor(mistake)]).run("goal")


@pytest.mark.parametrize(("mistake", "told"), MISTAKES)
async def test_a_fake_context_says_the_same(
    mistake: Callable[[ActorContext], Awaitable[Any]], told: str
) -> None:
    with pytest.raises(TypeError, match=told):
        await mistake(ActorContext.fake())
