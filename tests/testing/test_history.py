"""The history checker: legal histories pass, and each way to break a promise is caught on its rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jotty.testing import Event, check_history, read_history
from jotty.testing.history import History, HistoryReader

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

LEASE = 1000
FATES = ["completed", "failed", "released", "killed", "stopped", "lost", "doubt"]
Mutation = Callable[[list[Event]], list[Event]]


class Story:
    """Writes the history of one task, lease by lease."""

    def __init__(self, task: str, begin: int) -> None:
        self.task = task
        self.time = begin
        self.events: list[Event] = []
        self.lease = self.attempt = self.entries = 0
        self.outcome: dict[str, Any] = {"status": "pending", "result": None}

    def tell(self, process: str, kind: str, lease: int = 0, **details: Any) -> None:
        self.time += 1
        self.events.append(Event(self.time, process, kind, self.task, lease, details))

    def enqueue(self, **details: Any) -> None:
        self.tell("producer", "enqueued", max_attempts=3, is_new=True, **details)
        self.time += details.get("delay_us", 0)

    def claim(self, *, is_heard: bool = True) -> str:
        """Claim the task as a process of its own; one that is killed meanwhile is not heard of again."""
        self.lease += 1
        self.attempt += 1
        process = f"{self.task}-{self.lease}"
        self.tell(process, "claiming", call=0)
        if not is_heard:
            self.tell(process, "killed")
            self.time += LEASE
            return process
        since = self.time
        self.tell(process, "claimed", self.lease, since=since, lease_us=LEASE, attempt=self.attempt)
        self.tell(process, "answered", call=0)
        self.tell(process, "started", self.lease)
        return process

    def work(self, process: str, entries: int) -> None:
        if entries:
            first, self.entries = self.entries + 1, self.entries + entries
            self.tell(process, "recorded", self.lease, first=first, last=self.entries)
        self.tell(process, "renewed", self.lease, since=self.time, lease_us=LEASE)
        self.tell(process, "effect", self.lease)

    def settle(self, process: str, status: str, *, is_heard: bool = True, refund: int = 0) -> None:
        self.tell(process, "settling", self.lease, status=status)
        since, self.attempt = self.time, self.attempt - refund
        self.outcome = {"status": status, "result": self.lease if status == "completed" else None}
        told = {"result": self.lease} if status == "completed" else {}
        if is_heard:
            self.tell(
                process, "settled", self.lease, since=since, status=status, attempt=self.attempt, **told
            )
        else:
            self.tell(process, "killed")

    def expire(self, process: str, kind: str) -> None:
        self.tell(process, kind)
        self.time += 2 * LEASE
        if kind == "stopped":
            self.tell(process, "continued")
        if self.attempt == 3:
            self.tell("reaper", "settling", self.lease, status="failed")
            self.tell("reaper", "settled", self.lease, since=self.time, status="failed", attempt=self.attempt)
            self.outcome = {"status": "failed", "result": None}

    def finish(self) -> None:
        self.time += 10 * LEASE
        self.tell("harness", "final", self.lease, **self.outcome, entries=self.entries)


@st.composite
def stories(draw: st.DrawFn, /, task: str, **details: Any) -> list[Event]:
    """One task from its enqueue to its end, with whatever may happen to it meanwhile."""
    story = Story(task, draw(st.integers(0, 5000)))
    story.enqueue(**details)
    while story.attempt < 3 and story.outcome["status"] == "pending":
        fate = draw(
            st.sampled_from(["completed", "failed", "released", "killed", "stopped", "lost", "doubt"])
        )
        process = story.claim(is_heard=fate != "lost")
        if fate == "lost":
            continue
        story.work(process, draw(st.integers(0, 3)))
        if fate in {"killed", "stopped"}:
            story.expire(process, fate)
        elif fate == "released":
            story.settle(process, "pending", refund=1)
        elif fate == "failed":
            story.settle(process, "pending" if story.attempt < 3 else "failed")
        else:
            story.settle(process, "completed", is_heard=fate == "completed")
    story.finish()
    return story.events


@st.composite
def legal_histories(draw: st.DrawFn) -> list[Event]:
    events = [event for number in range(draw(st.integers(1, 4))) for event in draw(stories(f"task-{number}"))]
    return sorted(events, key=lambda event: event.time)


@given(legal_histories(), st.randoms())
def test_a_legal_history_breaks_nothing_in_whatever_order_it_is_told(
    history: list[Event], random: Random
) -> None:
    shuffled = random.sample(history, len(history))

    assert () == check_history(history).violations
    assert check_history(history).figures == check_history(shuffled).figures
    assert check_history(shuffled).ok


@given(legal_histories(), st.data())
def test_a_history_that_goes_on_breaks_nothing_yet(history: list[Event], data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(history)))

    assert () == check_history(history[:length], is_over=False).violations


@given(legal_histories())
def test_what_a_minimal_history_does_not_tell_is_not_judged(history: list[Event]) -> None:
    """One without the calls' begins, heartbeats and lengths of leases, where each lease was heard of."""
    assume(not [event for event in history if event.kind == "claiming" and not_heard(event, history)])
    told = {"enqueued", "started", "settled", "killed", "stopped", "final"}
    minimal = [event for event in history if event.kind in told]

    assert () == check_history(minimal).violations


