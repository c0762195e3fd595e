"""What a program's scores add to another ranker than the prior, such as `learned`, on recorded runs; asks no model.

`python benchmarks/beside_learned.py CASES RUN OTHER [USERS]` reads a run of a program and one of a ranker on the same
cases, or on the first USERS. The users are divided in ten parts; each part is fused with the weight and deviations at
which the targets of the other nine are likeliest. Prints one JSON line: the weight that all users give, and for each
metric that of the other ranker alone and the paired difference with its t (the mean divided by its standard error).
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
from programs.gate import recorded_scores
from programs.ranker import order_by_score
from signatures.rows import Case, seed_of

PARTS = 10


def main() -> None:
    """Read, fuse, print."""
    cases_file, run, other, *users = sys.argv[1:]
    (manifest, rows), (theirs, others) = (read_journal(Path(one)) for one in (run, other))
    head = manifest.configuration.get("head")
    found = []
    for case in list(load_cases(Path(cases_file)))[: int(users[0]) if users else None]:
        if case.user_id in rows and case.user_id in others:
            mar = recorded_scores(rows[case.user_id], head if isinstance(head, int) else None)
            found.append((case, mar, np.array(others[case.user_id].scores[theirs.ranker])))
    lists = [
        ListScores.of(case, [None if np.isnan(score) else score for score in mar], base, None)
        for case, mar, base in found
    ]
    alone = [_rank(*one, Fusion(0.0)) for one in found]
    fused = [0] * len(found)
    for part in range(PARTS):
        own = np.arange(len(found)) % PARTS == part
        fusion = _fitted([lists[place] for place in np.flatnonzero(~own).tolist()])
        for place in np.flatnonzero(own).tolist():
            fused[place] = _rank(*found[place], fusion)
    told: dict[str, object] = {"n": len(found), "weight": _fitted(lists).weight}
    mine, before = (per_user({str(n): rank for n, rank in enumerate(ranks)}) for ranks in (fused, alone))
    for metric in mine:
        gain = (mine[metric] - before[metric]).to_numpy()
        error = gain.std(ddof=1) / len(gain) ** 0.5
        figures = before[metric].mean(), gain.mean(), gain.mean() / error if error else 0.0
        told[str(metric)] = [round(float(one), 4) for one in figures]
    print(json.dumps(told))


def _fitted(lists: Sequence[ListScores | None]) -> Fusion:
    deviations = mean_deviations(lists)
    over = [one if one is None or deviations is None else one.over(deviations) for one in lists]
    means: NDArray[np.float64] = log_likelihoods(over, TRIED_WEIGHTS).mean(axis=0)
    return Fusion(TRIED_WEIGHTS[int(means.argmax())], deviations=deviations)


def _rank(case: Case, mar: NDArray[np.float64], base: NDArray[np.float64], fusion: Fusion) -> int:
    ties = seed_of("ties", case.user_id)
    order = order_by_score(case.candidates, fusion.fuse(mar, base, ties).tolist(), tie_seed=ties)
    return rank_of(order, str(case.target))


if __name__ == "__main__":
    main()
