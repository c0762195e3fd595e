"""M-LLM3Rec: MOPE, MOTE and MAR composed into one DSPy program, on top of the prior (paper, section 3).

One run records the score vectors `prior`, `mar` and `fused` of every case, so that the prior alone, MAR alone and
their fusion are compared on the same calls.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import dspy
import numpy as np
from numpy.typing import NDArray

from programs.chat_rec import LikesDislikes, Shortlist
from programs.explain import Explainer
from programs.fusion import DEFAULT_WEIGHT, Fusion, head_of, lowest, mixed
from programs.gate import GateSignals
from programs.label_aligners import FirstToken, Pairwise, Setwise
from programs.lm.backends import Backends, UnparsableError
from programs.lm.endpoints import is_server
from programs.lm.pending import independent
from programs.lm.roles import RoleName
from programs.mar import Aligner, Alignments, Candidate, Embedding, Listwise, Pointwise, Rerank, UserView
from programs.mope import MOPE, NeedsMOPE, Purchase, RawHistory
from programs.mote import MOTE, NO_TRAITS, RawDescription, UsesMOTE, known_categories
from programs.motivation_encoder import EncoderProfile, EncoderTraits, LeaningsMatch, MotivationEncoder
from programs.prior.encoders import Encoder
from programs.prior.scorers import Histories, Popularity, Scorer, scores_of
from programs.prototypes import Prototypes
from programs.ranker import order_by_score, ranking_from_scores
from programs.runtime.errors import InputError
from programs.runtime.events import OnEvent, Progress, ignore
from programs.runtime.nocopy import NoCopy
from programs.sales_evidence import EvidenceMOTE, SalesEvidence
from programs.trait_likelihood import TraitLikelihood
from programs.trait_store import TraitStore
from programs.tuned.aligner import RecentTitles, ShortTitle, TunedAligner
from programs.tuned.reader import Reader
from signatures.rows import Case, Ranking, Status, seed_of
from signatures.schema import CONSUMER, MotivationSchema
from signatures.types import Interaction, Item, Traits, with_items

_PROFILE, _TRAITS, _ALIGNMENT = "profile of the user", "traits of the candidates", "ranking the candidates"
"""Tasks of progress events."""


class MLLM3Rec(dspy.Module):
    """The composed program, and a `Ranker` through `rank`.

    Args:
        shopper: User view: `MOPE` (the default), or `RawHistory` for the ablation without it.
        product: Item view: `MOTE` (the default), or `RawDescription` for the ablation without it.
        aligner: `Listwise` (the default), `Pointwise`, `Embedding`, `Rerank`, `TraitLikelihood`, one of
            `programs.label_aligners`, or without a server: `LeaningsMatch` (with `EncoderProfile` and `EncoderTraits`),
            `TunedAligner`.
        catalogue: Items by id; without one, every id is read as a free text.
        prior: Scores candidates from the history without a language model; without one MAR alone decides.
        fusion: How both scores are combined.
        reasons: Explains the first `explain` items; None for no explanations.
        explain: K of the paper's top-K selection; 0 keeps the fused order. With reasons, all users are asked about.
        owned: Items that somebody has, for the gate; None if unknown.

    Attributes:
        draw: Number of the draw of labels and order in MAR's prompt. Other numbers show what the same program scores
            with other labels; every run has 0.
    """

    draw = 0

    def __init__(
        self,
        shopper: dspy.Module | None = None,
        product: dspy.Module | None = None,
        aligner: dspy.Module | None = None,
        catalogue: Mapping[str, Item] | None = None,
        prior: Scorer | None = None,
        fusion: Fusion | None = None,
        reasons: Explainer | None = None,
        explain: int = 0,
        owned: Collection[str] | None = None,
    ) -> None:
        super().__init__()
        self.shopper = shopper or MOPE()
        self.product = product or MOTE()
        self.aligner = aligner or Listwise()
        self.reasons = reasons
        self.explain = explain
        self.fusion = fusion or Fusion()
        self.catalogue = NoCopy(_FreeTexts() if catalogue is None else catalogue)
        self.prior = NoCopy(prior or Popularity({}))
        self.owned = NoCopy(owned)

    def forward(
        self,
        case: Case | None = None,
        history: Sequence[str] = (),
        candidates: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
        on_event: OnEvent = ignore,
        ask_all: bool = False,
    ) -> dspy.Prediction:
        """Rank one case; without one, rank `candidates` for `history`.

        Args:
            history: Item ids, oldest first.
            candidates: Distinct item ids.
            metadata: z_u of eq. 6.
            on_event: Gets the progress within this one user: profile, traits, ranking, reasons.
            ask_all: Whether to ask about users, too, whom the gate leaves to the prior.

        Returns:
            Prediction with `ranking`, a `Ranking` without usage; MAR's own scores `mar`, None for a candidate that it
            did not score; the 1-based positions of the candidates in MAR's prompt, `shown`, None where there is none;
            and the user's `signals` for a gate.
        """
        if case is None:
            events = tuple(Interaction(item_id=item) for item in history)
            case = Case(user_id="user", history=events, candidates=tuple(candidates), metadata=dict(metadata or {}))
        # DSPy's evaluators hand over whole examples.
        case = case.blinded()
        prior = np.asarray(scores_of(self.prior.value, case), dtype=float)
        signals = GateSignals.of(case, prior, self.owned.value)
        explains = self.reasons is not None and self.explain > 0
        if not (ask_all or explains or self.fusion.asks(signals)):
            nothing = [None] * len(case.candidates)
            return dspy.Prediction(ranking=prior_alone(case, prior), mar=nothing, shown=nothing, signals=signals)
        ranking = Ranking(user_id=case.user_id, order=())
        ties = seed_of("ties", case.user_id)
        head = head_of(prior, self.fusion.head, ties)
        most: int | None = getattr(self.aligner, "most", None)
        if most is not None and len(head) > most:
            raise InputError(f"{len(head)} candidates: this program ranks at most {most}; use --head {most}")
        mar = np.full(len(case.candidates), np.nan)
        shown: list[int | None] = [None] * len(case.candidates)
        candidates_seen: list[Candidate] = []
        user = UserView(text="")
        try:
            user, candidates_seen = self.views(case, head, prior, ranking, on_event)
            result = self._aligned(case, user, candidates_seen, on_event)
            for index, alignment in zip(head, result.alignments, strict=True):
                if alignment is not None:
                    mar[index] = alignment.score
            for index, place in zip(head, result.shown, strict=False):
                shown[index] = place
            _count(ranking, result)
        except UnparsableError as error:
            ranking.unparsable += error.answers
            ranking.error = str(error)
        if np.isnan(mar).all():
            # Not one score: the row is ranked by the prior and counted as unparsable.
            ranking.status = Status.UNPARSABLE
            ranking.error = ranking.error or "no answer names or rates a candidate"
        signals = GateSignals.of(case, prior, self.owned.value, mar)
        fused = self.fusion.of_user(signals).fuse(mar, prior, ties)
        own = [None if np.isnan(score) else float(score) for score in mar]
        mar = np.where(np.isnan(mar), lowest(mar) - 1.0, mar)
        ranking.scores = {"prior": prior.tolist(), "mar": mar.tolist(), "fused": fused.tolist()}
        ranking.order = order_by_score(case.candidates, fused.tolist(), tie_seed=ties)
        if self.reasons is not None and self.explain and ranking.status is Status.OK:
            self._explain(self.reasons, ranking, user, candidates_seen, on_event)
        return dspy.Prediction(ranking=ranking, mar=own, shown=shown, signals=signals)

    def purchases(self, case: Case) -> list[Purchase]:
        """The history of a case with its items; items that are not in the catalogue are left out."""
        return with_items(case.history, self.catalogue.value)

    def rank(self, case: Case, on_event: OnEvent = ignore) -> Ranking:
        """See `programs.ranker.Ranker`; `on_event` as in `forward`."""
        ranking: Ranking = self(case=case, on_event=on_event).ranking
        return ranking

    def views(
        self, case: Case, head: NDArray[np.intp], prior: NDArray[np.float64], ranking: Ranking, on_event: OnEvent
    ) -> tuple[UserView, list[Candidate]]:
        """The user and the candidates as MAR reads them, those at the indices `head`; kept in `ranking`, too.

        Raises:
            UnparsableError: if no profile could be read.
        """
        seen: list[Candidate] = []
        with independent() as step:
            on_event(Progress(_PROFILE, 0, 1))
            with step():
                user = self._user_view(self.purchases(case), case.metadata, ranking)
            on_event(Progress(_PROFILE, 1, 1))
            for done, index in enumerate(head):
                on_event(Progress(_TRAITS, done, len(head)))
                with step():
                    own = self._candidate(self.catalogue.value[case.candidates[index]], ranking)
                    seen.append(replace(own, prior=float(prior[index])))
        on_event(Progress(_TRAITS, len(head), len(head)))
        return user, seen

    def _aligned(self, case: Case, user: UserView, seen: Sequence[Candidate], on_event: OnEvent) -> Alignments:
        if asks := not isinstance(self.aligner, Embedding):
            on_event(Progress(_ALIGNMENT, 0, 1))
        seed = seed_of("labels", case.user_id, *([self.draw] if self.draw else []))
        result: Alignments = self.aligner(user=user, candidates=seen, seed=seed)
        if asks:
            on_event(Progress(_ALIGNMENT, 1, 1))
        return result

    def _user_view(self, history: Sequence[Purchase], metadata: Mapping[str, str], ranking: Ranking) -> UserView:
        answer = self.shopper(history=history, metadata=metadata)
        ranking.profile = answer.profile
        ranking.unparsable += answer.unparsable
        return UserView(text=answer.text, profile=answer.profile, leanings=answer.get("leanings", ()))

    def _candidate(self, item: Item, ranking: Ranking) -> Candidate:
        try:
            answer = self.product(item=item)
        except UnparsableError as error:
            # One item without traits must not fail the whole list.
            ranking.unparsable += error.answers
            return Candidate(item_id=item.item_id, text=NO_TRAITS)
        ranking.unparsable += answer.unparsable
        traits: Traits | None = answer.traits
        if traits is not None:
            ranking.traits.append(traits)
        phrases = traits.all_phrases if traits else ()
        return Candidate(item.item_id, answer.text, phrases, leanings=answer.get("leanings", ()))

    def _explain(
        self, reasons: Explainer, ranking: Ranking, user: UserView, seen: Sequence[Candidate], on_event: OnEvent
    ) -> None:
        by_id = {candidate.item_id: candidate for candidate in seen}
        ordered = [by_id[item_id] for item_id in ranking.order if item_id in by_id]
        first, ranking.rationales = reasons.choose(user, ordered, self.explain, 2 * self.explain, on_event)
        ranking.unparsable += sum(rationale.unparsable for rationale in ranking.rationales)
        rest = [item_id for item_id in ranking.order if item_id not in by_id]
        ranking.order = (*(candidate.item_id for candidate in first), *rest)


class _FreeTexts(Mapping[str, Item]):
    """Catalogue of a program that was given none: every id is the text of an item."""

    def __getitem__(self, item_id: str) -> Item:
        return Item.from_text(item_id)

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and bool(item_id)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def prior_alone(case: Case, prior: NDArray[np.float64]) -> Ranking:
    """The prior's order, for a user whom the gate does not ask about."""
    scores = {"prior": prior.tolist(), "fused": prior.tolist()}
    return ranking_from_scores(case, scores, by="fused").model_copy(update={"asked": False})


