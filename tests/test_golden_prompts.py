"""Prompts, word for word as they are sent.

`UPDATE_GOLDEN=1 pytest tests/test_golden_prompts.py` rewrites the files in tests/golden and fails for those that
changed. Read their diff before you commit it: a changed prompt is another program, and what was compiled for the old
one has to be compiled again.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import dspy
import pytest

from programs.default_demos import (
    CHECKS,
    CHOICES,
    EXPLANATIONS,
    RANKINGS,
    RATINGS,
    SHORTLISTS,
    TRAITS,
    USES,
    infer_examples,
    needs_examples,
    reassess_examples,
)
from programs.lm.adapters import AdapterName
from programs.lm.backends import UnparsableError
from programs.lm.roles import RoleName
from signatures.chat import rank_shortlist
from signatures.mar import CheckExplanation, ExplainChoice, choose_candidate, rank_candidates, score_candidate
from signatures.mope import infer_motivations, infer_needs, reassess_motivations
from signatures.mote import DistillTraits, DistillUses
from signatures.schema import CONSUMER
from tests.support.backends import backends_on
from tests.support.fake_server import FakeOpenAI
from tests.support.paths import GOLDEN
from tests.support.schemas import FILMS

HISTORY = "1. Blue teapot | Kitchen > Tea (rated 5 of 5)\n2. Wool blanket"
PROFILE = "- durability (strong): things that outlive fashions\n- enjoyment (weak): slow evenings"
LIKES = "facts: age 25-34\nliked:\n- Wool blanket (rated 5 of 5)\ndisliked: nothing"
TRAIT_TEXT = "keeps tea warm; made to last"
PRODUCTS = "57: keeps tea warm; made to last\n12: cheap fun for parties"
Question = tuple[RoleName, type[dspy.Signature], list[dspy.Example], dict[str, Any]]
QUESTIONS: dict[str, Question] = {
    "infer_motivations": (
        "mope",
        infer_motivations(CONSUMER),
        infer_examples(CONSUMER),
        {"shopper": "age 25-34; region north", "history": HISTORY},
    ),
    "infer_motivations_films": (
        "mope",
        infer_motivations(FILMS),
        infer_examples(FILMS),
        {"shopper": "nothing known", "history": HISTORY},
    ),
    "reassess_motivations": (
        "mope",
        reassess_motivations(CONSUMER),
        reassess_examples(CONSUMER),
        {
            "shopper": "nothing known",
            "history": HISTORY,
            "inferred": "1. durability (strong): lasts\n2. value (weak): thrift",
        },
    ),
    "infer_needs": (
        "mope",
        infer_needs(CONSUMER),
        needs_examples(CONSUMER),
        {"shopper": "nothing known", "history": HISTORY},
    ),
    "distill_uses": ("mote", DistillUses, USES, {"product": "Blue teapot\nKitchen > Tea\nHolds 1 litre."}),
    "distill_traits": ("mote", DistillTraits, TRAITS, {"product": "Blue teapot\nKitchen > Tea\nHolds 1 litre."}),
    "score_candidate": (
        "mar",
        score_candidate("profile", "traits"),
        RATINGS,
        {"shopper": PROFILE, "product": TRAIT_TEXT},
    ),
    "score_candidate_raw": (
        "mar",
        score_candidate("history", "description"),
        RATINGS,
        {"shopper": HISTORY, "product": "Blue teapot | Kitchen > Tea"},
    ),
    "rank_candidates": (
        "mar",
        rank_candidates("profile", "traits"),
        RANKINGS,
        {"shopper": PROFILE, "products": PRODUCTS},
    ),
    "rank_candidates_raw": (
        "mar",
        rank_candidates("history", "description"),
        RANKINGS,
        {"shopper": HISTORY, "products": "57: Blue teapot | Kitchen > Tea\n12: Party hats"},
    ),
    "rank_shortlist": (
        "mar",
        rank_shortlist("recommended"),
        SHORTLISTS,
        {"shopper": LIKES, "products": "57: Blue teapot | Kitchen > Tea\n12: Party hats"},
    ),
    "rank_shortlist_shuffled": (
        "mar",
        rank_shortlist("shuffled"),
        SHORTLISTS,
        {"shopper": LIKES, "products": "12: Party hats\n57: Blue teapot | Kitchen > Tea"},
    ),
    "choose_candidate": (
        "mar",
        choose_candidate("profile", "traits"),
        CHOICES,
        {"shopper": PROFILE, "products": "A: keeps tea warm; made to last\nB: cheap fun for parties"},
    ),
    "explain_choice": ("mar", ExplainChoice, EXPLANATIONS, {"shopper": PROFILE, "product": TRAIT_TEXT}),
    "check_explanation": (
        "judge",
        CheckExplanation,
        CHECKS,
        {"shopper": PROFILE, "product": TRAIT_TEXT, "reason": "It lasts, as this shopper wants."},
    ),
}


BARE = ("score", "choose")
"""Beginnings of the names of questions whose answer is a bare label."""

# The paper's preset asks MOPE and MOTE in the chat format; ratings are bare labels whatever the role's adapter is.
PROMPTS: list[tuple[str, AdapterName]] = [
    *((name, adapter) for name in QUESTIONS if not name.startswith(BARE) for adapter in ("compact", "json")),
    *((name, "chat") for name, question in QUESTIONS.items() if question[0] in ("mope", "mote")),
    *((name, "json") for name in QUESTIONS if name.startswith(BARE)),
]


def prompt_file(name: str, adapter: AdapterName) -> Path:
    return GOLDEN / f"{name}.{'rating' if name.startswith(BARE) else adapter}.txt"


@pytest.mark.parametrize(("name", "adapter"), PROMPTS)
def test_the_prompt_is_the_one_that_was_read(name: str, adapter: AdapterName, server: FakeOpenAI) -> None:
    role, signature, demos, inputs = QUESTIONS[name]
    predict = dspy.Predict(signature)
    predict.demos = demos
    with suppress(UnparsableError):  # the fake server answers in JSON alone; what was sent is what counts here
        backends_on(server, adapter=adapter).ask(role, predict, **inputs)
    sent = "\n".join(f"<<<{m['role']}>>>\n{m['content']}\n" for m in server.bodies[0]["messages"])
    path = prompt_file(name, adapter)
    read_before = path.read_text("utf-8") if path.exists() else None
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(sent, "utf-8")
    assert sent == read_before, f"the prompt changed: see {path.name}, and the module's docstring"


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in GOLDEN.glob("*.txt")} == {prompt_file(*prompt).name for prompt in PROMPTS}
