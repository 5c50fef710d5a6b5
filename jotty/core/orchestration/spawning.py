"""What an actor spawns while it runs: other executions, which end before it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio import CancelScope

from jotty.errors import GraphError

from .actor import is_count, is_storable
from .binding import Absent, bind, guess, listed
from .graph import Node
from .identity import digest_of, name_of, recognised
from .labels import label_of
from .outcome import Failed, Output, Skipped

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    from .actor import ActorLike, AnyActor
    from .execution import Execution
    from .outcome import Done
    from .run import Run
    from .state import RunState, Work

__all__ = ["Handle", "Spawner", "arguments_of", "digested"]

LONGEST_KEY: Final = 40
DEEPEST: Final = 16  # calls in one task: each takes a dozen frames of the thousand that Python allows
CONTAINERS: Final = (list, tuple, dict)  # where handles stand for outputs: no subclasses, nothing deeper


class Handle:
    """An actor that was spawned; await it for its output, or give it to another one as an input.

    Awaiting raises what its last attempt raised, and gives None where it was skipped or its failure is
    continued from. It may be awaited any number of times, by the actor that has spawned it.

    Attributes:
        agent: The name that its events carry.
        key: What tells it apart.
    """

    def __init__(self, spawner: Spawner, node: Node, key: str, inputs: Mapping[str, Any]) -> None:
        self.agent = node.name
        self.key = key
        self.node = node
        self.inputs = inputs
        self.scope = CancelScope()
        self.outcome: Done | Failed | Skipped | None = None
        self.data: bytes | None = None
        self.output_digest: str | None = None
        self.is_awaited = False
        self.depth = 0  # how many calls in one task it is in
        self.is_begun = False
        self.is_idle = False
        self.watcher: _Batch | None = None
        self.waiters: list[Work] = []
        self._spawner = spawner
        self._settled = anyio.Event()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._output().__await__()

    def __repr__(self) -> str:
        state = "waits or runs" if self.outcome is None else type(self.outcome).__name__.lower()
        return f"<Handle of {self.agent!r}: {state}>"

    @property
    def is_settled(self) -> bool:
        """Whether it has ended, or never will run."""
        return self._settled.is_set()

    def settle(self, outcome: Done | Failed | Skipped | None, state: RunState) -> None:
        """Let go on who waits for it, who is at work from now on; None stands for one that was cancelled."""
        self.outcome = outcome
        self._settled.set()
        if self.watcher is not None:
            self.watcher.settled(self)
        for waiter in self.waiters:
            state.wake(waiter)

    @property
    def raises(self) -> bool:
        """Whether awaiting it raises."""
        return isinstance(self.outcome, Failed) and not self._spawner.continues(self.node)

    async def settled(self, state: RunState, waiter: Work) -> None:
        """Return when it has ended, or never will run; who waits is not at work meanwhile."""
        if not self.is_settled:
            self.waiters.append(waiter)
            state.idle(waiter)
            try:
                await self._settled.wait()
            finally:
                self.waiters.remove(waiter)
                state.wake(waiter)

    async def ended(self) -> None:
        """Return when it has ended."""
        await self._settled.wait()

    async def _output(self) -> Any:
        if not self.is_settled:
            await self._spawner.wait_for(self)
        return self.taken()

    def taken(self) -> Any:
        """Return its output, now that it is settled, or raise its failure."""
        self.is_awaited = True
        if isinstance(self.outcome, Failed) and self.raises:
            raise self.outcome.error
        return self.given()

    def given(self) -> Any:
        """Return its output, now that it is settled; None if it is absent."""
        return self.outcome.value if isinstance(self.outcome, Output) else None


class Spawner:
    """Spawns for one attempt of one execution.

    Args:
        run: The run.
        execution: Whose attempt it is.
    """

    def __init__(self, run: Run, execution: Execution) -> None:
        self._run = run
        self._execution = execution
        self._handles: dict[str, Handle] = {}

    @property
    def is_used(self) -> bool:
        """Whether it has spawned anything."""
        return bool(self._handles)

    async def wait_for(self, handle: Handle) -> None:
        """Wait until this is settled; the actor gives up its place meanwhile."""
        async with self._run.places.waiting(self._execution):
            handle.waiters.append(self._execution.work)
            try:
                await handle.ended()
            finally:
                handle.waiters.remove(self._execution.work)

    def wake(self) -> None:
        """Count the actor as being at work again, although it has not gone on yet."""
        self._run.state.wake(self._execution.work)

    def continues(self, node: Node) -> bool:
        """Whether the run goes on without a node that fails."""
        return self._run.continues(node)

    def spawn(
        self,
        actor: ActorLike,
        key: str | None,
        after: Iterable[Handle],
        inputs: Mapping[str, Any],
        *,
        scheduled: bool = True,
    ) -> Handle:
        """See `ActorContext.spawn`; what is not scheduled is for the caller to perform."""
        run, execution = self._run, self._execution
        found = run.nursery.actor_of(actor)
        plan = run.nursery.plan_of(found, execution.root)
        _check_inputs(found.name, plan.accepts, plan.open, inputs)
        key = self._free_key(found.name, inputs) if key is None else _checked_key(key)
        label = label_of(execution.label, found.name, key)
        if label in self._handles:
            raise ValueError(f"{execution.label!r} has spawned {found.name!r} with the key {key!r} already.")
        parents = [*_checked_handles(after), *_handles_in(inputs)]
        handle = Handle(self, Node(label, found, (), (), plan, None), key, dict(inputs))
        self._handles[label] = handle
        run.state.know(label)
        if scheduled:
            run.nursery.start(handle, execution, parents)
        return handle

    async def call(self, actor: ActorLike, key: str | None, inputs: Mapping[str, Any]) -> Any:
        """See `ActorContext.call`; the other one runs in this task, unless its stack is deep already."""
        if any(_handles_in(inputs)) or self._execution.depth >= DEEPEST:
            return await self.spawn(actor, key, (), inputs)
        handle = self.spawn(actor, key, (), inputs, scheduled=False)
        await self._run.nursery.run_here(handle, self._execution)
        return handle.taken()

    async def map(
        self,
        actor: ActorLike,
        items: Iterable[Any],
        key: Callable[[Any], str] | None,
        limit: int | None,
        inputs: Mapping[str, Any],
    ) -> list[Any]:
        """See `ActorContext.map`."""
        if limit is not None and not is_count(limit, 1):
            raise ValueError(f"limit must be an int of at least 1, or None, not {limit!r}.")
        found = self._run.nursery.actor_of(actor)
        parameter = self._item_parameter(found, inputs)
        batch = _Batch()
        try:
            for item in items:
                if limit is not None:
                    await self._until_under(batch, limit)
                given = {**inputs, parameter: item}
                batch.add(self.spawn(found, None if key is None else key(item), (), given))
            await self._until_under(batch, 1)
        except BaseException:
            await self.abandon(batch.handles)
            batch.dismiss()
            raise
        return [handle.taken() for handle in batch.handles]

    async def _until_under(self, batch: _Batch, bound: int) -> None:
        """Return when fewer than this are unsettled; raise the first failure at once."""
        if not batch.is_under(bound):
            async with self._run.places.waiting(self._execution):
                await batch.until_under(bound, self.wake)
        if batch.failed is not None:
            batch.failed.taken()

    def _item_parameter(self, actor: AnyActor, inputs: Mapping[str, Any]) -> str:
        plan = self._run.nursery.plan_of(actor, self._execution.root)
        taken = {*inputs, plan.context, plan.own and plan.own[0]}
        bound = {name for name, *_ in (*plan.given, *plan.outputs)}
        every = [each.name for each in actor.signature.parameters if each.name not in taken]
        free = [name for name in (*plan.open, *every) if name not in taken | bound]
        if not free and len(every) == 1:  # an agent's prompt, say
            free = every
        if not free:
            raise GraphError(
                f"Actor {actor.name!r} has no parameter that an item could go to.", "Give it one."
            )
        return free[0]

    def _free_key(self, actor: str, inputs: Mapping[str, Any]) -> str:
        """Make a key of the inputs, so that it does not depend on the order of the calls.

        Raises:
            ValueError: In a durable run: another one has this key, and maybe not these inputs.
        """
        base, is_exact = self._key_of(inputs)
        key, number = base, 1
        while label_of(self._execution.label, actor, key) in self._handles:
            if self._run.options.is_coded and not is_exact:
                kinds = ", ".join(sorted({type(each).__name__ for each in inputs.values()}))
                raise ValueError(
                    f"Two calls of {actor!r} cannot be told apart after a crash: what each is given "
                    f"({kinds}) counts by its type alone. Give each a key: key=..."
                )
            number += 1
            key = f"{base}#{number}"
        return key

    def _key_of(self, inputs: Mapping[str, Any]) -> tuple[str, bool]:
        """Return a key, and whether it is that of no other inputs."""
        values = list(inputs.values())
        text = name_of(values[0]) if len(values) == 1 else None
        if text and len(text) <= LONGEST_KEY and text.isprintable():
            return text, True
        if not values:
            return "1", True
        return recognised({name: _replaced(each, lambda one: one.agent) for name, each in inputs.items()})

    async def settle(self) -> Failed | None:
        """Wait for all that was spawned; return the failure of one that nobody has awaited."""
        for handle in list(self._handles.values()):
            if not handle.is_settled:
                await self.wait_for(handle)
        for handle in self._handles.values():
            if isinstance(handle.outcome, Failed) and handle.raises and not handle.is_awaited:
                return handle.outcome
        return None

    async def abandon(self, handles: Iterable[Handle] | None = None) -> None:
        """Cancel what still runs of these, or of all, and return when it has ended."""
        unsettled = [
            each for each in (self._handles.values() if handles is None else handles) if not each.is_settled
        ]
        if not unsettled:
            return
        for handle in unsettled:
            handle.scope.cancel()
            if not handle.is_begun:  # asyncio may be about to drop the task altogether
                self._run.nursery.drop(handle)
        with CancelScope(shield=True):
            for handle in unsettled:
                await handle.ended()


def arguments_of(
    handle: Handle, given: Mapping[str, Any], outputs: Mapping[str, Any]
) -> dict[str, Any] | Skipped:
    """Bind what was spawned, now that the handles among its inputs are settled."""
    inputs: dict[str, Any] = {}
    for name, value in handle.inputs.items():
        if not isinstance(value, Handle):
            inputs[name] = _replaced(value, Handle.given)
        elif isinstance(value.outcome, Output):
            inputs[name] = value.outcome.value
        elif any(each.name == name and each.required for each in handle.node.actor.signature.parameters):
            return Skipped(f"{value.agent!r} is absent")
    arguments = bind(handle.node.plan, given, outputs, {}, inputs)
    return Skipped(f"{arguments.name!r} is absent") if isinstance(arguments, Absent) else arguments


def digested(value: Any) -> str | None:
    """Return what stands for an input: for a handle, that of its output; None for one that is absent."""
    if isinstance(value, Handle):
        return value.output_digest
    return digest_of(_replaced(value, lambda handle: handle.output_digest))


def _handles_in(inputs: Mapping[str, Any]) -> Iterator[Handle]:
    """Yield the handles among inputs, and in those that are lists, tuples or dicts."""
    for value in inputs.values():
        if isinstance(value, Handle):
            yield value
        elif type(value) in CONTAINERS:
            within = value.values() if type(value) is dict else value
            yield from (each for each in within if isinstance(each, Handle))


def _replaced(value: Any, change: Callable[[Handle], Any]) -> Any:
    """Return an input with what stands for the handles in it; itself, if there are none."""
    if isinstance(value, Handle):
        return change(value)
    if type(value) not in CONTAINERS or not any(_handles_in({"": value})):
        return value
    if type(value) is dict:
        return {name: change(each) if isinstance(each, Handle) else each for name, each in value.items()}
    return type(value)(change(each) if isinstance(each, Handle) else each for each in value)


def _checked_key(key: Any) -> str:
    if not isinstance(key, str) or not key or not is_storable(key):
        raise ValueError(f"key must be a text that is not empty, without lone surrogates, not {key!r}.")
    return key


def _checked_handles(values: Iterable[Any]) -> list[Handle]:
    handles = list(values)
    for value in handles:
        if not isinstance(value, Handle):
            raise TypeError(f"after takes handles, which ctx.spawn returns, not {value!r}.")
    return handles


def _check_inputs(
    name: str, accepts: frozenset[str] | None, needed: Iterable[str], inputs: Mapping[str, Any]
) -> None:
    unknown = [] if accepts is None else [each for each in inputs if each not in accepts]
    if unknown:
        raise GraphError(
            f"Actor {name!r} is given {unknown[0]!r}, which it does not take. "
            f"It takes: {listed(sorted(accepts or ()))}.{guess(unknown[0], accepts or ())}"
        )
    missing = [each for each in needed if each not in inputs]
    if missing:
        raise GraphError(
            f"Actor {name!r} needs {missing[0]!r}, which nothing provides here.", f"Give it {missing[0]}=..."
        )


class _Batch:
    """The handles of one map."""

    def __init__(self) -> None:
        self.handles: list[Handle] = []
        self.unsettled = 0
        self.failed: Handle | None = None
        self._bound = 0
        self._is_under = anyio.Event()
        self._wake: Callable[[], object] = _nothing

    def add(self, handle: Handle) -> None:
        self.handles.append(handle)
        self.unsettled += 1
        handle.watcher = self

    def settled(self, handle: Handle) -> None:
        self.unsettled -= 1
        if self.failed is None and handle.raises:
            self.failed = handle
        if self.is_under(self._bound):
            self._is_under.set()
            self._wake()

    def dismiss(self) -> None:
        """Count the failures of all as known to the actor, to which the first one is raised."""
        for handle in self.handles:
            handle.is_awaited = True

    def is_under(self, bound: int) -> bool:
        """Whether fewer than this are unsettled, or one has failed."""
        return self.unsettled < bound or self.failed is not None

    async def until_under(self, bound: int, wake: Callable[[], object]) -> None:
        """Return when that is so; who waits is woken as it becomes so."""
        self._bound, self._wake, self._is_under = bound, wake, anyio.Event()
        try:
            await self._is_under.wait()
        finally:
            self._bound, self._wake = 0, _nothing


def _nothing() -> None: ...
