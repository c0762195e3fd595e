"""Copied answers are noticed: from the examples in the prompt, word for word or nearly so, and one reason for all."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mllm3rec.api.recommendation import recommendations
from optimize.prompts import prompts_of, with_prompts
from programs.copies import Examples, one_reason, repeated_motivations, repeated_traits, repeats
from programs.default_demos import EXPLANATIONS
from programs.explain import reason_warnings
from programs.program import PROGRAMS
from signatures.rows import Case, Ranking, Status
from signatures.types import Interaction, Item, Motivation, Profile, Rationale, Traits, Verdict
from tests.support.fake_server import FakeOpenAI
from tests.support.small_shop import parts_on

EXAMPLE: str = EXPLANATIONS[0].reason


@pytest.mark.parametrize(
    ("text", "copied"),
    [
        (EXAMPLE, True),
        (EXAMPLE.upper().rstrip("."), True),
        ("Its soft warm light makes the cosy atmosphere this shopper likes.", True),
        ("Its natural cork makes the cosy atmosphere this shopper likes for relaxing evenings at home.", True),
        ("Its natural cork suits this shopper, who likes to relax at home.", False),
        ("Its", False),
        ("", False),
    ],
)
def test_what_is_nearly_an_example_is_a_copy(text: str, copied: bool) -> None:
    assert repeats(text, [EXAMPLE]) is copied


def test_short_phrases_of_other_words_are_no_copies() -> None:
    examples = ["small everyday treat", "gift for young heroes", "fresh flour at home"]
    assert repeats("Fresh flour at home", examples)
    assert not any(repeats(phrase, examples) for phrase in ("small garden treat", "gift for children", "at home"))


@pytest.mark.parametrize(
    ("reasons", "one"),
    [
        ([EXAMPLE, EXAMPLE], True),
        (["It lasts for years.", "it lasts for years", "It lasts for many years."], True),
        (["It lasts for years.", "It is a gift."], False),
        (["It lasts for years."], False),
        ([], False),
    ],
)
def test_one_reason_for_all(reasons: list[str], one: bool) -> None:
    assert one_reason(reasons) is one


def rationale(item_id: str, text: str) -> Rationale:
    return Rationale(item_id=item_id, text=text, verdict=Verdict(faithful=True, why="supported"))


def test_reasons_are_warned_about_one_by_one() -> None:
    given = {
        "a": "It is a gift that lasts for years.",
        "b": "Its soft warm light makes the cosy atmosphere this shopper likes for relaxing mornings at home.",
        "c": "It teaches a craft.",
        "d": "it is a gift that lasts for years",
        "e": "",
    }
    found = reason_warnings([rationale(item_id, text) for item_id, text in given.items()])
    assert found == {
        "a": "the same reason as for another item",
        "b": "reason copied from a demo in the prompt",
        "d": "the same reason as for another item",
    }
    assert reason_warnings([rationale("c", given["c"])], demo_reasons=[given["c"]])


def test_the_examples_are_those_in_the_prompts_compiled_or_not(server: FakeOpenAI) -> None:
    program = PROGRAMS["embedding"](parts_on(server, explain=1))
    found = Examples.of(program)
    assert {"a well-kept look and a warm scent", "comfort on long days outside"} <= found.motivations
    assert {"fresh flour at home", "small everyday treat"} <= found.traits
    assert found.reasons == {EXAMPLE}
    prompts = prompts_of(program)
    draft = {"dimension": "value", "description": "much for little", "strength": "weak", "evidence": [1]}
    demos: Mapping[str, dict[str, object]] = {
        "shopper.infer.predict": {"shopper": "s", "history": "h", "motivations": [draft]},
        "shopper.reassess.predict": {},
        "product.distill.predict": {"product": "p", "traits": ["easy to clean"]},
    }
    compiled = with_prompts(
        program,
        {name: prompts[name].model_copy(update={"demos": (demo,) if demo else ()}) for name, demo in demos.items()},
    )
    found = Examples.of(compiled)
    assert (found.motivations, found.traits) == ({"much for little"}, {"easy to clean"})
    assert Examples.of(PROGRAMS["llm-only"](parts_on(server))) == Examples()


EXAMPLES = Examples(
    motivations=frozenset({"a warm scent"}), traits=frozenset({"fresh flour at home"}), reasons=frozenset({EXAMPLE})
)


def profile(*descriptions: str) -> Profile:
    return Profile(
        motivations=tuple(
            Motivation(dimension="value", description=text, strength="weak", evidence=(1,)) for text in descriptions
        )
    )


def test_copies_are_counted() -> None:
    motivations = repeated_motivations([profile("A warm scent", "saves money"), profile("a warm scent")], EXAMPLES)
    assert (str(motivations), motivations.most) == ("2 of 3", True)
    traits = repeated_traits([Traits(item_id="x", phrases=("fresh flour at home", "easy to clean"))], EXAMPLES)
    assert (str(traits), traits.most) == ("1 of 2", False)
    nothing = repeated_traits([], EXAMPLES)
    assert (str(nothing), nothing.most) == ("0 of 0", False)


ITEMS = {name: Item(item_id=name, title=name) for name in "abc"}
CASE = Case(user_id="u", history=(Interaction(item_id="c"),), candidates=("a", "b"))


def ranked(traits: Mapping[str, tuple[str, ...]], reasons: Mapping[str, str], mar: list[float]) -> Ranking:
    return Ranking(
        user_id="u",
        order=("a", "b"),
        scores={"prior": [0.2, 0.9], "mar": mar, "fused": [1.0, 0.5]},
        profile=profile("a warm scent", "saves money", "learns a craft"),
        traits=[Traits(item_id=item_id, phrases=phrases) for item_id, phrases in traits.items()],
        rationales=[rationale(item_id, text) for item_id, text in reasons.items()],
    )


def test_a_list_says_what_is_suspicious_about_it() -> None:
    copied = ("fresh flour at home",)
    ranking = ranked({"a": copied, "b": copied}, {"a": EXAMPLE, "b": EXAMPLE}, mar=[0.5, 0.5])
    found = recommendations(ranking, CASE, ITEMS, 2, EXAMPLES)
    assert found.warnings == (
        "1 of 3 motivations repeat the demos in MOPE's prompt",
        "2 of 2 traits repeat the demos in MOTE's prompt: they say nothing about these items",
        "MAR rates these items equally, so their order is the prior's",
        "all 2 items have the same reason, copied from a demo in the prompt: it does not explain them",
    )
    assert found[0].warning == "traits copied from a demo in the prompt; reason copied from a demo in the prompt"
    assert found[0].reason == EXAMPLE, "nothing is hidden"
    assert found.history == ("c",)


def test_a_list_of_real_answers_has_no_warnings() -> None:
    traits = {"a": ("easy to clean", "lasts for years"), "b": ("learn a craft", "fresh flour at home", "made by hand")}
    ranking = ranked(traits, {"a": "It lasts.", "b": "It teaches."}, mar=[0.5, 0.9])
    ranking.profile = profile("saves money")
    found = recommendations(ranking, CASE, ITEMS, 2, EXAMPLES)
    assert found.warnings == ("1 of 5 traits repeat the demos in MOTE's prompt",)
    assert [item.warning for item in found] == ["", ""]
    assert [(item.prior_rank, item.mar_rank) for item in found] == [(2, 2), (1, 1)]
    ranking.status = Status.UNPARSABLE
    unread = recommendations(ranking, CASE, ITEMS, 2, EXAMPLES)
    assert [item.mar_rank for item in unread] == [None, None]
