from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from jotty.core.orchestration import Conductor, GraphOrchestrator
from jotty.testing import VirtualClock

if TYPE_CHECKING:
    from jotty.core.orchestration import Result


@attrs.define
class Watched:
    """What a run told and gave."""

    events: list[Any]
    result: Result | None = None
    error: BaseException | None = None

    @property
    def output(self) -> Any:
        return None if self.result is None else self.result["final_output"]

    @property
    def outputs(self) -> Any:
        return None if self.result is None else self.result["actor_outputs"]

    @property
    def path(self) -> Any:
        return [event["agent"] for event in self.events if event["type"] == "agent_start"]

    def told(self, *types: str) -> list[Any]:
        """The events of these types."""
        return [event for event in self.events if event["type"] in types]

    def story(self, *agents: str) -> list[str]:
        """The types of these agents' events, with the agent where there are several."""
        found = [event for event in self.events if event.get("agent") in agents]
        return [each["type"] if len(agents) == 1 else f"{each['agent']} {each['type']}" for each in found]


Watch = Callable[..., Awaitable[Watched]]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def watch(clock: VirtualClock) -> Watch:
    """Run actors under a virtual clock that jumps, and keep what happened."""

    async def run(
        *actors: Any,
        goal: str = "goal",
        mode: str = "dynamic",
        order: list[str] | None = None,
        settings: dict[str, Any] | None = None,
        **more: Any,
    ) -> Watched:
        conductor = Conductor(actors, clock=clock, **(settings or {}))
        orchestrator = GraphOrchestrator(conductor, mode, order, thread_grace=0.05)
        watched = Watched([])
        async with clock.autojump():
            try:
                watched.result = await orchestrator.prepare(goal, **more).execute(watched.events.append)
            except Exception as exc:  # noqa: BLE001  # whatever a run raises is looked at by the test
                watched.error = exc
        return watched

    return run