def not_heard(claiming: Event, history: list[Event]) -> bool:
    return not [one for one in history if one.kind == "answered" and one.process == claiming.process]


# Mutations


def without(history: list[Event], *gone: Event) -> list[Event]:
    return [event for event in history if event not in gone]


def changed(history: list[Event], old: Event, **details: Any) -> list[Event]:
    new = attrs.evolve(old, details={**old.details, **details})
    return [new if event is old else event for event in history]


def a(kind: str, history: list[Event], **details: Any) -> Event:
    """Return the first event of a kind, if the history has one."""
    found = [
        event
        for event in history
        if event.kind == kind and all(event.details.get(name) == value for name, value in details.items())
    ]
    assume(found)
    return found[0]


def two_leases(history: list[Event]) -> tuple[Event, Event]:
    """Return two claims of one task in a row, of which the first has expired."""
    claims = [event for event in history if event.kind == "claimed"]
    for first in claims:
        for second in claims:
            is_next = (first.task, first.lease + 1) == (second.task, second.lease)
            if is_next and not [one for one in history if one.kind == "settling" and is_about(one, first)]:
                return first, second
    assume(False)
    raise AssertionError("assume does not return")


def is_about(event: Event, claim: Event) -> bool:
    return (event.task, event.lease, event.process) == (claim.task, claim.lease, claim.process)


def lost_task(history: list[Event]) -> list[Event]:
    return without(history, a("final", history))


def dropped_completion(history: list[Event]) -> list[Event]:
    done = a("settled", history, status="completed")
    final = next(event for event in history if event.kind == "final" and event.task == done.task)
    return changed(history, final, status="pending", result=None)


def another_result(history: list[Event]) -> list[Event]:
    done = a("settled", history, status="completed")
    final = next(event for event in history if event.kind == "final" and event.task == done.task)
    return changed(history, final, result="another")


def lease_given_twice(history: list[Event]) -> list[Event]:
    return [*history, attrs.evolve(a("claimed", history), process="thief")]


def duplicate_run(history: list[Event]) -> list[Event]:
    return [*history, attrs.evolve(a("started", history), process="thief")]


def overlapping_holders(history: list[Event]) -> list[Event]:
    first, _ = two_leases(history)
    return changed(history, first, lease_us=10 * LEASE)


def a_heartbeat_that_was_ignored(history: list[Event]) -> list[Event]:
    first, _ = two_leases(history)
    renewed = next(event for event in history if event.kind == "renewed" and is_about(event, first))
    return changed(history, renewed, lease_us=10 * LEASE)


def skipped_lease_number(history: list[Event]) -> list[Event]:
    claim = a("claimed", history)
    assume(not [event for event in history if event.kind == "claiming" and not_heard(event, history)])
    return [
        attrs.evolve(event, lease=event.lease + 1) if event.lease and event.task == claim.task else event
        for event in history
    ]


def lease_number_that_was_reset(history: list[Event]) -> list[Event]:
    first, second = two_leases(history)
    numbers = {first.lease: second.lease, second.lease: first.lease}
    return [
        attrs.evolve(event, lease=numbers[event.lease])
        if event.task == first.task and event.lease in numbers
        else event
        for event in history
    ]


def late_write(history: list[Event]) -> list[Event]:
    first, second = two_leases(history)
    end = second.time + LEASE // 2
    details = {"since": end - 1, "status": "completed", "attempt": first.details["attempt"]}
    return [*history, Event(end, first.process, "settled", first.task, first.lease, details)]


