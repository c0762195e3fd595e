"""A program on a dataset: profiles of users, traits of items, and recommendations from the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from evaluate.data.dataset import Dataset
from evaluate.ranker_choice import RankerChoice, named_models, refuse_ignored
from evaluate.ranker_factory import RankerFactory
from mllm3rec.api.options import Models, Schema, budget_of, model_options, read_schema, tighter
from mllm3rec.api.recommendation import Recommendations
from mllm3rec.api.recommender import Recommender, vectors_of
from optimize.artifact import ArtifactManifest, is_artifact
from optimize.resolve import ArtifactChoice, resolve_ranker
from programs.lm.backends import Backends
from programs.lm.ledger import Budget, Ledger
from programs.lm.model_options import Model, ModelOptions
from programs.mope import MOPE, GivenProfile, Purchase
from programs.mote import MOTE
from programs.prior.choice import prior_name
from programs.prior.encoders import Encoder
from programs.prior.prior import Prior
from programs.prior.prior_v2 import PriorV2
from programs.prior.retrieval import Retriever, retriever_of
from programs.program import DEFAULT_WEIGHT, Fusion, MLLM3Rec
from programs.runtime.errors import InputError, quoted
from programs.runtime.events import Note, OnEvent, ignore
from signatures.rows import Case, Ranking
from signatures.schema import MotivationSchema
from signatures.types import Interaction, Item, Profile, Traits

RETRIEVED = 30
"""Default number of candidates that the prior retrieves."""


@dataclass
class Program:
    """MOPE, MOTE and MAR on one dataset, composed by name or loaded from an artifact.

    The prior is fitted on all interactions of the dataset. `evaluate` fits it again, only on the training data of its
    cases.

    Attributes:
        choice: The composition or artifact, with its models, fusion and schema.
        dataset: Catalogue and histories.
        explain: Number of first items that `rank` explains; `recommend` explains all items that it returns.
        check: Whether the judge re-checks reasons.
        budget: Limits for all calls of this object, and of evaluations, attacks and compiles of it.
        on_event: Receives notes and progress.
        ledger_path: File that records every call; calls already in it count against the budget.
        retry_unparsable: Whether to ask again where a stored answer is unparsable.
        asking: Makes the backends that are asked from the usual ones.
    """

    choice: RankerChoice
    dataset: Dataset
    explain: int = 0
    check: bool = True
    budget: Budget = field(default_factory=Budget)
    on_event: OnEvent = ignore
    ledger_path: Path | None = None
    retry_unparsable: bool = False
    asking: Callable[[Backends], Backends] = lambda backends: backends
    _spent: dict[Path, tuple[float, int]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Dollars and calls in the ledgers of evaluations, attacks and compiles."""

    @property
    def name(self) -> str:
        """Name in results."""
        return self.choice.name

    @property
    def manifest(self) -> ArtifactManifest | None:
        """Manifest of a compiled program, with the held-out check; None for an uncompiled program."""
        return self.choice.manifest if isinstance(self.choice, ArtifactChoice) else None

    @cached_property
    def ledger(self) -> Ledger:
        """Ledger of all calls of this object."""
        return Ledger(self.ledger_path, self.budget)

    def budget_within(self, given: Budget, path: Path) -> Budget:
        """The budget of an evaluation, an attack or a compile of this object: within given limits and its own.

        Args:
            path: File of its ledger. What that holds already is not taken off here, because the ledger counts it.
        """
        spent = [self.ledger.spent(), *(sums for known, sums in self._spent.items() if known != path.absolute())]
        return tighter(given, self.budget.minus(*_sum(spent)))

    def count(self, ledger: Ledger) -> None:
        """Count what another ledger holds against the limits of this object."""
        if ledger.path is not None:
            self._spent[ledger.path.absolute()] = ledger.spent()
            self.ledger.budget = self.budget.minus(*_sum(self._spent.values()))

    def refuse_other(self, **options: object) -> None:
        """Refuse options of which this object has its own.

        Args:
            options: None for what was not given.

        Raises:
            InputError: naming one that was given, unless it is the same.
        """
        own: dict[str, object] = {
            "explain": self.explain,
            "check": self.check,
            "weight": self.choice.fusion.weight,
            "head": self.choice.fusion.head,
            "schema": self.choice.schema,
            "prior": self.choice.prior,
        }
        for name, value in options.items():
            if value is not None and value != own.get(name):
                raise InputError(f"{name}: a Program has its own; give {name} to mllm3rec.program(...) instead")

    @cached_property
    def module(self) -> MLLM3Rec:
        """The DSPy module, to call, save or optimize.

        Raises:
            InputError: if a model cannot be used, or an artifact is damaged.
        """
        return self._built(self._factory.explaining(self.explain))

    @property
    def prior(self) -> Prior | PriorV2:
        """The prior, fitted on all interactions of the dataset."""
        return self._factory.prior

    @property
    def encoder(self) -> Encoder:
        """The sentence encoder of the prior."""
        return self._factory.encoder

    @cached_property
    def retriever(self) -> Retriever:
        """Finds the prior's candidates from the whole catalogue, for many users at once."""
        return retriever_of(self.prior, list(self.dataset.items), self.on_event)

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of a case; see `programs.ranker.Ranker`."""
        with self.ledger.usage_of_case() as usage:
            ranking = self.module.rank(case)
        ranking.usage = usage
        return ranking

    def profile(
        self,
        history: Sequence[str | Item] | None = None,
        *,
        user: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Profile:
        """The motivation profile of a user, made by MOPE.

        Args:
            history: Item ids, free texts or items, oldest first.
            user: Id of a user of the dataset, instead of a history; all interactions are used.
            metadata: Facts about the user (age, region, ...); None for those of the dataset.

        Raises:
            InputError: if history and user are both given or both missing, or the program has no MOPE.
            UnparsableError: if the model's answers could not be read.
        """
        purchases, _, facts = self._purchases(history, user, metadata)
        mope = self.module.shopper
        if not isinstance(mope, MOPE):
            raise InputError(f"{self.name}: this program has no MOPE, so it cannot make profiles")
        found: Profile = mope(history=purchases, metadata=facts).profile
        return found

    def traits(self, item: str | Item) -> Traits:
        """The motivational traits of an item (its id, a free text or an `Item`), made by MOTE.

        Raises:
            InputError: if the program has no MOTE.
            UnparsableError: if the model's answers could not be read.
        """
        mote = self.module.product
        if not isinstance(mote, MOTE):
            raise InputError(f"{self.name}: this program has no MOTE, so it cannot make traits")
        found: Traits = mote(item=self._item(item)).traits
        return found

    def recommend(
        self,
        history: Sequence[str | Item] | None = None,
        *,
        user: str | None = None,
        k: int = 5,
        candidates: int = RETRIEVED,
        explain: bool = True,
        metadata: Mapping[str, str] | None = None,
        profile: Profile | None = None,
    ) -> Recommendations:
        """The k best items of the whole catalogue that the user does not have yet, with checked reasons.

        The prior retrieves candidates, and the program ranks them.

        Args:
            history, user, metadata: See `profile`.
            k: Number of items to return, at least 1.
            candidates: Number of items that the prior retrieves, at least k.
            explain: Whether each returned item gets a reason.
            profile: Used instead of the one that MOPE would infer, for example an edited one.

        Raises:
            InputError: if history and user are both given or both missing, there is no such user, or a profile is
                given to a program without MOPE.
            BudgetExceededError: before a call that might exceed the budget.
        """
        purchases, known, facts = self._purchases(history, user, metadata)
        unlisted = {item.item_id: item for item, _ in purchases if item.item_id not in self.dataset.items}
        recommender = self.built(k, candidates, explain, unlisted)
        if profile is not None:
            if not isinstance(recommender.module.shopper, MOPE):
                raise InputError(f"{self.name}: this program has no MOPE, so it cannot read a profile")
            recommender.module.shopper = GivenProfile(profile)
        return recommender.recommend(user or "you", purchases, known, facts)

    def recommender(
        self, k: int, candidates: int = RETRIEVED, explain: bool = True
    ) -> Callable[[str], Recommendations]:
        """`recommend` for many users of the dataset: a function of the user's id, with a program that is built once.

        Raises:
            InputError: if k is not between 1 and the number of candidates, or a model cannot be used.
        """
        # Without what happens inside each user, which is for one user alone.
        recommender = replace(self.built(k, candidates, explain), on_event=ignore)

        return lambda user: recommender.recommend(user, *self._purchases(None, user, None))

    def built(
        self, k: int, candidates: int = RETRIEVED, explain: bool = True, unlisted: Mapping[str, Item] | None = None
    ) -> Recommender:
        """The program, built once for users of whom more is given than an id.

        Args:
            k, candidates, explain: See `recommend`.
            unlisted: Items of histories that are not in the catalogue, by id.

        Raises:
            InputError: if k is not between 1 and the number of candidates, or a model cannot be used.
        """
        if not 1 <= k <= candidates:
            raise InputError(f"k is {k}: it must lie between 1 and the number of candidates, {candidates}")
        module, items = self._built(self._factory.explaining(k if explain else 0)), self.dataset.items
        built = Recommender(module, self.retriever, self.dataset, items, self.ledger, k, candidates, self.on_event)
        return built.beside(unlisted, vectors_of(unlisted, self.encoder)) if unlisted else built

    @cached_property
    def _factory(self) -> RankerFactory:
        factory = RankerFactory.create(
            self.dataset,
            self.dataset.sequences,
            self.choice.roles,
            self.ledger,
            schema=self.choice.schema,
            fusion=self.choice.fusion,
            check=self.check,
            prior=self.choice.prior,
            given=self.choice.given,
            retry_unparsable=self.retry_unparsable,
            on_event=self.on_event,
        )
        asked = self.asking(factory.backends_of())
        factory.backends_of = lambda: asked
        return factory

    def _built(self, factory: RankerFactory) -> MLLM3Rec:
        built = self.choice.build(factory)
        assert isinstance(built, MLLM3Rec)  # noqa: S101 - `program` refuses what asks no model
        return built

    def _item(self, item: str | Item) -> Item:
        if isinstance(item, Item):
            return item
        if item in self.dataset.items:
            return self.dataset.items[item]
        if not item.strip():
            raise InputError("an item is empty: give an item id or a free text")
        self.on_event(Note(f"{item!r} is not an item id of {self.dataset.name}, so it is read as a free text"))
        return Item.from_text(item)

    def _purchases(
        self, history: Sequence[str | Item] | None, user: str | None, metadata: Mapping[str, str] | None
    ) -> tuple[list[Purchase], list[str], Mapping[str, str]]:
        """Purchases, their item ids, and the user's metadata."""
        if (history is None) == (user is None):
            raise InputError("give either a history or a user of the dataset")
        if user is not None:
            if user not in self.dataset.sequences:
                users = self.dataset.sequences
                raise InputError(
                    f"no user {quoted(user)} in dataset {self.dataset.name!r} ({len(users)} users, such as "
                    f"{quoted(next(iter(users)))})"
                )
            known = [event.item_id for event in self.dataset.sequences[user]]
            facts = self.dataset.metadata.get(user, {}) if metadata is None else metadata
            return self.dataset.purchases(user), known, facts
        if isinstance(history, str) or not history:
            raise InputError("the history is empty or a single text: give a list of item ids, free texts or items")
        items = [self._item(entry) for entry in history]
        purchases = [(item, Interaction(item_id=item.item_id)) for item in items]
        return purchases, [item.item_id for item in items], metadata or {}


