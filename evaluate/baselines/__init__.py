"""Trained baselines: what the language model has to beat, each fitted on the histories that priors are fitted on.

`TRAINED[name]` are the settings of a ranker; `TRAINED[name]().fit(material, seed)` is the ranker. All are in the extra
`baselines`, except the two Transformers, which need torch (extra `neural`).
"""

from __future__ import annotations

from evaluate.baselines.baseline import Baseline, TrainingData
from evaluate.baselines.bpr import BPR
from evaluate.baselines.learned import Learned
from evaluate.baselines.lightfm import LightFM, LightFMFeatures
from evaluate.baselines.sequential import BERT4Rec, SASRec

_ALL: tuple[type[Baseline], ...] = (BPR, LightFM, LightFMFeatures, SASRec, BERT4Rec, Learned)

TRAINED: dict[str, type[Baseline]] = {baseline.name: baseline for baseline in _ALL}
"""The settings of every trained ranker, by the ranker's name."""

__all__ = ["TRAINED", "Baseline", "TrainingData"]
