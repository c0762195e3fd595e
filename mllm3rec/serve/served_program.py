"""A program on a dataset, built once for all requests: recommendations, profiles, traits and explanations."""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version

import dspy

from evaluate.data.dataset import Dataset
from evaluate.ranker_choice import RankerChoice
from mllm3rec.api.program import Program
from mllm3rec.api.recommendation import Recommendations
from mllm3rec.serve.batched_retrieval import BatchedRetriever
from mllm3rec.serve.outside_items import OutsideItems
from mllm3rec.serve.program_loop import ProgramLoop
from programs.bulk.backends import BulkBackends
from programs.bulk.driver import Driver
from programs.lm.backends import Backends, RefusedTextError
from programs.lm.ledger import Ledger
from programs.mar import Candidate, UserView
from programs.mope import MOPE, Purchase
from programs.mote import MOTE
from programs.prior.past_sales import newest_date
from programs.runtime.errors import InputError
from programs.runtime.events import Event, OnEvent, ignore
from programs.runtime.greenlets import on_event_loop, wait_for
from signatures.types import Item, Profile, Rationale, Traits

_EMBEDDING_THREADS = 4
"""Of their own: while a server is slow to embed free texts, the threads of retrieval stay free."""


class UnsuitableError(InputError):
    """The program has no module for what was asked."""


@dataclass(frozen=True)
class UserHistory:
    """A user of a request.

    Attributes:
        name: User id, or `you`.
        purchases: Items with the signals left on them, oldest first.
        known: Ids of all of the history, also of items that are not in the catalogue any more.
    """

    name: str
    purchases: Sequence[Purchase]
    known: Sequence[str]
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Explanation:
    """Why an item would be recommended; `profile` is None without MOPE."""

    item: Item
    rationale: Rationale
    traits: tuple[str, ...]
    profile: Profile | None


