"""A program on a dataset: profiles of users, traits of items, and recommendations from the whole catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from evaluate.data.dataset import Dataset
from evaluate.ranker_choice import RankerChoice
from evaluate.ranker_factory import RankerFactory
from mllm3rec.api.options import Models, Schema, budget_of, model_options, read_schema
from mllm3rec.api.recommendation import Recommendations, recommendations
from optimize.artifact import ArtifactManifest, is_artifact
from optimize.resolve import ArtifactChoice, resolve_ranker
from programs.copies import Examples
from programs.lm.ledger import Budget, Ledger
from programs.lm.model_options import Model, ModelOptions
from programs.mope import MOPE, Purchase
from programs.mote import MOTE
from programs.prior.retrieval import retrieve
from programs.program import DEFAULT_WEIGHT, Fusion, MLLM3Rec
from programs.runtime.errors import InputError, quoted
from programs.runtime.events import Note, OnEvent, ignore
from signatures.rows import Case, Ranking
from signatures.schema import MotivationSchema
from signatures.types import Interaction, Item, Profile, Traits

RETRIEVED = 30
"""Items the prior retrieves for MAR to judge, unless asked otherwise."""


@dataclass
class Program:
    """MOPE, MOTE and MAR on one dataset, composed by name or loaded from an artifact.

    Nothing is held out: the prior is fitted on every interaction of the dataset. `evaluate` builds the program anew on
    what may be learned under the protocol of its cases.

    Attributes:
        choice: What is run: composition or artifact, models, fusion, schema.
        dataset: Catalogue and histories.
        explain: Items that `rank` explains; `recommend` explains all it returns.
        check: Whether the judge re-checks reasons.
        budget: Limits on what all calls of this object cost.
        ledger_path: File that gets every call; its calls count for the budget.
    """

    choice: RankerChoice
    dataset: Dataset
    explain: int = 0
    check: bool = True
    budget: Budget = field(default_factory=Budget)
    on_event: OnEvent = ignore
    ledger_path: Path | None = None

    @property
    def name(self) -> str:
        """What results call it."""
        return self.choice.name

    @property
    def manifest(self) -> ArtifactManifest | None:
        """How it was compiled and what the held-out check said; None where it was not compiled."""
        return self.choice.manifest if isinstance(self.choice, ArtifactChoice) else None

    @cached_property
    def ledger(self) -> Ledger:
        """Every call this object made."""
        return Ledger(self.ledger_path, self.budget)

    @cached_property
    def module(self) -> MLLM3Rec:
        """The DSPy module, ready to call, save or optimize.

        Raises:
            InputError: if a role cannot be asked, or an artifact is damaged.
        """
        return self._built(self._factory.explaining(self.explain))

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
        """The motivation profile of a user: MOPE alone.

        Args:
            history: Item ids, free texts or items, oldest first; or
            user: a user of the dataset, with all of their interactions.
            metadata: Facts about the user (age, region, ...); those of the dataset unless given.

        Raises:
            InputError: if neither or both are given, or the program has no MOPE.
            UnparsableError: if no profile could be read from the model's answers.
        """
        purchases, _, facts = self._purchases(history, user, metadata)
        mope = self.module.shopper
        if not isinstance(mope, MOPE):
            raise InputError(f"{self.name}: has no MOPE, so it makes no profiles")
        found: Profile = mope(history=purchases, metadata=facts).profile
        return found

    def traits(self, item: str | Item) -> Traits:
        """The motivational traits of an item: MOTE alone.

        Args:
            item: An item id, a free text or an item.

        Raises:
            InputError: if the program has no MOTE.
            UnparsableError: if no traits could be read from the model's answers.
        """
        mote = self.module.product
        if not isinstance(mote, MOTE):
            raise InputError(f"{self.name}: has no MOTE, so it makes no traits")
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
    ) -> Recommendations:
        """The k best items of the whole catalogue that the user does not have yet, with checked reasons.

        The prior retrieves candidates, the program ranks them; see `profile` for how a user is given.

        Args:
            k: Items returned, 1 or more.
            candidates: Items the prior retrieves for MAR, at least k.
            explain: Whether each gets a reason.

        Raises:
            InputError: if neither or both of history and user are given, or there is no such user.
            BudgetExceededError: before a call that would pass the budget.
        """
        if not 1 <= k <= candidates:
            raise InputError(f"k is {k}: it must lie between 1 and the number of candidates, {candidates}")
        purchases, known, facts = self._purchases(history, user, metadata)
        unlisted = {item.item_id: item for item, _ in purchases if item.item_id not in self.dataset.items}
        factory = self._factory
        if unlisted:
            factory = self._factory_on(replace(self.dataset, items=self.dataset.items | unlisted))
        module = self._built(factory.explaining(k if explain else 0))
        retrieved = retrieve(module.prior.value, known, list(self.dataset.items), candidates)
        if not retrieved:
            raise InputError(
                f"{user or 'this history'} has every item of {self.dataset.name!r}: none is left to recommend"
            )
        self.on_event(
            Note(
                f"the prior retrieved {len(retrieved)} candidates of {len(self.dataset.items)} items; asking the models"
            )
        )
        events = tuple(event for _, event in purchases)
        case = Case(user_id=user or "you", history=events, candidates=retrieved, metadata=dict(facts))
        with self.ledger.usage_of_case() as usage:
            ranking = module.rank(case, self.on_event)
        ranking.usage = usage
        return recommendations(ranking, case, self.dataset.items | unlisted, k, Examples.of(module))

    @cached_property
    def _factory(self) -> RankerFactory:
        return self._factory_on(self.dataset)

    def _factory_on(self, dataset: Dataset) -> RankerFactory:
        return RankerFactory.create(
            dataset,
            self.dataset.histories,
            self.choice.roles,
            self.ledger,
            schema=self.choice.schema,
            fusion=self.choice.fusion,
            check=self.check,
            given=self.choice.given,
            on_event=self.on_event,
        )

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
            raise InputError("an item is an empty text: give an item id or a free text")
        self.on_event(Note(f"{item!r} is no item id of {self.dataset.name}: read as a free text"))
        return Item.from_text(item)

    def _purchases(
        self, history: Sequence[str | Item] | None, user: str | None, metadata: Mapping[str, str] | None
    ) -> tuple[list[Purchase], list[str], Mapping[str, str]]:
        """Purchases, their item ids, and the user's metadata."""
        if (history is None) == (user is None):
            raise InputError("give a history or a user of the dataset, and not both")
        if user is not None:
            if user not in self.dataset.sequences:
                known = self.dataset.sequences
                raise InputError(
                    f"no user {quoted(user)} in dataset {self.dataset.name!r} ({len(known)} users, such as "
                    f"{quoted(next(iter(known)))})"
                )
            events = self.dataset.sequences[user]
            purchases = [(self.dataset.items[e.item_id], e) for e in events if e.item_id in self.dataset.items]
            facts = self.dataset.metadata.get(user, {}) if metadata is None else metadata
            return purchases, [event.item_id for event in events], facts
        if isinstance(history, str) or not history:
            raise InputError("the history is empty or one text: give a list of item ids, free texts or items")
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
    schema: Schema | None = None,
    weight: float = DEFAULT_WEIGHT,
    head: int | None = None,
    explain: int = 0,
    check: bool = True,
    budget_usd: float | None = None,
    max_calls: int | None = None,
    ledger: Path | None = None,
    on_event: OnEvent = ignore,
) -> Program:
    """A program by name (`listwise`, `pointwise`, `embedding` or an ablation), or the artifact in a folder.

    Args:
        dataset: Catalogue and histories.
        preset: Models for all roles: `local`, `hosted` or `paper`; `local` unless DSPy was configured with a model.
        model: A model string or a `dspy.LM` for every role.
        mope, mote, mar, judge: Likewise for one role.
        schema: Motivational schema, or its TOML or YAML file; the consumer schema unless given.
        weight: Share of MAR in the fused score, 0 to 1; the rest is the prior's.
        head: MAR sees only the prior's first `head` candidates.
        explain: Items that are explained when it is evaluated.
        check: Whether the judge re-checks reasons.
        budget_usd, max_calls: Limits on what this object may spend.
        ledger: File that gets every call; its calls count for the budget.
        on_event: Gets notes and progress.

    Raises:
        InputError: if there is no such program or preset, or the schema cannot be read.
    """
    models = Models(preset=preset, model=model, mope=mope, mote=mote, mar=mar, judge=judge)
    choice = choice_of(name, model_options(models), Fusion(weight=weight, head=head), read_schema(schema))
    if not choice.asks_models:
        raise InputError(f"{name!r} asks no language model: use evaluate(cases, {name!r})")
    return Program(choice, dataset, explain, check, budget_of(budget_usd, max_calls), on_event, ledger)


