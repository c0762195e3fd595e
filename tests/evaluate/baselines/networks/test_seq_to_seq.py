"""P5, GenRec and TIGER: prompts, likelihoods of candidates, and what a fit may see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.fitting import Fitting
from evaluate.baselines.networks.code_prompts import MASK, CodePrompt, CodePrompts
from evaluate.baselines.networks.held_out import hold_out_last
from evaluate.baselines.networks.item_codes import collaborative_codes, sequential_codes
from evaluate.baselines.networks.seq_to_seq_settings import IdSettings, SeqToSeqSettings
from evaluate.baselines.systems.genrec import GenRec, GenRecPrompts
from evaluate.baselines.systems.p5 import P5, TEMPLATES, P5Prompts
from evaluate.baselines.systems.tiger import TIGER
from evaluate.data.demo.store import demo_dataset
from evaluate.protocol.splits import split_dataset
from programs.prior.encoders import HashingEncoder
from programs.prior.scorers import ContentSimilarity
from programs.runtime.errors import InputError
from programs.runtime.events import Event, KeptFit, Progress
from tests.support.cases import case, demo_cases, training_of
from tests.support.datasets import protocol_for

ITEMS = [f"i{n}" for n in range(12)]
CODES = sequential_codes([ITEMS])
HISTORIES = {f"u{n}": tuple(ITEMS[(n + step) % 12] for step in range(5)) for n in range(24)}
DATA = TrainingData(training_of(HISTORIES), {})
TINY = {"dimensions": 16, "layers": 1, "heads": 2, "dropout": 0.0, "length": 4, "batch": 16, "rate": 5e-3}
SYSTEMS: list[IdSettings] = [
    P5.model_validate(TINY | {"epochs": 2, "examples": 40}),
    GenRec.model_validate(TINY | {"epochs": 2, "examples": 40}),
]
SMALL_TIGER = TIGER.model_validate(TINY | {"epochs": 2, "examples": 40})
EACH = pytest.mark.parametrize("settings", SYSTEMS, ids=lambda one: one.name)


class TestPrompts:
    def test_p5_puts_the_history_into_a_sentence(self) -> None:
        prompts = P5Prompts(CODES, length=2)
        found = prompts.prompt(["i0", "nowhere", "i1", "i2"])
        assert [whole for whole in found.wholes if whole] == [2, 2, 1, 1], "the newest item is 1, and two are kept"
        inside = [token for token, whole in zip(found.tokens, found.wholes, strict=True) if whole]
        assert inside == [*prompts.codes["i1"], *prompts.codes["i2"]]
        assert all(
            token >= prompts.first_word for token, whole in zip(found.tokens, found.wholes, strict=True) if not whole
        )

    def test_p5_draws_every_template_and_every_item_but_the_first(self) -> None:
        prompts, rng = P5Prompts(CODES, length=4), np.random.default_rng(0)
        drawn = [prompts.example(ITEMS[:4], rng) for _ in range(200)]
        assert {one.answer for one in drawn} == {prompts.codes[item] for item in ITEMS[1:4]}
        starts = {one.prompt.tokens[:2] for one in drawn}
        assert len(starts) >= len(TEMPLATES)

    @pytest.mark.parametrize("prompts", [P5Prompts(CODES, 20), GenRecPrompts(CODES, 20, 0.5)])
    def test_an_answer_is_never_in_its_prompt(self, prompts: CodePrompts) -> None:
        rng = np.random.default_rng(0)
        for _ in range(200):
            one = prompts.example(ITEMS[:6], rng)
            tokens = one.prompt.tokens
            assert one.answer not in {tokens[at : at + 2] for at in range(len(tokens))}

    def test_genrec_masks_the_place_of_the_missing_item(self) -> None:
        prompts, rng = GenRecPrompts(CODES, 3, masked=1.0), np.random.default_rng(0)
        places = set()
        for _ in range(100):
            tokens = prompts.example(ITEMS[:6], rng).prompt.tokens
            assert tokens.count(MASK) == 1 and len(tokens) == 5, "two items around a mask"
            places.add(tokens.index(MASK))
        assert places == {0, 2, 4}
        end = GenRecPrompts(CODES, 3, masked=0.0)
        assert end.example(ITEMS[:6], rng).prompt.tokens[-1] == end.prompt(ITEMS).tokens[-1] == MASK

    def test_genrec_has_a_vector_for_each_item_and_none_for_users(self) -> None:
        """In the authors' code items are looked up in the table of users, so user 5 and item 5 are the same."""
        prompts = GenRecPrompts(CODES, 20, 0.3)
        wholes = [prompts.prompt([item]).wholes for item in ITEMS]
        assert {own[-1] for own in wholes} == {0}, "of the mask"
        assert len({own[0] for own in wholes}) == len(ITEMS) == prompts.wholes - 1


