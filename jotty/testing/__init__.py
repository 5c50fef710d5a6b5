"""Proof for people who write a backend, or test with jotty (extra: testing)."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from jotty.errors import MissingDependency

if TYPE_CHECKING:
    from .assertions import assert_completed, assert_events, assert_failed, assert_history_clean
    from .clock import VirtualClock
    from .conformance import DiskRules, PointRules, ProcessRules, SystemCallRules, TaskQueueConformance
    from .faults import FAULTS, Fault, FaultyBackend
    from .history import Event, History, read_history
    from .machine import TaskQueueMachine, task_queue_machine
    from .proxy import BackendProxy
    from .scripts import StandIn, UnscriptedCall, raising, replace_actor, returning
    from .simulation import SimulatedFaults, Simulation, simulate
    from .strategies import (
        ActorGraph,
        ActorPlan,
        RefusedPayload,
        SampleHistory,
        actor_graphs,
        contexts,
        goals,
        histories,
        json_values,
        payloads_refused,
        retry_policies,
        tasks,
    )
    from .verdict import Figures, Verdict, Violation, check_history
    from .workflows import WorkflowRun, run_workflow

__all__ = [
    "FAULTS",
    "ActorGraph",
    "ActorPlan",
    "BackendProxy",
    "DiskRules",
    "Event",
    "Fault",
    "FaultyBackend",
    "Figures",
    "History",
    "PointRules",
    "ProcessRules",
    "RefusedPayload",
    "SampleHistory",
    "SimulatedFaults",
    "Simulation",
    "StandIn",
    "SystemCallRules",
    "TaskQueueConformance",
    "TaskQueueMachine",
    "UnscriptedCall",
    "Verdict",
    "Violation",
    "VirtualClock",
    "WorkflowRun",
    "actor_graphs",
    "assert_completed",
    "assert_events",
    "assert_failed",
    "assert_history_clean",
    "check_history",
    "contexts",
    "goals",
    "histories",
    "json_values",
    "payloads_refused",
    "raising",
    "read_history",
    "replace_actor",
    "retry_policies",
    "returning",
    "run_workflow",
    "simulate",
    "task_queue_machine",
    "tasks",
]

# Loaded when it is asked for: the suite and the strategies need pytest and hypothesis, the rest neither.
_HOMES: Final = {
    "FAULTS": "faults",
    "ActorGraph": "strategies",
    "ActorPlan": "strategies",
    "BackendProxy": "proxy",
    "DiskRules": "conformance",
    "Event": "history",
    "Fault": "faults",
    "FaultyBackend": "faults",
    "Figures": "verdict",
    "History": "history",
    "PointRules": "conformance",
    "ProcessRules": "conformance",
    "RefusedPayload": "strategies",
    "SampleHistory": "strategies",
    "SimulatedFaults": "simulation",
    "Simulation": "simulation",
    "StandIn": "scripts",
    "SystemCallRules": "conformance",
    "TaskQueueConformance": "conformance",
    "TaskQueueMachine": "machine",
    "UnscriptedCall": "scripts",
    "Verdict": "verdict",
    "Violation": "verdict",
    "VirtualClock": "clock",
    "WorkflowRun": "workflows",
    "actor_graphs": "strategies",
    "assert_completed": "assertions",
    "assert_events": "assertions",
    "assert_failed": "assertions",
    "assert_history_clean": "assertions",
    "check_history": "verdict",
    "contexts": "strategies",
    "goals": "strategies",
    "histories": "strategies",
    "json_values": "strategies",
    "payloads_refused": "strategies",
    "raising": "scripts",
    "read_history": "history",
    "replace_actor": "scripts",
    "retry_policies": "strategies",
    "returning": "scripts",
    "run_workflow": "workflows",
    "simulate": "simulation",
    "task_queue_machine": "machine",
    "tasks": "strategies",
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
