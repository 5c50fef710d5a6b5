"""How long something is, as people write it: 30s, 15m, 12h, 7d."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

import typer

from jotty.core.queue import check_seconds

__all__ = ["parse_duration"]

_SHAPE: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def parse_duration(text: str) -> timedelta:
    """Return the duration that a text stands for: a number and its unit, s, m, h or d.

    For options: `Annotated[timedelta, typer.Option("--older-than", parser=parse_duration)]`.

    Raises:
        typer.BadParameter: It is none, or more than a century.
    """
    found = _SHAPE.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no number with a unit. Write it like 30s, 15m, 12h or 7d.")
    seconds = float(found[1]) * _SECONDS[found[2]]
    try:
        check_seconds("the duration", seconds)
    except ValueError as wrong:
        raise typer.BadParameter(str(wrong)) from wrong
    return timedelta(seconds=seconds)