class ServedProgram:
    """What one program or artifact answers.

    Its methods are called by `ProgramLoop.start`, many at a time, but for those that are to be awaited.

    Args:
        choice: The program.
        asks: Whether its models are asked; without, the prior answers alone.
        candidates: Items that the prior retrieves for each user.
        engine: Whose event loop sends the calls.
        ledger: Records all calls.
        on_event: Told what a user should know while the program is built; later, nothing: events may hold texts.

    Raises:
        InputError: if a model cannot be used, or an artifact is damaged.
    """

    def __init__(
        self,
        choice: RankerChoice,
        dataset: Dataset,
        asks: bool,
        candidates: int,
        engine: ProgramLoop,
        ledger: Ledger,
        on_event: OnEvent = ignore,
    ) -> None:
        self._told = on_event
        self._engine = engine
        self._drivers: list[Driver] = []
        self._embedding = ThreadPoolExecutor(_EMBEDDING_THREADS, thread_name_prefix="embedding")
        self.dataset = dataset
        self.asks = asks
        self.candidates = candidates
        self._program = Program(choice, dataset, on_event=self._tell, asking=self._on_engine)
        self._program.ledger = ledger
        self.outside = OutsideItems(self._program.encoder, dataset.items)
        self._fallback = BatchedRetriever(self._program.retriever.beside(self.outside.vectors))
        if asks:
            built = self._program.built(1, candidates).beside(self.outside, self.outside.vectors)
            # Of a request, as many are explained as it asks for; all have the same predictors.
            self._built = replace(built, retriever=BatchedRetriever(built.retriever))

        self._told = ignore

    @property
    def name(self) -> str:
        """Name of the program; `prior` without one."""
        return self._program.name if self.asks else "prior"

    @property
    def artifact(self) -> str | None:
        """SHA-256 of the artifact; None for a program by name."""
        manifest = self._program.manifest
        return manifest.sha256 if manifest is not None and self.asks else None

    @cached_property
    def versions(self) -> dict[str, str]:
        """Of the packages that decide answers."""
        return {name: version(name) for name in ("mllm3rec", "dspy")}

    def recommend(self, user: UserHistory, k: int, explain: bool) -> Recommendations:
        """The k best items, ranked by the program.

        Raises:
            NothingLeftError: if the user has all items.
        """
        module = copy.copy(self._built.module)
        module.explain = k if explain else 0
        recommender = replace(self._built, module=module, k=k, candidates=max(k, self.candidates))
        return recommender.recommend(user.name, user.purchases, user.known, user.metadata)

    async def by_prior(self, user: UserHistory, k: int) -> list[Item]:
        """The k best items by the prior alone: no model is asked.

        Awaited on the loop that answers requests: whatever holds up the engine does not hold up this.
        """
        found = await self._fallback.found(user.known, k, newest_date(event for _, event in user.purchases))
        return [self.dataset.items[item_id] for item_id in found]

    def profile(self, user: UserHistory) -> Profile:
        """The user's profile.

        Raises:
            UnsuitableError: if the program has no MOPE.
        """
        mope = self._built.module.shopper if self.asks else None
        if not isinstance(mope, MOPE):
            raise UnsuitableError(f"{self.name}: this program has no MOPE, so it cannot make profiles")
        found: Profile = mope(history=user.purchases, metadata=user.metadata).profile
        return found

    def traits(self, item: Item) -> Traits:
        """The item's traits.

        Raises:
            UnsuitableError: if the program has no MOTE.
            RefusedTextError: if the provider refuses the item's text.
        """
        mote = self._built.module.product if self.asks else None
        if not isinstance(mote, MOTE):
            raise UnsuitableError(f"{self.name}: this program has no MOTE, so it cannot make traits")
        found: Traits = mote(item=item).traits
        self._forget(mote, item)
        if found.refused_by_provider:
            raise RefusedTextError(found.dropped[0], 1)
        return found

    def explain(self, user: UserHistory, item: Item) -> Explanation:
        """A reason for one item, checked by the judge.

        Raises:
            UnsuitableError: if the program gives no reasons.
        """
        module = self._built.module if self.asks else None
        if module is None or module.reasons is None:
            raise UnsuitableError(f"{self.name}: this program gives no reasons")
        seen = module.shopper(history=user.purchases, metadata=user.metadata)
        described = module.product(item=item)
        self._forget(module.product, item)
        phrases = described.traits.all_phrases if described.traits else ()
        candidate = Candidate(item.item_id, described.text, phrases)
        rationale = module.reasons(UserView(seen.text, seen.profile), candidate)
        return Explanation(item, rationale, phrases, seen.profile)

    def read_texts(self, texts: Sequence[str]) -> list[Item]:
        """The items of free texts, known to prior and program from now on.

        Raises:
            InputError, BudgetExceededError, LMError: if they cannot be embedded.
        """
        return wait_for(self._embedded(texts)) if on_event_loop() else self.outside.add(texts)

    async def _embedded(self, texts: Sequence[str]) -> list[Item]:
        # With the deadline and the sums of its request, which are context variables.
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._embedding, context.run, self.outside.add, texts)

    async def close(self) -> None:
        """Close connections; nothing may be under way."""
        self._embedding.shutdown(wait=False)
        for driver in self._drivers:
            await asyncio.wrap_future(self._engine.begin(driver.close()))

    def _on_engine(self, backends: Backends) -> Backends:
        driver = Driver(dspy.cache)
        self._drivers.append(driver)
        return BulkBackends(backends, driver)

    def _forget(self, product: dspy.Module, item: Item) -> None:
        """Free texts do not stay in memory, which would grow without end; they stay in the trait store."""
        if isinstance(product, MOTE) and item.item_id not in self.dataset.items:
            product.store.memo.pop(item.item_id, None)

    def _tell(self, event: Event) -> None:
        self._told(event)


Build = Callable[[], ServedProgram]
"""Builds the program anew, from what its folder holds now."""
