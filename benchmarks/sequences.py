"""Full-catalogue figures of a sequential recommender: R@10 and NDCG@10 of all users, the last item held out.

    python benchmarks/sequences.py DATASET --ranker sasrec --seed 0

Items of the history are left out of the ranking; a target without users in the training data is a miss.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

from evaluate.baselines import TRAINED
from evaluate.baselines.networks.sequence_ranker import SequenceRanker
from evaluate.data.load import load_dataset
from evaluate.protocol.cases import draw_cases
from evaluate.ranker_factory import RankerFactory
from signatures.rows import Case

BATCH, CUTOFF = 256, 10


def main() -> None:
    """Fit, rank the catalogue for every user, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--ranker", default="sasrec")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", default="{}", help="settings of the ranker as JSON")
    given = parser.parse_args()
    cases = draw_cases(load_dataset(given.dataset), part="all", target="last", negatives=1)
    factory = RankerFactory.create(cases.dataset, cases.training, protocol=cases.protocol)
    settings = TRAINED[given.ranker].model_validate_json(given.settings)
    data, begin = factory.training_data, time.process_time()
    ranker = settings.fit(data, given.seed)
    if not isinstance(ranker, SequenceRanker):
        parser.error(f"{given.ranker} is no sequential recommender")
    seconds = time.process_time() - begin
    ranks = [
        rank for start in range(0, len(cases), BATCH) for rank in ranks_of(ranker, cases.cases[start : start + BATCH])
    ]
    places = np.array(ranks)
    found = places <= CUTOFF
    print(
        json.dumps(
            {
                "ranker": given.ranker,
                "settings": settings.model_dump(mode="json"),
                "users": len(places),
                f"R@{CUTOFF}": round(float(found.mean()), 4),
                f"NDCG@{CUTOFF}": round(float((found / np.log2(1 + places)).mean()), 4),
                "CPU seconds of the fit": round(seconds),
            }
        )
    )


@torch.no_grad()
def ranks_of(ranker: SequenceRanker, cases: tuple[Case, ...]) -> list[float]:
    """Ranks of the targets from 1, among all items with users but those of the history; infinite for a miss."""
    torch.set_num_threads(1)
    network, rows = ranker.network, ranker.rows
    known = [case for case in cases if rows.get(str(case.target), network.trained) < network.trained]
    histories = [np.array([rows[item] for item in case.item_ids if item in rows]) for case in known]
    users = torch.tensor([ranker.users.get(case.user_id, network.unknown_user) for case in known])
    states = network.last_states(histories, users.to(network.device))
    scores = network.scores(states, torch.arange(network.trained, device=network.device))
    for row, history in zip(scores, histories, strict=True):
        row[torch.from_numpy(history)] = -torch.inf
    targets = torch.tensor([[rows[str(case.target)]] for case in known], device=network.device)
    ranks = ((scores > scores.gather(1, targets)).sum(dim=1) + 1).tolist()
    return [*map(float, ranks), *[float("inf")] * (len(cases) - len(known))]


if __name__ == "__main__":
    main()
