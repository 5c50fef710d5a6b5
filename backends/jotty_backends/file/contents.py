"""Payloads, outcomes and journals as files, a thousand tasks to a directory."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections import OrderedDict, deque
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import attrs

from jotty.core.queue.log.contents import Contents, Vanished
from jotty.core.queue.points import reached
from jotty.errors import StoreCorrupt

from .directory import Directory, cut, read_at, sync, write
from .envelope import json_field, opaque, opened, sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from jotty.core.queue import Head

__all__ = ["DAMAGED", "FileContents", "name_of", "shard_of"]

logger = logging.getLogger("jotty.queue.file")

DAMAGED: Final = b"damaged"  # in place of bytes that are lost; no JSON, so that who decodes it finds out
_SHARD: Final = 1000
_OPEN: Final = 16  # directories kept open
_PLACES: Final = 1000  # journals in which the place is known where the last reader stopped
_FORGOTTEN: Final = 10_000
_LONGEST: Final = 150
_UNREADABLE: Final = frozenset({errno.EIO, errno.EISDIR, errno.ELOOP})
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


@attrs.frozen
class _Noted:
    """What the log says of a task's files.

    Attributes:
        has_payload: Whether there is one.
        outcome: The number of the outcome; 0 if there is none yet.
        entries: How many entries the journal has.
        length: How many bytes of its file these are; what follows them never was.
    """

    has_payload: bool = True
    outcome: int = 0
    entries: int = 0
    length: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the notes."""
        notes: dict[str, Any] = {}
        if not self.has_payload:
            notes["payload"] = None
        if self.outcome:
            notes["outcome"] = self.outcome
        if self.entries:
            notes["journal"] = [self.entries, self.length]
        return notes


