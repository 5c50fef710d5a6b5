from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from jotty.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
MODULES = ("jotty.core.orchestration", "jotty.core.queue", "jotty.errors")


class Block(NamedTuple):
    """A block of code on a page, with the output that the page shows below it."""

    place: str
    language: str
    code: str
    output: str | None


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text()
        for found in BLOCK.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(f"{page.name}:{line}", found[1], found[2], found[3])


def blocks_of(language: str) -> list[Block]:
    return [block for block in blocks() if block.language == language]


def place(block: Block) -> str:
    return block.place


def section(page: str, title: str) -> str:
    text = (ROOT / page).read_text()
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("block", blocks_of("python"), ids=place)
def test_each_example_runs_and_prints_what_its_page_says(block: Block, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(block.code)

    ran = subprocess.run(
        [sys.executable, "-W", "error", "example.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (ran.returncode, ran.stderr)
    assert (block.output or "") == ran.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a repository with the examples in it."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for command in (["init", "--quiet"], ["add", "."], [*author, "commit", "--quiet", "-m", "Add examples"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(
    "block", [block for block in blocks_of("sh") if "pip install" not in block.code], ids=place
)
def test_each_script_runs_as_it_stands(block: Block, checkout: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.code],
        cwd=checkout,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        check=False,
    )

    assert 0 == ran.returncode, ran.stderr
    assert "# test_each_script" in ran.stdout


def test_the_two_commands_stand_in_one_line_each_and_need_nothing_else() -> None:
    commands = [block.code for block in blocks_of("sh") if "pip install" in block.code]

    assert [1, 1] == [command.count("\n") for command in commands]
    assert all(
        command.startswith("python3 -m venv .venv && .venv/bin/pip install -e ") for command in commands
    )
    assert "jotty run examples/quarterly_report.py" in commands[0]
    checks = "ruff check . && ruff format --check . && mypy && pyright && pytest -n auto"
    assert commands[1].endswith(f" && {checks}\n")


@pytest.mark.parametrize("command", [command.name for command in app.registered_commands])
def test_each_command_is_documented_with_an_example(command: str) -> None:
    assert f"$ jotty {command}" in section("docs/cli.md", command)


@pytest.mark.parametrize("module", MODULES)
def test_each_public_name_has_one_sentence(module: str) -> None:
    expected = sorted(importlib.import_module(module).__all__)

    documented = re.findall(r"^- `(\w+)`: \S.*\.$", section("docs/api.md", module), re.MULTILINE)

    assert expected == sorted(documented)


def test_each_name_of_the_package_is_listed_under_its_home() -> None:
    listed: dict[str, list[str]] = {}
    for line in section("docs/api.md", "jotty").splitlines():
        if line.startswith("- from "):
            home, *names = re.findall(r"`([\w.]+)`", line)
            listed[home] = names

    assert sorted(importlib.import_module("jotty").__all__) == sorted(chain.from_iterable(listed.values()))
    for home, names in listed.items():
        assert set(names) <= set(importlib.import_module(home).__all__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())

    assert [] == [link for link in links if not (page.parent / link).exists()]
