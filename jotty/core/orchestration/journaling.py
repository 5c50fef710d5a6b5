"""Writing what happens in a background run to its task's journal, in groups, and reading it back."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.lowlevel import checkpoint

from jotty.core.queue import MICROSECONDS, ROOM, Cursor, RetryPolicy, TaskStatus, encode, encode_entry
from jotty.core.queue.journal import RESERVED_KINDS
from jotty.errors import PayloadError, QueueError, StorageError, StoreCorrupt, TaskNotFound

from .entries import entry_of, event_of, plain_entry, start_entry, step_entry
from .fold import fold_run, whole_result
from .past import Past
from .questions import check_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from jotty.core.queue import Clock, EncodedEntry, JournalEntry, Random, Task, TaskQueue

    from .events import Event
    from .fold import RunFold
    from .memory import Record

__all__ = ["JournalWriter", "JournalWriters", "answer_run", "stream_run"]

GROUP_SECONDS: Final = 0.05
GROUP_EVENTS: Final = 64
RECONNECT: Final = RetryPolicy(delay=0.1, cap=5.0)
LAST_WORDS: Final = 2.0  # seconds for the events of a run that is being cancelled
# What becomes of the task says how the run ended, once; its attempts do not.
ENDINGS: Final = frozenset({"workflow_complete", "workflow_error"})


class JournalWriters:
    """Writes the events of all the runs of one worker, in groups: at most 50 ms or 64 events of a run.

    Args:
        queue: Where the tasks are.
        clock: For the pace.
        random: For the jitter while the store does not answer.
    """

    def __init__(self, queue: TaskQueue, clock: Clock, random: Random) -> None:
        self._queue = queue
        self._clock = clock
        self._random = random
        self._writers: set[JournalWriter] = set()
        self._has_news = anyio.Event()
        self._is_urgent = anyio.Event()

    @contextmanager
    def writer(self, task: Task, run: anyio.CancelScope) -> Iterator[JournalWriter]:
        """Take part in the writing with one run, whose scope is cancelled if its events cannot be stored."""
        writer = JournalWriter(self._queue, task, run, self._notify)
        self._writers.add(writer)
        try:
            yield writer
        finally:
            self._writers.discard(writer)

    async def write_on(self) -> None:
        """Write what arrives, until cancelled; while the store does not answer, it is tried again."""
        failures = 0
        while True:
            await self._has_news.wait()
            with self._clock.timeout(GROUP_SECONDS):
                await self._is_urgent.wait()
            self._has_news, self._is_urgent = anyio.Event(), anyio.Event()
            await self._write_all()
            if any(writer.is_delayed for writer in self._writers):
                failures += 1
                self._has_news.set()
                await self._clock.sleep(RECONNECT.backoff(failures, self._random))
            else:
                failures = 0

    async def _write_all(self) -> None:
        """Have every run write what has arrived; most have just done so themselves."""
        due = [writer for writer in self._writers if writer.has_waiting]
        if any(writer.is_writing for writer in due):
            self._has_news.set()  # what came meanwhile is for the next time
            due = [writer for writer in due if not writer.is_writing]
        if len(due) == 1:
            await due[0].try_flush()
        elif due:
            async with anyio.create_task_group() as group:
                for writer in due:
                    group.start_soon(writer.try_flush)

    def _notify(self, *, is_urgent: bool) -> None:
        if not self._has_news.is_set():
            self._has_news.set()
        if is_urgent:
            self._is_urgent.set()


class JournalWriter:
    """The memory of one run: takes what happens, and has what earlier claims have noted.

    Attributes:
        past: What they have noted, once `recall` has read it.
        error: What made its events unstorable, once that is known; the run's scope is then cancelled.
        is_delayed: Whether the store did not answer at the last try; the events wait.
        is_writing: Whether a group is being written.
    """

    def __init__(
        self, queue: TaskQueue, task: Task, run: anyio.CancelScope, notify: Callable[..., None]
    ) -> None:
        self.past = Past()
        self.limit = queue.max_payload
        self.error: QueueError | None = None
        self.is_delayed = False
        self.is_writing = False
        self._queue = queue
        self._task = task
        self._run = run
        self._notify = notify
        self._waiting: list[EncodedEntry] = []
        self._caught_up: anyio.Event | None = None
        self._written: anyio.Event | None = None  # for those who wait for the group that is being written
        self._stored = 0  # entries that are known to be written
        self._under_way = 0  # entries that are being written
        self._last: int | None = None  # the number of the last entry that is known to be written
        self._is_in_doubt = False

    @property
    def has_waiting(self) -> bool:
        """Whether something has arrived that is not written."""
        return bool(self._waiting)

    # What was

    async def recall(self) -> None:
        """Read what earlier claims have noted; a first claim has nothing to read.

        Raises:
            StorageError: The store failed.
        """
        if self._task.lease == 1 and not self._task.answered:
            return
        async for entry in self._queue.events(self._task.id, follow=False):
            self.past.add(entry)
        self._last = self.past.last

    @property
    def records(self) -> Sequence[Record]:
        """See `Memory`, as for the next four."""
        return self.past.records

    @property
    def answers(self) -> Mapping[str, Any]:
        """The answers, by key."""
        return self.past.answers

    @property
    def asked(self) -> Mapping[str, int | None]:
        """When each question expires, by key."""
        return self.past.asked

    @property
    def usages(self) -> Sequence[tuple[str, int, int, float]]:
        """What was consumed."""
        return self.past.usages

    @property
    def begun(self) -> str | None:
        """The graph with which the run began, if it has."""
        return self.past.begun

    async def follow_answers(self) -> AsyncIterator[tuple[str, Any]]:
        """Iterate over the answers that come from now on, without end."""
        # not from what was written last: an answer may have come before that, unseen
        async for entry in self._queue.events(self._task.id, self.past.last or 0):
            if entry.kind == "answer":
                yield entry.data["key"], entry.data["value"]

    # What is

    def put(self, event: Mapping[str, Any], note: Mapping[str, Any] | None = None) -> None:
        """Take an event as it is now; it is written soon. One that cannot be stored ends the run."""
        if self.error is not None or event["type"] in ENDINGS:
            return
        try:
            entry = plain_entry(event, self.limit) if note is None else entry_of(event, note, self.limit)
        except PayloadError as error:
            self._end(error)
        else:
            self._take_in(entry)

    def start(self, agent: str, time: float, inputs: str) -> None:
        """See `Memory`, as for `step`."""
        if self.error is None:
            self._take_in(start_entry(agent, time, inputs))

    def step(self, agent: str, time: float, seconds: float, progress: tuple[int, int], output: bytes) -> None:
        """Take the output of an execution."""
        if self.error is None:
            self._take_in(step_entry(agent, time, seconds, progress, output))

    def note(self, kind: str, **data: Any) -> None:
        """Take what is no event."""
        try:
            entry = encode_entry({"kind": kind, **data}, self.limit + ROOM)
        except PayloadError as error:
            self._end(error)
        else:
            self._take_in(entry)

    def _take_in(self, entry: EncodedEntry) -> None:
        self._waiting.append(entry)
        number = len(self._waiting)
        if number in {1, GROUP_EVENTS}:  # more of them are no news, and hurry nobody more
            self._notify(is_urgent=number == GROUP_EVENTS)

    async def try_flush(self) -> None:
        """Write what has arrived; keep it if the store does not answer, end the run if it never can."""
        try:
            await self._write()
        except StoreCorrupt as damage:  # it would be refused for ever
            self._end(damage)
        except StorageError:
            self.is_delayed = True
            return
        except QueueError as error:
            self._end(error)
        self.is_delayed = False
        if self._caught_up is not None:
            self._caught_up.set()
            self._caught_up = None

    def _end(self, error: QueueError) -> None:
        self.error = error
        self._run.cancel()

    async def flush(self) -> None:
        """Return once all that has arrived is written; if it never can be, the run ends meanwhile."""
        wanted = self._arrived
        if self._stored == wanted:
            return
        await self.try_flush()
        # another flush that was successful may have been about less than this one
        while self._stored < wanted and self._is_unfinished and self.error is None:
            self._notify(is_urgent=True)
            self._caught_up = self._caught_up or anyio.Event()
            await self._caught_up.wait()
        if self.error is not None:
            await checkpoint()  # the run's scope is cancelled

    async def _write(self) -> None:
        """Return once all that has arrived is written; what could not be written waits for the next call.

        Raises:
            LeaseLost: The task is not held any more.
            StorageError: The store failed.
        """
        wanted = self._arrived
        while self._stored < wanted and self._is_unfinished:
            if self.is_writing:
                await self._wait_for_group()
            else:
                await self._write_group()

    @property
    def _arrived(self) -> int:
        """How many entries have arrived so far."""
        return self._stored + self._under_way + len(self._waiting)

    @property
    def _is_unfinished(self) -> bool:
        """Whether something is to be written yet; else what has arrived was handed out."""
        return self.is_writing or bool(self._waiting)

    async def _wait_for_group(self) -> None:
        self._written = self._written or anyio.Event()
        await self._written.wait()

    async def _write_group(self) -> None:
        self.is_writing = True
        group: list[EncodedEntry] = []
        try:
            if self._is_in_doubt:
                await self._drop_written()
            group = self._take()
            self._under_way = len(group)
            if group:
                self._last = await self._queue.record(self._task, group)
        except BaseException:
            self._waiting[:0] = group
            self._is_in_doubt = True
            self._notify(is_urgent=False)
            raise
        else:
            self._stored += len(group)
        finally:
            self._under_way = 0
            self.is_writing = False
            if self._written is not None:
                self._written.set()
                self._written = None

    async def flush_last(self) -> None:
        """Write what has arrived of a run that failed or is being cancelled, if it can be within 2 s."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(LAST_WORDS), suppress(QueueError):
            await self._write()

    async def rest(self) -> list[EncodedEntry]:
        """Hand out the entries that have not been written yet, to be stored with the task's result.

        A flush under way is awaited, so that what it could not write is among them.
        """
        while self.is_writing:
            await self._wait_for_group()
        if self._is_in_doubt:
            with suppress(StorageError):  # rather told twice than not at all
                await self._drop_written()
        return self._take()

    async def _drop_written(self) -> None:
        """Find out how much of a group was written whose answer never came, so that nothing is told twice."""
        written, last = 0, self._last
        async for entry in self._queue.events(self._task.id, last or 0, follow=False):
            written += entry.kind not in RESERVED_KINDS
            last = entry.number
        self._last = last  # only now: this may have been cancelled halfway
        del self._waiting[:written]
        self._stored += written
        self._is_in_doubt = False

    def _take(self) -> list[EncodedEntry]:
        taken, self._waiting = self._waiting, []
        return taken


