"""Chat-REC (Gao et al., 2023) as a program: a language model re-orders the first candidates of the prior.

No code was published. Here as there: the recommender's first candidates, the user's facts, and a history with what was
thought of it, in one prompt. Different: no conversation, and no items that are not candidates. A model that copies the
list gets the prior's figures, so a second program shows the same shortlist in a shuffled order.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import dspy

from programs.default_demos import SHORTLISTS
from programs.fusion import Fusion
from programs.lm.backends import Backends
from programs.mar import Candidate, Listwise
from programs.mope import HISTORY_ITEMS, Purchase, purchase_line, render_metadata
from programs.role_predictor import RolePredictor
from programs.runtime.errors import InputError
from signatures.chat import Order, rank_shortlist

SHORTLIST = 20
"""Most candidates in the prompt, unless `--head` says otherwise."""

RERANKING = frozenset({"chat-rec", "chat-rec-shuffled"})
"""Programs whose answer is the order of the prior's first candidates, see `fusion_of`."""


def fusion_of(name: str, given: Fusion) -> Fusion:
    """The given fusion, but with `RERANKING` the model's order stands, and the rest of the list is the prior's.

    Raises:
        InputError: if a gate is given with one of these: its weights would take the place of 1.
    """
    if name not in RERANKING:
        return given
    if given.gate is not None:
        raise InputError(f"{name}: the model's order stands, so that no gate gives it a weight; leave the gate out")
    return replace(given, weight=1.0, head=given.head or SHORTLIST)


class LikesDislikes(dspy.Module):
    """The user's facts, and the last purchases by whether they were liked, oldest first."""

    def forward(
        self, history: Sequence[Purchase], metadata: Mapping[str, str] | None = None, rollout: int | None = None
    ) -> dspy.Prediction:
        """Like `MOPE.forward`, without a model call: `profile` is None."""
        last = history[-HISTORY_ITEMS:]
        liked, disliked = ([one for one in last if one[1].liked is wanted] for wanted in (True, False))
        text = f"facts: {render_metadata(metadata or {})}\nliked:{_named(liked)}\ndisliked:{_named(disliked)}"
        return dspy.Prediction(profile=None, text=text, unparsable=0)


class Shortlist(Listwise):
    """Ranks the shortlist in one call, listed in the prior's order or in a shuffled one."""

    def __init__(self, order: Order, backends: Backends | None = None) -> None:
        super().__init__(backends)
        self.order = order
        self.rank = RolePredictor(rank_shortlist(order), "mar", backends, 256, SHORTLISTS)

    def listed(self, labelled: list[tuple[int, Candidate]], draw: random.Random) -> list[tuple[int, Candidate]]:
        """See `Listwise.listed`."""
        if self.order == "shuffled":
            return super().listed(labelled, draw)
        return sorted(labelled, key=lambda one: (-one[1].prior, draw.random()))


def _named(purchases: Sequence[Purchase]) -> str:
    return "".join(f"\n- {purchase_line(*purchase)}" for purchase in purchases) or " nothing"
