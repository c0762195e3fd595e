"""A grid of two models, and calls and their cost."""

from __future__ import annotations

from pathlib import Path

from evaluate.experiments.grid import Grid, read_grid
from programs.lm.ledger import Call

GRID = """
mope = ["small", "large"]
mote = ["small"]
mar = ["small", "large"]
metric = "HR@5"
margin = 0.1

[backends.small]
model = "http://127.0.0.1:1/v1#small"

[backends.large]
model = "openai/gpt-4.1"
temperature = 0.5
logprobs = false
"""


def grid(folder: Path, text: str = GRID) -> Grid:
    """A grid, read from a file."""
    path = folder / "grid.toml"
    path.write_text(text)
    return read_grid(path)


def call(role: str, usd: float | None = 0.1, **facts: object) -> Call:
    """A call of ten tokens and a second."""
    return Call.model_validate(
        {"role": role, "model": "m", "tokens_in": 10, "tokens_out": 2, "usd": usd, "seconds": 1.0} | facts
    )
