"""Gate: which users are asked about, and the fusion weight of each; a small rule fitted on dev users, kept as JSON.

A language model helps some users more than others. The gate looks at one signal of a user, and each range of it has a
fusion weight of its own.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from programs.prior.standard_scores import z
from programs.runtime.errors import InputError, input_error
from programs.runtime.untrusted import parse_untrusted_json, read_untrusted
from signatures.rows import Case, Ranking, Status

RIVALS = 4
"""Candidates after the first that the margin compares it with."""

LEAST_DEVIATION = 1e-9
"""That scores are divided by: of smaller ones the quotients may be infinite."""

SignalName = Literal["history", "cold", "margin", "entropy"]

_FORM = "fit it again with `mllm3rec gate`"


class GateSignals(BaseModel):
    """What a gate may look at, for one user.

    Attributes:
        history: Interactions before the target.
        cold: Share of the candidates that nobody has, 0 to 1.
        margin: See `margin`.
        entropy: See `entropy`; None before MAR is asked, or without an answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    history: int
    cold: float
    margin: float
    entropy: float | None = None

    @classmethod
    def of(cls, case: Case, prior: ArrayLike, owned: Collection[str] | None, mar: ArrayLike | None = None) -> Self:
        """The signals of a user.

        Args:
            prior: The prior's scores of the candidates.
            owned: Items that somebody has; None if unknown, which counts as all.
            mar: MAR's scores, NaN where it gave none; None before it is asked.
        """
        unknown = [] if owned is None else [item for item in case.candidates if item not in owned]
        return cls(
            history=len(case.history),
            cold=len(unknown) / max(1, len(case.candidates)),
            margin=margin(prior),
            entropy=None if mar is None else entropy(mar),
        )


def margin(prior: ArrayLike) -> float:
    """How sure the prior is of its first candidate: its standard score minus the mean of the next `RIVALS`.

    Args:
        prior: Its scores of n candidates.

    Returns:
        At least 0; 0 for fewer than two candidates.

    >>> margin([1.0, 1.0, 1.0]), margin([9.0, 1.0, 1.0]) > margin([9.0, 8.0, 1.0])
    (0.0, True)
    """
    ordered = np.sort(z(np.asarray(prior, dtype=float)))[::-1]
    return float(ordered[0] - ordered[1 : 1 + RIVALS].mean()) if len(ordered) > 1 else 0.0


def entropy(mar: ArrayLike) -> float | None:
    """How unsure MAR is: entropy of the softmax of its scores, divided by that of equal scores.

    Args:
        mar: Its scores, NaN where it gave none.

    Returns:
        0 to 1; None for fewer than two scores.

    >>> entropy([1.0, 1.0]), entropy([900.0, 0.0]), entropy([1.0, float("nan")])
    (1.0, 0.0, None)
    """
    scores = np.asarray(mar, dtype=float)
    scores = scores[~np.isnan(scores)]
    if len(scores) < 2:
        return None
    chances = np.exp(scores - scores.max())
    chances = chances[chances > 0] / chances.sum()
    return float(min(1.0, max(0.0, -(chances * np.log(chances)).sum() / np.log(len(scores)))))


def recorded_scores(row: Ranking, head: int | None) -> NDArray[np.float64]:
    """MAR's own scores in a row, NaN for candidates that it gave none: a row holds one less than the lowest for them.

    Args:
        head: See `Fusion`.
    """
    scores = np.array(row.scores.get("mar", [np.nan] * len(row.order)), dtype=float)
    distinct = np.unique(scores)
    if row.status is not Status.OK or not len(scores):
        return np.full(len(scores), np.nan)
    unseen = head is not None and head < len(scores)
    left_out = row.appended > 0 and len(distinct) > 1 and distinct[1] - 1.0 == distinct[0]
    return np.where(scores == distinct[0], np.nan, scores) if unseen or left_out else scores


