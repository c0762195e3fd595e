"""Consistency audit of HR/NDCG tables: checks identities that every ranking satisfies.

With one positive per user, a hit at rank r adds 1 / log2(r + 1) to NDCG: between 1 / log2(6) and 1 within the first 5,
between 1 / log2(11) and 1 / log2(7) from 6 to 10. These bounds are linear, so they also hold for means over users and
runs, for any ranker, any data and any list size.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    computed_field,
    model_validator,
)

from evaluate.stats.metrics import chance, ndcg, per_user
from programs.runtime.errors import InputError, input_error, quoted

AUDITED_METRICS = ("HR@5", "NDCG@5", "HR@10", "NDCG@10")

PAPER_LIST_SIZE = 30
"""One positive and 29 negatives (paper, section 4.1)."""

ROUNDED_ONCE = 0.5
"""Largest error, in units of the last printed digit, of a figure that was rounded once and correctly."""

ROUNDED_TWICE = 1.0
"""Largest error if it was truncated instead, or is the rounded mean of rounded runs (half a unit each)."""

_FLOAT_NOISE = 1e-9


def _as_printed(value: object) -> object:
    if isinstance(value, float):
        raise ValueError("give the figure as printed, as text: a float has lost its number of digits")
    return value


def _with_its_digits(value: Decimal) -> Decimal:
    if int(value.as_tuple().exponent) > _LARGEST_EXPONENT:  # of a zero: any other figure is too large with it
        raise ValueError("give the figure as printed, such as .540: a zero has no such exponent")
    return value


_LARGEST_EXPONENT = 3
MetricValue = Annotated[
    Decimal, BeforeValidator(_as_printed), Field(ge=-1000, le=1000), AfterValidator(_with_its_digits)
]
"""A figure with the digits it was printed with: `.540` and `.54` differ. Shares and percentages lie well inside."""


class MetricRow(BaseModel):
    """One line of a results table, as printed.

    Attributes:
        hr10: Together with `ndcg10`, or neither, for tables that print k = 5 only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = Field(min_length=1)
    dataset: str
    hr5: MetricValue
    ndcg5: MetricValue
    hr10: MetricValue | None = None
    ndcg10: MetricValue | None = None

    @model_validator(mode="after")
    def _both_at_ten(self) -> Self:
        if (self.hr10 is None) != (self.ndcg10 is None):
            raise ValueError("give both HR@10 and NDCG@10, or neither")
        return self

    @property
    def figures(self) -> dict[str, Decimal]:
        """Printed figures by metric name; missing ones are left out."""
        values = (self.hr5, self.ndcg5, self.hr10, self.ndcg10)
        return {name: value for name, value in zip(AUDITED_METRICS, values, strict=True) if value is not None}


class Violation(BaseModel):
    """A violated identity.

    Attributes:
        identity: The identity.
        excess: By how much the printed figures violate it.
        allowance: Part of the excess that rounding can explain; less than `excess`.
    """

    model_config = ConfigDict(frozen=True)

    identity: str
    excess: float
    allowance: float

    def __str__(self) -> str:
        return f"{self.identity} fails by {self.excess:.5f}, rounding explains {self.allowance:.5f}"


