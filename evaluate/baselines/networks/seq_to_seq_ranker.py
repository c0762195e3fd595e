"""Ranker and fit of the recommenders that write item codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from evaluate.baselines.baseline import TrainingData, unknown_below
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.code_prompts import CodePrompts, Example
from evaluate.baselines.networks.held_out import hold_out_last
from evaluate.baselines.networks.item_codes import ItemCodes
from evaluate.baselines.networks.seq_to_seq_settings import SeqToSeqSettings
from programs.ranker import ranking_from_scores
from signatures.rows import Case, Ranking

if TYPE_CHECKING:
    from evaluate.baselines.networks.seq_to_seq import SeqToSeq


class SeqToSeqRanker:
    """Ranks candidates by the mean log-likelihood of the tokens of their codes; the sum is recorded, too.

    The user id is ignored, and so are history items without a code. For candidates without one see `unknown_below`.
    """

    def __init__(self, name: str, prompts: CodePrompts, network: SeqToSeq) -> None:
        self.name = name
        self.prompts = prompts
        self.network = network

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        codes = self.prompts.codes
        known = [index for index, item in enumerate(case.candidates) if item in codes]
        total, mean = self.network.candidate_scores(
            self.prompts.prompt(case.item_ids), [codes[case.candidates[index]] for index in known]
        )
        vectors = {
            name: unknown_below(scores, known, len(case.candidates)).tolist()
            for name, scores in ((self.name, mean), (f"{self.name}-sum", total))
        }
        return ranking_from_scores(case, vectors, by=self.name)


def fit_seq_to_seq(
    settings: SeqToSeqSettings,
    codes_of: Callable[[Sequence[Sequence[str]], Iterable[str]], ItemCodes],
    prompts_of: Callable[[ItemCodes], CodePrompts],
    training: TrainingData,
    seed: int,
    fitting: Fitting = UNKEPT,
) -> SeqToSeqRanker:
    """Fit a recommender that writes item codes; see `Baseline.fit`.

    Codes see the training histories without the items that are held out for early stopping.

    Args:
        codes_of: Gives the codes from histories, and of further items, of which no history tells anything. Items
            without a code are left out of the histories.
        prompts_of: Gives the system's prompts over some codes.
    """
    settings.require_torch()
    from evaluate.baselines.networks.seq_to_seq import train_seq_to_seq

    histories = [history for history in training.histories.values() if history]
    kept, users = hold_out_last(histories, settings.validation, np.random.default_rng(seed))
    held_out = [(kept[user], histories[user][-1]) for user in users]
    others = {item for history in histories for item in history}
    codes = codes_of(kept, others)
    prompts = prompts_of(codes)
    kept = [[item for item in history if item in codes.of] for history in kept]
    coded = [(history, prompts.codes[item]) for history, item in held_out if item in codes.of]
    examples = [Example(prompts.prompt(history), code) for history, code in coded]
    plan = settings.plan(training, seed, fitting).suffixed(codes.sha256[:16])
    network = train_seq_to_seq(prompts, kept, examples, settings, plan)
    return SeqToSeqRanker(settings.name, prompts, network)
