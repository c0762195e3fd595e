"""The fine-tuned reader on a tiny random model: scores, training, resuming, adapters, other bases."""

from __future__ import annotations

import itertools
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from transformers import GraniteConfig, GraniteForCausalLM

from programs.runtime.errors import InputError
from programs.runtime.events import Event, KeptFit, Progress
from programs.runtime.lock import owned
from programs.tuned.adaptation import Frozen
from programs.tuned.backbone import load_backbone, sha256_of_base, source_of
from programs.tuned.decoding import LateInteraction
from programs.tuned.finetuned import FineTuned, read_tensors
from programs.tuned.reader import AdapterRecord, tuned_reader
from programs.tuned.settings import PromptList, TuningSettings
from tests.support.failures import Killed
from tests.support.tiny_model import write_tiny_gguf, write_tiny_model

COLOURS, SHAPES = ("red", "blue", "green"), ("ball", "cube", "car")
SETTINGS = TuningSettings(layers=2, rank=4, lists=72, batch=4, block=6, rate=0.02, patience=9, average=0.8)


def planted() -> list[PromptList]:
    """Everybody buys red; red stands at each place equally often."""
    lists = []
    for order, first, second in itertools.product(itertools.permutations(COLOURS), SHAPES, SHAPES):
        suffixes = tuple(f" {colour} {second}?" for colour in order)
        lists.append(PromptList(f"A shopper bought: - blue {first} buy next:", suffixes, order.index("red")))
    return lists


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("base"))


def model(folder: Path, settings: TuningSettings = SETTINGS) -> FineTuned:
    return FineTuned(load_backbone(str(folder), torch.float32), settings)


def test_packed_logits_equal_separate_ones_and_those_of_the_model_itself(folder: Path) -> None:
    one, reader = planted()[0], model(folder)
    packed = reader.logits(one.prefix, one.suffixes)
    separate = [reader.logits(one.prefix, [suffix])[0] for suffix in one.suffixes]
    base = load_backbone(str(folder), torch.float32)
    plain = []
    for suffix in one.suffixes:
        ids = torch.tensor([base.tokenizer.encode(one.prefix + suffix, add_special_tokens=False)])
        last = base.model(input_ids=ids).logits[0, -1].float()
        yes, no = (base.tokenizer.convert_tokens_to_ids(word) for word in ("Yes", "No"))
        plain.append(float(last[yes] - last[no]))
    np.testing.assert_allclose(packed, separate, atol=1e-4)
    np.testing.assert_allclose(packed, plain, atol=1e-4)
    assert np.ptp(packed) > 0.01


def test_only_adapters_of_the_last_layers_are_trained(folder: Path) -> None:
    names = list(model(folder, SETTINGS.model_copy(update={"layers": 1})).adapter)
    assert len(names) == 4 and all("layers.1." in name and "lora_" in name for name in names)


def test_training_finds_a_planted_rule_and_resumes_to_the_same_weights(folder: Path, tmp_path: Path) -> None:
    lists, dev = planted()[:36], planted()[36:]
    whole = model(folder)
    before = whole.figures(dev)
    events: list[Event] = []
    after = whole.fit(lists, dev, tmp_path / "whole.safetensors", events.append)
    assert after.loss < 0.7 * before.loss and after.ndcg > before.ndcg
    assert after == whole.figures(dev)
    assert events[-1] == Progress("fine-tuning", 72, 72)
    trained = whole.saved()

    def kill_in_the_second_block(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 32:
            raise Killed

    path = tmp_path / "killed.safetensors"
    with pytest.raises(Killed):
        model(folder).fit(lists, dev, path, kill_in_the_second_block)
    again = model(folder)
    seen: list[Event] = []
    assert again.fit(lists, dev, path, seen.append) == after
    assert again.saved() == trained
    assert next(event.done for event in seen if isinstance(event, Progress)) == 28, "the first block is not repeated"
    other = model(folder, SETTINGS.model_copy(update={"rate": 0.01}))
    with pytest.raises(InputError, match="other settings"):
        other.fit(lists, dev, path)
    with safe_open(path, framework="pt") as file:
        changed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        changed[next(iter(changed))].add_(0.5)
        changed_file = save(changed, metadata=file.metadata())
    for content, said in ((b"broken", "damaged"), (changed_file, "hash is not that of its content")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=said):
            model(folder).fit(lists, dev, path)


def test_the_average_over_steps_is_what_is_judged_and_saved(folder: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"lists": 24, "patience": 1})
    lists, dev = planted()[:36], planted()[36:]
    reader = model(folder, settings)
    reader.fit(lists, dev, tmp_path / "one.safetensors")
    saved = read_tensors((tmp_path / "one.safetensors").read_bytes(), "one")
    for name, kept in reader.adapter.items():
        assert torch.equal(kept.detach(), saved[f"average.{name}"])
    assert any(not torch.equal(saved[f"average.{name}"], saved[f"now.{name}"]) for name in reader.adapter)
    last = model(folder, settings.model_copy(update={"average": 0.0}))
    last.fit(lists, dev, tmp_path / "last.safetensors")
    saved = read_tensors((tmp_path / "last.safetensors").read_bytes(), "last")
    assert all(torch.equal(saved[f"average.{name}"], saved[f"now.{name}"]) for name in last.adapter)


