"""The durable queue: what people hold (`TaskQueue`), and what a backend author writes (`QueueBackend`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .backend import (
    Change,
    Claimed,
    ClaimRequest,
    Durability,
    Outcome,
    Query,
    QueueBackend,
    Record,
    Swapped,
)
from .clock import MICROSECONDS, Clock, SystemClock, microseconds
from .cursor import Cursor
from .journal import EncodedEntry, JournalEntry, encode_entry
from .loop import EventLoop
from .manager import QueueManager
from .options import EnqueueOptions
from .payload import MAX_PAYLOAD, ROOM, check_json, encode
from .reading import QueueStats
from .registry import backends, load_backend, load_queue_class, open_queue
from .retry import Random, RetryLater, RetryPolicy
from .state import QueueState
from .task import LIVE, TERMINAL, Head, NewTask, Ref, Task, TaskStatus, check_name, check_seconds
from .task_queue import TaskQueue
from .topics import Topics, topics_of
from .worker_run import Finished

if TYPE_CHECKING:
    from jotty_backends.memory import MemoryTaskQueue
    from jotty_backends.sqlite import SQLiteTaskQueue

__all__ = [
    "LIVE",
    "MAX_PAYLOAD",
    "MICROSECONDS",
    "ROOM",
    "TERMINAL",
    "Change",
    "ClaimRequest",
    "Claimed",
    "Clock",
    "Cursor",
    "Durability",
    "EncodedEntry",
    "EnqueueOptions",
    "EventLoop",
    "Finished",
    "Head",
    "JournalEntry",
    "MemoryTaskQueue",
    "NewTask",
    "Outcome",
    "Query",
    "QueueBackend",
    "QueueManager",
    "QueueState",
    "QueueStats",
    "Random",
    "Record",
    "Ref",
    "RetryLater",
    "RetryPolicy",
    "SQLiteTaskQueue",
    "Swapped",
    "SystemClock",
    "Task",
    "TaskQueue",
    "TaskStatus",
    "Topics",
    "backends",
    "check_json",
    "check_name",
    "check_seconds",
    "encode",
    "encode_entry",
    "load_backend",
    "load_queue_class",
    "microseconds",
    "open_queue",
    "topics_of",
]

_QUEUES = {"MemoryTaskQueue": "memory", "SQLiteTaskQueue": "sqlite"}


def __getattr__(name: str) -> Any:
    """Load a built-in queue class when it is first asked for, by entry point, as a stranger's is."""
    if name in _QUEUES:
        return load_queue_class(_QUEUES[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
