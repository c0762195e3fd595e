"""Which likelihood of titles decides: chosen on dev lists, kept, and never on the lists to rank."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluate.baselines.titles import (
    CHOICE_FILE,
    LIKELIHOODS,
    TitleRanker,
    better_than_mean,
    dev_ndcg,
)
from programs.runtime.events import Event, Note, ignore
from signatures.rows import Case
from signatures.types import Item
from tests.support.cases import case

ITEMS = {name: Item(item_id=name, title=name) for name in ("red cap", "blue cap", "hat", "a very common long title")}


class Words:
    """A model of a few lines: a title is likely by the share of its words in the prompt, and by how common it is."""

    def __init__(self, common: dict[str, float]) -> None:
        self.common, self.prompts = common, 0

    def logits(self, prefix: str, suffixes: Sequence[str]) -> NDArray[np.float64]:
        """Mean log-likelihood of each title, shape (k,)."""
        self.prompts += 1
        shared = [np.mean([word in prefix.split() for word in suffix.split()]) for suffix in suffixes]
        return np.array([self.common.get(s.strip(), 0.0) for s in suffixes]) + shared - 3.0

    def lengths(self, suffixes: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each title, shape (k,)."""
        return np.array([len(suffix.split()) for suffix in suffixes])


class Plain:
    """Titles of the history in one line."""

    def prefix(self, case: Case) -> str:
        """See `Wording.prefix`."""
        return " ".join(event.item_id for event in case.history)

    def suffix(self, item: Item) -> str:
        """See `Wording.suffix`."""
        return f" {item.display_title}\n"


def ranker_of(common: dict[str, float]) -> tuple[TitleRanker, Words]:
    words: Any = Words(common)
    return TitleRanker("titles", words, Plain(), ITEMS), words


def like(history: str, target: str) -> Case:
    return case([history], list(ITEMS)).model_copy(update={"target": target})


DEV = [like("red thing", "red cap"), like("blue thing", "blue cap")]
COMMON = {"a very common long title": 2.0, "hat": 2.5}


def test_pmi_decides_where_common_titles_hide_what_the_user_adds(tmp_path: Path) -> None:
    ranker, _ = ranker_of(COMMON)
    assert ranker.rank(DEV[0]).order[0] == "hat"
    seen: list[Event] = []
    ranker.choose(DEV, tmp_path, seen.append)
    ranking = ranker.rank(DEV[0])
    assert ranker.decides == "pmi" and ranking.order[0] == "red cap"
    assert set(ranking.scores) == {"titles", *(f"titles-{way}" for way in LIKELIHOODS)}
    assert ranking.scores["titles"] == ranking.scores["titles-pmi"]
    assert any(isinstance(event, Note) and "pmi decides" in event.text for event in seen)


def test_the_mean_decides_where_no_other_is_better(tmp_path: Path) -> None:
    ranker, _ = ranker_of({})
    found = dev_ndcg(ranker, DEV)
    assert found["mean"].tolist() == found["pmi"].tolist() == [1.0, 1.0]
    ranker.choose(DEV, tmp_path, ignore)
    assert ranker.decides == "mean"


def test_a_choice_is_kept_and_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    ranker_of(COMMON)[0].choose(DEV, tmp_path, ignore)
    ranker, words = ranker_of(COMMON)
    ranker.choose(DEV, tmp_path, ignore)
    assert ranker.decides == "pmi" and words.prompts == 0
    for damaged in ("", "[]", '{"decides": "nothing"}', '{"decides": ["pmi"]}'):
        (tmp_path / CHOICE_FILE).write_text(damaged)
        ranker, words = ranker_of(COMMON)
        ranker.choose(DEV, tmp_path, ignore)
        assert ranker.decides == "pmi" and words.prompts == 2 * len(DEV)
        assert json.loads((tmp_path / CHOICE_FILE).read_text())["users"] == len(DEV)


@pytest.mark.parametrize("way", LIKELIHOODS)
def test_the_figures_of_the_choice_are_those_of_the_orders(way: Any) -> None:
    ranker, _ = ranker_of(COMMON)
    ranker.decides = way
    first = sum(ranker.rank(one).order[0] == one.target for one in DEV)
    assert (dev_ndcg(ranker, DEV)[way] == 1.0).sum() == first


def test_a_lead_within_one_standard_error_is_chance() -> None:
    mean = np.zeros(16)
    one, eight = np.eye(1, 16)[0], np.repeat([1.0, 0.0], 8)
    assert better_than_mean({"mean": mean, "sum": mean, "pmi": one}) == "mean"
    assert better_than_mean({"mean": mean, "sum": one, "pmi": eight}) == "pmi"
    assert better_than_mean({"mean": eight, "sum": mean, "pmi": mean}) == "mean"
    assert better_than_mean({"mean": mean[:1], "sum": eight[:1], "pmi": mean[:1]}) == "mean"