def _count(ranking: Ranking, result: Alignments) -> None:
    ranking.appended = result.appended
    ranking.dropped = result.dropped
    ranking.unparsable += result.unparsable
    ranking.by_position = result.by_position
    sources = sorted({alignment.source for alignment in result.alignments if alignment is not None})
    ranking.score_source = "+".join(sources) or None


@dataclass(frozen=True)
class Parts:
    """The parts that programs are composed of.

    Attributes:
        encoder: For the embedding aligner.
        traits: Store of distilled traits.
        explain: Number of first items that get a reason.
        check: Whether the judge checks reasons; without it every reason counts as faithful.
        histories: Training data, for sales evidence and the gate.
        prototypes: Of a compiled program `encoder`; None: the definitions of the schema.
        reader: For `tuned` and `tuned-profiles`; None: their default base, not fine-tuned.
    """

    backends: Backends
    catalogue: Mapping[str, Item]
    prior: Scorer
    encoder: Encoder
    traits: TraitStore
    schema: MotivationSchema = CONSUMER
    fusion: Fusion = field(default_factory=Fusion)
    explain: int = 0
    check: bool = True
    histories: Histories = field(default_factory=dict)
    prototypes: Prototypes | None = None
    reader: Reader | None = None

    @cached_property
    def owned(self) -> frozenset[str] | None:
        """Items that somebody has; None without training data."""
        return frozenset(Popularity.fit(self.histories).counts) or None


