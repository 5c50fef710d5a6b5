"""Goals in a queue that survives this process, and a worker that runs them.

`python examples/background.py` enqueues two goals in tasks.db, works until both are done, and ends.
`process_queue()` alone would work until `stop_processing()` or Ctrl-C.
"""

from __future__ import annotations

import anyio

from jotty.core.orchestration import Conductor, WorkflowMode
from jotty.core.queue import SQLiteTaskQueue


async def research(goal: str) -> list[str]:
    """Find what belongs to the goal."""
    return [word.lower() for word in goal.split()]


async def write(goal: str, research: list[str]) -> str:
    """Write about what was found."""
    return f"{goal}: {len(research)} findings, the first is {research[0]!r}."


conductor = Conductor(actors=[research, write])


async def main() -> None:
    """Enqueue two goals, and run them here; a worker in any other process could, too."""
    async with SQLiteTaskQueue(db_path="tasks.db") as queue:
        workflow = WorkflowMode(
            conductor=conductor, execution="async", queue=queue, mode="dynamic", max_concurrent=3
        )
        urgent = await workflow.enqueue_task(goal="Analyse the third quarter", priority=1)
        later = await workflow.enqueue_task(goal="Plan the fourth quarter", priority=3)
        async with anyio.create_task_group() as group:
            group.start_soon(workflow.process_queue)
            for task_id in (urgent, later):
                result = await workflow.result(task_id, timeout=60)
                print(result["final_output"])
            workflow.stop_processing()


if __name__ == "__main__":
    anyio.run(main)
