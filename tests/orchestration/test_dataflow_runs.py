"""What actors get, when they run, and what a run gives."""

from __future__ import annotations

import contextvars
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty.core.orchestration import Conductor, Goto, Output, Resource, actor
from jotty.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jotty.testing import VirtualClock

    from .conftest import Watch

pytestmark = pytest.mark.anyio


@actor
async def research(goal: str, quarter: str) -> list[str]:
    return [goal, quarter]


@actor
async def write(research: list[str], feedback: str = "") -> str:
    return " ".join(research) + feedback


async def test_parameters_get_goal_context_and_outputs_by_name(watch: Watch) -> None:
    run = await watch(research, write, goal="report", context={"quarter": "Q4", "unused": 1})

    assert "report Q4" == run.output
    assert {"research": ["report", "Q4"], "write": "report Q4"} == run.outputs


async def test_the_result_says_everything_about_the_run(watch: Watch, clock: VirtualClock) -> None:
    started = clock.now() / 1e6

    @actor
    async def slow(goal: str) -> str:
        await clock.sleep(3)
        return goal

    run = await watch(slow, run_id="run-7")

    assert {
        "success": True,
        "final_output": "goal",
        "actor_outputs": {"slow": "goal"},
        "errors": [],
        "metadata": {
            "run_id": "run-7",
            "iterations": 1,
            "timings": {"started_at": started, "seconds": 3.0, "actors": {"slow": 3.0}},
            "path": ["slow"],
            "usage": {"input_tokens": 0, "output_tokens": 0, "cost": 0.0, "models": {}},
        },
    } == run.result


async def test_renames_positional_parameters_and_the_rest_are_bound(watch: Watch) -> None:
    @actor(bind={"draft": "write"}, depends_on=["research"])
    async def edit(draft: str, /, tone: str = "dry", **inputs: Any) -> Any:
        return draft, tone, inputs

    run = await watch(research, write, edit, goal="g", context={"quarter": "Q4", "year": 2026})

    assert ("g Q4", "dry", {"quarter": "Q4", "research": ["g", "Q4"], "year": 2026}) == run.output


async def test_a_rename_can_name_what_goes_into_the_rest(watch: Watch) -> None:
    @actor(bind={"facts": "research", "when": "quarter"})
    async def edit(**inputs: Any) -> Any:
        return inputs

    run = await watch(research, edit, goal="g", context={"quarter": "Q4"})

    assert {"facts": ["g", "Q4"], "when": "Q4"} == run.output


async def test_positional_parameters_that_are_absent_have_their_defaults(watch: Watch) -> None:
    @actor(when=lambda: False)
    async def draft() -> str:
        return "never"

    @actor
    async def edit(draft: str = "none", goal: str = "", /) -> Any:
        return draft, goal

    assert ("none", "g") == (await watch(draft, edit, goal="g")).output


async def test_an_agent_object_gets_one_prompt(watch: Watch) -> None:
    class Agent:
        name = "agent"

        async def run(self, prompt: str, *, loud: bool = False) -> str:
            return prompt.upper() if loud else f"<{prompt}>"

    class Nameless:
        name = None

        async def run(self, prompt: str) -> str:
            return f"({prompt})"

    run = await watch(
        Agent(),
        write,
        research,
        actor(Agent(), name="second", prompt="write"),
        actor(Agent(), name="third", prompt=lambda goal, write: f"{goal}/{write}"),
        actor(Nameless(), name="nameless"),
        actor(Agent().run, name="method", prompt="goal"),
        actor(Agent(), name="renamed", bind={"goal": "quarter"}),
        goal="g",
        context={"quarter": "Q4"},
    )

    assert {
        "agent": "<g>",
        "second": "<g Q4>",
        "third": "<g/g Q4>",
        "method": "<g>",
        "nameless": "(g)",
        "renamed": "<Q4>",
    } == run.output


async def test_plain_functions_run_in_threads_with_the_variables_of_the_run(watch: Watch) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
    user.set("ada")

    @actor
    def who(goal: str) -> str:
        found = user.get()
        user.set("changed")
        return found

    assert "ada" == (await watch(who)).output
    assert "ada" == user.get()


async def test_executions_do_not_see_each_others_variables(watch: Watch) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")

    @actor
    async def first(goal: str) -> str:
        before = user.get()
        user.set("first")
        await anyio.lowlevel.checkpoint()
        return f"{before} {user.get()}"

    @actor
    async def second(first: str) -> str:
        before = user.get()
        user.set("second")
        await anyio.lowlevel.checkpoint()
        return f"{before} {user.get()}"

    @actor(when=lambda second: user.set("asked") is not None)
    async def third(second: str) -> str:
        return user.get()

    run = await watch(first, second, third)

    assert {"first": "nobody first", "second": "nobody second", "third": "nobody"} == run.outputs
    assert "nobody" == user.get()


