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

METRICS = ["HR@5", "NDCG@5", "NDCG@10"]


def main() -> None:
    """Measure and print."""
    dataset, ranker, users, seeds, *given = sys.argv[1:]
    cases = m3.draw_cases(m3.load_dataset(dataset), part="dev", users=int(users), target="last")
    training = RankerFactory.create(cases.dataset, cases.training, protocol=cases.protocol).training_data
    for seed in range(int(seeds)):
        for settings in map(json.loads, given):
            started = time.process_time()
            fitted = TRAINED[ranker].model_validate(settings).fit(training, seed)
            figures = m3.evaluate(cases, fitted, name=ranker).per_user[METRICS]
            line = {"settings": settings, "seed": seed, "n": len(figures)} | figures.mean().round(4).to_dict()
            print(json.dumps(line | {"CPU s": round(time.process_time() - started, 1)}), flush=True)


if __name__ == "__main__":
    main()
