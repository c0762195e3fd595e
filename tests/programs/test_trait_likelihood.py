"""The likelihood of traits after a profile, read from a server that repeats the prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dspy
import numpy as np
import pytest
from dspy.utils.exceptions import LMError

from programs.lm.backends import Backends
from programs.lm.ledger import Budget, Ledger
from programs.lm.prices import Price
from programs.lm.roles import RoleConfig, Roles
from programs.mar import Alignments, Candidate, UserView
from programs.program import PROGRAMS
from programs.runtime.errors import BudgetExceededError, InputError
from programs.trait_likelihood import TraitLikelihood
from signatures.mar import LIKELIHOOD_PROMPT, NOBODY
from tests.support.backends import backends_on, prices_for
from tests.support.fake_server import Body, FakeOpenAI, Reply, echoed, likelihoods, replying
from tests.support.small_shop import CASE, parts_on

USER = UserView("- value (strong): sturdy, and much for little")
CANDIDATES = (Candidate("I-1", "easy to clean"), Candidate("I-2", "sturdy; kind to skin"), Candidate("I-3", "sturdy"))


def aligned(server: FakeOpenAI, candidates: tuple[Candidate, ...] = CANDIDATES, **more: Any) -> Alignments:
    return TraitLikelihood(backends_on(server, **more))(user=USER, candidates=candidates, seed=0)


def expected(shopper: str, traits: str) -> float:
    """The mean over the words of the traits, from the words of the whole prompt."""
    words = likelihoods(f"{LIKELIHOOD_PROMPT.format(shopper=shopper)} {traits}")
    return float(np.mean([value for _, value in words[-len(traits.split()) :]]))


def edited(change: Callable[[Body], object]) -> FakeOpenAI:
    """A server whose answers are changed on the way."""

    def respond(body: Body) -> Reply:
        answer = echoed(body, likelihoods(body["prompt"]), {"prompt_tokens": 9})
        change(answer)
        return Reply(raw=json.dumps(answer).encode())

    return FakeOpenAI(respond)


def test_the_score_is_the_gain_in_log_probability_by_the_profile(server: FakeOpenAI) -> None:
    result = aligned(server)
    found = {one.item_id: one.score for one in result.alignments if one is not None}
    assert found == {
        one.item_id: pytest.approx(expected(USER.text, one.text) - expected(NOBODY, one.text)) for one in CANDIDATES
    }
    assert found["I-3"] > found["I-2"] > found["I-1"], "the profile says sturdy"
    assert {one.source for one in result.alignments if one is not None} == {"likelihood"}
    assert (result.appended, result.dropped, result.unparsable) == (0, 0, 0)


def test_the_prompt_ends_with_the_traits_and_what_reads_the_answer_is_not_sent(server: FakeOpenAI) -> None:
    aligned(server, CANDIDATES[:1])
    assert set(server.paths) == {"/v1/completions"}
    for body, shopper in zip(server.bodies, (USER.text, NOBODY), strict=True):
        assert body == {
            "model": "fake",
            "prompt": f"{LIKELIHOOD_PROMPT.format(shopper=shopper)} easy to clean",
            "max_tokens": 1,
            "temperature": 0.0,
            "echo": True,
            "logprobs": 1,
        }


def test_the_traits_for_nobody_are_asked_once_for_all_users(server: FakeOpenAI) -> None:
    ledger = Ledger()
    align = TraitLikelihood(backends_on(server, ledger))
    for text in ("- value", "- beauty", "- value"):
        align(user=UserView(text), candidates=CANDIDATES, seed=0)
    assert len(server.bodies) == 3 * 3
    total = ledger.total()
    assert (total.calls, total.cache_hits, total.tokens_in, total.tokens_out) == (9, 9, server.tokens_in, 9)


def test_a_server_without_a_token_for_the_beginning_gives_the_same() -> None:
    def drop_first(answer: Body) -> None:
        listed = answer["choices"][0]["logprobs"]
        listed["tokens"] = listed["tokens"][1:]
        listed["token_logprobs"] = listed["token_logprobs"][1:]
        listed["text_offset"] = [start - len("<s>") for start in listed["text_offset"][1:]]

    with edited(drop_first) as server:
        (one, *_) = aligned(server).alignments
    assert one is not None
    assert one.score == pytest.approx(expected(USER.text, CANDIDATES[0].text) - expected(NOBODY, CANDIDATES[0].text))


def test_a_server_that_does_not_repeat_the_prompt_is_refused_at_once() -> None:
    def no_echo(answer: Body) -> None:
        answer["choices"][0]["text"] = " more"
        answer["choices"][0]["logprobs"] = {"content": [{"token": " more", "logprob": -0.1}]}

    with edited(no_echo) as server:
        with pytest.raises(InputError, match=r"gives no log-probabilities of a prompt.*llama\.cpp does not"):
            aligned(server)
        assert len(server.bodies) == 1
    with FakeOpenAI(lambda body: Reply("Only no echo is supported", status=400)) as server:
        with pytest.raises(InputError, match=r"it says: .*Only no echo"):
            aligned(server)
        assert len(server.bodies) == 1


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("values", [None, float("nan")])
def test_an_answer_without_values_is_a_failure_of_the_server(values: float | None) -> None:
    def spoil(answer: Body) -> None:
        listed = answer["choices"][0]["logprobs"]
        listed["token_logprobs"] = [values for _ in listed["tokens"]]

    with edited(spoil) as server, pytest.raises(LMError, match="but not what was asked"):
        aligned(server)


def test_a_text_that_is_refused_has_no_score() -> None:
    too_long = Reply("the prompt is too long for this model's context", status=400)
    with replying(too_long) as refusing:
        result = aligned(refusing)
    assert [one is None for one in result.alignments] == [True, False, False]
    assert (result.appended, result.unparsable) == (1, 1)


def test_budgets_hold(server: FakeOpenAI) -> None:
    with pytest.raises(BudgetExceededError):
        aligned(server, ledger=Ledger(budget=Budget(calls=3)))
    assert len(server.bodies) == 3
    prices = prices_for(server, Price(input=1.0, output=0.0))
    with pytest.raises(BudgetExceededError):
        aligned(server, ledger=Ledger(budget=Budget(usd=0.00001)), prices=prices)
    assert len(server.bodies) == 3


@pytest.mark.parametrize("model", ["gguf:/no/such.gguf", "local/smollm2-135m", "openai/gpt-4.1"])
def test_a_model_that_is_not_behind_a_server_is_refused_before_any_call(model: str, server: FakeOpenAI) -> None:
    parts = parts_on(server)
    roles = Roles.all_on(RoleConfig(model=server.model())).with_models(mar=model)
    with pytest.raises(InputError, match="serve a model with vLLM"):
        PROGRAMS["likelihood"](replace(parts, backends=Backends(roles)))
    assert server.bodies == []
    with dspy.context(lm=dspy.LM("openai/gpt-4.1", api_key="-")), pytest.raises(InputError, match="no /completions"):
        TraitLikelihood()(user=USER, candidates=CANDIDATES, seed=0)


def test_the_program_ranks(server: FakeOpenAI) -> None:
    ranking = PROGRAMS["likelihood"](parts_on(server)).rank(CASE)
    assert ranking.score_source == "likelihood"
    assert len(set(ranking.scores["mar"])) > 1
