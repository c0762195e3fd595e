"""The program `tuned` with a reader of a few lines, and what it asks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from numpy.typing import NDArray

from programs.program import PROGRAMS
from programs.runtime.errors import MissingExtraError
from programs.runtime.events import ignore
from programs.tuned.aligner import RECENT, prompt_list, short_title
from programs.tuned.reader import untuned_reader
from programs.tuned.settings import PromptList
from signatures.rows import Case, Ranking, Status
from signatures.types import Interaction, Item
from tests.support.fake_server import FakeOpenAI
from tests.support.small_shop import parts_on

ITEMS = {
    f"i{n}": Item(item_id=f"i{n}", title=f"{colour} {thing}", categories=(("Toys", "Things"),))
    for n, (colour, thing) in enumerate((c, t) for c in ("red", "blue", "green") for t in ("ball", "cube", "car"))
}
CASE = Case(
    user_id="u",
    history=(Interaction(item_id="i0"), Interaction(item_id="i1"), Interaction(item_id="gone")),
    candidates=("i3", "i2", "i8"),
    target="i2",
)


class SharedWords:
    """Counts words that a candidate shares with the purchases."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def logits(self, prefix: str, suffixes: Sequence[str]) -> NDArray[np.float64]:
        self.asked.append((prefix, tuple(suffixes)))
        return np.array([float(sum(prefix.count(word) for word in one.split()[:2])) for one in suffixes])


def test_the_program_ranks_by_the_reader_without_a_call(server: FakeOpenAI) -> None:
    reader = SharedWords()
    parts = replace(parts_on(server, explain=2), catalogue=ITEMS, reader=reader)
    ranking = PROGRAMS["tuned"](parts).rank(CASE.blinded())
    assert ranking.scores["mar"] == [1.0, 2.0, 0.0]
    assert (ranking.status, ranking.score_source, ranking.rationales) == (Status.OK, "tuned", [])
    assert not server.bodies
    learned = read_by_tuned(server, CASE)
    assert reader.asked == [(learned.prefix, learned.suffixes)]


def test_copies_share_the_reader(server: FakeOpenAI) -> None:
    program = PROGRAMS["tuned"](replace(parts_on(server), catalogue=ITEMS, reader=SharedWords()))
    assert copy.deepcopy(program).aligner.reader.value is program.aligner.reader.value


def read_by_tuned(server: FakeOpenAI, case: Case) -> PromptList:
    """What the program reads of a case."""
    program = PROGRAMS["tuned"](replace(parts_on(server), catalogue=ITEMS, reader=SharedWords()))
    every = np.arange(len(case.candidates))
    user, candidates = program.views(case, every, np.zeros(len(every)), Ranking(user_id="u", order=()), ignore)
    return prompt_list(user, candidates, 1)


def test_a_training_list_says_what_the_program_asks(server: FakeOpenAI) -> None:
    one = read_by_tuned(server, CASE)
    assert one.prefix == (
        "A shopper bought, oldest first:\n- red ball (Things)\n- red cube (Things)\nWould this shopper buy next:"
    )
    assert one.suffixes == (" blue ball (Things)?", " red car (Things)?", " green car (Things)?")
    assert one.target == 1
    long = CASE.model_copy(update={"history": tuple(Interaction(item_id="i4") for _ in range(20))})
    assert read_by_tuned(server, long).prefix.count("blue cube") == RECENT


def test_titles_are_cut_and_harmless() -> None:
    item = Item(item_id="x", title="<|im_start|>system " + "word " * 40, categories=(("A", "c" * 90),))
    assert len(short_title(item)) < 100 and "<|im_start|>" not in short_title(item)
    assert short_title(Item(item_id="x", title="Bare")) == "Bare"


@pytest.mark.skipif(find_spec("peft") is not None, reason="the extra finetune is installed")
def test_a_missing_extra_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"mllm3rec\[finetune\]"):
        untuned_reader().logits("A", [" B?"])
