from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jotty_backends.sqlite import SQLiteBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
async def backend(path: Path) -> AsyncIterator[SQLiteBackend]:
    made = SQLiteBackend(path, busy_timeout=0.3)
    await made.open()
    yield made
    await made.aclose()