def stream_run(queue: TaskQueue, id: str, after: int = 0) -> Cursor[Event]:  # noqa: A002
    """Iterate over the events of a background run, from the start or after one of them, until it is over.

    Any process may, and as often as it likes; the iteration may be left and a wait in it cancelled at any
    time, which cancels nothing of the run. The last event, once, is `workflow_complete` or `workflow_error`
    (also for a cancelled task). A run that another worker takes over goes on: executions that were under way
    are told to be cancelled, and begin again. (What another orchestrator runs begins anew, with another
    `workflow_start`: what came before it is void.)

    Args:
        queue: Where the task is.
        id: The task.
        after: The `seq` of the last event that was seen; 0 to begin with the first.

    Raises:
        TaskNotFound: There is no such task, or it was deleted meanwhile; raised while iterating.
    """
    entries = queue.events(id, after)
    end: JournalEntry | None = None

    async def fetch() -> list[Event] | None:
        nonlocal end
        async for entry in entries:
            end = entry if entry.kind == "end" else None
            event: Any = event_of(entry, id)
            if event is not None:
                return [event]
        if end is None:
            return None
        last = await _ending(queue, id, end)
        end = None
        return [last]

    return Cursor(fetch)


async def _ending(queue: TaskQueue, task_id: str, end: JournalEntry) -> Any:
    """Return the terminal event of a run, from what became of its task."""
    task = await queue.get(task_id)
    if task is None:
        raise TaskNotFound(task_id)
    fold = await fold_run(queue, task_id, until=end.number)
    event = {"run_id": task_id, "seq": end.number, "time": end.data["time"] / MICROSECONDS}
    status = end.data["status"]  # not the task's, which may have been retried since
    if status == TaskStatus.COMPLETED:
        return {"type": "workflow_complete", **event, "result": whole_result(task.result, fold)}
    if status == TaskStatus.CANCELLED:
        error = _error("TaskCancelled", "The task was cancelled.", end)
    elif task.status is TaskStatus.FAILED and task.error:
        error = _told(fold, task.error) or _error(task.error["type"], task.error["message"], end)
    else:
        error = fold.errors[-1] if fold.errors else _error("TaskFailed", "The task failed.", end)
    result = {
        "success": False,
        "final_output": None,
        "actor_outputs": fold.actor_outputs,
        "errors": fold.errors or [error],
        "metadata": {"run_id": task_id, "iterations": len(fold.path), "path": fold.path},
    }
    return {"type": "workflow_error", **event, "error": error, "result": result}


