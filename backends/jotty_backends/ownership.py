"""Whose a file is that root makes: whoever has the store would else not get at it any more."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TypeAlias

__all__ = ["Owner", "hand_over", "opened_for"]

Owner: TypeAlias = tuple[int, int]


def opened_for(owner: Owner | None, path: str, flags: int, *, dir_fd: int | None = None) -> int:
    """Return a descriptor of a file; one that root makes by this is given to the owner, as SQLite does.

    One that was there is given to nobody: who has the directory may have put a link to another's file there.

    Args:
        owner: User and group; None for whoever makes it.
        path: The file.
        flags: As for `os.open`.
        dir_fd: As for `os.open`.
    """
    if owner is None or not flags & os.O_CREAT or not _is_root_for(owner):
        return os.open(path, flags, 0o600, dir_fd=dir_fd)
    while True:
        try:
            descriptor = os.open(path, flags | os.O_EXCL, 0o600, dir_fd=dir_fd)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            with suppress(FileNotFoundError):  # it was deleted just now
                return os.open(path, flags & ~os.O_CREAT, dir_fd=dir_fd)
        else:
            hand_over(descriptor, owner)
            return descriptor


def hand_over(descriptor: int, owner: Owner) -> None:
    """Give what root has just made to its owner; where the system lets root not, it stays root's."""
    if sys.platform != "win32" and _is_root_for(owner):
        with suppress(OSError):
            os.fchown(descriptor, *owner)


def _is_root_for(owner: Owner) -> bool:
    return sys.platform != "win32" and os.geteuid() == 0 != owner[0]