class TestNetwork:
    def test_candidates_score_the_same_alone_and_together(self) -> None:
        pytest.importorskip("transformers")
        ranker = P5.model_validate(TINY | {"epochs": 1, "examples": 1}).fit(DATA, 0)
        network, prompts = ranker.network, ranker.prompts
        prompt = prompts.prompt(ITEMS[:3])
        codes = [prompts.codes[item] for item in ITEMS[:5]] + [prompts.codes["i0"][:1]]
        together = network.candidate_scores(prompt, codes)
        alone = np.concatenate([network.candidate_scores(prompt, [code]) for code in codes], axis=1)
        np.testing.assert_allclose(together, alone, atol=1e-5)
        np.testing.assert_allclose(together[1], together[0] / [len(code) + 1 for code in codes], rtol=1e-6)

    def test_likelihoods_are_of_the_whole_vocabulary(self) -> None:
        pytest.importorskip("transformers")
        ranker = P5.model_validate(TINY | {"epochs": 1, "examples": 1}).fit(DATA, 0)
        every = [(token,) for token in range(1, ranker.prompts.tokens)]
        total = ranker.network.candidate_scores(ranker.prompts.prompt(ITEMS[:3]), every)[0]
        assert np.exp(total).sum() < 1
        assert ranker.network.candidate_scores(CodePrompt((MASK,), (0,)), []).shape == (2, 0)

    def test_padding_beside_longer_prompts_changes_nothing(self) -> None:
        torch = pytest.importorskip("torch")
        pytest.importorskip("transformers")
        ranker = P5.model_validate(TINY | {"epochs": 1, "examples": 1}).fit(DATA, 0)
        network, prompts = ranker.network, ranker.prompts
        asked = [prompts.prompt(ITEMS[:1]), prompts.prompt(ITEMS[:4])]
        codes = [prompts.codes["i5"], prompts.codes["i6"]]
        with torch.no_grad():
            together = network.log_likelihoods(*network.encoded(asked), codes)[0].numpy()
        alone = [network.candidate_scores(prompt, [code])[0, 0] for prompt, code in zip(asked, codes, strict=True)]
        np.testing.assert_allclose(together, alone, atol=1e-5)

    @EACH
    def test_both_likelihoods_are_recorded(self, settings: IdSettings) -> None:
        pytest.importorskip("transformers")
        scores = settings.fit(DATA, 0).rank(case(ITEMS[:3], ["i5", "i6", "new"])).scores  # type: ignore[attr-defined]
        assert set(scores) == {settings.name, f"{settings.name}-sum"}
        for vector in scores.values():
            assert vector[2] == min(vector[:2]) - 1


class TestWhatAFitSees:
    @EACH
    def test_an_item_held_out_for_early_stopping_says_nothing_to_the_codes(self, settings: IdSettings) -> None:
        pytest.importorskip("transformers")
        prompts = settings.fit(DATA, 0).prompts  # type: ignore[attr-defined]
        kept, held_out = hold_out_last([*HISTORIES.values()], settings.validation, np.random.default_rng(0))
        assert held_out
        plain = collaborative_codes(kept, ITEMS).of
        assert prompts.codes == {item: tuple(MASK + 1 + token for token in code) for item, code in plain.items()}

    @EACH
    def test_a_finished_fit_is_found_and_a_killed_one_goes_on(self, settings: IdSettings, tmp_path: Path) -> None:
        pytest.importorskip("transformers")
        asked = case(ITEMS[:3], ITEMS)
        events: list[Event] = []

        def killed(event: Event) -> None:
            if isinstance(event, Progress) and event.done == 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            settings.fit(DATA, 0, Fitting(tmp_path / "killed", killed))
        longer = settings.fit(DATA, 0, Fitting(tmp_path / "killed", events.append)).rank(asked)
        assert longer == settings.fit(DATA, 0, Fitting(tmp_path / "whole")).rank(asked)
        events.clear()
        assert settings.fit(DATA, 0, Fitting(tmp_path / "whole", events.append)).rank(asked) == longer
        assert [type(event) for event in events] == [KeptFit], "nothing is trained again"

    @pytest.mark.parametrize("settings", [*SYSTEMS, SMALL_TIGER], ids=lambda one: one.name)
    def test_the_demo_store_is_fitted_and_ranked(self, settings: SeqToSeqSettings) -> None:
        pytest.importorskip("transformers")
        data = demo_dataset()
        split = split_dataset(data, protocol_for(data, part="test"))
        vectors = HashingEncoder().encode([item.text for item in data.items.values()])
        content = ContentSimilarity(dict(zip(data.items, vectors, strict=True)))
        small = settings.model_copy(update={"examples": 400})
        ranker = small.fit(TrainingData(split.training, data.items, content=content), 0)
        for one in demo_cases(20):
            assert sorted(ranker.rank(one).order) == sorted(one.candidates)

    def test_tiger_leaves_out_items_without_a_text(self) -> None:
        pytest.importorskip("transformers")
        vectors = HashingEncoder().encode(ITEMS[:10])
        content = ContentSimilarity(dict(zip(ITEMS[:10], vectors, strict=True)))
        scores = SMALL_TIGER.fit(TrainingData(training_of(HISTORIES), {}, content=content), 0).rank(
            case(["i11"], ITEMS)
        )
        assert [score == min(scores.scores["tiger"]) for score in scores.scores["tiger"]] == [False] * 10 + [True] * 2
        with pytest.raises(InputError, match="'tiger' reads item texts, and no item has one"):
            SMALL_TIGER.fit(DATA, 0)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="128 dimensions cannot be divided by 5 heads"):
        P5(heads=5)
    with pytest.raises(ValueError, match="masked"):
        GenRec(masked=2)
