"""Search over prototypes of the program `encoder`: thousands of trials a minute, scored from precomputed matrices.

A trial asks neither a language model nor the encoder. The users that drive the search are not those that choose the
winner among its best trials: the first of thousands of trials is first by luck, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import optuna

from optimize.finals import Finalist, Finals
from optimize.fusion_fit import TRIED_WEIGHTS
from optimize.learned_prototypes import learn_prototypes
from optimize.objective import ObjectiveWeights
from optimize.prototype_candidates import wordings, worked_examples
from optimize.prototype_table import PrototypeTable, Ranks
from optimize.search import Attempt, by_merit, merit
from optimize.search_result import SearchResult
from optimize.space import Configuration
from programs.program import Parts
from programs.prototypes import Prototypes
from signatures.rows import Case

TUNED_PROGRAM = "encoder"
"""The only program that has prototypes."""

FACTORS = (1.0, 0.0, 0.5, 2.0)
"""What the weight of a dimension is multiplied by; 0 leaves it out."""

TEMPERATURES = ("none", 3.0, 1.0, 0.3)
_POPULATION = 50

Parameters = dict[str, Any]
Key = tuple[tuple[str, Any], ...]


@dataclass
class PrototypeSearch:
    """A search by a genetic algorithm (Optuna's NSGA-II) over prototypes, weights, temperature and fusion weight.

    Trial 0 is the uncompiled program; the trials after it have one kind of prototype for all dimensions.

    Args:
        searched: Dev users that drive the search.
        final_users: Dev users that choose among the best trials; may be empty.
        uncompiled: Configuration of trial 0.
        weights: The objective.
        interactions: See `PrototypeTable`.
        tried_weights: Fusion weights to choose from.
    """

    parts: Parts
    searched: Sequence[Case]
    final_users: Sequence[Case]
    uncompiled: Configuration
    weights: ObjectiveWeights
    interactions: int
    trials: int
    seed: int
    tried_weights: Sequence[float] = TRIED_WEIGHTS
    options: list[Prototypes] = field(init=False)
    table: PrototypeTable = field(init=False)

    def __post_init__(self) -> None:
        self.options = candidate_prototypes(self.parts, self.seed)
        users = [*self.searched, *self.final_users]
        self.table = PrototypeTable(users, self.parts, self.options, self.weights, self.interactions)

    def run(self, finalists: int, on_step: Callable[[str], None]) -> SearchResult:
        """Make the trials and choose the winner among the uniform trials and the `finalists` best others.

        Args:
            finalists: 0 chooses by the users of the search.
            on_step: Told the pace of the trials.
        """
        started = time.monotonic()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = optuna.samplers.NSGAIISampler(population_size=_POPULATION, seed=self.seed)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        uniform = len(self.options)
        for option in range(uniform):
            study.enqueue_trial(self._uniform(option))
        known: dict[Key, float] = {}

        def value(trial: optuna.Trial) -> float:
            parameters = self._suggest(trial)
            key = _key(parameters)
            if key not in known:
                known[key] = self._mean_score(parameters)
            return known[key]

        study.optimize(value, n_trials=max(self.trials, uniform))
        trials = study.get_trials(deepcopy=False)
        first_of = {_key(trial.params): trial for trial in reversed(trials)}
        best = sorted(first_of.values(), key=lambda trial: (-(trial.value or 0.0), trial.number))
        others = [trial.number for trial in best if trial.number >= uniform][: max(1, finalists)]
        chosen = [self._attempt(number, trials[number].params) for number in (*range(uniform), *others)]
        seconds = time.monotonic() - started
        pace = 60 * len(known) / seconds
        on_step(f"{len(trials)} trials, {len(known)} of them different, in {seconds:.0f} s: {pace:.0f} a minute")
        result = self._decided(chosen, by_final_users=finalists > 0 and bool(self.final_users))
        return replace(result, tried=len(trials))

    @property
    def _drive(self) -> slice:
        return slice(0, len(self.searched))

    def _uniform(self, option: int) -> Parameters:
        """One kind of prototype for all dimensions, the other settings as in the uncompiled program."""
        dimensions = self.parts.schema.names
        return {
            **{_kind(name): self.options[option].prototypes[0].label for name in dimensions},
            **{_factor(name): 1.0 for name in dimensions},
            "temperature": TEMPERATURES[0],
            "fusion_weight": min(self.tried_weights, key=lambda weight: abs(weight - self.uncompiled.weight)),
        }

    def _suggest(self, trial: optuna.Trial) -> Parameters:
        labels = [option.prototypes[0].label for option in self.options]
        parameters: Parameters = {}
        for name in self.parts.schema.names:
            parameters[_kind(name)] = trial.suggest_categorical(_kind(name), labels)
            parameters[_factor(name)] = trial.suggest_categorical(_factor(name), FACTORS)
        parameters["temperature"] = trial.suggest_categorical("temperature", TEMPERATURES)
        parameters["fusion_weight"] = trial.suggest_categorical("fusion_weight", self.tried_weights)
        return parameters

    def _ranks(self, configuration: Configuration) -> tuple[Ranks, Ranks]:
        own = configuration.prototypes or self.options[0]
        labels = [option.prototypes[0].label for option in self.options]
        chosen = [labels.index(one.label) for one in own.prototypes]
        return self.table.ranks(self.table.mar(chosen, own.weights, own.temperature), configuration.weight)

    def _mean_score(self, parameters: Parameters) -> float:
        if not any(parameters[_factor(name)] for name in self.parts.schema.names):
            return 0.0
        return self.table.mean_scores(self._ranks(self._configuration(parameters)), self._drive)

    def _configuration(self, parameters: Parameters) -> Configuration:
        options = {option.prototypes[0].label: option for option in self.options}
        chosen = []
        for place, name in enumerate(self.parts.schema.names):
            one = options[str(parameters[_kind(name)])].prototypes[place]
            chosen.append(one.model_copy(update={"weight": one.weight * float(parameters[_factor(name)])}))
        temperature = parameters["temperature"]
        prototypes = Prototypes(
            prototypes=tuple(chosen),
            temperature=None if isinstance(temperature, str) else temperature,
            encoder=self.parts.encoder.name if any(one.vector for one in chosen) else "",
        )
        return Configuration(family=TUNED_PROGRAM, weight=float(parameters["fusion_weight"]), prototypes=prototypes)

    def _attempt(self, number: int, parameters: Parameters) -> Attempt:
        configuration = self._configuration(parameters) if number else self.uncompiled
        scores = self.table.user_scores(self._ranks(configuration), self._drive)
        return Attempt(number, "COMPLETE", configuration, scores)

    def _decided(self, attempts: Sequence[Attempt], by_final_users: bool) -> SearchResult:
        if not by_final_users:
            ranked = sorted(attempts, key=by_merit, reverse=True)
            return SearchResult(attempts, [(attempt, {}) for attempt in ranked])
        unseen = slice(len(self.searched), len(self.searched) + len(self.final_users))
        means = {
            one.number: float(
                np.mean([s.score for s in self.table.user_scores(self._ranks(one.configuration), unseen)])
            )
            for one in attempts
        }
        ranked = sorted(attempts, key=lambda one: merit(one.number, means[one.number], 0.0), reverse=True)
        entries = [
            Finalist(
                trial=one.number,
                searched=one.score,
                by_draw=(means[one.number],),
                score=means[one.number],
                prompt_tokens=0.0,
            )
            for one in ranked
        ]
        n = len(self.final_users)
        finals = Finals(users=n, new_users=n, finalists=tuple(entries))
        return SearchResult(attempts, [(attempt, {}) for attempt in ranked], finals=finals)


def candidate_prototypes(parts: Parts, seed: int) -> list[Prototypes]:
    """The candidates, each for all dimensions; the definitions first."""
    by_words = wordings(parts.schema)
    sold = {item for own in parts.histories.values() for item in own}
    learned = learn_prototypes(by_words[0], parts.encoder, parts.catalogue, parts.histories, seed)
    examples = worked_examples(by_words[0], parts.encoder, parts.catalogue, sold)
    return [*by_words, *examples, *([] if learned is None else [learned])]


def _kind(dimension: str) -> str:
    return f"{dimension}_prototype"


def _factor(dimension: str) -> str:
    return f"{dimension}_weight"


def _key(parameters: Parameters) -> Key:
    return tuple(sorted(parameters.items()))
