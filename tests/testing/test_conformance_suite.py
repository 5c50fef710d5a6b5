from __future__ import annotations

import re
from collections import Counter
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
import pytest

from jotty.core.queue import load_backend
from jotty.testing import TaskQueueConformance, guarded
from jotty.testing.conformance.terms import Terms, leave_out, needs
from jotty.testing.contract import GROUPS, RULES, rule_of
from jotty.testing.findings import by_rule
from jotty.testing.guarded import GuardedTrial, run_guarded
from jotty.testing.processes import Harness
from jotty.testing.processes.caller import ALL_CALLS
from jotty.testing.trial import Finding, Trial, run_trial
from jotty_backends.file import FileBackend
from jotty_backends.memory import MemoryBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from jotty.core.queue import QueueBackend
    from jotty.testing import VirtualClock

PAGE = Path(__file__).parents[2] / "docs" / "queue.md"
TESTS = [name for name in dir(TaskQueueConformance) if name.startswith("test_")]


def told() -> Iterator[tuple[str, str, str]]:
    """Give each rule of the page: its group, number and text, without its markup."""
    page = PAGE.read_text().partition("\n## The rules\n")[2].partition("\n## ")[0]
    for section in page.split("\n### ")[1:]:
        group, _, body = section.partition("\n")
        for number, text in re.findall(r"^- \*\*(C\d+)\*\* ((?:.*\n?)(?:(?:  .*)?\n)*)", body, re.MULTILINE):
            yield group, number, plain(text)


