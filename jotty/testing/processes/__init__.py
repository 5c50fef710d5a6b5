"""Programs that share a store, and the harness that starts, stops and kills them in real time.

`Harness` runs `python -m jotty.testing.processes.<program>`; each program writes a history, which
`check_history` judges. The programs need nothing but jotty; their event loop is asyncio or trio.
"""

from __future__ import annotations

from .harness import Harness, Process
from .recording import RecordedBackend

__all__ = ["Harness", "Process", "RecordedBackend"]
