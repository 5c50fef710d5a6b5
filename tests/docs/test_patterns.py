"""The patterns on the page on workflows: each gives the same now and from a queue, by the same code."""

from __future__ import annotations

import re
import sys
from datetime import date
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from jotty import Conductor, MemoryTaskQueue, TaskStatus, WorkflowMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jotty import Result

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "workflows.md"
BLOCK = re.compile(r"^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
# what is of one mode only, or about how a run ends without a result
NO_PATTERNS = {"Cancel", "Talking"}


class Pattern:
    """An example of the page.

    Args:
        module: What importing it gives.

    Attributes:
        conductor: Whose actors run.
        goal: What they run towards.
        context: What they may bind besides.
        outputs: What is supplied instead of running its actor.
        answers: What a person says, by question.
    """

    def __init__(self, module: Any) -> None:
        self.conductor: Conductor = module.conductor
        self.goal: str = module.goal
        self.context: dict[str, Any] = getattr(module, "context", {})
        self.outputs: dict[str, Any] = getattr(module, "outputs", {})
        self.answers: dict[str, Any] = getattr(module, "answers", {})

    async def now(self) -> Result:
        flow = WorkflowMode(self.conductor)
        async with flow.execute_stream(self.goal, self.context, outputs=self.outputs) as stream:
            async for event in stream:
                if event["type"] == "input_required" and event["key"] in self.answers:
                    stream.answer(event["key"], self.answers[event["key"]])
            return await stream.result()

    async def later(self) -> Result:
        async with MemoryTaskQueue() as queue:
            flow = WorkflowMode(self.conductor, "async", queue)
            task_id = await flow.enqueue_task(self.goal, self.context, outputs=self.outputs)
            await flow.process_queue(drain=True)
            for key, answer in self.answers.items():
                await flow.answer(task_id, key, answer)
                await flow.process_queue(drain=True)
            task = await queue.get(task_id)
            if task is not None and task.status is TaskStatus.BLOCKED:  # until its question expires
                await flow.process_queue(max_tasks=1)
            return await flow.result(task_id, timeout=1)


def sections() -> Iterator[tuple[str, str]]:
    for section in PAGE.read_text().split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        yield title, text


def listed() -> list[str]:
    """Return the sections to which the table at the top of the page leads."""
    return re.findall(r"^\|.*\| \[([\w -]+)\]\(#", PAGE.read_text(), re.MULTILINE)


def examples() -> list[Any]:
    found = [
        (title, code)
        for title, text in sections()
        for code in BLOCK.findall(text)
        if "\nconductor = " in code and "\ngoal = " in code
    ]
    return [pytest.param(code, id=f"{number} {title}") for number, (title, code) in enumerate(found, 1)]


def test_each_pattern_of_the_table_has_an_example_of_the_common_form() -> None:
    given = {str(each.id).partition(" ")[2] for each in examples()}

    assert [] == [title for title in listed() if title not in given | NO_PATTERNS]
    assert NO_PATTERNS <= {title for title, _ in sections()}
    assert {title.lower().replace(" ", "-") for title in listed()} == set(
        re.findall(r"\]\(#([\w-]+)\) \|$", PAGE.read_text(), re.MULTILINE)
    )


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Pattern]:
    """Return what imports an example anew, as `jotty run pattern.py` does."""

    def load(code: str) -> Pattern:
        path = tmp_path / "pattern.py"
        path.write_text(code)
        spec = spec_from_file_location("pattern", path)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "pattern", module)
        spec.loader.exec_module(module)
        return Pattern(module)

    return load


@pytest.mark.parametrize("code", examples())
async def test_now_and_from_a_queue_it_comes_to_the_same(code: str, load: Callable[[str], Pattern]) -> None:
    with anyio.fail_after(10):
        now = await load(code).now()
        later = await load(code).later()

    assert now["final_output"] == later["final_output"]
    assert now["success"] == later["success"]
    assert now["actor_outputs"].keys() == later["actor_outputs"].keys()
    assert set(now["metadata"]["path"]) == set(later["metadata"]["path"])  # who asks starts anew
    assert now["metadata"]["usage"] == later["metadata"]["usage"]
    assert [error["type"] for error in now["errors"]] == [error["type"] for error in later["errors"]]


async def test_a_final_output_of_ones_own_type_comes_from_a_queue_too() -> None:
    async def deadline(goal: str) -> date:
        return date.fromisoformat(goal)

    async with MemoryTaskQueue() as queue:
        flow = WorkflowMode(Conductor([deadline]), "async", queue)
        task_id = await flow.enqueue_task("2026-10-01")
        await flow.process_queue(drain=True)
        result = await flow.result(task_id, timeout=1)

    assert "2026-10-01" == str(result["final_output"])
