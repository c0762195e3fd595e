"""The chosen encoder: one setting for names, folders, files and servers, and for several of them together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from programs.lm.endpoints import model_name
from programs.lm.ledger import Ledger
from programs.lm.roles import RoleConfig
from programs.prior.default_encoder import (
    ENCODER_VARIABLE,
    default_encoder,
    encoder_name,
    encoder_setting,
    use_encoder,
)
from programs.prior.encoders import ConcatenatedEncoder, HashingEncoder
from programs.prior.onnx_encoder import EncoderFiles
from programs.runtime.errors import InputError
from tests.support.fake_server import FakeOpenAI
from tests.support.paths import TINY_ENCODER

TINY = EncoderFiles.of_folder(TINY_ENCODER).identity


@pytest.fixture
def onnx() -> Iterator[None]:
    for library in ("onnxruntime", "tokenizers"):
        pytest.importorskip(library)
    yield


def test_the_default_one_is_not_in_manifests() -> None:
    assert (encoder_name(), encoder_setting()) == ("minilm", {})
    with use_encoder("minilm"):
        assert encoder_setting() == {}


@pytest.mark.parametrize("name", ["hashing", "openai"])
def test_names_are_in_manifests_as_they_always_were(name: str) -> None:
    with use_encoder(name):
        assert encoder_setting() == {"encoder": name}


def test_a_folder_counts_by_its_content(tmp_path: Path) -> None:
    copy = shutil.copytree(TINY_ENCODER, tmp_path / "copy")
    for folder in (TINY_ENCODER, copy):
        with use_encoder(str(folder)):
            assert encoder_setting() == {"encoder": TINY}
    with use_encoder(f"minilm+{copy}"):
        assert encoder_setting() == {"encoder": f"minilm+{TINY}"}


def test_a_server_counts_by_its_address_and_model(server: FakeOpenAI) -> None:
    with use_encoder(server.model("bge")):
        assert encoder_name() == model_name(RoleConfig(model=server.model("bge")))
        assert encoder_name().endswith("/bge")


@pytest.mark.usefixtures("onnx")
def test_several_are_concatenated_and_each_keeps_its_vectors(server: FakeOpenAI) -> None:
    ledger = Ledger()
    with use_encoder(f"hashing+{TINY_ENCODER}+{server.model()}"):
        encoder = default_encoder(ledger=ledger)
        vectors = encoder.encode(["oak desk", "velvet"])
    assert isinstance(encoder, ConcatenatedEncoder)
    assert vectors.shape == (2, 1024 + 3 + 4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert ledger.total().calls == len(server.bodies) == 1
    with use_encoder(server.model()):
        alone = default_encoder(ledger=ledger).encode(["velvet"])
    assert len(server.bodies) == 1, "its vectors were stored"
    # Three parts of length 1 each, then all of them divided by the root of 3.
    np.testing.assert_allclose(vectors[1, -4:] * 3**0.5, alone[0], atol=1e-6)


@pytest.mark.parametrize("setting", ["word2vec", "minilm+", "+", "minilm+word2vec", "/no/such/folder"])
def test_what_names_no_encoder_is_refused(setting: str) -> None:
    said = r"MLLM3REC_ENCODER is .* is no folder and no name; give 'minilm'"
    with pytest.raises(InputError, match=said), use_encoder(setting):
        pass
    assert ENCODER_VARIABLE not in os.environ


def test_another_encoder_holds_for_the_block_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with use_encoder("hashing"):
        assert isinstance(default_encoder(), HashingEncoder)
        with use_encoder(None):
            assert encoder_name() == "hashing"
    assert ENCODER_VARIABLE not in os.environ
    monkeypatch.setenv(ENCODER_VARIABLE, "openai")
    with pytest.raises(KeyError), use_encoder("hashing"):
        raise KeyError
    assert encoder_name() == "openai"