def _compose(
    parts: Parts, shopper: dspy.Module, product: dspy.Module, aligner: dspy.Module, writer: RoleName = "mar"
) -> MLLM3Rec:
    reasons = Explainer(parts.backends, parts.check, writer) if parts.explain else None
    return MLLM3Rec(
        shopper, product, aligner, parts.catalogue, parts.prior, parts.fusion, reasons, parts.explain, parts.owned
    )


def _mope(parts: Parts) -> MOPE:
    return MOPE(parts.backends, parts.schema)


def _mote(parts: Parts) -> MOTE:
    return MOTE(parts.backends, parts.traits, known_categories(parts.catalogue))


def pointwise(parts: Parts) -> MLLM3Rec:
    """MOPE, MOTE, and a rating for each candidate alone (eq. 8)."""
    return _compose(parts, _mope(parts), _mote(parts), Pointwise(parts.backends))


def listwise(parts: Parts) -> MLLM3Rec:
    """MOPE, MOTE, and one ranking of all candidates (the paper's Figure 1)."""
    return _compose(parts, _mope(parts), _mote(parts), Listwise(parts.backends))


def embedding(parts: Parts) -> MLLM3Rec:
    """MOPE, MOTE, and phrases compared in embedding space: no model call for MAR."""
    return _compose(parts, _mope(parts), _mote(parts), Embedding(parts.encoder))


