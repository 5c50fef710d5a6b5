"""The dataflow against a model that recomputes everything from sets."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.core.orchestration import Actor, End, Goto, Graph, GraphMode, Output
from jotty.core.orchestration.dataflow import Dataflow, final_output
from jotty.core.orchestration.outcome import Failed, Outcome, Skipped


async def _nothing(**inputs: Any) -> None: ...


def graph_of(parents: dict[str, list[str]], on_demand: frozenset[str] = frozenset()) -> Graph:
    actors = [
        Actor(name=name, call=_nothing, depends_on=above, on_demand=name in on_demand)
        for name, above in parents.items()
    ]
    return Graph.build(actors, context=())


@st.composite
def graphs(draw: st.DrawFn, *, may_be_on_demand: bool = True) -> Graph:
    """Acyclic graphs of up to seven nodes, given in any order, some of them on demand."""
    names = [f"n{at}" for at in range(draw(st.integers(1, 7)))]
    above = {name: [each for each in names[:at] if draw(st.booleans())] for at, name in enumerate(names)}
    shuffled = draw(st.permutations(names))
    chances = [False, False, False, may_be_on_demand]
    on_demand = frozenset(name for name in names if draw(st.sampled_from(chances)))
    return graph_of({name: above[name] for name in shuffled}, on_demand)


@attrs.define
class Model:
    """The same rules as the dataflow's, by brute force."""

    graph: Graph
    supplied: frozenset[str] = frozenset()
    settled: set[str] = attrs.Factory(set)
    running: set[str] = attrs.Factory(set)
    stopping: set[str] = attrs.Factory(set)
    idle: set[str] = attrs.Factory(set)
    has_ended: bool = False

    def __attrs_post_init__(self) -> None:
        self.settled |= self.supplied
        self.idle = {name for name, node in self.graph.nodes.items() if node.actor.on_demand} - self.supplied

    def below(self, name: str) -> set[str]:
        children = {each for each, node in self.graph.nodes.items() if name in node.parents}
        return {name}.union(*(self.below(child) for child in children))

    def has_parents_settled(self, name: str) -> bool:
        return set(self.graph.nodes[name].parents) <= self.settled

    def ready(self) -> set[str]:
        unstarted = set(self.graph.nodes) - self.settled - self.running - self.idle
        found = {name for name in unstarted if self.has_parents_settled(name)}
        blocked = {name for name in found if self.below(name) & self.stopping}
        return set() if self.has_ended else found - blocked

    def release(self) -> None:
        while self.idle and not (self.ready() or self.running or self.stopping or self.has_ended):
            free = {name for name in self.idle if self.has_parents_settled(name)}
            self.settled |= free
            self.idle -= free

    def go(self, source: str, target: str) -> set[str]:
        affected = self.below(target) - self.supplied
        cancelled = affected & self.running
        self.running -= cancelled
        self.stopping |= cancelled
        self.settled -= affected
        self.idle |= {name for name in affected if self.graph.nodes[name].actor.on_demand} - {target}
        self.idle -= {target}
        if source not in self.below(target):
            self.settled.add(source)
        return cancelled


@given(graphs(), st.data())
def test_readiness_is_what_the_parents_of_each_node_say(graph: Graph, data: st.DataObject) -> None:
    supplied = frozenset(name for name in graph.nodes if data.draw(st.sampled_from([False, False, True])))
    flow, model = Dataflow(graph, dict.fromkeys(supplied, "given")), Model(graph, supplied)
    for _ in range(60):
        assert model.ready() == set(flow.ready)
        assert len(flow.ready) == len(set(flow.ready))
        assert (model.running, model.stopping) == (flow.running, flow.stopping)
        assert model.settled == (set(flow.graph.nodes) - flow.unsettled)
        if not _step(flow, model, data):
            break