_NOTES: Final = ("payload", "outcome", "journal")
_NEW: Final = _Noted()


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
        self._noted: dict[str, _Noted] = {}
        self._fresh: dict[tuple[str, str], bytes] = {}  # written since the log was last appended to
        self._shards: OrderedDict[tuple[str, ...], Directory] = OrderedDict()
        self._unsynced: dict[tuple[str, ...], Directory] = {}  # parents before their children
        self._lasting: set[tuple[str, ...]] = set()  # to which the way survives the loss of power
        self._replaced: list[tuple[Head, str]] = []
        # those of others as well: who deleted a task may have died before its files were gone
        self._forgotten: deque[tuple[Head, _Noted]] = deque(maxlen=_FORGOTTEN)
        self._places: OrderedDict[str, tuple[int, int]] = OrderedDict()

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
        before = self._noted.get(head.id, _NEW)
        undo.append(partial(self._note, head.id, before))
        noted, notes = before, dict[str, Any]()
        if is_new and payload is None:
            noted = attrs.evolve(noted, has_payload=False)
            notes["payload"] = None
        if payload is not None:
            self._create(head, "payload", payload, undo)
        if outcome is not None:
            noted = attrs.evolve(noted, outcome=noted.outcome + 1)
            self._create(head, "outcome", outcome, undo, number=noted.outcome)
            notes["outcome"] = noted.outcome
            if before.outcome:
                self._replaced.append((head, _name("outcome", before.outcome)))
                undo.append(self._replaced.pop)
        if entries:
            noted = self._extend(head, noted, entries)
            notes["journal"] = [noted.entries, noted.length]
        self._note(head.id, noted)
        return notes

    def learn(self, head: Head, notes: Mapping[str, Any]) -> None:
        """Take in what another process has noted."""
        if notes.keys().isdisjoint(_NOTES):
            return
        noted = self._noted.get(head.id, _NEW)
        entries, length = notes.get("journal", (noted.entries, noted.length))
        has_payload = noted.has_payload and "payload" not in notes
        self._note(head.id, _Noted(has_payload, notes.get("outcome", noted.outcome), entries, length))

    def notes(self) -> Callable[[Head], dict[str, Any]]:
        """Return what gives the notes of a task's files."""
        noted = self._noted.copy()
        return lambda head: noted.get(head.id, _NEW).to_json()

    def payload(self, head: Head) -> bytes | None:
        """Return the payload, or DAMAGED."""
        if not self._noted.get(head.id, _NEW).has_payload:
            return None
        return self._read(head, "payload")

    def outcome(self, head: Head) -> bytes | None:
        """Return the outcome, or DAMAGED."""
        number = self._noted.get(head.id, _NEW).outcome
        return self._read(head, "outcome", number) if number else None

    def last_entry(self, head: Head) -> int:
        """Return the number of the last entry of the journal."""
        return self._noted.get(head.id, _NEW).entries

    def entries(self, head: Head, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Return entries of the journal after a number.

        Raises:
            StoreCorrupt: One of them is damaged.
        """
        noted = self._noted.get(head.id, _NEW)
        if after >= noted.entries:
            return []
        try:
            descriptor = self._shard(head).open(_file(head, "journal"), os.O_RDONLY)
        except FileNotFoundError:
            if not self.is_certain:
                raise Vanished from None
            raise StoreCorrupt(self._url, f"the journal of task {head.id} is missing.") from None
        try:
            return self._entries(descriptor, head, noted, after, limit)
        finally:
            os.close(descriptor)

    def forget(self, head: Head, undo: list[Callable[[], object]]) -> None:
        """Have the files removed as soon as the log says so."""
        noted = self._noted.pop(head.id, _NEW)
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
        with suppress(OSError):  # they harm nobody
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
            group = tasks.child(name, create=False)
            for shard in filter(str.isdecimal, group.names()):
                first = int(name) * _SHARD**2 + int(shard) * _SHARD
                self._sweep_shard(
                    group, shard, {name_of(head) for head in heads(first, first + _SHARD)}, last_seq
                )
                if first + _SHARD <= last_seq and group.remove_child(shard):
                    self._shards.pop(("tasks", name, shard), None)
                    self._lasting.discard(("tasks", name, shard))
                yield

    def _has_damaged_lines(self) -> bool:
        try:
            names = self._root.child("damaged", create=False).names()
        except FileNotFoundError:
            return False
        return any(name.startswith("tasks.log") for name in names)

    def _sweep_shard(self, group: Directory, shard: str, known: Collection[str], last_seq: int) -> None:
        directory = group.child(shard, create=False)
        for name in directory.names():
            task = name.partition(".")[0]
            seq = task.partition("-")[0]
            if task not in known and seq.isdecimal() and int(seq) <= last_seq:
                directory.remove(name)

    # Notes

    def _note(self, task_id: str, noted: _Noted) -> None:
        if noted is _NEW or noted == _NEW:
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
        with suppress(FileNotFoundError):  # the directory
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
            logger.warning("%s: %s is missing, which held the %s of task %s.", self._url, name, kind, head.id)
            return DAMAGED
        except OSError as refusal:
            if refusal.errno not in _UNREADABLE:
                raise
            self._set_aside(head, kind, name)
            return DAMAGED
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

    # Journals

    def _extend(self, head: Head, noted: _Noted, entries: Sequence[bytes]) -> _Noted:
        """Append to the journal behind what the log says, in place of what a process that died has left."""
        first = noted.entries + 1
        data = b"".join(
            sealed(b'"n":%d,%s' % (number, json_field("entry", entry)))
            for number, entry in enumerate(entries, start=first)
        )
        shard = self._shard(head, create=True)
        descriptor = shard.open(_file(head, "journal"), os.O_RDWR | os.O_CREAT)
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
        return attrs.evolve(noted, entries=noted.entries + len(entries), length=noted.length + len(data))

    def _entries(
        self, descriptor: int, head: Head, noted: _Noted, after: int, limit: int
    ) -> list[tuple[int, bytes]]:
        number, start = self._places.get(head.id, (0, 0))
        if number > after:
            number, start = 0, 0
        found: list[tuple[int, bytes]] = []
        for line in _lines(descriptor, start, noted.length):
            if len(found) == limit or number == noted.entries:
                break
            number, start = number + 1, start + len(line)
            entry = _entry(number, line)
            if entry is None:
                break
            if number > after:
                found.append((number, entry))
        if len(found) < min(limit, noted.entries - after):
            raise StoreCorrupt(self._url, f"entry {number} of the journal of task {head.id} is damaged.")
        self._places[head.id] = number, start
        self._places.move_to_end(head.id)
        if len(self._places) > _PLACES:
            self._places.popitem(last=False)
        return found


def _name(kind: str, number: int = 0) -> str:
    if kind == "journal":
        return "journal.jsonl"
    return f"{kind}-{number}.json" if number else f"{kind}.json"


def _file(head: Head, kind: str, number: int = 0) -> str:
    return f"{name_of(head)}.{_name(kind, number)}"


def _lines(descriptor: int, start: int, end: int) -> Iterable[bytes]:
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


def _entry(number: int, line: bytes) -> bytes | None:
    rest, start = opened(line[:-1]), b'"n":%d,' % number
    if rest is None or not rest.startswith(start):
        return None
    return opaque("entry", rest[len(start) :])
