"""Hypothesis strategies: what goes into a queue, who works on it, and what comes of that."""

from __future__ import annotations

from .graphs import ActorGraph, ActorPlan, actor_graphs
from .histories import SampleHistory, histories
from .payloads import RefusedPayload, contexts, goals, json_values, payloads_refused
from .tasks import retry_policies, tasks

__all__ = [
    "ActorGraph",
    "ActorPlan",
    "RefusedPayload",
    "SampleHistory",
    "actor_graphs",
    "contexts",
    "goals",
    "histories",
    "json_values",
    "payloads_refused",
    "retry_policies",
    "tasks",
]
