"""What actors share and somebody must open and close: HTTP clients, database pools."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from types import AsyncGeneratorType, CoroutineType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["Factory", "Resource", "ResourceScope", "opened", "scoped"]

Factory: TypeAlias = Callable[[], AbstractAsyncContextManager[Any]]
ResourceScope: TypeAlias = Literal["worker", "run"]


@attrs.frozen
class Resource:
    """A resource with a scope of its own choice.

    Attributes:
        factory: Called without arguments, returns an async context manager.
        scope: "worker": entered once for all runs of a worker (or for the one synchronous run);
            "run": entered anew for each run.
    """

    factory: Factory
    scope: ResourceScope = attrs.field(default="worker")

    def __attrs_post_init__(self) -> None:
        """Refuse a scope that there is not."""
        if self.scope not in {"worker", "run"}:
            raise ValueError(f"scope must be 'worker' or 'run', not {self.scope!r}.")


def scoped(resources: Mapping[str, Any], scope: ResourceScope) -> dict[str, Any]:
    """Return the resources of one scope; what does not say has that of the worker."""
    return {name: each for name, each in resources.items() if _scope_of(each) == scope}


def _scope_of(resource: Any) -> ResourceScope:
    return resource.scope if isinstance(resource, Resource) else "worker"


@asynccontextmanager
async def opened(resources: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Enter resources in their order, and leave them in the reverse one.

    A factory is called and what it returns is entered; what is no callable is used as it is, and
    its owner takes care of it.

    Raises:
        TypeError: A factory returns no async context manager.
    """
    async with AsyncExitStack() as stack:
        found = {}
        for name, resource in resources.items():
            found[name] = await _enter(stack, name, resource)
        yield found


async def _enter(stack: AsyncExitStack, name: str, resource: Any) -> Any:
    factory = resource.factory if isinstance(resource, Resource) else resource
    if not callable(factory):
        return factory
    manager = factory()
    if not isinstance(manager, AbstractAsyncContextManager):
        if isinstance(manager, CoroutineType):
            manager.close()  # or Python would warn of it, much later
        what = f"The factory of resource {name!r} returns {manager!r}, which is no async context manager."
        remedy = "Wrap a ready value in contextlib.nullcontext."
        if isinstance(manager, (AbstractContextManager, CoroutineType, AsyncGeneratorType)):
            remedy = "Write it as an async function that yields once, under @contextlib.asynccontextmanager."
        raise TypeError(f"{what} {remedy}")
    return await stack.enter_async_context(manager)
