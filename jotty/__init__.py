"""Durable agent workflows: run actors towards a goal, now or from a queue.

The names stand here for convenience and are loaded when they are first used. They live in:

- `jotty.core.orchestration`: actors, conductors, graphs, workflows
- `jotty.core.queue`: task queues, workers, what a backend author needs
- `jotty.errors`: every exception
- `jotty.testing` (extra `testing`), `jotty.cli` (extra `cli`)
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jotty.core.orchestration import (
        Actor,
        ActorContext,
        ChatMessage,
        ChatMode,
        Conductor,
        End,
        Event,
        Goto,
        Graph,
        GraphMode,
        GraphOrchestrator,
        Handle,
        Limit,
        Output,
        Question,
        Resource,
        Result,
        RunStream,
        WorkflowMode,
        actor,
        result_of,
        stream_run,
    )
    from jotty.core.queue import (
        FileTaskQueue,
        MemoryTaskQueue,
        NewTask,
        QueueManager,
        Ref,
        RetryLater,
        RetryPolicy,
        SQLiteTaskQueue,
        Task,
        TaskQueue,
        TaskStatus,
        open_queue,
    )
    from jotty.errors import JottyError

__all__ = [
    "Actor",
    "ActorContext",
    "ChatMessage",
    "ChatMode",
    "Conductor",
    "End",
    "Event",
    "FileTaskQueue",
    "Goto",
    "Graph",
    "GraphMode",
    "GraphOrchestrator",
    "Handle",
    "JottyError",
    "Limit",
    "MemoryTaskQueue",
    "NewTask",
    "Output",
    "Question",
    "QueueManager",
    "Ref",
    "Resource",
    "Result",
    "RetryLater",
    "RetryPolicy",
    "RunStream",
    "SQLiteTaskQueue",
    "Task",
    "TaskQueue",
    "TaskStatus",
    "WorkflowMode",
    "actor",
    "open_queue",
    "result_of",
    "stream_run",
]

_QUEUE = {
    "FileTaskQueue",
    "MemoryTaskQueue",
    "NewTask",
    "QueueManager",
    "Ref",
    "RetryLater",
    "RetryPolicy",
    "SQLiteTaskQueue",
    "Task",
    "TaskQueue",
    "TaskStatus",
    "open_queue",
}

# a library says nothing unless the application asks for it
logging.getLogger("jotty").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "JottyError":
        return import_module("jotty.errors").JottyError
    home = "jotty.core.queue" if name in _QUEUE else "jotty.core.orchestration"
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
