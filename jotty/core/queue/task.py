"""A task: its head, which policy rewrites, its payload and its outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Generic, Literal, TypeVar, cast, get_args

import attrs

from .clock import MAX_SECONDS, MICROSECONDS
from .retry import DEFAULT_RETRY, RetryPolicy

__all__ = [
    "LIVE",
    "TERMINAL",
    "Head",
    "NewTask",
    "OnDependency",
    "Ref",
    "Task",
    "TaskStatus",
    "check_count",
    "check_lanes",
    "check_name",
    "check_priority",
    "check_seconds",
    "from_microseconds",
    "head_from",
    "may_exist",
    "next_head",
    "rewriting",
    "rewritten",
    "task_with",
]

T = TypeVar("T")
OnDependency = Literal["fail", "cancel", "run"]


class TaskStatus(StrEnum):
    """Where a task stands; see C1 of the contract for the moves between these."""

    SUGGESTED = "suggested"
    BACKLOG = "backlog"
    BLOCKED = "blocked"
    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether a task in this state is over: nothing but an explicit retry changes it."""
        return self in TERMINAL


TERMINAL: Final = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})
LIVE: Final = frozenset(TaskStatus) - TERMINAL

MAX_NAME = 200
MAX_COUNT = 2**53


def from_microseconds(instant: int) -> datetime:
    """Return an instant of the store as a timezone-aware datetime."""
    seconds, rest = divmod(instant, MICROSECONDS)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


@attrs.frozen(kw_only=True, weakref_slot=False)  # a draft has the same slots
class Head:
    """What a backend stores of a task beside its opaque bytes; instants and durations are int microseconds.

    Attributes:
        id: Unique for ever, and ordered by time of creation.
        seq: The order of enqueue, set by the backend at insert, from 1, never changed.
        priority: 1 (most urgent) to 5.
        lane: The named queue within the store.
        status: Where the task stands.
        key: At most one live task has it.
        tags: Filters for reading; part of the head because the payload is opaque to a backend.
        depends_on: Ids that must be completed first.
        on_dependency: What becomes of this task if one of those fails or is cancelled.
        awaiting: Keys of questions; while blocked, the task waits for an answer to one of them.
        answered: Keys of questions that have their answer.
        run_at: Not to be claimed before; 0 at insert or swap means now, put in by the backend.
        due: The next instant at which policy must look at the task; None if there is none.
        lease: The number of the last claim, and the fencing token; 0 before the first.
        lease_until: When the lease ends, while in progress.
        worker: Who holds, or last held, the task.
        attempt: How many claims count against `max_attempts`.
        max_attempts: How many attempts there are.
        retry: How long to wait between attempts.
        timeout: How long an attempt may take; None for no bound.
        cancel_requested: Whether the holder has been asked to stop.
        postponed: How often in a row the task asked to be tried later.
        isolated: Whether its last worker was lost, so that it should run alone in the next one.
        progress: Finished and known steps, where a worker has told.
        created_at: When it was enqueued.
        started_at: When it was last claimed; 0 before.
        finished_at: When it became terminal; 0 before.
        version: Grows by one with every write.
    """

    id: str
    seq: int = 0
    priority: int = 3
    lane: str = "default"
    status: TaskStatus = TaskStatus.PENDING
    key: str | None = None
    tags: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    on_dependency: OnDependency = "fail"
    awaiting: tuple[str, ...] = ()
    answered: tuple[str, ...] = ()
    run_at: int = 0
    due: int | None = None
    lease: int = 0
    lease_until: int = 0
    worker: str | None = None
    attempt: int = 0
    max_attempts: int = 3
    retry: RetryPolicy = DEFAULT_RETRY
    timeout: int | None = None
    cancel_requested: bool = False
    postponed: int = 0
    isolated: bool = False
    progress: tuple[int, int] | None = None
    created_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    version: int = 1


def _draft_of(kind: type[Any]) -> Any:
    """Return a class with the same slots that is not frozen: filling a frozen instance takes far longer.

    A draft becomes what it is to be by its class, before anybody sees it.
    """
    fields = {field.name: attrs.field(default=field.default) for field in attrs.fields(kind)}
    return attrs.make_class(
        f"_{kind.__name__}Draft", fields, eq=False, repr=False, slots=True, weakref_slot=False
    )


