from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from jotty.cli import store
from jotty.cli.documents import age
from jotty.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Jotty


def test_a_store_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.01)

    async def ask() -> None:
        with store.answering("sqlite:///tasks.db"):
            await anyio.sleep_forever()

    with pytest.raises(StorageError, match="does not answer"):
        anyio.run(ask)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(None, ""), (0.04, "0.0 s"), (59, "59.0 s"), (90, "1.5 min"), (5400, "1.5 h"), (129_600, "1.5 d")],
)
def test_an_age_is_told_in_the_unit_that_suits_it(seconds: float | None, expected: str) -> None:
    assert expected == age(seconds)


def test_a_file_that_is_no_store_is_reported_as_unreachable(jotty: Jotty, tmp_path: Path) -> None:
    (tmp_path / "tasks.db").write_text("This is no database. " * 500)

    ran = jotty("status", "-q", f"sqlite:///{tmp_path / 'tasks.db'}")

    assert 75 == ran.exit_code
    assert "Traceback" not in ran.stderr
