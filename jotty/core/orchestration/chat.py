"""A conductor as a partner in conversation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

import attrs

from .graph import GraphMode
from .orchestrator import GraphOrchestrator
from .stream import RunStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .conductor import Conductor
    from .events import (
        Event,
        ReasoningEvent,
        TextChunkEvent,
        ToolCallEvent,
        ToolResultEvent,
        WorkflowCompleteEvent,
    )
    from .graph import Graph
    from .result import ErrorInfo, Result

__all__ = ["AgentSelectedEvent", "ChatEvent", "ChatMessage", "ChatMode", "DoneEvent"]


PASSED_ON = ("reasoning", "tool_call", "tool_result")


def _now() -> datetime:
    return datetime.now(UTC)


def _aware(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError(f"{attribute.name} must be a datetime with a time zone, not {value!r}.")


def _text(_: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{attribute.name} of a ChatMessage must be a text, not {value!r}.")


@attrs.frozen
class ChatMessage:
    """One message of a conversation.

    Attributes:
        role: Who said it: "user", "assistant", or whatever the actors understand.
        content: What was said.
        created_at: When, with a time zone; now, if it is not given.

    Raises:
        TypeError: role or content is no text.
        ValueError: created_at has no time zone.
    """

    role: str = attrs.field(validator=_text)
    content: str = attrs.field(validator=_text)
    created_at: datetime = attrs.field(factory=_now, validator=_aware)


class AgentSelectedEvent(TypedDict):
    """An actor begins to work on the reply.

    Attributes:
        agent: The actor.
    """

    type: Literal["agent_selected"]
    run_id: str
    seq: int
    time: float
    agent: str
    attempt: int


class DoneEvent(TypedDict):
    """The turn is over; no event follows.

    Attributes:
        message: The reply, or None if the run failed.
        error: Why it failed, or None.
        result: What the run came to.
    """

    type: Literal["done"]
    run_id: str
    seq: int
    time: float
    message: ChatMessage | None
    error: ErrorInfo | None
    result: Result


ChatEvent: TypeAlias = (
    "AgentSelectedEvent | ReasoningEvent | ToolCallEvent | ToolResultEvent | TextChunkEvent | DoneEvent"
)


class ChatMode:
    """Talks through a conductor's actors: each message is a goal, and actors may bind the `history`.

    Always runs at once. It keeps no conversation: the caller passes the history each time.

    Attributes:
        conductor: Whose actors answer.
        agent_id: The actor that every turn starts from, or None for the whole graph.
        mode: How the actors follow each other.

    Raises:
        GraphError: There is no such actor, or it needs the output of another one.
        ValueError: There is no such mode.
    """

    def __init__(
        self, conductor: Conductor, agent_id: str | None = None, mode: GraphMode | str = "dynamic"
    ) -> None:
        self._orchestrator = GraphOrchestrator(conductor, mode)
        self.conductor = conductor
        self.agent_id = agent_id
        self.mode = self._orchestrator.mode
        if agent_id is not None:
            self._orchestrator.graph().check_entry(agent_id)

    def stream(
        self,
        message: str | ChatMessage,
        history: Sequence[ChatMessage | Mapping[str, Any]] = (),
        context: Mapping[str, Any] | None = None,
    ) -> RunStream[ChatEvent]:
        """Answer a message, and return the stream of what happens, ending with `done`.

        Chunks of the actors that make the final output are `text_chunk`, those of others
        `reasoning`; they come as the actors tell them. A reply that was not told in chunks is one
        chunk. An attempt that has told a chunk is not retried, since nobody can take it back.

        Args:
            message: What the user says.
            history: What was said before: messages, or mappings with `role` and `content`.
            context: Values that actors may bind by name.

        Raises:
            GraphError: The actors do not form a graph that can run with this context.
            TypeError: The message or the history is nothing of the kind.
        """
        run = self._orchestrator.prepare(
            message.content if isinstance(message, ChatMessage) else message,
            context,
            history=[_as_message(each) for each in history],
            entry=self.agent_id,
            may_retract=False,
        )
        wanted = self.conductor.output
        return RunStream(lambda tell: run.execute(_Turn(run.graph, wanted, tell).hear))

    async def send(
        self,
        message: str | ChatMessage,
        history: Sequence[ChatMessage | Mapping[str, Any]] = (),
        context: Mapping[str, Any] | None = None,
    ) -> ChatMessage:
        """Answer a message, and return the whole reply; the arguments are those of `stream`.

        Raises:
            Exception: What the run raises.
        """
        reply: ChatMessage | None = None
        async with self.stream(message, history, context) as stream:
            async for event in stream:
                if event["type"] == "done":
                    reply = event["message"]
            await stream.result()
        return reply or ChatMessage("assistant", "")


def _as_message(value: ChatMessage | Mapping[str, Any]) -> ChatMessage:
    if isinstance(value, ChatMessage):
        return value
    if isinstance(value, Mapping) and {"role", "content"} <= set(value):
        return ChatMessage(value["role"], value["content"])
    raise TypeError(
        f"The history holds {value!r}. Give ChatMessage(role, content), or a mapping with these keys."
    )


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


class _Turn:
    """Tells the events of a run as those of a chat."""

    def __init__(
        self, graph: Graph, wanted: str | tuple[str, ...] | None, tell: Callable[[ChatEvent], None]
    ) -> None:
        self._graph = graph
        self._speakers = graph.output_nodes(wanted)
        self._take: Callable[[Any], None] = tell
        self._spoken: set[str] = set()
        self._ended_by: str | None = None
        self._seq = 0

    def hear(self, event: Event) -> None:
        """Take an event of the run."""
        if event["type"] == "agent_start":
            self._spoken.discard(event["agent"])
            self._tell(event, type="agent_selected", agent=event["agent"], attempt=event["attempt"])
        elif event["type"] == "text_chunk":
            self._tell_chunk(event)
        elif event["type"] in PASSED_ON:
            self._tell(event, **event)
        elif event["type"] == "agent_complete" and event["kind"] == "end":
            self._ended_by = event["agent"]
        elif event["type"] == "workflow_complete":
            self._finish(event)
        elif event["type"] == "workflow_error":
            self._tell(event, type="done", message=None, error=event["error"], result=event["result"])

    def _tell(self, event: Event, **fields: Any) -> None:
        """Tell something on the occasion of an event, numbered anew."""
        self._seq += 1
        self._take({**fields, "run_id": event["run_id"], "seq": self._seq, "time": event["time"]})

    def _tell_chunk(self, event: TextChunkEvent) -> None:
        is_reply = event["agent"] in self._speakers
        if is_reply:
            self._spoken.add(event["agent"])
        self._tell(event, **{**event, "type": "text_chunk" if is_reply else "reasoning"})

    def _finish(self, event: WorkflowCompleteEvent) -> None:
        result = event["result"]
        parts = self._parts(result)
        for agent, text in parts.items():
            if text and agent not in self._spoken:
                self._tell(event, type="text_chunk", agent=agent, attempt=1, text=text)
        at = datetime.fromtimestamp(event["time"], UTC)
        message = ChatMessage("assistant", "\n\n".join(parts.values()), at)
        self._tell(event, type="done", message=message, error=None, result=result)

    def _parts(self, result: Result) -> dict[str, str]:
        """Return what the reply is made of, by who made it."""
        if self._ended_by is not None:
            return {self._ended_by: _as_text(result["final_output"])}
        outputs = result["actor_outputs"]
        made = {name: _as_text(outputs[name]) for name in self._speakers if name in outputs}
        if not made and self._graph.mode is GraphMode.STATIC and outputs:
            return {next(reversed(outputs)): _as_text(result["final_output"])}
        return made
