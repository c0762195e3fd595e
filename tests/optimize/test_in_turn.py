"""Prompts and weights in turn: a compile goes on from a compiled program, with its prompts and its adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

import mllm3rec as m3
from evaluate.protocol.cases import Cases
from mllm3rec.api.compilation import forecast_compile_cost
from optimize.artifact import ADAPTER, MANIFEST, SEARCH_FOLDER, read_manifest, restore_program
from optimize.candidates import Candidates
from optimize.compiler import POOLS
from optimize.finetuning import BESIDE_PRIOR
from optimize.prompts import prompts_of
from programs.gate import Gate
from programs.lm.ledger import read_calls
from programs.mope import MOPE
from programs.runtime.errors import InputError
from programs.tuned.aligner import TunedAligner
from tests.support.cases import cases_file
from tests.support.compile_setup import sensitive
from tests.support.fake_server import FakeOpenAI, Reply

pytestmark = pytest.mark.usefixtures("hashing")

SMALL = {"trials": 3, "demo_sets": 1, "wordings": 1, "reflections": 0, "interactions": 0, "finalists": 0}
INFER, RANK = "shopper.infer.predict", "aligner.rank.predict"


def instructions(artifact: Path) -> str:
    return prompts_of(restore_program(artifact)[0])[INFER].instructions


def test_a_compile_goes_on_from_the_prompts_of_another(cases: Cases, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with FakeOpenAI(sensitive) as server:
        model = server.model()
        m3.compile_program(cases, "listwise", out=first, optimizer="labeled", modules=["mar"], model=model, trials=2)
        own = prompts_of(restore_program(first)[0])[RANK]
        assert own.demos != prompts_of(m3.program("listwise", cases.dataset, model=model).module)[RANK].demos
        compiled = m3.compile_program(cases, first, out=second, modules=["mar"], **SMALL)
        assert compiled.manifest is not None
        assert compiled.manifest.start == read_manifest(first).sha256
        original = Candidates.load(second / SEARCH_FOLDER / POOLS).modules["listwise"].prompts("original", "original")
        assert original[RANK] == own
        assert read_manifest(first).start == ""
        with pytest.raises(InputError, match="this compile has other start"):
            m3.compile_program(cases, "listwise", out=second, modules=["mar"], model=model, **SMALL)


def test_a_folder_with_the_name_of_a_program_is_not_gone_on_from(
    cases: Cases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"optimizer": "prototypes", "trials": 4, "coherence": 0.0}
    first = m3.compile_program(cases, "encoder", out="encoder", **given).manifest
    again = m3.compile_program(cases, "encoder", out="encoder", **given).manifest
    assert first is not None and first.start == ""
    assert again == first
    with pytest.raises(InputError, match="'encoder' has no prompts to go on from"):
        m3.compile_program(cases, Path("encoder"), out="encoder", **given)


def test_users_of_earlier_compiles_are_not_unseen(cases: Cases, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    own = {case.user_id for case in cases}
    drawn = (m3.draw_cases(cases.dataset, part="dev", users=10, negatives=9, seed=seed) for seed in range(1, 30))
    others = next(found for found in drawn if own.isdisjoint(case.user_id for case in found))
    with FakeOpenAI(sensitive) as server:
        model = server.model()
        m3.compile_program(cases, "listwise", out=first, optimizer="labeled", modules=["mar"], model=model, trials=2)
        with pytest.raises(InputError, match=r"held-out users, such as .*, are among those that .*first was tuned on"):
            m3.compile_program(cases, first, out=tmp_path / "refused", modules=["mar"], held_out=0.9, **SMALL)
        m3.compile_program(others, first, out=second, modules=["mar"], **SMALL)
        data = read_manifest(second).data
        assert {key: set(users) for key, users in data.earlier.items()} == {
            data.dataset_sha256: set(read_manifest(first).data.searched)
        }
        assert data.tuned_on("of another dataset") == set()
        elsewhere = data.model_copy(update={"dataset_sha256": "of another dataset"})
        assert elsewhere.tuned_on(data.dataset_sha256) == set(read_manifest(first).data.searched)
        with pytest.raises(InputError, match="were used to compile"):
            m3.evaluate(cases, second, model=model)


def test_prompts_and_weights_of_one_program_in_turn(cases: Cases, base: Path, tmp_path: Path) -> None:
    weights, prompts, again = tmp_path / "weights", tmp_path / "prompts", tmp_path / "again"
    tuned = {"optimizer": "finetune", "base": str(base), "lists": 40}
    with FakeOpenAI(sensitive) as server:
        foreseen = forecast_compile_cost(cases, "tuned-profiles", out=weights, model=server.model(), **tuned)
        assert server.bodies == [], "a forecast asks no model"
        assert [phase.seconds is None for phase in foreseen] == [True, False, True, True], "calls were not timed"
        m3.compile_program(cases, "tuned-profiles", out=weights, model=server.model(), workers=4, **tuned)
        program, manifest = restore_program(weights)
        assert isinstance(program.shopper, MOPE) and isinstance(program.aligner, TunedAligner)
        assert manifest.adapter is not None
        asked = [call for call in read_calls(weights / SEARCH_FOLDER / "ledger.jsonl") if not call.hit]
        assert {call.phase for call in asked} == {"training lists", "fusion weight", "held-out"}
        of_lists = [call for call in asked if call.phase == "training lists"]
        assert {call.role for call in of_lists} == {"mope", "mote"}
        assert len(of_lists) <= foreseen[0].calls
        assert len(asked) <= sum(phase.calls for phase in foreseen)
        small = {**tuned, "model": server.model(), "max_calls": 5}
        answered = len(server.bodies)
        with pytest.raises(InputError, match="budget of 5 calls is too small: the held-out check alone takes up to"):
            m3.compile_program(cases, "tuned-profiles", out=tmp_path / "small", **small)
        assert len(server.bodies) == answered

        m3.compile_program(cases, weights, out=prompts, modules=["mope"], **SMALL)
        second = read_manifest(prompts)
        assert second.family == "tuned-profiles" and second.start == manifest.sha256
        assert (prompts / ADAPTER).read_bytes() == (weights / ADAPTER).read_bytes()
        assert isinstance(restore_program(prompts)[0].aligner, TunedAligner)

        m3.compile_program(cases, prompts, out=again, **tuned)
    third = read_manifest(again)
    assert third.start == second.sha256
    assert instructions(again) == instructions(prompts), "a fine-tuning changes no prompt"
    test = cases_file(tmp_path / "test.jsonl", 2, part="test")
    with FakeOpenAI(sensitive) as server:
        found = m3.evaluate(test, again, model=server.model())
    assert found.figures.score_sources == {"tuned": 2}


def test_profiles_and_traits_beside_the_prior_are_foreseen(cases: Cases, base: Path, tmp_path: Path) -> None:
    tuned = {"optimizer": "finetune", "base": str(base), "lists": 4, "beside_prior": 20}
    with FakeOpenAI(sensitive) as server:
        given = {**tuned, "out": tmp_path / "art", "model": server.model()}
        foreseen = {phase.name: phase.calls for phase in forecast_compile_cost(cases, "tuned-profiles", **given)}
        m3.compile_program(cases, "tuned-profiles", **given)
    spent = read_manifest(tmp_path / "art").spent
    assert 0 < spent[BESIDE_PRIOR].calls <= foreseen[BESIDE_PRIOR]


def test_a_compile_is_compared_with_the_compiled_program_as_it_was(cases: Cases, tmp_path: Path) -> None:
    """Its gate, and the formula of its prior, are part of it."""
    first, second = tmp_path / "first", tmp_path / "second"
    with FakeOpenAI(sensitive) as server:
        model = server.model()
        m3.compile_program(cases, "listwise", out=first, optimizer="labeled", modules=["mar"], model=model, trials=2)
        changed = read_manifest(first).model_copy(update={"gate": Gate(weights=(0.0,)), "prior": 2})
        (first / MANIFEST).write_text(changed.sealed().model_dump_json())
        m3.compile_program(cases, first, out=second, modules=["mar"], **SMALL)
    found = read_manifest(second)
    assert found.prior == 2
    assert found.verdict.against_prior is not None
    prior = found.verdict.after["ndcg"].mean - found.verdict.against_prior.ndcg.mean
    assert found.verdict.before["ndcg"].mean == pytest.approx(prior)


def test_a_compile_has_the_prior_of_its_program(cases: Cases, tmp_path: Path) -> None:
    options = {"optimizer": "labeled", "modules": ["mar"], "trials": 2}
    with FakeOpenAI(sensitive) as server:
        program = m3.program("listwise", cases.dataset, model=server.model(), prior="3-sales")
        compiled = m3.compile_program(cases, program, out=tmp_path / "of-a-program", **options)
        assert compiled.manifest is not None and compiled.manifest.prior == "3-sales"
        named = {"model": server.model(), "prior": "2", **options}
        m3.compile_program(cases, "listwise", out=tmp_path / "named", **named)
        assert read_manifest(tmp_path / "named").prior == 2
        with pytest.raises(InputError, match="prior"):
            m3.compile_program(cases, "listwise", out=tmp_path / "named", **{**named, "prior": "3"})
        with pytest.raises(InputError, match="was compiled with the prior 2"):
            m3.compile_program(cases, tmp_path / "named", out=tmp_path / "other", prior="3")
    with pytest.raises(InputError, match="no prior 4"):
        m3.program("listwise", cases.dataset, model="local/any", prior="4")


def test_weights_are_not_trained_on_profiles_that_nobody_can_read(cases: Cases, base: Path, tmp_path: Path) -> None:
    options = {"optimizer": "finetune", "base": str(base), "lists": 8}
    with FakeOpenAI(lambda body: Reply("not JSON")) as server, pytest.raises(InputError, match="nothing is frozen"):
        m3.compile_program(cases, "tuned-profiles", out=tmp_path / "art", model=server.model(), **options)


@pytest.mark.parametrize("setting", ["item-cold", "user-cold"])
def test_targets_that_prototypes_were_fitted_on_are_refused(setting: str, tmp_path: Path) -> None:
    """Their training data has whole sequences of warm users."""
    data = m3.load_dataset("demo")
    cold = m3.draw_cases(data, part="dev", setting=setting, users=12, negatives=9)
    m3.compile_program(cold, "encoder", out=tmp_path / "art", optimizer="prototypes", trials=12)
    warm = m3.draw_cases(data, part="test", users=20, negatives=9)
    with pytest.raises(InputError, match=rf"the program was fitted on it \(setting {setting}"):
        m3.evaluate(warm, tmp_path / "art")
    same = m3.draw_cases(data, part="test", setting=setting, users=5, negatives=9, seed=3)
    assert m3.evaluate(same, tmp_path / "art").figures.users == 5
    fitted = read_manifest(tmp_path / "art").data
    with pytest.raises(InputError, match=r"rules of training data: target"):
        warm.leaks_by({**fitted.fitted_on[data.sha256], "target": "no_such_target"})


def test_a_compile_without_prompts_cannot_be_gone_on_from(cases: Cases, tmp_path: Path) -> None:
    first = tmp_path / "first"
    m3.compile_program(cases, "encoder", out=first, optimizer="prototypes", trials=12)
    with pytest.raises(InputError, match="has no prompts to go on from"):
        m3.compile_program(cases, first, out=tmp_path / "second", optimizer="prototypes", trials=12)
