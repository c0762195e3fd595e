"""What a gate gains that was fitted on few users, on the users it was not fitted on.

`python benchmarks/gate_rules.py HEAD CASES RUN [CASES RUN ...]` reads runs of a program with a prior, and asks no
model. The prior's first HEAD candidates are fused. For several numbers of dev users it draws users at random, fits a
gate on them, and ranks all others with it. A second time the program's scores are shuffled within each list, so that
they say nothing. Prints a JSON line each: the mean change of NDCG@10 to the prior alone, the worst one, and how often
the gate asks at all.
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
from evaluate.stats.metrics import ndcg
from optimize.gate_fit import fit_on_lists
from optimize.likelihood import ListScores
from programs.gate import Gate, GateSignals

USERS = (40, 60, 120, 280, 500)
REPETITIONS = 40
AT = 10


def main() -> None:
    """Read, fit and rank for every number of users, print."""
    head = int(sys.argv[1])
    lists: list[ListScores | None] = []
    signals: list[GateSignals] = []
    for path, run in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
        rows, cases = read_journal(Path(run))[1], load_cases(Path(path))
        owned = {event.item_id for events in cases.training.values() for event in events}
        for case in cases:
            if case.user_id in rows:
                scores = rows[case.user_id].scores
                lists.append(ListScores.of(case, list(scores["mar"]), scores["prior"], head))
                signals.append(GateSignals.of(case, scores["prior"], owned, np.array(scores["mar"], dtype=float)))
    draw = np.random.default_rng(0)
    for kind, these in (("as recorded", lists), ("shuffled", [_shuffled(one, draw) for one in lists])):
        for users in USERS:
            gains, asked = [], 0
            for _ in range(REPETITIONS):
                chosen = np.zeros(len(these), dtype=bool)
                chosen[draw.choice(len(these), users, replace=False)] = True
                own = np.flatnonzero(chosen).tolist()
                names = [str(place) for place in own]
                gate = fit_on_lists([these[n] for n in own], [signals[n] for n in own], names).gate
                others = np.flatnonzero(~chosen).tolist()
                gains.append(float(_gain([these[n] for n in others], [signals[n] for n in others], gate).mean()))
                asked += any(gate.weights)
            told = {"scores": kind, "users": users, "mean": round(float(np.mean(gains)), 5)}
            told |= {"worst": round(min(gains), 4), "asks": asked / REPETITIONS}
            print(json.dumps(told), flush=True)


def _shuffled(one: ListScores | None, draw: np.random.Generator) -> ListScores | None:
    return None if one is None else one.model_copy(update={"mar": tuple(draw.permutation(one.mar).tolist())})


def _gain(lists: Sequence[ListScores | None], signals: Sequence[GateSignals], gate: Gate) -> NDArray[np.float64]:
    """Change of NDCG@10 of each user, shape (users,)."""
    gains = np.zeros(len(lists))
    for place, (one, own) in enumerate(zip(lists, signals, strict=True)):
        if one is not None and (weight := gate.weight(own)):
            divided = one if gate.deviations is None else one.over(gate.deviations)
            gains[place] = ndcg(divided.rank(weight), AT) - ndcg(one.rank(0.0), AT)
    return gains


if __name__ == "__main__":
    main()