def rerank(parts: Parts) -> MLLM3Rec:
    """MOPE, MOTE, and a reranker in place of MAR's language model: MAR's model is one behind `/v1/rerank`.

    Raises:
        InputError: if reasons are asked for, and the judge's model, which writes them, is the reranker.
    """
    roles = parts.backends.roles
    if parts.explain and roles.judge.model == roles.mar.model:
        raise InputError("rerank: a reranker writes no reasons; name a chat model for them with --judge")
    return _compose(parts, _mope(parts), _mote(parts), Rerank(parts.backends), writer="judge")


def first_token(parts: Parts) -> MLLM3Rec:
    """MOPE, MOTE, and the labels' log-probabilities of two orders of all candidates, calibrated."""
    return _compose(parts, _mope(parts), _mote(parts), FirstToken(parts.backends))


def first_token_raw(parts: Parts) -> MLLM3Rec:
    """`first-token` without calibration: half the calls."""
    return _compose(parts, _mope(parts), _mote(parts), FirstToken(parts.backends, calibrate=False))


def setwise(parts: Parts) -> MLLM3Rec:
    """MOPE, MOTE, and the labels' log-probabilities in groups of up to five candidates, calibrated."""
    return _compose(parts, _mope(parts), _mote(parts), Setwise(parts.backends))


def pairwise(parts: Parts) -> MLLM3Rec:
    """MOPE, MOTE, and the labels' log-probabilities for pairs of candidates in both orders."""
    return _compose(parts, _mope(parts), _mote(parts), Pairwise(parts.backends))


def likelihood(parts: Parts) -> MLLM3Rec:
    """MOPE, MOTE, and how likely each candidate's traits are after the profile: MAR's model is one behind a server.

    Raises:
        InputError: if MAR's model is not behind a server.
    """
    model = parts.backends.roles.mar.model
    if not is_server(model):
        raise InputError(
            f"likelihood: {model[:200]!r} gives no log-probabilities of a prompt: neither the engine in this process "
            "nor a provider does; serve a model with vLLM, and name it with --mar http://host:port/v1#model"
        )
    return _compose(parts, _mope(parts), _mote(parts), TraitLikelihood(parts.backends))


def without_mope(parts: Parts) -> MLLM3Rec:
    """The paper's ablation without MOPE: MAR reads the raw history (section 5.1, table 5)."""
    return _compose(parts, RawHistory(), _mote(parts), Listwise(parts.backends, shopper_text="history"))


def without_mote(parts: Parts) -> MLLM3Rec:
    """The paper's ablation without MOTE: MAR reads raw descriptions (section 5.1, table 5)."""
    return _compose(parts, _mope(parts), RawDescription(), Listwise(parts.backends, product_text="description"))


def without_reflection(parts: Parts) -> MLLM3Rec:
    """Ablation without MOPE's reflective prompt (section 3.1.3)."""
    mope = MOPE(parts.backends, parts.schema, reflect=False)
    return _compose(parts, mope, _mote(parts), Listwise(parts.backends))