_FIELDS: Final = tuple(field.name for field in attrs.fields(Head))
_HeadDraft: Any = _draft_of(Head)


def head_from(values: Iterable[Any]) -> Head:
    """Return the head with these values, in the order of its fields; for backends, and unchecked."""
    draft = _HeadDraft(*values)
    draft.__class__ = Head
    return cast("Head", draft)


def rewriting(*fields: str, is_next: bool = True) -> Callable[..., Head]:
    """Return a function from a head, and these fields by name, to a head that differs in them.

    It is `rewritten`, or `next_head`, for who always changes the same fields, and takes half as long.

    Args:
        fields: All that it takes, each time.
        is_next: Whether the new head has the next version.
    """
    version = {"version": "head.version + 1"} if is_next else {}
    given = {field: field for field in fields}
    values = {field: f"head.{field}" for field in _FIELDS} | version | given
    return _made(f"rewriting_{'_'.join(fields)}", ", ".join(fields), values)


def _rewriting_any(name: str, summary: str, version: str) -> Callable[..., Head]:
    """Return a function from a head to one that differs in any fields."""
    unchanged = {field: f"head.{field}" for field in _FIELDS} | {"version": version}
    values = {field: f"{old} if {field} is same else {field}" for field, old in unchanged.items()}
    made = _made(name, ", ".join(f"{field}=same" for field in _FIELDS), values)
    made.__doc__ = summary
    return made


def _made(name: str, parameters: str, values: Mapping[str, str]) -> Callable[..., Head]:
    """Return a function that makes a head, its code written out as attrs writes out an `__init__`."""
    lines = [
        f"def {name}(head, *, {parameters}):",
        "    draft = new(Draft)",
        *(f"    draft.{field} = {value}" for field, value in values.items()),
        "    draft.__class__ = Head",
        "    return draft",
    ]
    names: dict[str, Any] = {"same": object(), "new": object.__new__, "Draft": _HeadDraft, "Head": Head}
    exec("\n".join(lines), names)  # noqa: S102 - of the names above and nothing else
    made: Callable[..., Head] = names[name]
    return made


rewritten: Final = _rewriting_any(
    "rewritten", "Return a head with some fields changed: `attrs.evolve`, for heads.", "head.version"
)
next_head: Final = _rewriting_any(
    "next_head", "Return a head with some fields changed, and the next version.", "head.version + 1"
)


class _HeadField(Generic[T]):
    """Shows a field of the head on the task."""

    def __set_name__(self, owner: type[Task], name: str) -> None:
        self._name = name

    def __get__(self, task: Task, owner: type[Task]) -> T:
        value: T = getattr(task.head, self._name)
        return value


class _HeadInstant:
    """Shows an instant of the head as a datetime; None where it has not come yet."""

    def __set_name__(self, owner: type[Task], name: str) -> None:
        self._name = name

    def __get__(self, task: Task, owner: type[Task]) -> datetime | None:
        value: int = getattr(task.head, self._name)
        return from_microseconds(value) if value else None


@attrs.frozen(kw_only=True, repr=False, weakref_slot=False)
class Task:
    """A task as it was when it was read; a value, which does not follow the store.

    Attributes:
        head: The head as the store has it, in microseconds.
        goal: What is to be done; any JSON, most often text.
        context: Values that the goal's actors may ask for by name.
        metadata: The caller's own notes; jotty keeps its own under the key `jotty`.
        headers: Trace context, passed on untouched.
        result: What the task was completed with; None before.
        error: What last failed it: a dict with `type`, `message` and `traceback`; None if nothing has.

    Beside these there is each field of the head (`id`, `status`, `lease`, ...), with `run_at`, `created_at`,
    `started_at`, `finished_at` and `lease_until` as timezone-aware datetimes (None if not yet) and
    `timeout` in seconds.
    """

    head: Head
    goal: Any = None
    context: dict[str, Any] = attrs.field(factory=dict)
    metadata: dict[str, Any] = attrs.field(factory=dict)
    headers: dict[str, str] = attrs.field(factory=dict)
    result: Any = None
    error: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"<Task {self.head.id} {self.head.status.value} goal={self.goal!r:.60}>"

    id = _HeadField[str]()
    seq = _HeadField[int]()
    priority = _HeadField[int]()
    lane = _HeadField[str]()
    status = _HeadField[TaskStatus]()
    key = _HeadField["str | None"]()
    tags = _HeadField[tuple[str, ...]]()
    depends_on = _HeadField[tuple[str, ...]]()
    on_dependency = _HeadField[OnDependency]()
    awaiting = _HeadField[tuple[str, ...]]()
    answered = _HeadField[tuple[str, ...]]()
    lease = _HeadField[int]()
    worker = _HeadField["str | None"]()
    attempt = _HeadField[int]()
    max_attempts = _HeadField[int]()
    retry = _HeadField[RetryPolicy]()
    cancel_requested = _HeadField[bool]()
    postponed = _HeadField[int]()
    isolated = _HeadField[bool]()
    progress = _HeadField["tuple[int, int] | None"]()
    version = _HeadField[int]()
    run_at = _HeadInstant()
    created_at = _HeadInstant()
    started_at = _HeadInstant()
    finished_at = _HeadInstant()
    lease_until = _HeadInstant()
    due = _HeadInstant()

    @property
    def timeout(self) -> float | None:
        """How many seconds an attempt may take; None for no bound."""
        return None if self.head.timeout is None else self.head.timeout / MICROSECONDS


