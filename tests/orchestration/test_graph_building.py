from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.core.orchestration import Actor, Goto, Graph, GraphMode, actor
from jotty.errors import GraphError


def make(name: str, parameters: str = "", **options: Any) -> Actor[..., Any]:
    space: dict[str, Any] = {}
    exec(f"async def call({parameters}): return {name!r}", space)  # noqa: S102  # names are what is tested
    return Actor(name=name, call=space["call"], **options)


def parents_of(graph: Graph) -> dict[str, tuple[str, ...]]:
    return {name: node.parents for name, node in graph.nodes.items()}


def problem_of(*actors: Actor[..., Any], **options: Any) -> str:
    options.setdefault("context", ())
    with pytest.raises(GraphError) as caught:
        Graph.build(actors, **options)
    return str(caught.value)


def test_edges_are_the_actors_that_parameters_name() -> None:
    graph = Graph.build(
        [
            make("write", "research, notes, tone='dry'"),
            make("research", "goal, quarter"),
            make("notes", "goal, http"),
            make("print", "write", depends_on=["research"]),
            make("ask", "x=1", when=lambda write: write, bind={"x": "notes"}),
        ],
        resources=["http"],
        context=["quarter"],
    )

    assert {
        "write": ("research", "notes"),
        "research": (),
        "notes": (),
        "print": ("write", "research"),
        "ask": ("write", "notes"),
    } == parents_of(graph)
    assert ("print", "ask") == graph.sinks
    assert {"research", "write", "print", "ask"} == graph.closure("research")


@given(st.integers(1, 12), st.data())
def test_the_topological_order_has_each_node_after_its_parents(size: int, data: st.DataObject) -> None:
    names = [f"n{at}" for at in range(size)]
    actors = [
        make(name, ", ".join(each for each in names[:at] if data.draw(st.booleans())))
        for at, name in enumerate(names)
    ]
    graph = Graph.build(data.draw(st.permutations(actors)), context=())
    place = {name: at for at, name in enumerate(graph.topological)}

    assert set(names) == set(place)
    assert all(place[parent] < place[name] for name in names for parent in graph.nodes[name].parents)


def test_two_actors_of_one_name_are_refused() -> None:
    assert "Two actors are named 'a'." in problem_of(make("a"), make("a"))


@pytest.mark.parametrize("name", ["goal", "ctx", "history"])
def test_a_reserved_name_is_refused(name: str) -> None:
    assert f"An actor can't be named '{name}'" in problem_of(make(name))


@pytest.mark.parametrize(
    ("resources", "context", "said"),
    [
        (["a"], [], "'a' is an actor and a resource at once."),
        ([], ["a"], "'a' is an actor and a context key at once."),
        (["x"], ["x"], "'x' is a resource and a context key at once."),
        ([], ["goal"], "'goal' is a reserved name and a context key at once."),
        (["history"], [], "'history' is a reserved name and a resource at once."),
    ],
)
def test_one_name_for_two_things_is_refused(resources: list[str], context: list[str], said: str) -> None:
    assert said in problem_of(make("a"), resources=resources, context=context)


def test_an_unbindable_parameter_names_actor_parameter_what_there_is_and_the_remedy() -> None:
    said = problem_of(make("research"), make("write", "reserach"), resources=["http"], context=["quarter"])

    assert "The parameter 'reserach' of actor 'write' can't be bound." in said
    assert "actors research, write; context quarter; resources http; reserved ctx, goal, history" in said
    assert "Did you mean 'research'?" in said
    assert "Pass it in the context, rename it with bind=, or give it a default." in said


def test_a_renamed_parameter_that_can_not_be_bound_says_to_what() -> None:
    said = problem_of(make("write", "draft", bind={"draft": "write_a"}))

    assert "'draft' of actor 'write' (bound to 'write_a') can't be bound" in said


def test_a_rename_of_what_is_no_parameter_is_refused() -> None:
    assert "renames 'drft', which it does not take. It takes: draft." in problem_of(
        make("a"), make("write", "draft=1", bind={"drft": "a"})
    )


def test_a_circle_is_refused_and_points_to_goto() -> None:
    said = problem_of(make("first"), make("a", "first, c"), make("b", "a"), make("c", "b"), make("d", "c"))

    assert "in a circle: a -> b -> c -> a." in said
    assert "have 'c' return Goto('a', ...) to loop" in said


def test_an_actor_that_needs_its_own_output_needs_a_default_for_it() -> None:
    assert "Give it a default." in problem_of(make("a", "a"))
    assert () == Graph.build([make("a", "a=None")], context=()).nodes["a"].parents


def test_depends_on_must_name_an_actor() -> None:
    assert "depends_on of actor 'a' names 'b', which is no actor here. There are: a." in problem_of(
        make("a", depends_on=["b"])
    )


def test_outputs_must_name_an_actor() -> None:
    assert "outputs= names 'b'" in problem_of(make("a"), supplied=["b"])


def test_a_supplied_node_need_not_be_bound_and_keeps_its_edges() -> None:
    graph = Graph.build(
        [make("first"), make("a", "first, nothing"), make("b", "a")], context=(), supplied=["a"]
    )

    assert {"first": (), "a": ("first",), "b": ("a",)} == parents_of(graph)


def test_an_unknown_context_takes_what_nothing_else_provides() -> None:
    graph = Graph.build([make("a", "quarter, b, year=1"), make("b")])

    assert ("b",) == graph.nodes["a"].parents


