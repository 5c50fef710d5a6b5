"""The short way through a run: actors of which only the output is wanted, as long as they do not wait."""

from __future__ import annotations

from contextvars import copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from jotty.core.queue import MICROSECONDS, Within
from jotty.core.queue.lineage import generation

from .outcome import End, Failed, Goto, Output
from .spawning import Handle

if TYPE_CHECKING:
    from .execution import Execution, Rest
    from .graph import Node
    from .run import Run

__all__ = ["FastPath"]

NO_MERE_OUTPUTS: Final = (Output, Goto, End, Handle, CoroutineType)


class FastPath:
    """Runs bare nodes that never wait, one after the other, without making an execution of any.

    They come to what they come to by way of `Run` and `Performer`, which provide for whatever an actor may
    do, in a third of the time. A node that waits or fails after all, or comes to anything but an output, is
    handed on to these. Nothing else happens meanwhile, so that nothing is cancelled or reset.

    Args:
        run: The run; it must be none that notes what happens.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._context = copy_context()
        self._home = generation()

    def run(self) -> Execution | None:
        """Go on as far as possible.

        Returns:
            What is handed on; None if nothing is ready, or what is goes the long way.
        """
        run, flow, context, home = self._run, self._run.flow, self._context, self._home
        nodes, prefix, clock = run.graph.nodes, run.prefix, run.now
        if flow.first_ready is None or not nodes[flow.first_ready].is_bare:
            return None
        announcer, reporter = run.state.announcer, run.reporter
        start, completion, count = reporter.start, reporter.completion, reporter.count
        finished, known = run.state.progress()
        now = clock()
        for _ in range(min(run.workers.turns_left, run.options.max_iterations - run.state.iterations)):
            name = flow.first_ready
            if name is None:
                return None
            node = nodes[name]
            arguments = self._arguments(node) if node.is_bare else None
            if arguments is None:
                return None
            label = prefix + name
            start(label, flow.rounds[name], now)
            variables = context.copy()
            try:
                called = node.actor.invoke(**arguments)
                suspended = variables.run(called.send, None)
            except StopIteration as stop:
                value = stop.value
            except BaseException as exc:  # noqa: BLE001 - sorted by the performer
                return self._handed_on(node, arguments, now, Failed(exc))
            else:
                return self._handed_on(node, arguments, now, Within(variables, called, suspended))
            if isinstance(value, NO_MERE_OUTPUTS) or generation() != home:
                return self._handed_on(node, arguments, now, Output(value))
            started, now = now, clock()
            seconds = (now - started) / MICROSECONDS
            flow.complete(name, value)
            count(label, seconds)
            finished += 1
            if announcer.is_heard:
                announcer.post(completion(label, 1, value, seconds, now, finished, known))
        return None

    def _arguments(self, node: Node) -> dict[str, Any] | None:
        """Return what is bound; None if something is missing."""
        flow, given, plan = self._run.flow, self._run.given, node.plan
        arguments = {parameter: given[name] for parameter, name in plan.given} if plan.given else {}
        outputs = flow.outputs
        for parameter, source, required in plan.outputs:
            if source in outputs:
                arguments[parameter] = outputs[source]
            elif required:
                return None
        if flow.calls and node.name in flow.calls:
            arguments.update(flow.calls[node.name])
        return arguments

    def _handed_on(self, node: Node, arguments: dict[str, Any], started: int, rest: Rest) -> Execution:
        self._run.flow.take()
        execution = self._run.executed(node, arguments, started, None)
        execution.rest = rest
        return execution
