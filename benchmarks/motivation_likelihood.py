"""Motivations read from a language model: the likelihood of a dimension's words after a product's text.

    python benchmarks/motivation_likelihood.py BASE [--definition]            # planted motivations of the demo store
    python benchmarks/motivation_likelihood.py BASE --cases CASES             # ranking of the candidates in a file

BASE is a local model that is not trained (`local/smollm2-135m`, a GGUF file, a Hugging Face folder; extra `finetune`).
How likely the name of each dimension is after a product, or its definition, takes the place of the sentence encoder's
cosines in the program `encoder`; the rest is the same: standard scores over the catalogue, the mean over a user's
purchases, at most three dimensions. Likelihoods are kept in the store of vectors, so a killed run goes on.

Prints JSON. Demo store: the share of products whose strongest dimension is planted, and the recovery by users. Ranking:
HR@5 and NDCG@5 of the leanings alone (`mar`), of the prior, and of both with a fusion weight of .15, and the paired
difference of the last two in NDCG@5, with its 95% interval.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

import mllm3rec as m3
from evaluate.data.demo.store import demo_items, planted_motivations
from evaluate.ranker_factory import RankerFactory
from evaluate.runs.planted_recovery import recovery
from evaluate.stats.intervals import paired_difference
from evaluate.stats.metrics import hit, ndcg, rank_of
from programs.motivation_encoder import EncoderProfile, MotivationEncoder
from programs.prior.embedding_store import EmbeddingStore, store_path
from programs.prior.encoders import Vectors
from programs.program import PROGRAMS, Fusion
from programs.prototypes import Prototype, Prototypes
from programs.ranker import order_by_score
from programs.tuned.adaptation import Frozen
from programs.tuned.backbone import load_backbone
from programs.tuned.finetuned import FineTuned
from programs.tuned.objective import TITLE
from programs.tuned.settings import TuningSettings
from signatures.rows import seed_of
from signatures.schema import CONSUMER

QUESTION = "Product: {text}\nReason to buy it:"
WEIGHT = 0.15


class DimensionLikelihood:
    """Mean log-likelihood of the words of each dimension after a product's text, shape (texts, dimensions)."""

    def __init__(self, base: str, words: Sequence[str]) -> None:
        backbone = load_backbone(base)
        asked = hashlib.sha256(json.dumps([QUESTION, *words]).encode()).hexdigest()
        self.name = f"likelihood-{backbone.sha256[:16]}-{asked[:16]}"
        self._model = FineTuned(
            backbone, TuningSettings(lists=1), adapt=lambda base, settings: Frozen(base), objective=TITLE
        )
        self._words = [f" {one}" for one in words]

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder.encode`; rows have no common length."""
        rows = [self._model.logits(QUESTION.format(text=text), self._words) for text in texts]
        return np.array(rows, dtype=np.float32)


def one_hot(encoder: str) -> Prototypes:
    """Prototypes that take each number of a row as the dimension's own."""
    rows = np.eye(len(CONSUMER.names)).tolist()
    return Prototypes(
        encoder=encoder,
        prototypes=tuple(
            Prototype(dimension=name, label="likelihood", vector=tuple(row))
            for name, row in zip(CONSUMER.names, rows, strict=True)
        ),
    )


def planted(likelihoods: EmbeddingStore) -> dict[str, float]:
    """Planted motivations of the demo store that are found."""
    cases = m3.draw_cases(m3.load_dataset("demo"), part="all", users=None)
    catalogue = cases.dataset.items
    motivations = MotivationEncoder(likelihoods, CONSUMER, catalogue, one_hot(likelihoods.name))
    profiles = {}
    for case in cases.cases:
        history = [(catalogue[one.item_id], one) for one in case.history]
        profiles[case.user_id] = EncoderProfile(motivations)(history=history).profile
    strongest = [CONSUMER.names[int(motivations.of(one.item).argmax())] in one.serves for one in demo_items()]
    found = recovery(profiles, {user: planted_motivations()[user] for user in profiles})
    return {"products": float(np.mean(strongest)), **asdict(found)}


def ranked(likelihoods: EmbeddingStore, path: str) -> dict[str, float]:
    """Figures of the leanings by likelihood on the lists of a file."""
    cases = m3.load_cases(path)
    parts = RankerFactory.create(cases.dataset, cases.training, protocol=cases.protocol).parts()
    program = PROGRAMS["encoder"](
        replace(parts, encoder=likelihoods, prototypes=one_hot(likelihoods.name), fusion=Fusion(WEIGHT))
    )
    ranks: dict[str, dict[str, int]] = {"mar": {}, "prior": {}, "fused": {}}
    for case in cases.cases:
        scores = program.rank(case.blinded()).scores
        for name, by_user in ranks.items():
            order = order_by_score(case.candidates, scores[name], tie_seed=seed_of("ties", case.user_id))
            by_user[case.user_id] = rank_of(order, str(case.target))
    told = {"n": float(len(cases.cases))}
    for name, by_user in ranks.items():
        for metric in (hit, ndcg):
            told[f"{name} {metric.__name__}@5"] = float(np.mean([metric(rank, 5) for rank in by_user.values()]))
    fused, prior = ({user: ndcg(rank, 5) for user, rank in ranks[name].items()} for name in ("fused", "prior"))
    difference = paired_difference(fused, prior, seed=0)
    return told | {"difference": difference.mean, "low": difference.low, "high": difference.high}


def main() -> None:
    """Read, compare, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("--definition", action="store_true", help="the definition of a dimension, not its name")
    parser.add_argument("--cases", help="rank these lists; without it the demo store's motivations are looked for")
    given = parser.parse_args()
    words = [one.definition if given.definition else one.name for one in CONSUMER.dimensions]
    likelihoods = EmbeddingStore(store_path(), DimensionLikelihood(given.base, words), commit_every=32)
    told = planted(likelihoods) if given.cases is None else ranked(likelihoods, given.cases)
    print(json.dumps({name: round(value, 3) for name, value in told.items()}))


if __name__ == "__main__":
    main()