def test_a_condition_can_not_have_the_context_of_the_actor() -> None:
    assert "when of actor 'a' wants 'ctx'" in problem_of(make("a", when=lambda ctx: ctx))


def test_a_condition_must_be_bindable() -> None:
    assert "The parameter 'z' of actor 'a' can't be bound." in problem_of(
        make("a", when=lambda z: z, on_demand=True)
    )


class TestStatic:
    @staticmethod
    def build(*actors: Actor[..., Any], order: list[str] | None = None) -> Graph:
        return Graph.build(actors, mode=GraphMode.STATIC, order=order, context=())

    def test_nodes_follow_each_other_in_the_given_order(self) -> None:
        graph = self.build(make("a"), make("b"), make("c"), order=["c", "a"])

        assert {"c": (), "a": ("c",)} == parents_of(graph)

    def test_the_default_order_is_that_of_declaration(self) -> None:
        assert ["b", "a"] == list(self.build(make("b"), make("a", "b")).nodes)

    def test_a_name_that_is_repeated_is_numbered_and_the_latest_earlier_output_is_bound(self) -> None:
        graph = self.build(
            make("write", "write=''"), make("review", "write"), order=["write", "review", "write", "review"]
        )

        assert ["write", "review", "write#2", "review#2"] == list(graph.nodes)
        assert (("write", "write#2", True),) == graph.nodes["review#2"].plan.outputs

    @pytest.mark.parametrize("late", ["b", "b=None"])
    def test_a_later_output_is_refused(self, late: str) -> None:
        said = problem_of(make("a", late), make("b"), mode=GraphMode.STATIC)

        assert "Actor 'a' needs 'b', which comes later in the order." in said
        assert "Goto('a', ...)" in said

    def test_a_later_output_in_a_condition_is_refused(self) -> None:
        assert "comes later" in problem_of(make("a", when=lambda b: b), make("b"), mode=GraphMode.STATIC)

    def test_an_output_that_is_not_in_the_order_needs_a_default(self) -> None:
        said = problem_of(make("a"), make("b", "a"), mode=GraphMode.STATIC, order=["b"])

        assert "needs the output of 'a', which is not in agent_order" in said
        assert () == self.build(make("a"), make("b", "a=1"), order=["b"]).nodes["b"].plan.outputs

    def test_an_unknown_name_in_the_order_is_refused(self) -> None:
        said = problem_of(make("a"), mode=GraphMode.STATIC, order=["a", "z"])

        assert "agent_order names 'z', which is no actor here. There are: a." in said


@pytest.mark.parametrize(
    ("goto", "said"),
    [
        (Goto("nowhere"), "Goto('nowhere') leads nowhere. There are: write, billing, any."),
        (Goto("write", tone="dry"), "gives 'tone', which 'write' does not take. It takes: feedback, goal."),
        (
            Goto("billing"),
            "does not give 'amount', which nothing else provides. Write Goto('billing', amount=...).",
        ),
    ],
)
def test_a_goto_that_can_not_be_followed_is_refused(goto: Goto, said: str) -> None:
    graph = Graph.build(
        [
            make("write", "goal, feedback=''"),
            make("billing", "amount", on_demand=True),
            make("any", "**more"),
        ],
        context=(),
    )
    with pytest.raises(GraphError) as caught:
        graph.check_goto(goto)

    assert said in str(caught.value)
    graph.check_goto(Goto("any", whatever=1))
    graph.check_goto(Goto("billing", amount=1))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("z", "The entry 'z' is no actor here. There are: a, b, c."),
        ("b", "it needs 'a'"),
        ("c", "it needs 'x'"),
    ],
)
def test_an_entry_that_can_not_begin_is_refused(entry: str, said: str) -> None:
    graph = Graph.build([make("a"), make("b", "a"), make("c", "x", on_demand=True)], context=())
    with pytest.raises(GraphError) as caught:
        graph.check_entry(entry)

    assert said in str(caught.value)


def test_drawings_show_nodes_edges_and_what_is_special() -> None:
    graph = Graph.build(
        [
            make('say "hi" & go'),
            make("b", "x", bind={"x": 'say "hi" & go'}, when=lambda c: c),
            make("c"),
            make("d", on_demand=True),
        ],
        context=(),
    )

    assert graph.to_mermaid() == (
        "flowchart TD\n"
        '    n0["say &quot;hi&quot; &amp; go"]\n'
        '    n1["b"]\n'
        '    n2["c"]\n'
        '    n3(["d"])\n'
        "    n0 --> n1\n"
        "    n2 -. when .-> n1\n"
    )
    assert graph.to_dot() == (
        "digraph {\n"
        "    node [shape=box]\n"
        '    n0 [label="say \\"hi\\" & go"]\n'
        '    n1 [label="b"]\n'
        '    n2 [label="c"]\n'
        '    n3 [label="d", style=dashed]\n'
        "    n0 -> n1\n"
        '    n2 -> n1 [style=dashed, label="when"]\n'
        "}\n"
    )


def test_an_actor_with_a_prompt_wants_only_that() -> None:
    class Agent:
        name = "agent"

        async def run(self, prompt: str, model: str, tools: list[str]) -> str:
            return prompt + model + str(tools)

    graph = Graph.build([actor(Agent(), prompt="draft"), make("draft")], context=())

    assert ("draft",) == graph.nodes["agent"].parents