async def test_making_a_prompt_changes_variables_for_nobody_else(watch: Watch) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")

    def prompt(goal: str, /) -> str:
        user.set("prompt")
        return goal

    async def ask(prompt: str) -> str:
        return f"{prompt} {user.get()}"

    @actor
    async def after(ask: str) -> str:
        return f"{ask}, {user.get()}"

    assert "goal prompt, nobody" == (await watch(actor(ask, prompt=prompt), after)).output


async def test_a_condition_skips_its_actor_and_those_that_need_it(watch: Watch) -> None:
    asked = []

    def is_long(research: list[str], least: int = 3) -> bool:
        asked.append(research)
        return len(research) >= least

    @actor(when=is_long)
    async def shorten(research: list[str]) -> str:
        return "short"

    @actor
    async def needs(shorten: str) -> str:
        return shorten

    @actor
    async def may_use(needs: str = "nothing", shorten: str = "long") -> str:
        return f"{needs} {shorten}"

    run = await watch(research, shorten, needs, may_use, goal="g", context={"quarter": "Q4"})

    assert [["g", "Q4"]] == asked
    assert ["nothing long"] == [run.output]
    assert {"shorten": "its condition is not met", "needs": "'shorten' is absent"} == {
        event["agent"]: event["reason"] for event in run.told("agent_skipped")
    }
    assert run.result is not None
    assert run.result["success"]


async def test_a_condition_whose_own_need_is_absent_skips(watch: Watch) -> None:
    @actor(when=lambda: False)
    async def never() -> None: ...

    @actor(when=lambda never: True)
    async def asks(goal: str) -> str:
        return goal

    @actor(when=lambda never=None: never is None)
    async def asks_with_default(goal: str) -> str:
        return goal

    run = await watch(never, asks, asks_with_default)

    assert "goal" == run.output
    assert ["asks_with_default"] == run.path


async def test_none_is_an_output(watch: Watch) -> None:
    @actor
    async def nothing() -> None: ...

    @actor
    async def after(nothing: None) -> Any:
        return [nothing]

    run = await watch(nothing, after)

    assert {"nothing": None, "after": [None]} == run.outputs


async def test_output_is_unwrapped_from_any_actor(watch: Watch) -> None:
    @actor
    async def wrapped() -> Output:
        return Output({"a": 1})

    assert {"a": 1} == (await watch(wrapped)).output


async def test_several_sinks_give_a_dict_and_the_conductor_may_choose(watch: Watch) -> None:
    @actor
    async def mail(write: str) -> str:
        return f"mail {write}"

    @actor
    async def post(write: str) -> str:
        return f"post {write}"

    actors = (research, write, mail, post)
    context = {"quarter": "Q4"}

    assert {"mail": "mail goal Q4", "post": "post goal Q4"} == (await watch(*actors, context=context)).output
    assert "goal Q4" == (await watch(*actors, context=context, settings={"output": "write"})).output
    assert {"write": "goal Q4", "mail": "mail goal Q4"} == (
        await watch(*actors, context=context, settings={"output": ["write", "mail"]})
    ).output


async def test_supplied_outputs_take_the_place_of_running(watch: Watch) -> None:
    run = await watch(research, write, outputs={"research": ["from", "a test"]})

    assert ["write"] == run.path
    assert {"research": ["from", "a test"], "write": "from a test"} == run.outputs


async def test_a_static_run_goes_one_by_one_and_repeats_names(watch: Watch) -> None:
    @actor
    async def improve(text: str = "", improve: str = "") -> str:
        return f"{improve}+"

    @actor
    async def judge(improve: str) -> str:
        return f"judged {improve}"

    run = await watch(improve, judge, mode="static", order=["improve", "judge", "improve", "judge"])

    assert ["improve", "judge", "improve#2", "judge#2"] == run.path
    assert "judged ++" == run.output
    assert "+" == run.outputs["improve"]


async def test_a_static_run_ends_with_the_last_that_was_not_skipped(watch: Watch) -> None:
    @actor(when=lambda research: False)
    async def polish(research: str) -> str:
        return "polished"

    run = await watch(research, write, polish, mode="static", context={"quarter": "Q4"})

    assert "goal Q4" == run.output