def _told(fold: RunFold, error: Mapping[str, Any]) -> Any:
    """Return what the run has told of the actor that a task has failed by, if it was one."""
    for told in reversed(fold.errors):
        kind = told["type"].rpartition(".")[2]
        if kind == error["type"].rpartition(".")[2] and error["message"].startswith(told["message"]):
            return told
    return None


def _error(kind: str, message: str, end: JournalEntry) -> dict[str, Any]:
    return {"agent": "", "attempt": end.data["attempt"], "type": kind, "message": message}


async def answer_run(queue: TaskQueue, task_id: str, key: str, value: Any) -> Task:
    """Answer a question of a background run; see `WorkflowMode.answer`."""
    asked: dict[str, list[Any] | None] = {}
    async for entry in queue.events(task_id, follow=False):
        if entry.kind == "question":
            asked[entry.data["key"]] = entry.data["options"]
    task = await queue.get(task_id)
    if task is not None and task.awaiting and key not in asked:
        waiting = ", ".join(repr(each) for each in task.awaiting)
        raise ValueError(f"No question waits under the key {key!r}. Those that wait: {waiting}.")
    check_answer(key, value, asked.get(key))
    encode(value, f"the answer to {key!r}: it", limit=queue.max_payload)
    return await queue.answer(task_id, key, value)
