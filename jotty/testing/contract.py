"""The rules of the queue contract in words: what a failure of the suite says of the rule that is broken."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GROUPS", "RULES", "Mark", "Rule", "rule_of"]

Mark = Literal["1", "M", "K", "D"]


@attrs.frozen
class Rule:
    """A rule of the contract.

    Attributes:
        number: Its name, like "C18".
        marks: What it takes to check it: one process ("1"), several ("M"), kill -9 or SIGSTOP ("K"), a fault
            of the disk or the system ("D").
        text: What it promises.
    """

    number: str
    marks: tuple[Mark, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.number}: {self.text}"


# The words of docs/queue.md, where the rules are told to those who use a queue.
GROUPS: Final[Mapping[str, tuple[Rule, ...]]] = {
    "States": (
        Rule(
            "C1",
            ("1",),
            "It moves only like this: suggested -> backlog (accepted into the backlog); suggested, "
            "backlog -> pending, or blocked while a dependency is live (accepted to run); blocked -> "
            "pending (the last dependency was completed, the awaited answer came or expired, or "
            '`on_dependency="run"`); blocked -> failed, cancelled (a dependency did not complete); '
            "pending -> in_progress (claimed); in_progress -> completed (completed); in_progress -> "
            "pending (failed with attempts left, released, or its lease ended); in_progress -> blocked "
            "(parked, until an answer comes); in_progress -> failed (no attempt left, or an error that "
            "another attempt would repeat); any live state -> cancelled (cancelled); failed, cancelled ->"
            " pending, or blocked while a dependency is live (retried by somebody).",
        ),
        Rule(
            "C2",
            ("1",),
            "What is over stays as it is, but for that explicit retry, until it is deleted: by `delete`, "
            "by `purge`, or by the workers once its `retention` has passed (7 days by default).",
        ),
        Rule(
            "C3",
            ("1", "K"),
            "Ids are unique, and never used again, not after a purge and not after a restart either.",
        ),
        Rule(
            "C4",
            ("1", "K"),
            "Every call is atomic: its whole effect, or none. After an error that leaves the outcome open"
            " (a lost disk, say), a task is whole or absent.",
        ),
        Rule(
            "C5",
            ("1",),
            "Nothing appears or vanishes: what was enqueued is in one of the states, or was deleted. The "
            "counts of `stats()` are exact.",
        ),
    ),
    "Enqueue": (
        Rule(
            "C6",
            ("1", "M", "K"),
            "Once `enqueue` returns, every process sees the task, and it survives kill -9 of all of them."
            " (Not in memory, where there is one process.)",
        ),
        Rule(
            "C7",
            ("1",),
            "Goal, context, metadata, results and journal entries are strict JSON, and come back with the"
            " same types: text with any character, -0.0, the order of keys. Anything else is a "
            "`PayloadError` before anything is written, with the place of the offending value, like "
            "`context['frame'][3]`: NaN and infinities, keys that are no text, tuples, sets, bytes, other"
            " objects and subclasses, lone surrogates, cycles, more than 100 levels, integers beyond 64 "
            "bits, and more than `max_payload` bytes (1 MiB by default). Every backend says the same.",
        ),
        Rule(
            "C8",
            ("1", "K"),
            "`enqueue_many` stores all its tasks or none, in the order of the list.",
        ),
        Rule(
            "C9",
            ("1", "M"),
            "A key is unique among the live tasks of a store, whatever their lane. While one is live, "
            "enqueueing another with its key gives that one back and changes nothing; of any number of "
            "racing processes one creates the task. The end of the task frees its key in the same step. "
            "Retrying a task whose key another live one has: `KeyInUse`.",
        ),
        Rule(
            "C10",
            ("1",),
            "A priority is 1 (the most urgent) to 5; anything else, a negative delay, or a name that is "
            "empty, too long or not printable is a `ValueError`.",
        ),
        Rule(
            "C11",
            ("1", "M"),
            "`max_size` bounds the live tasks of the store, exactly, also with many processes: "
            "`QueueFull`, and nothing is written.",
        ),
    ),
    "Claim": (
        Rule(
            "C12",
            ("1",),
            "A claim takes ready tasks only, and counts: the lease number and the attempt go up by one. "
            "The lease runs from the moment of the claim, not of the call.",
        ),
        Rule(
            "C13",
            ("1",),
            "The order is priority, then the time from which the task may run, then the order of enqueue."
            " Tasks of one call keep their order in every backend. A claim costs the same however many "
            "tasks are finished, or scheduled for later.",
        ),
        Rule(
            "C14",
            ("1",),
            "No task is claimed before its time, and each can be claimed from that time on.",
        ),
        Rule(
            "C15",
            ("1", "M"),
            "No two callers get one task under one lease.",
        ),
        Rule(
            "C16",
            ("1",),
            "With nothing ready, a claim returns at once, empty. One that waits (`wait=`) returns within "
            "0.25 seconds of a task becoming ready, and never later than its time.",
        ),
        Rule(
            "C17",
            ("1",),
            "A claim looks at the lanes it names and nowhere else. Tags are for reading, not for routing.",
        ),
    ),
    "Leases": (
        Rule(
            "C18",
            ("1",),
            "Only the holder of the current lease can complete, fail, release, renew or write to the "
            "journal. For anyone else it is `LeaseLost`, and nothing changes.",
        ),
        Rule(
            "C19",
            ("1",),
            "A lease that has ended, but whose task nobody has taken yet, still counts: completing and "
            "renewing succeed.",
        ),
        Rule(
            "C20",
            ("1",),
            "A heartbeat never shortens a lease, and tells whether the task's cancel was asked for.",
        ),
        Rule(
            "C21",
            ("1", "K"),
            "The lease number grows by one with each claim, for ever: through releases, retries and "
            "restarts. You can use it as a fencing token in other systems.",
        ),
        Rule(
            "C22",
            ("M",),
            "Two workers that renew their leases never hold one task.",
        ),
        Rule(
            "C23",
            ("M", "K"),
            "A worker that was stopped for longer than its lease, and goes on after another has taken "
            "over, gets `LeaseLost` for everything it tries to write. The other's result stands.",
        ),
        Rule(
            "C24",
            ("1", "K"),
            "When a worker dies, its tasks go back to the line within the lease and one second, by "
            "whichever process looks first; no daemon is needed. A task with no attempt left is failed "
            "instead, with the error `WorkerLost`.",
        ),
        Rule(
            "C25",
            ("K",),
            "A task that kills its worker runs at most `max_attempts` times. After a worker was lost, "
            "each of its tasks runs alone in its next worker, so that only the culprit uses up its "
            "attempts. Limit: a task that was at its last attempt when its worker was lost is failed, "
            "also if a neighbour did it. With `max_attempts=1` that is every task which ran there.",
        ),
        Rule(
            "C26",
            ("1",),
            "A release gives the task back to its old place in line, at once, with its attempt.",
        ),
        Rule(
            "C27",
            ("M",),
            "With eight busy workers fewer than one lease in a hundred ends while its holder lives. A "
            "function that blocks the event loop loses no lease either, since leases are kept from a "
            "thread of their own. Limit: that thread is one of Python's: code in C that holds the "
            "interpreter for longer than the lease stops it too.",
        ),
    ),
    "Finish": (
        Rule(
            "C28",
            ("1",),
            "State and result are stored together.",
        ),
        Rule(
            "C29",
            ("1",),
            "Completing twice with one lease changes nothing the second time, and is no error: the first "
            "result stays.",
        ),
        Rule(
            "C30",
            ("1",),
            "A result that is no JSON is a `PayloadError`, and the task is still yours. (A worker then "
            "fails it, without another attempt.)",
        ),
        Rule(
            "C31",
            ("1",),
            "A failed attempt goes back to the line after a wait, or to failed. The error is kept as "
            "type, message and traceback, 8 KiB at most. `RetryLater` and parking cost no attempt; "
            "`RetryLater` waits at least 0.1 seconds and may come 100 times in a row. A result that is "
            "too large fails the task at once.",
        ),
        Rule(
            "C32",
            ("1",),
            "Waits between attempts double, with jitter, and stay below the cap of their `RetryPolicy`.",
        ),
        Rule(
            "C33",
            ("1",),
            "Cancelling ends a waiting task at once. For one in progress it stores the wish and returns "
            "True: its worker is told at once where the store can wake it, and at the next heartbeat in "
            "any case, and stops the task. If the task completes all the same, it is completed. "
            "Cancelling what is over returns False.",
        ),
        Rule(
            "C34",
            ("1",),
            "`purge` deletes only what has been over for longer than you say; `delete` refuses a live "
            "task with `InvalidState`. Journal, key and dependencies go with the task. A task that is "
            "retried at that moment is kept.",
        ),
        Rule(
            "C35",
            ("1",),
            "A task with `depends_on` waits until all of them are completed. If one fails or is "
            "cancelled, it fails too, or as you asked with `on_dependency`: it is cancelled, or runs all "
            "the same.",
        ),
        Rule(
            "C36",
            ("1",),
            "`depends_on` names tasks that are in the store, or earlier ones of the same call by "
            "`Ref(i)`, so there are no circles; an unknown id is `TaskNotFound`. A retry starts afresh, "
            "with all attempts; it waits for dependencies that are live, and is refused with "
            "`InvalidState` if one failed, was cancelled or is gone. Retrying a task does not revive "
            "those that failed because of it: retry them too.",
        ),
    ),
    "Journal": (
        Rule(
            "C37",
            ("1", "K"),
            "Each task has a journal: numbered 1, 2, 3 without holes, never changed, across attempts and "
            "workers. Reading after N gives exactly what came later. A lost lease cannot write to it. "
            "Each end of the task is one entry; cancels, answers and the like are written in the same "
            "step as the change they make.",
        ),
        Rule(
            "C38",
            ("1", "K"),
            "A step that is in the journal never runs again, unless its inputs or its actor's version "
            "changed; what descends from a step that must run again runs again, too. What was written to "
            "the journal survives kill -9, and a task whose answer is there is never left waiting.",
        ),
    ),
    "Errors": (
        Rule(
            "C39",
            ("1",),
            "An unknown id: `get` gives None, `delete` False; `cancel`, `retry` and the like raise "
            "`TaskNotFound`; calls that need a lease raise `LeaseLost`.",
        ),
        Rule(
            "C40",
            ("1",),
            "After `aclose` every call raises `QueueClosed`. Closing twice is fine, and closing never hangs.",
        ),
        Rule(
            "C41",
            ("1", "D"),
            "Only jotty's own exceptions leave the queue, and `ValueError`, `TypeError` and "
            "`TimeoutError` for what they say. A driver's error is the `__cause__`.",
        ),
        Rule(
            "C42",
            ("1",),
            "Every await can be cancelled: the call has its whole effect or none, the handle goes on "
            "working, and a claim that is cancelled gives back what it took.",
        ),
        Rule(
            "C43",
            ("M",),
            "After a fork the parent is unharmed, and the child either works or gets a clear error. (Open"
            " a queue in the child; backends.md says where even that is refused.)",
        ),
    ),
    "Durability, time, security": (
        Rule(
            "C44",
            ("K", "D"),
            "`queue.durability` says what a returned call survives: `none` (memory), `process` (kill -9 "
            "of everyone), or `power` (loss of power, by fsync before the call returns). File and SQLite "
            "default to `process`.",
        ),
        Rule(
            "C45",
            ("1", "M"),
            "A store has its own steady clock. A wall clock that jumps by an hour steals no lease, keeps "
            "no dead one alive, and delays no task. A `run_at` is converted once, at enqueue. Limit: this"
            " needs Linux; elsewhere the clock is the best that the system offers.",
        ),
        Rule(
            "C46",
            ("D",),
            "A full or read-only disk is a `StorageError` within 5 seconds. Nothing that was acknowledged"
            " is lost, and the same handle works once there is room again.",
        ),
        Rule(
            "C47",
            ("D",),
            "A damaged store is `StoreCorrupt`, and never silently made anew. The file backend sets a "
            "damaged file aside and serves the rest. A store of another version of jotty is a "
            "`SchemaError` that names both, and nothing is written.",
        ),
        Rule(
            "C48",
            ("1", "D"),
            "No pickle and no eval. Nothing outside of the store's own place is touched, no symbolic link"
            " is followed, directories have mode 0700 and files 0600, and no name reaches SQL or a path "
            "unescaped.",
        ),
        Rule(
            "C49",
            ("K",),
            "The first SIGTERM (or `stop()`) ends claiming. What runs may finish within the grace time, "
            "and is released then; the log says so, and the exit code is 0. A second signal releases at "
            "once, and the exit code is 130 or 143. Where the store does not take something back, the log"
            " names it, and the exit code is 75 (`run()` raises `StorageError`): others have it when its "
            "lease ends. `jotty worker` is gone within a second of that, whatever its actors do. Limit: "
            "in a program of your own the tasks are released as punctually, but the worker returns only "
            "when its actors let it: it waits for up to 5 seconds for a plain function, which runs in a "
            "thread that nothing can stop, and for an actor that blocks the event loop as long as that "
            "takes.",
        ),
        Rule(
            "C50",
            ("K",),
            "The actors of a goal run only after those they depend on; C38 says what a run that is taken "
            "over repeats.",
        ),
    ),
}

RULES: Final[Mapping[str, Rule]] = {rule.number: rule for rules in GROUPS.values() for rule in rules}
_TESTS: Final = re.compile(r"test_c(\d\d)_")


def rule_of(test: str) -> Rule | None:
    """Return the rule that a test checks, by its name (`test_c18_...`); None for one that checks none."""
    found = _TESTS.match(test)
    return RULES.get(f"C{int(found[1])}") if found else None
