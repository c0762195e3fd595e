"""Embeddings: unit vectors, computed once, kept on disk."""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from programs.prior.embedding_store import EmbeddingStore, store_path
from programs.prior.encoders import HashingEncoder, MiniLMEncoder, OpenAIEncoder, normalised
from programs.runtime import weights
from programs.runtime.errors import InputError, MissingExtraError
from tests.support.encoders import LetterEncoder


def test_store_computes_each_text_once_and_keeps_the_order(tmp_path: Path) -> None:
    encoder = LetterEncoder()
    store = EmbeddingStore(tmp_path / "deep" / "e.sqlite", encoder)
    first = store.encode(["aa", "b", "aa"])
    assert first.dtype == np.float32
    assert first.shape == (3, 4)
    assert encoder.asked == ["aa", "b"]
    np.testing.assert_array_equal(first, LetterEncoder().encode(["aa", "b", "aa"]))

    again = LetterEncoder()
    second = EmbeddingStore(tmp_path / "deep" / "e.sqlite", again)
    np.testing.assert_array_equal(second.encode(["c", "b", "aa"]), LetterEncoder().encode(["c", "b", "aa"]))
    assert again.asked == ["c"]
    assert len(second) == 3


def test_a_killed_run_resumes_where_it_was(tmp_path: Path) -> None:
    texts = [letter * n for letter in "abc" for n in (1, 2, 3)]
    done: list[tuple[int, int]] = []
    killed = EmbeddingStore(tmp_path / "e.sqlite", LetterEncoder(fails_at="ccc"), commit_every=4)
    with pytest.raises(KeyboardInterrupt):
        killed.encode(texts, lambda n, total: done.append((n, total)))
    assert done == [(4, 9), (8, 9)]
    resumed = LetterEncoder()
    done.clear()
    vectors = EmbeddingStore(tmp_path / "e.sqlite", resumed).encode(texts, lambda n, total: done.append((n, total)))
    assert resumed.asked == ["ccc"]
    assert done == [(1, 1)]
    np.testing.assert_array_equal(vectors, LetterEncoder().encode(texts))


def test_vectors_belong_to_an_encoder_name(tmp_path: Path) -> None:
    class Renamed(LetterEncoder):
        @property
        def name(self) -> str:
            return "renamed"

    EmbeddingStore(tmp_path / "e.sqlite", LetterEncoder()).encode(["a"])
    other = Renamed(letters="xy")
    assert EmbeddingStore(tmp_path / "e.sqlite", other).encode(["a"]).shape == (1, 2)
    assert other.asked == ["a"]


def test_vectors_of_another_length_under_one_name_are_refused(tmp_path: Path) -> None:
    EmbeddingStore(tmp_path / "e.sqlite", LetterEncoder()).encode(["a"])
    with pytest.raises(InputError, match="different length under the encoder name 'letters'"):
        EmbeddingStore(tmp_path / "e.sqlite", LetterEncoder(letters="xy")).encode(["a", "b"])


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.sqlite").write_bytes(b"something else entirely, and long enough to be looked at" * 20)
    with pytest.raises(InputError, match=r"e\.sqlite: cannot be used as a store"):
        EmbeddingStore(tmp_path / "e.sqlite", LetterEncoder()).encode(["a"])
    with sqlite3.connect(tmp_path / "f.sqlite") as database:
        database.execute("CREATE TABLE vectors (x)")
    with pytest.raises(InputError, match=r"f\.sqlite: cannot be used as a store"):
        EmbeddingStore(tmp_path / "f.sqlite", LetterEncoder()).encode(["a"])


def test_no_texts_give_no_rows(tmp_path: Path) -> None:
    assert len(EmbeddingStore(tmp_path / "e.sqlite", LetterEncoder()).encode([])) == 0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.text(max_size=5), max_size=6), max_size=3))
def test_store_equals_its_encoder(batches: list[list[str]]) -> None:
    with TemporaryDirectory() as folder:
        encoder = LetterEncoder()
        store = EmbeddingStore(Path(folder) / "e.sqlite", encoder, commit_every=2)
        for texts in filter(None, batches):
            np.testing.assert_array_equal(store.encode(texts), LetterEncoder().encode(texts))
        assert len(encoder.asked) == len(set(encoder.asked)) == len(store)


