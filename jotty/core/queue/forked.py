"""Where a process that user code forked ends, if it comes back to us: the work is its parent's."""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

from .lineage import generation

__all__ = ["end_if_forked"]


def end_if_forked(home: int, error: BaseException | None = None) -> None:
    """End this process at once unless it is the one that the caller began in; the parent notices nothing.

    A child that went on would run a copy of the event loop, which shares its parent's descriptors, and would
    never end. What it has printed is flushed; nothing is cleaned up, since all of that is the parent's.

    Args:
        home: The `generation` of the process that the caller began in.
        error: What the user's code raised, if it did: it decides on the exit code, as in any Python process.
    """
    if generation() != home:
        _end(error)


def _end(error: BaseException | None) -> NoReturn:
    code = 0
    try:
        code, told = _last_words(error)
        if told:
            sys.stderr.write(f"{told}\n")
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _last_words(error: BaseException | None) -> tuple[int, str]:
    """Return an exit code, and what is to be told."""
    if error is None:
        return 0, ""
    if not isinstance(error, SystemExit):
        return 1, traceback.format_exception_only(error)[-1].strip()
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF, ""
    return 1, str(error.code)
