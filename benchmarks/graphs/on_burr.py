"""Graphs for burr, a state machine that maps over states in parallel: chain, fan-out and loop."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from benchmarks.graphs.shapes import JOIN, SOURCE, Dag, Trial, add

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from benchmarks.graphs.shapes import Loop, Shape

__all__ = ["trial"]


async def trial(shape: Shape) -> Trial | None:
    """Build a shape, if it can be."""
    if not isinstance(shape, Dag):
        return _loop(shape)
    if shape.name == "chain":
        return _chain(shape)
    return _fan_out(shape) if shape.name == "fan-out" else None


class _Machine:
    """An application, which holds the state of one run, and so is made anew for each."""

    def __init__(
        self, build: Callable[[], Awaitable[Any]], until: list[str], found: Callable[[Any], Any]
    ) -> None:
        self._build = build
        self._until = until
        self._found = found

    async def prepare(self) -> None:
        self._application = await self._build()

    async def run(self) -> Any:
        async for _ in self._application.aiterate(halt_after=self._until):
            pass
        return self._found(self._application.state)

    def trial(self) -> Trial:
        return Trial(self.run, self.prepare)


def _builder() -> Any:
    return import_module("burr.core").ApplicationBuilder().with_state(value=0)


def _adding() -> Any:
    library: Any = import_module("burr.core")

    async def step(state: Any) -> Any:
        return state.update(value=await add(state["value"]))

    return library.action(reads=["value"], writes=["value"])(step)


def _chain(shape: Dag) -> Trial:
    step, names = _adding(), list(shape.parents)

    async def build() -> Any:
        builder = _builder().with_actions(**dict.fromkeys(names, step))
        return await builder.with_transitions(*pairwise(names)).with_entrypoint(names[0]).abuild()

    return _Machine(build, names[-1:], lambda state: {names[-1]: state["value"]}).trial()


def _loop(shape: Loop) -> Trial:
    library: Any = import_module("burr.core")
    step = _adding()

    async def build() -> Any:
        again = ("count", "count", library.expr(f"value < {shape.turns}"))
        builder = _builder().with_actions(count=step).with_transitions(again)
        return await builder.with_entrypoint("count").abuild()

    return _Machine(build, [], lambda state: state["value"]).trial()


def _fan_out(shape: Dag) -> Trial:
    spread = _spread(len(shape) - 2)

    async def build() -> Any:
        builder = _builder().with_actions(**{SOURCE: _adding(), JOIN: spread})
        return await builder.with_transitions((SOURCE, JOIN)).with_entrypoint(SOURCE).abuild()

    return _Machine(build, [JOIN], lambda state: {JOIN: state["total"]}).trial()


def _spread(leaves: int) -> Any:
    """Return an action that maps so many leaves and joins them, as its MapStates is meant to be used."""
    library: Any = import_module("burr.core")
    parallelism: Any = import_module("burr.core.parallelism")

    async def leaf(state: Any) -> Any:
        return state.update(leaf=await add(state["value"]))

    mapped = library.action(reads=["value"], writes=["leaf"])(leaf)

    async def states(_self: Any, state: Any, _context: Any, _inputs: Any) -> AsyncIterator[Any]:
        for _ in range(leaves):
            yield state

    async def reduce(_self: Any, state: Any, states: AsyncIterator[Any]) -> Any:
        return state.update(total=await add(*[each["leaf"] async for each in states]))

    body = {
        "action": lambda _self, _state, _inputs: mapped,
        "states": states,
        "reduce": reduce,
        "is_async": lambda _self: True,
        "reads": property(lambda _: ["value"]),
        "writes": property(lambda _: ["total"]),
    }
    return type("Spread", (parallelism.MapStates,), body)()
