"""MOTE, the Motivation-Oriented Trait Encoder: distils an item into transferable traits (paper, section 3.2).

One item per call, so that a seller's text cannot influence the traits of other items.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import dspy

from programs.default_demos import TRAITS, USES
from programs.lm.ambient import AmbientBackends
from programs.lm.backends import Backends, RefusedTextError
from programs.lm.ledger import Call
from programs.role_predictor import RolePredictor
from programs.runtime.nocopy import NoCopy
from programs.seller_text import prompt_line
from programs.trait_filter import TRAIT_CHARACTERS, refusal
from programs.trait_store import Distilled, TraitStore, trait_key
from signatures.mote import MAX_TRAITS, DistillTraits, DistillUses
from signatures.rows import Usage
from signatures.types import REFUSED_BY_PROVIDER, Item, Traits

PRODUCT_CHARACTERS = 400
NO_TRAITS = "no traits known"


def item_text(item: Item) -> str:
    """d_i of eq. 7 as MOTE reads it: without brand and price, which traits must not name."""
    bare = item.model_copy(update={"brand": None, "price": None})
    return "\n".join(prompt_line(line, PRODUCT_CHARACTERS) for line in bare.text.splitlines())[:PRODUCT_CHARACTERS]


def validated_traits(item: Item, phrases: Sequence[str]) -> Traits:
    """The valid phrases without repetition, at most `MAX_TRAITS`; the others go to `dropped` with the reason."""
    kept: list[str] = []
    dropped: list[str] = []
    for raw in phrases:
        phrase = " ".join(raw.split()).strip(" .;,-")
        reason = refusal(phrase, item) or ("repeated" if phrase.casefold() in map(str.casefold, kept) else None)
        reason = reason or ("too many" if len(kept) == MAX_TRAITS else None)
        if reason is None:
            kept.append(phrase)
        else:
            dropped.append(f"{reason}: {phrase[:TRAIT_CHARACTERS]}")
    return Traits(item_id=item.item_id, phrases=tuple(kept), dropped=tuple(dropped))


@dataclass(frozen=True)
class _MemoEntry:
    """Traits of an item in memory, and everything they depend on."""

    item: Item
    prompt: str
    key: str
    usage: Usage | None
    prediction: dspy.Prediction


class MOTE(dspy.Module):
    """Distils traits, once per item text, prompt and model.

    Args:
        backends: The language models by role; None uses the model of `dspy.configure`.
        store: Distilled traits; None keeps them in memory, with the program.
        categories: Names that an item without traits may be known by, see `known_categories`; None for all.
    """

    def __init__(
        self,
        backends: Backends | None = None,
        store: TraitStore | None = None,
        categories: Collection[str] | None = None,
    ) -> None:
        super().__init__()
        self.categories = NoCopy(categories)
        self.backends = AmbientBackends() if backends is None else backends
        self.store = TraitStore() if store is None else store
        self.distill = self._predictor()
        self._rendered: tuple[object, str] | None = None

    def _predictor(self) -> RolePredictor:
        return RolePredictor(DistillTraits, "mote", self.backends, 104, TRAITS)

    def prompt(self) -> str:
        """The prompt without the item's text, plus the sampling settings: part of the trait store's key.

        Rendered again only after a change of instructions, demos or sampling, because every candidate needs it.
        """
        predictor = self.distill.predict
        demos: list[dspy.Example] = predictor.demos
        state = (
            predictor.signature,
            [
                {name: list(value) if isinstance(value, list) else value for name, value in demo.items()}
                for demo in demos
            ],
            self.backends.roles.mote,
        )
        if self._rendered is None or self._rendered[0] != state:
            self._rendered = state, self._render()
        return self._rendered[1]

    def _render(self) -> str:
        predictor = self.distill.predict
        adapter = self.backends.adapter_for("mote", predictor)
        messages = adapter.format(predictor.signature, predictor.demos, {"product": ""})
        config = self.backends.roles.mote
        cap = self.distill.enough if config.terse else config.max_tokens
        return json.dumps([messages, config.temperature, config.top_p, cap])

    def __call__(self, item: Item | str) -> dspy.Prediction:
        """See `forward`; a free text counts as an item. Known items are answered from memory."""
        if isinstance(item, str):
            item = Item.from_text(item)
        entry: _MemoEntry | None = self.store.memo.get(item.item_id)
        if entry is not None and entry.item is item and entry.prompt is self.prompt():
            self._record_cache_hit(entry.key, entry.usage)
            return entry.prediction
        answer: dspy.Prediction = super().__call__(item=item)
        return answer

    def forward(self, item: Item) -> dspy.Prediction:
        """The traits of one item.

        Returns:
            Prediction with `traits`, `text` (what MAR reads) and `unparsable`. If no phrase passes validation, there
            are no traits, and `text` is the item's most specific category.

        Raises:
            UnparsableError: if no answer of the model could be parsed.
        """
        prompt = self.prompt()
        text = item_text(item)
        key = trait_key(text, prompt, self.backends.known_as("mote"))
        distilled = self.store.get(key)
        unparsable = 0
        if distilled is None:
            with self.backends.ledger.label_calls(key[:16]), self.backends.ledger.standalone_usage() as spent:
                try:
                    answer = self.distill(product=text)
                except RefusedTextError as error:
                    return self._refused(item, prompt, key, error)
            unparsable = answer.unparsable
            distilled = Distilled(self._phrases(answer), spent.get("mote"))
            self.store.put(key, distilled.phrases, distilled.usage)
        else:
            self._record_cache_hit(key, distilled.usage)
        # Validated after reading: items with the same text share phrases, but may differ in the brand.
        traits = self._validated(item, distilled.phrases)
        answer_text = traits.render() or fallback_text(item, self.categories.value)
        prediction = dspy.Prediction(traits=traits, text=answer_text, unparsable=0)
        self.store.memo[item.item_id] = _MemoEntry(item, prompt, key, distilled.usage, prediction)
        return dspy.Prediction(traits=traits, text=answer_text, unparsable=unparsable)

    def stored(self, item: Item) -> str | None:
        """The traits of an item that was distilled before, as a text; None if there are none. Asks no model."""
        key = trait_key(item_text(item), self.prompt(), self.backends.known_as("mote"))
        distilled = self.store.get(key)
        return None if distilled is None else self._validated(item, distilled.phrases).render() or None

    def traits_of(self, item: Item, answer: dspy.Prediction) -> Traits:
        """The valid traits in an answer about an item."""
        return self._validated(item, self._phrases(answer))

    def _phrases(self, answer: dspy.Prediction) -> tuple[str, ...]:
        """What the trait store keeps of an answer."""
        return tuple(answer.traits)

    def _validated(self, item: Item, phrases: Sequence[str]) -> Traits:
        return validated_traits(item, phrases)

    def _refused(self, item: Item, prompt: str, key: str, error: RefusedTextError) -> dspy.Prediction:
        """An item whose text the provider refuses has no traits; for this process only, another day it may pass."""
        traits = Traits(item_id=item.item_id, dropped=(f"{REFUSED_BY_PROVIDER}: {error}"[:300],))
        text = fallback_text(item, self.categories.value)
        prediction = dspy.Prediction(traits=traits, text=text, unparsable=0)
        self.store.memo[item.item_id] = _MemoEntry(item, prompt, key, None, prediction)
        return dspy.Prediction(traits=traits, text=text, unparsable=error.answers)

    def _record_cache_hit(self, key: str, usage: Usage | None) -> None:
        """Record an item distilled before as a cache hit: the stand-alone cost of a run includes it."""
        spent = usage or Usage()
        self.backends.ledger.record(
            Call(
                role="mote",
                model=self.backends.known_as("mote"),
                about=key[:16],
                tokens_in=spent.tokens_in,
                tokens_out=spent.tokens_out,
                tokens_cached=spent.tokens_cached,
                tokens_written=spent.tokens_written,
                usd=spent.usd,
                seconds=round(spent.seconds, 4),
                hit=True,
                at=round(time.time(), 3),
            )
        )


_OCCASION, _USER = "occasion: ", "user: "
"""Prefixes of phrases of other kinds than traits, in the trait store."""


class UsesMOTE(MOTE):
    """MOTE that also distils occasions and users; beyond the paper."""

    def _predictor(self) -> RolePredictor:
        return RolePredictor(DistillUses, "mote", self.backends, 160, USES)

    def _phrases(self, answer: dspy.Prediction) -> tuple[str, ...]:
        occasions, users = (_OCCASION + one for one in answer.occasions), (_USER + one for one in answer.users)
        return (*answer.traits, *occasions, *users)

    def _validated(self, item: Item, phrases: Sequence[str]) -> Traits:
        kinds = {
            prefix: validated_traits(item, [one.removeprefix(prefix) for one in phrases if one.startswith(prefix)])
            for prefix in (_OCCASION, _USER)
        }
        traits = validated_traits(item, [one for one in phrases if not one.startswith((_OCCASION, _USER))])
        return traits.model_copy(
            update={
                "occasions": kinds[_OCCASION].phrases,
                "users": kinds[_USER].phrases,
                "dropped": (*traits.dropped, *kinds[_OCCASION].dropped, *kinds[_USER].dropped),
            }
        )


def known_categories(catalogue: Mapping[str, Item]) -> frozenset[str]:
    """Names of categories that at least two items share: who sells one item cannot make one up."""
    counts: Counter[str] = Counter()
    for item in catalogue.values():
        counts.update({name for path in item.categories for name in path})
    return frozenset(name for name, items in counts.items() if items > 1)


def fallback_text(item: Item, known: Collection[str] | None = None) -> str:
    """The text for an item without traits: its most specific category, never the seller's description.

    Args:
        known: Names of categories to choose from; None for all. A name that could not be a trait is passed over: one
            longer than a trait, for example.
    """
    for name in reversed(item.category):
        name = prompt_line(name, TRAIT_CHARACTERS)
        if (known is None or name in known) and refusal(name, item.model_copy(update={"title": ""})) is None:
            return name
    return NO_TRAITS


class RawDescription(dspy.Module):
    """Ablation without MOTE: MAR reads the seller's text (paper, section 5.1)."""

    def forward(self, item: Item) -> dspy.Prediction:
        """Like `MOTE.forward`, without a model call: `traits` is None."""
        return dspy.Prediction(traits=None, text=prompt_line(item_text(item), 160), unparsable=0)
