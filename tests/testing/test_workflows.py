"""`run_workflow`, `replace_actor` and the scripts that both take."""

from __future__ import annotations

import gc
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty import (
    ActorContext,
    Conductor,
    End,
    Goto,
    GraphOrchestrator,
    Output,
    Question,
    WorkflowMode,
    actor,
)
from jotty.core.queue import MemoryTaskQueue, RetryPolicy
from jotty.errors import GraphError, InputRequired, TaskFailed
from jotty.testing import (
    UnscriptedCall,
    VirtualClock,
    json_values,
    raising,
    replace_actor,
    returning,
    run_workflow,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

pytestmark = pytest.mark.filterwarnings("error")
EXECUTIONS = pytest.mark.parametrize("execution", ["sync", "async"])


@actor
async def research(goal: str, quarter: str = "Q1") -> Any:
    raise NotImplementedError("this one asks the network")


@actor(retries=1, backoff=60)
async def write(research: Any, feedback: str = "") -> Any:
    return f"{research} {feedback}".strip()


@actor
def review(write: Any) -> Any:
    return f"reviewed {write}"


def conductor(**settings: Any) -> Conductor:
    return Conductor([research, write, review], **settings)


def told(events: list[Any]) -> list[tuple[str, str | None]]:
    return [(event["type"], event.get("agent")) for event in events]


@EXECUTIONS
def test_scripted_actors_answer_and_the_others_run(execution: Any) -> None:
    run = run_workflow(conductor(), "Report", script={"research": "facts"}, execution=execution)

    assert "reviewed facts" == run.final_output
    assert {"research": "facts", "write": "facts", "review": "reviewed facts"} == run.outputs
    assert ["research", "write", "review"] == run.path
    assert run.error is None


@EXECUTIONS
def test_each_call_gets_the_next_answer_of_a_list(execution: Any) -> None:
    script = {
        "research": "facts",
        write: [raising(ValueError("too short")), "first", "second"],
        "review": [Goto("write", feedback="more"), "fine"],
    }

    run = run_workflow(conductor(), "Report", {"quarter": "Q4"}, script=script, execution=execution)

    assert "fine" == run.final_output
    assert [{"goal": "Report", "quarter": "Q4"}] == run.calls["research"]
    assert [{}, {}, {"feedback": "more"}] == [_without(call, "research") for call in run.calls["write"]]
    assert [{"write": "first"}, {"write": "second"}] == run.calls["review"]
    assert 30 <= run.seconds <= 120


def _without(call: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in call.items() if key != name}


@settings(max_examples=30, deadline=None)
@given(st.lists(json_values(max_leaves=4), min_size=3, max_size=3), st.integers(0, 3))
def test_now_and_through_a_queue_the_same_happens(outputs: list[Any], failures: int) -> None:
    def script() -> Mapping[Any, Any]:
        answers = [returning(output) for output in outputs]
        return {
            "research": answers[:1],
            "write": [*[raising(OSError("busy"))] * failures, *answers[1:2]],
            "review": answers[2:],
        }

    now = run_workflow(conductor(), script=script(), check=False)
    later = run_workflow(conductor(), script=script(), check=False, execution="async")

    assert told(now.events) == told(later.events)
    assert now.calls == later.calls
    assert now.path == later.path
    assert (failures > 1) == (now.error is not None) == (later.error is not None)
    assert [(each["type"], each["agent"]) for each in now.result["errors"]] == [
        (each["type"], each["agent"]) for each in later.result["errors"]
    ]
    assert now.outputs == later.outputs
    assert not failures > 1 or isinstance(later.error, TaskFailed)


@pytest.mark.parametrize(
    "answer", [ValueError("no"), raising(ValueError("no")), ValueError, raising(ValueError)]
)
def test_an_exception_is_raised(answer: Any) -> None:
    with pytest.raises(ValueError, match="Raised by actor 'research', attempt 1") as caught:
        run_workflow(conductor(), script={"research": answer})

    assert ValueError is type(caught.value)


@EXECUTIONS
def test_a_failure_may_be_looked_at(execution: Any) -> None:
    script = {"research": "facts", "write": KeyError("x")}

    run = run_workflow(conductor(), script=script, execution=execution, check=False)

    assert {"sync": KeyError, "async": TaskFailed}[execution] is type(run.error)
    assert {"research": "facts"} == run.outputs
    assert ["KeyError"] == [error["type"] for error in run.result["errors"]]
    assert "agent_error" in [event["type"] for event in run.events]


def test_an_end_and_an_output_mean_what_they_mean_in_a_run() -> None:
    run = run_workflow(conductor(), script={"research": Output(["a"]), "write": End("enough")})

    assert (["a"], "enough") == (run.outputs["research"], run.final_output)


def test_returning_gives_what_would_be_taken_for_a_script() -> None:
    run = run_workflow(conductor(), script={"research": returning(["a", "b"]), "review": returning(print)})

    assert ["a", "b"] == run.outputs["research"]
    assert print is run.final_output


def test_functions_get_what_they_ask_for_and_the_graph_stays_as_it_is() -> None:
    async def shout(goal: str, ctx: ActorContext, tone: str) -> str:
        ctx.usage(cost=2.0)
        return f"{goal.upper()}{tone}"

    async def stream() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    script = {"research": shout, "write": stream, "review": [lambda write: anyio_value(write * 2)]}
    run = run_workflow(conductor(), "hi", {"tone": "!"}, script=script)

    assert {"research": "HI!", "write": "ab", "review": "abab"} == run.outputs
    assert ["a", "b"] == [event["text"] for event in run.events if event["type"] == "text_chunk"]
    assert 2.0 == run.result["metadata"]["usage"]["cost"]
    assert [{"research": "HI!"}] == run.calls["write"]


async def anyio_value(value: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    return value


def test_agents_and_renamed_parameters_can_be_scripted() -> None:
    class Agent:
        name = "agent"

        async def run(self, prompt: str) -> str:
            raise NotImplementedError

    seen: list[Any] = []

    @actor(bind={"told": "agent", "where": "ctx"})
    async def last(told: str, where: ActorContext) -> str:
        raise NotImplementedError

    def fake(told: str, ctx: ActorContext) -> str:
        seen.append(ctx.actor)
        return told * 2

    run = run_workflow([Agent(), last], "goal", script={"agent": "x", "last": fake})

    assert ("xx", ["last"]) == (run.final_output, seen)
    assert {"agent": [{"goal": "goal"}], "last": [{"told": "x"}]} == run.calls


def test_a_scripted_actor_keeps_its_timeout_its_condition_and_its_retries() -> None:
    clock = VirtualClock()

    @actor(timeout=5, retries=1, backoff=1, when=lambda goal: goal == "go")
    async def slow(goal: str) -> str:
        raise NotImplementedError

    async def takes_long() -> str:
        await clock.sleep(60)
        return "late"

    run = run_workflow([slow], "go", script={"slow": [takes_long, "quick"]}, clock=clock)
    skipped = run_workflow([slow], "stop", script={"slow": []})

    assert "quick" == run.final_output
    assert ["agent_skipped"] == [event["type"] for event in skipped.events if "agent" in event]


@EXECUTIONS
def test_a_script_that_does_not_suffice_is_an_error_whatever_the_workflow_makes_of_it(execution: Any) -> None:
    with pytest.raises(UnscriptedCall, match=r"1 answer for 'write', which was called once more") as caught:
        run_workflow(
            conductor(on_error="continue"),
            script={"research": "facts", "write": [ValueError("x")]},
            execution=execution,
            check=False,
        )

    assert ("write", 1) == (caught.value.actor, caught.value.answers)


def test_a_script_for_nobody_names_those_that_there_are() -> None:
    with pytest.raises(LookupError, match=r"no actor 'wirte'. There are: research, write, review"):
        run_workflow(conductor(), script={"wirte": "x"})


def test_a_week_of_retries_takes_no_time() -> None:
    with anyio.from_thread.start_blocking_portal():
        policy = RetryPolicy(delay=timedelta(days=7).total_seconds(), cap=1e9, jitter=0)
        script = {"research": [OSError("down"), OSError("down"), "facts"]}
        run = run_workflow(conductor(), script=script, execution="async", max_attempts=3, retry=policy)

    assert "reviewed facts" == run.final_output
    assert run.task is not None
    assert (3, 21) == (run.task.attempt, round(run.seconds / 86_400))


def test_the_workflow_and_its_queue_are_left_alone() -> None:
    theirs = MemoryTaskQueue()
    workflow = WorkflowMode(conductor(task_queue=theirs), execution="async")
    before = vars(workflow.conductor).copy()

    run = run_workflow(workflow, script={"research": "facts"})

    assert "reviewed facts" == run.final_output
    assert before == vars(workflow.conductor)
    assert {} == anyio.run(theirs.backend.count)


def test_a_static_workflow_keeps_its_order_and_another_orchestrator_its_place() -> None:
    order = ["research", "write"]
    static = WorkflowMode(conductor(), mode="static", agent_order=order)
    other = GraphOrchestrator(conductor(), "static", order)

    assert order == run_workflow(static, script={"research": "x"}).path
    assert order == run_workflow(WorkflowMode(conductor(), orchestrator=other), script={"research": "x"}).path

    class Other:
        async def run(self, goal: str, context: Any, max_iterations: int) -> Any:
            raise NotImplementedError

        async def run_stream(self, goal: str, context: Any, max_iterations: int) -> Any:
            result = {
                "success": True,
                "final_output": goal,
                "actor_outputs": {},
                "errors": [],
                "metadata": {},
            }
            yield {"type": "workflow_complete", "result": result}

    foreign = WorkflowMode(conductor(), orchestrator=Other())

    assert "goal" == run_workflow(foreign, "goal").final_output
    with pytest.raises(ValueError, match="own orchestrator"):
        run_workflow(foreign, "goal", script={"research": "x"})


@EXECUTIONS
def test_resources_may_be_replaced(execution: Any) -> None:
    @asynccontextmanager
    async def true() -> AsyncIterator[str]:
        raise NotImplementedError
        yield

    @asynccontextmanager
    async def fake() -> AsyncIterator[str]:
        yield "fake"

    @actor
    async def fetch(http: str) -> str:
        return http

    workflow = Conductor([fetch], resources={"http": true})

    assert "fake" == run_workflow(workflow, resources={"http": fake}, execution=execution).final_output


def test_options_of_a_queue_need_one() -> None:
    with pytest.raises(TypeError, match="delay: options of a queue go with execution='async'"):
        run_workflow(conductor(), delay=1)
    with pytest.raises(TypeError, match="not 'research'"):
        run_workflow("research")
    with pytest.raises(GraphError, match="quarters"):
        run_workflow([actor(lambda quarters: quarters, name="a")])


@pytest.mark.parametrize("status", ["backlog", "suggested"])
def test_what_never_runs_is_told_at_the_time_limit(status: str) -> None:
    with pytest.raises(TimeoutError, match=f"{status}"):
        run_workflow(conductor(), script={"research": "x"}, execution="async", status=status)


def test_an_endless_actor_meets_the_time_limit() -> None:
    clock = VirtualClock()

    with pytest.raises(TimeoutError, match="60 virtual seconds"):
        run_workflow(conductor(), script={"research": lambda: clock.sleep(1e6)}, clock=clock, time_limit=60.0)


@pytest.mark.anyio
@EXECUTIONS
async def test_in_an_async_test_it_is_awaited(execution: Any) -> None:
    run = await run_workflow(conductor(), script={"research": "facts"}, execution=execution)

    assert "reviewed facts" == run.final_output
    assert run is await run
    with pytest.raises({"sync": ValueError, "async": TaskFailed}[execution], match="no"):
        await run_workflow(conductor(), script={"research": ValueError("no")}, execution=execution)


@pytest.mark.anyio
async def test_what_was_not_awaited_says_so() -> None:
    run = run_workflow(conductor(), script={"research": "facts"})
    with pytest.raises(RuntimeError, match=r"write: await run_workflow\(\.\.\.\)"):
        _ = run.final_output
    del run
    with pytest.warns(RuntimeWarning, match="never awaited"):
        gc.collect()


@pytest.mark.anyio
async def test_a_run_within_a_test_that_jumps_already_comes_to_its_end() -> None:
    clock = VirtualClock()
    with anyio.fail_after(20):
        async with clock.autojump():
            run = await run_workflow(
                conductor(), script={"research": "x", "write": [OSError(), "y"]}, clock=clock
            )

    assert "reviewed y" == run.final_output


def test_an_actor_is_replaced_and_put_back() -> None:
    theirs = conductor()
    workflow = WorkflowMode(theirs)
    with replace_actor(workflow, "research", ["facts"]) as stand_in, replace_actor(theirs, review, "ok"):
        assert "ok" == anyio.run(workflow.execute, "go")["final_output"]

    assert [{"goal": "go"}] == stand_in.calls
    assert (research, write, review) == theirs.actors


def test_nested_replacements_are_undone_in_any_order() -> None:
    theirs = conductor()
    outer, inner = replace_actor(theirs, "research", "a"), replace_actor(theirs, "research", "b")
    with outer, inner:
        assert "b" == anyio.run(theirs.run, "go")["actor_outputs"]["research"]

    assert (research, write, review) == theirs.actors


def test_replacing_reports_a_script_that_did_not_suffice_and_an_unknown_actor() -> None:
    theirs = conductor(on_error="continue")
    with pytest.raises(UnscriptedCall), replace_actor(theirs, "research", []):
        assert not anyio.run(theirs.run, "go")["success"]
    with (
        pytest.raises(LookupError, match="There are: research, write, review"),
        replace_actor(theirs, "x", 1),
    ):
        pass

    assert (research, write, review) == theirs.actors


def test_an_error_of_the_test_wins_over_that_of_the_script() -> None:
    with pytest.raises(ZeroDivisionError), replace_actor(conductor(on_error="continue"), "research", []):
        raise ZeroDivisionError


# Questions


@actor
async def approve(goal: str, ctx: ActorContext) -> list[str]:
    answer = await ctx.ask(f"Send {goal}?", options=["yes", "no"])
    late = await ctx.ask("Any remark?", key="remark", timeout=3600, default="none")
    return [answer, late]


@EXECUTIONS
def test_questions_are_answered_by_their_keys(execution: Any) -> None:
    run = run_workflow([approve], "it", execution=execution, answers={"approve": "yes", "remark": "fine"})

    assert ["yes", "fine"] == run.final_output


@EXECUTIONS
def test_questions_are_answered_by_a_function(execution: Any) -> None:
    asked: list[Any] = []

    async def answer(question: Question) -> str:
        asked.append((question.agent, question.question, question.options))
        return "no"

    run = run_workflow([approve], "it", execution=execution, answers=answer)

    assert ["no", "no"] == run.final_output
    assert [("approve", "Send it?", ["yes", "no"]), ("approve", "Any remark?", None)] == asked


@EXECUTIONS
def test_a_question_without_an_answer_is_told(execution: Any) -> None:
    with pytest.raises(InputRequired, match="Send it"):
        run_workflow([approve], "it", execution=execution)


def test_a_question_that_expires_needs_no_answer_in_a_queue() -> None:
    run = run_workflow([approve], "it", execution="async", answers={"approve": "yes"})

    assert ["yes", "none"] == run.final_output
    assert 3600 <= run.seconds < 3700


@EXECUTIONS
def test_outputs_stand_in_for_actors(execution: Any) -> None:
    run = run_workflow([research, edit], execution=execution, outputs={"research": "found"})

    assert "found!" == run.final_output


@actor
async def edit(research: str) -> str:
    return f"{research}!"
