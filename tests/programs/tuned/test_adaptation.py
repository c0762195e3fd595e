"""What of a tiny random model is trained, soft prompt or projections of outside vectors; the model stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from programs.runtime.errors import InputError
from programs.tuned import finetuned
from programs.tuned.adaptation import Adapt, Frozen, LoRA, Projections, SoftPrompt
from programs.tuned.backbone import Backbone, load_backbone
from programs.tuned.decoding import Joint, LateInteraction
from programs.tuned.finetuned import FineTuned
from programs.tuned.objective import ANSWER
from programs.tuned.settings import PromptList, Slot, TuningSettings
from tests.support.tiny_model import write_tiny_model

SETTINGS = TuningSettings(lists=48, batch=4, block=6, rate=0.05, patience=9, average=0.5)
RED, BLUE = (np.array(values, dtype=np.float32) for values in ([1, 0, 1], [0, 1, -1]))


@pytest.fixture
def base(tmp_path: Path) -> Backbone:
    return load_backbone(str(write_tiny_model(tmp_path / "base")), torch.float32)


def weights(base: Backbone) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in base.model.parameters()]


def wanted(vector: np.ndarray, target: int) -> PromptList:
    """A user is known by a vector alone, and buys what is of its colour."""
    return PromptList(("A shopper", Slot("user", vector), " bought:"), (" red ball?", " blue ball?"), target)


def soft(base: Backbone, settings: TuningSettings) -> Frozen:
    return SoftPrompt(Frozen(base), settings, tokens=3, question="Would this buy?")


def projected(base: Backbone, settings: TuningSettings) -> Frozen:
    return Projections(base, settings, {"user": 3})


def test_projections_learn_what_a_vector_means_and_nothing_else_changes(base: Backbone, tmp_path: Path) -> None:
    model, before = FineTuned(base, SETTINGS, adapt=projected, objective=ANSWER), weights(base)
    lists = [wanted(RED, 0), wanted(BLUE, 1)] * 4
    reached = model.fit(lists, lists, tmp_path / "fit.safetensors")
    assert reached.ndcg == 1.0
    assert all(name.startswith("user.") for name in model.adapter)
    assert all(torch.equal(now, then) for now, then in zip(weights(base), before, strict=True))
    again = FineTuned(base, SETTINGS, adapt=projected, objective=ANSWER)
    assert again.fit(lists, lists, tmp_path / "fit.safetensors") == reached
    np.testing.assert_array_equal(
        again.logits(lists[0].prefix, lists[0].suffixes), model.logits(lists[0].prefix, lists[0].suffixes)
    )
    others = [wanted(RED, 1), wanted(BLUE, 0)] * 4
    with pytest.raises(InputError, match="other lists"):
        again.fit(others, lists, tmp_path / "fit.safetensors")


def test_a_vector_without_a_projection_is_an_error(base: Backbone) -> None:
    with pytest.raises(ValueError, match="nothing projects the slot 'user'"):
        FineTuned(base, SETTINGS, adapt=soft).logits(wanted(RED, 0).prefix, [" red?"])


@pytest.mark.parametrize("decode", [None, lambda adapted: LateInteraction(adapted, 1)])
def test_a_soft_prompt_is_all_that_is_trained(base: Backbone, tmp_path: Path, decode: Adapt | None) -> None:
    options = {} if decode is None else {"decode": decode}
    model, before = FineTuned(base, SETTINGS, adapt=soft, objective=ANSWER, **options), weights(base)
    assert {name: tuple(tensor.shape) for name, tensor in model.adapter.items()} == {"soft_prompt": (3, 32)}
    lists = [PromptList(f"A shopper bought {n}:", (" red ball?", " blue car?"), 0) for n in ("ball", "cube")]
    untrained = model.figures(lists)
    assert model.fit(lists, lists, tmp_path / "fit.safetensors").loss < 0.7 * untrained.loss
    assert all(torch.equal(now, then) for now, then in zip(weights(base), before, strict=True))


def test_a_soft_prompt_stands_between_each_candidate_and_the_question(base: Backbone) -> None:
    adapted = soft(base, SETTINGS)
    ids = {text: base.tokenizer.encode(text, add_special_tokens=False) for text in ("A shopper", " red ball", " blue")}
    question = base.tokenizer.encode("Would this buy?", add_special_tokens=False)
    plain = []
    for candidate in (" red ball", " blue"):
        row = [adapted.vectors([*ids["A shopper"], *ids[candidate]]), adapted.tensors["soft_prompt"]]
        row.append(adapted.vectors(question))
        last = base.model(inputs_embeds=torch.cat(row)[None]).logits[0, -1]
        yes, no = (base.tokenizer.convert_tokens_to_ids(word) for word in ("Yes", "No"))
        plain.append(float((last[yes] - last[no]).detach()))
    for decode in (Joint, lambda adapted: LateInteraction(adapted, 0)):
        model = FineTuned(base, SETTINGS, adapt=soft, objective=ANSWER, decode=decode)
        np.testing.assert_allclose(model.logits("A shopper", [" red ball", " blue"]), plain, atol=1e-4)


def test_a_soft_prompt_learns_who_buys_what_although_layers_below_see_neither(base: Backbone, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"lists": 400, "block": 20})
    late = FineTuned(base, settings, adapt=soft, objective=ANSWER, decode=lambda adapted: LateInteraction(adapted, 1))
    offered = (" red ball?", " blue ball?")
    lists = [PromptList(f"A shopper bought {colour} car", offered, n) for n, colour in enumerate(("red", "blue"))]
    assert late.figures(lists).ndcg < 1
    assert late.fit(lists, lists, tmp_path / "fit.safetensors").ndcg == 1


def test_a_soft_prompt_and_adapters_of_upper_layers_leave_kept_lower_states_right(
    base: Backbone, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"layers": 1})

    def both(base: Backbone, settings: TuningSettings) -> Frozen:
        return SoftPrompt(LoRA(base, settings), settings, tokens=3, question="Would this buy?")

    late = FineTuned(base, settings, adapt=both, decode=lambda adapted: LateInteraction(adapted, 1))
    assert len(late.adapter) == 5 and "soft_prompt" in late.adapter
    lists = [PromptList("A shopper bought car:", (" red ball?", " blue ball?"), 0)] * 4
    untrained = late.logits(lists[0].prefix, lists[0].suffixes)
    assert late.fit(lists, lists, tmp_path / "fit.safetensors").ndcg == 1.0
    trained = late.logits(lists[0].prefix, lists[0].suffixes)
    assert not np.allclose(trained, untrained, atol=1e-3)
    late._decoding._lower.clear()
    np.testing.assert_array_equal(late.logits(lists[0].prefix, lists[0].suffixes), trained)


def test_long_lists_are_scored_in_parts(base: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FineTuned(base, SETTINGS, adapt=soft)
    suffixes = [f" {colour} {thing}?" for colour in ("red", "blue", "green") for thing in ("ball", "cube", "car")]
    whole = model.logits("A shopper bought:", suffixes)
    monkeypatch.setattr(finetuned, "MOST_TOGETHER", 2)
    np.testing.assert_allclose(model.logits("A shopper bought:", suffixes), whole, atol=1e-5)


@pytest.mark.parametrize(("adapted", "matrices"), [("queries and values", 2), ("all", 7)])
def test_adapters_of_chosen_matrices(base: Backbone, tmp_path: Path, adapted: str, matrices: int) -> None:
    settings = SETTINGS.model_copy(update={"adapted": adapted, "layers": 1})
    model, lists = FineTuned(base, settings), [PromptList("A shopper", (" red ball?", " blue ball?"), 0)] * 4
    assert len(model.adapter) == 2 * matrices
    assert model.fit(lists, lists, tmp_path / "fit.safetensors").ndcg == 1.0


def test_a_base_without_the_matrices_that_lora_adapts_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "gpt2")
    config = GPT2Config(vocab_size=21, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(folder)
    with pytest.raises(
        InputError, match=r"gpt2: LoRA adapts .* does not have \(q_proj, v_proj\); choose a base with these"
    ):
        LoRA(load_backbone(str(folder), torch.float32), SETTINGS)
