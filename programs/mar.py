"""MAR, the Motivational Alignment Recommender: scores candidates against a user's motivations (paper, section 3.3).

Four aligners with one interface: `Pointwise` rates each candidate alone (eq. 8), `Listwise` ranks all of them in one
call (the paper's Figure 1), `Embedding` compares phrases without a model call, `Rerank` asks a reranker.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, get_args, runtime_checkable

import dspy
import numpy as np
from numpy.typing import NDArray

from programs.default_demos import RANKINGS, RATINGS
from programs.lm.ambient import AmbientBackends
from programs.lm.backends import Backends, UnparsableError
from programs.lm.logprobs import expected_label
from programs.lm.pending import independent
from programs.lm.roles import RoleName
from programs.lm.routes import RERANK
from programs.prior.encoders import Encoder
from programs.role_predictor import RolePredictor
from programs.runtime.greenlets import off_loop
from programs.runtime.nocopy import NoCopy
from signatures.mar import FIRST_LABEL, LAST_LABEL, ItemText, Rating, UserText, rank_candidates, score_candidate
from signatures.types import Alignment, Profile

RATING_LABELS: tuple[str, ...] = get_args(Rating)


@dataclass
class Alignments:
    """Result of an aligner for one list.

    Attributes:
        alignments: One per candidate, in the order given; None where the model gave no usable score.
        appended: Number of candidates without a score.
        dropped: Number of labels the model wrote that name no candidate, or repeat one.
        unparsable: Number of answers that could not be parsed.
        shown: 1-based position of each candidate in the prompt; empty where each is asked for alone.
        by_position: Mean score before calibration by position in the prompt, where log-probabilities of labels were
            read: a model without a preference for positions has zeros on average.
    """

    alignments: list[Alignment | None] = field(default_factory=list)
    appended: int = 0
    dropped: int = 0
    unparsable: int = 0
    shown: tuple[int, ...] = ()
    by_position: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Candidate:
    """A candidate as MAR reads it: the text of its traits, and only in ablations the seller's text.

    Attributes:
        leanings: See `programs.motivation_encoder`; empty with a language model.
        prior: Its score by the prior, for a prompt in the prior's order.
    """

    item_id: str
    text: str
    phrases: tuple[str, ...] = ()
    leanings: tuple[float, ...] = ()
    prior: float = 0.0


@dataclass(frozen=True)
class UserView:
    """A user as MAR reads them: a text, and the profile it was rendered from where there is one.

    Attributes:
        leanings: See `programs.motivation_encoder`; empty with a language model.
    """

    text: str
    profile: Profile | None = None
    leanings: tuple[float, ...] = ()


@runtime_checkable
class Aligner(Protocol):
    """Scores a list of candidates for one user."""

    def __call__(self, *, user: UserView, candidates: Sequence[Candidate], seed: int) -> Alignments:
        """Score the candidates; `seed` decides labels and order in the prompt."""
        ...


class Pointwise(dspy.Module):
    """Rates each candidate independently, from 1 to 5 (section 3.3.2).

    The score is the expected rating over the rating tokens where the backend gives log-probabilities, which avoids
    ties, else the rating as written. The user comes before the item in the prompt, so that a server's prefix cache
    covers everything but the item.
    """

    def __init__(
        self,
        backends: Backends | None = None,
        shopper_text: UserText = "profile",
        product_text: ItemText = "traits",
    ) -> None:
        super().__init__()
        self.score = RolePredictor(score_candidate(shopper_text, product_text), "mar", backends, 4, RATINGS)

    def forward(self, user: UserView, candidates: Sequence[Candidate], seed: int) -> Alignments:
        """One call per candidate. A candidate whose answer is not a rating has no score."""
        result = Alignments()
        with independent() as step:
            for candidate in candidates:
                with step():
                    result.alignments.append(self._rated(user, candidate, result))
        result.appended = result.alignments.count(None)
        return result

    def _rated(self, user: UserView, candidate: Candidate, result: Alignments) -> Alignment | None:
        """One call; its unparsable answers are counted in `result`."""
        try:
            answer = self.score(shopper=user.text, product=candidate.text)
        except UnparsableError as error:
            result.unparsable += error.answers
            return None
        result.unparsable += answer.unparsable
        expected = expected_label(getattr(answer, "logprobs", None), RATING_LABELS)
        if expected is None:
            return Alignment(item_id=candidate.item_id, score=float(answer.rating), source="integer")
        return Alignment(item_id=candidate.item_id, score=expected, source="logprobs")


def draw_labels(draw: random.Random, n: int) -> list[int]:
    """Opaque, distinct two-digit labels for `n` candidates."""
    return draw.sample(range(FIRST_LABEL, LAST_LABEL + 1), n)


def render_candidates(shown: Sequence[tuple[int, Candidate]]) -> str:
    """Labelled candidates as the listwise prompt shows them, one a line."""
    return "\n".join(f"{label}: {candidate.text}" for label, candidate in shown)


class Listwise(dspy.Module):
    """Ranks all candidates in one call, as opaque labels in shuffled order; both are drawn per call from the seed.

    Attributes:
        most: Most candidates in a list: the number of labels.
    """

    most = LAST_LABEL - FIRST_LABEL + 1

    def __init__(
        self,
        backends: Backends | None = None,
        shopper_text: UserText = "profile",
        product_text: ItemText = "traits",
    ) -> None:
        super().__init__()
        self.rank = RolePredictor(rank_candidates(shopper_text, product_text), "mar", backends, 256, RANKINGS)

    def forward(self, user: UserView, candidates: Sequence[Candidate], seed: int) -> Alignments:
        """One call. A candidate's score is the number of candidates ranked below it or left out of the ranking.

        Raises:
            ValueError: if there are more candidates than two-digit labels.
        """
        if len(candidates) > self.most:
            raise ValueError(f"{len(candidates)} candidates: a list holds at most {self.most}")
        draw = random.Random(seed)  # noqa: S311 - a reproducible shuffle, no secret
        labels = draw_labels(draw, len(candidates))
        shown = self.listed(list(zip(labels, candidates, strict=True)), draw)
        products = render_candidates(shown)
        places = {label: place for place, (label, _) in enumerate(shown, start=1)}
        result = Alignments(alignments=[None] * len(candidates), shown=tuple(places[label] for label in labels))
        try:
            answer = self.rank(
                shopper=user.text,
                products=products,
                enough=6 * len(candidates) + 32,
                accept=lambda answer: not set(labels).isdisjoint(answer.ranking),
            )
        except UnparsableError as error:
            result.unparsable = error.answers
            result.appended = len(candidates)
            return result
        index_of = {label: index for index, label in enumerate(labels)}
        named = [index_of[label] for label in dict.fromkeys(answer.ranking) if label in index_of]
        for rank, index in enumerate(named):
            score = float(len(candidates) - 1 - rank)
            result.alignments[index] = Alignment(item_id=candidates[index].item_id, score=score, source="rank")
        result.appended = len(candidates) - len(named)
        result.dropped = len(answer.ranking) - len(named)
        result.unparsable = answer.unparsable
        return result

    def listed(self, labelled: list[tuple[int, Candidate]], draw: random.Random) -> list[tuple[int, Candidate]]:
        """The labelled candidates in the order of the prompt."""
        return draw.sample(labelled, len(labelled))


class Embedding(dspy.Module):
    """Compares phrases of the profile with phrases of the traits by cosine: no model call beyond the profile's.

    Score(u, i) is the mean over motivations, weighted 3:2:1 by strength, of the best cosine between the
    motivation's description and any trait. Needs, where the profile has them, count like strong motivations.
    """

    weights = {"strong": 3.0, "moderate": 2.0, "weak": 1.0}  # noqa: RUF012 - a constant of the formula
    need_weight = 3.0

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = NoCopy(encoder)

    def forward(self, user: UserView, candidates: Sequence[Candidate], seed: int) -> Alignments:
        """Score by cosine. Without a profile the user's whole text is compared."""
        profile = user.profile or Profile()
        descriptions = list(profile.phrases) or [user.text]
        strengths = [self.weights[m.strength] for m in profile.motivations]
        weight = np.array([*strengths, *(self.need_weight for _ in profile.needs)] or [1.0])
        phrases = [candidate.phrases or (candidate.text,) for candidate in candidates]
        cosines = off_loop(self._cosines, descriptions, [phrase for own in phrases for phrase in own])
        ends = np.cumsum([len(own) for own in phrases])
        best = [cosines[:, end - len(own) : end].max(axis=1) for own, end in zip(phrases, ends, strict=True)]
        return Alignments(
            alignments=[
                Alignment(item_id=candidate.item_id, score=float(weight @ row / weight.sum()), source="cosine")
                for candidate, row in zip(candidates, best, strict=True)
            ]
        )

    def _cosines(self, descriptions: Sequence[str], phrases: Sequence[str]) -> NDArray[np.float32]:
        encode = self.encoder.value.encode
        vectors = encode(phrases)
        cosines: NDArray[np.float32] = encode(descriptions) @ vectors.T
        return cosines