async def test_resources_are_entered_once_and_left_in_reverse(watch: Watch) -> None:
    log = []

    def factory(name: str) -> Any:
        @asynccontextmanager
        async def manage() -> AsyncIterator[str]:
            log.append(f"open {name}")
            yield name.upper()
            log.append(f"close {name}")

        return manage

    @actor
    async def one(http: str, db: str, limit: int) -> str:
        log.append("one")
        return f"{http} {db} {limit}"

    @actor
    async def two(one: str, http: str) -> str:
        log.append("two")
        return f"{one} {http}"

    resources = {"http": factory("http"), "db": Resource(factory("db"), scope="run"), "limit": 3}
    run = await watch(one, two, settings={"resources": resources})

    assert "HTTP DB 3 HTTP" == run.output
    assert ["open http", "open db", "one", "two", "close db", "close http"] == log

    log.clear()
    replaced = await watch(
        one,
        two,
        settings={"resources": resources},
        resources={"http": "fake", "limit": 0},
        shared={"db": "shared", "http": "hidden"},
    )

    assert "fake shared 0 fake" == replaced.output
    assert ["one", "two"] == log


async def test_a_factory_that_makes_no_context_manager_is_a_type_error_and_told(watch: Watch) -> None:
    run = await watch(write, outputs={"write": ""}, settings={"resources": {"http": dict}})

    assert isinstance(run.error, TypeError)
    assert "The factory of resource 'http' returns {}" in str(run.error)
    assert ["workflow_start", "workflow_error"] == [event["type"] for event in run.events]


async def test_resources_see_the_actors_exception_but_do_not_change_it(watch: Watch) -> None:
    seen: list[BaseException] = []

    @asynccontextmanager
    async def swallowing() -> AsyncIterator[None]:
        try:
            yield
        except ValueError as exc:
            seen.append(exc)

    @asynccontextmanager
    async def grouping() -> AsyncIterator[None]:
        async with anyio.create_task_group():
            yield

    @actor
    async def broken() -> None:
        raise ValueError("mine")

    swallowed = await watch(broken, settings={"resources": {"r": swallowing}})
    grouped = await watch(broken, settings={"resources": {"r": grouping}})

    assert [swallowed.error] == seen
    assert isinstance(grouped.error, ValueError)


@pytest.mark.parametrize(
    ("goal", "context", "iterations", "kind"),
    [
        (3, None, 1, TypeError),
        ("g", [], 1, TypeError),
        ("g", {1: 2}, 1, TypeError),
        ("g", None, 0, ValueError),
        ("g", None, True, ValueError),
        ("g", None, 1, GraphError),
    ],
)
async def test_a_wrong_call_is_refused_before_anything_runs(
    goal: Any, context: Any, iterations: Any, kind: type[Exception]
) -> None:
    ran = []

    @actor
    async def first() -> None:
        ran.append(1)

    with pytest.raises(kind):
        await Conductor([first, research]).run(goal, context, max_iterations=iterations)

    assert [] == ran


async def test_a_conductor_runs_any_number_of_goals_at_once() -> None:
    conductor, results = Conductor([research, write]), {}

    async def one(goal: str) -> None:
        results[goal] = (await conductor.run(goal, {"quarter": "Q1"}, feedback="!"))["final_output"]

    async with anyio.create_task_group() as group:
        for at in range(5):
            group.start_soon(one, str(at))

    assert {str(at): f"{at} Q1!" for at in range(5)} == results


async def test_more_context_wins_over_the_mapping() -> None:
    result = await Conductor([research]).run("g", {"quarter": "Q1"}, quarter="Q2")

    assert ["g", "Q2"] == result["final_output"]


async def test_an_entry_runs_alone_with_what_descends_from_it(watch: Watch) -> None:
    @actor
    async def other(goal: str) -> str:
        return goal

    @actor(when=lambda other: False)
    async def chosen(other: str = "nothing") -> str:
        return other

    @actor
    async def after(chosen: str) -> str:
        return chosen + "!"

    run = await watch(other, chosen, after, entry="chosen")

    assert ["chosen", "after"] == run.path
    assert "nothing!" == run.output


async def test_the_graph_is_made_again_when_the_context_has_other_keys() -> None:
    conductor = Conductor([research, write])
    with pytest.raises(GraphError):
        await conductor.run("g")

    assert "g Q4" == (await conductor.run("g", quarter="Q4"))["final_output"]
    assert "g Q5-" == (await conductor.run("g", quarter="Q5", feedback="-"))["final_output"]


async def test_a_previous_output_is_bound_only_after_a_goto(watch: Watch) -> None:
    @actor
    async def draft(draft: str = "") -> str:
        return draft + "x"

    @actor
    async def judge(draft: str) -> Any:
        return draft if len(draft) > 2 else Goto("draft")

    run = await watch(draft, judge)

    assert "xxx" == run.output
