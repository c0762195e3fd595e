"""How settings of a trained ranker compare on dev users, over several training seeds.

`python benchmarks/dev_settings.py DATASET RANKER USERS SEEDS SETTINGS...` fits each of the settings with each of the
seeds and ranks warm dev users. SEEDS is a number of seeds; each of SETTINGS is a JSON object with what differs from the
ranker's defaults, such as '{}' or '{"layers": 1}'. Prints one JSON line per fit: HR@5, NDCG@5, NDCG@10 and CPU seconds.
"""

from __future__ import annotations

import json
import sys
import time

import mllm3rec as m3
from evaluate.baselines import TRAINED
from evaluate.ranker_factory import RankerFactory
from evaluate.stats.metrics import hit, ndcg, rank_of
from programs.ranker import BatchRanker


def main() -> None:
    """Measure and print."""
    dataset, ranker, users, seeds, *given = sys.argv[1:]
    data = m3.load_dataset(dataset)
    cases = m3.draw_cases(data, part="dev", users=int(users), target="last")
    training = RankerFactory.create(data, cases.training, protocol=cases.protocol).training_data
    blinded = [case.blinded() for case in cases.cases]
    for seed in range(int(seeds)):
        for settings in map(json.loads, given):
            started = time.process_time()
            fitted = TRAINED[ranker].model_validate(settings).fit(training, seed)
            rankings = (
                fitted.rank_many(blinded)
                if isinstance(fitted, BatchRanker)
                else [fitted.rank(case) for case in blinded]
            )
            ranks = [
                rank_of(ranking.order, str(case.target)) for ranking, case in zip(rankings, cases.cases, strict=True)
            ]
            means = {
                "HR@5": sum(hit(rank, 5) for rank in ranks) / len(ranks),
                "NDCG@5": sum(ndcg(rank, 5) for rank in ranks) / len(ranks),
                "NDCG@10": sum(ndcg(rank, 10) for rank in ranks) / len(ranks),
            }
            line = {"settings": settings, "seed": seed, "n": len(ranks)}
            line |= {name: round(mean, 4) for name, mean in means.items()}
            print(json.dumps(line | {"CPU s": round(time.process_time() - started, 1)}), flush=True)


if __name__ == "__main__":
    main()
