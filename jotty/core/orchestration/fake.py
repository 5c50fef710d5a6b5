"""A context that belongs to no run: for a test of one actor alone."""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, Any

import attrs

from jotty.errors import GraphError, InputRequired

from .actor import as_actor
from .binding import RESERVED
from .context import ActorContext
from .questions import NO_DEFAULT, check_answer
from .result import UsageMeter
from .signature import ActorKind

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from .actor import ActorLike, AnyActor

__all__ = ["FakeContext", "Spawned"]


class _Recorder:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.usages: list[dict[str, Any]] = []
        self.usage = UsageMeter()

    def tell_of(self, ctx: ActorContext, type: str, fields: dict[str, Any], /) -> None:  # noqa: A002
        self.events.append({"type": type, "agent": ctx.agent, "attempt": ctx.attempt, **fields})

    def count(self, model: str, input_tokens: int, output_tokens: int, cost: float, /) -> None:
        self.usage.add(model, input_tokens, output_tokens, cost)
        self.usages.append(
            {"model": model, "input_tokens": input_tokens, "output_tokens": output_tokens, "cost": cost}
        )


@attrs.define(eq=False)
class Spawned:
    """An actor that was spawned, called or mapped; await it for its output.

    Attributes:
        actor: Its name.
        key: The key it was given, or None.
        inputs: Its arguments, by parameter.
    """

    actor: str
    key: str | None
    inputs: dict[str, Any]
    _work: Callable[[], Any]
    _outputs: list[Any] = attrs.field(factory=list)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._output().__await__()

    async def _output(self) -> Any:
        if not self._outputs:
            found = self._work()
            self._outputs.append(await found if isawaitable(found) else found)
        return self._outputs[0]


class FakeContext(ActorContext):
    """A context for a test of one actor alone; made by `ActorContext.fake()`.

    What is spawned runs when it is awaited, one after the other.

    Attributes:
        events: What the actor told, in order, each with `type`, `agent` and `attempt`.
        usages: What it reported to `usage`, of which `spent` is the sum.
        spawned: What it has spawned, called or mapped, in order.
        questions: What it has asked, by key.
        steps: What its steps gave, by key.
    """

    __slots__ = ("events", "questions", "spawned", "steps", "usages")

    def __init__(
        self,
        *,
        actor: str,
        goal: str,
        context: Mapping[str, Any],
        history: Sequence[Any],
        attempt: int,
        outputs: Mapping[str, Any],
        answers: Mapping[str, Any],
    ) -> None:
        recorder = _Recorder()
        super().__init__(
            recorder,
            actor=actor,
            agent=actor,
            run_id="fake",
            attempt=attempt,
            round=0,
            goal=goal,
            context=context,
            history=history,
            backstage=_FakeStage(self, outputs, answers),
        )
        self.events = recorder.events
        self.usages = recorder.usages
        self.spawned: list[Spawned] = []
        self.questions: dict[str, str] = {}
        self.steps: dict[str, Any] = {}

    @property
    def chunks(self) -> list[str]:
        """The pieces of its output that the actor told, in order."""
        return [event["text"] for event in self.events if event["type"] == "text_chunk"]

    def cancel(self) -> None:
        """Tell the actor to stop, as a run does."""
        self.cancelled = True


class _FakeStage:
    """Does what an actor asks its run for, one thing after the other."""

    def __init__(self, ctx: FakeContext, outputs: Mapping[str, Any], answers: Mapping[str, Any]) -> None:
        self._ctx = ctx
        self._outputs = outputs
        self._answers = answers

    def spawn(
        self, actor: ActorLike, key: str | None, after: Iterable[Any], inputs: Mapping[str, Any]
    ) -> Any:
        name = actor if isinstance(actor, str) else as_actor(actor).name
        spawned = Spawned(name, key, dict(inputs), lambda: self._output(actor, name, list(after), inputs))
        self._ctx.spawned.append(spawned)
        return spawned

    async def call(self, actor: ActorLike, key: str | None, inputs: Mapping[str, Any]) -> Any:
        return await self.spawn(actor, key, (), inputs)

    async def map(
        self,
        actor: ActorLike,
        items: Iterable[Any],
        key: Callable[[Any], str] | None,
        limit: int | None,
        inputs: Mapping[str, Any],
    ) -> list[Any]:
        del limit  # one at a time, here
        found = []
        for item in items:
            given = {**inputs, self._item_parameter(actor, inputs): item}
            found.append(await self.spawn(actor, None if key is None else key(item), (), given))
        return found

    async def step(self, key: str, call: Callable[..., Any], args: Sequence[Any]) -> Any:
        value = call(*args)
        self._ctx.steps[key] = await value if isawaitable(value) else value
        return self._ctx.steps[key]

    async def ask(
        self,
        question: str,
        key: str | None,
        options: Sequence[Any] | None,
        timeout: float | None,
        default: Any,
    ) -> Any:
        name = self._ctx.agent if key is None else key
        self._ctx.questions[name] = question
        if name in self._answers:
            check_answer(name, self._answers[name], options)
            return self._answers[name]
        if timeout is not None and default is not NO_DEFAULT:
            return default
        raise InputRequired(name, question)

    async def _output(
        self, actor: ActorLike, name: str, after: Iterable[Spawned], inputs: Mapping[str, Any]
    ) -> Any:
        for parent in after:
            await parent
        given = {name: await value if isinstance(value, Spawned) else value for name, value in inputs.items()}
        if name in self._outputs:
            found = self._outputs[name]
            value = found(**given) if callable(found) else found
            return await value if isawaitable(value) else value
        if isinstance(actor, str):
            raise GraphError(f"The test gives no output of {name!r}.", f"Pass outputs={{{name!r}: ...}}.")
        ctx = self._ctx
        return await _called(as_actor(actor), {"goal": ctx.goal, "ctx": ctx, "history": ctx.history, **given})

    def _item_parameter(self, actor: ActorLike, inputs: Mapping[str, Any]) -> str:
        if isinstance(actor, str):
            return "item"
        taken = {*inputs, *RESERVED}
        return next(each.name for each in as_actor(actor).signature.parameters if each.name not in taken)


async def _called(actor: AnyActor, inputs: Mapping[str, Any]) -> Any:
    names = actor.signature.names
    found: Any = actor.target(**{name: value for name, value in inputs.items() if name in names})
    if actor.kind is ActorKind.STREAM:
        return "".join([chunk async for chunk in found])
    return await found if isawaitable(found) else found
