"""The lines of a journal: an entry each, with its number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .directory import read_at
from .envelope import json_field, opaque, opened, sealed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["entry_in", "lines_of", "lines_with"]


def lines_with(entries: Sequence[bytes], *, first: int) -> bytes:
    """Return the lines of some entries, of which this is the first's number."""
    numbered = enumerate(entries, start=first)
    return b"".join(sealed(b'"n":%d,%s' % (number, json_field("entry", entry))) for number, entry in numbered)


def lines_of(descriptor: int, start: int, end: int) -> Iterable[bytes]:
    """Yield the lines of a file from one place to another, reading no more than it takes."""
    size, rest = 1 << 14, b""
    while start < end:
        data = read_at(descriptor, start, min(start + size, end))
        if not data:
            return
        start, size = start + len(data), min(2 * size, 1 << 20)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line + b"\n"


def entry_in(line: bytes, number: int) -> bytes | None:
    """Return the entry of a line; None if that is damaged, or has another number."""
    rest, start = opened(line[:-1]), b'"n":%d,' % number
    if rest is None or not rest.startswith(start):
        return None
    return opaque("entry", rest[len(start) :])