def _step(flow: Dataflow, model: Model, data: st.DataObject) -> bool:
    """Do one thing that a run may do; false if there is none."""
    model.release()
    taken = flow.take()
    if taken is not None:
        model.running.add(taken)
    choices = [("settle", name) for name in sorted(model.running)]
    choices += [("stopped", name) for name in sorted(model.stopping)]
    if not choices:
        return False
    action, name = data.draw(st.sampled_from(choices))
    if action == "stopped":
        flow.stopped(name)
        model.stopping.discard(name)
    else:
        _finish(flow, model, name, data)
    return True


def _finish(flow: Dataflow, model: Model, name: str, data: st.DataObject) -> None:
    targets: list[Outcome] = [Goto(each) for each in flow.graph.nodes]
    ends: list[Outcome] = [Output(name), Output(name), Skipped(""), Failed(ValueError())]
    outcome: Outcome = data.draw(st.sampled_from([*ends, *targets, End(name)]))
    cancelled = set(flow.fold(name, outcome))
    model.running.discard(name)
    if isinstance(outcome, Goto):
        assert model.go(name, outcome.target) == cancelled
    elif isinstance(outcome, End):
        assert model.running == cancelled
        model.has_ended = True
        model.settled.add(name)
        model.stopping |= model.running
        model.running.clear()
        model.idle.clear()
    else:
        model.settled.add(name)


@given(graphs())
def test_without_routing_everything_settles_and_what_nobody_asks_for_does_not_run(graph: Graph) -> None:
    flow, taken = Dataflow(graph), []
    while (name := flow.take()) is not None:
        taken.append(name)
        flow.fold(name, Output(name))

    wanted = [name for name, node in graph.nodes.items() if not node.actor.on_demand]
    assert sorted(wanted) == sorted(taken)
    assert flow.is_over
    assert dict(zip(taken, taken, strict=True)) == flow.outputs


@given(graphs(may_be_on_demand=False), st.data())
def test_recorded_outcomes_fold_to_where_running_them_led(graph: Graph, data: st.DataObject) -> None:
    first, second, records = Dataflow(graph), Dataflow(graph), list[tuple[str, Outcome]]()
    for _ in range(data.draw(st.integers(0, 12))):
        name = first.take()
        if name is None:
            break
        ends: list[Outcome] = [Output(name), Skipped(""), *(Goto(each) for each in graph.nodes)]
        outcome = data.draw(st.sampled_from(ends))
        first.fold(name, outcome)
        records.append((name, outcome))
    for name, outcome in records:
        second.fold(name, outcome)

    assert first.outputs == second.outputs
    assert first.rounds == second.rounds
    assert first.unsettled == second.unsettled
    assert first.ready == second.ready


@given(graphs())
def test_nodes_are_taken_after_their_parents(graph: Graph) -> None:
    flow, place = Dataflow(graph), dict[str, int]()
    while (name := flow.take()) is not None:
        place[name] = len(place)
        flow.fold(name, Output(None))

    edges = [(parent, name) for name, node in graph.nodes.items() for parent in node.parents]
    assert [] == [
        edge for edge in edges if edge[0] in place and edge[1] in place and place[edge[0]] > place[edge[1]]
    ]


def test_goto_forgets_outputs_of_descendants_and_keeps_the_others() -> None:
    flow = Dataflow(graph_of({"a": [], "b": ["a"], "c": ["b"], "d": ["a"]}))
    for name in ("a", "b", "d"):
        assert name in flow.ready
        _take(flow, name)
        flow.fold(name, Output(name))
    _take(flow, "c")
    flow.fold("c", Goto("b", note="again"))

    assert {"a": "a", "d": "d"} == flow.outputs
    assert ("b",) == flow.ready
    assert {"note": "again"} == flow.calls["b"]
    assert {"a": 0, "b": 1, "c": 1, "d": 0} == flow.rounds
    assert "b" == flow.previous["b"]


def _take(flow: Dataflow, wanted: str) -> None:
    while flow.take() != wanted:
        pass


