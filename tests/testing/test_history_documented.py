from __future__ import annotations

import doctest

from jotty.testing import verdict


def test_the_example_in_the_docstring_runs() -> None:
    (example,) = doctest.DocTestFinder().find(verdict.check_history, "check_history")
    told: list[str] = []

    results = doctest.DocTestRunner().run(example, out=told.append)

    assert 6 == results.attempted
    assert [] == told
