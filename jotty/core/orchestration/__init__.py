"""Running actors towards a goal: what they are, how they follow each other, what a run tells and gives."""

from __future__ import annotations

from .actor import Actor, ActorLike, ActorOptions, AgentObject, AnyActor, ErrorPolicy, Limit, actor
from .chat import AgentSelectedEvent, ChatEvent, ChatMessage, ChatMode, DoneEvent
from .conductor import Conductor
from .context import ActorContext, FakeContext
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
from .graph import Graph, GraphMode, Node
from .journaling import stream_run
from .orchestrator import ConductorLike, GraphOrchestrator, Orchestrator
from .outcome import End, Goto, Output
from .resources import Resource, opened, scoped
from .result import ErrorInfo, Metadata, Result, RunUsage, Timings, Usage, result_of
from .run import Run
from .signature import ActorKind
from .stream import RunStream
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
    "InputRequiredEvent",
    "Limit",
    "Metadata",
    "Node",
    "Orchestrator",
    "Output",
    "ReasoningEvent",
    "Resource",
    "Result",
    "Run",
    "RunStream",
    "RunUsage",
    "TextChunkEvent",
    "Timings",
    "ToolCallEvent",
    "ToolResultEvent",
    "Usage",
    "WorkflowCompleteEvent",
    "WorkflowErrorEvent",
    "WorkflowMode",
    "WorkflowStartEvent",
    "actor",
    "opened",
    "result_of",
    "scoped",
    "stream_run",
]
