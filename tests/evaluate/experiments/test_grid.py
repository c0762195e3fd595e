"""Grids of models by module, and what is refused in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluate.experiments.grid import Mix
from programs.lm.roles import PRESETS
from programs.runtime.errors import InputError
from tests.support.grids import GRID, grid


def test_a_grid_is_every_mix_with_shared_work_side_by_side(tmp_path: Path) -> None:
    found = grid(tmp_path)
    assert [mix.label for mix in found.mixes()] == [
        "small_small_small",
        "small_small_large",
        "large_small_small",
        "large_small_large",
    ]
    assert found.reference_label == "small_small_small"
    roles = found.roles(Mix("small", "small", "large", "large"), PRESETS["local"])
    assert (roles.mope.model, roles.mope.adapter) == ("http://127.0.0.1:1/v1#small", "compact")
    assert (roles.mar.model, roles.mar.adapter, roles.mar.temperature) == ("openai/gpt-4.1", "json", 0.5)
    assert not roles.mar.logprobs
    assert roles.mope.temperature == PRESETS["local"].mope.temperature


def test_a_judge_of_its_own_is_in_the_label(tmp_path: Path) -> None:
    found = grid(tmp_path, GRID.replace('metric = "HR@5"', 'judge = ["large"]'))
    assert [mix.label for mix in found.mixes()][:2] == ["small_small_small_large", "small_small_large"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('mar = ["small", "large"]', 'mar = ["huge"]', "mar: no backend 'huge'; there are small, large"),
        ('metric = "HR@5"', 'metric = "MRR"', "metric"),
        ('metric = "HR@5"', 'reference = "a_b_c"', "reference: no mix 'a_b_c'"),
        ("[backends.small]", '[backends."a/b"]', "backends"),
        ("margin = 0.1", "margin = 1.5", "margin"),
        ("margin = 0.1", "margin = ", "not a readable TOML file"),
    ],
)
def test_a_file_that_is_no_grid_says_where(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError) as found:
        grid(tmp_path, GRID.replace(old, new))
    assert "grid.toml" in str(found.value)
    assert message in str(found.value)
