"""Compiler: candidates, search, held-out check and artifact, resumable in one directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from evaluate.experiments.resumable_trials import naming_file
from evaluate.protocol.cases import Cases
from optimize.artifact import SEARCH_FOLDER, ArtifactManifest, CompileData
from optimize.ask_ahead import AskAhead, PlannedScores
from optimize.candidates import Candidates, build_candidates, original_candidates, without_trait_store
from optimize.consistency import Similarity
from optimize.copied_text import CopyGuard
from optimize.dspy_optimizers import ScoreRecorder, run_dspy_optimizer
from optimize.event_watcher import Watcher
from optimize.finals import Decision, final_round, finalists_of, finals_lines, unopposed, with_gate
from optimize.forecast import (
    FinalUsers,
    Phase,
    check_unpaid,
    finals_phase,
    forecast_compile,
    held_out_phase,
    measure_compile,
    most_expensive,
    search_is_paid,
    upper_bound,
)
from optimize.freezing import CheckedWinner, freeze
from optimize.fusion_fit import TRIED_WEIGHTS, all_at_weight
from optimize.holdout import HoldoutVerdict, compare_on_holdout, split_dev
from optimize.importance import importances_of
from optimize.objective import Objective, UserScore, readable
from optimize.prompts import Prompts, prompts_of, safe_prompts
from optimize.proposals import Proposer
from optimize.prototype_search import PrototypeSearch
from optimize.scoring import EvaluationError, ScoredProgram, next_users, score_cases
from optimize.search import Attempt, Search, SearchPlan
from optimize.search_result import SearchResult
from optimize.settings import CompileSettings
from optimize.space import Configuration, ProgramBuilder, uncompiled
from optimize.start import Start
from programs.lm.ledger import Budget, Ledger, interrupted_note
from programs.lm.roles import RoleName
from programs.mar import Embedding, Pointwise
from programs.program import MLLM3Rec, Parts
from programs.rehearsal import Rehearsal
from programs.runtime.atomic import own_folder, sweep
from programs.runtime.errors import BudgetExceededError, InputError
from programs.runtime.interrupts import map_in_threads
from programs.runtime.lock import owned
from programs.trait_store import TraitStore
from signatures.rows import Case

PLAN, POOLS, STUDY = "plan.json", "pools.json", "study.sqlite"

UNREADABLE = (
    "no answer of the models could be read for more than half of the users, so nothing is frozen; see what they answer "
    "with `mllm3rec evaluate`, or ask again: the same command with --retry-unparsable pays for nothing else twice"
)


@dataclass
class Compiler:
    """One compile in one directory.

    Args:
        directory: Folder of the artifact; its `search/` holds the state to resume from.
        parts: Parts of the programs. The ledger of their backends records and limits all calls.
        similarity: The function named by `settings.similarity`.
        ahead: Has the questions of fixed phases answered by batches; None to ask each when it is needed.
        start: The compiled program to go on from; None for the original prompts.
    """

    directory: Path
    settings: CompileSettings
    cases: Cases
    parts: Parts
    similarity: Similarity
    watcher: Watcher
    workers: int = 1
    ahead: AskAhead | None = field(default=None, kw_only=True)
    start: Start | None = field(default=None, kw_only=True)
    searched: list[Case] = field(init=False)
    final_users: list[Case] = field(init=False)
    held_out: list[Case] = field(init=False)
    _phases: Sequence[Phase] = field(default=(), init=False)

    def __post_init__(self) -> None:
        if self.cases.protocol.part != "dev":
            raise InputError(
                f"these cases are of part {self.cases.protocol.part!r}, but programs are compiled on dev users only, "
                "so that test users stay unseen; draw cases with `--part dev`"
            )
        self.searched, self.held_out = split_dev(self.cases.cases, self.settings.held_out)
        kept = int(self.settings.final_share * len(self.searched)) if self.settings.finalists else 0
        self.searched, self.final_users = (
            self.searched[: len(self.searched) - kept],
            self.searched[len(self.searched) - kept :],
        )
        if self.start is not None:
            self.start.refuse_seen(self.cases, self.held_out)

    @property
    def ledger(self) -> Ledger:
        """The ledger of all calls."""
        return self.parts.backends.ledger

    @cached_property
    def objective(self) -> Objective:
        """The objective to maximise."""
        return Objective(self.settings.weights, self.similarity)

    @cached_property
    def proposer(self) -> Proposer:
        """The model that writes instructions; built when first needed."""
        config, backends = self.settings.proposer, self.parts.backends
        backends.require_priced("proposer", config)
        return Proposer(backends.build("proposer", config), config.adapter, self.settings.motivations, self._guard())

    def _guard(self) -> CopyGuard:
        """Refuses instructions with titles of the dev users' items; the schema's own words are allowed."""
        items = {item for case in self.cases for item in (*case.item_ids, *case.candidates)}
        titles = [self.parts.catalogue[item].title for item in sorted(items) if item in self.parts.catalogue]
        return CopyGuard(titles, [self.settings.motivations.glossary()])

    def forecast(self) -> list[Phase]:
        """Measure a few calls and forecast upper bounds of the phases."""
        self.ledger.phase = "forecast"
        return self._forecast(self._builder)

    def rehearse(self) -> list[Phase]:
        """The same forecast without a call, from prompts and invented answers; less exact."""
        backends = Rehearsal(self.parts.backends, self.settings.motivations)
        return self._forecast(self._builder_on(replace(self.parts, backends=backends, traits=TraitStore())))

    def _forecast(self, builder: ProgramBuilder) -> list[Phase]:
        """A forecast from the usage of the first users with the programs of `builder`."""
        ledger = builder.parts.backends.ledger
        programs = {name: builder.program(configuration) for name, configuration in self._families.items()}
        measured = [
            measure_compile(self._scored(without_trait_store(program), self.searched, ledger), self.searched, ledger)
            for program in programs.values()
        ]
        pools = original_candidates(programs).modules
        return forecast_compile(
            upper_bound(measured, most_expensive(self.settings, self.parts.backends.prices)),
            self.settings,
            users=(len(self.searched), len(self.held_out)),
            items=(self._distilled_items(self.searched), self._distilled_items(self.held_out)),
            pools={name: len(pool.wordings[0].instructions) for name, pool in pools.items()},
            finals=FinalUsers(
                users=len(self.final_users),
                items=self._distilled_items(self.final_users),
                drawn=any(not isinstance(one.aligner, Pointwise | Embedding) for one in programs.values()),
            ),
        )

    def run(self) -> ArtifactManifest:
        """Start or resume the compile.

        Raises:
            InputError: if the directory holds a compile with other settings (naming them), the program cannot be
                compiled, a server failed outside a trial, or the folder of the search is a symbolic link.
            BudgetExceededError: if the budget ended before there was a checked winner; all answers are cached.
        """
        search_folder = own_folder(self.directory / SEARCH_FOLDER)
        with owned(search_folder):
            sweep(self.directory)
            self.settings.refuse_other(search_folder / PLAN)
            self._builder.require(self.settings.space)
            if interrupted := self.ledger.total().interrupted:
                self.watcher.step(interrupted_note(interrupted))
            try:
                whole = self.ledger.budget
                self.ledger.budget = self._search_budget(whole)
                # After the checks: who follows the advice of a refusal begins another compile, not this one.
                self.settings.save(search_folder / PLAN)
                return self._run(whole)
            except KeyboardInterrupt:
                # Threads of DSPy go on after an interruption, and would go on paying.
                self.ledger.stop("interrupted")
                raise
            except EvaluationError as error:
                raise InputError(f"{error}; all answers are cached: run the same command to resume") from error

    def _run(self, budget: Budget) -> ArtifactManifest:
        """Search, final round and held-out check; `budget` is the whole one, the ledger's that of the search."""
        with naming_file(self.directory / SEARCH_FOLDER / STUDY):
            result = self._search()
        self.ledger.budget = self._final_budget(budget)
        result = self._final_round(result)
        if self.proposer_refused:
            self.watcher.step(self.proposer_refused)
        self.ledger.budget = budget
        manifest = self._freeze(result)
        if result.stopped:
            raise BudgetExceededError(
                f"{result.stopped}; the best of {len(result.attempts)} trials is saved in {self.directory}; "
                "run the same command with a larger budget to continue"
            )
        return manifest

    @property
    def proposer_refused(self) -> str:
        """How many proposed instructions were refused because they copy training text, and what; may be empty."""
        refused = self.proposer.refused if "proposer" in vars(self) else []
        if not refused:
            return ""
        return f"{len(refused)} proposed instructions were refused, because they copy training text: {refused[0]}"

    def _final_round(self, result: SearchResult) -> SearchResult:
        """The best programs again, on more users and draws, and with fitted weights; who wins here is the winner."""
        settings = self.settings
        if settings.optimizer == "prototypes":
            return self._gated(result)
        if not (settings.finalists or settings.fit_weight):
            return result
        prompts = {attempt.number: own for attempt, own in result.ranked}
        readable_ones = [attempt for attempt, _ in result.ranked]
        chosen = finalists_of(readable_ones, settings.finalists) if settings.finalists else [result.best]
        self.ledger.phase = "finals"
        draws = settings.draws if settings.finalists else 1
        users = [*self.searched, *self.final_users]
        new = len(self.final_users) + (draws - 1) * len(users)
        self.watcher.step(f"{len(chosen)} finalists on {len(users)} users with {draws} draws", len(chosen) * new)

        def planned(attempt: Attempt, draw: int) -> list[PlannedScores]:
            # Users of the search are compared with one another in every draw, as in the search: draws differ in labels.
            groups = [(self.searched, self.searched)] if draw else []
            groups.append((self.final_users, users))
            own = prompts[attempt.number]
            return [PlannedScores(attempt.configuration, own, cases, among, draw) for cases, among in groups]

        def score(attempt: Attempt, draw: int) -> list[UserScore]:
            found = [one for part in planned(attempt, draw) for one in self._scores_of(part)]
            return found if draw else [*attempt.scores, *found]

        try:
            self._ask_ahead([part for attempt in chosen for draw in range(draws) for part in planned(attempt, draw)])
            decision = final_round(chosen, score, draws, settings.weights, settings.fit_weight)
        except BudgetExceededError as error:
            if self.ledger.stopped:
                raise
            self.watcher.step(f"no final round: {error}")
            return replace(result, stopped=result.stopped or f"no final round: {error}")
        self._tell(decision)
        return result.won_by(decision.winner, decision.finals)

    def _gated(self, result: SearchResult) -> SearchResult:
        """The winner of a search over prototypes, which has its final round already, with a gate."""
        if not self.settings.fit_weight:
            return result
        winner, prompts = result.ranked[0]
        users = [*self.searched, *self.final_users]
        scores = self._scores_of(PlannedScores(winner.configuration, prompts, users, users))
        winner, gate = with_gate(winner, scores, self.settings.weights)
        if gate is None:
            return result
        decision = Decision(winner, (result.finals or unopposed(winner)).model_copy(update={"gate": gate}))
        self._tell(decision)
        return result.won_by(decision.winner, decision.finals)

    def _tell(self, decision: Decision) -> None:
        for line in finals_lines(decision.finals, decision.winner.configuration.gate):
            self.watcher.step(line)

    @cached_property
    def _builder(self) -> ProgramBuilder:
        return self._builder_on(self.parts)

    def _builder_on(self, parts: Parts, candidates: Candidates | None = None) -> ProgramBuilder:
        return ProgramBuilder(parts, candidates, None if self.start is None else self.start.prompts)

    @cached_property
    def _uncompiled(self) -> Configuration:
        return uncompiled(self.settings.space)

    @cached_property
    def _before(self) -> Configuration:
        """What the winner is compared with: the uncompiled program, or the compiled one that it began with."""
        return self._uncompiled.model_copy(update={"gate": None if self.start is None else self.start.gate})

    @property
    def _families(self) -> dict[str, Configuration]:
        """The uncompiled program of each family, by its name."""
        return {name: self._uncompiled.model_copy(update={"family": name}) for name in self.settings.space.families}

    def _ask_ahead(self, planned: Sequence[PlannedScores]) -> None:
        if self.ahead is not None:
            self.ahead.ask(planned, self._scored)

    def _scores_of(self, planned: PlannedScores) -> list[UserScore]:
        scored = self._scored(planned.program(self._builder), planned.users)
        return score_cases(scored, planned.cases, self.objective, self.workers, self.watcher.score)

    def _distilled_items(self, cases: Sequence[Case]) -> int:
        """Most items that need new traits after MOTE's prompt changed."""
        distinct = len({item for case in cases for item in case.candidates})
        return min(distinct, len(cases) * (self.settings.head or distinct))

    def _scored(self, program: MLLM3Rec, cases: Sequence[Case], ledger: Ledger | None = None) -> ScoredProgram:
        interactions = self.settings.interactions if self.settings.weights.coherence else 0
        return ScoredProgram(program, next_users(cases), ledger or self.ledger, interactions)

    def _candidates(self) -> Candidates:
        path = self.directory / SEARCH_FOLDER / POOLS
        if path.exists():
            candidates = Candidates.load(path)
            plain = {name: self._builder.program(one) for name, one in self._families.items()}
            candidates.refuse_foreign(plain, path)
            return candidates
        self.ledger.phase = "pools"
        families, users = self._families, self.searched
        self._ask_ahead([PlannedScores(one, None, users, users) for one in families.values()])
        candidates = build_candidates(
            {name: self._scored(self._builder.program(one), users) for name, one in families.items()},
            self.searched,
            self.objective,
            self.settings.recipe,
            self.proposer,
            self.settings.modules,
            workers=self.workers,
            on_step=self.watcher.step,
            on_score=self.watcher.score,
        )
        candidates.save(path)
        return candidates

    def _unit(self) -> str:
        """Unit of the cost per user: dollars if the prices of all models of MOPE and MAR are known, else tokens."""
        roles: tuple[RoleName, ...] = ("mope", "mar")
        models = {self.settings.roles.of(role).model for role in roles}
        models |= {model for role in roles for model in self.settings.space.models.get(role, ())}
        return "usd" if models <= self.parts.backends.prices.models.keys() else "tokens"

    def _search_budget(self, budget: Budget) -> Budget:
        """The budget minus a reserve for the held-out check of the winner.

        Raises:
            InputError: if it is too small for that check, before anything is paid where the prompts tell so, else
                after the measured calls; not in a compile that has paid for something already.
        """
        if budget == Budget():
            return budget
        begun = self.ledger.total().calls > 0
        if not begun and (problem := check_unpaid(self.rehearse(), budget)) is not None:
            raise InputError(problem)
        phases = self.forecast()
        if not begun and (problem := check_unpaid(phases, budget)) is not None:
            raise InputError(problem)
        self._phases = phases
        checked = held_out_phase(phases).deducted_from(budget)
        reserved = finals_phase(phases).deducted_from(checked)
        # Without a finished trial there are no finalists: the search comes first.
        return reserved if search_is_paid(phases, reserved) else checked

    def _final_budget(self, budget: Budget) -> Budget:
        """The budget minus the reserve for the held-out check."""
        return held_out_phase(self._phases).deducted_from(budget) if self._phases else budget

    def _search(self) -> SearchResult:
        if self.settings.optimizer == "study":
            return self._optuna_search()
        return self._prototype_search() if self.settings.optimizer == "prototypes" else self._dspy_search()

    def _prototype_search(self) -> SearchResult:
        self.watcher.step("candidates for prototypes, and scores of all items with them")
        settings, tried = self.settings, self.settings.space.weights
        search = PrototypeSearch(
            self.parts,
            self.searched,
            self.final_users,
            self._uncompiled,
            settings.weights,
            settings.interactions if settings.weights.coherence else 0,
            settings.trials,
            settings.seed,
            TRIED_WEIGHTS if settings.fit_weight and len(tried) == 1 else tried,
        )
        return search.run(settings.finalists, self.watcher.step)

    def _optuna_search(self) -> SearchResult:
        search = Search(
            path=self.directory / SEARCH_FOLDER / STUDY,
            plan=SearchPlan(trials=self.settings.trials, seed=self.settings.seed, pareto=self.settings.pareto),
            space=self.settings.space,
            builder=self._builder_on(self.parts, self._candidates()),
            wrap=lambda program: self._scored(program, self.searched),
            cases=self.searched,
            objective=self.objective,
            unit=self._unit(),
            items=self._distilled_items(self.searched),
            workers=self.workers,
            retry_unparsable=self.parts.backends.retry_unparsable,
        )
        self.ledger.phase = "search"
        self.watcher.step("trials", self.settings.trials * len(self.searched))
        for attempt in search.attempts():
            self.watcher.attempt(attempt, search.best())
        stopped: str | None = None
        try:
            search.run(self.watcher.score, lambda attempt: self.watcher.attempt(attempt, search.best()))
        except BudgetExceededError as error:
            if self.ledger.stopped:
                raise
            stopped = str(error)
        attempts, importances = search.attempts(), importances_of(search.study)
        best = search.best()
        if best is None:
            if stopped is None and any(attempt.state == "COMPLETE" for attempt in attempts):
                raise InputError(UNREADABLE)
            raise BudgetExceededError(stopped or "no trial was completed")
        ranked = [(attempt, search.builder.prompts(attempt.configuration)) for attempt in search.readable()]
        return SearchResult(attempts, ranked, importances, stopped=stopped)

    def _dspy_search(self) -> SearchResult:
        self.ledger.phase = "search"
        total = self.settings.trials * len(self.searched)
        self.watcher.step(f"{self.settings.optimizer}: programs scored", total)
        program = self._scored(self._builder.program(self._uncompiled), self.searched)
        original = prompts_of(program.program)
        recorder = ScoreRecorder(self.objective, original, self.watcher.score)
        scores = score_cases(program, self.searched, self.objective, self.workers)
        if all(score.unreadable for score in scores):
            raise InputError(UNREADABLE)
        for case, score in zip(self.searched, scores, strict=True):
            recorder.record(original, case, score)
        run = partial(run_dspy_optimizer, program, self.searched, recorder, self.settings, self.proposer, self.workers)
        # In a thread of its own: an interruption would break off a call of the main thread, whose answer was paid.
        ((best, stopped),) = map_in_threads(lambda run: run(), [run], 1, self.ledger.stop)
        if unreadable := len(self.proposer.unreadable):
            self.watcher.step(f"{unreadable} proposed instructions could not be read and were left out")
        complete = recorder.complete(self.searched)
        attempts = [
            Attempt(number, "COMPLETE", self._uncompiled, tuple(scores)) for number, (_, scores) in enumerate(complete)
        ]
        programs = [(attempt, prompts) for attempt, (prompts, _) in zip(attempts, complete, strict=True)]
        # The optimizer's own choice first; the others are asked for only if it cannot be read.
        programs.sort(key=lambda one: (one[1] != best, -one[0].score))
        ranked = [one for one in programs if readable(one[0].scores)]
        if not ranked:
            raise InputError(UNREADABLE)
        return SearchResult(attempts, ranked, stopped=stopped)

    def _freeze(self, result: SearchResult) -> ArtifactManifest:
        """Check the winner on the held-out users, and write its artifact, trials and report."""
        self.ledger.phase = "held-out"
        self.watcher.step("rankings of held-out users", 2 * len(self.held_out))
        uncompiled = self._on_held_out(self._before)
        ranked = [self._on_held_out(one.configuration, safe_prompts(own)) for one, own in result.ranked]
        self._ask_ahead([uncompiled, ranked[0]])
        before = self._scores_of(uncompiled)
        for best, planned in zip(result.ranked, ranked, strict=True):
            after = self._scores_of(planned)
            if readable(after):
                break
            self.watcher.step(f"program {best[0].number}: no answer on held-out users could be read; the next best one")
        else:
            raise InputError(UNREADABLE)
        if best is not result.ranked[0] and result.finals is not None:
            # Weight and gate were fitted on the answers of the program that gave way.
            result = replace(result, finals=result.finals.model_copy(update={"fitted": None, "gate": None}))
        result = replace(result, ranked=[best])
        if unread := sum(score.unreadable for score in (*result.best.scores, *after)):
            users = f"{unread} of {len(result.best.scores) + len(self.held_out)} users"
            self.watcher.step(f"{users}: no answer of the models could be read; the prior alone ranks these users")
        verdict = self._verdict(before, after, result.best.configuration)
        original, winner = uncompiled.program(self._builder), planned.program(self._builder)
        checked = CheckedWinner(result, verdict, original, winner, after)
        if self.start is not None:
            checked = replace(checked, tuned=self.start.tuned, adapter=self.start.adapter)
        return self._frozen(checked)

    def _verdict(
        self, before: Sequence[UserScore], after: Sequence[UserScore], chosen: Configuration
    ) -> HoldoutVerdict:
        """Of the held-out check; the program before also with the winner's weight and gate, if they are other ones."""
        other = (chosen.weight, chosen.gate) != (self._before.weight, self._before.gate)
        weighed = all_at_weight(before, self.settings.weights, chosen.weight, chosen.gate) if other else None
        return compare_on_holdout(before, after, weighed)

    def _frozen(self, winner: CheckedWinner) -> ArtifactManifest:
        """Write the winner, with its trials and report."""
        roles = self._builder.roles(winner.result.best.configuration)
        spent = self.ledger.by_phase()
        return freeze(self.directory, self.settings, winner, roles, self._data(), spent, self._unit())

    def _on_held_out(self, configuration: Configuration, prompts: Prompts | None = None) -> PlannedScores:
        return PlannedScores(configuration, prompts, self.held_out, self.held_out)

    def _data(self) -> CompileData:
        fitted = self.settings.optimizer in ("finetune", "prototypes")
        before = None if self.start is None else self.start.data
        return CompileData.of(self.cases, [*self.searched, *self.final_users], self.held_out, before, fitted)
