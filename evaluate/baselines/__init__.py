"""Trained baselines, fitted on the same training data as the prior.

`TRAINED[name]` is the settings class of a baseline; `TRAINED[name]().fit(training, seed)` gives the ranker. They need
the extra `baselines`, those that are networks the extra `neural` (torch), the language models the extra `finetune`.
"""

from __future__ import annotations

from evaluate.baselines.baseline import Baseline, TrainingData
from evaluate.baselines.learned import Learned
from evaluate.baselines.systems.a_llmrec import ALLMRec
from evaluate.baselines.systems.bert4rec import BERT4Rec
from evaluate.baselines.systems.bpr import BPR
from evaluate.baselines.systems.diff4rec import Diff4Rec
from evaluate.baselines.systems.diffrec import DiffRec
from evaluate.baselines.systems.diffuasr import DiffuASR
from evaluate.baselines.systems.ease import EASE
from evaluate.baselines.systems.genrec import GenRec
from evaluate.baselines.systems.genrec_titles import GenRecTitles
from evaluate.baselines.systems.gru4rec import GRU4Rec
from evaluate.baselines.systems.hft import HFT
from evaluate.baselines.systems.hgn import HGN
from evaluate.baselines.systems.ials import IALS
from evaluate.baselines.systems.kgat import KGAT
from evaluate.baselines.systems.lightfm import LightFM, LightFMFeatures
from evaluate.baselines.systems.llm_esr import LLMESR
from evaluate.baselines.systems.llmrec import LLMRec
from evaluate.baselines.systems.m6_rec import M6Rec
from evaluate.baselines.systems.neumf import NeuMF
from evaluate.baselines.systems.p5 import P5
from evaluate.baselines.systems.sasrec import SASRec
from evaluate.baselines.systems.seralm import SeRALM
from evaluate.baselines.systems.tallrec import TALLRec
from evaluate.baselines.systems.tiger import TIGER

_ALL: tuple[type[Baseline], ...] = (
    BPR,
    IALS,
    EASE,
    LightFM,
    LightFMFeatures,
    NeuMF,
    GRU4Rec,
    HGN,
    SASRec,
    BERT4Rec,
    LLMESR,
    SeRALM,
    KGAT,
    LLMRec,
    DiffRec,
    Diff4Rec,
    DiffuASR,
    P5,
    GenRec,
    TIGER,
    HFT,
    Learned,
    TALLRec,
    GenRecTitles,
    ALLMRec,
    M6Rec,
)

TRAINED: dict[str, type[Baseline]] = {baseline.name: baseline for baseline in _ALL}
"""Settings classes of all trained baselines, by name."""

__all__ = ["TRAINED", "Baseline", "TrainingData"]