class Finding(BaseModel):
    """Result of the audit of one row.

    Attributes:
        violations: Identities violated by more than rounding; empty for a possible row.
        notes: Remarks on a row that is unusual but possible.
    """

    model_config = ConfigDict(frozen=True)

    method: str
    dataset: str
    violations: tuple[Violation, ...] = ()
    notes: tuple[str, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def impossible(self) -> bool:
        """Whether no ranking can give these figures."""
        return bool(self.violations)


@dataclass(frozen=True)
class _Identity:
    """Requires constant + sum of weight * figure <= 0."""

    text: str
    weights: Mapping[str, float]
    constant: float = 0.0

    def excess(self, figures: Mapping[str, float]) -> float:
        return self.constant + sum(weight * figures[name] for name, weight in self.weights.items())

    def allowance(self, errors: Mapping[str, float]) -> float:
        return sum(abs(weight) * errors[name] for name, weight in self.weights.items())


def _identities() -> tuple[_Identity, ...]:
    fifth, sixth, tenth = ndcg(5, 5), ndcg(6, 10), ndcg(10, 10)
    step = "NDCG@10 - NDCG@5", "(HR@10 - HR@5)"
    return (
        *(_Identity(f"0 <= {name}", {name: -1.0}) for name in AUDITED_METRICS),
        *(_Identity(f"{name} <= 1", {name: 1.0}, -1.0) for name in AUDITED_METRICS),
        _Identity("HR@5 <= HR@10", {"HR@5": 1.0, "HR@10": -1.0}),
        _Identity("NDCG@5 <= NDCG@10", {"NDCG@5": 1.0, "NDCG@10": -1.0}),
        _Identity("NDCG@5 <= HR@5", {"NDCG@5": 1.0, "HR@5": -1.0}),
        _Identity(f"HR@5 * {fifth:.4f} <= NDCG@5", {"HR@5": fifth, "NDCG@5": -1.0}),
        _Identity(
            f"{step[1]} * {tenth:.4f} <= {step[0]}", {"HR@10": tenth, "HR@5": -tenth, "NDCG@10": -1.0, "NDCG@5": 1.0}
        ),
        _Identity(
            f"{step[0]} <= {step[1]} * {sixth:.4f}", {"NDCG@10": 1.0, "NDCG@5": -1.0, "HR@10": -sixth, "HR@5": sixth}
        ),
    )


IDENTITIES = _identities()


def audit_row(row: MetricRow, rounding: float = ROUNDED_TWICE, list_size: int | None = PAPER_LIST_SIZE) -> Finding:
    """Check the identities on figures as printed.

    Args:
        row: The figures with their digits.
        rounding: Largest rounding error, in units of a figure's last printed digit. With the default a violation has no
            explanation by rounding; a row that violates an identity at `ROUNDED_ONCE` only gets a note.
        list_size: Candidates per user, for notes on figures below chance; None if unknown.

    Raises:
        InputError: if `rounding` is negative.

    >>> row = MetricRow(method="X", dataset="Beauty", hr5=".540", ndcg5=".339", hr10=".709", ndcg10=".358")
    >>> print(audit_row(row).violations[0])
    (HR@10 - HR@5) * 0.2891 <= NDCG@10 - NDCG@5 fails by 0.02985, rounding explains 0.00258
    """
    if rounding < 0:
        raise InputError(f"rounding {rounding}: give units of the last printed digit, 0 or more")
    figures = {name: float(value) for name, value in row.figures.items()}
    unit = {name: 10.0 ** int(value.as_tuple().exponent) for name, value in row.figures.items()}
    errors = {name: rounding * unit[name] for name in unit}
    violations = _violations(figures, errors)
    notes = [*_out_of_scale(figures), *_below_chance(figures, errors, list_size)]
    if not violations and rounding > ROUNDED_ONCE:
        strict = _violations(figures, {name: ROUNDED_ONCE * unit[name] for name in unit})
        notes += [f"impossible if every figure was rounded once and correctly: {violation}" for violation in strict]
    return Finding(method=row.method, dataset=row.dataset, violations=violations, notes=tuple(notes))


def audit_ranks(
    ranks: Mapping[str, int], method: str = "ranks", dataset: str = "", list_size: int | None = None
) -> Finding:
    """Audit a run: the identities on its exact means, and that no rank exceeds the list size.

    Args:
        ranks: 1-based rank of each user's positive.
        list_size: Candidates per user: larger ranks are violations, figures below chance get a note; None if unknown.

    Raises:
        InputError: if there are no ranks, or one is not an integer of at least 1.

    >>> audit_ranks({"u1": 1, "u2": 31}, list_size=30).violations[0].identity
    "rank of user 'u2' <= 30"
    """
    if not ranks:
        raise InputError("no ranks to audit: no user was scored")
    figures = {str(name): float(value) for name, value in per_user(ranks).mean().items()}
    exact = dict.fromkeys(figures, 0.0)
    outside = () if list_size is None else tuple((user, r) for user, r in sorted(ranks.items()) if r > list_size)
    return Finding(
        method=method,
        dataset=dataset,
        violations=(
            *(
                Violation(
                    identity=f"rank of user {quoted(u)} <= {list_size}", excess=r - (list_size or 0), allowance=0.0
                )
                for u, r in outside
            ),
            *_violations(figures, exact),
        ),
        notes=tuple(_below_chance(figures, exact, list_size)),
    )


def _violations(figures: Mapping[str, float], errors: Mapping[str, float]) -> tuple[Violation, ...]:
    violations = []
    for identity in IDENTITIES:
        if identity.weights.keys() <= figures.keys():
            excess, allowance = identity.excess(figures), identity.allowance(errors)
            if excess > allowance + _FLOAT_NOISE:
                violations.append(Violation(identity=identity.text, excess=excess, allowance=allowance))
    return tuple(violations)


def _out_of_scale(figures: Mapping[str, float]) -> list[str]:
    return ["figures look like percentages: divide them by 100"] if max(figures.values()) > 1.5 else []


def _below_chance(figures: Mapping[str, float], errors: Mapping[str, float], list_size: int | None) -> list[str]:
    if list_size is None:
        return []
    at_chance = chance(list_size)
    return [
        f"{name} {value:.4f} is below chance ({at_chance[name]:.4f} for lists of {list_size})"
        for name, value in figures.items()
        if value + errors[name] < at_chance[name] - _FLOAT_NOISE
    ]


def read_metric_table(path: Path) -> list[MetricRow]:
    """Read a results table from CSV with the columns method, dataset, HR@5, NDCG@5, HR@10, NDCG@10.

    Both @10 cells of a row may be blank; other columns are ignored.

    Raises:
        InputError: naming file, line and field, if the file cannot be read, a column is missing, a cell is not a
            number, or there are no rows.
    """
    columns = ("method", "dataset", *AUDITED_METRICS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path}:1: column {missing[0]!r} is missing; the header is {','.join(columns)}")
            rows = [_row(cells, f"{path}:{reader.line_num}") for cells in reader]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8: {error}") from None
    if not rows:
        raise InputError(f"{path}: the table has a header but no rows")
    return rows


def _row(cells: Mapping[str | None, str | None], where: str) -> MetricRow:
    if None in cells or None in cells.values():
        raise InputError(f"{where}: the row has {'more' if None in cells else 'fewer'} cells than the header")
    columns = dict(zip(MetricRow.model_fields, ("method", "dataset", *AUDITED_METRICS), strict=True))
    values = {field: (cells[column] or "").strip() for field, column in columns.items()}
    try:
        return MetricRow.model_validate(
            {field: value for field, value in values.items() if value or field not in ("hr10", "ndcg10")}
        )
    except ValidationError as error:
        for field in error.errors(include_url=False)[0]["loc"]:
            where = f"{where}: column {columns[str(field)]!r}: {quoted(values[str(field)])}"
        raise input_error(where, error) from None
