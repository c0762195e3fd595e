"""Sentence encoders in ONNX: folders, pooling, identity. The tiny network gives each word a vector of three numbers."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from programs.prior.encoders import normalised
from programs.prior.onnx_encoder import EncoderFiles, MiniLMEncoder, OnnxEncoder
from programs.prior.onnx_export import export
from programs.runtime import weights
from programs.runtime.errors import InputError, MissingExtraError
from tests.support.paths import TINY_ENCODER

CLS, OAK, DESK, VELVET = np.eye(3)[2], np.eye(3)[0], np.eye(3)[1], -np.eye(3)[1]
"""Vectors of the tokens in the tiny network; every text begins with CLS."""


@pytest.fixture(autouse=True)
def _onnx() -> None:
    for library in ("onnxruntime", "tokenizers"):
        pytest.importorskip(library)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(TINY_ENCODER, tmp_path / "tiny")
    return tmp_path / "tiny"


def write(folder: Path, name: str, content: object) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def test_a_folder_is_read_with_the_mean_of_its_states(folder: Path) -> None:
    vectors = OnnxEncoder(EncoderFiles.of_folder(folder), batch=2).encode(["oak", "oak desk", "", "velvet velvet oak"])
    means = [CLS + OAK, CLS + OAK + DESK, CLS, CLS + 2 * VELVET + OAK]
    np.testing.assert_allclose(vectors, normalised(np.array(means)), atol=1e-6)
    assert OnnxEncoder(EncoderFiles.of_folder(folder)).encode([]).shape == (0, 0)


def test_a_network_may_lie_in_a_folder_named_onnx(folder: Path) -> None:
    before = EncoderFiles.of_folder(folder).identity
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / "onnx" / "model.onnx")
    assert EncoderFiles.of_folder(folder).identity == before


def test_pooling_and_length_are_those_of_the_folder(folder: Path) -> None:
    write(folder, "1_Pooling/config.json", {"word_embedding_dimension": 3, "pooling_mode_cls_token": True})
    np.testing.assert_allclose(OnnxEncoder(EncoderFiles.of_folder(folder)).encode(["oak desk"])[0], CLS, atol=1e-6)
    write(folder, "1_Pooling/config.json", {"pooling_mode_mean_tokens": True})
    write(folder, "sentence_bert_config.json", {"max_seq_length": 8})
    long = OnnxEncoder(EncoderFiles.of_folder(folder)).encode(["oak " * 7 + "desk " * 90])[0]
    np.testing.assert_allclose(long, normalised(np.array([CLS + 7 * OAK]))[0], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens: only the mean"),
        ("modules.json", [{"type": "sentence_transformers.models.Dense"}], "the step 'Dense' is not one of"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length"),
        ("modules.json", {}, "modules.json: .*valid array"),
    ],
)
def test_what_cannot_be_followed_is_refused(folder: Path, name: str, content: object, problem: str) -> None:
    write(folder, name, content)
    with pytest.raises(InputError, match=problem):
        EncoderFiles.of_folder(folder)


@pytest.mark.parametrize("missing", ["model.onnx", "tokenizer.json"])
def test_a_folder_without_a_file_is_refused(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(InputError, match=f"has no {missing}; give the folder of a sentence encoder"):
        EncoderFiles.of_folder(folder)


def test_a_damaged_network_is_refused(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no network")
    with pytest.raises(InputError, match="cannot be loaded as an encoder"):
        OnnxEncoder(EncoderFiles.of_folder(folder))


def test_the_identity_is_that_of_the_content(folder: Path, tmp_path: Path) -> None:
    here = EncoderFiles.of_folder(folder).identity
    moved = EncoderFiles.of_folder(folder.rename(tmp_path / "elsewhere"))
    assert moved.identity == here
    assert OnnxEncoder(moved).name == here
    folder = tmp_path / "elsewhere"
    identities = {moved.identity}
    write(folder, "1_Pooling/config.json", {"pooling_mode_cls_token": True})
    identities.add(EncoderFiles.of_folder(folder).identity)
    write(folder, "sentence_bert_config.json", {"max_seq_length": 64})
    identities.add(EncoderFiles.of_folder(folder).identity)
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text("utf-8") + "\n", "utf-8")
    identities.add(EncoderFiles.of_folder(folder).identity)
    (folder / "model.onnx.data").write_bytes(b"weights")
    identities.add(EncoderFiles.of_folder(folder).identity)
    assert len(identities) == 5


def test_minilm_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"'onnxruntime': pip install 'mllm3rec\[local\]'"):
        MiniLMEncoder()


def test_minilm_without_weights_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLLM3REC_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"fetch\('minilm'\)"):
        MiniLMEncoder()


@pytest.mark.llm
def test_minilm_knows_what_is_alike_and_batches_do_not_matter() -> None:
    if weights.locate("minilm") is None:
        pytest.skip("the MiniLM weights are not in the cache")
    texts = ["wooden train set for toddlers", "railway with wagons, made of wood", "eyeliner", "", "long " * 500]
    done: list[tuple[int, int]] = []
    together = MiniLMEncoder(batch=4).encode(texts, lambda n, total: done.append((n, total)))
    alone = MiniLMEncoder(batch=1).encode(texts)
    assert together.shape == (5, 384)
    assert done == [(4, 5), (5, 5)]
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert together[0] @ together[1] > together[0] @ together[2] + 0.2


def hugging_face(folder: Path) -> Path:
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")
    return folder


def test_an_export_without_torch_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = hugging_face(tmp_path / "source")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"'torch': pip install 'mllm3rec\[export\]'"):
        export(source, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_an_export_needs_its_files_and_an_empty_folder(tmp_path: Path) -> None:
    source = hugging_face(tmp_path / "source")
    with pytest.raises(InputError, match="source: holds something already"):
        export(source, source)
    (source / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"source: has no model\.safetensors"):
        export(source, tmp_path / "target")
