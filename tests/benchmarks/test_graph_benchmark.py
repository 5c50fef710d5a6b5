from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.graphs import shapes
from benchmarks.graphs.command import QUESTIONS
from benchmarks.graphs.contenders import (
    ALONE,
    CONTENDERS,
    GROUP,
    LANGGRAPH,
    LANGGRAPH_COMMAND,
    PEERS,
    TASKS,
    TURNS,
    WATCHED,
    missing,
    trials,
)

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
OWN: list[str] = [TASKS, ALONE, WATCHED]
SHAPES: dict[str, tuple[shapes.Shape, list[str]]] = {
    "chain": (shapes.chain(12), [TURNS, *OWN, LANGGRAPH, "pydantic-graph", "burr", "hamilton"]),
    "layers": (shapes.layers(12, 4), [*OWN, LANGGRAPH, "hamilton"]),
    "fan-out": (shapes.fan_out(12), [GROUP, *OWN, LANGGRAPH, "pydantic-graph", "burr", "hamilton"]),
    "loop": (shapes.Loop(12), [TURNS, *OWN, LANGGRAPH, LANGGRAPH_COMMAND, "pydantic-graph", "burr"]),
    "fan-out that suspends": (
        shapes.suspending(shapes.fan_out(12)),
        [GROUP, *OWN, LANGGRAPH, "pydantic-graph", "burr", "hamilton"],
    ),
    "skew": (shapes.skewed(3, 0.001), [*OWN, LANGGRAPH, "hamilton"]),
}
ROWS = {name: able for name, (_, able) in SHAPES.items() if name in QUESTIONS and name != "skew"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # which most peers need


def check_row(row: dict[str, Any]) -> None:
    assert row["samples"]
    assert row["min"] <= row["median"] <= row["max"]


@pytest.mark.filterwarnings("default")  # a peer's own are no matter of ours
@pytest.mark.parametrize("shape", SHAPES)
async def test_everyone_who_can_express_a_shape_returns_what_it_must_again_and_again(shape: str) -> None:
    wanted, able = SHAPES[shape]

    found = await trials(wanted)

    assert {name for name in able if name not in missing()} == found.keys()
    for trial in found.values():
        if trial.prepare:
            await trial.prepare()
        assert wanted.expected == await trial.run()


async def test_a_contender_that_returns_anything_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wrong() -> dict[str, int]:
        return {}

    async def build(_: shapes.Shape) -> shapes.Trial:
        return shapes.Trial(wrong)

    monkeypatch.setitem(CONTENDERS, TASKS, build)

    with pytest.raises(RuntimeError, match=TASKS):
        await trials(shapes.chain(3))


@pytest.mark.parametrize("question", QUESTIONS)
def test_each_question_is_answered_in_words_and_as_json(question: str, tmp_path: Path) -> None:
    found, stores = tmp_path / "found.json", tmp_path / "stores"
    stores.mkdir()
    only = ["--smoke", "--only", question, "--json", str(found), "--directory", str(stores)]

    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.graph", *only],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert 0 == ran.returncode, ran.stderr
    assert [] == list(stores.iterdir())
    assert all(name in ran.stdout for name in missing())
    written = json.loads(found.read_text())
    assert {"machine", "size", "questions"} == written.keys()
    assert {"python", "jotty", "langgraph", "apache-burr"} <= written["machine"].keys()
    answer = written["questions"][question]
    assert answer["targets"]
    for target in answer["targets"]:
        assert target["text"] in ran.stdout
        assert (target["measured"] is None) == (target["is_met"] is None)
    for table in answer["tables"]:
        for row in table["rows"]:
            check_row(row)
    names = [row["name"] for row in answer["tables"][0]["rows"]]
    expected = [name for name in ROWS.get(question, []) if name not in missing()]
    assert set(expected) <= set(names)


@given(st.integers(1, 6), st.integers(1, 6))
def test_each_node_of_a_layer_joins_up_to_three_of_the_layer_before(number: int, width: int) -> None:
    dag = shapes.layers(number * width, width)

    names = list(dag.parents)
    rows = [names[at : at + width] for at in range(0, len(names), width)]
    assert number * width == len(dag)
    assert rows[-1] == dag.sinks
    assert all(not dag.parents[name] for name in rows[0])
    assert all(
        set(dag.parents[name]) <= set(above) and min(3, width) == len(set(dag.parents[name]))
        for above, row in pairwise(rows)
        for name in row
    )


@given(st.integers(1, 50))
def test_a_chain_and_a_fan_out_come_to_what_can_be_counted(nodes: int) -> None:
    assert {f"n{nodes - 1}": nodes} == shapes.chain(nodes).expected
    assert {shapes.JOIN: 1 + 2 * nodes} == shapes.fan_out(nodes).expected


def test_peers_that_are_missing_are_told_by_name() -> None:
    assert {LANGGRAPH, LANGGRAPH_COMMAND, "pydantic-graph", "burr", "hamilton"} == PEERS.keys()
    assert set(PEERS) - CONTENDERS.keys() == set(missing())