class Deviations(BaseModel):
    """Standard deviations of the scores within a list.

    Attributes:
        mar, prior: Of MAR's scores and of the prior's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mar: float = Field(ge=0)
    prior: float = Field(ge=0)

    @property
    def can_divide(self) -> bool:
        """Whether scores can be divided by both."""
        return min(self.mar, self.prior) >= LEAST_DEVIATION


class Gate(BaseModel):
    """Fusion weights by ranges of one signal, and the margin up to which users are asked about.

    Attributes:
        signal: The signal; None for one weight for all.
        cuts: Upper ends of all ranges but the last, ascending; a value on a cut belongs to the lower range.
        weights: Fusion weight of each range.
        margins: Margins of dev users at equal steps of their share, from the smallest to the largest.
        ask_below: Users with a smaller margin are asked about; None: all.
        deviations: What the scores of every list are divided by before they are fused, at least `LEAST_DEVIATION`, so
            that a list in which one of the two is sure moves more; None: the deviations of the list itself, which make
            all lists alike.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    signal: SignalName | None = None
    cuts: tuple[float, ...] = ()
    weights: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    margins: tuple[float, ...] = ()
    ask_below: float | None = Field(default=None, exclude_if=lambda margin: margin is None)
    deviations: Deviations | None = Field(default=None, exclude_if=lambda two: two is None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.weights) != len(self.cuts) + 1:
            raise ValueError(f"{len(self.cuts)} cuts make {len(self.cuts) + 1} ranges, but there are "
                             f"{len(self.weights)} weights")  # fmt: skip
        if any(a >= b for a, b in zip(self.cuts, self.cuts[1:], strict=False)):
            raise ValueError("cuts must be ascending")
        if self.cuts and self.signal is None:
            raise ValueError("cuts need a signal")
        if self.deviations is not None and not self.deviations.can_divide:
            raise ValueError(f"scores cannot be divided by deviations below {LEAST_DEVIATION:g}")
        return self

    def range_named(self, place: int) -> str:
        """The range of this number in words."""
        if self.signal is None:
            return "all users"
        if place < len(self.cuts):
            return f"{self.signal} up to {self.cuts[place]:.4g}"
        return f"{self.signal} above {self.cuts[-1]:.4g}" if self.cuts else f"any {self.signal}"

    @property
    def text(self) -> str:
        """The gate in a line.

        >>> Gate(signal="margin", cuts=(1.0,), weights=(0.5, 0.1), deviations=Deviations(mar=0.2, prior=3)).text
        'weight 0.5 for margin up to 1, 0.1 for margin above 1; deviations 0.2 of MAR, 3 of the prior'
        """
        weights = [f"{weight:g} for {self.range_named(place)}" for place, weight in enumerate(self.weights)]
        parts = [f"weight {', '.join(weights)}"]
        if self.deviations is not None:
            parts.append(f"deviations {self.deviations.mar:.3g} of MAR, {self.deviations.prior:.3g} of the prior")
        if self.ask_below is not None:
            parts.append(f"asks about margins below {self.ask_below:.4g}")
        return "; ".join(parts)

    def range_of(self, signals: GateSignals) -> int | None:
        """Number of the user's range; None if the signal is not known."""
        value = 0.0 if self.signal is None else getattr(signals, self.signal)
        return None if value is None else bisect_left(self.cuts, value)

    def weight(self, signals: GateSignals) -> float:
        """The fusion weight of a user; 0 if the signal is not known.

        >>> gate = Gate(signal="margin", cuts=(1.0,), weights=(0.5, 0.1))
        >>> [gate.weight(GateSignals(history=3, cold=0, margin=margin)) for margin in (1.0, 1.5)]
        [0.5, 0.1]
        """
        place = self.range_of(signals)
        return 0.0 if place is None else self.weights[place]

    def asks(self, signals: GateSignals) -> bool:
        """Whether to ask about a user: the margin is small enough, and the answer can have a weight."""
        if self.ask_below is not None and signals.margin >= self.ask_below:
            return False
        return any(self.weights) if self.signal == "entropy" else self.weight(signals) > 0

    def asking(self, share: float) -> Gate:
        """The same gate that asks only about users with as small a margin as the given share of dev users had.

        >>> Gate(weights=(0.3,), margins=(0.0, 1.0, 2.0)).asking(0.5).ask_below
        1.0

        Raises:
            InputError: if the share is not between 0 and 1, or the gate has no margins of dev users.
        """
        if not 0 <= share <= 1:
            raise InputError(f"share {share:g}: give the share of users to ask about, from 0 to 1")
        if share == 1:
            return self.model_copy(update={"ask_below": None})
        if not self.margins:
            raise InputError(f"this gate has no margins of dev users, so it has no threshold for a share; {_FORM}")
        limit = 0.0 if share == 0 else quantile(self.margins, share)
        return self.model_copy(update={"ask_below": limit})


def quantile(steps: Sequence[float], share: float) -> float:
    """The value at a share between 0 and 1 of ascending values at equal steps, interpolated."""
    return float(np.interp(share, np.linspace(0, 1, len(steps)), steps))


def read_gate(path: Path) -> Gate:
    """Read the gate of a file that `mllm3rec gate` wrote.

    Raises:
        InputError: naming file and field, if it cannot be read or holds no gate.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; {_FORM}")
    content = parse_untrusted_json(read_untrusted(path), path, _FORM)
    if not isinstance(content, dict) or "gate" not in content:
        raise InputError(f"{path}: holds no gate; {_FORM}")
    try:
        return Gate.model_validate(content["gate"])
    except ValidationError as error:
        raise input_error(f"{path}: field 'gate'", error, _FORM) from None
