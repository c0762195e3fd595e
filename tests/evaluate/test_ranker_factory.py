"""Rankers by name, on the demo store."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from evaluate.data.demo.store import demo_dataset
from evaluate.protocol.protocol import EvaluationProtocol
from evaluate.protocol.splits import split_dataset
from evaluate.ranker_factory import BASELINES, RankerFactory
from evaluate.runs.journal import Journal
from evaluate.runs.run import run_cases
from programs.chat_rec import RERANKING
from programs.lm.backends import Backends
from programs.lm.ledger import Ledger
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import PRESETS, Roles, local_roles
from programs.prior.encoders import Encoder, HashingEncoder
from programs.program import PROGRAMS
from programs.runtime.errors import InputError
from programs.trait_store import TraitStore
from signatures.rows import Status
from tests.support.backends import roles_on
from tests.support.cases import demo_cases
from tests.support.fake_server import FakeOpenAI
from tests.support.runs import ITEMS, MANIFEST, SIZE, judgements, rows_in


def unused() -> NoReturn:
    raise AssertionError("not needed by this ranker")


def workshop(
    roles: Roles | None = None, ledger: Ledger | None = None, encoder_of: Callable[[], Encoder] = HashingEncoder
) -> RankerFactory:
    """A workshop on the demo store; without roles nothing may ask for a model."""
    data = demo_dataset()
    protocol = EvaluationProtocol(dataset="demo", source="demo", dataset_sha256=data.sha256)
    return RankerFactory(
        dataset=data,
        training=split_dataset(data, protocol).training,
        encoder_of=encoder_of,
        backends_of=unused if roles is None else lambda: Backends(roles, ledger),
        traits_of=TraitStore,
    )


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_ranks_all_thirty_without_a_model(name: str) -> None:
    shop = workshop() if name in ("content", "prior") else workshop(encoder_of=unused)
    ranker = shop.ranker(name)
    for one in demo_cases(5, negatives=29):
        ranking = ranker.rank(one.blinded())
        assert sorted(ranking.order) == sorted(one.candidates)
        assert len(ranking.order) == 30
        assert name in ranking.scores
        assert all(len(scores) == 30 and np.isfinite(scores).all() for scores in ranking.scores.values())
        assert ranker.rank(one.blinded()) == ranking


@pytest.mark.parametrize("name", sorted(PROGRAMS.keys() - {"tuned", "tuned-profiles"}))  # these need a base model
def test_every_program_ranks_all_thirty_over_the_prior(name: str, server: FakeOpenAI) -> None:
    shop = workshop(roles_on(server))
    (one,) = demo_cases(1, negatives=29)
    ranking = shop.ranker(name).rank(one.blinded())
    assert ranking.status is Status.OK
    assert sorted(ranking.order) == sorted(one.candidates)
    assert set(ranking.scores) == {"prior", "mar", "fused"}
    assert all(len(scores) == 30 and np.isfinite(scores).all() for scores in ranking.scores.values())
    assert ranking.scores["prior"] == shop.ranker("prior").rank(one.blinded()).scores["prior"]
    assert (ranking.appended, ranking.dropped, ranking.unparsable) == (0, 0, 0)
    assert (ranking.profile is None) == (name in {"without-mope", "llm-only"} | RERANKING)
    assert (ranking.traits == []) == (name in {"without-mote", "llm-only"} | RERANKING)


def test_threads_give_the_rows_of_one_thread(tmp_path: Path, server: FakeOpenAI) -> None:
    cases, rows, bodies = demo_cases(4, negatives=4), [], []
    for workers in (1, 4):
        store, ledger = use_response_cache(":memory:"), Ledger()
        ranker = workshop(roles_on(server), ledger).ranker("pointwise")
        seen_before = len(server.bodies)
        with Journal.open(tmp_path / str(workers), MANIFEST) as journal:
            assert run_cases(cases, ranker, journal, ledger, workers=workers).complete
        bodies.append(sorted(json.dumps(body) for body in server.bodies[seen_before:]))
        rows.append(rows_in(tmp_path / str(workers)))
        assert sum(one.usage.calls for one in rows[-1].values()) == ledger.total().calls == len(bodies[-1])
        store.close()
    assert judgements(rows[0]) == judgements(rows[1])
    assert bodies[0] == bodies[1]
    assert len(set(bodies[0])) == len(bodies[0])


def test_random_is_seeded_and_differs_between_lists() -> None:
    random = workshop().scorer("random")
    assert random.scores(["a"], ITEMS).tolist() == random.scores(["a"], ITEMS).tolist()
    assert random.scores(["a"], ITEMS).tolist() != random.scores(["b"], ITEMS).tolist()
    ranks = [random.scores([str(n)], ITEMS).argsort().tolist().index(3) for n in range(600)]
    # The mean place of one item under chance, 5.5, within four standard errors.
    assert math.fabs(float(np.mean(ranks)) - 5.5) < 4 * math.sqrt((SIZE**2 - 1) / 12 / 600)


def test_an_unknown_ranker_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no ranker 'nonsense'\. Choose one of random, popularity") as caught:
        workshop().ranker("nonsense")
    assert all(name in str(caught.value) for name in (*BASELINES, *PROGRAMS))


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        (PRESETS["hosted"], "openai/gpt-6-luna needs a key: set the environment variable OPENAI_API_KEY"),
        (local_roles(), "'smollm2-135m' are not on this machine"),
        (local_roles(Path("/nowhere/model.gguf")), "no model file at /nowhere/model.gguf"),
        (local_roles().with_models(mope="http://host/v1", mote="http://host/v1"), "as http://host:port/v1#model"),
    ],
)
def test_a_program_whose_models_cannot_be_asked_is_refused_at_once(roles: Roles, words: str) -> None:
    with pytest.raises(InputError) as caught:
        workshop(roles).ranker("embedding")
    assert words in str(caught.value)


def test_only_the_roles_a_program_asks_have_to_be_there(server: FakeOpenAI) -> None:
    roles = local_roles().with_models(mope=server.model(), mote=server.model())  # MAR's weights are not here
    workshop(roles).ranker("embedding")
    with pytest.raises(InputError, match="smollm2"):
        workshop(roles).ranker("pointwise")