def load_artifact(
    path: str | Path,
    dataset: Dataset,
    *,
    model: Model | None = None,
    mope: Model | None = None,
    mote: Model | None = None,
    mar: Model | None = None,
    judge: Model | None = None,
    explain: int = 0,
    check: bool = True,
    budget_usd: float | None = None,
    max_calls: int | None = None,
    on_event: OnEvent = ignore,
) -> Program:
    """A program that was compiled and frozen; checked against its hashes and the signatures of today.

    Args:
        path: Its folder.
        dataset: What it recommends from.
        model, mope, mote, mar, judge: Models in place of those it was compiled with.
        explain, check, budget_usd, max_calls, on_event: As in `program`.

    Raises:
        InputError: if there is no artifact, it is damaged, or it names a server that has to be confirmed.
    """
    if not is_artifact(Path(path)):
        raise InputError(f"{path}: no artifact here; compile a program into this folder first")
    choice = resolve_ranker(str(path), ModelOptions("local", model, mope, mote, mar, judge), Fusion())
    return Program(choice, dataset, explain, check, budget_of(budget_usd, max_calls), on_event)


def choice_of(name: str, options: ModelOptions | None, fusion: Fusion, schema: MotivationSchema | None) -> RankerChoice:
    """What a name stands for; without options the model of `dspy.configure` is asked directly.

    Raises:
        InputError: if there is no such ranker, or an artifact that cannot be read.
    """
    choice = resolve_ranker(name, options or ModelOptions(), fusion, schema)
    return replace(choice, roles=None) if options is None and choice.asks_models else choice
