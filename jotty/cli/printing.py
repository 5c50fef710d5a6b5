"""What commands print: rich on a terminal, plain text in a pipe, JSON where it is asked for."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, TextIO

import attrs
import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from jotty.core.orchestration.labels import readable

__all__ = [
    "console",
    "is_terminal",
    "print_json",
    "print_json_line",
    "print_output",
    "print_table",
    "say",
    "say_failures",
    "to_plain",
    "visible",
]


def is_terminal(stream: TextIO) -> bool:
    """Whether a person watches this stream, on a terminal that can move its cursor."""
    return stream.isatty() and not console(stream).is_dumb_terminal


def console(stream: TextIO) -> Console:
    """Return a rich console for a stream; in a pipe it prints plain text, whatever the environment says."""
    is_watched = stream.isatty()
    return Console(file=stream, force_terminal=is_watched, soft_wrap=not is_watched, highlight=False)


def say(text: str) -> None:
    """Tell a person something on stderr, beside the command's output."""
    typer.echo(text, err=True)


def say_failures(errors: Sequence[Mapping[str, Any]]) -> None:
    """Tell on stderr which actors' failures a run went on from."""
    for error in errors:
        who = readable(error["agent"])
        say(f"Warning: actor {who!r} failed with {error['type']}: {error['message']}")


_INVISIBLE = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " ") | {0x09: "\t", 0x0A: "\n"}


def visible(text: str) -> str:
    """Return a text with blanks for what would control a terminal, but for tabs and the ends of lines."""
    return text.translate(_INVISIBLE)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(to_plain(value), ensure_ascii=False, indent=2))


def print_json_line(value: Any) -> None:
    """Print one line of JSON, at once."""
    typer.echo(json.dumps(to_plain(value), ensure_ascii=False))


def print_output(output: Any) -> None:
    """Print what a run came to: text as Markdown on a terminal and as it is in a pipe, all else as JSON."""
    if not isinstance(output, str):
        print_json(output)
    elif is_terminal(sys.stdout):
        console(sys.stdout).print(Markdown(visible(output)))
    else:
        typer.echo(output, nl=not output.endswith("\n"))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, cuts: bool = False) -> None:
    """Print rows under a header: as a table on a terminal, with tabs between the cells in a pipe.

    Args:
        columns: The header.
        rows: As many cells each.
        cuts: Whether to cut off, on a terminal, what there is no room for of the last column, so that each
            row is one line.
    """
    if not is_terminal(sys.stdout):
        for row in (columns, *rows):
            typer.echo("\t".join(cell.translate(_NO_TABS) for cell in row))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for at, column in enumerate(columns):
        is_number = all(row[at].isdigit() for row in rows)
        is_last = at == len(columns) - 1
        table.add_column(column, justify="right" if is_number else "left", no_wrap=not is_last)
    for row in rows:
        table.add_row(*(Text(_in_one_line(cell), no_wrap=cuts, overflow="ellipsis") for cell in row))
    screen = console(sys.stdout)
    # rather have the terminal break a line than cut off an id
    needed = sum(2 + max(map(cell_len, cells)) for cells in list(zip(columns, *rows, strict=True))[:-1])
    screen.width = max(screen.width, needed + _LAST_COLUMN)
    screen.print(table)


def _in_one_line(text: str) -> str:
    return " ".join(visible(text).split())


_LAST_COLUMN = 12
_NO_TABS = str.maketrans("\t\n\r", "   ")


def to_plain(value: Any) -> Any:
    """Return the strict JSON that comes closest to a value; what has no likeness becomes text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_plain(each) for key, each in value.items()}
    if isinstance(value, (Sequence, AbstractSet)) and not isinstance(value, (bytes, bytearray)):
        return [to_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return _fields_of(value)


def _fields_of(value: Any) -> Any:
    is_value = not isinstance(value, type)
    if is_value and attrs.has(type(value)):
        return {each.name: to_plain(getattr(value, each.name)) for each in attrs.fields(type(value))}
    if is_value and dataclasses.is_dataclass(value):
        return {each.name: to_plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    return str(value)
