"""What has happened in a run, and what may happen next; values only, no I/O, no clock."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from .graph import GraphMode
from .outcome import End, Goto, Outcome, Output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .graph import Graph

__all__ = ["Dataflow", "final_output"]


class Dataflow:
    """Folds the outcomes of nodes, one by one, into what is ready.

    A node is *settled* once it has an output or never will have one in this round; then it is
    *absent*. It becomes ready when all its parents are settled, exactly once a round. A node that
    only runs on demand and was not asked for is settled when nothing else can happen any more,
    so that what joins it waits neither too short nor for ever.

    Attributes:
        graph: What is run.
        size: How many nodes it has.
        outputs: The outputs that there are, by node.
        previous: The last output of each actor, by its name, also from earlier rounds.
        rounds: How often a Goto has reset a node.
        calls: The inputs of the Goto that began the present round of a node, by its target.
        running: The nodes that were taken and are not settled.
        unsettled: The nodes that have not come to anything in this round.
        stopping: The nodes of which an execution was cancelled and has not ended yet.
        ended: The End that finished the run, if one did.
    """

    def __init__(
        self, graph: Graph, supplied: Mapping[str, Any] | None = None, entry: str | None = None
    ) -> None:
        """Begin a run.

        Args:
            graph: What is to be run.
            supplied: Outputs, by node, that are there already; these nodes never run.
            entry: The only node to start from; what does not descend from it is absent.
        """
        self.graph = graph
        self.size = len(graph.nodes)
        self.outputs: dict[str, Any] = {}
        self.previous: dict[str, Any] = {}
        self.rounds = dict.fromkeys(graph.nodes, 0)
        self.calls: dict[str, Mapping[str, Any]] = {}
        self.running: set[str] = set()
        self.stopping: set[str] = set()
        self.ended: End | None = None
        self._supplied = dict(supplied or {})
        self.unsettled = set(graph.nodes) - set(self._supplied)
        self._idle = self.unsettled.intersection(graph.on_demand)
        self._is_halted = False
        self._ready: deque[str] = deque()
        for name, value in self._supplied.items():
            self._keep(name, value)
        self._begin(entry)

    def _begin(self, entry: str | None) -> None:
        if entry is None:
            if self._supplied or self._idle:
                self._waits = {name: self._count(name) for name in self.graph.nodes}
            else:
                self._waits = dict(self.graph.counts)
            self._ready.extend(
                name for name, left in self._waits.items() if not left and name in self.unsettled
            )
        else:
            self._waits = dict.fromkeys(self.graph.nodes, 0)
            self.unsettled.clear()
            self._idle.clear()
            self._reset(Goto(entry))
            self.rounds.update(dict.fromkeys(self.rounds, 0))

    @property
    def ready(self) -> tuple[str, ...]:
        """The nodes that may be taken, in this order."""
        return tuple(self._ready)

    @property
    def is_over(self) -> bool:
        """Whether nothing can happen any more; a cancelled execution may still be ending."""
        return self.ended is not None or not self.unsettled

    def take(self) -> str | None:
        """Take what has been ready for longest, which then counts as running; None if nothing is."""
        if not self.count_ready():
            return None
        name = self._ready.popleft()
        self.running.add(name)
        return name

    @property
    def first_ready(self) -> str | None:
        """What has been ready for longest; what only runs on demand is left aside."""
        return self._ready[0] if self._ready else None

    def complete(self, name: str, output: Any) -> None:
        """Take what is ready first, and settle it at once by its output."""
        node = self.graph.nodes[self._ready.popleft()]
        self.outputs[name] = self.previous[node.actor.name] = output
        self._settle(name)

    def count_ready(self) -> int:
        """Return how many nodes may be taken."""
        if self._idle:
            self.rest()
        return len(self._ready)

    def count_idle(self) -> int:
        """Return how many nodes only run on demand, and were not asked for."""
        return len(self._idle)

    def rest(self) -> None:
        """Settle what only runs on demand, once nothing else can happen any more."""
        while self._idle and not (self._ready or self.running or self.stopping):
            self._release()

    def is_ready(self, name: str, number: int) -> bool:
        """Whether a node may be taken, in this round."""
        return name in self._ready and self.rounds[name] == number

    def route(self, outcome: Goto | End) -> tuple[str, ...]:
        """Follow what an actor came to that is no node of the graph; return what `fold` does."""
        return self._end(outcome) if isinstance(outcome, End) else self._reset(outcome)

    def fold(self, name: str, outcome: Outcome) -> tuple[str, ...]:
        """Settle a node, or follow its Goto or End; also of one that was not taken, but recorded earlier.

        Returns:
            The nodes whose running executions must be cancelled; `stopped` is due for each.
        """
        if name in self.running:
            self.running.remove(name)
        elif name in self._ready:
            self._ready.remove(name)
        if type(outcome) is Output:  # nearly always
            self.outputs[name] = self.previous[self.graph.nodes[name].actor.name] = outcome.value
            self._settle(name)
            return ()
        if isinstance(outcome, Goto):
            return self._go(name, outcome)
        if isinstance(outcome, (Output, End)):
            self._keep(name, outcome.value if isinstance(outcome, Output) else outcome.output)
        if isinstance(outcome, End):
            self.unsettled.discard(name)
            return self._end(outcome)
        self._settle(name)
        return ()

    def stopped(self, name: str) -> None:
        """Note that a cancelled execution has ended."""
        self.stopping.discard(name)
        waiting = self.unsettled.difference(self._ready)
        self._ready.extend(each for each in self.graph.nodes if each in waiting and self._may_start(each))

    def halt(self) -> tuple[str, ...]:
        """Let nothing start any more; return what is running, as `fold` does."""
        self._is_halted = True
        self._ready.clear()
        self._idle.clear()
        running = tuple(name for name in self.graph.nodes if name in self.running)
        self.running.clear()
        self.stopping.update(running)
        return running

    def _keep(self, name: str, value: Any) -> None:
        self.outputs[name] = self.previous[self.graph.nodes[name].actor.name] = value

    def _settle(self, name: str) -> None:
        self.unsettled.discard(name)
        waits = self._waits
        for child in self.graph.nodes[name].children:
            left = waits[child] = waits[child] - 1
            if not left and self._may_start(child):
                self._ready.append(child)

    def _may_start(self, name: str) -> bool:
        if self._waits[name] or self._is_halted or name not in self.unsettled or name in self.running:
            return False
        # what descends from a node can only be still ending if the node was reset while it ran
        return not self.stopping or self.stopping.isdisjoint(self.graph.closure(name))

    def _count(self, name: str) -> int:
        parents = self.graph.nodes[name].parents
        return len(self.unsettled.intersection(parents)) + (name in self._idle)

    def _release(self) -> None:
        """Settle what nobody asked for, if it waits for nothing else.

        What follows one of them may yet go to another, so the others are left.
        """
        for name in [each for each in self.graph.nodes if each in self._idle and self._waits[each] == 1]:
            self._idle.discard(name)
            self._settle(name)

    def _go(self, source: str, goto: Goto) -> tuple[str, ...]:
        cancelled = self._reset(goto)
        if source not in self.graph.closure(goto.target):
            self._settle(source)
        return cancelled

    def _reset(self, goto: Goto) -> tuple[str, ...]:
        affected = [name for name in self.graph.reset_by(goto.target) if name not in self._supplied]
        cancelled = tuple(name for name in affected if name in self.running)
        self.running.difference_update(cancelled)
        self.stopping.update(cancelled)
        if self._ready:
            reached = self.graph.closure(goto.target)
            self._ready = deque(name for name in self._ready if name not in reached)
        self._forget(affected)
        self._idle.discard(goto.target)
        if goto.target in self.unsettled:
            self.calls[goto.target] = goto.inputs
        self._waits.update((name, self._count(name)) for name in affected)
        self._ready.extend(name for name in affected if self._may_start(name))
        return cancelled

    def _forget(self, affected: list[str]) -> None:
        for name in affected:
            self.rounds[name] += 1
            self.outputs.pop(name, None)
            self.calls.pop(name, None)
            self.unsettled.add(name)
            if self.graph.nodes[name].actor.on_demand:
                self._idle.add(name)

    def _end(self, end: End) -> tuple[str, ...]:
        self.ended = end
        return self.halt()


def final_output(flow: Dataflow, wanted: str | tuple[str, ...] | None) -> Any:
    """Return the final output of a run.

    Args:
        flow: What has happened.
        wanted: The actor whose output it is, or several for a dict by name. None stands for those
            that nothing follows; in static mode for the last that was not skipped. An End wins.
    """
    if flow.ended is not None:
        return flow.ended.output
    if isinstance(wanted, str):
        return _by_actor(flow).get(wanted)
    if wanted is not None:
        found = _by_actor(flow)
        return {name: found[name] for name in wanted if name in found}
    candidates = flow.graph.nodes if flow.graph.mode is GraphMode.STATIC else flow.graph.sinks
    outputs = {name: flow.outputs[name] for name in candidates if name in flow.outputs}
    if flow.graph.mode is GraphMode.DYNAMIC and len(outputs) > 1:
        return outputs
    return next(reversed(outputs.values()), None)


def _by_actor(flow: Dataflow) -> dict[str, Any]:
    """Return the outputs by actor; where one stands in a static order twice, the last counts."""
    nodes = flow.graph.nodes
    return {node.actor.name: flow.outputs[name] for name, node in nodes.items() if name in flow.outputs}
