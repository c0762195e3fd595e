"""Factory of rankers by name: baselines, trained baselines and programs on one dataset and its training data."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import dspy
import numpy as np
from numpy.typing import NDArray

from evaluate.baselines import TRAINED, Baseline, TrainingData
from evaluate.baselines.baseline import LARGEST_SEED
from evaluate.baselines.fit_cost import FitCost, fit_and_measure
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.data.dataset import Dataset
from evaluate.data.demo.planted_truth import PLANTED_TRUTH, PlantedTruth
from evaluate.protocol.nobody_first import NOBODY_FIRST, NobodyHasItFirst
from evaluate.protocol.protocol import EvaluationProtocol
from programs.batch.run import BatchRun
from programs.lm.ambient import AmbientBackends
from programs.lm.backends import Backends
from programs.lm.ledger import Ledger
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import Roles
from programs.mar import Rerank
from programs.mote import MOTE
from programs.motivation_encoder import MotivationEncoder
from programs.prior.choice import NEWEST, PriorName, fit_prior
from programs.prior.default_encoder import default_encoder
from programs.prior.encoders import Encoder
from programs.prior.prior import Prior
from programs.prior.prior_v2 import PriorV2
from programs.prior.score_ranker import ScoreRanker
from programs.prior.scorers import ContentSimilarity, Histories, ItemKNN, Popularity, Scorer, Training, histories_of
from programs.program import PROGRAMS, Fusion, MLLM3Rec, Parts
from programs.ranker import Ranker
from programs.role_predictor import RolePredictor
from programs.runtime.environment import cache_dir
from programs.runtime.errors import InputError, nearest_name, quoted
from programs.runtime.events import OnEvent, ignore
from programs.trait_likelihood import TraitLikelihood
from programs.trait_store import TraitStore
from signatures.rows import seed_of
from signatures.schema import CONSUMER, MotivationSchema

BASELINES = ("random", "popularity", "knn", "content", "prior", NOBODY_FIRST)


def require_known(name: str) -> None:
    """Check that there is a ranker of that name, before anything is loaded.

    Raises:
        InputError: naming the rankers there are.
    """
    names = (*BASELINES, *TRAINED, *PROGRAMS, PLANTED_TRUTH)
    if name not in names:
        if "/" in name:
            raise InputError(f"{quoted(name)} is no folder of an artifact: compile one there, or name a ranker")
        hint = nearest_name(name, names)
        raise InputError(f"no ranker {name!r}{hint} Choose one of {', '.join(names)}, or the folder of an artifact")


class Random:
    """Random scores, drawn per history and candidate list: the baseline at chance level."""

    def scores(self, history: Sequence[str], candidates: Sequence[str]) -> NDArray[np.float64]:
        """See `programs.prior.scorers.Scorer`."""
        return np.random.default_rng(seed_of("random", *history, *candidates)).random(len(candidates))


@dataclass
class RankerFactory:
    """Builds rankers; each part is made when first needed.

    Attributes:
        dataset: Catalogue and interactions.
        training: Interactions before every user's target (`Split.training`).
        encoder_of: Makes the sentence encoder, for content-based rankers.
        backends_of: Makes the language models, for programs.
        traits_of: Makes the trait store, for programs.
        prior_name: Formula of the prior.
        protocol: That of the cases to rank, for trained baselines; see `TrainingData`.
        fitting: Where fits of trained baselines are kept.
        fit_cost: Of the last trained baseline; None before there is one, or if it is not known.
    """

    dataset: Dataset
    training: Training
    encoder_of: Callable[[], Encoder]
    backends_of: Callable[[], Backends]
    traits_of: Callable[[], TraitStore]
    schema: MotivationSchema = CONSUMER
    fusion: Fusion = field(default_factory=Fusion)
    explain: int = 0
    check: bool = True
    prior_name: PriorName = NEWEST
    protocol: EvaluationProtocol | None = None
    fitting: Fitting = UNKEPT
    fit_cost: FitCost | None = field(default=None, init=False)

    @classmethod
    def create(
        cls,
        dataset: Dataset,
        training: Training,
        roles: Roles | None = None,
        ledger: Ledger | None = None,
        *,
        schema: MotivationSchema = CONSUMER,
        fusion: Fusion | None = None,
        explain: int = 0,
        check: bool = True,
        prior: PriorName | None = None,
        protocol: EvaluationProtocol | None = None,
        beside: Backends | None = None,
        given: Mapping[str, dspy.LM] | None = None,
        batch: BatchRun | None = None,
        retry_unparsable: bool = False,
        on_event: OnEvent = ignore,
    ) -> RankerFactory:
        """A factory on this machine's encoder, response cache and trait store.

        Args:
            training: Interactions before every user's target (`Split.training`).
            roles: Models of the programs; None uses the model of `dspy.configure`.
            prior: Formula of the prior; None: the newest.
            protocol: That of the cases to rank, for trained baselines; see `TrainingData`.
            beside: Backends of other runs in this process, to share their rate limits.
            given: `dspy.LM` objects by model string, see `ModelOptions`.
            batch: Records the calls for batches; None to send each by itself.
            retry_unparsable: Whether programs ask again where a stored answer is unparsable.
            on_event: Told when texts are embedded, a model is loaded, or a cache cannot be used.
        """

        @cache
        def backends() -> Backends:
            use_response_cache(cache_dir() / "calls.sqlite", on_event)
            made = new_backends()
            made.retry_unparsable = retry_unparsable
            return made

        def new_backends() -> Backends:
            if batch is not None:
                return batch.backends(roles)
            if roles is None:
                return AmbientBackends()
            if beside is not None:
                return beside.with_roles(roles, ledger, given)
            return Backends(roles, ledger, given=given, on_event=on_event)

        return cls(
            dataset=dataset,
            training=training,
            encoder_of=lambda: default_encoder(on_event, ledger),
            backends_of=backends,
            traits_of=cache(lambda: TraitStore(cache_dir() / "traits.sqlite", on_event)),
            schema=schema,
            fusion=fusion or Fusion(),
            explain=explain,
            check=check,
            prior_name=prior or NEWEST,
            protocol=protocol,
            fitting=Fitting(cache_dir() / "fits", on_event),
        )

    def explaining(self, k: int) -> RankerFactory:
        """A copy whose programs explain the first k items; parts made already are shared."""
        other = copy.copy(self)
        other.explain = k
        return other

    @cached_property
    def histories(self) -> Histories:
        """Item ids of the training data by user."""
        return histories_of(self.training)

    @cached_property
    def encoder(self) -> Encoder:
        """The sentence encoder."""
        return self.encoder_of()

    @cached_property
    def content(self) -> ContentSimilarity:
        """Content similarity over every item that has a text."""
        items = [item for item in self.dataset.items.values() if item.text]
        vectors = self.encoder.encode([item.text for item in items])
        return ContentSimilarity.of([item.item_id for item in items], vectors)

    @cached_property
    def prior(self) -> Prior | PriorV2:
        """The training-free prior."""
        return fit_prior(self.prior_name, self.training, self.content)

    @cached_property
    def training_data(self) -> TrainingData:
        """The data of trained baselines."""
        return TrainingData(
            self.training,
            self.dataset.items,
            self.dataset.metadata,
            self.content,
            self.protocol,
            self.motivations,
            lambda: self.stored_traits,
        )

    @cached_property
    def stored_traits(self) -> Mapping[str, str]:
        """Stored traits of the model that is named for MOTE, as texts by item; empty if none is. No model is asked."""
        backends = self.backends_of()
        if isinstance(backends, AmbientBackends):
            return {}
        mote = MOTE(backends, self.traits_of())
        found = {item.item_id: mote.stored(item) for item in self.dataset.items.values() if item.text}
        return {item: text for item, text in found.items() if text}

    def model_of_traits(self, settings: Baseline | None) -> dict[str, Any]:
        """Whose stored traits a trained baseline reads, for the configuration in a manifest; empty if nobody's."""
        if settings is None or not settings.reads_traits:
            return {}
        backends = self.backends_of()
        if isinstance(backends, AmbientBackends):
            return {}
        return {"traits": {"model": backends.known_as("mote")}}

    def fitted_with(self, settings: Baseline | None) -> dict[str, Any]:
        """What a trained baseline was fitted with, for the configuration in a manifest, where it is not compared.

        Hardware, and number and hash of the stored traits that it reads; empty for other rankers.
        """
        if settings is None:
            return {}
        found = settings.hardware()
        if self.model_of_traits(settings):
            texts = json.dumps(sorted(self.stored_traits.items()))
            sha256 = hashlib.sha256(texts.encode()).hexdigest()
            found["traits"] = f"{len(self.stored_traits):,} items, sha256 {sha256[:16]}"
        return {"fitted_with": found}

    @cached_property
    def motivations(self) -> MotivationEncoder:
        """Leanings of items, computed when first needed."""
        return MotivationEncoder(self.encoder, self.schema, self.dataset.items)

    def scorer(self, name: str) -> Scorer:
        """The scorer of an untrained baseline."""
        if name == "random":
            return Random()
        if name == NOBODY_FIRST:
            return NobodyHasItFirst(Popularity.fit(self.histories).counts)
        if name == "popularity":
            return Popularity.fit(self.histories)
        if name == "knn":
            return ItemKNN.fit(self.histories)
        return self.content if name == "content" else self.prior

    def ranker(self, name: str, seed: int = 0, settings: Baseline | None = None) -> Ranker:
        """The ranker of that name.

        Args:
            seed: Training seed of a trained baseline.
            settings: Of a trained baseline; None for the default.

        Raises:
            InputError: if there is no such ranker, the seed is too large, or the model of a role cannot be used.
            MissingExtraError: if the library of a trained baseline is not installed.
        """
        require_known(name)
        if name == PLANTED_TRUTH:
            return self._planted_truth()
        if name in BASELINES:
            return ScoreRanker(name, self.scorer(name))
        if name in TRAINED:
            if not 0 <= seed <= LARGEST_SEED:
                raise InputError(f"seed {seed}: give one from 0 to {LARGEST_SEED:,}")
            settings = settings or TRAINED[name]()
            ranker, self.fit_cost = fit_and_measure(settings, self.training_data, seed, self.fitting)
            return ranker
        return askable(PROGRAMS[name](self.parts()))

    def _planted_truth(self) -> Ranker:
        if self.dataset.source != "demo":
            raise InputError(f"{PLANTED_TRUTH}: only the demo store has planted motivations, not {self.dataset.name!r}")
        return PlantedTruth(self.prior, self.fusion, Popularity.fit(self.histories).counts)

    def parts(self) -> Parts:
        """The parts of programs."""
        return Parts(
            backends=self.backends_of(),
            catalogue=self.dataset.items,
            prior=self.prior,
            encoder=self.encoder,
            traits=self.traits_of(),
            schema=self.schema,
            fusion=self.fusion,
            explain=self.explain,
            check=self.check,
            histories=self.histories,
        )


def askable(program: MLLM3Rec) -> MLLM3Rec:
    """The program itself, after a check that the models of all its roles can be used.

    Raises:
        InputError: naming what is missing.
    """
    for kind in (RolePredictor, Rerank, TraitLikelihood):
        for _, predictor in program.named_sub_modules(kind):
            predictor.backends.require(predictor.role)
    return program
