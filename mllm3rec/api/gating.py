"""Fit a gate on a finished run of a program on dev users."""

from __future__ import annotations

from pathlib import Path

from evaluate.protocol.cases import Cases
from mllm3rec.api.sessions import read_cases
from optimize.gate_fit import FittedGate, fit_on_run


def fit_gate_on_run(cases: Cases | str | Path, run: str | Path, *, out: str | Path | None = None) -> FittedGate:
    """Fit a gate on a finished run of a program: the fusion weight of each user, and who is worth asking about.

    Nothing is asked again: the rows of the run hold the scores of the prior and of MAR.

    Args:
        cases: The dev cases of the run, or their file.
        run: Its run directory.
        out: File to write; `evaluate` takes it as `gate`.

    Raises:
        InputError: if the cases are not of dev users, the run ranked others, or it has no scores of MAR.
    """
    fitted = fit_on_run(read_cases(cases), Path(run))
    if out is not None:
        fitted.save(Path(out))
    return fitted
