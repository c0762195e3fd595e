"""MOPE, the Motivation-Oriented Profile Extractor: infers a motivation profile from purchases (paper, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dspy

from programs.default_demos import infer_examples, needs_examples, reassess_examples
from programs.lm.backends import Backends, UnparsableError
from programs.lm.pending import independent
from programs.role_predictor import RolePredictor
from programs.seller_text import prompt_line
from programs.trait_filter import contains_instructions, gives_order
from signatures.mope import (
    MAX_MOTIVATIONS,
    MAX_NEEDS,
    MotivationDraft,
    NeedDraft,
    Reassessment,
    infer_motivations,
    infer_needs,
    reassess_motivations,
)
from signatures.schema import CONSUMER, MotivationSchema
from signatures.types import Interaction, Item, Motivation, Need, Profile

HISTORY_ITEMS = 10
ITEM_CHARACTERS = 160
DESCRIPTION_CHARACTERS = 80
NOTHING_KNOWN = "nothing known"

Purchase = tuple[Item, Interaction]


def as_purchases(history: Sequence[Purchase | Item | str]) -> list[Purchase]:
    """A history as purchases: free texts become items, and items without an interaction are unrated.

    >>> [item.title for item, _ in as_purchases(["enamel mug", Item(item_id="a", title="hand saw")])]
    ['enamel mug', 'hand saw']
    """
    out: list[Purchase] = []
    for entry in history:
        if isinstance(entry, tuple):
            out.append(entry)
            continue
        item = Item.from_text(entry) if isinstance(entry, str) else entry
        out.append((item, Interaction(item_id=item.item_id)))
    return out


def render_purchases(history: Sequence[Purchase]) -> str:
    """C_u of eq. 2: the last `HISTORY_ITEMS` purchases, numbered from 1, oldest first, one line each.

    Line breaks inside a seller's text are folded, so that a text cannot pose as several purchases.
    """
    shown = history[-HISTORY_ITEMS:]
    return "\n".join(f"{number}. {purchase_line(*purchase)}" for number, purchase in enumerate(shown, start=1))


def purchase_line(item: Item, interaction: Interaction) -> str:
    """A purchase on one line: the item's text, cut, and the rating if there is one.

    >>> purchase_line(Item(item_id="a", title="hand saw"), Interaction(item_id="a", rating=4))
    'hand saw (rated 4 of 5)'
    """
    rated = "" if interaction.rating is None else f" (rated {interaction.rating:g} of 5)"
    return prompt_line(item.text, ITEM_CHARACTERS) + rated


def render_metadata(metadata: Mapping[str, str]) -> str:
    """z_u of eq. 6 on one line.

    >>> render_metadata({"age": "25-34", "region": "north"})
    'age 25-34; region north'
    """
    facts = "; ".join(f"{key} {value}" for key, value in metadata.items())
    return prompt_line(facts, ITEM_CHARACTERS) or NOTHING_KNOWN


def validated(drafts: Sequence[MotivationDraft], schema: MotivationSchema, purchases: int) -> Profile:
    """The profile of the valid drafts: in the schema, based on purchases in the prompt, and not repeated.

    A draft that could be an order goes to `dropped`: a model that obeys a seller's title repeats it, and MAR reads
    what is kept.

    Args:
        purchases: Number of purchases in the prompt; evidence outside 1..purchases is dropped. A motivation left
            without evidence is dropped, unless there is only one purchase.
    """
    kept: list[Motivation] = []
    dropped: list[str] = []
    for draft in drafts:
        if _is_order(draft.description):
            dropped.append(_refused(draft.description))
            continue
        evidence = _evidence(draft.evidence, purchases)
        description = prompt_line(draft.description, DESCRIPTION_CHARACTERS).strip(" .")
        repeated = any((m.dimension, m.description) == (draft.dimension, description) for m in kept)
        if draft.dimension in schema.names and evidence and description and not repeated:
            kept.append(
                Motivation(
                    dimension=draft.dimension, description=description, strength=draft.strength, evidence=evidence
                )
            )
    order = {"strong": 0, "moderate": 1, "weak": 2}
    kept = sorted(kept, key=lambda m: order[m.strength])[:MAX_MOTIVATIONS]
    return Profile(motivations=tuple(kept), dropped=tuple(dropped))


def _is_order(text: str) -> bool:
    # The whole text: what is cut off later may be what makes it an order.
    return gives_order(text) or contains_instructions(text)


def _refused(text: str) -> str:
    return f"instruction: {prompt_line(text, DESCRIPTION_CHARACTERS)}"


def _evidence(numbers: Sequence[int], purchases: int) -> tuple[int, ...]:
    """The numbers that are in the prompt, without repetition; where none is, the only purchase, if there is one."""
    return tuple(dict.fromkeys(n for n in numbers if 1 <= n <= purchases)) or ((1,) if purchases == 1 else ())


def reassessed(profile: Profile, reassessments: Sequence[Reassessment]) -> Profile:
    """The profile after keep, revise and drop; unchanged if everything would be dropped: MAR needs a profile.

    A revision that could be an order changes nothing, and goes to `dropped`.
    """
    by_number = {r.number: r for r in reassessments}
    kept = []
    dropped = [*profile.dropped]
    for number, motivation in enumerate(profile.motivations, start=1):
        change = by_number.get(number)
        if change is not None and change.action == "drop":
            continue
        if change is not None and change.action == "revise" and _is_order(change.description):
            dropped.append(_refused(change.description))
        elif change is not None and change.action == "revise":
            description = prompt_line(change.description, DESCRIPTION_CHARACTERS).strip(" .")
            motivation = motivation.model_copy(update={"description": description or motivation.description})
        kept.append(motivation)
    return Profile(motivations=tuple(kept), dropped=tuple(dropped)) if kept else profile


class MOPE(dspy.Module):
    """Infers a profile from the full history and, with `reflect`, reassesses it once (section 3.1.3).

    Args:
        backends: The language models by role; None uses the model of `dspy.configure`.
        schema: The dimensions a motivation may have.
        reflect: Whether the reflective prompt follows.
    """

    def __init__(
        self, backends: Backends | None = None, schema: MotivationSchema = CONSUMER, reflect: bool = True
    ) -> None:
        super().__init__()
        self.schema = schema
        self.infer = RolePredictor(infer_motivations(schema), "mope", backends, 240, infer_examples(schema))
        self.reassess = (
            RolePredictor(reassess_motivations(schema), "mope", backends, 160, reassess_examples(schema))
            if reflect
            else None
        )

    def forward(
        self,
        history: Sequence[Purchase | Item | str],
        metadata: Mapping[str, str] | None = None,
        rollout: int | None = None,
    ) -> dspy.Prediction:
        """One profile of the whole history.

        Args:
            history: Purchases, oldest first; see `as_purchases` for items without an interaction and free texts.
            metadata: z_u of eq. 6.
            rollout: Distinguishes samples of the same profile.

        Returns:
            Prediction with `profile`, `text` (what MAR reads) and `unparsable` (number of discarded answers).

        Raises:
            UnparsableError: if no answer could be parsed, or no motivation passed validation: MAR must not score
                items against an empty profile. An unparsable reassessment leaves the inferred profile as it is.
        """
        if not history:
            raise ValueError("MOPE needs at least one purchase")
        history = as_purchases(history)
        inputs = {"shopper": render_metadata(metadata or {}), "history": render_purchases(history)}
        profile, unparsable = self._inferred(inputs, len(history), rollout)
        if self.reassess is not None and profile.motivations:
            numbered = "\n".join(
                f"{n}. {m.dimension} ({m.strength}): {m.description}" for n, m in enumerate(profile.motivations, 1)
            )
            try:
                answer = self.reassess(**inputs, inferred=numbered, rollout=rollout)
                profile = reassessed(profile, answer.reassessments)
                unparsable += answer.unparsable
            except UnparsableError as error:
                unparsable += error.answers
        if not profile.motivations:
            raise UnparsableError("mope: no valid motivation rests on a purchase that was shown", unparsable + 1)
        return dspy.Prediction(profile=profile, text=profile.render(), unparsable=unparsable)

    def _inferred(self, inputs: Mapping[str, str], purchases: int, rollout: int | None = None) -> tuple[Profile, int]:
        answer = self.infer(**inputs, rollout=rollout)
        return validated(answer.motivations, self.schema, min(purchases, HISTORY_ITEMS)), answer.unparsable

    def per_interaction(
        self, history: Sequence[Purchase], metadata: Mapping[str, str] | None = None, last: int = HISTORY_ITEMS
    ) -> list[Profile]:
        """The k profiles of eq. 5: one for each of the `last` interactions, inferred from that interaction alone.

        Not reassessed, because the reflective prompt is about the full history. An unparsable answer gives an empty
        profile, whose similarity to every profile is 0.
        """
        profiles = []
        with independent() as step:
            for purchase in history[-last:]:
                with step():
                    profiles.append(self._of_one(purchase, metadata or {}))
        return profiles

    def _of_one(self, purchase: Purchase, metadata: Mapping[str, str]) -> Profile:
        try:
            return self._inferred({"shopper": render_metadata(metadata), "history": render_purchases([purchase])}, 1)[0]
        except UnparsableError:
            return Profile()


class NeedsMOPE(MOPE):
    """MOPE without reflection whose profile also says which kinds of things come next; beyond the paper."""

    def __init__(self, backends: Backends | None = None, schema: MotivationSchema = CONSUMER) -> None:
        super().__init__(backends, schema, reflect=False)
        self.infer = RolePredictor(infer_needs(schema), "mope", backends, 340, needs_examples(schema))

    def _inferred(self, inputs: Mapping[str, str], purchases: int, rollout: int | None = None) -> tuple[Profile, int]:
        answer = self.infer(**inputs, rollout=rollout)
        shown = min(purchases, HISTORY_ITEMS)
        profile = validated(answer.motivations, self.schema, shown)
        orders = tuple(_refused(need.kind) for need in answer.needs if _is_order(need.kind))
        more = {"needs": validated_needs(answer.needs, shown), "dropped": (*profile.dropped, *orders)}
        return profile.model_copy(update=more), answer.unparsable


def validated_needs(drafts: Sequence[NeedDraft], purchases: int) -> tuple[Need, ...]:
    """The valid needs without repetition, at most `MAX_NEEDS`; evidence and orders as in `validated`."""
    kept: dict[str, Need] = {}
    for draft in drafts:
        evidence = _evidence(draft.evidence, purchases)
        phrase = prompt_line(draft.kind, DESCRIPTION_CHARACTERS).strip(" .")
        if evidence and phrase and not _is_order(draft.kind):
            kept.setdefault(phrase.casefold(), Need(phrase=phrase, evidence=evidence))
    return tuple(kept.values())[:MAX_NEEDS]


class GivenProfile(dspy.Module):
    """A profile that is known already, in the place of MOPE: nothing is asked.

    Args:
        profile: What MAR reads instead of an inferred profile.
    """

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        self.profile = profile

    def forward(
        self, history: Sequence[Purchase], metadata: Mapping[str, str] | None = None, rollout: int | None = None
    ) -> dspy.Prediction:
        """Like `MOPE.forward`, without a model call."""
        return dspy.Prediction(profile=self.profile, text=self.profile.render(), unparsable=0)


class RawHistory(dspy.Module):
    """Ablation without MOPE: MAR reads the purchases themselves (paper, section 5.1)."""

    def forward(
        self, history: Sequence[Purchase], metadata: Mapping[str, str] | None = None, rollout: int | None = None
    ) -> dspy.Prediction:
        """Like `MOPE.forward`, without a model call: `profile` is None."""
        text = f"{render_metadata(metadata or {})}\n{render_purchases(history)}"
        return dspy.Prediction(profile=None, text=text, unparsable=0)
