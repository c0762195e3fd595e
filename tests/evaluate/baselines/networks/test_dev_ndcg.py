"""NDCG of held-out items: ties share their mean rank, and what is no number is no perfect rank."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.baselines.networks.fit_plan import FitPlan
from programs.runtime.errors import InputError

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from evaluate.baselines.networks.dev_ndcg import target_ndcg  # noqa: E402 - needs torch
from evaluate.baselines.networks.epochs import train_epochs  # noqa: E402


def test_items_of_equal_score_share_their_mean_rank() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0], [1.0, 1.0, 1.0], [2.0, 2.0, 1.0]])
    found = target_ndcg(scores, torch.tensor([1, 0, 0]))
    np.testing.assert_allclose(found, 1 / np.log2([3.0, 3.0, 2.5]), rtol=1e-6)


def test_weights_that_are_no_numbers_end_the_fit() -> None:
    assert target_ndcg(torch.full((1, 3), torch.nan), torch.tensor([0])).isnan().all()
    network = torch.nn.Linear(1, 1)
    optimizer = torch.optim.Adam(network.parameters())
    plan = FitPlan("a fit", 3, 3, 0)
    with pytest.raises(InputError, match="a fit: the weights after epoch 1 are not finite"):
        train_epochs(network, optimizer, lambda number, rng: 0.5, lambda: float("nan"), plan)
