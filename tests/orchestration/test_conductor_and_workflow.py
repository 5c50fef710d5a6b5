from __future__ import annotations

from typing import Any

import pytest

from jotty.core.orchestration import (
    Conductor,
    Graph,
    GraphMode,
    GraphOrchestrator,
    Limit,
    Resource,
    RunStream,
    WorkflowMode,
    actor,
    scoped,
)
from jotty.errors import GraphError

pytestmark = pytest.mark.anyio


@actor
async def first(goal: str, year: int) -> str:
    return f"{goal} {year}"


@actor
async def second(first: str) -> str:
    return first + "!"


async def plain() -> str:
    return "plain"


class Other:
    """An orchestrator of another make."""

    def __init__(self, *, ends: bool = True) -> None:
        self.calls: list[Any] = []
        self.is_closed = False
        self._ends = ends

    async def run(self, goal: str, context: Any, max_iterations: int) -> Any:
        self.calls.append((goal, context, max_iterations))
        return {"final_output": goal.upper()}

    async def run_stream(self, goal: str, context: Any, max_iterations: int) -> Any:
        try:
            yield {"type": "workflow_start"}
            if self._ends:
                yield {"type": "workflow_complete", "result": {"final_output": goal.upper()}}
        finally:
            self.is_closed = True


async def test_functions_become_actors() -> None:
    conductor = Conductor([plain, second, first])

    assert ["plain", "second", "first"] == [each.name for each in conductor.actors]
    assert "Conductor('default': plain, second, first)" == repr(conductor)


@pytest.mark.parametrize(
    ("actors", "settings", "kind", "said"),
    [
        ([], {}, ValueError, "at least one actor"),
        ([plain, plain], {}, GraphError, "Two actors are named 'plain'"),
        ([actor(plain, name="goal")], {}, GraphError, "can't be named 'goal'"),
        ([3], {}, TypeError, "3"),
        ([plain], {"name": ""}, ValueError, "name must be 1 to 200 printable"),
        ([plain], {"on_error": "ignore"}, ValueError, "on_error must be 'raise' or 'continue'"),
        ([plain], {"max_parallel": 0}, ValueError, "max_parallel"),
        ([plain], {"max_parallel": True}, ValueError, "max_parallel"),
        ([plain], {"resources": {"plain": 1}}, GraphError, "'plain' has the name of an actor"),
        ([plain], {"resources": {"ctx": 1}}, GraphError, "'ctx' has the name of a reserved name"),
        ([plain], {"limits": {"x": 3}}, TypeError, "'x' must be a Limit"),
        (
            [plain],
            {"output": "plane"},
            GraphError,
            "output names 'plane', which is no actor here.",
        ),
        ([plain], {"output": ["plain", "x"]}, GraphError, "output names 'x'"),
        (
            [actor(plain, limit="openai")],
            {"limits": {"other": Limit(concurrent=1)}},
            GraphError,
            "shares the limit 'openai', which this conductor has not. There are: other.",
        ),
    ],
)
def test_settings_that_can_not_be_meant_are_refused(
    actors: Any, settings: Any, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind) as caught:
        Conductor(actors, **settings)

    assert said in str(caught.value)


def test_a_limit_that_is_known_is_accepted() -> None:
    limits = {"openai": Limit(concurrent=1)}

    assert limits == Conductor([actor(plain, limit="openai")], limits=limits).limits


def test_a_resource_has_one_of_two_scopes() -> None:
    with pytest.raises(ValueError, match="scope"):
        Resource(dict, scope="task")  # type: ignore[arg-type]  # which is the point


def test_resources_are_told_apart_by_scope() -> None:
    per_run = Resource(dict, scope="run")  # type: ignore[arg-type]  # nothing is opened here
    resources = {"a": dict, "b": per_run, "c": Resource(dict), "d": 3}  # type: ignore[arg-type]

    assert {"b": per_run} == scoped(resources, "run")
    assert ["a", "c", "d"] == list(scoped(resources, "worker"))


def test_a_conductor_shows_its_graph() -> None:
    conductor = Conductor([second, first])

    assert {"second": ("first",), "first": ()} == _parents(conductor.graph())
    assert {"first": (), "second": ("first",)} == _parents(
        conductor.graph(mode="static", agent_order=["first", "second"])
    )
    with pytest.raises(GraphError, match="year"):
        conductor.graph({})