def test_target_waits_for_the_end_of_cancelled_descendants() -> None:
    flow = Dataflow(graph_of({"a": [], "b": ["a"], "r": []}))
    _take(flow, "r")
    flow.running.add("a")
    flow.fold("a", Output(1))
    _take(flow, "b")

    assert ["b"] == list(flow.fold("r", Goto("a")))
    assert [] == list(flow.ready)
    flow.stopped("b")
    assert ["a"] == list(flow.ready)


def test_a_second_goto_replaces_the_first_that_has_not_begun() -> None:
    flow = Dataflow(graph_of({"a": [], "b": ["a"], "r": [], "s": []}))
    for name in ("a", "r", "s"):
        assert name == flow.take()
    flow.fold("r", Goto("b", n=1))
    flow.fold("s", Goto("b", n=2))

    assert {"b": {"n": 2}} == flow.calls
    flow.fold("a", Output(None))
    assert ("b",) == flow.ready


def test_goto_of_an_ancestor_takes_the_inputs_of_a_pending_goto_away() -> None:
    flow = Dataflow(graph_of({"a": [], "b": ["a"], "r": [], "s": []}))
    for name in ("a", "r", "s"):
        assert name == flow.take()
    flow.fold("r", Goto("b", n=1))
    flow.fold("s", Goto("a"))

    assert {"a": {}} == flow.calls


def test_entry_makes_everything_else_absent() -> None:
    flow = Dataflow(graph_of({"a": [], "b": ["a"], "c": ["b"], "d": []}), entry="b")

    assert ("b",) == flow.ready
    flow.take()
    flow.fold("b", Output(1))
    assert "c" == flow.take()
    flow.fold("c", Output(2))
    assert flow.is_over
    assert {"b": 1, "c": 2} == flow.outputs
    assert {0} == set(flow.rounds.values())


def test_nothing_starts_after_a_halt() -> None:
    flow = Dataflow(graph_of({"a": [], "b": [], "c": ["a"]}))
    flow.take()

    assert ("a",) == flow.halt()
    flow.stopped("a")
    assert flow.take() is None


def _settled(
    parents: dict[str, list[str]], outputs: dict[str, Any], mode: GraphMode = GraphMode.DYNAMIC
) -> Dataflow:
    actors = [Actor(name=name, call=_nothing, depends_on=above) for name, above in parents.items()]
    flow = Dataflow(Graph.build(actors, context=(), mode=mode))
    while (name := flow.take()) is not None:
        flow.fold(name, Output(outputs[name]) if name in outputs else Skipped(""))
    return flow


@pytest.mark.parametrize(
    ("outputs", "wanted", "expected"),
    [
        ({"a": 1, "b": 2, "c": 3}, None, {"b": 2, "c": 3}),
        ({"a": 1, "c": 3}, None, 3),
        ({"a": 1}, None, None),
        ({"a": 1, "b": 2}, "a", 1),
        ({"b": 2}, "a", None),
        ({"a": 1, "b": 2}, ("a", "b", "c"), {"a": 1, "b": 2}),
        ({"a": 1}, ("a",), {"a": 1}),
    ],
)
def test_final_output_is_that_of_the_wanted_or_of_the_sinks_that_ran(
    outputs: dict[str, int], wanted: Any, expected: Any
) -> None:
    flow = _settled({"a": [], "b": ["a"], "c": ["a"]}, outputs)

    assert expected == final_output(flow, wanted)


@pytest.mark.parametrize(("outputs", "expected"), [({"a": 1, "b": 2}, 2), ({"a": 1}, 1), ({}, None)])
def test_final_output_of_a_static_run_is_the_last_that_was_not_skipped(
    outputs: dict[str, int], expected: Any
) -> None:
    flow = _settled({"a": [], "b": []}, outputs, GraphMode.STATIC)

    assert expected == final_output(flow, None)
