"""The SQLite backend on a disk that is full, read-only or damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jotty.testing import DiskRules

if TYPE_CHECKING:
    from pathlib import Path


class TestSQLiteOnDisk(DiskRules):
    @pytest.fixture
    def store_url(self, store_directory: Path) -> str:
        return f"sqlite:///{store_directory}/tasks.db"