class Rerank(dspy.Module):
    """Scores each candidate's text for the user's text by a reranker behind `/v1/rerank` (Cohere, Jina, vLLM, ...).

    Such a model reads a query and a document together and gives one number; it has no prompt, so there is nothing to
    compile. One call scores all candidates.

    Attributes:
        role: The role whose model is asked.
    """

    role: RoleName = "mar"

    def __init__(self, backends: Backends | None = None) -> None:
        super().__init__()
        self.backends = AmbientBackends() if backends is None else backends

    def forward(self, user: UserView, candidates: Sequence[Candidate], seed: int) -> Alignments:
        """One call. A candidate that the answer leaves out has no score."""
        result = Alignments()
        try:
            scores: list[float | None] = self.backends.ask_route(
                self.role,
                self.backends.roles.of(self.role),
                RERANK,
                query=user.text,
                documents=[candidate.text for candidate in candidates],
                top_n=len(candidates),
            )
        except UnparsableError as error:
            return Alignments([None] * len(candidates), len(candidates), unparsable=error.answers)
        result.alignments = [
            None if score is None else Alignment(item_id=candidate.item_id, score=score, source="relevance")
            for candidate, score in zip(candidates, scores, strict=True)
        ]
        result.appended = result.alignments.count(None)
        return result
