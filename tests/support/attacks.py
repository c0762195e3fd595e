"""Attacks and rankers under attack whose effect is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping

from evaluate.attacks.attack import Attack, Insertion
from evaluate.attacks.attacked_ranker import AttackedRanker, attacked_own_ranker
from evaluate.data.demo.store import demo_dataset
from evaluate.protocol.cases import Cases, draw_cases
from programs.ranker import ranking_from_scores
from signatures.rows import Case, Ranking, seed_of
from signatures.types import Item

MAGIC = "xyzzy"
OPEN, HIDDEN = (
    Attack("open", "instruction", title=Insertion(before=f"{MAGIC}! ")),
    Attack("hidden", "json", description=Insertion(after=f' {{"{MAGIC}": 1}}')),
)


class TitleReader:
    """Ranks items with the magic word in their title first; the others in an order that depends on their ids alone.

    Attributes:
        asked: User ids, in the order in which they were ranked.
    """

    def __init__(self, catalogue: Mapping[str, Item], asked: list[str], word: str = MAGIC) -> None:
        self.catalogue = catalogue
        self.asked = asked
        self.word = word

    def rank(self, case: Case) -> Ranking:
        self.asked.append(case.user_id)
        obeyed = [self.word in self.catalogue[item].title for item in case.candidates]
        scores = [2.0 * obeys + seed_of(item) / 2**64 for item, obeys in zip(case.candidates, obeyed, strict=True)]
        return ranking_from_scores(case, {"own": scores}, by="own")


def obeying(asked: list[str], name: str = "obeying") -> AttackedRanker:
    """A ranker that obeys a title."""
    return attacked_own_ranker(name, lambda catalogue: TitleReader(catalogue, asked), shop_cases().dataset.items)


def deaf(asked: list[str], name: str = "deaf") -> AttackedRanker:
    """A ranker that no text moves."""
    items = shop_cases().dataset.items
    return attacked_own_ranker(name, lambda catalogue: TitleReader(catalogue, asked, "no such word"), items)


def shop_cases(users: int = 4, negatives: int = 11) -> Cases:
    """Cases of the demo store."""
    return draw_cases(demo_dataset(), part="test", users=users, negatives=negatives, seed=0)