def late_heartbeat(history: list[Event]) -> list[Event]:
    first, second = two_leases(history)
    details = {"since": second.time + 1, "lease_us": LEASE}
    return [*history, Event(second.time + 2, first.process, "renewed", first.task, first.lease, details)]


def claim_after_the_end(history: list[Event]) -> list[Event]:
    end = a("settled", history, status="completed")
    again = Event(end.time + 1, "thief", "claimed", end.task, end.lease + 1, {"lease_us": LEASE})
    return [*history, again]


def too_many_attempts(history: list[Event]) -> list[Event]:
    first, _ = two_leases(history)
    new = next(event for event in history if event.kind == "enqueued" and event.task == first.task)
    return changed(history, new, max_attempts=0)


def too_early(history: list[Event]) -> list[Event]:
    claim = a("claimed", history)
    new = next(event for event in history if event.kind == "enqueued" and event.task == claim.task)
    return changed(history, new, delay_us=claim.time - new.time + 1)


def child_before_its_parent(history: list[Event]) -> list[Event]:
    claim = a("claimed", history)
    a("settled", history)
    new = next(event for event in history if event.kind == "enqueued" and event.task == claim.task)
    return changed(history, new, depends_on=["never run"])


def two_tasks_with_one_key(history: list[Event]) -> list[Event]:
    new = a("enqueued", history)
    a("settled", history)
    twin = attrs.evolve(new, task="twin", time=new.time + 1)
    final = Event(10**6, "harness", "final", "twin", 0, {"status": "pending"})
    return [*changed(history, new, key="k"), attrs.evolve(twin, details={**new.details, "key": "k"}), final]


def journal_number_given_twice(history: list[Event]) -> list[Event]:
    return [*history, attrs.evolve(a("recorded", history), process="thief")]


def shortened_journal(history: list[Event]) -> list[Event]:
    recorded = a("recorded", history)
    final = next(event for event in history if event.kind == "final" and event.task == recorded.task)
    return changed(history, final, entries=recorded.details["last"] - 1)


def hole_in_a_journal(history: list[Event]) -> list[Event]:
    seen = [
        Event(number, "follower", "seen", history[0].task or "task-0", 0, {"number": number})
        for number in (1, 2, 4)
    ]
    return [*history, *seen]


def deleted_task_that_comes_back(history: list[Event]) -> list[Event]:
    end = a("settled", history, status="completed")
    gone = Event(10**6, "client", "deleted", end.task)
    again = Event(10**6 + 2, "thief", "claimed", end.task, 99, {"since": 10**6 + 1, "lease_us": LEASE})
    return [*(one for one in history if (one.kind, one.task) != ("final", end.task)), gone, again]


