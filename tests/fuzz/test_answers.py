"""Mutated answers of models: every adapter reads them or raises what it declares, in time linear in their length."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError

from programs.lm.adapters import RatingAdapter, build_adapter
from programs.mope import reassessed, validated
from programs.mote import validated_traits
from signatures.adjust import AdjustInstructions
from signatures.mar import CheckExplanation, ExplainChoice, rank_candidates, score_candidate
from signatures.mope import infer_motivations, reassess_motivations
from signatures.mote import DistillTraits
from signatures.rows import Ranking
from signatures.schema import CONSUMER
from signatures.types import Item, Rationale, Verdict
from tests.fuzz import INPUTS
from tests.fuzz.mutations import mutated
from tests.fuzz.oracle import Tally

SHARE = 0.3
"""Of the inputs of a whole run, in addition to those of files."""

ITEM = Item(item_id="a", title="Kite", brand="Zephyr", categories=(("Toys", "Kites"),))

MOTIVATIONS = [
    {"dimension": "learning", "description": "a child who learns while playing", "strength": "strong", "evidence": [1]},
    {"dimension": "value", "description": "much for little", "strength": "weak", "evidence": [2, 3]},
]
QUESTIONS: dict[type[dspy.Signature], dict[str, Any]] = {
    infer_motivations(CONSUMER): {"motivations": MOTIVATIONS},
    reassess_motivations(CONSUMER): {"reassessments": [{"number": 1, "action": "keep", "description": ""}]},
    DistillTraits: {"traits": ["easy to use", "sturdy every day tool", "made for children"]},
    rank_candidates("profile", "traits"): {"ranking": [42, 17, 99, 10]},
    score_candidate("profile", "traits"): {"rating": "4"},
    ExplainChoice: {"reason": "It is easy to use, as this shopper wants."},
    CheckExplanation: {"faithful": "no", "why": "no trait says that it is red"},
    AdjustInstructions: {"adjusted": "Say what drives this shopper, in general words."},
}
"""A sound answer to every question, by its output fields."""

ADAPTERS: dict[str, dspy.Adapter] = {
    "json": build_adapter("json"),
    "compact": build_adapter("compact"),
    "chat": build_adapter("chat"),
    "rating": RatingAdapter(),
}


def written(name: str, answer: dict[str, Any], draw: random.Random) -> str:
    """A sound answer as models write it: bare, in a fence, with words around it, or thought about before."""
    if name == "rating":
        return draw.choice(("4", "**4**", "Rating: 4", "4\n\nBecause it lasts."))
    if name == "chat":
        values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in answer.items()}
        text = "\n\n".join(f"[[ ## {key} ## ]]\n{value}" for key, value in values.items())
        return f"{text}\n\n[[ ## completed ## ]]"
    text = json.dumps(answer, indent=draw.choice((None, None, 1)))
    return draw.choice(("{}", "{}", "```json\n{}\n```", "Sure!\n\n{}\n\nDone.", "<think>{{}} no</think>\n{}")).format(
        text
    )


def read(name: str, signature: type[dspy.Signature], text: str) -> str:
    """The answer, and what becomes of it in a row of a journal."""
    fields = ADAPTERS[name].parse(signature, text)
    assert fields.keys() == signature.output_fields.keys()
    row = Ranking(user_id="u", order=())
    if "motivations" in fields:
        row.profile = validated(fields["motivations"], CONSUMER, 3)
    if "reassessments" in fields:
        sound = validated(QUESTION_DRAFTS, CONSUMER, 3)
        row.profile = reassessed(sound, fields["reassessments"])
    if "traits" in fields:
        row.traits = [validated_traits(ITEM, fields["traits"])]
    if "reason" in fields:
        row.rationales = [Rationale(item_id="a", text=fields["reason"], verdict=Verdict(faithful=True))]
    return row.model_dump_json()


QUESTION_DRAFTS = ADAPTERS["json"].parse(infer_motivations(CONSUMER), json.dumps({"motivations": MOTIVATIONS}))[
    "motivations"
]


@pytest.mark.parametrize("name", ADAPTERS)
def test_sound_answers_are_read(name: str) -> None:
    for signature, answer in QUESTIONS.items():
        if (name == "rating") == ("rating" in answer):
            assert read(name, signature, written(name, answer, random.Random(0)))


@pytest.mark.parametrize("name", ADAPTERS)
def test_mutated_answers_are_unparsable_or_read(tally: Callable[[str], Tally], name: str) -> None:
    found = tally(f"answers, {name}")
    asked = [(one, answer) for one, answer in QUESTIONS.items() if name != "rating" or "rating" in answer]
    for number in range(max(20, int(INPUTS * SHARE / len(ADAPTERS)))):
        seed = f"answer/{name}/{number}"
        draw = random.Random(seed)
        signature, answer = draw.choice(asked)
        # Half a character reaches a program as such: servers send it as an escape.
        text = mutated(written(name, answer, draw).encode(), seed).decode("utf-8", "surrogateescape")
        # DSPy's message repeats the answer; `Backends.ask` cuts it.
        found.judge(seed, partial(read, name, signature, text), AdapterParseError, longest=100_000)
    found.assert_none()


REPEATED = (
    'a" b ',
    '{"a":',
    "[",
    "]",
    '"',
    "\\",
    "```json\n",
    "<think>",
    "{}",
    "1,",
    "[[ ## traits ## ]]\n",
    "  ",
    "4",
)
"""What a model that repeats itself writes, to the end of its tokens."""


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("piece", REPEATED)
def test_the_time_for_a_repetition_grows_with_its_length(name: str, piece: str) -> None:
    signature = score_candidate("profile", "traits") if name == "rating" else DistillTraits
    start = "" if name == "rating" else '{"traits": ["easy to use", "'
    seconds = []
    for length in (4_000, 32_000):
        text = start + piece * (length // len(piece))
        started = time.process_time()
        with suppress(AdapterParseError):
            ADAPTERS[name].parse(signature, text)
        seconds.append(time.process_time() - started)
    # Eight times the text: a quadratic parser takes 64 times as long.
    assert seconds[1] < 16 * seconds[0] + 0.2
    assert seconds[1] < 2
