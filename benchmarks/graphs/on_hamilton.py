"""Graphs for hamilton's asynchronous driver, which has no loops."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib import import_module
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, Final

from benchmarks.graphs.shapes import Dag, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.graphs.shapes import Shape

__all__ = ["trial"]

FRAMES: Final = 20  # of Python, for each node below another


async def trial(shape: Shape) -> Trial | None:
    """Build a shape, if it can be."""
    if not isinstance(shape, Dag):
        return None
    driver: Any = import_module("hamilton.async_driver")
    tools: Any = import_module("hamilton.ad_hoc_utils")
    results: Any = import_module("hamilton.base").DictResult
    module = tools.create_temporary_module(*[_function(shape, name) for name in shape.parents])
    with _depth(len(shape)):
        built = await driver.Builder().with_modules(module).with_adapters(results()).build()
    sinks = shape.sinks

    async def run() -> dict[str, int]:
        with _depth(len(shape)):
            return dict(await built.execute(sinks))

    return Trial(run)


def _function(shape: Dag, name: str) -> Callable[..., Any]:
    """Return a function with the parameters that stand for a node's parents."""
    work, parents = shape.work(name), shape.parents[name]

    async def function(**inputs: int) -> int:
        return await work(*inputs.values())

    function.__name__ = function.__qualname__ = name
    parameters = [Parameter(parent, Parameter.KEYWORD_ONLY, annotation=int) for parent in parents]
    function.__signature__ = Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]  # read by inspect
    function.__annotations__ = {**dict.fromkeys(parents, int), "return": int}
    return function


@contextmanager
def _depth(nodes: int) -> Iterator[None]:
    """Let it descend from the last node to the first, which it does by recursion."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, FRAMES * nodes))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