_TaskDraft: Any = _draft_of(Task)


def task_with(head: Head, **values: Any) -> Task:
    """Return the same as `Task(head=head, **values)`, sooner.

    Raises:
        TypeError: One of the values is no field of a task.
    """
    draft = _TaskDraft(head, **values)
    draft.__class__ = Task
    return cast("Task", draft)


@attrs.frozen
class Ref:
    """Stands in `depends_on` for an earlier item of the same `enqueue_many`.

    Attributes:
        index: The item's place in the list, from 0.
    """

    index: int

    def __attrs_post_init__(self) -> None:
        """Refuse what is no place in a list."""
        check_count("the index of a Ref", self.index, least=0)


def check_priority(priority: object) -> None:
    """Refuse what is no priority.

    Raises:
        ValueError: It is no int from 1 to 5 (a bool is none).
    """
    if type(priority) is not int or not 1 <= priority <= 5:  # noqa: PLR2004 - the contract's range
        raise ValueError(f"priority must be an int from 1 (most urgent) to 5, not {priority!r}.")


def check_name(kind: str, name: object) -> None:
    """Refuse what cannot name a lane, key, tag or worker.

    Raises:
        ValueError: It is no text of 1 to 200 printable characters without space at its ends.
    """
    if (
        not isinstance(name, str)
        or not name.isprintable()
        or not 1 <= len(name.strip()) == len(name) <= MAX_NAME
    ):
        raise ValueError(
            f"{kind} must be 1 to {MAX_NAME} printable characters without space at the ends, not {name!r}."
        )


def may_exist(task_id: str) -> bool:
    """Tell whether a store can hold a task with this id: text that UTF-8 can write.

    Raises:
        TypeError: It is no text.
    """
    if not isinstance(task_id, str):
        raise TypeError(f"A task's id is a text, not {task_id!r}.")
    try:
        task_id.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_lanes(lanes: Sequence[str]) -> tuple[str, ...]:
    """Return lanes without repetitions.

    Raises:
        ValueError: There is none, or one is no name.
    """
    if isinstance(lanes, str) or not lanes:
        raise ValueError(f"lanes must hold at least one name, like ('default',), not {lanes!r}.")
    for lane in lanes:
        check_name("lane", lane)
    return tuple(dict.fromkeys(lanes))


def check_seconds(kind: str, seconds: Any, *, above_zero: bool = False) -> None:
    """Refuse what is no duration.

    Raises:
        ValueError: It is no finite number of seconds that is >= 0 (or > 0, if so asked).
    """
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if is_number and 0 <= seconds <= MAX_SECONDS and (seconds or not above_zero):
        return
    bound = "> 0" if above_zero else ">= 0"
    raise ValueError(f"{kind} must be a number of seconds {bound} and at most a century, not {seconds!r}.")


def check_count(kind: str, count: object, *, least: int = 1) -> None:
    """Refuse what is no count.

    Raises:
        ValueError: It is no int, below the least that makes sense, or beyond what every store can hold.
    """
    if type(count) is not int or not least <= count <= MAX_COUNT:
        raise ValueError(f"{kind} must be an int from {least} to {MAX_COUNT}, not {count!r}.")


