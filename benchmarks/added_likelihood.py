"""What a program adds to the prior, by the log-likelihood of the targets and by ranks, with a weight from dev users.

`python benchmarks/added_likelihood.py ARTIFACT CASES RUN [SKIP USERS]` takes the fusion weight and the scales at which
the targets of the compile's own dev users are likeliest, from the scores in `ARTIFACT/search/trials.json`, and applies
them to the scores of a run of the artifact on the cases: all of them, or USERS after the first SKIP. Asks no model.
Prints a JSON line for the weight, and one for each measure: mean with the program, mean of the prior, and the paired
difference with its 95% interval and p.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from evaluate.protocol.cases import load_cases
from evaluate.runs.journal import read_journal
from evaluate.stats.intervals import paired_difference
from evaluate.stats.metrics import per_user, rank_of
from evaluate.stats.significance import paired_test
from optimize.fusion_fit import TRIED_WEIGHTS
from optimize.likelihood import Likelihood, ListScores
from programs.fusion import Fusion
from programs.ranker import order_by_score
from signatures.rows import Case, Ranking, seed_of


def main() -> None:
    """Fit, apply and print."""
    artifact, cases_file, run, *part = sys.argv[1:]
    skip, users = map(int, part or (0, sys.maxsize))
    weight, scale, prior_scale = _fitted(Path(artifact) / "search" / "trials.json")
    print(json.dumps({"weight": weight, "scale": round(scale, 3), "scale of the prior": round(prior_scale, 3)}))
    rows = read_journal(Path(run))[1]
    cases = list(load_cases(Path(cases_file)))[skip:][:users]
    lists = {case.user_id: ListScores.of(case, *_scores(rows[case.user_id]), head=None) for case in cases}
    found = Likelihood([one for one in lists.values() if one is not None])
    known = [user for user, one in lists.items() if one is not None]
    mine, theirs = (
        dict(zip(known, found.at(*fit).tolist(), strict=True)) for fit in ((weight, scale), (0, prior_scale))
    )
    _tell("log-likelihood", mine, theirs)
    mine_by, theirs_by = (
        per_user({case.user_id: _rank(case, rows[case.user_id], w) for case in cases}) for w in (weight, 0.0)
    )
    for metric in mine_by:
        _tell(str(metric), mine_by[metric].to_dict(), theirs_by[metric].to_dict())


def _fitted(trials: Path) -> tuple[float, float, float]:
    scores = json.loads(trials.read_bytes())[-1]["scores"]
    lists = TypeAdapter(list[ListScores]).validate_python([one["lists"] for one in scores if "lists" in one])
    found, every = Likelihood(lists), np.ones(len(lists), dtype=bool)
    return *found.likeliest(TRIED_WEIGHTS, every), found.scale(0.0, every)


def _scores(row: Ranking) -> tuple[list[float], list[float]]:
    return row.scores["mar"], row.scores["prior"]


def _rank(case: Case, row: Ranking, weight: float) -> int:
    ties = seed_of("ties", case.user_id)
    fused = Fusion(weight).fuse(*map(np.array, _scores(row)), ties)
    order = order_by_score(case.candidates, fused.tolist(), tie_seed=ties)
    return rank_of(order, str(case.target))


def _tell(measure: str, mine: Mapping[str, float], theirs: Mapping[str, float]) -> None:
    found = paired_difference(mine, theirs, seed=0)
    means = [float(np.mean(list(one.values()))) for one in (mine, theirs)]
    figures = [*means, found.mean, found.low, found.high]
    names = ("program", "prior", "difference", "low", "high")
    line = {"measure": measure, "n": found.n} | dict(zip(names, (round(one, 4) for one in figures), strict=True))
    print(json.dumps(line | {"p": round(paired_test(mine, theirs, seed=0), 4)}))


if __name__ == "__main__":
    main()