def embedding_without_reflection(parts: Parts) -> MLLM3Rec:
    """`embedding` with MOPE's first answer: one short model call per user beyond the traits."""
    mope = MOPE(parts.backends, parts.schema, reflect=False)
    return _compose(parts, mope, _mote(parts), Embedding(parts.encoder))


def llm_only(parts: Parts) -> MLLM3Rec:
    """The paper's minimal baseline: raw history and raw candidates in one prompt (section 4.4)."""
    aligner = Listwise(parts.backends, shopper_text="history", product_text="description")
    return _compose(parts, RawHistory(), RawDescription(), aligner)


def chat_rec(parts: Parts) -> MLLM3Rec:
    """Chat-REC: likes, dislikes and the prior's first candidates, in the prior's order, in one prompt."""
    return _compose(parts, LikesDislikes(), RawDescription(), Shortlist("recommended", parts.backends))


def chat_rec_shuffled(parts: Parts) -> MLLM3Rec:
    """`chat-rec` with the candidates in a shuffled order: what the model adds beyond copying the list."""
    return _compose(parts, LikesDislikes(), RawDescription(), Shortlist("shuffled", parts.backends))


def needs(parts: Parts) -> MLLM3Rec:
    """`embedding` with needs in the profile, and occasions and users in the traits; beyond the paper."""
    return _compose(parts, NeedsMOPE(parts.backends, parts.schema), _uses(parts), Embedding(parts.encoder))


def needs_pointwise(parts: Parts) -> MLLM3Rec:
    """`pointwise` with needs in the profile, and occasions and users in the traits; beyond the paper."""
    return _compose(parts, NeedsMOPE(parts.backends, parts.schema), _uses(parts), Pointwise(parts.backends))


def _uses(parts: Parts) -> UsesMOTE:
    return UsesMOTE(parts.backends, parts.traits, known_categories(parts.catalogue))


def evidence(parts: Parts) -> MLLM3Rec:
    """`listwise` with sales evidence in words beside the traits; beyond the paper."""
    categories = known_categories(parts.catalogue)
    sales = SalesEvidence(parts.histories, parts.catalogue, categories)
    mote = EvidenceMOTE(sales, parts.backends, parts.traits, categories)
    return _compose(parts, _mope(parts), mote, Listwise(parts.backends))


def encoder(parts: Parts) -> MLLM3Rec:
    """Motivations from the sentence encoder: no language model at all, and so no reasons."""
    motivations = MotivationEncoder(parts.encoder, parts.schema, parts.catalogue, parts.prototypes)
    without = replace(parts, explain=0)
    return _compose(without, EncoderProfile(motivations), EncoderTraits(motivations), LeaningsMatch())


def tuned(parts: Parts) -> MLLM3Rec:
    """Recent titles and a local model that answers yes or no, fine-tuned or as it is: no calls, and so no reasons."""
    return _compose(replace(parts, explain=0), RecentTitles(), ShortTitle(), TunedAligner(parts.reader))


def tuned_profiles(parts: Parts) -> MLLM3Rec:
    """MOPE and MOTE, and the local model of `tuned`, which reads profile and traits; beyond the paper."""
    return _compose(parts, _mope(parts), _mote(parts), TunedAligner(parts.reader))


PROGRAMS: dict[str, Callable[[Parts], MLLM3Rec]] = {
    "pointwise": pointwise,
    "listwise": listwise,
    "embedding": embedding,
    "rerank": rerank,
    "first-token": first_token,
    "first-token-raw": first_token_raw,
    "setwise": setwise,
    "pairwise": pairwise,
    "likelihood": likelihood,
    "without-mope": without_mope,
    "without-mote": without_mote,
    "without-reflection": without_reflection,
    "embedding-without-reflection": embedding_without_reflection,
    "llm-only": llm_only,
    "chat-rec": chat_rec,
    "chat-rec-shuffled": chat_rec_shuffled,
    "needs": needs,
    "needs-pointwise": needs_pointwise,
    "evidence": evidence,
    "encoder": encoder,
    "tuned": tuned,
    "tuned-profiles": tuned_profiles,
}
"""Programs by the name they have on the command line."""

WITHOUT_MODEL = frozenset({"encoder", "tuned"})
"""Programs that need no language model to rank."""

__all__ = [
    "DEFAULT_WEIGHT", "PROGRAMS", "WITHOUT_MODEL", "Aligner", "Fusion", "MLLM3Rec", "Parts", "head_of", "mixed",
    "prior_alone",
]  # fmt: skip
