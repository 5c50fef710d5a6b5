"""What the journal of a background run says of it, folded into what a result holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs

from .entries import event_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jotty.core.queue import JournalEntry, Task, TaskQueue

__all__ = ["RunFold", "concise", "fold_run", "told_result", "whole_result"]


@attrs.define
class RunFold:
    """What the journal's entries say of a run.

    What another orchestrator ran begins anew at each attempt, of which then the last counts.

    Attributes:
        actor_outputs: The outputs by actor.
        path: The actors in the order in which they were started.
        seconds: How long the executions of each actor took.
    """

    actor_outputs: dict[str, Any] = attrs.field(factory=dict)
    path: list[str] = attrs.field(factory=list)
    seconds: dict[str, float] = attrs.field(factory=dict)
    _continued: list[dict[str, Any]] = attrs.field(factory=list)
    _ended_by: dict[str, Any] | None = None
    _open: set[str] = attrs.field(factory=set)
    _parked: set[str] = attrs.field(factory=set)

    @property
    def errors(self) -> list[dict[str, Any]]:
        """What failed, as `ErrorInfo`."""
        return [*self._continued, *filter(None, [self._ended_by])]

    def add(self, entry: JournalEntry, run_id: str) -> None:
        """Take one more entry into account.

        Args:
            entry: The entry.
            run_id: The task.
        """
        if entry.kind == "parked":
            self._parked.update(self._open)
        event = event_of(entry, run_id)
        if event is None:
            return
        if event["type"] == "workflow_start":
            self._begin(entry.data.get("supplied") or {})
        elif event["type"] == "agent_start":
            self._start(event["agent"])
        elif event["type"] in {"agent_complete", "agent_skipped", "agent_cancelled", "agent_error"}:
            self._settle(event, entry.data)

    def _begin(self, supplied: Mapping[str, Any]) -> None:
        self.actor_outputs, self.path, self.seconds = dict(supplied), [], {}
        self._continued, self._ended_by = [], None

    def _start(self, agent: str) -> None:
        if agent in self._parked:  # the same execution goes on
            self._parked.remove(agent)
        else:
            self.path.append(agent)
        self._open.add(agent)
        self.actor_outputs.pop(agent, None)
        self._ended_by = None  # it was tried again

    def _settle(self, event: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        agent, kind = event["agent"], event["type"]
        if agent in self._open:
            self._open.remove(agent)
            if "seconds" in data:
                self.seconds[agent] = self.seconds.get(agent, 0.0) + data["seconds"]
        if kind == "agent_complete":
            self._complete(event)
            return
        self.actor_outputs.pop(agent, None)
        if kind == "agent_error" and data.get("continued"):
            self._continued.append(event["error"])
        elif kind == "agent_error":
            self._ended_by = event["error"]

    def _complete(self, event: Mapping[str, Any]) -> None:
        if event.get("kind") != "goto":
            if "/" not in event["agent"]:  # what was spawned is none of the graph's
                self.actor_outputs[event["agent"]] = event.get("output")
            return
        for agent in (event["agent"], *event["reset"]):
            self.actor_outputs.pop(agent, None)


async def fold_run(queue: TaskQueue, task_id: str, *, until: float = math.inf) -> RunFold:
    """Return what a task's journal says of its run, up to an entry.

    Raises:
        TaskNotFound: There is no such task.
    """
    fold = RunFold()
    async for entry in queue.events(task_id, follow=False):
        if entry.number <= until:
            fold.add(entry, task_id)
    return fold


def concise(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a task keeps of a run's result: what is not in its journal, and does not grow with it."""
    metadata = {name: value for name, value in result["metadata"].items() if name != "path"}
    timings = metadata["timings"]
    metadata["timings"] = {name: value for name, value in timings.items() if name != "actors"}
    kept = {name: result[name] for name in ("success", "final_output", "errors")}
    return {**kept, "metadata": metadata}


def whole_result(stored: Any, fold: RunFold) -> Any:
    """Return a task's stored result with what the journal has of it; another handler's result as it is."""
    if not (isinstance(stored, dict) and "final_output" in stored):
        return stored
    return {
        "success": stored["success"],
        "final_output": stored["final_output"],
        "actor_outputs": fold.actor_outputs,
        "errors": stored["errors"],
        "metadata": _whole(stored["metadata"], fold),
    }


async def told_result(queue: TaskQueue, task: Task) -> Any:
    """Return a task's stored result, its metadata with what the journal has of it."""
    stored = task.result
    if not (isinstance(stored, dict) and "final_output" in stored and _is_concise(stored["metadata"])):
        return stored
    fold = await fold_run(queue, task.id)
    return {**stored, "metadata": _whole(stored["metadata"], fold)}


def _whole(metadata: Any, fold: RunFold) -> Any:
    if not _is_concise(metadata):
        return metadata
    return {**metadata, "timings": {**metadata["timings"], "actors": fold.seconds}, "path": fold.path}


def _is_concise(metadata: Any) -> bool:
    return isinstance(metadata, dict) and "timings" in metadata and "path" not in metadata
