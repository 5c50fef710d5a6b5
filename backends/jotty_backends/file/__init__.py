"""Tasks in a directory of plain files: for one machine, many processes, and people with `cat` and `jq`.

    tasks.log                       what has changed since the last snapshot: one line of JSON for each head
    snapshot-3.jsonl                the heads of all tasks, as they were when that log was begun
    tasks/000/012/12345-ID.payload.json       goal and context; written once
    tasks/000/012/12345-ID.outcome-1.json     result or error; written once, and replaced by outcome-2
    tasks/000/012/12345-ID.journal.jsonl      one line for each entry
    damaged/                        what was found damaged and set aside
    lock                            who may write now; how long the log is, and whether it is to be trusted
    format.json                     what this directory is

Each line, and each of the files with one line, begins with a checksum: the CRC-32 of what follows its comma,
up to the end of the line. The lines that were appended together, which take effect together, are numbered
(`part`). In `tasks`, a directory holds a thousand tasks, by their `seq`.

Every process holds all heads in memory: 0.7 kB for a new task, 0.9 kB for a finished one, and some 15 seconds
to open a million. On the disk, a finished task has three files. Every local file system is safe; on a network
one, locks may not hold, and the log of the program warns of it.

`backend` is the face; `store` makes and checks the directory; `log` is what `LogBackend` asks for, from one
`snapshot` to the next a `generation`, written by who has the `lock`, in which there is a `note`; `contents`
are the files beside it, a `journal` among them, of which the log tells what is `noted`; `envelope` and
`directory` are the ways of reading and writing them all.

At level "process", a loss of power may take the last seconds, and no more: a snapshot is on the disk before
what it replaces is gone. After an fsync that failed, nobody trusts the log: a snapshot takes its place before
anything is appended.

A file that the system refuses fails its own task, and stays where it is; what ends that task stands in the
log then, until there can be a file.
"""

from __future__ import annotations

from typing import Final

from .backend import FileBackend, FileTaskQueue

__all__ = ["POINTS", "FileBackend", "FileTaskQueue"]

# see jotty.core.queue.points; what stands here alone happens after a crash, or in a large store
_AT_DAMAGE: Final = ("file.cut.after", "file.cut.before", "file.rmdir.after", "file.rmdir.before")
POINTS: Final = tuple(sorted((*FileBackend.points, *_AT_DAMAGE)))
