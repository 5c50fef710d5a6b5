from __future__ import annotations

import functools
import inspect
from typing import Any

import attrs
import pytest

from jotty.core.orchestration import Actor, ActorKind, End, Goto, Limit, Output, actor
from jotty.core.queue import RetryPolicy


async def research(goal: str, quarter: str = "Q1") -> list[str]:
    """Find things out."""
    return [goal, quarter]


def count(words: str) -> int:
    return len(words.split())


async def speak(goal: str) -> Any:
    yield goal


class Agent:
    """An object as agent libraries have them."""

    def __init__(self, name: Any = "helper") -> None:
        self.name = name

    async def run(self, prompt: str, temperature: float = 0.5) -> str:
        return f"{self.name}: {prompt} {temperature}"


class CallableAgent:
    name = "caller"

    async def __call__(self, prompt: str) -> str:
        return prompt


class SyncAgent:
    name = "slow"

    def run(self, prompt: str) -> str:
        return prompt


@pytest.mark.anyio
async def test_a_decorated_actor_is_still_the_plain_function() -> None:
    decorated = actor(retries=2)(research)

    assert ["g", "Q4"] == await decorated("g", "Q4")
    assert "Find things out." == decorated.__doc__
    assert inspect.signature(research) == inspect.signature(decorated)
    assert 3 == actor(count)("one two three")
    assert "helper: hi 0.1" == await actor(Agent())("hi", temperature=0.1)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (research, ActorKind.ASYNC),
        (count, ActorKind.SYNC),
        (speak, ActorKind.STREAM),
        (functools.partial(research, quarter="Q2"), ActorKind.ASYNC),
        (functools.partial(speak), ActorKind.STREAM),
        (Agent().run, ActorKind.ASYNC),
        (Agent(), ActorKind.ASYNC),
        (CallableAgent(), ActorKind.ASYNC),
    ],
)
def test_the_kind_follows_from_what_is_called(call: Any, expected: ActorKind) -> None:
    assert expected is actor(call).kind


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (research, "research"),
        (functools.partial(count, "a"), "count"),
        (Agent(), "helper"),
        (CallableAgent(), "caller"),
    ],
)
def test_the_name_is_that_of_the_function_or_the_object(call: Any, expected: str) -> None:
    assert expected == actor(call).name


def test_options_stand_on_the_actor() -> None:
    made = actor(
        research,
        name="r",
        bind={"quarter": actor(count)},
        depends_on=[actor(count), "other"],
        backoff=0.5,
        timeout=3,
        version=7,
        limit="l",
        on_demand=True,
        on_error="continue",
    )

    assert {"quarter": "count"} == made.bind
    assert ("count", "other") == made.depends_on
    assert RetryPolicy(delay=0.5) == made.policy
    assert ("r", 3, 7, "l", True, "continue") == (
        made.name,
        made.timeout,
        made.version,
        made.limit,
        made.on_demand,
        made.on_error,
    )
    assert "Actor('r')" == repr(made)


def test_a_policy_is_taken_as_it_is_and_the_default_is_the_default_policy() -> None:
    policy = RetryPolicy(delay=3, factor=4)

    assert policy is actor(research, backoff=policy).policy
    assert RetryPolicy() == actor(research).policy


def test_a_changed_copy_is_another_actor() -> None:
    first = actor(research)
    second = attrs.evolve(first, name="again", retries=1)

    assert ("again", 1, first.call) == (second.name, second.retries, second.call)
    assert first != attrs.evolve(first)


@pytest.mark.parametrize(
    ("call", "options", "kind"),
    [
        (lambda: None, {}, TypeError),
        (Agent, {}, TypeError),
        (SyncAgent(), {}, TypeError),
        (Agent(None), {}, TypeError),
        (3, {"name": "three"}, TypeError),
        (actor(research), {"retries": 1}, TypeError),
        (research, {"name": ""}, ValueError),
        (research, {"name": "a#2"}, ValueError),
        (research, {"name": 3}, ValueError),
        (research, {"retries": -1}, ValueError),
        (research, {"retries": True}, ValueError),
        (research, {"timeout": 0}, ValueError),
        (research, {"timeout": float("inf")}, ValueError),
        (research, {"timeout": "1"}, ValueError),
        (research, {"backoff": -1}, ValueError),
        (research, {"on_error": "ignore"}, ValueError),
        (research, {"depends_on": "count"}, TypeError),
        (research, {"depends_on": [3]}, TypeError),
        (research, {"bind": {"goal": 3}}, TypeError),
        (research, {"when": research}, TypeError),
        (max, {}, TypeError),
    ],
)
def test_what_can_not_be_meant_is_refused(call: Any, options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        actor(call, **options)


def test_a_plain_generator_is_refused() -> None:
    def lines(goal: str) -> Any:
        yield goal

    with pytest.raises(TypeError, match="async generator"):
        actor(lines)


def test_an_error_says_what_is_wrong_and_how_to_mend_it() -> None:
    with pytest.raises(TypeError, match=r"Give it one: actor\(\.\.\., name='\.\.\.'\)"):
        actor(lambda goal: goal)
    with pytest.raises(TypeError, match=r"depends_on=\['count'\]"):
        actor(research, depends_on="count")


@pytest.mark.parametrize("value", [{}, {"concurrent": 0}, {"per_minute": True}, {"concurrent": 1.5}])
def test_a_limit_that_makes_no_sense_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"concurrent|per_minute"):
        Limit(**value)


def test_limits_and_outcomes_are_values() -> None:
    assert Limit(concurrent=2) == Limit(concurrent=2, per_minute=None)
    assert Goto("write", feedback="x") == Goto("write", feedback="x")
    assert Goto("write") != Goto("read")
    assert "research" == Goto(actor(research)).target
    assert (Output(1), End()) == (Output(1), End(None))


def test_an_actor_can_be_made_without_the_decorator() -> None:
    made: Actor[..., Any] = Actor(name="made", call=research)

    assert ("made", {}, (), None) == (made.name, made.bind, made.depends_on, made.when_signature)