def program(
    name: str,
    dataset: Dataset,
    *,
    preset: str | None = None,
    model: Model | None = None,
    mope: Model | None = None,
    mote: Model | None = None,
    mar: Model | None = None,
    judge: Model | None = None,
    timeout: float | None = None,
    max_tokens: int | None = None,
    schema: Schema | None = None,
    weight: float | None = None,
    head: int | None = None,
    prior: str | None = None,
    explain: int = 0,
    check: bool = True,
    budget_usd: float | None = None,
    max_calls: int | None = None,
    max_minutes: float | None = None,
    ledger: Path | None = None,
    retry_unparsable: bool = False,
    on_event: OnEvent = ignore,
) -> Program:
    """A program by name (`listwise`, `pointwise`, `embedding` or an ablation), or the artifact in a folder.

    Args:
        dataset: Catalogue and histories.
        preset: Models of all roles: `local`, `hosted`, `hosted-cheap` or `paper`; `local` unless DSPy was configured
            with a model.
        model: Model of every role: a model string (docs/models.md) or a `dspy.LM`.
        mope, mote, mar, judge: Model of one role.
        timeout, max_tokens: Most seconds of one call, and most tokens of one answer, for every role.
        schema: Motivational schema, or its TOML or YAML file; None for the consumer schema.
        weight: Fusion weight: the share of MAR in the fused score, 0 to 1; the rest is the prior's. None for .3, or
            that of an artifact.
        head: MAR ranks only the prior's first `head` candidates; None for all, or those of an artifact.
        prior: Formula of the prior, see `evaluate`; None for the newest, or that of the artifact.
        explain: Number of first items that get a reason in an evaluation.
        check: Whether the judge re-checks reasons.
        budget_usd, max_calls, max_minutes: Most dollars, model calls and minutes of this object, and of evaluations,
            attacks and compiles of it; None for no limit.
        ledger: File that records every call; calls already in it count against the budget. Evaluations, attacks and
            compiles have ledgers of their own.
        retry_unparsable: Whether to ask again where a stored answer is unparsable.
        on_event: Receives notes and progress.

    Raises:
        InputError: if there is no such program, preset or prior, an artifact has another prior, the schema cannot be
            read, or an option is given that the program would ignore.
    """
    models = Models(
        preset=preset, model=model, mope=mope, mote=mote, mar=mar, judge=judge, timeout=timeout, max_tokens=max_tokens
    )
    fusion = Fusion(weight=DEFAULT_WEIGHT if weight is None else weight, head=head)
    choice = choice_of(name, model_options(models), fusion, read_schema(schema))
    if prior is not None:
        choice = choice.with_prior(prior_name(prior))
    if not choice.asks_models:
        raise InputError(f"{name!r} uses no language model: call evaluate(cases, {name!r}) instead")
    refuse_ignored([choice.options_read], weight=weight, explain=explain or None, **named_models(models))
    budget = budget_of(budget_usd, max_calls, max_minutes)
    return Program(choice, dataset, explain, check, budget, on_event, ledger, retry_unparsable)


