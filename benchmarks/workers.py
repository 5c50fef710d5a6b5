"""Starting workers in processes of their own, and reading what they tell."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Lines", "worker_process"]

ROOT: Final = Path(__file__).resolve().parents[1]
MAX_LINE: Final = 1000


class Lines:
    """What a process prints, line by line."""

    def __init__(self, stream: BufferedByteReceiveStream) -> None:
        self._stream = stream

    async def next(self) -> str:
        """Return the next line."""
        return (await self._stream.receive_until(b"\n", MAX_LINE)).decode()


@asynccontextmanager
async def worker_process(url: str, *options: str) -> AsyncIterator[Lines]:
    """Run a worker on a store that exists, until the block is left; it is idle when the block is entered."""
    command = [sys.executable, "-m", "benchmarks.worker_process", url, *options]
    async with await anyio.open_process(
        command, stdin=subprocess.DEVNULL, stderr=sys.stderr, cwd=ROOT
    ) as process:
        try:
            if process.stdout is None:
                raise RuntimeError("the worker has no stdout")
            lines = Lines(BufferedByteReceiveStream(process.stdout))
            await lines.next()
            yield lines
        finally:
            if process.returncode is None:
                process.terminate()
