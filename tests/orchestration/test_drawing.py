from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jotty import ActorContext, Conductor, Goto, actor
from jotty.core.orchestration import Graph, Timeline

if TYPE_CHECKING:
    from jotty.testing import VirtualClock
    from tests.orchestration.conftest import Watch

pytestmark = pytest.mark.anyio


@actor
async def write(goal: str) -> str:
    return goal


@actor
async def proof(write: str) -> str:
    return write


@actor
async def send(report: str) -> str:
    return report


@actor(on_demand=True)
async def search(topic: str) -> str:
    return topic


REPORT = Conductor([write, proof], name="report")


def test_a_conductor_in_another_is_drawn_with_its_actors_in_it() -> None:
    graph = Conductor([REPORT, send]).graph()

    assert graph.to_mermaid() == (
        "flowchart TD\n"
        '    subgraph n0["report"]\n'
        '        n0_0["write"]\n'
        '        n0_1["proof"]\n'
        "    end\n"
        '    n1["send"]\n'
        "    n0 --> n1\n"
        "    n0_0 --> n0_1\n"
    )
    assert graph.to_dot() == (
        "digraph {\n"
        "    compound=true\n"
        "    node [shape=box]\n"
        "    subgraph cluster_n0 {\n"
        '        graph [label="report"]\n'
        '        n0_0 [label="write"]\n'
        '        n0_1 [label="proof"]\n'
        "    }\n"
        '    n1 [label="send"]\n'
        "    n0_1 -> n1 [ltail=cluster_n0]\n"
        "    n0_0 -> n0_1\n"
        "}\n"
    )


async def test_a_run_is_drawn_with_states_times_and_rounds(watch: Watch, clock: VirtualClock) -> None:
    @actor
    async def draft(goal: str) -> str:
        await clock.sleep(0.35)
        return goal

    @actor
    async def check(draft: str, ctx: ActorContext) -> Any:
        await clock.sleep(90)
        if ctx.round == 0:
            return Goto("draft")
        raise ValueError("no use")

    @actor(when=lambda goal: False)
    async def unwanted(goal: str) -> None: ...

    @actor
    async def after(check: str) -> None: ...

    timeline = Timeline.of((await watch(draft, check, unwanted, after)).events)
    graph = Graph.build([draft, check, unwanted, after])

    assert graph.to_mermaid(timeline) == (
        "flowchart TD\n"
        '    n0["draft<br>done, 700 ms, x2"]\n'
        '    n1["check<br>failed, 3.0 min, x2"]\n'
        '    n2["unwanted<br>skipped"]\n'
        '    n3["after"]\n'
        "    n0 --> n1\n"
        "    n1 --> n3\n"
        "    n1 -. again .-> n0\n"
        "    classDef done fill:#d9f2df,stroke:#2e7d4f,color:#111\n"
        "    class n0 done\n"
        "    classDef failed fill:#fbdcdc,stroke:#b3261e,color:#111\n"
        "    class n1 failed\n"
        "    classDef skipped fill:#f7f7f7,stroke:#9a9a9a,color:#111,stroke-dasharray:4\n"
        "    class n2 skipped\n"
    )
    assert (
        '    n1 [label="check\\nfailed, 3.0 min, x2", style="filled", fillcolor="#fbdcdc", color="#b3261e"]\n'
    ) in graph.to_dot(timeline)
    assert '    n3 [label="after"]\n' in graph.to_dot(timeline)
    assert '    n1 -> n0 [style=dashed, label="again", constraint=false]\n' in graph.to_dot(timeline)


async def test_what_was_spawned_is_drawn_beside_who_has_spawned_it(watch: Watch) -> None:
    @actor
    async def plan(goal: str, ctx: ActorContext) -> Any:
        return await ctx.map("search", ["a", "b/c 5%"], key=str, limit=1)

    @actor
    async def read(plan: list[str]) -> None: ...

    timeline = Timeline.of((await watch(plan, search, read)).events)
    graph = Graph.build([plan, search, read])
    mermaid, dot = graph.to_mermaid(timeline), graph.to_dot(timeline)

    assert (
        '    subgraph n0_all[" "]\n        n0["plan<br>done, < 1 ms"]\n'.replace("< 1", "&lt; 1")
        + '        n0_0["search[a]<br>done, &lt; 1 ms"]\n'
        '        n0_1["search[b/c 5%]<br>done, &lt; 1 ms"]\n'
        "    end\n"
    ) in mermaid
    assert ["n0 --> n2", "n0 -.-> n0_0", "n0 -.-> n0_1"] == re.findall(
        r"^    (n\S* -\S* n\S*)$", mermaid, re.MULTILINE
    )
    assert "    style n0_all fill:none,stroke-dasharray:4\n" in mermaid
    assert '        graph [label="", style=dashed, color=gray]\n' in dot
    assert "    n0 -> n0_1 [style=dotted]\n" in dot
    assert "    n0 -> n2\n" in dot


async def test_of_a_crowd_only_the_number_is_drawn_with_the_worst_state(watch: Watch) -> None:
    @actor(on_demand=True)
    async def look(number: int) -> int:
        if number == 7:
            raise ValueError(number)
        return number

    @actor
    async def plan(goal: str, ctx: ActorContext) -> Any:
        return await ctx.map("look", range(1000))

    run = await watch(plan, look, settings={"on_error": "continue"}, max_iterations=2000)
    mermaid = Graph.build([plan, look]).to_mermaid(Timeline.of(run.events))

    assert '        n0_0["look x1000<br>1 failed, 999 done"]\n' in mermaid
    assert "    class n0_0 failed\n" in mermaid
    assert len(mermaid.splitlines()) < 20


async def test_a_run_within_a_run_is_drawn_in_its_frame(watch: Watch) -> None:
    @actor
    async def split(goal: str, ctx: ActorContext) -> Any:
        return await ctx.call(search, key="x", topic="t")

    inner = Conductor([split, search], name="inner", output="split")
    timeline = Timeline.of((await watch(inner)).events)
    dot = Conductor([inner]).graph().to_dot(timeline)

    assert (
        '    subgraph cluster_n0 {\n        graph [label="inner\\ndone, < 1 ms", style="filled", '
        'fillcolor="#d9f2df", color="#2e7d4f"]\n        subgraph cluster_n0_0_all {\n'
    ) in dot
    assert '            n0_0_0 [label="search[x]\\ndone, < 1 ms", ' in dot
    assert "    n0_0 -> n0_0_0 [style=dotted]\n" in dot


@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="#/"), min_size=1),
        min_size=1,
        unique=True,
    )
)
@settings(deadline=None)
def test_whatever_a_name_holds_stays_in_its_quotes(names: list[str]) -> None:
    actors = [actor(lambda goal: goal, name=f"_{name}") for name in names]
    graph = Graph.build(actors)
    mermaid, dot = graph.to_mermaid().split("\n"), graph.to_dot().split("\n")

    assert len(names) == sum(bool(re.fullmatch(r' {4}n\d+\["[^"<>]*"\]', line)) for line in mermaid)
    assert len(names) == sum(
        bool(re.fullmatch(r' {4}n\d+ \[label="(?:[^"\\]|\\["\\])*"\]', line)) for line in dot
    )


async def test_without_a_run_nothing_has_a_state(watch: Watch) -> None:
    graph = Conductor([REPORT, send]).graph()

    assert graph.to_mermaid() == graph.to_mermaid(Timeline())
    assert graph.to_dot() == graph.to_dot(Timeline())
