"""Says how many inputs were tried and refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fuzz.oracle import Tally

PROPERTY = "fuzzed "
"""Beginning of the names of the properties that a test reports, also from another process."""


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[[str], Tally]:
    """Makes the tally of a kind; its counts are in the summary of the test run."""

    def of(kind: str) -> Tally:
        made = Tally(kind)
        # Counted while the test runs; what it holds at the end is reported.
        record_property(PROPERTY + kind, made.counts)
        return made

    return of


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    found: dict[str, dict[str, int]] = {
        name.removeprefix(PROPERTY): counts
        for report in reports
        for name, counts in report.user_properties
        if name.startswith(PROPERTY)
    }
    if not found:
        return
    terminalreporter.write_sep("-", "fuzzed inputs")
    for kind, counts in found.items():
        terminalreporter.write_line(f"{kind:22} " + ", ".join(f"{number:,} {what}" for what, number in counts.items()))
    sums = {what: sum(counts[what] for counts in found.values()) for what in ("tried", "refused", "violations")}
    terminalreporter.write_line(f"{'in all':22} " + ", ".join(f"{number:,} {what}" for what, number in sums.items()))
