"""MAR, the Motivational Alignment Recommender: how well each candidate answers the shopper (paper, section 3.3).

Three aligners behind one call: `Pointwise` asks about each candidate alone (eq. 8), `Listwise` about all of them
at once (the paper's Figure 1), `Embedding` compares phrases without another model call.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import dspy
import numpy as np

from programs.default_demos import RANKINGS, RATINGS
from programs.lm.backends import Backends, UnparsableError
from programs.lm.logprobs import expected_label
from programs.prior.encoders import Encoder
from programs.role_predictor import RolePredictor
from programs.runtime.nocopy import NoCopy
from signatures.mar import FIRST_LABEL, LAST_LABEL, ProductText, ShopperText, rank_candidates, score_candidate
from signatures.types import Alignment, Profile

RATING_LABELS = ("1", "2", "3", "4", "5")


@dataclass
class Alignments:
    """What an aligner says about a list.

    Attributes:
        alignments: One per candidate, in the order given; None where the model said nothing usable of it.
        appended: Candidates the model left out.
        dropped: Labels the model wrote that name no candidate, or one that was named before.
        unparsable: Answers that could not be parsed.
    """

    alignments: list[Alignment | None] = field(default_factory=list)
    appended: int = 0
    dropped: int = 0
    unparsable: int = 0


@dataclass(frozen=True)
class Candidate:
    """A candidate as MAR may see it: an id of ours, and the text of its traits. Never seller prose (but ablations)."""

    item_id: str
    text: str
    phrases: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShopperView:
    """What MAR may see of a shopper: the text, and the profile behind it where there is one."""

    text: str
    profile: Profile | None = None


@runtime_checkable
class Aligner(Protocol):
    """Aligns one shopper with a list of candidates."""

    def __call__(self, *, shopper: ShopperView, candidates: Sequence[Candidate], seed: int) -> Alignments:
        """Score the candidates; `seed` decides labels and order of presentation."""
        ...


class Pointwise(dspy.Module):
    """Each candidate evaluated independently, as a rating of 1 to 5 (section 3.3.2).

    The score is the expected rating over the rating tokens where the backend gives log-probabilities, else the
    rating as written; candidates that differ then do not tie. The shopper comes before the product in the prompt,
    so that a server's prefix cache serves all of it but the product.
    """

    def __init__(
        self,
        backends: Backends | None = None,
        shopper_text: ShopperText = "profile",
        product_text: ProductText = "traits",
    ) -> None:
        super().__init__()
        self.score = RolePredictor(score_candidate(shopper_text, product_text), "mar", backends, 4, RATINGS)

    def forward(self, shopper: ShopperView, candidates: Sequence[Candidate], seed: int) -> Alignments:
        """One call a candidate. An answer that is no rating leaves that candidate without a score."""
        result = Alignments()
        for candidate in candidates:
            try:
                answer = self.score(shopper=shopper.text, product=candidate.text)
            except UnparsableError as error:
                result.alignments.append(None)
                result.unparsable += error.answers
                continue
            result.unparsable += answer.unparsable
            expected = expected_label(getattr(answer, "logprobs", None), RATING_LABELS)
            if expected is None:
                alignment = Alignment(item_id=candidate.item_id, score=float(answer.rating), source="integer")
            else:
                value, mass = expected
                alignment = Alignment(item_id=candidate.item_id, score=value, source="logprobs", mass=mass)
            result.alignments.append(alignment)
        result.appended = result.alignments.count(None)
        return result


def draw_labels(draw: random.Random, n: int) -> list[int]:
    """Opaque, distinct two-digit labels for `n` candidates."""
    return draw.sample(range(FIRST_LABEL, LAST_LABEL + 1), n)


def render_products(shown: Sequence[tuple[int, Candidate]]) -> str:
    """Labelled candidates as the listwise prompt shows them, one a line."""
    return "\n".join(f"{label}: {candidate.text}" for label, candidate in shown)


class Listwise(dspy.Module):
    """All candidates in one call, over opaque labels in shuffled order; both are drawn per call from the seed.

    Attributes:
        most: Longest list there are labels for.
    """

    most = LAST_LABEL - FIRST_LABEL + 1

    def __init__(
        self,
        backends: Backends | None = None,
        shopper_text: ShopperText = "profile",
        product_text: ProductText = "traits",
    ) -> None:
        super().__init__()
        self.rank = RolePredictor(rank_candidates(shopper_text, product_text), "mar", backends, 256, RANKINGS)

    def forward(self, shopper: ShopperView, candidates: Sequence[Candidate], seed: int) -> Alignments:
        """One call. A candidate's score is the number of candidates it was ranked above or left out with.

        Raises:
            ValueError: if there are more candidates than two-digit labels.
        """
        if len(candidates) > self.most:
            raise ValueError(f"{len(candidates)} candidates: a list holds at most {self.most}")
        draw = random.Random(seed)  # noqa: S311 - a reproducible shuffle, no secret
        labels = draw_labels(draw, len(candidates))
        shown = draw.sample(list(zip(labels, candidates, strict=True)), len(candidates))
        products = render_products(shown)
        result = Alignments(alignments=[None] * len(candidates))
        try:
            answer = self.rank(shopper=shopper.text, products=products, enough=6 * len(candidates) + 32)
        except UnparsableError as error:
            result.unparsable = error.answers
            result.appended = len(candidates)
            return result
        place = {label: index for index, label in enumerate(labels)}
        named = [place[label] for label in dict.fromkeys(answer.ranking) if label in place]
        for rank, index in enumerate(named):
            score = float(len(candidates) - 1 - rank)
            result.alignments[index] = Alignment(item_id=candidates[index].item_id, score=score, source="rank")
        result.appended = len(candidates) - len(named)
        result.dropped = len(answer.ranking) - len(named)
        result.unparsable = answer.unparsable
        return result


class Embedding(dspy.Module):
    """Phrases of the profile against phrases of the traits, by cosine: whole catalogues for one call a shopper.

    Score(u, i) is the mean over motivations, weighted 3:2:1 by strength, of the best cosine between the
    motivation's description and any trait.
    """

    weights = {"strong": 3.0, "moderate": 2.0, "weak": 1.0}  # noqa: RUF012 - a constant of the formula

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = NoCopy(encoder)

    def forward(self, shopper: ShopperView, candidates: Sequence[Candidate], seed: int) -> Alignments:
        """No model call. Without a profile the shopper's whole text is compared."""
        motivations = shopper.profile.motivations if shopper.profile else ()
        wants = [m.description for m in motivations] or [shopper.text]
        weight = np.array([self.weights[m.strength] for m in motivations] or [1.0])
        phrases = [candidate.phrases or (candidate.text,) for candidate in candidates]
        encode = self.encoder.value.encode
        offers = encode([phrase for some in phrases for phrase in some])
        cosines = encode(wants) @ offers.T
        ends = np.cumsum([len(some) for some in phrases])
        best = [cosines[:, end - len(some) : end].max(axis=1) for some, end in zip(phrases, ends, strict=True)]
        return Alignments(
            alignments=[
                Alignment(item_id=candidate.item_id, score=float(weight @ row / weight.sum()), source="cosine")
                for candidate, row in zip(candidates, best, strict=True)
            ]
        )
