from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.command import QUESTIONS
from benchmarks.measuring import Contender, Figures, take_turns
from benchmarks.reporting import Answer, Table, Target

ROOT = Path(__file__).parents[2]

times = st.lists(st.floats(0.5, 1e6), min_size=1, max_size=20)


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def check_row(row: dict[str, Any]) -> None:
    assert {"name", "median", "min", "max", "p95", "samples", "ratios"} == row.keys()
    assert row["min"] <= row["median"] <= row["p95"] <= row["max"]
    assert row["samples"]
    assert all(ratio > 0 for ratio in row["ratios"].values())


def check_target(target: dict[str, Any]) -> None:
    assert {"text", "bound", "measured", "is_least", "unit", "is_met"} == target.keys()
    assert (target["measured"] is None) == (target["is_met"] is None)


@pytest.mark.parametrize("question", QUESTIONS)
def test_each_question_is_answered_in_words_and_as_json(question: str, tmp_path: Path) -> None:
    found, stores = tmp_path / "found.json", tmp_path / "stores"
    stores.mkdir()
    only = ["--only", question, "--json", str(found), "--directory", str(stores)]

    ran = run("-m", "benchmarks.queue", "--smoke", *only)

    assert 0 == ran.returncode, ran.stderr
    assert [] == list(stores.iterdir())
    assert question in ran.stderr
    written = json.loads(found.read_text())
    assert {"machine", "effort", "questions"} == written.keys()
    assert {"machine", "python", "sqlite", "jotty", "huey", "fsync"} <= written["machine"].keys()
    assert [question] == list(written["questions"])
    answer = written["questions"][question]
    assert answer["targets"]
    for table in answer["tables"]:
        assert f"**{table['title']}**" in ran.stdout
        assert table["rows"]  # alone, where its peers are not installed
        for row in table["rows"]:
            check_row(row)
    for target in answer["targets"]:
        assert target["text"] in ran.stdout
        check_target(target)


@pytest.mark.parametrize("cwd", [ROOT, ROOT / "benchmarks"])
def test_it_may_be_started_as_a_script_whose_name_is_that_of_a_standard_module(
    cwd: Path, tmp_path: Path
) -> None:
    script = (ROOT / "benchmarks" / "queue.py").relative_to(cwd)

    ran = run(str(script), "--smoke", "--only", "enqueue", "--directory", str(tmp_path), cwd=cwd)

    assert 0 == ran.returncode, ran.stderr
    assert "### enqueue" in ran.stdout


@given(times, st.floats(0.01, 100))
def test_a_ratio_is_that_of_the_same_rounds(samples: list[float], factor: float) -> None:
    peer = Figures(tuple(samples))
    own = Figures(tuple(factor * sample for sample in samples))

    assert pytest.approx(factor) == own.over(peer)
    assert pytest.approx(1 / factor) == Table("t", {"own": own, "peer": peer}).ratio("own", "peer")


@given(times)
def test_the_median_and_the_tail_are_samples_or_between_two(samples: list[float]) -> None:
    figures = Figures(tuple(samples))

    assert min(samples) <= figures.median <= figures.quantile(0.95) <= max(samples)
    assert max(samples) == figures.quantile(1)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (Target("what", 2.0, 2.0), True),
        (Target("what", 2.0, 1.9), False),
        (Target("what", 2.0, 2.0, is_least=False), True),
        (Target("what", 2.0, 2.1, is_least=False), False),
        (Target("what", 2.0, None), None),
    ],
)
def test_a_target_is_met_at_its_bound(target: Target, expected: object) -> None:
    assert target.is_met is expected


def test_a_peer_that_is_not_installed_leaves_its_column_and_its_target_out() -> None:
    table = Table("Cost", {"own": Figures((2.0,))}, {"x peer": "peer"})
    answer = Answer([table], [Target("speed", 2, table.ratio("own", "peer"))])

    assert "x peer" not in answer.markdown()
    assert "not measured" in answer.markdown()


def test_the_columns_of_a_table_are_aligned() -> None:
    rows = {"raw": Figures((1.0,)), "a longer name": Figures((12345.0,))}

    lines = Table("Cost", rows, {"x raw": "raw"}).markdown().splitlines()[2:]

    assert 4 == len(lines)
    assert 1 == len({len(line) for line in lines})


@pytest.mark.anyio
async def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    said: list[str] = []
    done: list[tuple[str, int]] = []

    def contender(name: str, tasks: int) -> Contender:
        async def note(what: str, number: int) -> None:
            done.append((what, number))

        return Contender(lambda n: note(name, n), tasks, lambda n: note(f"before {name}", n))

    figures = await take_turns([contender("a", 1), contender("b", 2)], 3, said.append)

    assert [3, 3] == [len(one.samples) for one in figures]
    assert ["warming up", "round 1 of 3", "round 2 of 3", "round 3 of 3"] == said
    rounds = [done[at : at + 4] for at in range(0, len(done), 4)]
    expected = [("a", 1), ("b", 2), ("before a", 1), ("before b", 2)]
    assert [expected] * 4 == [sorted(one) for one in rounds]
    assert all(
        (f"before {name}", number) == one[one.index((name, number)) - 1]
        for one in rounds
        for name, number in (("a", 1), ("b", 2))
    )
