"""The durable queue: what people hold (`TaskQueue`), and what a backend author writes (`QueueBackend`).

The names are loaded when first used: who enqueues needs no worker, and who runs one no log.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jotty_backends.file import FileTaskQueue
    from jotty_backends.memory import MemoryTaskQueue
    from jotty_backends.sqlite import SQLiteTaskQueue

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
    from .log.contents import Contents, InlineContents, Vanished
    from .log.seam import Draft, Log, LogRead
    from .log_backend import LogBackend
    from .loop import EventLoop, Signal
    from .manager import QueueManager
    from .operation import Inbox, Operation, deliver
    from .options import DEFAULT_RETENTION, EnqueueOptions
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
    from .transfer import Imported, export_tasks, import_tasks
    from .within import Within
    from .worker.handling import Finished, Parked
    from .worker.keeper import heartbeat_of
    from .worker.presence import WorkerInfo

__all__ = [
    "DEFAULT_RETENTION",
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
    "Contents",
    "Cursor",
    "Draft",
    "Durability",
    "EncodedEntry",
    "EnqueueOptions",
    "EventLoop",
    "FileTaskQueue",
    "Finished",
    "Head",
    "Imported",
    "Inbox",
    "InlineContents",
    "JournalEntry",
    "Log",
    "LogBackend",
    "LogRead",
    "MemoryTaskQueue",
    "Migration",
    "NewTask",
    "Operation",
    "Outcome",
    "Parked",
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
    "Signal",
    "SteadyClock",
    "Swapped",
    "SystemClock",
    "Task",
    "TaskQueue",
    "TaskStatus",
    "Topics",
    "Vanished",
    "Within",
    "WorkerInfo",
    "backends",
    "check_json",
    "check_name",
    "check_seconds",
    "deliver",
    "encode",
    "encode_entry",
    "export_tasks",
    "head_from",
    "heartbeat_of",
    "import_tasks",
    "load_backend",
    "load_queue_class",
    "microseconds",
    "open_queue",
    "points",
    "rewritten",
    "topics_of",
]

_NAMES: Final = {
    "backend": (
        "Change",
        "Claimed",
        "ClaimRequest",
        "Durability",
        "Migration",
        "Outcome",
        "Present",
        "Query",
        "QueueBackend",
        "Record",
        "Swapped",
    ),
    "clock": ("MICROSECONDS", "Clock", "SystemClock", "microseconds"),
    "log.contents": ("Contents", "InlineContents", "Vanished"),
    "cursor": ("Cursor",),
    "journal": ("EncodedEntry", "JournalEntry", "encode_entry"),
    "log.seam": ("Draft", "Log", "LogRead"),
    "log_backend": ("LogBackend",),
    "loop": ("EventLoop", "Signal"),
    "manager": ("QueueManager",),
    "operation": ("Inbox", "Operation", "deliver"),
    "options": ("DEFAULT_RETENTION", "EnqueueOptions"),
    "payload": ("MAX_PAYLOAD", "ROOM", "check_json", "encode"),
    "reading": ("QueueStats",),
    "registry": ("backends", "load_backend", "load_queue_class", "open_queue"),
    "retry": ("Random", "RetryLater", "RetryPolicy"),
    "state": ("QueueState",),
    "steady": ("SAVE_EVERY", "SteadyClock"),
    "task": (
        "LIVE",
        "TERMINAL",
        "Head",
        "NewTask",
        "Ref",
        "Task",
        "TaskStatus",
        "check_name",
        "check_seconds",
        "head_from",
        "rewritten",
    ),
    "task_queue": ("TaskQueue",),
    "topics": ("Topics", "topics_of"),
    "transfer": ("Imported", "export_tasks", "import_tasks"),
    "within": ("Within",),
    "worker.handling": ("Finished", "Parked"),
    "worker.keeper": ("heartbeat_of",),
    "worker.presence": ("WorkerInfo",),
}
_HOMES: Final = {name: home for home, names in _NAMES.items() for name in names}
_QUEUES: Final = {"FileTaskQueue": "file", "MemoryTaskQueue": "memory", "SQLiteTaskQueue": "sqlite"}


def __getattr__(name: str) -> Any:
    """Load a name from its module; a built-in queue class by entry point, as a stranger's is."""
    if name in _QUEUES:
        from .registry import load_queue_class

        return load_queue_class(_QUEUES[name])
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
