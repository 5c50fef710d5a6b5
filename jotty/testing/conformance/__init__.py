"""The queue contract as tests: one class to subclass, one fixture to override."""

from __future__ import annotations

from .claiming import ClaimRules
from .clients import ClientRules
from .damage import DamageRules
from .dependencies import DependencyRules
from .disks import DiskRules
from .enqueueing import EnqueueRules
from .faults import FaultRules
from .finishing import FinishRules
from .journals import JournalRules
from .leases import LeaseRules
from .payloads import PayloadRules
from .process_points import PointRules, SystemCallRules, go_on
from .processes import ProcessRules
from .rules import QueueFactory
from .seam import SeamRules
from .seam_reading import SeamReadingRules
from .states import StateRules
from .times import TimeRules
from .turns import TurnRules

__all__ = [
    "DiskRules",
    "PointRules",
    "ProcessRules",
    "QueueFactory",
    "SystemCallRules",
    "TaskQueueConformance",
    "go_on",
]


class TaskQueueConformance(
    StateRules,
    EnqueueRules,
    PayloadRules,
    ClaimRules,
    LeaseRules,
    FinishRules,
    TurnRules,
    ClientRules,
    DependencyRules,
    JournalRules,
    FaultRules,
    DamageRules,
    TimeRules,
    SeamRules,
    SeamReadingRules,
):
    """Every rule of the queue contract that one process can check, on asyncio and on trio.

    Override the fixture `open_backend`; it gives a function that opens the test's own, at first empty, store
    again and again, each time as another handle, on the test's virtual clock:

        class TestMyQueue(TaskQueueConformance):
            @pytest.fixture
            def open_backend(self, clock, tmp_path):
                return lambda: MyBackend(tmp_path / "store", clock=clock)

    A rule is left out only where the backend does not declare a capability in `QueueBackend.capabilities`;
    the test is then skipped with that reason. Known capabilities: `event_loops` (handles on one store may
    live in several threads of a process, each with its own event loop).

    Attributes:
        queue_class: What is made of the backends; it is called as `TaskQueue` is.
    """