def plain(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    cells = [re.split(r" *\| *", line.strip("| ")) for line in lines if line.startswith("|")]
    rows = [f"{start} -> {end} ({when})" for start, end, when in cells[2:]]
    words = [line for line in lines if not line.startswith("|")]
    words += ["; ".join(rows) + "."] if rows else []
    without_links = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", " ".join(words))
    return re.sub(r"(?<!\*)\*(\w[^*]*)\*", r"\1", without_links)


def test_the_suite_quotes_the_rules_as_the_documentation_has_them() -> None:
    expected = list(told())

    actual = [(group, rule.number, rule.text) for group, rules in GROUPS.items() for rule in rules]

    assert expected == actual


def test_each_rule_has_a_test_and_each_test_a_rule() -> None:
    checked = Counter(rule.number for name in TESTS if (rule := rule_of(name)))

    assert set(RULES) == set(checked)
    assert [] == [name for name in TESTS if not rule_of(name) and not name.startswith("test_seam_")]


def test_no_two_groups_have_a_test_of_one_name() -> None:
    """Of two, the suite would have one."""
    names = Counter(name for group in TaskQueueConformance.__mro__ for name in vars(group))

    assert [] == [name for name, number in names.items() if name.startswith("test_") and number > 1]


class OfMemory:
    @pytest.fixture
    def open_backend(self, clock: VirtualClock) -> Callable[[], QueueBackend]:
        return MemoryBackend(clock=clock).clone


class TestExpectations(OfMemory, Terms):
    """A failure that is expected has to come."""

    expected_failures: ClassVar[Mapping[str, str]] = {
        "C18": "each test of this rule fails here",
        "test_c19_this_fails": "so does this one",
        "test_c20_one_of_these_fails[1]": "and this",
    }

    def test_c18_this_fails(self) -> None:
        pytest.fail("as expected")

    def test_c19_this_fails(self) -> None:
        pytest.fail("as expected")

    def test_c19_this_does_not(self) -> None:
        pass

    @pytest.mark.parametrize("number", [0, 1])
    def test_c20_one_of_these_fails(self, number: int) -> None:
        assert number == 0


class TestLeavingOut(OfMemory, Terms):
    """What is left out says what it takes, also where the rule as a whole takes more."""

    def test_c25_what_one_process_can_check(self, request: pytest.FixtureRequest) -> None:
        with pytest.raises(pytest.skip.Exception, match=r"C25 \[1\] left out: why"):
            leave_out(request, "why")

    def test_c37_what_one_process_can_check_of_more(self, request: pytest.FixtureRequest) -> None:
        with pytest.raises(pytest.skip.Exception, match=r"C37 \[1\] left out: why"):
            leave_out(request, "why")

    @pytest.mark.parametrize("harness", [None])
    def test_c37_what_takes_processes(self, request: pytest.FixtureRequest, harness: None) -> None:
        with pytest.raises(pytest.skip.Exception, match=r"C37 \[K\] left out: why"):
            leave_out(request, "why")


def test_expecting_what_is_no_rule_to_fail_is_an_error() -> None:
    with pytest.raises(TypeError, match="'C51'"):
        type("Wrong", (Terms,), {"expected_failures": {"C51": "there is no such rule"}})


def test_a_failure_says_what_the_rule_says() -> None:
    class Wrong(Terms):
        def test_c26_it_fails(self) -> None:
            pytest.fail("it was not given back")

        async def test_c29_it_fails(self) -> None:
            raise ValueError

    with pytest.raises(pytest.fail.Exception) as caught:
        Wrong().test_c26_it_fails()

    assert [f"C26 is broken. It says: {RULES['C26'].text}"] == caught.value.__notes__
    assert "test_c26_it_fails" == Wrong.test_c26_it_fails.__name__


def opener(clock: VirtualClock, _: Path) -> Callable[[], QueueBackend]:
    return MemoryBackend(clock=clock).clone


def test_what_a_backend_does_not_declare_is_left_out_by_name() -> None:
    findings = run_trial(Trial(open_backend=opener, rules={"C15", "C45", "C46"}, quick=True))
    verdicts = {one.rule: (one.outcome, one.reason) for one in by_rule(findings)}

    assert verdicts == {
        "C15": ("passed", "C15 [M] left out: the backend does not declare 'processes'"),
        "C45": ("passed", "C45 [M] left out: the backend does not declare 'processes'"),
        "C46": ("left out", "C46 [D] left out: the backend does not declare 'files' and 'processes'"),
    }


def test_a_capability_that_is_not_declared_leaves_out_a_single_test() -> None:
    class OneLoop(MemoryBackend):
        capabilities = frozenset()

    def open_one_loop(clock: VirtualClock, _: Path) -> Callable[[], QueueBackend]:
        first = MemoryBackend(clock=clock)

        def clone() -> QueueBackend:
            twin = first.clone()
            twin.__class__ = OneLoop
            return twin

        return clone

    findings = run_trial(Trial(open_backend=open_one_loop, rules={"C6"}, quick=True))
    threads = [one for one in findings if "event_loops" in one.text]

    assert ["C6 [1] left out: the backend does not declare 'event_loops'"] == [one.text for one in threads]
    assert [] == [one for one in findings if one.outcome == "failed"]


class Pointed(MemoryBackend):
    """A backend that names points, if not of its own."""

    capabilities = frozenset({"event_loops", "processes"})
    points = ("pointed.write.before", "pointed.write.after")


def open_pointed(clock: VirtualClock, _: Path) -> Callable[[], QueueBackend]:
    return lambda: Pointed(clock=clock)


@pytest.mark.parametrize(
    ("open_backend", "points", "expected"),
    [
        (opener, (), {"none": "the backend does not declare 'processes'"}),
        (open_pointed, (), {"none": "this class does not say points = Pointed.points"}),
        (
            open_pointed,
            Pointed.points,
            dict.fromkeys(Pointed.points, "it takes real processes, and only what is quick was asked for"),
        ),
    ],
)
def test_there_is_a_test_of_each_point_that_is_named(
    open_backend: Any, points: tuple[str, ...], expected: Mapping[str, str]
) -> None:
    trial = Trial(open_backend=open_backend, rules={"C4"}, points=points, quick=True)
    name = "test_c04_killed_at_a_point_a_call_is_whole_or_absent["
    found = {one.test: one.text for one in run_trial(trial) if one.test.startswith(name)}

    assert {f"{name}{point}]": f"C4 [K] left out: {why}" for point, why in expected.items()} == found


@pytest.mark.parametrize("point", FileBackend.points)
def test_the_usual_calls_on_a_new_store_of_files_come_by_its_points(tmp_path: Path, point: str) -> None:
    """Those of SQLite are tried where it is tested; there, files are tried with other settings."""
    (tmp_path / "history").mkdir()
    with Harness(f"file:///{tmp_path}/tasks", tmp_path / "history") as harness:
        assert harness.outlive(harness.start("caller", calls=ALL_CALLS, times=20, kill_at=point))


@pytest.mark.parametrize("scheme", ["memory", "sqlite", "file"])
def test_a_guarded_trial_is_of_the_backends_points(tmp_path: Path, scheme: str) -> None:
    order = attrs.asdict(GuardedTrial(url=f"{scheme}:")) | {"directory": str(tmp_path), "done": []}

    assert load_backend(scheme).points == guarded.trial_of(order, StringIO(), StringIO()).points


class Quiet:
    """Progress that nobody watches."""

    def begin(self, test: str, number: int) -> None: ...

    def tell(self, finding: Finding) -> None: ...


def test_a_guarded_trial_finds_what_a_trial_finds() -> None:
    trial = Trial(open_backend=opener, rules={"C29", "C30"}, quick=True)
    guarded_trial = GuardedTrial(url="memory:", rules=["C29", "C30"], quick=True)

    assert [(one.test, one.outcome) for one in run_trial(trial)] == [
        (one.test, one.outcome) for one in run_guarded(guarded_trial, Quiet())
    ]


def test_a_guarded_trial_that_cannot_be_run_says_why() -> None:
    with pytest.raises(RuntimeError, match="The suite could not be run"):
        run_guarded(GuardedTrial(url="memory:", rules=["C51"]), Quiet())


def test_only_the_rules_that_are_asked_for_are_tried_the_seam_among_them() -> None:
    findings = run_trial(Trial(open_backend=opener, rules={"seam", "C29"}, quick=True))

    assert {"C29", "seam"} == {one.rule for one in by_rule(findings)}


def test_what_is_done_is_not_tried_again() -> None:
    told: list[tuple[str, int]] = []
    rules = {"C29", "C30"}
    first, second = run_trial(Trial(open_backend=opener, rules=rules, quick=True))
    trial = Trial(
        open_backend=opener,
        rules=rules,
        quick=True,
        done=[first.test],
        begins=lambda test, number: told.append((test, number)),
    )

    assert [second.test] == [one.test for one in run_trial(trial)]
    assert [(second.test, 2)] == told


def test_what_a_group_and_a_test_need_adds_up() -> None:
    class Group(Terms):
        requires = frozenset({"processes"})

        @needs("event_loops")
        def test_c15_both(self) -> None: ...

        def test_c15_one(self) -> None: ...

    needed: list[Any] = [getattr(test, "needs", None) for test in (Group.test_c15_both, Group.test_c15_one)]

    assert [{"processes", "event_loops"}, {"processes"}] == needed


def test_findings_are_told_by_rule_in_the_contracts_order() -> None:
    findings = [
        Finding("test_seam_b", "passed"),
        Finding("test_c18_a[trio]", "failed", "no LeaseLost"),
        Finding("test_c18_a[asyncio]", "passed"),
        Finding("test_c02_a", "left out", "C2 [1] left out: why"),
    ]

    told = [(one.rule, one.outcome, one.tests, one.failed, one.message) for one in by_rule(findings)]

    assert [
        ("C2", "left out", 0, 0, ""),
        ("C18", "failed", 2, 1, "test_c18_a[trio]: no LeaseLost"),
        ("seam", "passed", 1, 0, ""),
    ] == told


def test_a_trial_that_is_interrupted_ends_so() -> None:
    def interrupt(clock: VirtualClock, directory: Path) -> Callable[[], QueueBackend]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(Trial(open_backend=interrupt, rules={"C29"}, quick=True))


def test_a_backend_that_cannot_be_made_fails_its_tests() -> None:
    def break_down(clock: VirtualClock, directory: Path) -> Callable[[], QueueBackend]:
        raise OSError("no such place")

    (finding,) = run_trial(Trial(open_backend=break_down, rules={"C29"}, quick=True))

    assert ("failed", "OSError: no such place") == (finding.outcome, finding.text)


def test_progress_is_told_with_the_number_of_tests() -> None:
    told: list[tuple[str, int]] = []
    trial = Trial(
        open_backend=opener,
        rules={"C30", "C29"},
        quick=True,
        progress=lambda finding, number: told.append((finding.test[:8], number)),
    )

    run_trial(trial)

    assert [("test_c29", 2), ("test_c30", 2)] == told
