"""A quarterly report on a git repository, written from its own history by eight actors.

    jotty run examples/quarterly_report.py "Generate quarterly report" -c quarter=Q4 -c year=2026 -c repo=.

The same file runs in the background with `jotty enqueue` and `jotty worker`, and without the command line as
`python examples/quarterly_report.py --quarter Q4 --year 2026`. Its outputs are strict JSON, as a queue wants.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import anyio

from jotty.core.orchestration import Conductor, WorkflowMode, actor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

MAX_COMMITS = 2000  # the newest count; an output must fit into one entry of a task's journal
BAR = 24  # columns of the longest bar


class ReportError(Exception):
    """The report can't be written, for a reason that its reader can mend."""


class Period(TypedDict):
    """A quarter: its name, its first and its last day."""

    name: str
    first: str
    last: str


class Commit(TypedDict):
    """One commit, with the lines that it added to and removed from each area."""

    id: str
    author: str
    day: str
    subject: str
    areas: dict[str, list[int]]


class History(TypedDict):
    """The commits of a quarter, newest first."""

    name: str
    commits: list[Commit]
    omitted: int


class Share(TypedDict):
    """What one area, author or week has of the quarter."""

    name: str
    commits: int
    added: int
    removed: int


# Collect


@actor
async def period(quarter: str, year: int | str) -> Period:
    """Find the first and the last day of the quarter."""
    name = str(quarter).strip().upper()
    if name not in {"Q1", "Q2", "Q3", "Q4"}:
        raise ReportError(f"quarter must be Q1, Q2, Q3 or Q4, not {quarter!r}.")
    try:
        first = date(int(year), int(name[1]) * 3 - 2, 1)
        last = (first + timedelta(days=100)).replace(day=1) - timedelta(days=1)
    except (ValueError, TypeError, OverflowError):
        raise ReportError(f"year must be a year like 2026, not {year!r}.") from None
    return {"name": f"{name} {first.year}", "first": first.isoformat(), "last": last.isoformat()}


@actor
async def commits(period: Period, repo: str = ".") -> History:
    """Read the quarter's commits from the repository."""
    top = await git(repo, "rev-parse", "--show-toplevel")
    log = await git(
        repo,
        "log",
        "--no-merges",
        "--no-renames",
        "--numstat",
        f"--since={period['first']}T00:00:00Z",
        f"--until={period['last']}T23:59:59Z",
        "--date=format-local:%Y-%m-%d",
        "--format=%x1e%h%x1f%an%x1f%cd%x1f%s",
    )
    entries = [parse_commit(entry) for entry in log.split("\x1e")[1:]]
    shown = entries[:MAX_COMMITS]
    return {"name": Path(top.strip()).name, "commits": shown, "omitted": len(entries) - len(shown)}


async def git(repo: str, *arguments: str) -> str:
    """Return what git prints; nothing for a repository without commits."""
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    command = ["git", "-C", str(repo), "-c", "core.quotepath=off", *arguments]
    try:
        done = await anyio.run_process(command, check=False, stdin=subprocess.DEVNULL, env=environment)
    except FileNotFoundError:
        raise ReportError("The program git is not installed, and this report is made from its log.") from None
    if done.returncode == 0:
        return done.stdout.decode(errors="replace")
    problem = done.stderr.decode(errors="replace").strip()
    if "does not have any commits yet" in problem:
        return ""
    raise ReportError(f"{str(repo)!r} is no git repository that can be read: {problem}")


def parse_commit(entry: str) -> Commit:
    """Return a commit from its part of `git log --numstat`."""
    header, *lines = entry.splitlines()
    commit_id, author, day, subject = header.split("\x1f", 3)
    areas: dict[str, list[int]] = {}
    for line in filter(None, lines):
        added, removed, path = line.split("\t", 2)
        counted = areas.setdefault(area_of(path), [0, 0])
        counted[0] += int(added) if added.isdigit() else 0  # git has "-" for a binary file
        counted[1] += int(removed) if removed.isdigit() else 0
    return {"id": commit_id, "author": author, "day": day, "subject": subject[:200], "areas": areas}


def area_of(path: str) -> str:
    """Return the top-level directory of a file."""
    directory, slash, _ = path.strip('"').partition("/")
    return f"{directory}/" if slash else "(top level)"


# Measure: these run at the same time, and only if there is something to measure


def is_any(commits: History) -> bool:
    """Tell whether the quarter has commits."""
    return bool(commits["commits"])


@actor(when=is_any)
async def areas(commits: History) -> list[Share]:
    """Group the work by area."""
    return shares(
        (area, 1, added, removed)
        for commit in commits["commits"]
        for area, (added, removed) in commit["areas"].items()
    )


@actor(when=is_any)
async def authors(commits: History) -> list[Share]:
    """Group the work by author."""
    return shares((commit["author"], 1, *churn_of(commit)) for commit in commits["commits"])


@actor(when=is_any)
async def weeks(commits: History, period: Period) -> list[Share]:
    """Group the work by week, from the quarter's first to the last with a commit, idle ones included."""
    mondays = [monday_of(date.fromisoformat(commit["day"])) for commit in commits["commits"]]
    first = monday_of(date.fromisoformat(period["first"]))
    count = (max(mondays) - first).days // 7 + 1
    idle = [((first + timedelta(weeks=at)).isoformat(), 0, 0, 0) for at in range(count)]
    worked = [
        (monday.isoformat(), 1, *churn_of(commit))
        for monday, commit in zip(mondays, commits["commits"], strict=True)
    ]
    return sorted(shares([*idle, *worked]), key=lambda week: week["name"])


@actor(when=is_any)
async def largest(commits: History) -> list[Commit]:
    """Pick the commits that changed most."""
    return sorted(commits["commits"], key=lambda commit: -sum(churn_of(commit)))[:5]


