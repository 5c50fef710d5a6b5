"""Directories of ours: nothing outside of them is touched, and no symbolic link in them is followed."""

from __future__ import annotations

import errno
import os
import sys
import weakref
from contextlib import suppress
from typing import Final

from jotty.core.queue.points import reached
from jotty_backends.ownership import Owner, hand_over, opened_for

if sys.platform != "win32":
    import fcntl

__all__ = ["Directory", "cut", "lock_now", "read_at", "sync", "write"]

_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY: Final = getattr(os, "O_DIRECTORY", 0)
_CLOSE: Final = getattr(os, "O_CLOEXEC", 0)
_CHUNK: Final = 1 << 20


class Directory:
    """An open directory; whatever becomes of its name, this is the one that was opened.

    Args:
        path: Its path, or its name in the parent.
        parent: The directory that it stands in; None for one that stands anywhere.

    Attributes:
        path: As above.
        identity: What tells it from every other directory.
        owner: Whose it is that root makes in it: its owner, or that of the outermost of its parents here.
    """

    def __init__(self, path: str, parent: Directory | None = None) -> None:
        self.path = path
        flags = os.O_RDONLY | _DIRECTORY | _NO_LINK | _CLOSE
        self.descriptor: int = os.open(path, flags, dir_fd=None if parent is None else parent.descriptor)
        self.close = weakref.finalize(self, os.close, self.descriptor)
        found = os.fstat(self.descriptor)
        self.identity = found.st_dev, found.st_ino
        self.owner: Owner = (found.st_uid, found.st_gid) if parent is None else parent.owner

    def names(self) -> list[str]:
        """Return what stands in it."""
        return os.listdir(self.descriptor)  # noqa: PTH208 - by descriptor, not by name

    def status(self, name: str) -> os.stat_result:
        """Return the status of a file; of a link, its own."""
        return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)

    def identity_of(self, name: str) -> tuple[int, int] | None:
        """Return what tells a file from every other; None if it is not there."""
        try:
            found = self.status(name)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    @staticmethod
    def identity_of_open(descriptor: int) -> tuple[int, int]:
        """Return the same of a file that is open."""
        found = os.fstat(descriptor)
        return found.st_dev, found.st_ino

    def open(self, name: str, flags: int) -> int:
        """Return a descriptor of a file, which its owner alone may read."""
        return opened_for(self.owner, name, flags | _NO_LINK | _CLOSE, dir_fd=self.descriptor)

    def child(self, name: str, *, create: bool) -> Directory:
        """Return a directory in this one."""
        try:
            return Directory(name, self)
        except FileNotFoundError:
            if not create:
                raise
        is_made = self.make(name)
        directory = Directory(name, self)
        if is_made:
            hand_over(directory.descriptor, self.owner)
        return directory

    def make(self, name: str) -> bool:
        """Make a directory in this one, of whoever makes it; False if it is there."""
        reached("file.mkdir.before")
        try:
            os.mkdir(name, 0o700, dir_fd=self.descriptor)
        except FileExistsError:
            return False
        reached("file.mkdir.after")
        return True

    def read(self, name: str) -> bytes:
        """Return what a file holds."""
        descriptor = self.open(name, os.O_RDONLY)
        try:
            return read_at(descriptor, 0)
        finally:
            os.close(descriptor)

    def create(self, name: str, data: bytes, *, is_synced: bool) -> None:
        """Make a file; one that stands there was left behind by a process that died, and is replaced."""
        reached("file.create.before")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            descriptor = self.open(name, flags)
        except FileExistsError:
            os.unlink(name, dir_fd=self.descriptor)
            descriptor = self.open(name, flags)
        try:
            write(descriptor, data)
            if is_synced:
                sync(descriptor)
        finally:
            os.close(descriptor)
        reached("file.create.after")

    def prepare(self, name: str, data: bytes) -> None:
        """Write what is to be a file, under another name; it survives the loss of power."""
        made = f"{name}.new"
        self.remove(made)
        descriptor = self.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            reached("file.write.before")
            write(descriptor, data)
            reached("file.write.after")
            sync(descriptor)
        finally:
            os.close(descriptor)

    def establish(self, name: str) -> None:
        """Give what was prepared its name, in place of what has it: then it is there whole, and lasts."""
        self.rename(f"{name}.new", name)
        sync(self.descriptor)

    def rename(self, name: str, new: str, directory: Directory | None = None) -> None:
        """Give a file another name, or move it to another directory."""
        target = (directory or self).descriptor
        reached("file.rename.before")
        os.rename(name, new, src_dir_fd=self.descriptor, dst_dir_fd=target)
        reached("file.rename.after")

    def remove_child(self, name: str) -> bool:
        """Remove a directory in this one if it is empty; whether it was."""
        reached("file.rmdir.before")
        try:
            os.rmdir(name, dir_fd=self.descriptor)
        except OSError as refusal:
            if refusal.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            return False
        reached("file.rmdir.after")
        return True

    def remove(self, *names: str) -> None:
        """Remove files, where they are there."""
        for name in names:
            reached("file.remove.before")
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.descriptor)
            reached("file.remove.after")


def read_at(descriptor: int, start: int, end: int | None = None) -> bytes:
    """Return the bytes of a file from a place on, up to another or to the end."""
    pieces = []
    while end is None or start < end:
        wanted = _CHUNK if end is None else min(_CHUNK, end - start)
        piece = os.pread(descriptor, wanted, start)
        pieces.append(piece)
        start += len(piece)
        if len(piece) < wanted:
            break
    return b"".join(pieces)


def write(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of it, whatever the system takes at once."""
    while len(data) > (written := os.write(descriptor, data)):
        data = memoryview(data)[written:]


def cut(descriptor: int, length: int) -> None:
    """Cut a file off."""
    reached("file.cut.before")
    os.ftruncate(descriptor, length)
    reached("file.cut.after")


def lock_now(descriptor: int) -> None:
    """Lock a file until it is closed.

    Raises:
        BlockingIOError: Another has locked it.
    """
    if sys.platform != "win32":
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sync(descriptor: int) -> None:
    """Have a file or directory survive the loss of power."""
    reached("file.sync.before")
    os.fsync(descriptor)
    reached("file.sync.after")
