"""The directory: how it is made, and how one that is no store of ours is told apart and left alone."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jotty.errors import SchemaError, StorageError, StoreCorrupt
from jotty_backends.file_lock import FileLock

from .directory import Directory, sync
from .generation import LOG, VERSION, header_of
from .log import FileLog
from .note import LOCK, Note

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["open_store"]

logger = logging.getLogger("jotty.queue.file")

FORMAT: Final = "format.json"
_STORE: Final = "jotty file queue"
# what may be there of a store whose making was cut short
_UNFINISHED: Final = frozenset({LOCK, LOG, f"{LOG}.new", f"{FORMAT}.new"})
_NETWORK: Final = frozenset(
    {"9p", "afs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "nfs", "nfs4", "smb3", "smbfs", "virtiofs"}
)
_MOUNTS: Final = Path("/proc/self/mountinfo")
_RETRY_EVERY: Final = 0.005

_warned: set[str] = set()


def open_store(path: str, url: str, *, create: bool, is_synced: bool, patience: float) -> FileLog:
    """Return the log of the store in this directory, which is made if there is none.

    Args:
        path: The directory.
        url: The store's address, for errors.
        create: Whether to make it if there is none.
        is_synced: Whether what is written must survive the loss of power.
        patience: Seconds to wait for another process that makes it.

    Raises:
        SchemaError, StoreCorrupt, StorageError: See `QueueBackend.open`; nothing was written.
        OSError: The system refuses.
    """
    if sys.platform == "win32":
        raise StorageError(url, "it needs flock, which this system does not have. Use sqlite: instead.")
    root = _open_root(path, url, create=create)
    try:
        if not _is_store(root, url):
            _make(root, url, patience if create else None)
        _warn_of_network(root, url)
        return FileLog(root, url=url, is_synced=is_synced, patience=patience)
    except BaseException:
        root.close()
        raise


def _open_root(path: str, url: str, *, create: bool) -> Directory:
    try:
        return Directory(path)
    except FileNotFoundError:
        pass
    except OSError as refusal:
        if refusal.errno not in {errno.ELOOP, errno.ENOTDIR}:
            raise
        kind = "a symbolic link. Name what it points to" if Path(path).is_symlink() else "no directory"
        raise StorageError(url, f"{path!r} is {kind}.") from refusal
    if not create:
        raise StorageError(url, f"there is no store at {path!r}. Check the path.")
    parent = Path(path).parent
    if not parent.is_dir():
        raise StorageError(url, f"the directory {str(parent)!r} does not exist. Create it first.")
    Directory(str(parent.resolve())).make(Path(path).name)
    return Directory(path)


def _is_store(root: Directory, url: str) -> bool:
    """Whether this is a store of ours; False if there is nothing yet. Writes nothing."""
    names = root.names()
    if FORMAT not in names:
        _refuse_foreign(root, names, url)
        return False
    try:
        described = json.loads(root.read(FORMAT))
        found, kind = int(described["version"]), described["store"]
    except (ValueError, TypeError, KeyError) as damage:
        raise StoreCorrupt(url, f"{FORMAT} does not say what this directory is.") from damage
    if kind != _STORE or found != VERSION:
        raise SchemaError(url, found if kind == _STORE else 0, VERSION)
    if LOG not in names:
        raise StoreCorrupt(url, f"{LOG} is missing. Restore it from a backup, or delete the directory.")
    return True


def _refuse_foreign(root: Directory, names: Sequence[str], url: str) -> None:
    foreign = sorted(set(names) - _UNFINISHED)
    if foreign:
        problem = f"the directory holds files of something else, like {foreign[0]!r}. Name an empty one."
        raise StorageError(url, problem)
    if LOG in names and root.read(LOG) != header_of():
        raise StoreCorrupt(url, f"{FORMAT} is missing. Restore it from a backup, or delete the directory.")


def _make(root: Directory, url: str, patience: float | None) -> None:
    """Make the store, unless another process has just done so; None waits for nobody, and makes nothing.

    At every level it survives the loss of power, which otherwise might leave files without what they held.
    """
    if patience is None:
        raise StorageError(url, f"there is no store at {root.path!r}. Check the path.")
    lock = FileLock(str(Path(root.path) / LOCK), lambda: None, owner=root.owner)
    try:
        deadline = time.monotonic() + patience
        while not lock.try_acquire():
            if time.monotonic() > deadline:
                raise StorageError(url, f"another process has kept {lock.path!r} locked for {patience:g} s.")
            time.sleep(_RETRY_EVERY)
        if _is_store(root, url):
            return
        _sync_parent(root)
        root.prepare(LOG, header_of())
        root.establish(LOG)
        # last, for it says that the rest is there
        root.prepare(FORMAT, json.dumps({"store": _STORE, "version": VERSION}).encode() + b"\n")
        with closing(Note(root)) as note, note.suspecting():
            root.establish(FORMAT)
    finally:
        lock.close()


def _sync_parent(root: Directory) -> None:
    try:
        parent = Directory(str(Path(root.path).parent.resolve()))
    except PermissionError:
        return  # who may not read it did not make the directory in it
    sync(parent.descriptor)


def _warn_of_network(root: Directory, url: str) -> None:
    """Say once, where it can be told, that locks are not to be relied on here."""
    kind = _file_system(root.identity[0])
    if kind in _NETWORK and root.path not in _warned:
        _warned.add(root.path)
        logger.warning(
            "%s is on a network file system (%s), where locks may not hold. Use a local one.", url, kind
        )


def _file_system(device: int) -> str | None:
    """Return the kind of file system that a device holds; None if the system does not tell."""
    try:
        mounts = _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    name = f"{os.major(device)}:{os.minor(device)}"
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        if before.split()[2:3] == [name]:
            return after.split()[0]
    return None
