"""A log file: it lives from one snapshot to the next."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any, Final

import attrs

from jotty.errors import SchemaError, StoreCorrupt

from .directory import read_at
from .envelope import opened, sealed

if TYPE_CHECKING:
    from .directory import Directory

__all__ = ["LOG", "VERSION", "Generation", "header_of"]

VERSION: Final = 1
LOG: Final = "tasks.log"
_LONGEST: Final = 1000
_READ_ONLY: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def header_of(number: int = 1, base: int = 0, snapshot: str | None = None) -> bytes:
    """Return the first line of a log file; by default, of the first there is in a store."""
    fields = {"format": VERSION, "generation": number, "base": base, "snapshot": snapshot}
    return sealed(json.dumps(fields)[1:].encode())


@attrs.frozen
class Generation:
    """An open log file, and what its first line says.

    Attributes:
        descriptor: Of the file.
        identity: What tells it from every other.
        is_writable: Whether the system lets this process write it.
        number: One more with each snapshot.
        start: Where its lines begin.
        base: What was its `start` in the file of the generation before.
        snapshot: The file that holds the state at its beginning; None for the first generation.
    """

    descriptor: int
    identity: tuple[int, int]
    is_writable: bool
    number: int
    start: int
    base: int
    snapshot: str | None

    @classmethod
    def opened(cls, root: Directory, url: str) -> Generation:
        """Open the log file.

        Raises:
            SchemaError: It is of another version.
            StoreCorrupt: Its first line is damaged.
            OSError: It is missing, or the system refuses it.
        """
        try:
            descriptor, is_writable = root.open(LOG, os.O_RDWR | os.O_APPEND), True
        except OSError as refusal:
            if refusal.errno not in _READ_ONLY:
                raise
            descriptor, is_writable = root.open(LOG, os.O_RDONLY), False
        try:
            line = read_at(descriptor, 0, _LONGEST).partition(b"\n")[0]
            said = _header(line, url)
            identity = root.identity_of_open(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        number, base, snapshot = said["generation"], said["base"], said["snapshot"]
        return cls(descriptor, identity, is_writable, number, len(line) + 1, base, snapshot)

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)


def _header(line: bytes, url: str) -> dict[str, Any]:
    rest = opened(line)
    if rest is None:
        raise StoreCorrupt(url, f"the first line of {LOG} is damaged. Restore it from a backup.")
    said: dict[str, Any] = json.loads(b"{" + rest)
    if said["format"] != VERSION:
        raise SchemaError(url, said["format"], VERSION)
    return said
