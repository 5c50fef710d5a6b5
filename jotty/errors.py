"""Every exception of jotty.

```
JottyError
├── BackendNotFound           no backend has this name; lists the known ones
├── BackendConflict           two distributions claim one name; names both
├── BackendBroken             what a distribution offers as a backend is none, or can't be imported
├── MissingDependency         says which extra to install
├── GraphError                a wrong graph, raised before anything runs
├── MaxIterationsExceeded     counts per actor, and the path
├── ActorError                an actor cancelled itself, or called sys.exit()
├── InputRequired             a question nobody can answer
├── Unhandled                 a worker cannot run this task; another may
└── QueueError
    ├── QueueClosed           the handle was closed
    ├── QueueFull             the store holds as many live tasks as it may
    ├── KeyInUse              another live task has this key
    ├── InvalidState          the task's state does not allow this
    ├── PayloadError          not strict JSON; .path of the offending value
    ├── TaskNotFound          no task has this id
    ├── TaskFailed            the awaited task failed
    ├── TaskCancelled         the awaited task was cancelled
    ├── LeaseLost             acted on a task that is no longer ours
    └── StorageError          the store failed; the driver's error is __cause__
        ├── StoreCorrupt      the store is damaged
        └── SchemaError       the store was written by another version
```

Wrong arguments are plain `TypeError` and `ValueError`, raised before any effect.
Messages are built from the attributes, so that an error reads the same wherever it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = [
    "ActorError",
    "BackendBroken",
    "BackendConflict",
    "BackendNotFound",
    "GraphError",
    "InputRequired",
    "InvalidState",
    "JottyError",
    "KeyInUse",
    "LeaseLost",
    "MaxIterationsExceeded",
    "MissingDependency",
    "PayloadError",
    "QueueClosed",
    "QueueError",
    "QueueFull",
    "SchemaError",
    "StorageError",
    "StoreCorrupt",
    "TaskCancelled",
    "TaskFailed",
    "TaskNotFound",
    "Unhandled",
]


class JottyError(Exception):
    """The root of every exception that jotty raises for a reason of its own."""


class BackendNotFound(JottyError):
    """No installed distribution offers a queue backend of this name.

    Attributes:
        name: The name, or URL scheme, that was asked for.
        known: The names that are installed, sorted.
    """

    def __init__(self, name: str, known: Collection[str]) -> None:
        self.name = name
        self.known = sorted(known)
        installed = ", ".join(self.known) or "none"
        super().__init__(
            f"No queue backend named {name!r}. Installed: {installed}. "
            "Use one of these, or install the distribution that brings it."
        )


class BackendConflict(JottyError):
    """Two installed distributions offer a queue backend of one name.

    Attributes:
        name: The name both claim.
        distributions: The names of the distributions, sorted.
    """

    def __init__(self, name: str, distributions: Collection[str]) -> None:
        self.name = name
        self.distributions = sorted(distributions)
        super().__init__(
            f"The queue backend name {name!r} is claimed by {' and '.join(self.distributions)}. "
            "Uninstall all but one of them."
        )


class BackendBroken(JottyError):
    """What an installed distribution offers as a queue backend cannot be imported, or is none.

    Attributes:
        name: The backend's name.
        distribution: The distribution, with its version.
        problem: What is wrong; where an import failed, that is the `__cause__`.
    """

    def __init__(self, name: str, distribution: str, problem: str) -> None:
        self.name = name
        self.distribution = distribution
        self.problem = problem
        super().__init__(
            f"The queue backend {name!r} of {distribution} can't be used: {problem}. "
            "Install what it lacks, or another version of that distribution."
        )


class MissingDependency(JottyError):
    """A package that this feature needs is not installed.

    Attributes:
        package: The package that could not be imported.
        extra: The extra of jotty that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"{package!r} is not installed. Install it with: pip install 'jotty[{extra}]'")


class GraphError(JottyError):
    """The actors do not form a graph that can run; raised before any of them runs.

    Attributes:
        problem: What is wrong.
        remedy: How to mend it; empty where nothing sensible can be proposed.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem} {remedy}".rstrip())


class MaxIterationsExceeded(JottyError):
    """A run executed actors more often than its bound allows.

    Attributes:
        limit: The bound.
        counts: How often each actor was executed.
        path: The actors in the order in which they were started.
    """

    def __init__(self, limit: int, counts: Mapping[str, int], path: Sequence[str]) -> None:
        self.limit = limit
        self.counts = dict(counts)
        self.path = list(path)
        counted = ", ".join(f"{name} {count}" for name, count in self.counts.items())
        tail = " -> ".join(self.path[-8:])
        super().__init__(
            f"The run needed more than max_iterations={limit} actor executions ({counted}; last: {tail}). "
            "Let the loop end with End(...), or raise max_iterations."
        )


class ActorError(JottyError):
    """An actor raised what is not its to raise: its event loop's cancellation error, or SystemExit.

    Attributes:
        actor: The actor's name.
        deed: What it did.
    """

    def __init__(self, actor: str, deed: str = "cancelled itself") -> None:
        self.actor = actor
        self.deed = deed
        super().__init__(
            f"Actor {actor!r} {deed}. Raise an ordinary exception to fail, return End() to stop."
        )


class InputRequired(JottyError):
    """An actor asked a question, and nobody is there to answer it.

    Attributes:
        key: The question's key.
        question: The question.
        answers: The keys of the answers that there are, or None where nobody answers at all.
    """

    def __init__(self, key: str, question: str, answers: Collection[str] | None = None) -> None:
        self.key = key
        self.question = question
        self.answers = None if answers is None else sorted(map(str, answers))
        why, remedy = "nobody can answer", "Pass on_ask= to execute() or run(), or answer in execute_stream()"
        if self.answers is not None:
            why, remedy = f"on_ask has no answer {key!r}", f"It has: {', '.join(self.answers) or 'none'}"
        super().__init__(f"An actor asks {question!r} (key {key!r}) and {why}. {remedy}.")


class Unhandled(JottyError):
    """Raised by a task's handler: this worker cannot run the task, and leaves it to others.

    The task goes back to the queue with its attempt, however often this happens, and never fails for it.
    The worker says so once, and takes the task less and less often, once a minute in the end.

    Attributes:
        reason: Why it cannot, and what would help.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"This worker cannot run the task: {reason}")


