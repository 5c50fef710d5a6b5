"""What an actor that takes a parameter `ctx` can see and tell."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from numbers import Real
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from .questions import NO_DEFAULT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from .actor import ActorLike
    from .fake import FakeContext
    from .result import RunUsage, UsageMeter
    from .spawning import Handle

__all__ = ["ActorContext"]

KEPT: Final = 16

Method = TypeVar("Method", bound="Callable[..., Coroutine[Any, Any, Any]]")


def _awaited(method: Method) -> Method:
    """Remember what this returns, so that an attempt that never awaits it can be failed."""

    @functools.wraps(method)
    def called(ctx: ActorContext, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        begun = ctx._begun  # noqa: SLF001 - its own
        if len(begun) >= KEPT:
            begun[:] = [each for each in begun if _is_unawaited(each)]
        coroutine = method(ctx, *args, **kwargs)
        begun.append(coroutine)
        return coroutine

    return called  # type: ignore[return-value]  # it has the signature of the method


def _is_unawaited(coroutine: Coroutine[Any, Any, Any]) -> bool:
    return inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED


class _Voice(Protocol):
    """Where what an actor tells goes to."""

    @property
    def usage(self) -> UsageMeter: ...

    def tell_of(self, ctx: ActorContext, type: str, fields: dict[str, Any], /) -> None:  # noqa: A002
        ...

    def count(self, model: str, input_tokens: int, output_tokens: int, cost: float, /) -> None: ...


class _Backstage(Protocol):
    """What carries out what an actor asks its run for."""

    def spawn(
        self, actor: ActorLike, key: str | None, after: Iterable[Handle], inputs: Mapping[str, Any], /
    ) -> Handle: ...

    async def call(self, actor: ActorLike, key: str | None, inputs: Mapping[str, Any], /) -> Any: ...

    async def map(
        self,
        actor: ActorLike,
        items: Iterable[Any],
        key: Callable[[Any], str] | None,
        limit: int | None,
        inputs: Mapping[str, Any],
        /,
    ) -> list[Any]: ...

    async def step(self, key: str, call: Callable[..., Any], args: Sequence[Any], /) -> Any: ...

    async def ask(
        self,
        question: str,
        key: str | None,
        options: Sequence[Any] | None,
        timeout: float | None,
        default: Any,
        /,
    ) -> Any: ...


class ActorContext:
    """One attempt of an actor, seen from within.

    Telling is immediate, never waits, and may be done from any thread. What is told after the
    attempt is over is dropped. To spawn, call, map, step and ask takes an async actor; while it waits for
    others or for an answer, it holds neither a place under `max_parallel` nor its limit.

    Attributes:
        actor: The actor's name.
        agent: The node's name, which the events carry: that of the actor, but for `name#2` in a static order,
            `plan/search[a]` for what `plan` has spawned, and `report/write` within a conductor `report`.
        run_id: The run.
        attempt: Which attempt this is, from 1.
        round: How often a Goto has reset the actor before.
        goal: What the run is for.
        context: What the run was given besides.
        history: The conversation so far, in a chat; else empty.
        cancelled: For an actor that runs in a thread: whether it has been told to stop. It should
            look at it now and then, since nothing else can stop it.
        has_spoken: Whether `text` was called.
        is_over: Whether the attempt has ended.
    """

    __slots__ = (
        "__weakref__",
        "_backstage",
        "_begun",
        "_voice",
        "actor",
        "agent",
        "attempt",
        "cancelled",
        "context",
        "goal",
        "has_spoken",
        "history",
        "is_over",
        "round",
        "run_id",
    )

    def __init__(
        self,
        voice: _Voice,
        *,
        actor: str,
        agent: str,
        run_id: str,
        attempt: int,
        round: int,  # noqa: A002  # the word that the events use
        goal: str,
        context: Mapping[str, Any],
        history: Sequence[Any],
        backstage: _Backstage | None = None,
    ) -> None:
        self._voice = voice
        self._backstage = backstage
        self._begun: list[Any] = []
        self.actor = actor
        self.agent = agent
        self.run_id = run_id
        self.attempt = attempt
        self.round = round
        self.goal = goal
        self.context = context
        self.history = history
        self.cancelled = False
        self.has_spoken = False
        self.is_over = False

    @classmethod
    def fake(
        cls,
        *,
        actor: str = "actor",
        goal: str = "",
        context: Mapping[str, Any] | None = None,
        history: Sequence[Any] = (),
        attempt: int = 1,
        outputs: Mapping[str, Any] | None = None,
        answers: Mapping[str, Any] | None = None,
    ) -> FakeContext:
        """Make a context that belongs to no run and keeps what it is told, to test an actor alone.

        Args:
            actor: The actor's name.
            goal: What the run is for.
            context: What the run was given besides.
            history: The conversation so far.
            attempt: Which attempt it is.
            outputs: What actors give that are spawned or called, by name: an output, or a function of the
                inputs. An actor that is not among them is called, if it is given itself.
            answers: Those to questions, by key.
        """
        from .fake import FakeContext

        return FakeContext(
            actor=actor,
            goal=goal,
            context=context or {},
            history=history,
            attempt=attempt,
            outputs=outputs or {},
            answers=answers or {},
        )

    def text(self, text: str) -> None:
        """Tell a piece of the output, as it comes; the output itself is still what the actor returns."""
        self.has_spoken = True
        self._voice.tell_of(self, "text_chunk", {"text": text})

    def reasoning(self, text: str) -> None:
        """Tell a piece of what leads to the output."""
        self._voice.tell_of(self, "reasoning", {"text": text})

    def tool_call(self, tool: str, arguments: Any = None, *, call_id: str | None = None) -> None:
        """Tell that a tool is called."""
        self._voice.tell_of(self, "tool_call", {"tool": tool, "arguments": arguments, "call_id": call_id})

    def tool_result(self, tool: str, result: Any = None, *, call_id: str | None = None) -> None:
        """Tell what a tool has answered."""
        self._voice.tell_of(self, "tool_result", {"tool": tool, "result": result, "call_id": call_id})

    def emit(self, name: str, data: Any = None) -> None:
        """Tell anything else, as an `agent_event`."""
        self._voice.tell_of(self, "agent_event", {"name": name, "data": data})

    def usage(
        self, *, model: str = "", input_tokens: int = 0, output_tokens: int = 0, cost: float = 0.0
    ) -> None:
        """Report what a model consumed; the metadata holds the sum, failed attempts included."""
        for name, value in (("input_tokens", input_tokens), ("output_tokens", output_tokens), ("cost", cost)):
            if not isinstance(value, Real):
                raise TypeError(f"{name} must be a number, not {value!r}.")
        self._voice.count(model, input_tokens, output_tokens, cost)

    @property
    def spent(self) -> RunUsage:
        """What the whole run has reported by `usage` so far, failed attempts and earlier claims included."""
        return self._voice.usage.total()

    # What an actor asks its run for

    def spawn(
        self, actor: ActorLike, /, *, key: str | None = None, after: Iterable[Handle] = (), **inputs: Any
    ) -> Handle:
        """Have another actor run beside this one, and return a handle: to await, or to depend on.

        This actor settles after all that it has spawned. If it is cancelled, returns a Goto or an End, or
        fails, what it has spawned is cancelled and awaited, too.

        In a durable run, what has finished does not run again when this actor has to: it is known by its key
        and its inputs, never by the order of the calls.

        Args:
            actor: The name of one of the conductor's actors, or any actor. Its `when` is not asked.
            key: Tells it apart from others of that actor spawned here; by default made of the inputs.
            after: Handles of what must be settled first.
            **inputs: Arguments, by parameter; a handle stands for its output, also in a list, tuple or dict
                (None there, if it is absent). What is not given is bound as in the graph, to outputs of
                actors that this one descends from.

        Raises:
            GraphError: There is no such actor, it does not take an input, or lacks one.
            ValueError: The key is in use here.
            RuntimeError: This actor is over, or runs in a thread.
        """
        if after and not isinstance(after, Iterable):
            raise TypeError(f"after takes a list of handles: after=[handle], not {after!r}.")
        return self._stage().spawn(actor, key, after, inputs)

    @_awaited
    async def call(self, actor: ActorLike, /, *, key: str | None = None, **inputs: Any) -> Any:
        """Spawn another actor, wait for it, and return its output; see `spawn`.

        Raises:
            Exception: What its last attempt raised. Where its failure is continued from, None is returned.
        """
        return await self._stage().call(actor, key, inputs)

    @_awaited
    async def map(
        self,
        actor: ActorLike,
        items: Iterable[Any],
        /,
        *,
        key: Callable[[Any], str] | None = None,
        limit: int | None = None,
        **inputs: Any,
    ) -> list[Any]:
        """Spawn an actor for each item, and return the outputs in the order of the items; see `spawn`.

        If one fails, the others are cancelled and awaited, and its exception is raised. Where failures are
        continued from, None stands in its place.

        Args:
            actor: Whom to spawn. An item is given to the first parameter that nothing else provides; if
                there is only one, to that.
            items: The items.
            key: Makes the key of an item; by default it is made of the inputs.
            limit: How many may run at once, or None.
            **inputs: Further arguments for each.

        Raises:
            Exception: What an actor's last attempt raised.
        """
        if not isinstance(items, Iterable):
            raise TypeError(f"map takes a list of items, not {items!r}.")
        if key is not None and not callable(key):
            raise TypeError(f"key of map must be a function of the item, or None, not {key!r}.")
        return await self._stage().map(actor, items, key, limit, inputs)

    @_awaited
    async def step(self, key: str, call: Callable[..., Awaitable[Any] | Any], /, *args: Any) -> Any:
        """Call a function, and return what it returns: in a durable run once and for all.

        When this actor has to run again, a step that has finished under this key with these arguments gives
        what it gave. Its value passes the codec of the function's return annotation. A plain function runs
        in a thread.

        Raises:
            Exception: What the function raises.
            PayloadError: In a durable run: its value cannot be stored.
            ValueError: The key is in use in this attempt.
        """
        if not callable(call):
            if isinstance(call, CoroutineType):
                call.close()  # or Python would warn of it, much later
            raise TypeError(
                f"step takes a function, not {call!r}. "
                "Give a key, the function and its arguments apart: ctx.step('page', fetch, url)."
            )
        return await self._stage().step(key, call, args)

    @_awaited
    async def ask(
        self,
        question: str,
        *,
        key: str | None = None,
        options: Sequence[Any] | None = None,
        timeout: float | None = None,
        default: Any = NO_DEFAULT,
    ) -> Any:
        """Ask a person, and return the answer.

        In a queue, the task is blocked, and holds no worker, once nothing else of the run can go on; when the
        answer comes, this actor runs again from its start, and this call returns at once. Nothing that had
        finished runs again. In `execute`, `on_ask` answers; in a stream, `stream.answer(key, value)`.

        Args:
            question: What to ask, for a person to read.
            key: Names the question in the run, for the answer; by default the actor, for its second question
                `actor.2`, and so on. From the second round of a loop on, it is `key#2`, `key#3`..., so that
                each round asks anew. Actors that ask under one key have one answer.
            options: The answers to choose from, or None for any.
            timeout: Seconds after which nobody is waited for any more, or None. They begin when it is first
                asked, and go on while no worker runs; an actor that is tried again is not given more.
            default: What is returned then, or at once where nobody can answer; it need not be one of the
                options.

        Raises:
            InputRequired: Nobody can answer, as `execute` was called without `on_ask`, say; and it does not
                expire with a default.
            TimeoutError: Nobody has answered in time, and there is no default.
            ValueError: This actor has asked under this key already, another one waits for an answer under it,
                or this is none of the options.
        """
        return await self._stage().ask(question, key, options, timeout, default)

    def forgotten(self) -> tuple[str, ...]:
        """Return which of these were called and not awaited; they never will be from now on."""
        forgotten = [each for each in self._begun if _is_unawaited(each)]
        for each in forgotten:
            each.close()  # or Python would warn of it, much later
        return tuple(each.__name__ for each in forgotten)

    def _stage(self) -> _Backstage:
        if self._backstage is None or self.is_over:
            raise RuntimeError(
                f"Actor {self.agent!r} can't do this now: its attempt is over, or it runs in a thread. "
                "Make it an async def, and use its ctx only while it runs."
            )
        return self._backstage
