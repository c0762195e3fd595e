"""Planted motivations of the demo store, found by the likelihood of a dimension's words after a product's text.

`python benchmarks/planted_likelihood.py BASE [definition]` reads the 105 products with a local model that is not
trained (`local/smollm2-135m`, a GGUF file, a Hugging Face folder; extra `finetune`). How likely the name of each
dimension is after a product, or its definition, takes the place of the sentence encoder's cosines in the program
`encoder`; the rest is the same: standard scores over the catalogue, the mean over a user's purchases, at most three
dimensions. Prints a JSON line: the share of products whose strongest dimension is planted, and the recovery by users.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

import mllm3rec as m3
from evaluate.data.demo.store import demo_items, planted_motivations
from evaluate.runs.planted_recovery import recovery
from programs.motivation_encoder import EncoderProfile, MotivationEncoder
from programs.prior.encoders import Vectors
from programs.prototypes import Prototype, Prototypes
from programs.tuned.adaptation import Frozen
from programs.tuned.backbone import load_backbone
from programs.tuned.finetuned import FineTuned
from programs.tuned.objective import TITLE
from programs.tuned.settings import TuningSettings
from signatures.schema import CONSUMER


class DimensionLikelihood:
    """Mean log-likelihood of the words of each dimension after a product's text, shape (texts, dimensions)."""

    name = "dimension-likelihood"

    def __init__(self, base: str, words: Sequence[str]) -> None:
        settings = TuningSettings(lists=1)
        self._model = FineTuned(
            load_backbone(base), settings, adapt=lambda base, settings: Frozen(base), objective=TITLE
        )
        self._words = [f" {one}" for one in words]

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder.encode`; rows have no common length."""
        rows = [self._model.logits(f"Product: {text}\nReason to buy it:", self._words) for text in texts]
        return np.array(rows, dtype=np.float32)


def main() -> None:
    """Read, compare, print."""
    base, *form = sys.argv[1:]
    words = [one.definition if form == ["definition"] else one.name for one in CONSUMER.dimensions]
    one_hot = np.eye(len(words))
    prototypes = Prototypes(
        encoder=DimensionLikelihood.name,
        prototypes=tuple(
            Prototype(dimension=name, label="likelihood", vector=tuple(row.tolist()))
            for name, row in zip(CONSUMER.names, one_hot, strict=True)
        ),
    )
    cases = m3.draw_cases(m3.load_dataset("demo"), part="all", users=None)
    catalogue = cases.dataset.items
    motivations = MotivationEncoder(DimensionLikelihood(base, words), CONSUMER, catalogue, prototypes)
    profiles = {}
    for case in cases.cases:
        history = [(catalogue[one.item_id], one) for one in case.history]
        profiles[case.user_id] = EncoderProfile(motivations)(history=history).profile
    strongest = [CONSUMER.names[int(motivations.of(one.item).argmax())] in one.serves for one in demo_items()]
    found = recovery(profiles, {user: planted_motivations()[user] for user in profiles})
    print(json.dumps({"products": np.mean(strongest).round(3)} | {k: round(v, 3) for k, v in asdict(found).items()}))


if __name__ == "__main__":
    main()
