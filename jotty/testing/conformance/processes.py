"""The rules of the queue contract that need several processes, and to kill some of them."""

from __future__ import annotations

from .process_journals import ProcessJournalRules
from .process_leases import ProcessLeaseRules
from .process_signals import ProcessSignalRules
from .process_storing import ProcessStoringRules

__all__ = ["ProcessRules"]


class ProcessRules(ProcessStoringRules, ProcessLeaseRules, ProcessJournalRules, ProcessSignalRules):
    """Every rule that is marked [M] or [K], by real processes in real time, with SIGKILL and SIGSTOP.

    Override the fixture `store_url`; it gives the address of an empty store, as `open_queue` takes it:

        class TestMyQueueAmongProcesses(ProcessRules):
            @pytest.fixture
            def store_url(self, tmp_path):
                return f"myqueue:///{tmp_path}/store"

    The processes find the backend by its entry point, so it must be installed. A rule is left out, and the
    reason told, where the backend does not declare the capability `processes`, and on Windows.
    """