def test_lone_surrogates_do_not_stop_a_catalogue(tmp_path: Path) -> None:
    assert EmbeddingStore(tmp_path / "e.sqlite", LetterEncoder()).encode(["a\ud83d"]).shape == (1, 4)


def test_store_path_is_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLLM3REC_CACHE", str(tmp_path))
    assert store_path() == tmp_path / "embeddings.sqlite"


def test_hashing_compares_words_and_nothing_else() -> None:
    encoder = HashingEncoder()
    vectors = encoder.encode(
        ["Oak desk, oak chair", "chair OAK desk oak!", "oak desk chair", "velvet ribbon", "", "..."]
    )
    assert (encoder.name, vectors.shape) == ("hashing-1024", (6, 1024))
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors[0], vectors[1])
    # Words weigh the square root of their counts: (sqrt(2), 1, 1) against (1, 1, 1).
    assert float(vectors[0] @ vectors[2]) == pytest.approx((2**0.5 + 2) / (4 * 3) ** 0.5, abs=1e-6)
    assert float(vectors[0] @ vectors[3]) == 0
    assert not vectors[4:].any()


def test_hashing_gives_the_same_vectors_on_every_machine() -> None:
    # `printf oak | b2sum -l 64` gives a2422b892d2edbc6: even, so -1, and halved it is 3 modulo 8.
    # `printf velvet | b2sum -l 64` gives e202f06ac9171d81: odd, so +1, and halved it is 0 modulo 8.
    (vector,) = HashingEncoder(8).encode(["oak velvet"])
    assert vector.tolist() == pytest.approx([0.5**0.5, 0, 0, -(0.5**0.5), 0, 0, 0, 0])


@given(st.lists(st.text(max_size=30), max_size=6), st.integers(1, 64))
def test_hashing_gives_unit_rows_that_depend_on_their_own_text(texts: list[str], dimensions: int) -> None:
    encoder = HashingEncoder(dimensions)
    vectors = encoder.encode(texts)
    lengths = np.linalg.norm(vectors, axis=1)
    assert vectors.shape == (len(texts), dimensions)
    assert all(length == 0 or abs(length - 1) < 1e-5 for length in lengths)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_array_equal(encoder.encode([text])[0], vector)


def test_hashing_needs_a_dimension() -> None:
    with pytest.raises(InputError, match="0 dimensions"):
        HashingEncoder(0)


def test_minilm_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"'onnxruntime': pip install 'mllm3rec\[local\]'"):
        MiniLMEncoder()


def test_minilm_without_weights_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tokenizers")
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


def test_openai_takes_its_key_from_the_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InputError, match="OPENAI_API_KEY"):
        OpenAIEncoder()


class EmbeddingsHandler(BaseHTTPRequestHandler):
    """Speaks `POST /embeddings`: the vector of a text is (length, 1), answered in reverse order."""

    requests: list[dict[str, object]]

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append(request)
        data = [
            {"object": "embedding", "index": i, "embedding": [len(text), 1.0]}
            for i, text in enumerate(request["input"])
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        body = json.dumps({"object": "list", "data": data[::-1], "model": request["model"], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def embeddings_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[EmbeddingsHandler]]:
    handler = type("Handler", (EmbeddingsHandler,), {"requests": []})
    loopback = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=loopback.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-key")
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{loopback.server_address[1]}")
    for proxy in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    yield handler
    loopback.shutdown()
    loopback.server_close()


def test_openai_batches_and_restores_the_order(embeddings_server: type[EmbeddingsHandler]) -> None:
    encoder = OpenAIEncoder(batch=2)
    vectors = encoder.encode(["abc", "", "x" * 9000])
    assert encoder.name == "openai/text-embedding-3-small"
    assert [len(request["input"]) for request in embeddings_server.requests] == [2, 1]  # type: ignore[arg-type]
    np.testing.assert_allclose(vectors, normalised(np.array([[3.0, 1.0], [1.0, 1.0], [6000.0, 1.0]])), rtol=1e-6)
