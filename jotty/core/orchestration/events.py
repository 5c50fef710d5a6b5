"""What a run tells as it goes: plain dicts with a `type`.

Every event carries `run_id`, `seq` (1, 2, 3... in the one order of the run) and `time` (seconds
since the Unix epoch, by the conductor's clock). Those of an actor also carry `agent` (the node's
name) and, where it was started, `attempt` (from 1).
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypedDict

from .result import ErrorInfo, Result  # noqa: TC001  # typing.get_type_hints must find them

__all__ = [
    "AgentCancelledEvent",
    "AgentCompleteEvent",
    "AgentErrorEvent",
    "AgentRetryEvent",
    "AgentSkippedEvent",
    "AgentStartEvent",
    "CustomEvent",
    "Event",
    "InputRequiredEvent",
    "ReasoningEvent",
    "TextChunkEvent",
    "ToolCallEvent",
    "ToolResultEvent",
    "WorkflowCompleteEvent",
    "WorkflowErrorEvent",
    "WorkflowStartEvent",
]


class _RunEvent(TypedDict):
    run_id: str
    seq: int
    time: float


class _AgentEvent(_RunEvent):
    agent: str
    attempt: int


class WorkflowStartEvent(_RunEvent):
    """The run has begun.

    Attributes:
        goal: What it runs towards.
        agents: The nodes of its graph.
        output: Those of them whose output is the final one, so that their chunks are the reply.
    """

    type: Literal["workflow_start"]
    goal: str
    agents: list[str]
    output: list[str]


class WorkflowCompleteEvent(_RunEvent):
    """The run is over, and raises nothing; no event follows.

    Attributes:
        result: What it came to.
    """

    type: Literal["workflow_complete"]
    result: Result


class WorkflowErrorEvent(_RunEvent):
    """The run is over, and raises an exception; no event follows.

    Attributes:
        error: The exception, as text.
        result: What was finished.
    """

    type: Literal["workflow_error"]
    error: ErrorInfo
    result: Result


class AgentStartEvent(_AgentEvent):
    """An execution of an actor begins; complete, error or cancelled will end it.

    Attributes:
        round: How often a Goto has reset the actor before.
    """

    type: Literal["agent_start"]
    round: int


class TextChunkEvent(_AgentEvent):
    """A piece of an actor's output, as it comes."""

    type: Literal["text_chunk"]
    text: str


class ReasoningEvent(_AgentEvent):
    """A piece of what led an actor to its output."""

    type: Literal["reasoning"]
    text: str


class ToolCallEvent(_AgentEvent):
    """An actor calls a tool.

    Attributes:
        call_id: What the result will carry too, or None.
    """

    type: Literal["tool_call"]
    tool: str
    arguments: Any
    call_id: str | None


class ToolResultEvent(_AgentEvent):
    """A tool has answered an actor.

    Attributes:
        call_id: That of the call, or None.
    """

    type: Literal["tool_result"]
    tool: str
    result: Any
    call_id: str | None


class CustomEvent(_AgentEvent):
    """Whatever an actor told by `ctx.emit(name, data)`."""

    type: Literal["agent_event"]
    name: str
    data: Any


class AgentRetryEvent(_AgentEvent):
    """An attempt failed and another follows; the chunks of this attempt count no more.

    Attributes:
        error: Why it failed.
        delay: Seconds until the next attempt.
    """

    type: Literal["agent_retry"]
    error: ErrorInfo
    delay: float


class AgentSkippedEvent(_RunEvent):
    """An actor does not run in this round.

    Attributes:
        reason: Why, for a person to read.
        finished: How many nodes of the run are settled now.
        known: How many there are, as far as is known.
    """

    type: Literal["agent_skipped"]
    agent: str
    reason: str
    finished: int
    known: int


class AgentCancelledEvent(_AgentEvent):
    """An execution of an actor was cancelled, and has ended; its chunks count no more."""

    type: Literal["agent_cancelled"]


class AgentCompleteEvent(_AgentEvent):
    """An execution of an actor has ended well.

    Attributes:
        kind: What it came to. A "goto" has no output.
        output: The output.
        target: Where a goto leads, else None.
        reset: The target and what descends from it, whose outputs a goto makes void; else empty.
        seconds: How long it took.
        finished: How many nodes of the run are settled now.
        known: How many there are, as far as is known; what is spawned adds to them.
    """

    type: Literal["agent_complete"]
    kind: Literal["output", "goto", "end"]
    output: Any
    target: str | None
    reset: list[str]
    seconds: float
    finished: int
    known: int


class AgentErrorEvent(_AgentEvent):
    """The last attempt of an actor failed.

    Attributes:
        error: Why.
        seconds: How long the execution took.
        finished: How many nodes of the run are settled now.
        known: How many there are, as far as is known.
    """

    type: Literal["agent_error"]
    error: ErrorInfo
    seconds: float
    finished: int
    known: int


class InputRequiredEvent(_AgentEvent):
    """An actor asks a question.

    Attributes:
        key: Names the question, for the answer.
        question: The question.
        options: The answers to choose from, or None for any.
    """

    type: Literal["input_required"]
    key: str
    question: str
    options: list[Any] | None


Event: TypeAlias = (
    WorkflowStartEvent
    | AgentStartEvent
    | TextChunkEvent
    | ReasoningEvent
    | ToolCallEvent
    | ToolResultEvent
    | CustomEvent
    | AgentRetryEvent
    | AgentSkippedEvent
    | AgentCancelledEvent
    | AgentCompleteEvent
    | AgentErrorEvent
    | InputRequiredEvent
    | WorkflowCompleteEvent
    | WorkflowErrorEvent
)