_INITIAL: Final = (TaskStatus.PENDING, TaskStatus.BACKLOG, TaskStatus.SUGGESTED)
_ON_DEPENDENCY: Final = get_args(OnDependency)


@attrs.frozen
class NewTask:
    """What `TaskQueue.enqueue` takes, as a value for `enqueue_many`.

    Attributes:
        goal: What is to be done: any strict JSON, most often text.
        context: Values by name, strict JSON; None for none.
        priority: 1 (most urgent) to 5.
        lane: The named queue within the store.
        delay: Seconds from now before it may be claimed.
        run_at: The same as a timezone-aware wall-clock time, converted at enqueue.
        key: While a task with this key is live, enqueueing another gives that one.
        depends_on: Ids, or `Ref`s to earlier items of the same call, that must be completed first.
        on_dependency: What to do if one of those fails or is cancelled: "fail", "cancel" or "run".
        max_attempts: How many claims may come to nothing before the task is failed.
        retry: How long to wait between attempts.
        timeout: Seconds an attempt may take; None for no bound.
        status: PENDING, or BACKLOG or SUGGESTED to wait for `TaskQueue.accept`.
        tags: Names to filter by when reading.
        metadata: The caller's own notes, strict JSON.
        headers: Trace context: text by name.

    Raises:
        ValueError: A field is outside of what the above says.
    """

    goal: Any
    context: dict[str, Any] | None = None
    priority: int = attrs.field(default=3, kw_only=True)
    lane: str = attrs.field(default="default", kw_only=True)
    delay: float | None = attrs.field(default=None, kw_only=True)
    run_at: datetime | None = attrs.field(default=None, kw_only=True)
    key: str | None = attrs.field(default=None, kw_only=True)
    depends_on: Sequence[str | Ref] = attrs.field(default=(), kw_only=True)
    on_dependency: OnDependency = attrs.field(default="fail", kw_only=True)
    max_attempts: int = attrs.field(default=3, kw_only=True)
    retry: RetryPolicy = attrs.field(default=DEFAULT_RETRY, kw_only=True)
    timeout: float | None = attrs.field(default=None, kw_only=True)
    status: TaskStatus | str = attrs.field(default=TaskStatus.PENDING, kw_only=True)
    tags: Sequence[str] = attrs.field(default=(), kw_only=True)
    metadata: dict[str, Any] | None = attrs.field(default=None, kw_only=True)
    headers: dict[str, str] | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Check every field but the JSON ones, which are checked when they are encoded."""
        check_priority(self.priority)
        check_name("lane", self.lane)
        check_count("max_attempts", self.max_attempts)
        if self.key is not None:
            check_name("key", self.key)
        if self.timeout is not None:
            check_seconds("timeout", self.timeout, above_zero=True)
        if not isinstance(self.retry, RetryPolicy):
            raise TypeError(f"retry must be a RetryPolicy, not {self.retry!r}.")
        if self.status not in _INITIAL:
            raise ValueError(f"status must be 'pending', 'backlog' or 'suggested', not {self.status!r}.")
        self._check_time()
        self._check_names()

    def _check_time(self) -> None:
        if self.delay is not None:
            check_seconds("delay", self.delay)
        if self.run_at is None:
            return
        if self.delay is not None:
            raise ValueError(f"Give either delay={self.delay!r} or run_at={self.run_at!r}, not both.")
        if not isinstance(self.run_at, datetime) or self.run_at.utcoffset() is None:
            raise ValueError(
                f"run_at must be a datetime with a timezone, not {self.run_at!r}. Pass tzinfo=UTC."
            )

    def _check_names(self) -> None:
        if self.on_dependency not in _ON_DEPENDENCY:
            raise ValueError(f"on_dependency must be 'fail', 'cancel' or 'run', not {self.on_dependency!r}.")
        if self.tags == () == self.depends_on:
            return
        for name, value in (("tags", self.tags), ("depends_on", self.depends_on)):
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise TypeError(f"{name} must be a list or tuple, not {value!r}.")
        for tag in self.tags:
            check_name("a tag", tag)
        for dependency in self.depends_on:
            if not isinstance(dependency, (str, Ref)):
                raise TypeError(f"depends_on must hold ids or Ref(i), not {dependency!r}.")