def load_artifact(
    path: str | Path,
    dataset: Dataset,
    *,
    model: Model | None = None,
    mope: Model | None = None,
    mote: Model | None = None,
    mar: Model | None = None,
    judge: Model | None = None,
    timeout: float | None = None,
    max_tokens: int | None = None,
    explain: int = 0,
    check: bool = True,
    budget_usd: float | None = None,
    max_calls: int | None = None,
    max_minutes: float | None = None,
    on_event: OnEvent = ignore,
) -> Program:
    """Load a compiled program and check its hashes and signatures.

    Args:
        path: Folder of the artifact.
        dataset: Catalogue and histories.
        model, mope, mote, mar, judge: Replace the models that it was compiled with.
        timeout, max_tokens, explain, check, budget_usd, max_calls, max_minutes, on_event: As in `program`.

    Raises:
        InputError: if there is no artifact, it is damaged, or it names a server that you must confirm.
    """
    if not is_artifact(Path(path)):
        raise InputError(f"{path}: this folder has no artifact; compile a program into it first")
    options = ModelOptions("local", model, mope, mote, mar, judge, timeout, max_tokens)
    choice = resolve_ranker(str(path), options, Fusion())
    return Program(choice, dataset, explain, check, budget_of(budget_usd, max_calls, max_minutes), on_event)


def _sum(spent: Iterable[tuple[float, int]]) -> tuple[float, int]:
    dollars, calls = zip(*spent, strict=True)
    return sum(dollars), sum(calls)


def choice_of(name: str, options: ModelOptions | None, fusion: Fusion, schema: MotivationSchema | None) -> RankerChoice:
    """The ranker of a name; without options it asks the model of `dspy.configure` directly.

    Raises:
        InputError: if there is no such ranker, or its artifact cannot be read.
    """
    choice = resolve_ranker(name, options or ModelOptions(), fusion, schema)
    return replace(choice, roles=None) if options is None and choice.asks_models else choice
