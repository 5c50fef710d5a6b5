"""The durable queue: what people hold (`TaskQueue`), and what a backend author writes (`QueueBackend`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import points
from .backend import (
    Change,
    Claimed,
    ClaimRequest,
    Durability,
    Migration,
    Outcome,
    Present,
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
from .operation import Inbox, Operation, deliver
from .options import EnqueueOptions
from .payload import MAX_PAYLOAD, ROOM, check_json, encode
from .reading import QueueStats
from .registry import backends, load_backend, load_queue_class, open_queue
from .retry import Random, RetryLater, RetryPolicy
from .state import QueueState
from .steady import SAVE_EVERY, SteadyClock
from .task import (
    LIVE,
    TERMINAL,
    Head,
    NewTask,
    Ref,
    Task,
    TaskStatus,
    check_name,
    check_seconds,
    head_from,
    rewritten,
)
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
    "SAVE_EVERY",
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
    "Inbox",
    "JournalEntry",
    "MemoryTaskQueue",
    "Migration",
    "NewTask",
    "Operation",
    "Outcome",
    "Present",
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
    "SteadyClock",
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
    "deliver",
    "encode",
    "encode_entry",
    "head_from",
    "load_backend",
    "load_queue_class",
    "microseconds",
    "open_queue",
    "points",
    "rewritten",
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
