"""What the findings of a trial say of each rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import attrs

from .contract import RULES, rule_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from .trial import Finding

__all__ = ["SEAM", "RuleVerdict", "by_rule"]

SEAM: Final = "seam"  # what a backend promises to the queue above it, beyond the rules


@attrs.frozen(kw_only=True)
class RuleVerdict:
    """What became of a rule.

    Attributes:
        rule: Its number, like "C18", or "seam".
        outcome: Failed if one of its tests did; passed if one did and none failed; else left out.
        tests: How many of its tests were run.
        failed: How many of those failed.
        reason: Why tests of it were left out, all or some; empty if none was.
        message: What the first failure says; empty if there is none.
    """

    rule: str
    outcome: Literal["passed", "failed", "left out"]
    tests: int
    failed: int
    reason: str = ""
    message: str = ""


def by_rule(findings: Iterable[Finding]) -> list[RuleVerdict]:
    """Return what the findings say of each rule that they tell of, in the contract's order."""
    sorted_out: dict[str, list[Finding]] = {name: [] for name in [*RULES, SEAM]}
    for finding in findings:
        rule = rule_of(finding.test)
        sorted_out[rule.number if rule else SEAM].append(finding)
    return [_judged(name, found) for name, found in sorted_out.items() if found]


def _judged(name: str, findings: Collection[Finding]) -> RuleVerdict:
    failed = [one for one in findings if one.outcome == "failed"]
    run = sum(one.outcome != "left out" for one in findings)
    first = next(iter(failed), None)
    return RuleVerdict(
        rule=name,
        outcome="failed" if failed else "passed" if run else "left out",
        tests=run,
        failed=len(failed),
        reason="; ".join(dict.fromkeys(one.text for one in findings if one.outcome == "left out")),
        message=f"{first.test}: {first.text}" if first else "",
    )