def shares(parts: Iterable[tuple[str, int, int, int]]) -> list[Share]:
    """Sum up commits, added and removed lines by name, the largest first."""
    total: dict[str, Share] = {}
    for name, commits, added, removed in parts:
        share = total.setdefault(name, {"name": name, "commits": 0, "added": 0, "removed": 0})
        share["commits"] += commits
        share["added"] += added
        share["removed"] += removed
    return sorted(total.values(), key=lambda share: (-share["added"] - share["removed"], share["name"]))


def churn_of(commit: Commit) -> tuple[int, int]:
    """Return how many lines a commit added and removed."""
    lines = commit["areas"].values()
    return sum(added for added, _ in lines), sum(removed for _, removed in lines)


def monday_of(day: date) -> date:
    """Return the Monday of a day's week."""
    return day - timedelta(days=day.weekday())


# Write


@actor
async def write(
    commits: History,
    period: Period,
    *,
    areas: list[Share] | None = None,
    authors: list[Share] | None = None,
    weeks: list[Share] | None = None,
    largest: list[Commit] | None = None,
) -> AsyncIterator[str]:
    """Write the sections, one after the other; what measured nothing has none."""
    if not commits["commits"]:
        yield f"There are no commits between {period['first']} and {period['last']}.\n"
    if areas:
        yield f"## Where the work went\n\n{share_table('Area', areas)}\n"
    if weeks:
        yield f"## Week by week\n\nCommits in the week that begins on\n\n{bar_chart(weeks)}\n"
    if authors:
        yield f"## Who did it\n\n{share_table('Author', authors)}\n"
    if largest:
        yield f"## The largest changes\n\n{change_list(largest)}\n"
    if commits["omitted"]:
        yield f"*Left out: {counted(commits['omitted'], 'older commit', 'older commits')}.*\n"


def share_table(title: str, shares: Sequence[Share]) -> str:
    """Return a Markdown table of the largest shares."""
    rows = [f"| {title} | Commits | Lines added | Lines removed |", "| --- | ---: | ---: | ---: |"]
    for share in shares[:8]:
        numbers = f"{share['commits']:,} | {share['added']:,} | {share['removed']:,}"
        rows.append(f"| {cell(share['name'])} | {numbers} |")
    if len(shares) > len(rows) - 2:
        rows.append(f"| *{len(shares) - 8} more* | | | |")
    return "\n".join(rows) + "\n"


def cell(text: str) -> str:
    """Return a text that can't break a table."""
    return text.replace("|", "\\|")


def bar_chart(weeks: Sequence[Share]) -> str:
    """Return a bar chart of commits by week, in plain text."""
    most = max(week["commits"] for week in weeks)
    lines = [
        f"{week['name']}  {'█' * -(-week['commits'] * BAR // most):{BAR}} {week['commits']:>4}".rstrip()
        for week in weeks
    ]
    return "```text\n" + "\n".join(lines) + "\n```\n"


def change_list(changes: Sequence[Commit]) -> str:
    """Return a Markdown list of commits."""
    return "".join(
        f"- `{commit['id']}` {commit['subject']} (+{churn_of(commit)[0]:,} -{churn_of(commit)[1]:,})\n"
        for commit in changes
    )


@actor
async def edit(
    goal: str, write: str, commits: History, period: Period, areas: list[Share] | None = None
) -> AsyncIterator[str]:
    """Put title and summary first, and align the tables, so that the report also reads as plain text."""
    yield f"# {commits['name']}, {period['name']}\n\n*{goal}*\n"
    if areas:
        yield f"\n{summary(commits, period, areas)}\n"
    for block in write.strip().split("\n\n"):
        yield f"\n{aligned(block) if block.startswith('|') else block}\n"


def summary(history: History, period: Period, areas: Sequence[Share]) -> str:
    """Return the report in two sentences."""
    found = history["commits"]
    people = len({commit["author"] for commit in found})
    added, removed = (sum(column) for column in zip(*map(churn_of, found), strict=True))
    busiest, most = Counter(commit["day"] for commit in found).most_common(1)[0]
    return (
        f"Between {period['first']} and {period['last']}, **{counted(people, 'person', 'people')}** made "
        f"**{counted(len(found), 'commit', 'commits')}**, adding {added:,} lines and removing {removed:,}. "
        f"Most of that went into `{areas[0]['name']}`; the busiest day was {busiest}, "
        f"with {counted(most, 'commit', 'commits')}."
    )


def counted(number: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else many}"


def aligned(table: str) -> str:
    """Return a Markdown table with columns as wide as their widest cell, numbers to the right."""
    rows = [re.split(r"\s*(?<!\\)\|\s*", line.strip("|").strip()) for line in table.splitlines()]
    rows = [row + [""] * (len(rows[0]) - len(row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows[1] = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


conductor = Conductor(actors=[period, commits, areas, authors, weeks, largest, write, edit], name="reports")


# Without the command line


def parse_arguments() -> dict[str, Any]:
    """Return the context that the arguments make: by default this quarter, here."""
    today = datetime.now(UTC).date()
    parser = argparse.ArgumentParser(description="Write a quarterly report on a git repository.")
    parser.add_argument("--quarter", default=f"Q{(today.month + 2) // 3}")
    parser.add_argument("--year", default=today.year)
    parser.add_argument("--repo", default=".")
    return vars(parser.parse_args())


async def main(context: dict[str, Any]) -> None:
    """Print the report."""
    result = await WorkflowMode(conductor).execute("Generate quarterly report", context)
    print(result["final_output"])


if __name__ == "__main__":
    try:
        anyio.run(main, parse_arguments())
    except ReportError as error:
        sys.exit(f"Error: {error}")
