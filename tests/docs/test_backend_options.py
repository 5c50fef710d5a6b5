from __future__ import annotations

import re
from pathlib import Path

import pytest

from jotty.core.queue import load_backend

PAGE = Path(__file__).parents[2] / "docs" / "backends.md"
OF_EACH_QUEUE = {"max_payload", "max_size"}


def documented(backend: str) -> set[str]:
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", PAGE.read_text(), re.MULTILINE)
    return {option for option, backends in rows if backends == "all" or backend in backends.split(", ")}


@pytest.mark.parametrize("backend", ["file", "memory", "sqlite"])
def test_each_option_of_a_url_is_documented(backend: str) -> None:
    expected = {*load_backend(backend).options} | OF_EACH_QUEUE

    assert expected == documented(backend)
