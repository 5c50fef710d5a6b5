"""Payloads, outcomes and journals as files, a thousand tasks to a directory."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections import OrderedDict, deque
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import attrs

from jotty.core.queue.log.contents import Contents, Vanished
from jotty.core.queue.points import reached
from jotty.errors import StoreCorrupt

from .directory import Directory, cut, sync, write
from .envelope import json_field, opaque, opened, sealed
from .journal import entry_in, lines_of, lines_with
from .noted import NEW, Noted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from jotty.core.queue import Head

__all__ = ["DAMAGED", "FileContents", "name_of", "shard_of"]

logger = logging.getLogger("jotty.queue.file")

# in place of bytes that are lost, or cannot be read; no JSON, so that who decodes it finds out
DAMAGED: Final = b"damaged"
_SHARD: Final = 1000
_OPEN: Final = 16  # directories kept open
_PLACES: Final = 1000  # journals in which the place is known where the last reader stopped
_FORGOTTEN: Final = 10_000
_LONGEST: Final = 150
_NO_FILE: Final = frozenset({errno.EISDIR, errno.ELOOP})
# what a system says that will say the same again
_LASTING: Final = frozenset(
    {
        *(errno.EACCES, errno.EPERM, errno.ENOTDIR),
        *(errno.EIO, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO)),  # of a bad sector, of bad metadata
    }
)
_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")
_is_plain: Final = re.compile(rf"[a-z0-9_-]{{1,{_LONGEST}}}", re.ASCII).fullmatch


def shard_of(seq: int) -> tuple[str, str]:
    """Return the directories in which a task's files stand."""
    return f"{seq // _SHARD**2:03}", f"{seq // _SHARD % _SHARD:03}"


def name_of(head: Head) -> str:
    """Return what the names of a task's files begin with; no two tasks have it in common.

    Capital letters are encoded too, since not every file system tells them from small ones.
    """
    if _is_plain(head.id):
        return f"{head.seq}-{head.id}"
    encoded = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in head.id.encode())
    if len(encoded) > _LONGEST:
        encoded = f"~{sha256(head.id.encode()).hexdigest()}"
    return f"{head.seq}-{encoded}"


