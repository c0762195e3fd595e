"""What each group of features gains `learned`, against its default, on the same users.

`python benchmarks/learned_groups.py DATASET [SETTING] [PART] [USERS] [SEED]` prints one JSON line per variant: the
default, without each of its groups, with each further group, and as a classifier. SETTING is `warm` (the default),
`item-cold` or `user-cold`; PART is `dev` (the default) or `test`; USERS is a number or `all` (the default). A line has
HR@5 and NDCG@5, the difference in NDCG@5 from the default with its 95% interval, CPU seconds of the fit, and CPU
milliseconds a list.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, get_args

import mllm3rec as m3
from evaluate.baselines.learned import Group, Learned
from evaluate.ranker_factory import RankerFactory
from evaluate.stats.intervals import paired_difference
from evaluate.stats.metrics import hit, ndcg, rank_of


def variants() -> Iterator[tuple[str, Learned]]:
    """The default first, and then settings that differ from it in one thing."""
    default = Learned()
    yield "default", default
    for group in default.groups:
        yield f"without {group}", Learned(groups=tuple(one for one in default.groups if one != group))
    for group in get_args(Group):
        if group not in default.groups and (group != "sasrec" or find_spec("torch")):
            yield f"with {group}", Learned(groups=(*default.groups, group))
    yield "classifier", Learned(objective="binary")


def main() -> None:
    """Measure and print."""
    given: list[Any] = sys.argv[1:]
    given += ["", "warm", "dev", "all", "0"][len(given) :]
    dataset, setting, part, users, seed = given
    data = m3.load_dataset(dataset)
    count = None if users == "all" else int(users)
    cases = m3.draw_cases(data, setting=setting, part=part, users=count, target="last")
    training = RankerFactory.create(data, cases.training, protocol=cases.protocol).training_data
    blinded = [case.blinded() for case in cases.cases]
    reference: dict[str, float] = {}
    for label, settings in variants():
        start = time.process_time()
        ranker = settings.fit(training, int(seed))
        fitted = time.process_time()
        rankings = ranker.rank_many(blinded)
        ranked = time.process_time()
        ranks = {
            case.user_id: rank_of(ranking.order, str(case.target))
            for case, ranking in zip(cases.cases, rankings, strict=True)
        }
        values = {user: ndcg(rank, 5) for user, rank in ranks.items()}
        reference = reference or values
        line: dict[str, Any] = {"variant": label, "n": len(ranks)}
        line["HR@5"] = round(sum(hit(rank, 5) for rank in ranks.values()) / len(ranks), 4)
        line["NDCG@5"] = round(sum(values.values()) / len(ranks), 4)
        if label != "default":
            gain = paired_difference(values, reference, seed=0)
            line["difference"] = [round(value, 4) for value in (gain.mean, gain.low, gain.high)]
        line["fit, CPU s"] = round(fitted - start, 1)
        line["CPU ms a list"] = round(1000 * (ranked - fitted) / len(ranks), 2)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
