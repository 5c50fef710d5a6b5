from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "queue.md"
RULES = [f"C{number}" for number in range(1, 51)]
ROW = re.compile(r"^\| (C\d+) \|(.*)\|$", re.MULTILINE)


def rows() -> list[tuple[str, str]]:
    table = PAGE.read_text().partition("\n## Where each rule is checked\n")[2]
    return [(found[1], found[2]) for found in ROW.finditer(table)]


def linked(cells: str) -> list[Path]:
    return [PAGE.parent / link for link in re.findall(r"\]\(([^)]+)\)", cells)]


def test_each_rule_is_told_once_and_in_order() -> None:
    assert RULES == re.findall(r"^- \*\*(C\d+)\*\* ", PAGE.read_text(), re.MULTILINE)


def test_the_table_has_each_rule_once_and_in_order() -> None:
    assert RULES == [rule for rule, _ in rows()]


@pytest.mark.parametrize(("rule", "cells"), rows())
def test_each_file_that_is_named_checks_its_rule(rule: str, cells: str) -> None:
    checks = f"def test_c{int(rule[1:]):02}_"

    files = linked(cells)

    assert files, f"no file is named that checks {rule}"
    assert [] == [file.name for file in files if checks not in file.read_text()]
