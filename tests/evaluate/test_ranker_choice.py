"""Options that a ranker would ignore are refused."""

from __future__ import annotations

import pytest

from evaluate.ranker_choice import (
    OptionsRead,
    choose_by_name,
    options_read_by,
    options_read_by_artifact,
    refuse_ignored,
)
from programs.lm.model_options import ModelOptions
from programs.program import Fusion
from programs.runtime.errors import InputError


@pytest.mark.parametrize(
    ("ranker", "option", "value", "why"),
    [
        ("popularity", "model", "local/smollm2-135m", "asks no language model"),
        ("popularity", "weight", 0.3, "does not fuse"),
        ("popularity", "prior", "2", "does not fuse"),
        ("random", "seed", 1, "is not trained"),
        ("bpr", "explain", 2, "asks no language model"),
        ("tallrec", "mar", "local/smollm2-135m", "of the options for models it reads model"),
        ("encoder", "preset", "hosted", "asks no language model"),
        ("tuned", "judge", "openai/gpt-4o", "asks no language model"),
        ("chat-rec", "weight", 0.5, "its own fusion weight is 1"),
        ("listwise", "seed", 1, "is not trained"),
        ("run:other.txt", "head", 5, "does not fuse"),
    ],
)
def test_what_a_ranker_would_ignore(ranker: str, option: str, value: object, why: str) -> None:
    with pytest.raises(InputError, match=f"{ranker} does not read {option} .*{why}.*leave out") as error:
        refuse_ignored([options_read_by(ranker)], **{option: value})
    refuse_ignored([options_read_by(ranker)], **{option: None})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("ranker", "option", "value"),
    [
        ("prior", "prior", "2"),
        ("bpr", "seed", 3),
        ("tallrec", "model", "local/smollm2-135m"),
        ("seralm", "mote", "local/smollm2-135m"),
        ("encoder", "weight", 0.5),
        ("chat-rec", "weight", 1.0),
        ("listwise", "judge", "local/smollm2-135m"),
    ],
)
def test_what_a_ranker_reads(ranker: str, option: str, value: object) -> None:
    refuse_ignored([options_read_by(ranker)], **{option: value})


def test_an_artifact_has_its_own_weight_and_preset_and_takes_other_models() -> None:
    asking = options_read_by_artifact("compiled listwise", 0.45, without_model=False)
    refuse_ignored([asking], weight=0.45, mar="local/smollm2-135m", head=5, explain=3)
    with pytest.raises(InputError, match=r"weight .its own fusion weight is 0\.45.; preset .*name others with model"):
        refuse_ignored([asking], weight=0.5, preset="hosted")
    with pytest.raises(InputError, match="asks no language model"):
        refuse_ignored([options_read_by_artifact("compiled tuned", 0.45, without_model=True)], mar="openai/gpt-4o")


def test_one_of_several_rankers_has_to_read_it() -> None:
    rankers = [options_read_by("popularity"), options_read_by("listwise")]
    refuse_ignored(rankers, model="local/smollm2-135m", weight=0.5)
    with pytest.raises(InputError, match="popularity, listwise does not read seed"):
        refuse_ignored(rankers, seed=2)
    with pytest.raises(InputError, match="my function does not read head"):
        refuse_ignored([OptionsRead("my function")], head=2)


@pytest.mark.parametrize("ranker", ["seralm", "llmrec", "llm-esr"])
def test_a_trained_ranker_has_models_only_where_one_is_named(ranker: str) -> None:
    chosen = choose_by_name(ranker, ModelOptions(timeout=5), Fusion(), None)
    assert chosen.roles is None, "no weights are needed of a model that nobody named"
    for named in (ModelOptions(mote="openai/gpt-4o"), ModelOptions(model="openai/gpt-4o")):
        choice = choose_by_name(ranker, named, Fusion(), None)
        assert choice.roles is not None
        assert choice.roles.mote.model == "openai/gpt-4o"
        assert choice.settings is not None
        assert choice.settings.reads_traits, "or the name would be ignored"
    assert choose_by_name(ranker, ModelOptions(preset="hosted"), Fusion(), None).roles is not None
