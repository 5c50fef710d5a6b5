from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.main import get_group

from jotty.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONSOLE = re.compile(r"^```console\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
NOT_OURS = re.compile(r"\||>.*|&&")


def command_lines() -> Iterator[str]:
    for page in PAGES:
        for block in CONSOLE.findall(page.read_text()):
            lines = (line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ "))
            pieces = (piece.strip() for line in lines for piece in NOT_OURS.split(line))
            yield from (piece for piece in pieces if piece.startswith("jotty "))


@pytest.mark.parametrize("line", sorted(set(command_lines())))
def test_each_command_line_is_one_that_jotty_takes(line: str) -> None:
    _, name, *arguments = shlex.split(line)

    command = get_group(app).commands.get(name)

    assert command is not None
    assert [] == command.make_context(name, arguments).args
