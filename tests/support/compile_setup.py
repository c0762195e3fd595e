"""A small compile against the fake server, shared by the tests of optimize/ and of the command line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from evaluate.data.load import load_dataset
from evaluate.protocol.cases import Cases
from evaluate.protocol.splits import split_dataset
from evaluate.ranker_factory import RankerFactory
from evaluate.runs.directory import LEDGER
from optimize.artifact import SEARCH_FOLDER
from optimize.candidates import CandidateSettings
from optimize.compiler import Compiler
from optimize.consistency import schema_cooccurrence
from optimize.freezing import TRIALS
from optimize.objective import UserScore
from optimize.search import Attempt
from optimize.settings import CompileSettings
from optimize.space import Configuration, Space
from programs.lm.backends import Backends
from programs.lm.ledger import Budget, Ledger
from programs.lm.prices import Price, PriceTable
from programs.lm.roles import Roles
from programs.prior.encoders import HashingEncoder
from programs.trait_store import TraitStore
from signatures.schema import CONSUMER, MotivationSchema
from tests.support.fake_server import Body, Reply, digest, sensible


def sensitive(body: Body) -> Reply:
    """Like `sensible`, but every word of the prompt matters; also writes instructions when asked to."""
    asked = json.dumps(body["messages"])
    number = digest(asked) % 1000
    if "proposed_instruction" in asked:
        return Reply(
            json.dumps({"proposed_instruction": f"Say what drives this shopper, in general words, way {number}."})
        )
    if "new_instruction" in asked:
        return Reply(
            json.dumps({"new_instruction": f"Say what drives this shopper, as the feedback asks, way {number}."})
        )
    if "divergences" in asked:
        return Reply(json.dumps({"adjusted": f"Say what drives this shopper so that purchases agree, way {number}."}))
    body = copy.deepcopy(body)
    body["messages"][-1]["content"] += f"\n#{digest(json.dumps(body['messages'][:-1]))}"
    return sensible(body)


class Silent:
    """A watcher that keeps what it was told."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.scores: list[UserScore] = []
        self.attempts: list[Attempt] = []

    def step(self, what: str, total: int = 0) -> None:
        self.steps.append(what)

    def score(self, score: UserScore) -> None:
        self.scores.append(score)

    def attempt(self, attempt: Attempt, best: Attempt | None) -> None:
        self.attempts.append(attempt)


def compiler(
    directory: Path,
    cases: Cases,
    roles: Roles,
    budget: Budget | None = None,
    prices: PriceTable | None = None,
    schema: MotivationSchema = CONSUMER,
    **settings: Any,
) -> Compiler:
    """A compiler over `cases` with small pools; `settings` replace the defaults of `Settings`."""
    data = load_dataset("demo")
    ledger = Ledger(directory / SEARCH_FOLDER / LEDGER, budget)
    shop = RankerFactory(
        dataset=data,
        training=split_dataset(data, cases.protocol).training,
        encoder_of=HashingEncoder,
        backends_of=lambda: Backends(roles, ledger, prices),
        traits_of=TraitStore,
        schema=schema,
    )
    chosen = CompileSettings.model_validate(
        {
            "trials": 4,
            "recipe": CandidateSettings(demo_sets=1, max_demos=2, wordings=1),
            "space": Space(families=("listwise",)),
            "interactions": 2,
            "roles": roles,
            "proposer": roles.mar.model_copy(update={"terse": False}),
            "motivations": schema,
            "cases_sha256": cases.sha256,
            "dataset_sha256": cases.protocol.dataset_sha256,
            **settings,
        }
    )
    return Compiler(directory, chosen, cases, shop.parts(), schema_cooccurrence, Silent())


PRICES = PriceTable.model_validate({"dated": "2026-11-01", "models": {}})


def priced(*models: str, usd: float = 2.0) -> PriceTable:
    """Prices of these models: dollars for a million tokens in, and four times as many out."""
    return PRICES.model_copy(update={"models": {model: Price(input=usd, output=4 * usd) for model in models}})


def trials_of(directory: Path) -> list[dict[str, Any]]:
    """The trials of a compile, from its file."""
    found: list[dict[str, Any]] = json.loads((directory / SEARCH_FOLDER / TRIALS).read_text())
    return found


def score_of(user: str, score: float, tokens: int = 10) -> UserScore:
    """A score of one user."""
    return UserScore(user_id=user, score=score, rank=1, mar_rank=1, ndcg=score, mar=score, hit=1.0, tokens=tokens)


def attempt(number: int, score: float, tokens: int, state: str = "COMPLETE") -> Attempt:
    """A trial on one user."""
    return Attempt(number, state, Configuration(family="listwise"), (score_of("u", score, tokens),))
