"""The history checker: a pure function from what happened to what it breaks of the contract."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import attrs

from .stories import Story, Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from .history import Event

__all__ = ["Figures", "Verdict", "Violation", "check_history"]

SHOWN: Final = 10
_SECOND: Final = 1_000_000


@attrs.frozen
class Violation:
    """A promise that was broken.

    Attributes:
        rule: The rule of the contract, like "C22".
        what: What happened, in a sentence.
        events: The events that prove it.
    """

    rule: str
    what: str
    events: tuple[Event, ...] = ()

    def __str__(self) -> str:
        proof = "".join(f"\n    {event.to_json()}" for event in self.events)
        return f"{self.rule}: {self.what}{proof}"


@attrs.frozen(kw_only=True)
class Figures:
    """What a history amounts to.

    Attributes:
        events: How many events it has.
        tasks: How many tasks were acknowledged as stored.
        claims: How many leases were given.
        runs: How often work on a task began.
        kills: How many processes were killed.
        stops: How often a process was stopped.
        redeliveries: How many leases were given because the one before had expired.
        expiries: How many of those expired though nobody had killed or stopped their holder.
        longest_takeover: The longest time from the end of an expired lease to the next one, in seconds.
        final: How many tasks ended in each state.
    """

    events: int
    tasks: int
    claims: int
    runs: int
    kills: int
    stops: int
    redeliveries: int
    expiries: int
    longest_takeover: float
    final: Mapping[str, int]

    def __str__(self) -> str:
        final = ", ".join(f"{number} {status}" for status, number in sorted(self.final.items()))
        return (
            f"{self.tasks} tasks ({final or 'no final state'}), {self.claims} claims, {self.runs} runs, "
            f"{self.kills} kills, {self.stops} stops, {self.redeliveries} redeliveries ({self.expiries} from "
            f"living workers), longest takeover {self.longest_takeover:.2f} s, {self.events} events"
        )


@attrs.frozen
class Verdict:
    """What a history shows.

    Attributes:
        violations: What was broken; empty if nothing was.
        figures: What the history amounts to.
    """

    violations: tuple[Violation, ...]
    figures: Figures

    @property
    def ok(self) -> bool:
        """Whether nothing was broken."""
        return not self.violations

    def __str__(self) -> str:
        shown = [str(one) for one in self.violations[:SHOWN]]
        if (more := len(self.violations) - SHOWN) > 0:
            shown.append(f"and {more} more")
        return "\n".join([str(self.figures), *shown])


def check_history(events: Iterable[Event], *, is_over: bool = True) -> Verdict:
    """Judge what several processes have told of their work on one store.

    Nothing acknowledged is lost; nothing is done twice but after a kill or an expired lease; no two processes
    hold a lease at once; lease numbers grow by one; no task is tried more often than it may be. Only what is
    certain counts: between a call's begin and its return, the history is given the benefit of the doubt, and
    what it does not tell of is not judged.

    Args:
        events: The history, in any order; see `Event` for what is judged of it.
        is_over: Whether it tells of the end: each task that may be there has a `final` event.

    The history may be your own: of whatever processes that share tasks, as long as each tells of a call once
    it has returned. `History` writes such events to a file that survives kill -9, and `read_history` reads
    those of all processes.

    Example:
        >>> from jotty.testing import Event, check_history
        >>> lease = {"lease_us": 30_000_000}
        >>> history = [
        ...     Event(1_000, "shop", "enqueued", "order 7"),
        ...     Event(2_000, "worker a", "claimed", "order 7", 1, lease),
        ...     Event(5_000, "worker b", "claimed", "order 7", 2, lease),
        ... ]
        >>> verdict = check_history(history, is_over=False)
        >>> verdict.ok
        False
        >>> for violation in verdict.violations:
        ...     print(violation.rule, violation.what)
        C22 lease 2 was given 29.997 s before lease 1 had expired
    """
    ordered = sorted(events, key=lambda event: event.time)
    by_task: defaultdict[str, list[Event]] = defaultdict(list)
    for event in ordered:
        if event.task:
            by_task[event.task].append(event)
    around = Surroundings(ordered)
    stories = [Story(task, told, around) for task, told in by_task.items()]
    violations = [one for story in stories for rule in _RULES for one in rule(story)]
    if is_over:
        violations += [
            violation for story in stories for rule in _RULES_AT_THE_END for violation in rule(story)
        ]
    violations += _keys_were_unique(stories)
    violations += _parents_came_first({story.task: story for story in stories})
    return Verdict(tuple(violations), _figures(ordered, stories))


def _leases_are_given_once(story: Story) -> Iterator[Violation]:
    for lease in story.leases:
        if len(lease.given) > 1:
            yield Violation("C15", f"lease {lease.number} was given more than once", tuple(lease.given))
        if len(lease.started) > 1:
            yield Violation("C15", f"lease {lease.number} was worked on more than once", tuple(lease.started))


def _no_lease_is_taken_early(story: Story) -> Iterator[Violation]:
    for before, after in _pairs(story.leases):
        taken = after.first
        if before.given_up_at is not None and before.given_up_at <= taken.time:
            continue
        if taken.time < before.deadline:
            early = (before.deadline - taken.time) / _SECOND
            what = f"lease {after.number} was given {early:.3f} s before lease {before.number} had expired"
            yield Violation("C22", what, (before.first, *before.renewed[-1:], taken))


def _nothing_runs_twice_without_reason(story: Story) -> Iterator[Violation]:
    """Where the length of the leases is not told, only a kill or a stop shows that one may have expired."""
    for before, after in _pairs(story.leases):
        is_given_up = before.given_up_at is not None
        if "lease_us" in before.first.details or is_given_up or not after.started:
            continue
        reasons = story.around.interruptions[before.holder]
        if not any(time <= after.first.time for time in reasons):
            what = f"it ran again, though the holder of lease {before.number} had neither ended nor been lost"
            yield Violation("C22", what, (before.first, after.first))


def _a_lost_lease_writes_nothing(story: Story) -> Iterator[Violation]:
    for before, after in _pairs(story.leases):
        for write in before.writes:
            if write.since > after.first.time:
                what = f"a write under lease {before.number} was taken after lease {after.number} was given"
                yield Violation("C23", what, (after.first, write))


def _leases_grow_by_one(story: Story) -> Iterator[Violation]:
    for before, after in _pairs(story.leases):
        if after.first.time < before.first.since:
            what = f"lease {after.number} was given before lease {before.number}"
            yield Violation("C21", what, (after.first, before.first))
    given = {lease.number: lease.first for lease in story.leases}
    last = max([*given, story.final.lease if story.final else 0])
    untold = 0
    for number in range(1, last + 1):
        if number in given:
            continue
        untold += 1
        successor = next((given[later] for later in range(number + 1, last + 1) if later in given), None)
        before = None if successor is None else successor.time
        possible = [time for time in story.around.unanswered_claims if before is None or time < before]
        if len(possible) < untold:
            proof = tuple(event for event in (successor, story.final) if event)
            yield Violation("C21", f"lease {number} was given to nobody", proof)


def _attempts_are_bounded(story: Story) -> Iterator[Violation]:
    bound = next((event.details.get("max_attempts") for event in story.by_kind["enqueued"]), None)
    if bound is None or story.by_kind["retrying"]:
        return
    spent = [lease for lease in story.leases if lease.started and not lease.is_refunded]
    if len(spent) > bound:
        what = f"it was tried {len(spent)} times, of {bound} at most"
        yield Violation("C25", what, tuple(lease.started[0] for lease in spent))


def _what_ended_stays_so(story: Story) -> Iterator[Violation]:
    ended = story.ended()
    for end in ended:
        if story.is_retried_after(end.since):
            continue
        for lease in story.leases:
            if lease.first.since > end.time:
                what = f"lease {lease.number} was given after the task was {end.details['status']}"
                yield Violation("C2", what, (end, lease.first))
    if len(ended) > 1 and not story.by_kind["retrying"]:
        yield Violation("C2", "it came to its end more than once", tuple(ended))


def _what_was_deleted_stays_away(story: Story) -> Iterator[Violation]:
    deletions = story.by_kind["deleted"]
    # who was stopped after its claim may begin what others have deleted since, and will lose the lease
    held_before = {one.number for one in story.leases if deletions and one.first.since <= deletions[0].time}
    for kind in ("claimed", "started", "settled", "deleted", "final"):
        for event in story.by_kind[kind]:
            if kind == "started" and event.lease in held_before:
                continue
            if deletions and event.since > deletions[0].time:
                what = f"task {story.task} was deleted, and is there again ({kind})"
                yield Violation("C2", what, (deletions[0], event))


def _nothing_runs_before_its_time(story: Story) -> Iterator[Violation]:
    for new in story.by_kind["enqueued"]:
        if not (new.details.get("is_new") and new.details.get("delay_us")):
            continue
        for lease in story.leases:
            if lease.first.time < new.since + new.details["delay_us"]:
                yield Violation("C14", "it was claimed before its time", (new, lease.first))


def _journal_numbers_are_given_once(story: Story) -> Iterator[Violation]:
    given: dict[int, Event] = {}
    for event in story.by_kind["recorded"]:
        for number in range(event.details["first"], event.details["last"] + 1):
            if number in given:
                yield Violation("C37", f"journal entry {number} was given twice", (given[number], event))
            given[number] = event


def _followers_see_no_hole(story: Story) -> Iterator[Violation]:
    last: dict[str, Event] = {}
    for event in story.by_kind["seen"]:
        before = last.get(event.process)
        if before is not None and event.details["number"] != before.details["number"] + 1:
            yield Violation("C37", "a follower was shown a journal with a hole", (before, event))
        last[event.process] = event


def _what_was_stored_is_there(story: Story) -> Iterator[Violation]:
    stored = story.by_kind["enqueued"]
    if stored and story.final is None and not story.by_kind["deleting"]:
        yield Violation("C6", f"task {story.task} was acknowledged and is lost", tuple(stored[:1]))


def _the_outcome_is_what_was_acknowledged(story: Story) -> Iterator[Violation]:
    final, ended = story.final, story.ended()
    if final is None or not ended or story.is_retried_after(ended[-1].since):
        return
    for name in ("status", "result"):
        if (
            name in ended[-1].details
            and name in final.details
            and ended[-1].details[name] != final.details[name]
        ):
            told, found = ended[-1].details[name], final.details[name]
            what = f"its {name} was acknowledged as {told!r}, and is {found!r}"
            yield Violation("C44", what, (ended[-1], final))


def _the_journal_is_whole(story: Story) -> Iterator[Violation]:
    last = max((event.details["last"] for event in story.by_kind["recorded"]), default=0)
    if story.final and "entries" in story.final.details and story.final.details["entries"] < last:
        found = story.final.details["entries"]
        yield Violation("C38", f"{last} journal entries were acknowledged, {found} are there", (story.final,))


_RULES: Final[Sequence[Callable[[Story], Iterator[Violation]]]] = (
    _leases_are_given_once,
    _no_lease_is_taken_early,
    _nothing_runs_twice_without_reason,
    _a_lost_lease_writes_nothing,
    _leases_grow_by_one,
    _attempts_are_bounded,
    _what_ended_stays_so,
    _what_was_deleted_stays_away,
    _nothing_runs_before_its_time,
    _journal_numbers_are_given_once,
    _followers_see_no_hole,
)
_RULES_AT_THE_END: Final[Sequence[Callable[[Story], Iterator[Violation]]]] = (
    _what_was_stored_is_there,
    _the_outcome_is_what_was_acknowledged,
    _the_journal_is_whole,
)


def _keys_were_unique(stories: Iterable[Story]) -> Iterator[Violation]:
    by_key: defaultdict[str, list[tuple[Event, Story]]] = defaultdict(list)
    for story in stories:
        for event in story.by_kind["enqueued"][:1]:
            if (key := event.details.get("key")) is not None:
                by_key[key].append((event, story))
    for key, tasks in by_key.items():
        for (first, story), (second, _) in _pairs(sorted(tasks, key=lambda one: one[0].time)):
            ended = story.may_end_at()
            is_live = story.around.tells_of_ends and (ended is None or ended > second.time)
            if first.time < second.since and is_live:
                yield Violation("C9", f"two live tasks had the key {key!r}", (first, second))


def _parents_came_first(stories: Mapping[str, Story]) -> Iterator[Violation]:
    for story in stories.values():
        new = next(iter(story.by_kind["enqueued"]), None)
        if new is None or not story.leases or not story.around.tells_of_ends:
            continue
        taken = story.leases[0].first
        wanted = None if new.details.get("on_dependency") == "run" else "completed"
        for parent in new.details.get("depends_on", ()):
            ended = stories[parent].may_end_at(wanted) if parent in stories else None
            if ended is None or ended > taken.time:
                yield Violation("C35", f"it was claimed before {parent} was {wanted or 'over'}", (new, taken))


def _figures(events: Sequence[Event], stories: Sequence[Story]) -> Figures:
    kinds = Counter(event.kind for event in events)
    takeovers = [one for story in stories for one in _takeovers(story)]
    return Figures(
        events=len(events),
        tasks=sum(bool(story.by_kind["enqueued"]) for story in stories),
        claims=sum(len(story.leases) for story in stories),
        runs=kinds["started"],
        kills=kinds["killed"],
        stops=kinds["stopped"],
        redeliveries=len(takeovers),
        expiries=sum(not was_interrupted for _, was_interrupted in takeovers),
        longest_takeover=max((us for us, _ in takeovers), default=0) / _SECOND,
        final=Counter(story.final.details.get("status", "?") for story in stories if story.final),
    )


def _takeovers(story: Story) -> Iterator[tuple[int, bool]]:
    """Return, for each lease that expired, the time to the next, and whether its holder was interrupted."""
    for before, after in _pairs(story.leases):
        if before.given_up_at is None or before.given_up_at > after.first.time:
            reasons = story.around.interruptions[before.holder]
            was_interrupted = any(before.first.since <= time <= after.first.time for time in reasons)
            yield max(after.first.time - before.deadline, 0), was_interrupted


def _pairs(items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return pairwise(items)
