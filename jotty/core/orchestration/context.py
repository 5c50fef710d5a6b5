"""What an actor that takes a parameter `ctx` can see and tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ActorContext", "FakeContext"]


class _Voice(Protocol):
    """Where what an actor tells goes to."""

    def tell_of(self, ctx: ActorContext, type: str, fields: dict[str, Any], /) -> None:  # noqa: A002
        ...

    def count(self, model: str, input_tokens: int, output_tokens: int, cost: float, /) -> None: ...


class ActorContext:
    """One attempt of an actor, seen from within.

    Telling is immediate, never waits, and may be done from any thread. What is told after the
    attempt is over is dropped.

    Attributes:
        actor: The actor's name.
        agent: The node's name, which the events carry; that of the actor but for `name#2`.
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
    ) -> None:
        self._voice = voice
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
    ) -> FakeContext:
        """Make a context that belongs to no run and keeps what it is told, to test an actor alone."""
        return FakeContext(actor=actor, goal=goal, context=context or {}, history=history, attempt=attempt)

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
        self._voice.count(model, input_tokens, output_tokens, cost)


class _Recorder:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.usage: list[dict[str, Any]] = []

    def tell_of(self, ctx: ActorContext, type: str, fields: dict[str, Any], /) -> None:  # noqa: A002
        self.events.append({"type": type, "agent": ctx.agent, "attempt": ctx.attempt, **fields})

    def count(self, model: str, input_tokens: int, output_tokens: int, cost: float, /) -> None:
        self.usage.append(
            {"model": model, "input_tokens": input_tokens, "output_tokens": output_tokens, "cost": cost}
        )


class FakeContext(ActorContext):
    """A context for a test of one actor alone; made by `ActorContext.fake()`.

    Attributes:
        events: What the actor told, in order, each with `type`, `agent` and `attempt`.
        usages: What it reported to `usage`.
    """

    __slots__ = ("events", "usages")

    def __init__(
        self, *, actor: str, goal: str, context: Mapping[str, Any], history: Sequence[Any], attempt: int
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
        )
        self.events = recorder.events
        self.usages = recorder.usage

    @property
    def chunks(self) -> list[str]:
        """The pieces of its output that the actor told, in order."""
        return [event["text"] for event in self.events if event["type"] == "text_chunk"]

    def cancel(self) -> None:
        """Tell the actor to stop, as a run does."""
        self.cancelled = True
