"""`AttackedRanker`: a ranker that ranks a case on a catalogue in which one item has another text.

Whatever does not depend on that text is shared: the fitted parts of the prior, the language models, the trait store and
the response cache. So an attack costs the calls that read the attacked text, and no others.
"""

from __future__ import annotations

import copy
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evaluate.ranker_factory import RankerFactory
from programs.mote import MOTE
from programs.prior.encoders import Encoder
from programs.prior.prior import Prior
from programs.prior.prior_v2 import PriorV2
from programs.prior.score_ranker import ScoreRanker
from programs.prior.scorers import ContentSimilarity, Scorer
from programs.program import MLLM3Rec
from programs.ranker import Ranker
from programs.runtime.errors import InputError
from programs.runtime.nocopy import NoCopy
from signatures.rows import Case, Ranking
from signatures.types import Item

RankEdited = Callable[[Case, Item | None], Ranking]
"""Ranks a case on the catalogue in which this item stands in place of the one with its id; None: as it is."""

RankerOf = Callable[[Mapping[str, Item]], Ranker]
"""Makes a ranker for a catalogue: how a ranker of one's own is attacked."""


@dataclass(frozen=True)
class AttackedRanker:
    """A ranker under attack.

    Attributes:
        name: Its name in results.
        with_mote: Whether it reads traits, not sellers' texts: the goal of the suite is for these.
        configuration: Everything that decides its rankings besides cases and attacks, for the run's manifest.
    """

    name: str
    rank: RankEdited
    with_mote: bool = False
    configuration: Mapping[str, Any] = field(default_factory=dict)


def attacked_ranker(
    name: str, ranker: Ranker, factory: RankerFactory, configuration: Mapping[str, Any]
) -> AttackedRanker:
    """A baseline or a program under attack.

    Args:
        factory: What the ranker was made by.

    Raises:
        InputError: if the ranker is trained: its item texts cannot be exchanged without training it again.
    """
    if not isinstance(ranker, ScoreRanker | MLLM3Rec):
        raise InputError(
            f"{name}: trained rankers are not attacked, because they would have to be trained again for every attack; "
            "name an untrained baseline or a program"
        )

    def rank(case: Case, item: Item | None) -> Ranking:
        return (ranker if item is None else with_item(ranker, case, item, factory)).rank(case)

    with_mote = isinstance(ranker, MLLM3Rec) and isinstance(ranker.product, MOTE)
    return AttackedRanker(name, rank, with_mote, configuration)


def attacked_own_ranker(name: str, ranker_of: RankerOf, catalogue: Mapping[str, Item]) -> AttackedRanker:
    """A ranker of one's own under attack; it is made once for the catalogue as it is, and once for every edit."""
    unedited = ranker_of(catalogue)

    def rank(case: Case, item: Item | None) -> Ranking:
        return (unedited if item is None else ranker_of(edited_catalogue(catalogue, item))).rank(case)

    return AttackedRanker(name, rank, configuration={"own ranker": name})


def edited_catalogue(catalogue: Mapping[str, Item], item: Item) -> Mapping[str, Item]:
    """The catalogue with one item replaced, or added; the catalogue itself is not changed."""
    return ChainMap({item.item_id: item}, catalogue)  # type: ignore[arg-type]  # nothing is written into the second


def with_item(ranker: ScoreRanker | MLLM3Rec, case: Case, item: Item, factory: RankerFactory) -> Ranker:
    """The ranker on a catalogue with another text of one item, for one case."""
    if isinstance(ranker, ScoreRanker):
        return ScoreRanker(ranker.name, with_text(ranker.scorer, item, factory.encoder))
    program = copy.copy(ranker)
    program.catalogue = NoCopy(edited_catalogue(ranker.catalogue.value, item))
    program.prior = NoCopy(with_text(ranker.prior.value, item, factory.encoder))
    return program


def with_text(scorer: Scorer, item: Item, encoder: Encoder) -> Scorer:
    """The scorer with another text of one item; a scorer that reads no texts is returned as it is."""
    if not isinstance(scorer, Prior | PriorV2 | ContentSimilarity):
        return scorer
    content = scorer if isinstance(scorer, ContentSimilarity) else scorer.content
    edited = content.with_vector(item.item_id, encoder.encode([item.text])[0] if item.text else None)
    return edited if isinstance(scorer, ContentSimilarity) else scorer.on(edited)
