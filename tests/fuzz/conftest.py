"""Says how many inputs were tried, refused and read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.fuzz.oracle import Tally

PROPERTY = "fuzz"


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Iterator[Callable[[str], Tally]]:
    """Makes the tally of a kind; its figures are in the summary of the test run."""
    made: list[Tally] = []

    def of(kind: str) -> Tally:
        made.append(Tally(kind))
        return made[-1]

    yield of
    for one in made:
        record_property(PROPERTY, [one.kind, one.tried, one.refused, len(one.violations)])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    rows = [value for report in reports for name, value in report.user_properties if name == PROPERTY]
    if rows:
        tried, refused, violations = (sum(row[column] for row in rows) for column in (1, 2, 3))
        terminalreporter.write_sep("-", "fuzzed inputs")
        for kind, *counts in rows:
            terminalreporter.write_line("{:24}{:7,} tried{:7,} refused{:4} violations".format(kind, *counts))
        terminalreporter.write_line(f"in all {tried:,} tried, {refused:,} refused, {violations} violations")
