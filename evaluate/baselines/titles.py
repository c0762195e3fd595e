"""Ranking by the likelihood of titles: three score vectors, and which of them decides, chosen on dev users."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evaluate.baselines.language import AnswerRanker, Wording
from evaluate.stats.metrics import ndcg, rank_of
from programs.ranker import ranking_from_scores
from programs.runtime.atomic import write_atomically
from programs.runtime.events import Note, OnEvent, Progress, ignore
from signatures.rows import Case
from signatures.types import Item

if TYPE_CHECKING:
    from programs.tuned.finetuned import FineTuned

TitleLikelihood = Literal["mean", "sum", "pmi"]
"""Ways to score a title: the mean or the sum of the log-likelihoods of its tokens, or the mean less that for a user
without a history."""

LIKELIHOODS: tuple[TitleLikelihood, ...] = get_args(TitleLikelihood)
CHOICE_FILE = "likelihood.json"
"""File of a kept fit: which likelihood decides, and the dev NDCG of each."""


class TitleRanker(AnswerRanker):
    """Ranks by one of the likelihoods of each title, and records all three: `NAME-mean`, `NAME-sum`, `NAME-pmi`.

    A sum favours short titles and a mean long ones; PMI takes out how common the title's words are.

    Attributes:
        decides: The likelihood to rank by.
    """

    def __init__(self, name: str, model: FineTuned, wording: Wording, items: Mapping[str, Item]) -> None:
        super().__init__(name, model, wording, items)
        self.decides: TitleLikelihood = "mean"

    def choose(self, dev: Sequence[Case], folder: Path, on_event: OnEvent) -> None:
        """Set the likelihood that decides, by NDCG@5 on the dev lists.

        The mean decides unless another one is better by more than one standard error of the paired differences; then
        the best of these does. The choice is kept in `folder` and read from there.
        """
        file = folder / CHOICE_FILE
        if (kept := _kept_choice(file)) is not None:
            self.decides = kept
            return
        found = dev_ndcg(self, dev, on_event)
        self.decides = better_than_mean(found)
        means = {way: float(values.mean()) for way, values in found.items()}
        write_atomically(file, json.dumps({"decides": self.decides, "ndcg@5": means, "users": len(dev)}).encode())
        figures = ", ".join(f"{way} {value:.3f}" for way, value in means.items())
        on_event(Note(f"{self.name}: dev NDCG@5 by likelihood of titles: {figures}; {self.decides} decides"))

    def vectors(self, case: Case, items: Sequence[Item]) -> dict[str, NDArray[np.float64]]:
        """See `AnswerRanker.vectors`."""
        found = self.likelihoods(case, items)
        return {self.name: found[self.decides]} | {f"{self.name}-{way}": values for way, values in found.items()}

    def likelihoods(self, case: Case, items: Sequence[Item]) -> dict[TitleLikelihood, NDArray[np.float64]]:
        """Each likelihood of the titles of some candidates, each of shape (k,)."""
        suffixes = [self.wording.suffix(item) for item in items]
        mean = self.model.logits(self.wording.prefix(case), suffixes)
        nobody = self.wording.prefix(case.model_copy(update={"history": ()}))
        return {
            "mean": mean,
            "sum": mean * self.model.lengths(suffixes),
            "pmi": mean - self.model.logits(nobody, suffixes),
        }


def better_than_mean(found: Mapping[TitleLikelihood, NDArray[np.float64]]) -> TitleLikelihood:
    """The best likelihood that is better than the mean by more than one standard error; the mean if there is none.

    Args:
        found: NDCG of each user by each likelihood, each of shape (u,), with u of at least two.
    """

    def lead(way: TitleLikelihood) -> float:
        gains = found[way] - found["mean"]
        clear = len(gains) > 1 and gains.mean() > gains.std(ddof=1) / math.sqrt(len(gains))
        return float(gains.mean()) if clear else 0.0

    return max(LIKELIHOODS, key=lead)


def dev_ndcg(
    ranker: TitleRanker, cases: Sequence[Case], on_event: OnEvent = ignore
) -> dict[TitleLikelihood, NDArray[np.float64]]:
    """NDCG@5 of each case's target by each likelihood, each of shape (n,)."""
    found = {way: np.zeros(len(cases)) for way in LIKELIHOODS}
    for index, case in enumerate(cases):
        for way, values in ranker.likelihoods(case, [ranker.items[item] for item in case.candidates]).items():
            order = ranking_from_scores(case, {way: values.tolist()}, by=way).order
            found[way][index] = ndcg(rank_of(order, str(case.target)), 5)
        on_event(Progress(f"{ranker.name}, likelihood", index + 1, len(cases)))
    return found


def _kept_choice(file: Path) -> TitleLikelihood | None:
    try:
        decides = json.loads(file.read_bytes())["decides"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return next((way for way in LIKELIHOODS if way == decides), None)
