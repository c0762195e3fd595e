"""The chosen encoder: one setting for names, folders, files and servers, and for several of them together."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dspy.utils.exceptions import LMError

from programs.lm.endpoints import model_name
from programs.lm.ledger import Budget, Ledger
from programs.lm.roles import RoleConfig
from programs.prior.default_encoder import (
    ENCODER_VARIABLE,
    default_encoder,
    encoder_name,
    encoder_setting,
    use_encoder,
)
from programs.prior.embedding_store import EmbeddingStore, store_path
from programs.prior.encoders import ConcatenatedEncoder, HashingEncoder, normalised
from programs.prior.onnx_encoder import EncoderFiles
from programs.prior.served_encoder import ServedEncoder
from programs.runtime.errors import BudgetExceededError, InputError
from tests.support.fake_server import Body, FakeOpenAI, Reply, letters, sensible
from tests.support.paths import TINY_ENCODER
from tests.support.threads import eventually, in_thread

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


TEXTS = [f"text {n}" + "x" * (n % 50) for n in range(256)]


class TestPaidEmbeddings:
    """What was answered is stored before the next question is sent, and of two askers one pays."""

    def test_a_session_that_ends_in_the_middle_keeps_what_it_has_paid(self, server: FakeOpenAI) -> None:
        with use_encoder(server.model()):
            with pytest.raises(BudgetExceededError):
                default_encoder(ledger=Ledger(budget=Budget(calls=2))).encode(TEXTS)
            assert (len(server.bodies), len(vectors_of(server))) == (2, 200)
            last = Ledger(budget=Budget(calls=2))
            assert default_encoder(ledger=last).encode(TEXTS).shape == (256, 4)
        assert (len(server.bodies), last.total().calls) == (3, 1)

    @pytest.mark.usefixtures("hurried")
    def test_a_failure_in_the_middle_loses_no_answer(self) -> None:
        left = [200, 200, 400]

        def respond(body: Body) -> Reply:
            return sensible(body) if not left or left.pop(0) == 200 else Reply("no", status=400)

        with FakeOpenAI(respond) as server, use_encoder(server.model()):
            with pytest.raises(LMError):
                default_encoder().encode(TEXTS)
            assert default_encoder().encode(TEXTS).shape == (256, 4)
            assert [len(body["input"]) for body in server.bodies] == [100, 100, 56, 56]

    def test_two_at_once_pay_each_text_once(self) -> None:
        """Also where their batches overlap without being equal."""

        def respond(body: Body) -> Reply:
            return replace(sensible(body), seconds=0.2)

        with FakeOpenAI(respond) as server, use_encoder(server.model()):
            wanted = [TEXTS[:100], TEXTS[:100], TEXTS[50:150], TEXTS[149:49:-1]]
            with ThreadPoolExecutor(len(wanted)) as pool:
                found = list(pool.map(lambda texts: default_encoder(ledger=Ledger()).encode(texts), wanted))
            asked = [text for body in server.bodies for text in body["input"]]
        assert sorted(asked) == sorted(TEXTS[:150])
        for texts, vectors in zip(wanted, found, strict=True):
            np.testing.assert_allclose(vectors, normalised(np.array([letters(text) for text in texts])), rtol=1e-6)

    def test_a_stopped_ledger_ends_the_wait_for_another(self) -> None:
        answer = threading.Event()

        def respond(body: Body) -> Reply:
            answer.wait(30)
            return sensible(body)

        with FakeOpenAI(respond) as server, use_encoder(server.model()):
            first, _ = in_thread(lambda: default_encoder().encode(["oak desk"]))
            eventually(lambda: bool(server.bodies))
            ledger = Ledger()
            second, came = in_thread(lambda: default_encoder(ledger=ledger).encode(["velvet", "oak desk"]))
            time.sleep(0.1)
            ledger.stop("interrupted")
            second.join(30)
            answer.set()
            first.join(30)
        assert isinstance(came[0], BudgetExceededError)
        assert len(server.bodies) == 1


def vectors_of(server: FakeOpenAI) -> EmbeddingStore:
    """What is stored of a server's encoder."""
    return EmbeddingStore(store_path(), ServedEncoder(server.model()))
