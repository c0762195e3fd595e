"""Embeddings: unit vectors, computed once, kept on disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from programs.prior.embedding_store import EmbeddingStore, store_path
from programs.prior.encoders import ConcatenatedEncoder, HashingEncoder, Vectors
from programs.runtime.errors import InputError
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
    killed = EmbeddingStore(tmp_path / "e.sqlite", LetterEncoder(fails_at="c"), commit_every=4)
    with pytest.raises(KeyboardInterrupt):
        killed.encode(texts, lambda n, total: done.append((n, total)))
    assert done == [(4, 9), (8, 9)]
    resumed = LetterEncoder()
    done.clear()
    vectors = EmbeddingStore(tmp_path / "e.sqlite", resumed).encode(texts, lambda n, total: done.append((n, total)))
    assert resumed.asked == ["c"]
    assert done == [(1, 1)]
    np.testing.assert_array_equal(vectors, LetterEncoder().encode(texts))


def test_texts_of_like_length_are_encoded_together_over_the_whole_catalogue(tmp_path: Path) -> None:
    batches: list[list[int]] = []

    class Noting(LetterEncoder):
        def encode(self, texts: Sequence[str]) -> Vectors:
            batches.append([len(text) for text in texts])
            return super().encode(texts)

    texts = ["a" * (1 + 7 * n % 12) for n in range(12)]
    vectors = EmbeddingStore(tmp_path / "e.sqlite", Noting(), commit_every=5).encode(texts)
    assert batches == [[12, 11, 10, 9, 8], [7, 6, 5, 4, 3], [2, 1]]
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


def test_several_encoders_are_read_as_one() -> None:
    first, second = LetterEncoder(), LetterEncoder(letters="xy")
    both = ConcatenatedEncoder([first, second])
    texts = ["aab x", "ab xy", "bbb"]
    vectors = both.encode(texts)
    one, other = first.encode(texts), second.encode(texts)
    assert both.name == "letters+letters"
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    # A text that one of them cannot read ("bbb" has neither x nor y) has the cosines of the other, over the root of 2.
    expected = (one @ one.T + other @ other.T) / np.sqrt(np.outer([2, 2, 1], [2, 2, 1]))
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-6)


def test_a_concatenation_of_one_is_none() -> None:
    with pytest.raises(InputError, match="at least two"):
        ConcatenatedEncoder([LetterEncoder()])