class FileContents(Contents):
    """The files of tasks below one directory.

    Args:
        root: The store's directory.
        url: The store's address, for errors.
        is_synced: Whether a file must survive the loss of power before the log tells of it.
    """

    def __init__(self, root: Directory, *, url: str, is_synced: bool) -> None:
        self._root = root
        self._url = url
        self._is_synced = is_synced
        self._noted: dict[str, Noted] = {}
        self._fresh: dict[tuple[str, str], bytes] = {}  # written since the log was last appended to
        self._shards: OrderedDict[tuple[str, ...], Directory] = OrderedDict()
        self._unsynced: dict[tuple[str, ...], Directory] = {}  # parents before their children
        self._lasting: set[tuple[str, ...]] = set()  # to which the way survives the loss of power
        self._replaced: list[tuple[Head, str]] = []
        # those of others as well: who deleted a task may have died before its files were gone
        self._forgotten: deque[tuple[Head, Noted]] = deque(maxlen=_FORGOTTEN)
        self._places: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._refused: set[str] = set()  # told of in the log, until they can be read

    def keep(
        self,
        head: Head,
        payload: bytes | None,
        outcome: bytes | None,
        entries: Sequence[bytes],
        undo: list[Callable[[], object]],
        *,
        is_new: bool,
    ) -> dict[str, Any]:
        """Write the files, and return what tells them from those of a process that dies now."""
        before = self._noted.get(head.id, NEW)
        undo.append(partial(self._note, head.id, before))
        noted = before
        if payload is not None:
            self._create(head, "payload", payload, undo)
        elif is_new:
            noted = attrs.evolve(noted, has_payload=False)
        if outcome is not None:
            noted = self._put_outcome(head, noted, outcome, undo)
        if entries:
            noted = self._extend(head, noted, entries)
        self._note(head.id, noted)
        return noted.notes_since(before)

    def learn(self, head: Head, notes: Mapping[str, Any]) -> None:
        """Take in what another process has noted."""
        noted = self._noted.get(head.id, NEW)
        learnt = noted.learnt(notes)
        if learnt is not noted:
            self._note(head.id, learnt)

    def notes(self) -> Callable[[Head], dict[str, Any]]:
        """Return what gives the notes of a task's files."""
        noted = self._noted.copy()
        return lambda head: noted.get(head.id, NEW).notes_since(NEW)

    def payload(self, head: Head) -> bytes | None:
        """Return the payload, or DAMAGED."""
        if not self._noted.get(head.id, NEW).has_payload:
            return None
        return self._read(head, "payload")

    def outcome(self, head: Head) -> bytes | None:
        """Return the outcome, or DAMAGED."""
        noted = self._noted.get(head.id, NEW)
        if noted.told is not None or not noted.outcome:
            return noted.told
        return self._read(head, "outcome", noted.outcome)

    def last_entry(self, head: Head) -> int:
        """Return the number of the last entry of the journal."""
        return self._noted.get(head.id, NEW).entries

    def entries(self, head: Head, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Return entries of the journal after a number.

        Raises:
            StoreCorrupt: One of them is damaged, or the file cannot be read.
        """
        noted = self._noted.get(head.id, NEW)
        found = self._entries_in_file(head, noted, after, limit) if after < noted.in_file else []
        late = list(enumerate(noted.late, start=noted.in_file + 1))[max(after - noted.in_file, 0) :]
        return (found + late)[:limit]

    def forget(self, head: Head, undo: list[Callable[[], object]]) -> None:
        """Have the files removed as soon as the log says so."""
        self._places.pop(head.id, None)
        noted = self._noted.pop(head.id, NEW)
        self._forgotten.append((head, noted))
        undo += [partial(self._note, head.id, noted), self._forgotten.pop]

    def flush(self) -> None:
        """Have the names of new files survive the loss of power; the files themselves do already."""
        for path, directory in list(self._unsynced.items()):
            sync(directory.descriptor)
            del self._unsynced[path]  # now, and not where the system refused
            self._lasting.add(path)

    def settle(self) -> None:
        """Remove the files of tasks that were deleted, and outcomes that were replaced."""
        self._fresh.clear()
        if not (self._replaced or self._forgotten):
            return
        replaced, self._replaced = self._replaced, []
        for head, name in replaced:
            self._remove(head, name)
        while self._forgotten:
            head, noted = self._forgotten.popleft()
            outcomes = (_name("outcome", number) for number in range(1, noted.outcome + 1))
            self._remove(head, "payload.json", "journal.jsonl", *outcomes)

    def sweep(self, last_seq: int, heads: Callable[[int, int], Sequence[Head]]) -> Iterator[None]:
        """Remove files that no task has, a directory at each step.

        Not where a line of the log was ever found damaged: they may be all that is left of a task.
        """
        if self._has_damaged_lines() or "tasks" not in self._root.names():
            return
        tasks = self._root.child("tasks", create=False)
        for name in filter(str.isdecimal, tasks.names()):
            with _passing_over():
                group = tasks.child(name, create=False)
                for shard in filter(str.isdecimal, group.names()):
                    first = int(name) * _SHARD**2 + int(shard) * _SHARD
                    known = {name_of(head) for head in heads(first, first + _SHARD)}
                    with _passing_over():
                        self._sweep_shard(group, shard, known, last_seq)
                        if first + _SHARD <= last_seq and group.remove_child(shard):
                            self._shards.pop(("tasks", name, shard), None)
                            self._lasting.discard(("tasks", name, shard))
                    yield

    def _has_damaged_lines(self) -> bool:
        try:
            names = self._root.child("damaged", create=False).names()
        except FileNotFoundError:
            return False
        except PermissionError:
            return True  # as far as anybody knows
        return any(name.startswith("tasks.log") for name in names)

    def _sweep_shard(self, group: Directory, shard: str, known: Collection[str], last_seq: int) -> None:
        directory = group.child(shard, create=False)
        for name in directory.names():
            task = name.partition(".")[0]
            seq = task.partition("-")[0]
            if task not in known and seq.isdecimal() and int(seq) <= last_seq:
                directory.remove(name)

    # Notes

    def _note(self, task_id: str, noted: Noted) -> None:
        if noted is NEW or noted == NEW:
            self._noted.pop(task_id, None)
        else:
            self._noted[task_id] = noted

    # Files

    def _shard(self, head: Head, *, create: bool = False) -> Directory:
        path = "tasks", *shard_of(head.seq)
        is_certain = not (create and self._is_synced) or path in self._lasting or path in self._unsynced
        if is_certain and path in self._shards:
            self._shards.move_to_end(path)
            return self._shards[path]
        directory = self._root
        for depth, name in enumerate(path):
            if not is_certain:
                self._unsynced[path[:depth]] = directory
            directory = directory.child(name, create=create)
        self._shards[path] = directory
        if len(self._shards) > _OPEN:
            self._shards.popitem(last=False)
        return directory

    def _put_outcome(
        self, head: Head, noted: Noted, outcome: bytes, undo: list[Callable[[], object]]
    ) -> Noted:
        number, told = noted.outcome + 1, None
        try:
            self._create(head, "outcome", outcome, undo, number)
        except OSError as refusal:
            # of a write or a sync that failed, no file is named: they are not to be passed over
            if refusal.filename is None or not self._is_its_own(head, refusal):
                raise
            problem = "%s: there can be no file for the outcome of task %s, which stands in the log: %s."
            logger.warning(problem, self._url, head.id, refusal.strerror)
            told = outcome
        if noted.outcome:
            self._replaced.append((head, _name("outcome", noted.outcome)))
            undo.append(self._replaced.pop)
        return attrs.evolve(noted, outcome=number, told=told)

    def _create(
        self, head: Head, kind: str, data: bytes, undo: list[Callable[[], object]], number: int = 0
    ) -> None:
        shard, name = self._shard(head, create=True), _file(head, kind, number)
        undo.append(partial(self._take_back, head, kind, name))
        shard.create(name, sealed(json_field(kind, data)), is_synced=self._is_synced)
        self._fresh[head.id, kind] = data
        if self._is_synced:
            self._unsynced["tasks", *shard_of(head.seq)] = shard

    def _take_back(self, head: Head, kind: str, name: str) -> None:
        self._fresh.pop((head.id, kind), None)
        with suppress(OSError):  # one that is left harms nobody
            self._shard(head).remove(name)

    def _remove(self, head: Head, *kinds: str) -> None:
        with suppress(OSError):  # what is left harms nobody
            self._shard(head).remove(*(f"{name_of(head)}.{kind}" for kind in kinds))

    def _read(self, head: Head, kind: str, number: int = 0) -> bytes:
        if (data := self._fresh.get((head.id, kind))) is not None:
            return data
        name = _file(head, kind, number)
        try:
            line = self._shard(head).read(name)
        except FileNotFoundError:
            if not self.is_certain:
                raise Vanished from None
            told = "%s: %s is missing, which held the %s of task %s. Restore it, or delete the task."
            logger.warning(told, self._url, name, kind, head.id)
            return DAMAGED
        except OSError as refusal:
            if refusal.errno in _NO_FILE:
                self._set_aside(head, kind, name)
            elif self._is_its_own(head, refusal):
                self._tell(head, kind, name, f"cannot be read: {refusal.strerror}")
            else:
                raise
            return DAMAGED
        self._refused.discard(name)
        rest = opened(line[:-1]) if line.endswith(b"\n") else None
        found = None if rest is None else opaque(kind, rest)
        if found is None:
            self._set_aside(head, kind, name)
            return DAMAGED
        return found

    def _set_aside(self, head: Head, kind: str, name: str) -> None:
        logger.warning("%s: %s is damaged, and set aside: the %s of task %s.", self._url, name, kind, head.id)
        with suppress(OSError):  # where nothing can be written, it stays
            self._shard(head).rename(name, name, self._root.child("damaged", create=True))

    def _is_its_own(self, head: Head, refusal: OSError) -> bool:
        """Whether the system refuses this task's file, or directory, for good, and not all the others too."""
        if refusal.errno not in _LASTING:
            return False
        try:
            self._root.child("tasks", create=False).child(shard_of(head.seq)[0], create=False).names()
        except OSError:
            return False
        return True

    def _tell(self, head: Head, kind: str, name: str, problem: str) -> str:
        """Return what is to be said of a file that is refused, having said it once in the log."""
        if name not in self._refused:
            self._refused.add(name)
            logger.warning(
                "%s: %s %s. It is of the %s of task %s, and stays where it is.",
                *(self._url, name, problem, kind, head.id),
            )
        return f"the {kind} of task {head.id} {problem}."

    # Journals

    def _extend(self, head: Head, noted: Noted, entries: Sequence[bytes]) -> Noted:
        """Append to the journal behind what the log says, in place of what a process that died has left."""
        name = _file(head, "journal")
        try:
            shard = self._shard(head, create=True)
            descriptor = shard.open(name, os.O_RDWR | os.O_CREAT)
        except OSError as refusal:
            if not self._is_its_own(head, refusal):
                raise
            problem = self._tell(head, "journal", name, f"cannot be written: {refusal.strerror}")
            if not head.status.is_terminal:
                raise StoreCorrupt(self._url, problem) from refusal
            return noted.with_late(entries)
        self._refused.discard(name)
        data = lines_with((*noted.late, *entries), first=noted.in_file + 1)
        try:
            if os.fstat(descriptor).st_size > noted.length:
                cut(descriptor, noted.length)
            reached("file.journal.before")
            os.lseek(descriptor, noted.length, os.SEEK_SET)
            write(descriptor, data)
            reached("file.journal.after")
            if self._is_synced:
                sync(descriptor)
                self._unsynced["tasks", *shard_of(head.seq)] = shard
        finally:
            os.close(descriptor)
        number, length = noted.entries + len(entries), noted.length + len(data)
        return attrs.evolve(noted, entries=number, length=length, late=())

    def _entries_in_file(self, head: Head, noted: Noted, after: int, limit: int) -> list[tuple[int, bytes]]:
        name = _file(head, "journal")
        try:
            descriptor = self._shard(head).open(name, os.O_RDONLY)
            try:
                found = self._entries(descriptor, head, noted, after, limit)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            if not self.is_certain:
                raise Vanished from None
            raise StoreCorrupt(self._url, f"the journal of task {head.id} is missing.") from None
        except OSError as refusal:
            if not self._is_its_own(head, refusal):
                raise
            problem = self._tell(head, "journal", name, f"cannot be read: {refusal.strerror}")
            raise StoreCorrupt(self._url, problem) from refusal
        self._refused.discard(name)
        return found

    def _entries(
        self, descriptor: int, head: Head, noted: Noted, after: int, limit: int
    ) -> list[tuple[int, bytes]]:
        number, start = self._places.get(head.id, (0, 0))
        if number > after:
            number, start = 0, 0
        found: list[tuple[int, bytes]] = []
        for line in lines_of(descriptor, start, noted.length):
            if len(found) == limit or number == noted.in_file:
                break
            number, start = number + 1, start + len(line)
            entry = entry_in(line, number)
            if entry is None:
                break
            if number > after:
                found.append((number, entry))
        if len(found) < min(limit, noted.in_file - after):
            raise StoreCorrupt(self._url, f"entry {number} of the journal of task {head.id} is damaged.")
        self._places[head.id] = number, start
        self._places.move_to_end(head.id)
        if len(self._places) > _PLACES:
            self._places.popitem(last=False)
        return found


@contextmanager
def _passing_over() -> Iterator[None]:
    """Leave a directory alone that the system refuses."""
    try:
        yield
    except OSError as refusal:
        if refusal.errno not in _LASTING:
            raise


def _name(kind: str, number: int = 0) -> str:
    if kind == "journal":
        return "journal.jsonl"
    return f"{kind}-{number}.json" if number else f"{kind}.json"


def _file(head: Head, kind: str, number: int = 0) -> str:
    return f"{name_of(head)}.{_name(kind, number)}"
