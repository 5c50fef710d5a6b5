"""Running actors towards a goal: what they are, how they follow each other, what a run tells and gives.

The names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from .actor import (
    Actor,
    ActorLike,
    ActorOptions,
    AgentObject,
    AnyActor,
    ErrorPolicy,
    Limit,
    actor,  # now, or the name would be that of its module
)

if TYPE_CHECKING:
    from .chat import AgentSelectedEvent, ChatEvent, ChatMessage, ChatMode, DoneEvent
    from .conductor import Conductor
    from .context import ActorContext
    from .events import (
        AgentCancelledEvent,
        AgentCompleteEvent,
        AgentErrorEvent,
        AgentRetryEvent,
        AgentSkippedEvent,
        AgentStartEvent,
        CustomEvent,
        Event,
        InputRequiredEvent,
        ReasoningEvent,
        TextChunkEvent,
        ToolCallEvent,
        ToolResultEvent,
        WorkflowCompleteEvent,
        WorkflowErrorEvent,
        WorkflowStartEvent,
    )
    from .fake import FakeContext, Spawned
    from .graph import Graph, GraphMode, Node
    from .journaling import answer_run, stream_run
    from .orchestrator import ConductorLike, GraphOrchestrator, Orchestrator
    from .outcome import End, Goto, Output
    from .questions import OnAsk, Question
    from .resources import Resource, opened, scoped
    from .result import ErrorInfo, Metadata, Result, RunUsage, Timings, Usage, result_of
    from .run import Run
    from .signature import ActorKind
    from .spawning import Handle
    from .stream import RunStream
    from .timeline import RowStatus, Timeline, TimelineQuestion, TimelineRow
    from .workflow import WorkflowMode

__all__ = [
    "Actor",
    "ActorContext",
    "ActorKind",
    "ActorLike",
    "ActorOptions",
    "AgentCancelledEvent",
    "AgentCompleteEvent",
    "AgentErrorEvent",
    "AgentObject",
    "AgentRetryEvent",
    "AgentSelectedEvent",
    "AgentSkippedEvent",
    "AgentStartEvent",
    "AnyActor",
    "ChatEvent",
    "ChatMessage",
    "ChatMode",
    "Conductor",
    "ConductorLike",
    "CustomEvent",
    "DoneEvent",
    "End",
    "ErrorInfo",
    "ErrorPolicy",
    "Event",
    "FakeContext",
    "Goto",
    "Graph",
    "GraphMode",
    "GraphOrchestrator",
    "Handle",
    "InputRequiredEvent",
    "Limit",
    "Metadata",
    "Node",
    "OnAsk",
    "Orchestrator",
    "Output",
    "Question",
    "ReasoningEvent",
    "Resource",
    "Result",
    "RowStatus",
    "Run",
    "RunStream",
    "RunUsage",
    "Spawned",
    "TextChunkEvent",
    "Timeline",
    "TimelineQuestion",
    "TimelineRow",
    "Timings",
    "ToolCallEvent",
    "ToolResultEvent",
    "Usage",
    "WorkflowCompleteEvent",
    "WorkflowErrorEvent",
    "WorkflowMode",
    "WorkflowStartEvent",
    "actor",
    "answer_run",
    "opened",
    "result_of",
    "scoped",
    "stream_run",
]

_NAMES: Final = {
    "chat": ("AgentSelectedEvent", "ChatEvent", "ChatMessage", "ChatMode", "DoneEvent"),
    "conductor": ("Conductor",),
    "context": ("ActorContext",),
    "events": (
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
    ),
    "fake": ("FakeContext", "Spawned"),
    "graph": ("Graph", "GraphMode", "Node"),
    "journaling": ("answer_run", "stream_run"),
    "orchestrator": ("ConductorLike", "GraphOrchestrator", "Orchestrator"),
    "outcome": ("End", "Goto", "Output"),
    "questions": ("OnAsk", "Question"),
    "resources": ("Resource", "opened", "scoped"),
    "result": ("ErrorInfo", "Metadata", "Result", "RunUsage", "Timings", "Usage", "result_of"),
    "run": ("Run",),
    "signature": ("ActorKind",),
    "spawning": ("Handle",),
    "stream": ("RunStream",),
    "timeline": ("RowStatus", "Timeline", "TimelineQuestion", "TimelineRow"),
    "workflow": ("WorkflowMode",),
}
_HOMES: Final = {name: home for home, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
