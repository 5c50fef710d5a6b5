from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jotty import MemoryTaskQueue, TaskStatus, WorkflowMode

if TYPE_CHECKING:
    from types import ModuleType

    from jotty import Conductor, Question

pytestmark = pytest.mark.anyio


def load() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "broken_links.py"
    spec = importlib.util.spec_from_file_location("broken_links", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def conductor() -> Conductor:
    found: Conductor = load().conductor
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with links of every kind, one of which leads nowhere."""
    (tmp_path / "more").mkdir()
    (tmp_path / "a.md").write_text("[b](more/b.md#part) [web](https://example.org) [here](#part)\n")
    (tmp_path / "more" / "b.md").write_text("[a](../a.md) [lost](lost.md)\n")
    return tmp_path


def found_in(folder: Path) -> str:
    return f"{folder / 'more' / 'b.md'}: lost.md\n"


async def test_it_writes_what_it_found_if_that_is_wanted(conductor: Conductor, folder: Path) -> None:
    questions: list[Question] = []

    def answer(question: Question) -> str:
        questions.append(question)
        return "yes"

    result = await WorkflowMode(conductor).execute("g", {"folder": str(folder)}, on_ask=answer)

    written = folder / "broken-links.txt"
    told = "Broken links in 2 pages: 1"
    assert [f"{told}. Write them to broken-links.txt?"] == [each.question for each in questions]
    assert f"{told}, written to {written}." == result["final_output"]
    assert found_in(folder) == written.read_text()


async def test_it_writes_nothing_if_it_is_not_wanted(conductor: Conductor, folder: Path) -> None:
    result = await WorkflowMode(conductor).execute(
        "g", {"folder": str(folder)}, on_ask=lambda _question: "no"
    )

    assert "Broken links in 2 pages: 1." == result["final_output"]
    assert not (folder / "broken-links.txt").exists()


async def test_it_asks_nothing_where_all_links_lead_somewhere(conductor: Conductor, folder: Path) -> None:
    (folder / "more" / "lost.md").touch()

    result = await WorkflowMode(conductor).execute("g", {"folder": str(folder)})

    assert "All links of 3 pages lead somewhere." == result["final_output"]


async def test_from_a_queue_it_waits_for_the_answer_and_checks_no_page_again(
    conductor: Conductor, folder: Path
) -> None:
    async with MemoryTaskQueue() as queue:
        flow = WorkflowMode(conductor, "async", queue)
        task_id = await flow.enqueue_task("g", {"folder": str(folder)})
        await flow.process_queue(drain=True)
        waiting = await queue.get(task_id)
        await flow.answer(task_id, "write", "yes")
        await flow.process_queue(drain=True)
        result = await flow.result(task_id, timeout=1)

    assert waiting is not None
    assert TaskStatus.BLOCKED is waiting.status
    assert found_in(folder) == (folder / "broken-links.txt").read_text()
    path = result["metadata"]["path"]
    assert 2 == len([label for label in path if label.startswith("broken/check")])