def _parents(graph: Graph) -> dict[str, tuple[str, ...]]:
    return {name: node.parents for name, node in graph.nodes.items()}


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"execution": "later"}, ValueError, "execution must be 'sync' or 'async', not 'later'."),
        ({"mode": "fast"}, ValueError, "mode must be 'static' or 'dynamic', not 'fast'."),
        ({"agent_order": ["first"]}, ValueError, "agent_order goes with mode='static'"),
        ({"mode": "static", "agent_order": []}, ValueError, "at least one"),
        ({"mode": "static", "agent_order": "first"}, ValueError, "must be a list"),
        (
            {"mode": "static", "agent_order": ["frist"]},
            GraphError,
            "agent_order names 'frist', which is no actor here. There are: first, second.",
        ),
        ({"max_concurrent": 0}, ValueError, "max_concurrent"),
        ({"poll_interval": 0}, ValueError, "poll_interval"),
        ({"execution": "async"}, ValueError, "needs a queue"),
        ({"orchestrator": object()}, TypeError, "has no run()"),
        ({"orchestrator": Other(), "mode": "static", "agent_order": ["first"]}, ValueError, "Leave it out"),
    ],
)
def test_a_workflow_that_can_not_be_meant_is_refused(settings: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind) as caught:
        WorkflowMode(Conductor([first, second]), **settings)

    assert said in str(caught.value)


async def test_a_workflow_runs_a_goal_now() -> None:
    workflow = WorkflowMode(Conductor([first, second]), execution="sync", mode="dynamic")
    result = await workflow.execute(goal="report", context={"year": 2026})

    assert "report 2026!" == result["final_output"]


async def test_a_workflow_streams_a_goal() -> None:
    workflow = WorkflowMode(Conductor([first, second]), mode=GraphMode.STATIC, agent_order=["first"])
    async with workflow.execute_stream("report", {"year": 2026}) as stream:
        types = [event["type"] async for event in stream]

    assert ["workflow_start", "agent_start", "agent_complete", "workflow_complete"] == types


async def test_outputs_and_resources_reach_the_run() -> None:
    @actor
    async def third(second: str, http: str) -> str:
        return second + http

    workflow = WorkflowMode(Conductor([first, second, third], resources={"http": dict}))
    options: Any = {"outputs": {"first": "f"}, "resources": {"http": "h"}}

    assert "f!h" == (await workflow.execute("g", {"year": 1}, **options))["final_output"]
    async with workflow.execute_stream("g", {"year": 1}, **options) as stream:
        assert "f!h" == (await stream.result())["final_output"]


async def test_another_orchestrator_can_take_the_place_of_ours() -> None:
    other = Other()
    workflow = WorkflowMode(Conductor([plain]), orchestrator=other)

    assert "GOAL" == (await workflow.execute("goal", {"a": 1}, 5))["final_output"]
    assert [("goal", {"a": 1}, 5)] == other.calls
    async with workflow.execute_stream("goal") as stream:
        types = [event["type"] async for event in stream]
        assert "GOAL" == (await stream.result())["final_output"]
    assert ["workflow_start", "workflow_complete"] == types
    assert other.is_closed


async def test_another_orchestrators_stream_is_passed_on_or_must_end_with_a_result() -> None:
    class Streams(Other):
        def run_stream(self, goal: str, context: Any, max_iterations: int) -> Any:
            return stream

    stream: RunStream[Any] = GraphOrchestrator(Conductor([plain])).run_stream("goal")
    workflow = WorkflowMode(Conductor([plain]), orchestrator=Streams())
    assert stream is workflow.execute_stream("goal")

    unended = WorkflowMode(Conductor([plain]), orchestrator=Other(ends=False))
    with pytest.raises(RuntimeError, match="workflow_complete"):
        await unended.execute_stream("goal").result()


@pytest.mark.parametrize(
    ("make", "given", "said"),
    [
        (Conductor, actor(plain, name="one"), "list of actors"),
        (Conductor, "one", "list of actors"),
        (Conductor, ["one"], "is a name, no actor"),
        (WorkflowMode, [plain], "takes a Conductor"),
    ],
)
def test_what_is_given_in_place_of_actors_is_told_apart(make: Any, given: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        make(given)
