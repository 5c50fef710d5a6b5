"""Enqueueing: one by one or many, with keys, dependencies, delays and bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import initialize, multiple, rule

from jotty.core.queue import MICROSECONDS, NewTask, Ref, TaskStatus
from jotty.errors import QueueFull, TaskNotFound
from jotty.testing.model import QueueModel, TaskModel

from .arguments import KEYS, MAX_SIZE, RETRY, TAGS, faults, handles, lanes, tasks
from .expectation import UNKNOWN, Call, Expectations

if TYPE_CHECKING:
    from jotty.testing.faults import Fault

__all__ = ["ProducerRules"]

_PASSED_ON = ("priority", "lane", "key", "max_attempts", "on_dependency")
Options = dict[str, Any]


@attrs.define
class _Plan:
    """What an enqueue must store: for each item the stored task's id, or its place among the new ones."""

    items: list[str | int] = attrs.field(factory=list)
    new: list[tuple[Options, list[str | int]]] = attrs.field(factory=list)

    def add(self, item: Options, model: QueueModel) -> None:
        """Plan one more item (C9)."""
        key = item.get("key")
        holder = model.holder(key)
        earlier = [at for at, (one, _) in enumerate(self.new) if key and one.get("key") == key]
        if holder is not None or earlier:
            self.items.append(earlier[0] if holder is None else holder.id)
            return
        parents = [self.items[one.index] if isinstance(one, Ref) else one for one in item["depends_on"]]
        self.items.append(len(self.new))
        self.new.append((item, list(dict.fromkeys(parents))))

    def ids(self, new: list[str]) -> list[str]:
        """Return the ids of all items."""
        return [new[one] if isinstance(one, int) else one for one in self.items]

    def is_lacking(self, model: QueueModel) -> bool:
        """Whether an item depends on what is not there (C36)."""
        parents = [one for _, parents in self.new for one in parents]
        return any(isinstance(one, str) and one not in model.tasks for one in parents)

    def is_too_long(self, model: QueueModel, handle: int) -> bool:
        """Whether there is no room for it (C11)."""
        return bool(handle and self.new) and model.live() + len(self.new) > MAX_SIZE


class ProducerRules(Expectations):
    """`enqueue` and `enqueue_many`."""

    @initialize(target=tasks)
    def first_tasks(self) -> Any:
        """Begin with two tasks."""
        return self._enqueue(0, None, [{}, {}])

    @rule(
        target=tasks,
        handle=handles,
        fault=faults,
        priority=st.sampled_from([3, 1, 2, 4, 5]),
        lane=lanes,
        delay=st.sampled_from([None, None, 0, 1, 30]),
        key=st.sampled_from([None, None, *KEYS]),
        tag=st.sampled_from([None, *TAGS]),
        max_attempts=st.integers(1, 3),
        status=st.sampled_from(["pending", "pending", "pending", "backlog", "suggested"]),
    )
    def enqueue(self, handle: int, fault: Fault | None, tag: str | None, **options: Any) -> Any:
        """Enqueue a task."""
        return self._enqueue(handle, fault, [{**options, "tags": [tag] if tag else []}])

    @rule(
        target=tasks,
        handle=handles,
        fault=faults,
        depends_on=st.lists(tasks, min_size=1, max_size=3),
        on_dependency=st.sampled_from(["fail", "fail", "cancel", "run"]),
        status=st.sampled_from(["pending", "pending", "backlog"]),
        max_attempts=st.integers(1, 2),
    )
    def enqueue_dependent(self, handle: int, fault: Fault | None, **options: Any) -> Any:
        """Enqueue a task that depends on others."""
        return self._enqueue(handle, fault, [options])

    @rule(
        target=tasks,
        handle=handles,
        fault=faults,
        keys=st.lists(st.sampled_from([None, None, *KEYS]), min_size=1, max_size=3),
        depends_on=st.lists(tasks, max_size=1),
        on_dependency=st.sampled_from(["fail", "cancel", "run"]),
        is_chain=st.booleans(),
    )
    def enqueue_many(
        self,
        handle: int,
        fault: Fault | None,
        keys: list[str | None],
        depends_on: list[str],
        on_dependency: str,
        *,
        is_chain: bool,
    ) -> Any:
        """Enqueue tasks, each depending on the one before if they are a chain, and the first on another."""
        batch: list[Options] = [{"key": key, "on_dependency": on_dependency} for key in keys]
        for number, item in enumerate(batch):
            item["depends_on"] = ([Ref(number - 1)] if is_chain else []) if number else depends_on
        return self._enqueue(handle, fault, batch, at_once=True)

    def _enqueue(
        self, handle: int, fault: Fault | None, batch: list[Options], *, at_once: bool = False
    ) -> Any:
        batch = [{"depends_on": [], **item} for item in batch]
        plan = _Plan()
        for item in batch:
            plan.add(item, self.model)
        errors: list[type[Exception]] = [TaskNotFound] if plan.is_lacking(self.model) else []
        errors += [QueueFull] if plan.is_too_long(self.model, handle) else []
        known = set(self.model.tasks)
        value = self.expect(
            handle,
            fault,
            _call(batch, at_once=at_once),
            lambda model: self._store(model, plan),
            error=tuple(errors),
        )
        new = [task_id for task_id in self.model.tasks if task_id not in known]
        if value is not UNKNOWN and not errors:
            assert plan.ids(new) == [task.id for task in value], "C9: a live key gives its task"
        return multiple(*new)

    def _store(self, model: QueueModel, plan: _Plan) -> None:
        ids = [one["id"] for one in self.seen() if one["id"] not in model.tasks]
        assert len(ids) == len(plan.new), f"C8: of {len(plan.new)} tasks {len(ids)} are there"
        added = [
            TaskModel(
                id=task_id,
                seq=model.enqueued + number,
                status=TaskStatus(item.get("status", "pending")),
                depends_on=tuple(ids[one] if isinstance(one, int) else one for one in parents),
                run_at=self.now + int((item.get("delay") or 0) * MICROSECONDS),
                tags=tuple(item.get("tags", ())),
                **{name: item[name] for name in _PASSED_ON if name in item},
            )
            for number, (task_id, (item, parents)) in enumerate(zip(ids, plan.new, strict=True), start=1)
        ]
        model.add(added, self.now)


def _call(batch: list[Options], *, at_once: bool) -> Call:
    if len(batch) == 1 and not at_once:
        return lambda queue: _alone(queue.enqueue("goal", retry=RETRY, **batch[0]))
    return lambda queue: queue.enqueue_many([NewTask("goal", retry=RETRY, **item) for item in batch])


async def _alone(call: Any) -> list[Any]:
    return [await call]
