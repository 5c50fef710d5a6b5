"""Proof for people who write a backend, or test with jotty (extra: testing)."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from jotty.errors import MissingDependency

from .clock import VirtualClock

if TYPE_CHECKING:
    from .conformance import DiskRules, PointRules, ProcessRules, SystemCallRules, TaskQueueConformance
    from .history import Event, History, read_history
    from .machine import TaskQueueMachine, task_queue_machine
    from .strategies import RefusedPayload, contexts, goals, json_values, payloads_refused
    from .verdict import Figures, Verdict, Violation, check_history

__all__ = [
    "DiskRules",
    "Event",
    "Figures",
    "History",
    "PointRules",
    "ProcessRules",
    "RefusedPayload",
    "SystemCallRules",
    "TaskQueueConformance",
    "TaskQueueMachine",
    "Verdict",
    "Violation",
    "VirtualClock",
    "check_history",
    "contexts",
    "goals",
    "json_values",
    "payloads_refused",
    "read_history",
    "task_queue_machine",
]

# What needs pytest and hypothesis is loaded when it is asked for: the clock alone needs neither.
_HOMES: Final = {
    "DiskRules": "conformance",
    "Event": "history",
    "Figures": "verdict",
    "History": "history",
    "PointRules": "conformance",
    "ProcessRules": "conformance",
    "RefusedPayload": "strategies",
    "SystemCallRules": "conformance",
    "TaskQueueConformance": "conformance",
    "TaskQueueMachine": "machine",
    "Verdict": "verdict",
    "Violation": "verdict",
    "check_history": "verdict",
    "contexts": "strategies",
    "goals": "strategies",
    "json_values": "strategies",
    "payloads_refused": "strategies",
    "read_history": "history",
    "task_queue_machine": "machine",
}

# Without this, a bare assert in these modules would fail without showing its values.
if (_pytest := sys.modules.get("pytest")) is not None:
    _pytest.register_assert_rewrite(f"{__name__}.conformance", f"{__name__}.machine")


def __getattr__(name: str) -> Any:
    """Load a part of the kit.

    Raises:
        MissingDependency: pytest or hypothesis is not installed.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as missing:
        raise MissingDependency(missing.name or name, "testing") from missing
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
