"""Ways to fuse a program's scores with the prior's, compared on recorded runs: heads, and deviations of a list or all.

`python benchmarks/fusion_forms.py CASES RUN [CASES RUN ...]` reads runs of a program that scored all candidates, and
asks no model. The users are divided in ten parts; each part is fused with the weight (and deviations) at which the
targets of the other nine are likeliest. Prints a JSON line for each way: weight and deviations fitted on all users, and
for each metric the paired difference to the prior alone, with its t (the mean divided by its standard error).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluate.protocol.cases import load_cases
from evaluate.runs.journal import read_journal
from evaluate.stats.metrics import per_user, rank_of
from optimize.fusion_fit import TRIED_WEIGHTS
from optimize.likelihood import ListScores, log_likelihoods, mean_deviations
from programs.fusion import Fusion
from programs.ranker import order_by_score
from signatures.rows import Case, Ranking, seed_of

HEADS = (5, 8, 10, 15, 20, None)
PARTS = 10


def main() -> None:
    """Read, fuse in every way, print."""
    found: list[tuple[Case, Ranking]] = []
    for cases, run in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        rows = read_journal(Path(run))[1]
        found += [(case, rows[case.user_id]) for case in load_cases(Path(cases)) if case.user_id in rows]
    before = [_rank(case, row, Fusion(0.0)) for case, row in found]
    for head in HEADS:
        lists = [ListScores.of(case, row.scores["mar"], row.scores["prior"], head) for case, row in found]
        for common in (False, True):
            whole = _fitted(lists, head, common)
            told: dict[str, object] = {"head": head, "n": len(found), "weight": whole.weight}
            if whole.deviations is not None:
                told["deviations"] = whole.deviations.model_dump()
            ranks = _out_of_part(found, lists, head, common)
            mine, theirs = (per_user({str(n): rank for n, rank in enumerate(some)}) for some in (ranks, before))
            for metric in mine:
                gain = (mine[metric] - theirs[metric]).to_numpy()
                error = gain.std(ddof=1) / len(gain) ** 0.5
                told[str(metric)] = [round(gain.mean(), 4), round(gain.mean() / error, 2) if error else 0.0]
            print(json.dumps(told), flush=True)


def _out_of_part(
    found: Sequence[tuple[Case, Ranking]], lists: Sequence[ListScores | None], head: int | None, common: bool
) -> list[int]:
    ranks = [0] * len(found)
    for part in range(PARTS):
        own = np.arange(len(found)) % PARTS == part
        fusion = _fitted([lists[place] for place in np.flatnonzero(~own).tolist()], head, common)
        for place in np.flatnonzero(own).tolist():
            ranks[place] = _rank(*found[place], fusion)
    return ranks


def _fitted(lists: Sequence[ListScores | None], head: int | None, common: bool) -> Fusion:
    deviations = mean_deviations(lists) if common else None
    over = [one if one is None or deviations is None else one.over(deviations) for one in lists]
    means: NDArray[np.float64] = log_likelihoods(over, TRIED_WEIGHTS).mean(axis=0)
    return Fusion(TRIED_WEIGHTS[int(means.argmax())], head, deviations=deviations)


def _rank(case: Case, row: Ranking, fusion: Fusion) -> int:
    ties = seed_of("ties", case.user_id)
    fused = fusion.fuse(np.array(row.scores["mar"]), np.array(row.scores["prior"]), ties)
    order = order_by_score(case.candidates, fused.tolist(), tie_seed=ties)
    return rank_of(order, str(case.target))


if __name__ == "__main__":
    main()
