"""A small compile against the fake server, shared by the tests of optimize/ and of the command line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from evaluate.data.load import load_dataset
from evaluate.protocol.cases import Cases, draw_lists, write_cases
from evaluate.protocol.protocol import EvaluationProtocol
from evaluate.protocol.splits import split_dataset
from evaluate.ranker_factory import RankerFactory
from evaluate.runs.directory import LEDGER
from optimize.artifact import SEARCH_FOLDER
from optimize.candidates import Recipe
from optimize.compiler import Compiler
from optimize.consistency import schema_cooccurrence
from optimize.objective import UserScore
from optimize.search import Attempt
from optimize.settings import CompileSettings
from optimize.space import Space
from programs.lm.backends import Backends
from programs.lm.ledger import Budget, Ledger
from programs.lm.prices import PriceTable
from programs.lm.roles import Roles, local_roles
from programs.prior.encoders import HashingEncoder
from programs.trait_store import TraitStore
from signatures.schema import CONSUMER, MotivationSchema
from tests.support.fake_server import Body, FakeOpenAI, Reply, digest, sensible


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


def dev_cases(path: Path, users: int, negatives: int = 9, part: str = "dev") -> Cases:
    """Frozen cases of the demo store."""
    data = load_dataset("demo")
    protocol = EvaluationProtocol.model_validate(
        {
            "dataset": "demo",
            "source": "demo",
            "dataset_sha256": data.sha256,
            "part": part,
            "users": users,
            "negatives": negatives,
        }
    )
    return write_cases(path, protocol, draw_lists(data, protocol))


def roles_on(server: FakeOpenAI, **models: str) -> Roles:
    """Every role on the fake server; some under a name of their own."""
    roles = local_roles().with_models(**dict.fromkeys(("mope", "mote", "mar", "judge"), server.model()))
    return roles.with_models(**{role: server.model(name) for role, name in models.items()})


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
        histories=split_dataset(data, cases.protocol).training,
        encoder_of=HashingEncoder,
        backends_of=lambda: Backends(roles, ledger, prices),
        traits_of=TraitStore,
        schema=schema,
    )
    chosen = CompileSettings.model_validate(
        {
            "trials": 4,
            "recipe": Recipe(demo_sets=1, max_demos=2, wordings=1),
            "space": Space(families=("listwise",)),
            "interactions": 2,
            "roles": roles,
            "proposer": roles.mar.model_copy(update={"terse": False}),
            "motivations": schema,
            "cases_sha256": cases.sha256,
            **settings,
        }
    )
    return Compiler(directory, chosen, cases, shop.parts(), schema_cooccurrence, Silent())