class QueueError(JottyError):
    """The root of what a task queue raises."""


class QueueClosed(QueueError):
    """The queue was closed before or during the call.

    Attributes:
        url: The queue's address.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(f"The queue {url} is closed. Open it again with open_queue() or a new TaskQueue.")


class QueueFull(QueueError):
    """The store holds as many live tasks as it may; nothing was written.

    Attributes:
        max_size: How many live tasks the store may hold.
    """

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        super().__init__(
            f"The queue holds its max_size={max_size} of live tasks. Try again when some are finished."
        )


class KeyInUse(QueueError):
    """Another live task has this key; nothing was written.

    Attributes:
        key: The key.
        task_id: The live task that has it.
    """

    def __init__(self, key: str, task_id: str) -> None:
        self.key = key
        self.task_id = task_id
        super().__init__(
            f"The key {key!r} belongs to the live task {task_id}. Wait for that task, or cancel it."
        )


class InvalidState(QueueError):
    """The task's state, or that of a task it depends on, does not allow this; nothing was written.

    Attributes:
        task_id: The task.
        state: Its state.
        action: What was asked for.
    """

    def __init__(self, task_id: str, state: str, action: str, reason: str = "") -> None:
        self.task_id = task_id
        self.state = state
        self.action = action
        self.reason = reason
        because = f": {reason}" if reason else ""
        super().__init__(f"Cannot {action} task {task_id}, which is {state}{because}.")


class PayloadError(QueueError):
    """A value is not strict JSON, or is too large; nothing was written.

    Attributes:
        path: Where the offending value stands, like `context['frame'][3]`.
        problem: What is wrong with it.
        is_too_large: Whether it is strict JSON, but too much of it.
    """

    def __init__(self, path: str, problem: str, *, is_too_large: bool = False) -> None:
        self.path = path
        self.problem = problem
        self.is_too_large = is_too_large
        super().__init__(f"{path} {problem}")


class TaskNotFound(QueueError):
    """No task in the store has this id; nothing was written.

    Attributes:
        task_id: The id.
    """

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        super().__init__(f"No task has the id {task_id!r}. It may have been deleted or purged.")


class TaskFailed(QueueError):
    """The task whose result was awaited has failed.

    Attributes:
        task_id: The task.
        error: What failed it: a dict with `type`, `message` and `traceback`, all text.
    """

    def __init__(self, task_id: str, error: Mapping[str, Any]) -> None:
        self.task_id = task_id
        self.error = dict(error)
        super().__init__(f"Task {task_id} failed with {error.get('type')}: {error.get('message')}")


class TaskCancelled(QueueError):
    """The task whose result was awaited was cancelled.

    Attributes:
        task_id: The task.
    """

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        super().__init__(f"Task {task_id} was cancelled.")


class LeaseLost(QueueError):
    """The caller acted on a task that it no longer holds; there was no effect.

    Attributes:
        task_id: The task.
        lease: The lease that the caller had.
    """

    def __init__(self, task_id: str, lease: int) -> None:
        self.task_id = task_id
        self.lease = lease
        super().__init__(
            f"Lease {lease} of task {task_id} is not held any more. Drop this work: it is another's, or over."
        )


class StorageError(QueueError):
    """The store failed; the driver's error is the `__cause__`.

    Attributes:
        url: The store's address, without a password.
        problem: What failed.
    """

    def __init__(self, url: str, problem: str) -> None:
        self.url = url
        self.problem = problem
        super().__init__(f"The store {url} failed: {problem}")


class StoreCorrupt(StorageError):
    """The store is damaged; it is left as it is."""


class SchemaError(StorageError):
    """The store was written by a version of jotty with another schema; it is left as it is.

    Attributes:
        found: The schema version of the store; 0 where the file holds tables of something else.
        expected: The schema version that this jotty reads and writes.
    """

    def __init__(self, url: str, found: int, expected: int) -> None:
        self.found = found
        self.expected = expected
        is_older = 0 < found < expected
        remedy = "Stop its workers, and run: jotty migrate" if is_older else "Use a matching jotty"
        problem = f"its schema version is {found}, this jotty knows {expected}. {remedy}."
        if not found:
            problem = f"it is another program's: schema version 0, this jotty knows {expected}. Name another."
        super().__init__(url, problem)