def test_a_training_that_diverges_keeps_the_best_weights_before_and_says_so(folder: Path, tmp_path: Path) -> None:
    lists, dev = planted()[:36], planted()[36:]
    wild = model(folder, SETTINGS.model_copy(update={"rate": 1e30, "warmup": 0.0}))
    untuned = wild.figures(dev)
    events: list[Event] = []
    assert wild.fit(lists, dev, tmp_path / "wild.safetensors", events.append) == untuned == wild.figures(dev)
    assert any("the weights are not finite" in str(event) for event in events)
    again, seen = model(folder, wild.settings), list[Event]()
    assert again.fit(lists, dev, tmp_path / "wild.safetensors", seen.append) == untuned == again.figures(dev)
    kept = KeptFit(f"fine-tuning: the fit is kept in {tmp_path}", tmp_path)
    assert seen == [kept, Progress("fine-tuning", 72, 72)], "nothing is trained again"


def test_models_that_do_more_than_an_output_layer_are_refused(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "granite")
    shape = {"vocab_size": 21, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = GraniteConfig(**shape, num_attention_heads=4, num_key_value_heads=2, logits_scaling=8.0)
    GraniteForCausalLM(config).save_pretrained(folder)
    with pytest.raises(InputError, match="changes its logits after the output layer"):
        load_backbone(str(folder), torch.float32)
    config.logits_scaling, config.embedding_multiplier = 1.0, 12.0
    GraniteForCausalLM(config).save_pretrained(folder)
    adapted = Frozen(load_backbone(str(folder), torch.float32))
    with pytest.raises(InputError, match="is more than its layers"):
        LateInteraction(adapted, 1)


@pytest.mark.parametrize("form", ["folder", "gguf"])
def test_bfloat16_rounds_weights_and_not_frequencies(
    form: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = folder
    if form == "gguf":
        monkeypatch.setenv("MLLM3REC_CACHE", str(tmp_path / "cache"))
        name = tmp_path / "base.gguf"
        name.write_bytes(b"GGUF")
        write_tiny_model(tmp_path / "cache" / "dequantised" / sha256_of_base(name))
    exact, rounded = (load_backbone(str(name), dtype).model for dtype in (torch.float32, torch.bfloat16))
    kept = dict(rounded.named_parameters())
    for parameter, value in exact.named_parameters():
        assert torch.equal(kept[parameter], value.to(torch.bfloat16)), parameter
    assert dict(rounded.named_buffers())
    for buffer, value in rounded.named_buffers():
        assert value.dtype == torch.float32, buffer
        assert torch.equal(value, exact.get_buffer(buffer)), buffer


def test_unpacked_weights_of_another_form_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLLM3REC_CACHE", str(tmp_path / "cache"))
    base = tmp_path / "base.gguf"
    base.write_bytes(b"GGUF")
    unpacked = write_tiny_model(tmp_path / "cache" / "dequantised" / sha256_of_base(base))
    name = load_backbone(str(base), torch.float32).name
    assert name == str(base)
    tensors = load_file(unpacked / "model.safetensors")
    tensors["another.name"] = tensors.pop(next(iter(tensors)))
    (unpacked / "model.safetensors").write_bytes(save(tensors))
    with pytest.raises(InputError, match="another version of transformers; delete it"):
        load_backbone(str(base), torch.float32)


def test_unpacked_weights_that_were_not_finished_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLLM3REC_CACHE", str(tmp_path / "cache"))
    base = write_tiny_gguf(tmp_path / "base.gguf")
    first = load_backbone(str(base), torch.float32)
    (folder,) = (tmp_path / "cache" / "dequantised").glob("*/")
    assert folder.name == first.sha256
    (folder / "tokenizer.json").unlink()  # what a kill left behind: it is written last
    (folder / "model.safetensors").write_bytes(b"cut")
    folder.with_name(f"{folder.name}.partial").mkdir()
    again = load_backbone(str(base), torch.float32)
    assert again.tokenizer.encode("ab") == first.tokenizer.encode("ab")
    for name, value in first.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    assert list((tmp_path / "cache" / "dequantised").glob("*/")) == [folder]


def test_weights_that_another_process_unpacks_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLLM3REC_CACHE", str(tmp_path / "cache"))
    base = tmp_path / "base.gguf"
    base.write_bytes(b"GGUF")  # holds no weights: unpacking it would be an error
    unpacked = tmp_path / "cache" / "dequantised"
    with ThreadPoolExecutor() as pool:
        with owned(unpacked):
            waiting = pool.submit(load_backbone, str(base), torch.float32)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.5)
            write_tiny_model(tmp_path / "made").rename(unpacked / sha256_of_base(base))
        assert waiting.result().tokenizer.convert_tokens_to_ids("Yes") == 2


def test_settings_of_older_trainings_are_recorded_as_they_were() -> None:
    older = TuningSettings().model_dump()
    assert not {"average", "stopping_users", "adapted", "every_purchase"} & older.keys()
    assert TuningSettings(**older) == TuningSettings()


def test_an_adapter_is_loaded_only_where_it_fits(folder: Path, tmp_path: Path) -> None:
    own, one = model(folder), planted()[0]
    with torch.no_grad():
        for tensor in own.adapter.values():
            tensor.add_(0.1)
    content = own.saved()
    record = AdapterRecord(base=str(folder), base_sha256=sha256_of_base(source_of(str(folder))), settings=SETTINGS)
    where = tmp_path / "adapter.safetensors"
    same = FineTuned(load_backbone(str(folder)), SETTINGS)
    same.load(read_tensors(content, where), where)
    np.testing.assert_array_equal(
        tuned_reader(record, content, where).logits(one.prefix, one.suffixes), same.logits(one.prefix, one.suffixes)
    )
    other = write_tiny_model(tmp_path / "other", seed=1)
    wrong_base = record.model_copy(update={"base": str(other)})
    with pytest.raises(InputError, match="another base"):
        tuned_reader(wrong_base, content, where).logits(one.prefix, one.suffixes)
    wrong_rank = record.model_copy(update={"settings": SETTINGS.model_copy(update={"rank": 2})})
    with pytest.raises(InputError, match="finite numbers"):
        tuned_reader(wrong_rank, content, where).logits(one.prefix, one.suffixes)
    wrong_layers = record.model_copy(update={"settings": SETTINGS.model_copy(update={"layers": 1})})
    with pytest.raises(InputError, match="not those of base"):
        tuned_reader(wrong_layers, content, where).logits(one.prefix, one.suffixes)
    with pytest.raises(InputError, match="not a safetensors file"):
        tuned_reader(record, content[:50], where).logits(one.prefix, one.suffixes)
    tensors = read_tensors(content, where)
    next(iter(tensors.values()))[0, 0] = float("nan")
    with pytest.raises(InputError, match="finite numbers"):
        own.load(tensors, where)


def test_a_tokenizer_in_several_files_is_part_of_the_identity_of_a_base(folder: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(folder, tmp_path / "base"))
    whole = sha256_of_base(base)
    (base / "merges.txt").write_text("r ed")
    assert sha256_of_base(base) == whole, "tokenizer.json is read in its place"
    (base / "tokenizer.json").unlink()
    seen = [whole, sha256_of_base(base)]
    for name in ("merges.txt", "tokenizer.model"):
        (base / name).write_text("b lue")
        seen.append(sha256_of_base(base))
    assert len(set(seen)) == 4


def test_a_base_is_a_gguf_file_a_folder_or_a_local_name(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"pickle")
    for name in (str(tmp_path), str(tmp_path / "weights.bin"), str(tmp_path / "none"), "local/none"):
        with pytest.raises(InputError):
            source_of(name)
