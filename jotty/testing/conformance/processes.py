"""The rules of the queue contract that need several processes, and to kill some of them."""

from __future__ import annotations

from .process_journals import ProcessJournalRules
from .process_leases import ProcessLeaseRules
from .process_signals import ProcessSignalRules
from .process_storing import ProcessStoringRules

__all__ = ["ProcessRules"]


class ProcessRules(ProcessStoringRules, ProcessLeaseRules, ProcessJournalRules, ProcessSignalRules):
    """Every rule that is marked [M] or [K], by real processes in real time, with SIGKILL and SIGSTOP.

    For backends that declare the capability `processes`. The processes open the store by the `url` of the
    backend that the test's factory makes, and find the backend by its entry point, so it must be installed.
    """
