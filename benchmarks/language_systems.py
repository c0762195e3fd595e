"""A language-model system on test users of a dataset, with settings of its own; prints one JSON line per score vector.

`python benchmarks/language_systems.py DATASET RANKER USERS FOLDER [SETTING=VALUE ...] [against=FOLDER]`, such as
`python benchmarks/language_systems.py TOYS tallrec 500 runs/tallrec-64 users=64`. `against` names the folder of a run
on the same users, for the paired difference. Warm users, target `last`, 29 uniform negatives, seed 0. The fit is kept
and the run resumable: the same command goes on after `kill -9`. A line has HR@5 and NDCG@5, and the one-sided p of
HR@5 against a random order (binomial test).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from scipy.stats import binomtest

import mllm3rec as m3
from evaluate.baselines import TRAINED
from evaluate.ranker_factory import RankerFactory
from evaluate.stats.metrics import hit, ndcg, rank_of
from programs.ranker import order_by_score
from programs.runtime.events import Event, Note
from signatures.rows import seed_of


def show(event: Event) -> None:
    """Notes of the fit on stderr, without the progress of each step."""
    if isinstance(event, Note):
        print(event.text, file=sys.stderr, flush=True)


def main() -> None:
    """Fit, rank and print."""
    dataset, name, users, folder, *given = sys.argv[1:]
    options = dict(one.split("=", 1) for one in given)
    against = options.pop("against", None)
    settings = TRAINED[name].model_validate({key: json.loads(value) for key, value in options.items()})
    cases = m3.draw_cases(m3.load_dataset(dataset), part="test", users=int(users), target="last")
    factory = RankerFactory.create(cases.dataset, cases.training, protocol=cases.protocol, on_event=show)
    start = time.process_time()
    ranker = settings.fit(factory.training_data, 0, factory.fitting)
    fitted = time.process_time()
    result = m3.evaluate(cases, ranker, name=name, out=Path(folder), against=against)
    ranked = time.process_time()
    targets = {case.user_id: case for case in cases.cases}
    for vector in next(iter(result.rows.values())).scores:
        ranks = []
        for user, row in result.rows.items():
            case = targets[user]
            order = order_by_score(case.candidates, row.scores[vector], tie_seed=seed_of("ties", user))
            ranks.append(rank_of(order, str(case.target)))
        n, hits = len(ranks), sum(int(hit(rank, 5)) for rank in ranks)
        line = {"vector": vector, "n": n, "HR@5": round(hits / n, 4)}
        line["NDCG@5"] = round(sum(ndcg(rank, 5) for rank in ranks) / n, 4)
        line["p"] = float(f"{binomtest(hits, n, 5 / len(cases.cases[0].candidates), 'greater').pvalue:.2g}")
        print(
            json.dumps(line | {"fit, CPU s": round(fitted - start), "rank, CPU s": round(ranked - fitted)}), flush=True
        )
    for metric, difference in result.against.items():
        print(json.dumps({"against": against, metric: [difference.mean, difference.low, difference.high]}))


if __name__ == "__main__":
    main()
