"""Compiling, from dev shoppers to a frozen artifact: pools, search, a check on unseen shoppers, freezing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import dspy

from evaluate.protocol.cases import Cases
from optimize.artifact import SEARCH_FOLDER, ArtifactManifest, CompileData, render_prompts, save_artifact
from optimize.candidates import Candidates, build_candidates, without_trait_cache
from optimize.compile_report import CompileRecord, compile_report
from optimize.consistency import Similarity
from optimize.dspy_optimizers import Optimizer, Scoreboard, optimize
from optimize.forecast import Phase, forecast_compile, measure_compile, upper_bound
from optimize.holdout import compare_on_holdout, split_dev
from optimize.importance import importances_of
from optimize.objective import Objective, UserScore
from optimize.prompts import Prompts, prompts_of, safe_prompts
from optimize.scoring import EvaluationError, ScoredProgram, ring, scored
from optimize.search import Attempt, Search, SearchPlan
from optimize.settings import CompileSettings
from optimize.space import Assembly, Configuration, uncompiled
from programs.lm.ledger import Budget, Ledger
from programs.lm.roles import ROLE_NAMES, RoleName
from programs.program import MLLM3Rec, Parts
from programs.runtime.atomic import sweep, write_atomically
from programs.runtime.errors import BudgetExceededError, InputError
from programs.runtime.lock import owned
from signatures.rows import Case

PLAN, POOLS, STUDY, TRIALS, REPORT = "plan.json", "pools.json", "study.sqlite", "trials.json", "report.html"
_MAY_CHANGE = {"trials"}


class Watcher(Protocol):
    """Told how a compile goes."""

    def step(self, what: str, total: int = 0) -> None:
        """A new part begins, of `total` shoppers to be scored where that is known."""

    def score(self, score: UserScore) -> None:
        """A shopper was scored; called from any thread."""

    def attempt(self, attempt: Attempt, best: Attempt | None) -> None:
        """A trial ended."""


@dataclass
class Compiler:
    """One compile in one directory.

    Args:
        directory: Where the artifact goes; `search/` in it holds the state to resume from.
        parts: What programs are built with. The ledger of its backends counts and limits every call.
        similarity: The function behind `settings.similarity`.
    """

    directory: Path
    settings: CompileSettings
    case_file: Cases
    parts: Parts
    similarity: Similarity
    watcher: Watcher
    workers: int = 1
    searched: list[Case] = field(init=False)
    held_out: list[Case] = field(init=False)

    def __post_init__(self) -> None:
        if self.case_file.protocol.part != "dev":
            raise InputError(
                f"these cases are of the part {self.case_file.protocol.part!r}: compiling on test shoppers would spoil "
                "every later figure; draw some with `--part dev`"
            )
        self.searched, self.held_out = split_dev(self.case_file.cases, self.settings.held_out)

    @property
    def ledger(self) -> Ledger:
        """The ledger of all calls."""
        return self.parts.backends.ledger

    @cached_property
    def objective(self) -> Objective:
        """What is maximised."""
        return Objective(self.settings.weights, self.similarity)

    @cached_property
    def proposer(self) -> dspy.LM:
        """The language model that writes instructions; built when first needed."""
        self.parts.backends.require_priced("proposer", self.settings.proposer)
        return self.parts.backends.build("proposer", self.settings.proposer)

    def forecast(self) -> list[Phase]:
        """Measure a handful of calls and say what a study would take at most."""
        self.ledger.phase = "forecast"
        space = self.settings.space
        programs = [self._program(family) for family in space.families]
        measured = upper_bound(
            [
                measure_compile(self._judge(without_trait_cache(program), self.searched), self.searched, self.ledger)
                for program in programs
            ],
            {role: self._dearer(role) for role in ROLE_NAMES},
        )
        tuned = {n for program in programs for n, _ in program.named_predictors() if not n.startswith("reasons")}
        varies = "mote" in {*self.settings.modules, *space.models, *space.temperatures}
        changes = self.settings.trials - 1 if varies else 0
        per_user = sum(measured.ranking.values())
        products = self._products(self.searched)
        if changes and per_user:
            changes = math.ceil(changes / max(1, math.ceil(products / (per_user * len(self.searched)))))
        return forecast_compile(
            measured,
            shoppers=(len(self.searched), len(self.held_out)),
            products=(products, self._products(self.held_out)),
            trials=self.settings.trials,
            mote_changes=changes,
            proposals=len(tuned) * self.settings.recipe.wordings + 1,
            families=len(programs),
        )

    def _dearer(self, role: RoleName) -> float | None:
        """How many times as dear as the role's own model the dearest it may get is; None where a price is unknown."""
        models = self.settings.space.models.get(role, ())
        prices = self.parts.backends.prices.models
        own = prices.get(self.settings.roles.of(role).model)
        others = [prices.get(model) for model in models]
        if not models:
            return 1.0
        known = [price for price in others if price is not None and price.usd_per_hour is None]
        # A machine's price is one of time: it says nothing about what the same tokens cost elsewhere.
        if own is None or not own.input or not own.output or len(known) < len(others):
            return None
        return max(max(price.input / own.input, price.output / own.output) for price in known)

    def run(self) -> ArtifactManifest:
        """Compile, or go on with the compile that is in the directory.

        Raises:
            InputError: if the directory holds another compile (naming what differs), nothing can be made of it, or
                a server failed where it is not a trial that fails with it.
            BudgetExceededError: if the budget ended before there was a winner that had been checked; everything
                paid for is kept.
        """
        with owned(self.directory / SEARCH_FOLDER):
            sweep(self.directory)
            self._agree()
            self._bare.require(self.settings.space)
            try:
                return self._run()
            except EvaluationError as error:
                raise InputError(f"{error}; what was paid for is kept, and the same command goes on") from error

    def _run(self) -> ArtifactManifest:
        stopped: str | None = None
        budget = self.ledger.budget
        self.ledger.budget = self._without_reserve(budget)
        if self.settings.optimizer == "study":
            search = self._search(self._pools())
            stopped = self._searched_by(search)
            attempts, unit, importances = search.attempts(), search.unit, importances_of(search.study)
            best = search.best()
            if best is None:
                raise BudgetExceededError(stopped or "no trial was completed")
            configuration, prompts = best.configuration, search.assembly.prompts(best.configuration)
        else:
            self.ledger.phase = "search"
            attempts, best, prompts, stopped = self._optimized(self.settings.optimizer)
            configuration, unit, importances = self._uncompiled, self._unit(), {}
        self.ledger.budget = budget
        manifest = self._freeze(configuration, prompts, attempts, best, unit, importances)
        if stopped:
            raise BudgetExceededError(
                f"{stopped}; the best of {len(attempts)} trials is frozen in {self.directory}, "
                "and the same command with a larger budget goes on"
            )
        return manifest

    def _agree(self) -> None:
        path = self.directory / SEARCH_FOLDER / PLAN
        if path.exists():
            found: dict[str, Any] = json.loads(path.read_bytes())
            asked = self.settings.model_dump(mode="json")
            differing = [k for k in asked if k not in _MAY_CHANGE | {"versions"} and found.get(k) != asked[k]]
            if differing:
                raise InputError(
                    f"{self.directory}: holds a compile with other {', '.join(differing)}; "
                    "give the same options to resume it, or another directory"
                )
        write_atomically(path, self.settings.model_dump_json(indent=1).encode() + b"\n")

    @cached_property
    def _bare(self) -> Assembly:
        return Assembly(self.parts)

    @cached_property
    def _uncompiled(self) -> Configuration:
        return uncompiled(self.settings.space)

    def _program(self, family: str) -> MLLM3Rec:
        return self._bare.program(self._uncompiled.model_copy(update={"family": family}))

    def _products(self, cases: Sequence[Case]) -> int:
        """Products a new MOTE prompt distils, at most."""
        distinct = len({item for case in cases for item in case.candidates})
        return min(distinct, len(cases) * (self.settings.head or distinct))

    def _judge(self, program: MLLM3Rec, cases: Sequence[Case]) -> ScoredProgram:
        interactions = self.settings.interactions if self.settings.weights.coherence else 0
        return ScoredProgram(program, ring(cases), self.ledger, interactions)

    def _pools(self) -> Candidates:
        path = self.directory / SEARCH_FOLDER / POOLS
        if path.exists():
            return Candidates.load(path)
        self.ledger.phase = "pools"
        programs = {f: self._judge(self._program(f), self.searched) for f in self.settings.space.families}
        pools = build_candidates(
            programs,
            self.searched,
            self.objective,
            self.settings.recipe,
            self.proposer,
            self.settings.proposer.adapter,
            self.settings.motivations,
            self.settings.modules,
            self.workers,
            self.watcher.step,
            self.watcher.score,
        )
        pools.save(path)
        return pools

    def _search(self, pools: Candidates) -> Search:
        return Search(
            path=self.directory / SEARCH_FOLDER / STUDY,
            plan=SearchPlan(trials=self.settings.trials, seed=self.settings.seed, pareto=self.settings.pareto),
            space=self.settings.space,
            assembly=Assembly(self.parts, pools),
            judge=lambda program: self._judge(program, self.searched),
            cases=self.searched,
            objective=self.objective,
            unit=self._unit(),
            products=self._products(self.searched),
            workers=self.workers,
        )

    def _unit(self) -> str:
        prices = self.parts.backends.prices.models
        shopper_roles: tuple[RoleName, ...] = ("mope", "mar")
        models = {self.settings.roles.of(role).model for role in shopper_roles}
        models |= {model for role in shopper_roles for model in self.settings.space.models.get(role, ())}
        return "usd" if all(model in prices for model in models) else "tokens"

    def _without_reserve(self, budget: Budget) -> Budget:
        """What pools and search may spend, so that their winner can still be checked on the held-out shoppers."""
        if budget.usd is None and budget.calls is None:
            return budget
        check = next(phase for phase in self.forecast() if phase.name == "held-out")
        return Budget(
            usd=None if budget.usd is None else max(0.0, budget.usd - (check.usd or 0.0)),
            calls=None if budget.calls is None else max(0, budget.calls - check.calls),
        )

    def _searched_by(self, search: Search) -> str | None:
        self.ledger.phase = "search"
        self.watcher.step("trials", self.settings.trials * len(self.searched))
        for attempt in search.attempts():
            self.watcher.attempt(attempt, search.best())
        try:
            search.run(self.watcher.score, lambda attempt: self.watcher.attempt(attempt, search.best()))
        except BudgetExceededError as error:
            if self.ledger.stopped:
                raise
            return str(error)
        return None

    def _optimized(self, optimizer: Optimizer) -> tuple[list[Attempt], Attempt, Prompts, str | None]:
        self.watcher.step(f"{optimizer}: programs scored", self.settings.trials * len(self.searched))
        judged = self._judge(self._bare.program(self._uncompiled), self.searched)
        board = Scoreboard(self.objective, prompts_of(judged.program), self.watcher.score)
        for case, score in zip(self.searched, scored(judged, self.searched, self.objective, self.workers), strict=True):
            board.note(prompts_of(judged.program), case, score)
        found, stopped = optimize(
            optimizer,
            judged,
            self.searched,
            board,
            self.settings.recipe,
            self.settings.trials,
            self.proposer,
            self.settings.proposer.adapter,
            self.settings.modules,
            self.workers,
        )
        complete = board.complete(self.searched)
        attempts = [Attempt(at, "COMPLETE", self._uncompiled, tuple(scores)) for at, (_, scores) in enumerate(complete)]
        best = next(attempts[at] for at, (prompts, _) in enumerate(complete) if prompts == found)
        return attempts, best, found, stopped

    def _freeze(
        self,
        configuration: Configuration,
        prompts: Prompts,
        attempts: Sequence[Attempt],
        best: Attempt,
        unit: str,
        importances: dict[str, float],
    ) -> ArtifactManifest:
        self.ledger.phase = "held-out"
        self.watcher.step("held-out shoppers", 2 * len(self.held_out))
        plain = self._bare.program(self._uncompiled)
        winner = self._bare.program(configuration, safe_prompts(prompts))
        before, after = (
            scored(self._judge(program, self.held_out), self.held_out, self.objective, self.workers, self.watcher.score)
            for program in (plain, winner)
        )
        protocol = self.case_file.protocol
        roles = self._bare.roles(configuration)
        first = next((a for a in attempts if a.number == 0), best)
        manifest = ArtifactManifest(
            family=configuration.family,
            roles=roles,
            models=self.settings.models,
            encoder=self.settings.encoder,
            weight=configuration.weight,
            head=self.settings.head,
            motivations=self.settings.motivations,
            optimizer=self.settings.optimizer,
            chosen=configuration,
            trial=best.number,
            trials=len(attempts),
            weights=self.settings.weights,
            similarity=self.settings.similarity,
            interactions=self.settings.interactions,
            data=CompileData(
                dataset=protocol.dataset,
                dataset_sha256=protocol.dataset_sha256,
                cases_sha256=self.case_file.sha256,
                target=protocol.target,
                negatives=protocol.negatives,
                searched=tuple(case.user_id for case in self.searched),
                held_out=tuple(case.user_id for case in self.held_out),
            ),
            searched={"before": first.score, "after": best.score},
            verdict=compare_on_holdout(before, after),
            spent=self.ledger.by_phase(),
            versions=self.settings.versions,
        )
        trials = [
            {
                "number": a.number,
                "state": a.state,
                "configuration": a.configuration.model_dump(mode="json"),
                "score": a.score if a.scores else None,
                "cost": {unit: a.cost(unit)} if a.scores else None,
                "error": a.error,
                "scores": [s.model_dump(mode="json") for s in a.scores],
            }
            for a in attempts
        ]
        write_atomically(self.directory / SEARCH_FOLDER / TRIALS, json.dumps(trials, indent=1).encode() + b"\n")
        record = CompileRecord(
            manifest, attempts, unit, prompts_of(plain), prompts_of(winner), render_prompts(winner), importances
        )
        write_atomically(self.directory / SEARCH_FOLDER / REPORT, compile_report(record).encode())
        return save_artifact(self.directory, winner, manifest)
