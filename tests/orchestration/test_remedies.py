"""Mistakes that are easily made, and what the errors propose to write instead."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from jotty.core.orchestration import (
    ActorContext,
    ChatMessage,
    Conductor,
    Goto,
    Limit,
    Resource,
    WorkflowMode,
    actor,
)
from jotty.errors import GraphError, InputRequired

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio


async def search(goal: str) -> str:
    return goal


async def count(page: str) -> int:
    return len(page)


async def sends_back(goal: str) -> Goto:
    return Goto("serch")


async def gives_wrongly(goal: str, hint: str = "") -> Goto:
    return Goto("gives_wrongly", hnit="x")


async def sends_back_a_function(goal: str) -> Goto:
    return Goto(search)


async def calls(ctx: ActorContext) -> Any:
    return await ctx.call("serch")


async def calls_wrongly(ctx: ActorContext) -> Any:
    return await ctx.call(count, pgae="a")


@pytest.mark.parametrize(
    ("actors", "told"),
    [
        ([search, sends_back], "There are: search, sends_back. Did you mean 'search'?"),
        ([search, sends_back_a_function], "leads nowhere. There are: search, sends_back_a_function."),
        ([gives_wrongly], "It takes: goal, hint. Did you mean 'hint'?"),
        ([search, calls], "There are: search, calls. Did you mean 'search'?"),
        ([calls_wrongly], "It takes: page. Did you mean 'page'?"),
        ([count], "only to be spawned, called or mapped? Give it on_demand=True, or leave it out."),
    ],
)
async def test_a_run_that_cannot_go_on_proposes_what_was_meant(actors: Any, told: str) -> None:
    with pytest.raises(GraphError) as caught:
        await Conductor(actors).run("goal")

    assert told in str(caught.value)


def test_names_that_are_given_with_a_conductor_are_guessed() -> None:
    limits = {"model": Limit(concurrent=1)}

    with pytest.raises(GraphError, match=r"There are: model\. Did you mean 'model'\?"):
        Conductor([actor(search, limit="modle")], limits=limits)
    with pytest.raises(GraphError, match=r"There are: search\. Did you mean 'search'\?"):
        Conductor([search], output="serch")
    with pytest.raises(GraphError, match=r"There are: search\. Did you mean 'search'\?"):
        WorkflowMode(Conductor([search]), mode="static", agent_order=["serch"])


def test_a_limit_that_is_nowhere_is_shown_as_it_is_to_be_written() -> None:
    with pytest.raises(GraphError, match=r"limits=\{'model': Limit\(\.\.\.\)\}"):
        Conductor([actor(search, limit="model")])
    with pytest.raises(TypeError, match=r"limit of actor 'search' must be a name.*limits=\{\.\.\.\}"):
        actor(search, limit=Limit(concurrent=1))  # type: ignore[call-overload]  # which is the point


def test_a_conductor_within_gets_its_name_where_it_is_made() -> None:
    with pytest.raises(GraphError, match=r"Two actors are named 'default'.*Conductor\(\.\.\., name="):
        Conductor([Conductor([search]), Conductor([count])])


def test_an_option_that_is_none_is_guessed_and_the_actor_named() -> None:
    with pytest.raises(TypeError, match=r"Actor 'search' has no option 'retry'.*Did you mean 'retries'\?"):
        actor(search, retry=3)  # type: ignore[call-overload]  # which is the point
    with pytest.raises(TypeError, match=r"no option 'colour'. There are: .*backoff.*when\.$"):
        actor(colour="red")(search)  # type: ignore[call-overload]


async def test_answers_without_the_one_that_is_asked_for_are_told() -> None:
    async def ask(ctx: ActorContext) -> Any:
        return await ctx.ask("Send it?", key="send")

    with pytest.raises(InputRequired, match=r"on_ask has no answer 'send'.*It has: sned\.") as caught:
        await Conductor([ask]).run("goal", on_ask={"sned": "yes"})

    assert ("send", "Send it?", ["sned"]) == (caught.value.key, caught.value.question, caught.value.answers)


async def _pool() -> int:
    return 1


@contextmanager
def _sync_pool() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("factory", [_pool, _sync_pool])
async def test_what_opens_a_resource_must_be_an_async_context_manager(factory: Any) -> None:
    async def use(pool: int) -> int:
        return pool

    with pytest.raises(TypeError, match=r"resource 'pool'.*@contextlib\.asynccontextmanager"):
        await Conductor([use], resources={"pool": factory}).run("goal")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Conductor([search], resources=["db"]), r"resources must be a mapping.*not \['db'\]"),  # type: ignore[arg-type]
        (lambda: Conductor([search], limits=["model"]), r"limits must be a mapping.*not \['model'\]"),  # type: ignore[arg-type]
        (lambda: Conductor([search], output=5), "output must be an actor's name, or several, not 5"),  # type: ignore[arg-type]
        (lambda: actor(search, bind=["a"]), r"bind must be a mapping of parameters to names, not \['a'\]"),  # type: ignore[call-overload]
        (lambda: actor(search, when=True), "when of 'search' must be a plain function, not True"),  # type: ignore[call-overload]
        (
            lambda: actor(search, backoff=-1),
            "backoff of 'search' must be seconds >= 0, or a RetryPolicy, not -1",
        ),
        (lambda: actor(search, backoff="1"), "backoff of 'search' must be .*, not '1'"),  # type: ignore[call-overload]
        (lambda: Resource(dict, scope="process"), "scope must be 'worker' or 'run', not 'process'"),  # type: ignore[arg-type]
        (lambda: ChatMessage("user", 5), "content of a ChatMessage must be a text, not 5"),  # type: ignore[arg-type]
        (lambda: ActorContext.fake().usage(cost="5"), "cost must be a number, not '5'"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_value_is_told_with_the_name_of_what_takes_it(make: Any, told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        make()


async def test_a_replacement_of_no_resource_is_refused_where_another_was_meant() -> None:
    @actor
    async def use(library: str, other: str = "") -> str:
        return library + other

    workflow = WorkflowMode(Conductor([use], resources={"library": "real"}))

    with pytest.raises(GraphError, match=r"resources= names 'libary', which no actor.*mean 'library'\?"):
        await workflow.execute("goal", resources={"libary": "fake"})
    result = await workflow.execute("goal", resources={"library": "fake", "other": "!", "unused": "x"})
    assert "fake!" == result["final_output"]


def test_an_order_may_hold_the_actors_themselves() -> None:
    one, two = actor(search), actor(count)
    workflow = WorkflowMode(Conductor([one, two]), mode="static", agent_order=[two, one])

    assert ("count", "search") == workflow.agent_order
    with pytest.raises(TypeError, match="an actor or the name of one, not 5"):
        WorkflowMode(Conductor([one]), mode="static", agent_order=[5])  # type: ignore[list-item]
