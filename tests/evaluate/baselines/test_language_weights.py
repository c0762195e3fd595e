"""Every language-model system fits and ranks the demo store with the default base, by its smallest settings."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.baselines.language import LanguageModel
from evaluate.baselines.systems.a_llmrec import ALLMRec
from evaluate.baselines.systems.genrec_titles import GenRecTitles
from evaluate.baselines.systems.m6_rec import M6Rec
from evaluate.baselines.systems.sasrec import SASRec
from evaluate.baselines.systems.tallrec import TALLRec
from evaluate.ranker_factory import RankerFactory
from mllm3rec import draw_cases, load_dataset
from programs.runtime.environment import variable
from tests.support.tiny_model import need_training

pytestmark = pytest.mark.llm

LEAST = {"users": 8, "passes": 1, "dev_users": 4}


@pytest.mark.parametrize(
    "settings",
    [
        TALLRec(**LEAST),
        GenRecTitles(**LEAST),
        ALLMRec(**LEAST, negatives=4, epochs=5, sasrec=SASRec(dimensions=16, epochs=2)),
        M6Rec(**LEAST),
    ],
    ids=lambda settings: settings.name,
)
def test_the_demo_store_is_ranked(settings: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    need_training()
    monkeypatch.setenv(variable("encoder"), "hashing")
    cases = draw_cases(load_dataset("demo"), part="test", users=2)
    ranker = settings.fit(RankerFactory.create(cases.dataset, cases.training).training_data, 0)
    for case in cases.cases:
        ranking = ranker.rank(case.blinded())
        assert sorted(ranking.order) == sorted(case.candidates)
        assert all(np.isfinite(vector).all() and np.ptp(vector) > 0 for vector in ranking.scores.values())
