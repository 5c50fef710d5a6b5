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
from .terms import needs
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
    "needs",
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
    ProcessRules,
    PointRules,
    SystemCallRules,
    DiskRules,
):
    """Every rule of the queue contract, each by tests that are named after it: `test_c18_...` checks C18.

    Override the fixture `open_backend`; it gives a function that opens the test's own, at first empty, store
    again and again, each time as another handle, on the test's virtual clock:

        class TestMyQueue(TaskQueueConformance):
            @pytest.fixture
            def open_backend(self, clock, store_directory):
                return lambda: MyBackend(store_directory / "tasks", clock=clock)

    What one process can check runs on asyncio and on trio, in virtual time. What needs several processes is
    checked by real ones in real time: they open the store by the `url` of such a backend, which must
    therefore tell all that it takes, and find the backend by its entry point, which must be installed.

    A rule is left out only where `QueueBackend.capabilities` does not declare what it takes, and the test is
    then skipped with that reason. These are known:

    - `event_loops`: handles on one store may live in several threads of a process, each with its own loop
    - `processes`: several processes may use the store, and it outlives them
    - `files`: the store is made of files, and all of them stand below the fixture `store_directory`

    A test that is known to fail is named in `expected_failures`, with the reason, and then has to fail.

    Attributes:
        queue_class: What is made of the backends; it is called as `TaskQueue` is.
        points, visits: Where processes are to be killed: see `PointRules`.
        tuning: What is changed in all processes, to have happen soon what is rare: see `RealRules`.
        is_checked: Whether the store finds out every damage to its files.
    """

    requires = frozenset()  # a test of one's own takes nothing
