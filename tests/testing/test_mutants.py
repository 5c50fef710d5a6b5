"""Which mutants there must be. They are in `mutants`; the suite has to catch each on the rule it breaks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jotty.testing.contract import RULES
from jotty.testing.trial import Trial, run_trial
from jotty_backends.memory import MemoryBackend

SOURCES = [path.read_text() for path in sorted(Path(__file__).with_name("mutants").glob("test_*.py"))]
MUTANTS = [name for source in SOURCES for name in re.findall(r"^def (test_c\d\d_\w+)", source, re.MULTILINE)]
IN_ONE_PROCESS = [rule.number for rule in RULES.values() if "1" in rule.marks]


@pytest.mark.parametrize("rule", IN_ONE_PROCESS)
def test_each_rule_that_one_process_can_check_has_a_mutant(rule: str) -> None:
    beginning = f"test_c{int(rule[1:]):02}_"

    assert [] != [name for name in MUTANTS if name.startswith(beginning)]


def test_the_classic_mistakes_are_among_them() -> None:
    classic = {
        "test_c18_a_completion_without_the_fence",
        "test_c21_a_lease_number_that_is_reset_on_retry",
        "test_c12_a_clock_that_is_read_before_the_lock",
        "test_c15_a_claim_that_is_not_atomic",
        "test_c13_an_order_that_ignores_run_at",
        "test_c09_dedupe_that_races",
        "test_c08_a_half_written_batch",
        "test_c16_a_lost_wake_up",
        "test_c37_a_journal_with_a_hole",
        "test_c26_a_release_that_burns_an_attempt",
        "test_c20_a_heartbeat_that_shortens",
        "test_c34_a_purge_of_a_live_task",
        "test_c32_a_retry_storm_without_jitter",
        "test_c07_payloads_that_come_back_as_another_type",
    }

    assert set() == classic - set(MUTANTS)


def test_the_true_backend_passes_where_they_fail() -> None:
    findings = run_trial(Trial(open_backend=lambda clock, _: MemoryBackend(clock=clock).clone, quick=True))
    left_out = [one for one in findings if one.outcome == "left out"]

    assert [] == [one for one in findings if one.outcome == "failed"]
    assert 500 < len(findings) - len(left_out)