MUTATIONS: dict[Mutation, str] = {
    lost_task: "C6",
    dropped_completion: "C44",
    another_result: "C44",
    lease_given_twice: "C15",
    duplicate_run: "C15",
    overlapping_holders: "C22",
    a_heartbeat_that_was_ignored: "C22",
    skipped_lease_number: "C21",
    lease_number_that_was_reset: "C21",
    late_write: "C23",
    late_heartbeat: "C23",
    claim_after_the_end: "C2",
    deleted_task_that_comes_back: "C2",
    too_many_attempts: "C25",
    too_early: "C14",
    child_before_its_parent: "C35",
    two_tasks_with_one_key: "C9",
    journal_number_given_twice: "C37",
    shortened_journal: "C38",
    hole_in_a_journal: "C37",
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_each_broken_promise_is_caught_on_its_rule(mutation: Mutation) -> None:
    @given(legal_histories())
    def check(history: list[Event]) -> None:
        verdict = check_history(mutation(history))

        assert not verdict.ok
        assert MUTATIONS[mutation] in {violation.rule for violation in verdict.violations}

    check()


def test_a_run_again_without_a_kill_or_an_expired_lease_is_caught() -> None:
    """In a history that does not tell how long the leases are."""
    history = [
        Event(1, "p", "enqueued", "t"),
        Event(2, "a", "started", "t", 1),
        Event(3, "b", "started", "t", 2),
        Event(4, "b", "settled", "t", 2, {"status": "completed"}),
        Event(5, "harness", "final", "t", 2, {"status": "completed"}),
    ]
    killed = Event(2, "a", "killed")

    assert ["C22"] == [violation.rule for violation in check_history(history).violations]
    assert check_history([*history, killed]).ok


def test_a_verdict_says_what_was_broken_and_shows_the_proof() -> None:
    history = [Event(1, "producer-1", "enqueued", "task-1")]

    verdict = check_history(history)
    (violation,) = verdict.violations

    assert "task-1 was acknowledged and is lost" in str(verdict)
    assert '"process": "producer-1"' in str(verdict)
    assert (history[0],) == violation.events


def test_figures_count_what_happened() -> None:
    story = Story("task-0", 0)
    story.enqueue()
    story.expire(story.claim(), "killed")
    story.expire(story.claim(), "nothing")
    story.settle(story.claim(), "completed")
    story.finish()
    figures = check_history(story.events).figures

    assert (1, 3, 3, 1, 0) == (figures.tasks, figures.claims, figures.runs, figures.kills, figures.stops)
    assert (2, 1) == (figures.redeliveries, figures.expiries)
    assert {"completed": 1} == figures.final
    assert LEASE < figures.longest_takeover * 1e6 < 2 * LEASE


# Files

details = st.dictionaries(st.sampled_from(["since", "status", "of"]), st.integers() | st.text())
events = st.builds(
    Event,
    time=st.integers(0, 2**53),
    process=st.text(min_size=1),
    kind=st.text(min_size=1),
    task=st.text(),
    lease=st.integers(0),
    details=details,
)


@given(events)
def test_an_event_is_a_line(event: Event) -> None:
    assert event == Event.from_json(event.to_json())
    assert "\n" not in event.to_json()


@pytest.mark.parametrize("line", ["", "{}", "[]", "1", '{"time": 1}', '{"time": 1, "process": "a"'])
def test_what_is_no_event_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Event.from_json(line)


def test_histories_are_merged_by_time(tmp_path: Path) -> None:
    writers = [History(tmp_path, name) for name in ("a", "b", "c")]
    for number in range(9):
        writers[number % 3].tell("effect", f"task-{number}", 1)
    for writer in writers:
        writer.close()

    assert [f"task-{number}" for number in range(9)] == [event.task for event in read_history(tmp_path)]
    assert ["a", "b", "c"] * 3 == [event.process for event in read_history(tmp_path)]


def test_the_torn_last_line_of_a_killed_process_is_left_out(tmp_path: Path) -> None:
    history = History(tmp_path, "a")
    history.tell("effect", "first")
    history.tell("effect", "torn")
    history.close()
    whole = (tmp_path / "a.history").read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        (tmp_path / "a.history").write_bytes(whole[:length])

        assert ["first"] == [event.task for event in read_history(tmp_path)]


def test_a_damaged_line_before_others_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.history").write_text("damaged\n" + Event(1, "a", "effect").to_json() + "\n")

    with pytest.raises(ValueError, match=r"a\.history"):
        read_history(tmp_path)


def test_a_reader_gives_each_event_once(tmp_path: Path) -> None:
    history, reader = History(tmp_path, "a"), HistoryReader(tmp_path)
    history.tell("effect", "first")
    first = reader.read()
    history.tell_all([history.event("effect", "second"), history.event("effect", "third")])
    rest = reader.read()
    history.close()

    assert ["first"] == [event.task for event in first]
    assert ["second", "third"] == [event.task for event in rest]
    assert [] == reader.read()


def test_who_was_stopped_may_begin_what_has_been_deleted_meanwhile() -> None:
    """It was given the task before, and loses the lease at its first write."""
    told = [
        Event(1, "client", "enqueued", "t", details={"is_new": True}),
        Event(2, "slow", "claimed", "t", 1, {"lease_us": 5, "attempt": 1}),
        Event(3, "slow", "stopped"),
        Event(20, "quick", "claimed", "t", 2, {"lease_us": 5, "attempt": 2}),
        Event(21, "quick", "started", "t", 2),
        Event(22, "quick", "settled", "t", 2, {"status": "completed", "attempt": 2}),
        Event(23, "client", "deleted", "t"),
        Event(30, "slow", "continued"),
        Event(31, "slow", "started", "t", 1),
        Event(32, "slow", "lost", "t", 1),
    ]

    assert [] == [one for one in check_history(told).violations if one.rule == "C2"]
