from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jotty.core.orchestration import WorkflowMode
from jotty.core.queue import check_json

if TYPE_CHECKING:
    from types import ModuleType

    from jotty.core.orchestration import Result

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = load("quarterly_report")


class Repository:
    """A git repository that is made for a test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, day: str = "2026-10-01T00:00:00Z", author: str = "Ada") -> None:
        who = {
            f"GIT_{role}_{what}": value
            for role in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", author), ("EMAIL", "ada@example.org"), ("DATE", day))
        }
        subprocess.run(["git", *arguments], cwd=self.path, check=True, env={**os.environ, **who})

    def commit(self, file: str, lines: int, subject: str, day: str, author: str = "Ada") -> None:
        path = self.path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("line\n" * lines)
        self.git("add", ".")
        self.git("commit", "--quiet", "-m", subject, day=day, author=author)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    (tmp_path / "engine").mkdir()
    return Repository(tmp_path / "engine")


@pytest.fixture
def busy(repository: Repository) -> Repository:
    repository.commit("old.txt", 1, "Before the quarter", "2026-09-30T23:59:59Z")
    repository.commit("src/engine.py", 30, "Start the engine", "2026-10-01T00:00:00Z")
    repository.commit(
        "docs/motor | drive.md", 5, "Explain the motor | drive", "2026-10-14T12:00:00Z", "Bo | B"
    )
    repository.commit("src/engine.py", 10, "Make it smaller", "2026-12-31T23:59:59Z", "Charlotte")
    repository.commit("new.txt", 1, "After the quarter", "2027-01-01T00:00:00Z")
    return repository


async def report_on(repository: Repository, quarter: str = "Q4", year: Any = 2026) -> Result:
    context = {"quarter": quarter, "year": year, "repo": str(repository.path)}
    return await WorkflowMode(example.conductor).execute("Generate quarterly report", context)


@given(year=st.integers(min_value=1, max_value=9998), number=st.integers(min_value=1, max_value=4))
def test_a_quarter_begins_the_day_after_the_one_before_it_ended(year: int, number: int) -> None:
    following = (f"Q{number + 1}", year) if number < 4 else ("Q1", year + 1)

    one = anyio.run(example.period, f"Q{number}", year)
    two = anyio.run(example.period, *following)

    assert date.fromisoformat(two["first"]) == date.fromisoformat(one["last"]) + timedelta(days=1)


async def test_the_report_counts_what_was_committed_in_the_quarter_and_nothing_else(busy: Repository) -> None:
    report = (await report_on(busy))["final_output"]

    assert report.startswith("# engine, Q4 2026\n\n*Generate quarterly report*\n")
    assert "**3 people** made **3 commits**, adding 35 lines and removing 20" in report
    assert "Most of that went into `src/`" in report
    assert "quarter*" not in report


async def test_the_tables_are_aligned_whatever_the_names_are(busy: Repository) -> None:
    lines = (await report_on(busy))["final_output"].splitlines()
    start = lines.index("## Who did it") + 2

    assert [
        "| Author    | Commits | Lines added | Lines removed |",
        "| --------- | ------: | ----------: | ------------: |",
        "| Ada       |       1 |          30 |             0 |",
        "| Charlotte |       1 |           0 |            20 |",
        "| Bo \\| B   |       1 |           5 |             0 |",
    ] == lines[start : start + 5]


async def test_the_chart_has_a_bar_for_each_week_with_work_and_room_for_each_without(
    busy: Repository,
) -> None:
    report = (await report_on(busy))["final_output"]
    chart = report.partition("```text\n")[2].partition("\n```")[0].splitlines()

    assert ["2026-09-28", "2026-12-28"] == [chart[0].split()[0], chart[-1].split()[0]]
    assert 14 == len(chart)
    assert 3 == sum("█" in line for line in chart)
    assert 3 == sum(int(line.split()[-1]) for line in chart)


async def test_the_outputs_of_all_actors_are_strict_json(busy: Repository) -> None:
    result = await report_on(busy)

    assert 8 == len(result["actor_outputs"])
    check_json(result["actor_outputs"], "outputs")


async def test_the_four_measurements_come_before_all_that_follows_from_them(busy: Repository) -> None:
    context = {"quarter": "q4", "year": "2026", "repo": str(busy.path)}
    async with WorkflowMode(example.conductor).execute_stream("Report", context) as stream:
        events = [(event["type"], event.get("agent")) async for event in stream]

    after_collecting = events[events.index(("agent_complete", "commits")) + 1 :]
    measurements = {"areas", "authors", "weeks", "largest"}
    told = [(kind, name) for name in measurements for kind in ("agent_start", "agent_complete")]
    assert sorted(told) == sorted(after_collecting[:8])


async def test_the_text_is_streamed_as_it_is_written(busy: Repository) -> None:
    context = {"quarter": "Q4", "year": 2026, "repo": str(busy.path)}
    async with WorkflowMode(example.conductor).execute_stream("Report", context) as stream:
        chunks = [event async for event in stream if event["type"] == "text_chunk"]
        result = await stream.result()

    edited = [chunk["text"] for chunk in chunks if chunk["agent"] == "edit"]
    assert len(edited) > 5
    assert "".join(edited) == result["final_output"]


async def test_an_empty_quarter_is_said_plainly(busy: Repository) -> None:
    result = await report_on(busy, "Q1")

    expected = "# engine, Q1 2026\n\n*Generate quarterly report*\n"
    assert f"{expected}\nThere are no commits between 2026-01-01 and 2026-03-31.\n" == result["final_output"]


async def test_in_an_empty_quarter_nothing_is_measured(busy: Repository) -> None:
    result = await report_on(busy, "Q1")

    assert ["period", "commits", "write", "edit"] == result["metadata"]["path"]


async def test_merges_are_not_counted(busy: Repository) -> None:
    busy.git("checkout", "--quiet", "-b", "branch", "HEAD~1")
    busy.commit("src/side.py", 7, "Work aside", "2026-11-11T11:11:11Z")
    busy.git("merge", "--quiet", "--no-edit", "main", day="2026-11-12T11:11:11Z")

    assert "**4 commits**, adding 42 lines" in (await report_on(busy))["final_output"]


async def test_a_repository_without_any_commit_is_an_empty_quarter(repository: Repository) -> None:
    assert "There are no commits" in (await report_on(repository))["final_output"]


async def test_what_is_left_out_of_a_very_busy_quarter_is_told(
    busy: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example, "MAX_COMMITS", 2)

    result = await report_on(busy)

    assert "*Left out: 1 older commit.*" in result["final_output"]


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ({"quarter": "Q5"}, "quarter must be Q1, Q2, Q3 or Q4, not 'Q5'"),
        ({"quarter": 4}, "not 4"),
        ({"year": "soon"}, "year must be a year like 2026, not 'soon'"),
        ({"year": 123456}, "not 123456"),
        ({"year": None}, "not None"),
        ({"repo": "/nowhere"}, "'/nowhere' is no git repository"),
        ({"repo": str(Path(sys.executable).anchor)}, "is no git repository"),
    ],
)
async def test_what_cannot_be_reported_on_is_said_with_the_value(context: dict[str, Any], words: str) -> None:
    whole = {"quarter": "Q4", "year": 2026, "repo": ".", **context}

    with pytest.raises(example.ReportError, match=words):
        await WorkflowMode(example.conductor).execute("Report", whole)


async def test_without_git_the_report_says_that_it_needs_it(
    busy: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(example.ReportError, match="git is not installed"):
        await report_on(busy)


def test_each_example_runs_as_a_script(busy: Repository, tmp_path: Path) -> None:
    arguments = {
        "quarterly_report.py": ["--quarter", "Q4", "--year", "2026", "--repo", str(busy.path)],
        "background.py": [],
        "broken_links.py": [str(tmp_path)],
    }
    scripts = sorted(path.name for path in EXAMPLES.glob("*.py"))

    printed = {
        script: subprocess.run(
            [sys.executable, str(EXAMPLES / script), *arguments[script]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for script in scripts
    }

    assert printed["quarterly_report.py"].startswith("# engine, Q4 2026")
    assert 2 == printed["background.py"].count("findings")
    assert "lead somewhere" in printed["broken_links.py"]


def test_a_wrong_argument_of_the_script_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "quarterly_report.py"), "--quarter", "Q9"]

    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (1, "Error: quarter must be Q1, Q2, Q3 or Q4, not 'Q9'.\n") == (ran.returncode, ran.stderr)
