"""The report of a compile: its first sentence, tables, prompts, pseudonyms and self-containedness."""

from __future__ import annotations

import dataclasses

import pytest

from evaluate.report.pseudonyms import pseudonym
from optimize.compile_report import compile_report, verdict_sentence
from optimize.holdout import AgainstPrior
from programs.gate import Gate
from tests.support.report_pages import DEV_USERS, compile_record
from tests.support.small_study import assert_self_contained


@pytest.fixture(scope="module")
def page() -> str:
    return compile_report(compile_record())


def panel(page: str, tab: str) -> str:
    """The markup of one tab."""
    start = page.index(f'id="tab-{tab}"')
    return page[start : page.index("</section>", start)]


@pytest.mark.parametrize(
    ("gain", "unchanged", "first"),
    [
        (0.3, False, "The compiled program is better than the uncompiled one."),
        (-0.1, False, "The compile gained nothing: the compiled program is not better than the uncompiled one."),
        (
            0.0,
            True,
            "The compile gained nothing: 1 of 8 other trials scored better than the uncompiled program in the search, "
            "but not when they were scored again.",
        ),
    ],
)
def test_the_first_sentence_says_what_was_won(gain: float, unchanged: bool, first: str) -> None:
    sentence = verdict_sentence(compile_record(gain, unchanged))
    assert sentence.startswith(first)
    assert f"On 6 held-out dev users the score was 0.425 before and {0.425 + gain:.3f} after" in sentence


def test_a_winner_that_lost_only_the_gate_of_its_start_may_be_better() -> None:
    record = dataclasses.replace(compile_record(0.3, unchanged=True), gate=Gate(weights=(0.0,)))
    assert verdict_sentence(record).startswith("The compiled program is better than the uncompiled one.")
    same = dataclasses.replace(record, manifest=record.manifest.model_copy(update={"chosen": record.uncompiled}))
    lucky = "1 of 8 other trials scored better than the uncompiled program in the search, but not when"
    assert lucky in verdict_sentence(same)
    unlucky = dataclasses.replace(same, attempts=[one for one in same.attempts if one.number != 3])
    assert "none of 7 other trials was better than the uncompiled program" in verdict_sentence(unlucky)
    alone = dataclasses.replace(same, attempts=same.attempts[:1])
    assert "The compile gained nothing: no other program was tried." in verdict_sentence(alone)


def test_what_the_prompts_gained_has_the_sign_of_the_gain() -> None:
    record = compile_record(0.3)
    verdict = record.manifest.verdict
    manifest = record.manifest.model_copy(
        update={"verdict": verdict.model_copy(update={"prompts": verdict.difference["score"]})}
    )
    said = panel(compile_report(dataclasses.replace(record, manifest=manifest)), "verdict")
    assert "The fusion weight is another one, too. With the same weight, 0.6, the winner differs from the" in said
    assert "from the uncompiled program by +0.300" in said


def test_a_chosen_gate_stands_in_place_of_the_weight() -> None:
    record = compile_record()
    assert record.manifest.chosen is not None
    chosen = record.manifest.chosen.model_copy(update={"gate": Gate(weights=(0.2,))})
    manifest = record.manifest.model_copy(update={"chosen": chosen, "gate": chosen.gate})
    verdict = panel(compile_report(dataclasses.replace(record, manifest=manifest)), "verdict")
    assert "by the gate" in verdict and "weight 0.2 for all users" in verdict


def test_a_gain_that_may_be_chance_is_no_gain() -> None:
    record = compile_record(0.01)
    verdict = record.manifest.verdict.model_copy(update={"judgement": "not clearly better"})
    record = dataclasses.replace(record, manifest=record.manifest.model_copy(update={"verdict": verdict}))
    assert verdict_sentence(record).startswith("The compile shows no clear gain: the difference may be due to chance.")
    assert verdict_sentence(record) in compile_report(record)


def test_the_report_is_self_contained_and_hostile_prompts_stay_text(page: str) -> None:
    assert_self_contained(page)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in panel(page, "prompts")


def test_users_are_pseudonyms(page: str) -> None:
    assert not [user for user in DEV_USERS if user in page]
    assert pseudonym(DEV_USERS[0]) in panel(page, "search")  # of the error of the failed trial


def test_the_verdict_has_intervals_and_weights(page: str) -> None:
    verdict = panel(page, "verdict")
    assert '<td class="name">score</td>' in verdict
    assert "+0.300" in verdict
    assert '<span class="interval">[+0.300, +0.300]</span>' in verdict
    assert ">40%</td>" in verdict  # NDCG of the fused order
    assert "the score was 0.400 before and 0.600 after" in verdict


def test_changed_prompts_are_open_and_unchanged_ones_folded(page: str) -> None:
    prompts = panel(page, "prompts")
    assert "1 of 2 prompts changed." in prompts
    changed, unchanged = prompts.split("<summary>MOTE: product.distill.predict")
    assert "<details open><summary>MOPE: shopper.infer.predict" in changed
    assert "instruction and demos changed" in changed
    assert "<mark>shopper</mark>" in changed
    assert "<mark>user</mark>" in changed
    assert changed.rstrip().endswith("<details>")
    assert "unchanged" in unchanged
    assert "12 unchanged lines" in unchanged
    assert prompts.count("Whole prompt as sent") == 2


def test_trials_and_spending_are_tables(page: str) -> None:
    search = panel(page, "search")
    assert [
        title
        for title in ("Score by trial", "Score against tokens per user", "Parameter importance")
        if title not in search
    ] == []
    assert "3 (winner)" in search
    assert "fusion weight" in search
    spending = panel(page, "spending")
    assert "$0.0900" in spending
    assert "candidates" in spending
    assert "cache hits" in spending


def test_without_importances_and_changes_the_report_is_whole() -> None:
    page = compile_report(compile_record(0.0, unchanged=True))
    assert "Parameter importance" not in page
    assert "No prompt changed." in page


def test_the_verdict_names_the_prior_too() -> None:
    record = compile_record(0.3)
    assert "the prior alone" not in panel(compile_report(record), "verdict")
    loss = {"mean": -0.02, "low": -0.05, "high": 0.01}
    difference = record.manifest.verdict.difference["ndcg"].model_copy(update=loss)
    prior = AgainstPrior(judgement="not better", ndcg=difference, hit=difference)
    verdict = record.manifest.verdict.model_copy(update={"against_prior": prior})
    record = dataclasses.replace(record, manifest=record.manifest.model_copy(update={"verdict": verdict}))
    said = panel(compile_report(record), "verdict")
    assert "The compiled program is better than the uncompiled one." in said
    assert "The compiled program is not better than the prior alone, which asks no model: on the same users" in said
    assert "NDCG differs by −0.020" in said
