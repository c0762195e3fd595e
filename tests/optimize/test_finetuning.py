"""The optimizer `finetune` on a tiny random model: compile, resume, artifact, and adapters that were tampered with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mllm3rec as m3
from evaluate.protocol.cases import Cases
from evaluate.stats.metrics import hit, ndcg
from mllm3rec.api.compilation import forecast_compile_cost
from optimize.artifact import ADAPTER, MANIFEST, SEARCH_FOLDER, ArtifactManifest, read_manifest, restore_program
from optimize.beside_prior import head_lists
from optimize.compiler import PLAN
from optimize.finetuning import CHECKPOINT_BESIDE_PRIOR, finetuning_cases
from optimize.objective import HIT_AT
from programs.lm.roles import local_roles
from programs.prior.prior import Prior
from programs.prior.prior_v2 import PriorV2
from programs.runtime.errors import BudgetExceededError, InputError
from programs.runtime.events import Event, Progress
from programs.tuned.settings import TuningSettings
from tests.support.cases import cases_file
from tests.support.compile_setup import compiler, trials_of
from tests.support.failures import Killed

pytestmark = pytest.mark.usefixtures("hashing")


def compiled(cases: Cases, base: Path, out: Path, **options: object) -> m3.Program:
    return m3.compile_program(
        cases, "tuned", out=out, optimizer="finetune", base=str(base), **{"lists": 400, **options}
    )


def test_a_compile_resumes_and_its_artifact_is_checked(cases: Cases, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "art"

    def kill_in_the_second_block(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "fine-tuning" and event.done == 620:
            raise Killed

    with pytest.raises(Killed):
        compiled(cases, base, out, lists=800, on_event=kill_in_the_second_block)
    seen: list[Event] = []
    program = compiled(cases, base, out, lists=800, on_event=seen.append)
    trained = [event.done for event in seen if isinstance(event, Progress) and event.task == "fine-tuning"]
    assert trained[0] == 404
    manifest = program.manifest
    assert manifest is not None and manifest.adapter is not None
    assert manifest.optimizer == "finetune" and ADAPTER in manifest.files
    assert manifest.adapter.base == str(base)
    assert manifest.verdict.before["score"].n == 3
    assert manifest.verdict.against_prior is not None and manifest.verdict.against_prior.ndcg.n == 3
    case = cases.cases[0].blinded()
    ranking = program.rank(case)
    assert ranking.score_source == "tuned" and len(ranking.scores["mar"]) == len(case.candidates)
    restored, _ = restore_program(out)
    assert type(restored.aligner).__name__ == "TunedAligner"

    content = (out / ADAPTER).read_bytes()
    (out / ADAPTER).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match="changed after it was written"):
        restore_program(out)
    (out / ADAPTER).unlink()
    with pytest.raises(InputError, match="is missing"):
        restore_program(out)
    (out / ADAPTER).write_bytes(content)
    found = json.loads((out / MANIFEST).read_text())
    del found["files"][ADAPTER]
    (out / MANIFEST).write_text(ArtifactManifest.model_validate(found).sealed().model_dump_json())
    with pytest.raises(InputError, match="does not belong to the artifact"):
        restore_program(out)
    assert read_manifest(out).adapter is not None


def test_further_purchases_are_targets_where_the_lists_of_the_setting_are_too_few(cases: Cases) -> None:
    few, many = (
        finetuning_cases(cases, TuningSettings(lists=lists, every_purchase=every), seed=0)
        for lists, every in ((5000, False), (5000, True))
    )
    own, all_of_them = ({(case.user_id, case.target) for case in found} for found in (few, many))
    assert own < all_of_them and len(all_of_them) == len(many) > 2 * len(few)
    for number in (len(few) - 1, len(few) + 1):
        assert len(finetuning_cases(cases, TuningSettings(lists=number, every_purchase=True), seed=0)) == number
    held_out = {(case.user_id, case.target) for case in cases.cases}
    assert not held_out & all_of_them
    bought = {(user, event.item_id) for user, events in cases.training.items() for event in events}
    assert all_of_them <= bought


def test_a_compile_beside_the_prior_resumes(base: Path, tmp_path: Path) -> None:
    many = cases_file(tmp_path / "many.jsonl", 30)

    def kill_in_the_second_block_beside(event: Event) -> None:
        if isinstance(event, Progress) and event.task == "fine-tuning" and event.total == 80 and event.done == 32:
            raise Killed

    with pytest.raises(Killed):
        compiled(many, base, tmp_path / "art", beside_prior=80, on_event=kill_in_the_second_block_beside)
    seen: list[Event] = []
    program = compiled(many, base, tmp_path / "art", beside_prior=80, on_event=seen.append)
    done = [one.done for one in seen if isinstance(one, Progress) and one.task == "fine-tuning" and one.total == 80]
    assert done[0] == 24, "it goes on after the last whole block"
    manifest = program.manifest
    assert manifest is not None and manifest.adapter is not None and manifest.adapter.settings.beside_prior == 80
    alone = compiled(many, base, tmp_path / "alone").manifest
    assert alone is not None and "beside_prior" not in alone.model_dump_json()
    kept = [(tmp_path / name / SEARCH_FOLDER / CHECKPOINT_BESIDE_PRIOR).exists() for name in ("art", "alone")]
    assert kept == [True, False]
    forecast = forecast_compile_cost(
        many, "tuned", out=tmp_path / "other", optimizer="finetune", base=str(base), lists=400, beside_prior=80
    )
    assert "fine-tuning beside the prior" in {phase.name for phase in forecast}


def test_a_start_with_one_signal_alone_is_trained_beside_the_prior_as_with_both(base: Path, tmp_path: Path) -> None:
    many = cases_file(tmp_path / "many.jsonl", 20)
    adapters = []
    for weight in (0.0, 0.3, 1.0):
        out = tmp_path / f"at-{weight}"
        compiled(many, base, out, lists=40, beside_prior=40, weights=[weight])
        adapters.append((out / ADAPTER).read_bytes())
    assert adapters[0] == adapters[1] == adapters[2]


def test_a_training_beside_the_prior_that_nothing_can_judge_is_refused_first(
    cases: Cases, base: Path, tmp_path: Path
) -> None:
    roles = local_roles("http://127.0.0.1:9/v1#fake")

    def judged(cases: Cases) -> bool:
        made = compiler(tmp_path / "other", cases, roles)
        assert isinstance(made.parts.prior, Prior | PriorV2)
        return bool(head_lists(made.searched, made.parts.prior))

    drawn = (m3.draw_cases(cases.dataset, part="dev", users=2, negatives=29, seed=seed) for seed in range(40))
    few = next(cases for cases in drawn if not judged(cases))
    with pytest.raises(InputError, match="no user of the search has a target among the prior's first 10 candidates"):
        compiled(few, base, tmp_path / "art", lists=40, beside_prior=40)
    assert not list((tmp_path / "art").rglob("*.safetensors"))
    assert not (tmp_path / "art" / SEARCH_FOLDER / PLAN).exists(), "with more dev users it is another compile"


def test_only_the_program_tuned_is_fine_tuned(cases: Cases, base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--program tuned"):
        m3.compile_program(cases, "embedding", out=tmp_path / "art", optimizer="finetune", base=str(base))


def test_a_run_of_tuned_weights_is_finished_on_hardware_of_the_same_kind(
    cases: Cases, base: Path, tmp_path: Path
) -> None:
    compiled(cases, base, tmp_path / "art")
    test = cases_file(tmp_path / "test.jsonl", 3, part="test")
    run = tmp_path / "run"
    m3.evaluate(test, tmp_path / "art", out=run)
    manifest = json.loads((run / "manifest.json").read_text())
    hardware = manifest["configuration"]["hardware"]
    assert hardware.keys() == {"base_sha256", "device", "dtype"}
    hardware["dtype"] = "float8"
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r'hardware\.dtype is "float8"'):
        m3.evaluate(test, tmp_path / "art", out=run)
    del manifest["configuration"]["hardware"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert m3.evaluate(test, tmp_path / "art", out=run).figures.users == 3, "runs of older versions do not say"


def test_what_the_weight_gains_is_not_taken_for_what_the_training_gained(base: Path, tmp_path: Path) -> None:
    """The untuned model is compared at the winner's fitted weight or gate, too."""
    many = cases_file(tmp_path / "many.jsonl", 30)
    manifest = compiled(many, base, tmp_path / "art").manifest
    assert manifest is not None and manifest.finals is not None
    assert manifest.finals.fitted is not None and manifest.finals.gate is not None
    chosen = manifest.chosen
    assert chosen is not None and chosen.weight == manifest.finals.fitted.weight == manifest.weight
    changed = chosen.gate is not None or chosen.weight != 0.3
    assert (manifest.verdict.prompts is not None) == changed
    assert restore_program(tmp_path / "art")[0].fusion.gate == chosen.gate
    page = (tmp_path / "art" / SEARCH_FOLDER / "report.html").read_text("utf-8")
    assert "was better than the uncompiled program" not in page, "its weights are other ones"
    (tuned,) = [one for one in trials_of(tmp_path / "art") if one["number"] == 1]
    for one in tuned["scores"]:
        assert (one["ndcg"], one["hit"]) == (ndcg(one["rank"], one["rank"]), hit(one["rank"], HIT_AT))
        parts = {name: weight for name, weight in manifest.weights.model_dump().items() if one[name] is not None}
        assert one["score"] == pytest.approx(sum(w * one[name] for name, w in parts.items()) / sum(parts.values()))


def test_a_training_ends_with_the_minutes_and_goes_on_later(cases: Cases, base: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetExceededError, match=r"the minutes are over after \d+ of 400 lists"):
        compiled(cases, base, tmp_path / "art", max_minutes=1e-6)
    assert compiled(cases, base, tmp_path / "art").manifest is not None
