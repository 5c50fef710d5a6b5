"""Where jotty's log lines go while a command runs; nothing else in jotty configures logging."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.logging import RichHandler

from .printing import console, is_terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

__all__ = ["logged"]


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


_OURS = (RichHandler, logging.StreamHandler)  # a NullHandler is neither


@contextmanager
def logged(level: int, *, as_json: bool = False, screen: Console | None = None) -> Iterator[None]:
    """Write what jotty logs from this level on to stderr: rich on a terminal, else plain or JSON lines.

    Within another one that shows less, it takes the place of that until its end; else it does nothing.

    Args:
        level: The least level that is shown.
        as_json: Write JSON lines.
        screen: The console that draws on the terminal already, if one does.
    """
    logger = logging.getLogger("jotty")
    outer = [one for one in logger.handlers if isinstance(one, _OURS)]
    if outer and logger.level <= level:
        yield
        return
    for one in outer:
        logger.removeHandler(one)
    handler, before = _handler(screen, as_json=as_json), (logger.level, logger.propagate)
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        for one in outer:
            logger.addHandler(one)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _handler(screen: Console | None, *, as_json: bool) -> logging.Handler:
    if is_terminal(sys.stderr) and not as_json:
        return RichHandler(console=screen or console(sys.stderr), show_path=False, log_time_format="%X")
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z")
    handler.setFormatter(_JsonLines() if as_json else plain)
    return handler
