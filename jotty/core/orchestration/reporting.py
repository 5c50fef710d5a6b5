"""What a run tells of its executions, and what it comes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jotty.core.queue import MICROSECONDS

from .dataflow import final_output
from .outcome import End, Goto, Output
from .replay import kept_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .dataflow import Dataflow
    from .execution import Execution
    from .graph import Graph
    from .options import RunOptions
    from .outcome import Done, Skipped
    from .result import ErrorInfo, Result
    from .state import RunState

__all__ = ["Reporter"]


class Reporter:
    """Tells of the nodes of one graph, and notes in a durable run what a later claim has to know.

    Args:
        state: Of the whole run.
        graph: The graph.
        prefix: What stands before the names of its nodes in their labels.
        now: The time, in microseconds.
    """

    def __init__(self, state: RunState, graph: Graph, prefix: str, now: Callable[[], int]) -> None:
        self.state = state
        self.graph = graph
        self.prefix = prefix
        self._announcer = state.announcer
        self._run_id = state.announcer.run_id
        self._now = now
        self._started = now()

    def began(self, execution: Execution) -> None:
        """Tell that an execution begins, and count it."""
        label, number, state = execution.label, execution.round, self.state
        if state.memory is None:
            self.start(label, number, execution.started)
            return
        note = {"inputs": execution.inputs, "round": number}
        self.start(label, number, execution.started, note)
        if number or "/" in label:  # a new round forgets what the last one has spawned
            state.remember("start", label, note)

    def start(self, label: str, number: int, at: int, note: dict[str, Any] | None = None) -> None:
        """Tell that an execution of this node begins in this round, and count it."""
        state = self.state
        if state.parked and label in state.parked:
            state.parked.remove(label)  # the same execution goes on
        else:
            state.path.append(label)
            state.iterations += 1
        if self._announcer.is_heard:
            event = {
                "type": "agent_start",
                "run_id": self._run_id,
                "seq": 0,
                "time": at / MICROSECONDS,
                "agent": label,
                "attempt": 1,
                "round": number,
            }
            self._announcer.post(event, note)

    def completed(self, execution: Execution, outcome: Done, seconds: float, now: int) -> None:
        """Tell what an execution has come to."""
        if not self._announcer.is_heard:
            return
        label, data = execution.label, execution.data
        output = outcome.value if isinstance(outcome, Output) else None
        event = self.completion(label, execution.attempt, output, seconds, now, *self.state.progress())
        note: dict[str, Any] = {"round": execution.round, "output": data}
        if isinstance(outcome, End):
            event.update(kind="end", output=outcome.output)
        elif isinstance(outcome, Goto):
            reset = [self.prefix + each for each in self.graph.reset_by(outcome.target)]
            event.update(kind="goto", target=self.prefix + outcome.target, reset=reset)
            note = {"round": execution.round, "given": dict(outcome.inputs)}
        if self.state.memory is None:
            self._announcer.post(event)
            return
        self._announcer.post(event, note)
        if "/" in label:
            self.state.remember("step", label, kept_of(outcome, data, self.prefix))

    def completion(  # noqa: PLR0917 - by position, as it is done for each node
        self, label: str, attempt: int, output: Any, seconds: float, at: int, finished: int, known: int
    ) -> dict[str, Any]:
        """Return the event of an execution that has come to an output."""
        return {
            "type": "agent_complete",
            "run_id": self._run_id,
            "seq": 0,
            "time": at / MICROSECONDS,
            "agent": label,
            "attempt": attempt,
            "kind": "output",
            "output": output,
            "target": None,
            "reset": [],
            "seconds": seconds,
            "finished": finished,
            "known": known,
        }

    def skipped(self, label: str, skipped: Skipped, inputs: str | None, number: int) -> None:
        """Tell that a node does not run in this round."""
        finished, known = self.state.progress()
        note = {"inputs": inputs, "round": number}
        self.state.tell(
            "agent_skipped", note, agent=label, reason=skipped.reason, finished=finished, known=known
        )

    def failed(
        self, label: str, error: ErrorInfo, seconds: float, number: int, *, is_continued: bool
    ) -> None:
        """Tell that the last attempt of an execution has failed."""
        finished, known = self.state.progress()
        self.state.tell(
            "agent_error",
            {"round": number, "continued": is_continued},
            agent=label,
            attempt=error["attempt"],
            error=error,
            seconds=seconds,
            finished=finished,
            known=known,
        )

    def cancelled(self, execution: Execution) -> None:
        """Tell that an execution was cancelled, and has ended."""
        now = self._now()
        note = {"seconds": self.seconds_of(execution, now)}
        self.state.tell("agent_cancelled", note, now, agent=execution.label, attempt=execution.attempt)

    def seconds_of(self, execution: Execution, now: int) -> float:
        """Return how long an execution has taken, and count that."""
        seconds = (now - execution.started) / MICROSECONDS
        self.count(execution.label, seconds)
        return seconds

    def count(self, label: str, seconds: float) -> None:
        """Count how long an execution of this node has taken."""
        spent = self.state.seconds
        spent[label] = spent.get(label, 0.0) + seconds

    def result(self, flow: Dataflow, options: RunOptions, *, success: bool) -> Result:
        """Return what the run has come to by now."""
        state = self.state
        return {
            "success": success,
            "final_output": final_output(flow, options.output),
            "actor_outputs": {name: flow.outputs[name] for name in self.graph.nodes if name in flow.outputs},
            "errors": state.errors,
            "metadata": {
                "run_id": options.run_id,
                "iterations": state.iterations,
                "timings": {
                    "started_at": self._started / MICROSECONDS,
                    "seconds": (self._now() - self._started) / MICROSECONDS,
                    "actors": state.seconds,
                },
                "path": state.path,
                "usage": state.announcer.usage.total(),
            },
        }
