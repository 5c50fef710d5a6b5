from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from jotty.core.orchestration import Actor, Graph
from jotty.core.orchestration.binding import Names
from jotty.core.orchestration.signature import Parameter, Signature, read_signature
from jotty.core.orchestration.wiring import wire
from jotty.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Callable

ACTORS: tuple[str, ...] = ("ann", "bob", "cid", "dan")
SOURCES: tuple[str, ...] = (*ACTORS, "goal", "ctx", "history", "quarter", "http")
KINDS = inspect._ParameterKind
NAMED = (KINDS.POSITIONAL_ONLY, KINDS.POSITIONAL_OR_KEYWORD, KINDS.KEYWORD_ONLY)

shapes: st.SearchStrategy[tuple[set[str], set[str], bool]] = st.tuples(
    st.sets(st.sampled_from(SOURCES)),  # required
    st.sets(st.sampled_from(SOURCES)),  # with a default
    st.booleans(),  # and whatever else
)


def function_of(parameters: list[inspect.Parameter]) -> Any:
    space: dict[str, Any] = {}
    exec(f"def call{inspect.Signature(parameters)}: return True", space)  # noqa: S102  # code, not `__signature__`
    return space["call"]


def shaped(shape: tuple[set[str], set[str], bool]) -> Any:
    required, optional, takes_more = shape
    parameters = [inspect.Parameter(each, KINDS.KEYWORD_ONLY) for each in sorted(required)]
    parameters += [
        inspect.Parameter(each, KINDS.KEYWORD_ONLY, default=None) for each in sorted(optional - required)
    ]
    if takes_more:
        parameters.append(inspect.Parameter("more", KINDS.VAR_KEYWORD))
    return function_of(parameters)


async def nothing() -> None:
    pass


def come_to(call: Callable[[], Any]) -> Any:
    """Return what it returns, or what it says is wrong, without what there is: that is in no order."""
    try:
        return call()
    except GraphError as exc:
        return str(exc).partition("There are")[0]


@st.composite
def actors(draw: st.DrawFn) -> Actor[..., Any]:
    shape, asked = draw(shapes), draw(st.none() | shapes)
    renamed = draw(st.sets(st.sampled_from(sorted(shape[0] | shape[1]) or ["ann"]), max_size=2))
    return Actor(
        name="me",
        call=shaped(shape),
        when=None if asked is None else shaped(asked),
        bind={each: draw(st.sampled_from((*SOURCES, "me"))) for each in renamed},
        depends_on=draw(st.sets(st.sampled_from(ACTORS), max_size=2)),
        on_demand=draw(st.booleans()),
    )


@given(
    actors(),
    st.sets(st.sampled_from(ACTORS)),
    st.sets(st.sampled_from(["http"])),
    st.none() | st.sets(st.sampled_from(["quarter", "month"])),
)
def test_what_was_foreseen_of_an_actor_is_what_comes_true_in_a_graph(
    found: Actor[..., Any], others: set[str], resources: set[str], context: set[str] | None
) -> None:
    """An actor is wired once, when it is made; a graph may only rely on that if it would come to the same."""
    known = frozenset((*others, found.name))
    names = Names(known, frozenset(resources), None if context is None else frozenset(context))

    def in_graph() -> tuple[Any, ...]:
        around = [Actor(name=each, call=nothing) for each in others]
        node = Graph.build([found, *around], resources=resources, context=context).nodes["me"]
        return node.plan, node.when, set(node.parents)

    def by_itself() -> tuple[Any, ...]:
        wired = wire(found, names, {each: each for each in known}, may_be_open=found.on_demand)
        return wired.plan, wired.when, wired.needs

    assert come_to(by_itself) == come_to(in_graph)


def test_an_actor_that_only_wants_actors_is_foreseen() -> None:
    found = Actor(name="me", call=shaped(({"ann", "goal", "ctx"}, {"bob", "me"}, False)), depends_on=["cid"])

    assert found.wiring is not None
    assert {"ann", "bob", "cid"} == found.wiring.needs


def test_a_condition_that_takes_whatever_there_is_gets_the_context() -> None:
    def is_due(**known: Any) -> bool:
        return bool(known)

    graph = Graph.build(
        [Actor(name="ann", call=shaped((set(), set(), False)), when=is_due)], context=["quarter"]
    )
    when = graph.nodes["ann"].when

    assert when is not None
    assert ("quarter",) == when.more_given


def test_an_actor_that_fits_into_no_graph_can_be_made() -> None:
    needy = Actor(name="me", call=shaped(({"me"}, set(), False)))
    problem = None
    try:
        Graph.build([needy], context=())
    except GraphError as exc:
        problem = str(exc)

    assert needy.wiring is None
    assert problem is not None
    assert "previous output" in problem


@st.composite
def parameter_lists(draw: st.DrawFn) -> list[inspect.Parameter]:
    kinds = sorted(draw(st.lists(st.sampled_from(NAMED), max_size=6)))
    has_default = False
    found = []
    for at, kind in enumerate(kinds):
        must = has_default and kind is not KINDS.KEYWORD_ONLY
        has_default = must or draw(st.booleans())
        default = at if has_default else inspect.Parameter.empty
        found.append(inspect.Parameter(f"p{at}", kind, default=default))
    if draw(st.booleans()):
        found.append(inspect.Parameter("rest", KINDS.VAR_POSITIONAL))
    if draw(st.booleans()):
        found.append(inspect.Parameter("more", KINDS.VAR_KEYWORD))
    return sorted(found, key=lambda each: each.kind)


@given(parameter_lists())
def test_the_signature_of_a_function_is_read_as_python_has_it(parameters: list[inspect.Parameter]) -> None:
    named = [each for each in parameters if each.kind not in (KINDS.VAR_POSITIONAL, KINDS.VAR_KEYWORD)]
    expected = tuple(Parameter(each.name, each.default, each.kind is KINDS.POSITIONAL_ONLY) for each in named)
    takes_more = any(each.kind is KINDS.VAR_KEYWORD for each in parameters)

    assert Signature(expected, takes_more) == read_signature(function_of(parameters))


def test_a_function_may_have_the_signature_of_another() -> None:
    def wrapped(*args: Any, **named: Any) -> Any:
        return args, named

    wrapped.__wrapped__ = shaped(({"ann"}, set(), False))  # type: ignore[attr-defined]  # see inspect.signature

    assert Signature((Parameter("ann"),)) == read_signature(wrapped)
