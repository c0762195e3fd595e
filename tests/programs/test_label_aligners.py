"""Aligners on log-probabilities of labels: complete scores, exact calibration, and servers that give less."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from programs.label_aligners import LETTERS, FirstToken, LabelAligner, Pairwise, Setwise
from programs.mar import Alignments, Candidate
from programs.program import PROGRAMS, Fusion
from programs.runtime.errors import InputError
from signatures.mar import NOBODY
from signatures.rows import Ranking, Status
from tests.support.backends import backends_on
from tests.support.fake_server import Body, FakeOpenAI, Reply, last_user, sensible
from tests.support.small_shop import CASE, SHOPPER, parts_on

Logit = Callable[[str, str, bool], float]
"""From a label, the text beside it and whether the user is known to a log-probability."""


def candidates(n: int) -> list[Candidate]:
    return [Candidate(f"I-{index}", f"trait {index}") for index in range(n)]


def shown(body: Body) -> list[tuple[str, str]]:
    return re.findall(r"^([A-Za-z]): (.*)$", last_user(body), re.MULTILINE)


def listing(logit: Logit, written: str | None = None, most: int = 100) -> Callable[[Body], Reply]:
    def respond(body: Body) -> Reply:
        known = NOBODY not in last_user(body)
        tops = [{"token": label, "logprob": logit(label, text, known)} for label, text in shown(body)]
        tops = sorted(tops, key=lambda top: -top["logprob"])[:most]
        token = written or tops[0]["token"]
        return Reply(token, logprobs=[{"token": token, "logprob": -0.1, "top_logprobs": tops}])

    return respond


def number(text: str) -> int:
    return int(text.split()[-1])


def bias(label: str) -> float:
    return -LETTERS.index(label) * 0.7


def taste(label: str, text: str, known: bool) -> float:
    return -1.0 - 0.3 * number(text) * known + bias(label) - 20


def scores(result: Alignments) -> list[float]:
    assert all(alignment is not None for alignment in result.alignments)
    return [alignment.score for alignment in result.alignments if alignment]


def align(
    aligner: type[LabelAligner], respond: Callable[[Body], Reply], n: int, seed: int = 0, **kw: Any
) -> Alignments:
    with FakeOpenAI(respond) as server:
        result: Alignments = aligner(backends_on(server), **kw)(user=SHOPPER, candidates=candidates(n), seed=seed)
    return result


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_calibration_removes_a_constant_label_bias_exactly(seed: int) -> None:
    expected = -0.3 * (np.arange(8) - 3.5)
    assert scores(align(FirstToken, listing(taste), 8, seed)) == pytest.approx(expected)
    raw = scores(align(FirstToken, listing(taste), 8, seed, calibrate=False))
    assert raw != pytest.approx(expected, abs=0.1)


def test_both_orders_of_a_pair_remove_it_too() -> None:
    result = align(Pairwise, listing(taste), 6, neighbours=3)
    # All pairs: half of the mean of .3 (other - own) over the five others.
    expected = [0.3 / 2 * np.mean([other - own for other in range(6) if other != own]) for own in range(6)]
    assert scores(result) == pytest.approx(expected)


@pytest.mark.parametrize(("aligner", "calls"), [(FirstToken, 4), (Setwise, 2 * 2 * 3), (Pairwise, 2 * 2 * 10)])
def test_the_number_of_calls_is_known_and_the_user_comes_first(aligner: type[LabelAligner], calls: int) -> None:
    with FakeOpenAI() as server:
        backends = backends_on(server)
        aligner(backends)(user=SHOPPER, candidates=candidates(10), seed=3)
        asked = backends.ledger.total()
        assert asked.calls + asked.cache_hits == calls
    known = [last_user(body) for body in server.bodies if NOBODY not in last_user(body)]
    assert all(prompt.index(SHOPPER.text) < prompt.index("A: ") for prompt in known)
    assert all(body["max_tokens"] == 4 and body["logprobs"] for body in server.bodies)


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as server:
        yield server


class TestEveryCandidateIsScored:
    @settings(max_examples=25, deadline=None)
    @given(n=st.integers(1, 52), seed=st.integers(0, 2**32))
    def test_lists_hold_every_candidate(self, n: int, seed: int) -> None:
        for aligner in (FirstToken(), Setwise(), Pairwise()):
            lists = list(aligner.lists(n, random.Random(seed)))
            assert {index for one in lists for index in one} == set(range(n))
            assert all(len(set(one)) == len(one) for one in lists)
            assert lists == list(aligner.lists(n, random.Random(seed)))

    @settings(max_examples=15, deadline=None)
    @given(n=st.integers(1, 12), seed=st.integers(0, 10**6))
    def test_on_a_server(self, shared: FakeOpenAI, n: int, seed: int) -> None:
        for aligner in (FirstToken, Setwise, Pairwise):
            result = aligner(backends_on(shared))(user=SHOPPER, candidates=candidates(n), seed=seed)
            assert len(scores(result)) == n
            assert np.isfinite(scores(result)).all()
            assert result.appended == 0


def test_missing_labels_are_below_the_list_and_counted() -> None:
    result = align(FirstToken, listing(lambda _, text, __: -1.0 - number(text), most=3), 6, calibrate=False)
    found = scores(result)
    assert result.appended == 3
    assert found[3] == found[4] == found[5] == pytest.approx(found[2] - 1.0)


def test_an_answer_without_a_label_has_log_probabilities_all_the_same() -> None:
    result = align(FirstToken, listing(taste, written="The"), 5)
    assert np.argsort(scores(result)).tolist() == [4, 3, 2, 1, 0]
    assert result.unparsable == 0


def test_without_log_probabilities_the_written_label_is_the_top() -> None:
    def write(body: Body) -> Reply:
        return Reply(next(label for label, text in shown(body) if text == "trait 2"))

    result = align(FirstToken, write, 4)
    assert np.argmax(scores(result)) == 2
    assert {alignment.source for alignment in result.alignments if alignment} == {"label"}
    assert result.by_position == []


def test_an_unreadable_answer_is_counted_and_the_prior_decides() -> None:
    result = align(FirstToken, lambda _: Reply("no idea"), 4)
    assert result.alignments == [None] * 4
    assert (result.appended, result.unparsable) == (4, 2)
    with FakeOpenAI(lambda b: Reply("no idea") if "Choice:" in last_user(b) else sensible(b)) as server:
        ranking = PROGRAMS["first-token"](parts_on(server)).rank(CASE)
    assert ranking.status is Status.UNPARSABLE


def test_the_curve_of_positions_is_the_bias_of_the_labels() -> None:
    result = align(FirstToken, listing(lambda label, _, __: bias(label) - 1), 4)
    assert result.by_position == pytest.approx([1.05, 0.35, -0.35, -1.05])


def test_a_row_keeps_the_curve_and_old_rows_have_none(server: FakeOpenAI) -> None:
    ranking = PROGRAMS["first-token"](parts_on(server)).rank(CASE)
    assert len(ranking.by_position) == 4
    assert Ranking.model_validate_json(ranking.model_dump_json()) == ranking
    assert "by_position" not in Ranking(user_id="u", order=()).model_dump_json()


def test_too_many_candidates_and_bad_settings_are_refused(server: FakeOpenAI) -> None:
    with pytest.raises(InputError, match="53 candidates: a list holds at most 52; use --head 52"):
        FirstToken(backends_on(server))(user=SHOPPER, candidates=candidates(53), seed=0)
    with pytest.raises(InputError, match="permutations 0"):
        FirstToken(permutations=0)
    with pytest.raises(InputError, match="size 1"):
        Setwise(size=1)
    assert server.bodies == []


def test_only_the_head_is_asked_about(server: FakeOpenAI) -> None:
    PROGRAMS["setwise"](parts_on(server, fusion=Fusion(head=2))).rank(CASE)
    assert all(len(shown(body)) == 2 for body in server.bodies if "Choice:" in last_user(body))


def test_a_list_that_cannot_be_calibrated_is_left_out() -> None:
    """Values of both kinds would have different scales."""
    uncalibrated = listing(taste)

    def respond(body: Body) -> Reply:
        reply = uncalibrated(body)
        asked_nobody, first = NOBODY in last_user(body), shown(body)[0][1]
        return Reply("?") if asked_nobody and number(first) % 2 else reply

    odd_first = next(seed for seed in range(30) if one_odd_list(seed))
    result = align(FirstToken, respond, 8, odd_first)
    assert scores(result) == pytest.approx(-0.3 * (np.arange(8) - 3.5)), "of the calibrated list alone"
    none = align(FirstToken, lambda body: Reply("?") if NOBODY in last_user(body) else uncalibrated(body), 8)
    assert none.alignments == [None] * 8
    assert none.appended == 8


def one_odd_list(seed: int) -> bool:
    """Whether exactly one of the two lists of eight begins with an odd candidate."""
    return sum(one[0] % 2 for one in FirstToken().lists(8, random.Random(seed))) == 1
