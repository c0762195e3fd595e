"""`mllm3rec study`: one file, many runs; what is there is not run again, what is missing is said."""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import mllm3rec as m3
from evaluate.baselines.learned import Learned
from evaluate.data.demo.store import demo_dataset
from evaluate.data.locate import DATA_VARIABLE, find_source
from evaluate.experiments.study_reading import cases_path
from evaluate.experiments.study_spec import read_study
from evaluate.protocol.cases import load_cases, write_cases
from evaluate.runs.journal import Journal, read_journal
from mllm3rec.api.experiments import report_study
from programs.lm.ledger import read_calls
from programs.prior.onnx_encoder import EncoderFiles
from programs.runtime.errors import BudgetExceededError, InputError
from signatures.rows import Status
from tests.support.command_line import commands_in, run
from tests.support.fake_server import FakeOpenAI, Reply
from tests.support.files import plain_files
from tests.support.paths import ROOT, TINY_ENCODER

STUDY = """
name = "small"
title = "A small study"
reference = "prior"
pairs = [["listwise", "llm-only"]]

[[datasets]]
name = "shop"
source = "demo"

[[protocols]]
name = "warm"
users = 6
negatives = 8
draws = 2

[[protocols]]
name = "whole catalogue"
users = 4
catalogue = true

[[rankers]]
ranker = "popularity"

[[rankers]]
ranker = "prior"

[[rankers]]
ranker = "listwise"
users = 3
draws = 1
protocols = ["warm"]
model = "{model}"

[[rankers]]
ranker = "llm-only"
users = 3
draws = 1
protocols = ["warm"]
model = "{model}"
"""


def write(tmp_path: Path, model: str, text: str = STUDY) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(text.replace("{model}", model))
    return path


@dataclass(frozen=True)
class Finished:
    """A finished study, and the server that its models are on."""

    file: Path
    root: Path
    server: FakeOpenAI
    printed: str

    def copy(self, folder: Path) -> Finished:
        """A copy whose file may be edited."""
        file = Path(shutil.copy(self.file, folder / self.file.name))
        return replace(self, file=file, root=Path(shutil.copytree(self.root, folder / "runs")))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """The study, run by the command line."""
    folder = tmp_path_factory.mktemp("study")
    with FakeOpenAI() as server:
        study = write(folder, server.model())
        with commands_in(folder):
            whole = run("study", "run", study, "--out", folder / "runs", "--json")
        assert whole.exit_code == 0, whole.output
        yield Finished(study, folder / "runs", server, whole.stdout)


def test_a_program_without_a_model_has_the_head_and_weight_of_the_study(tmp_path: Path) -> None:
    rankers = [
        '[[rankers]]\nranker = "encoder"\nlabel = "no weight"\nweight = 0.0\nhead = 3\n',
        '[[rankers]]\nranker = "encoder"\nlabel = "all weight"\nweight = 1.0\nhead = 3\n',
    ]
    text = (
        STUDY[: STUDY.index("[[rankers]]")].replace("draws = 2", "").replace('pairs = [["listwise", "llm-only"]]\n', "")
    )
    text = text[: text.index('[[protocols]]\nname = "whole catalogue"')]
    study = write(tmp_path, "", text + '[[rankers]]\nranker = "prior"\n\n' + "\n".join(rankers))
    assert run("study", "run", study, "--out", tmp_path / "runs", "--json").exit_code == 0
    orders = {}
    for name in ("prior", "no_weight", "all_weight"):
        (folder,) = (tmp_path / "runs").glob(f"shop/warm/draw0/{name}")
        manifest, rows = read_journal(folder)
        assert manifest.configuration.get("head") == (None if name == "prior" else 3)
        orders[name] = [row.order for row in rows.values()]
    assert orders["no_weight"] == orders["prior"] != orders["all_weight"]
    for whole, fused in zip(orders["prior"], orders["all_weight"], strict=True):
        assert fused[3:] == whole[3:]


def test_a_finished_study_asks_nothing_when_it_is_run_again(finished: Finished) -> None:
    asked = len(finished.server.bodies)
    assert asked > 0
    again = run("study", "run", finished.file, "--out", finished.root, "--json")
    assert json.loads(again.stdout)["incomplete"] == []
    assert len(finished.server.bodies) == asked
    assert run("study", "status", finished.file, "--out", finished.root).exit_code == 0


def test_a_study_writes_one_report(finished: Finished) -> None:
    pages = [path for path in map(Path, json.loads(finished.printed)["written"]) if path.suffix == ".html"]
    assert len(pages) == 1
    assert "A small study" in pages[0].read_text("utf-8")


def test_status_reads_as_a_table(finished: Finished) -> None:
    status = run("study", "status", finished.file, "--out", finished.root)
    assert status.exit_code == 0
    (row,) = [line for line in status.stdout.splitlines() if "shop/warm/draw0/listwise" in line]
    assert "done" in row
    assert re.search(r"(\d+) of \1 runs done", status.stdout)


def test_the_report_is_written_again_without_a_run(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path)
    shutil.rmtree(copy.root / "report")
    told = run("study", "report", copy.file, "--out", copy.root)
    assert told.exit_code == 0, told.output
    assert "tables as CSV, Markdown and LaTeX" in told.stdout
    assert (copy.root / "report" / "report.html").is_file()
    again = run("study", "report", copy.file, "--out", copy.root, "--json")
    assert str(copy.root / "report" / "report.html") in json.loads(again.stdout)["written"]


@pytest.mark.parametrize("given", ["toys", "=folder", "toys="])
def test_data_is_a_name_and_a_folder(tmp_path: Path, given: str) -> None:
    study = write(tmp_path, "local/smollm2-135m")
    found = run("study", "report", study, "--out", tmp_path / "runs", "--data", given)
    assert isinstance(found.exception, InputError)
    assert "write NAME=DIRECTORY" in str(found.exception)


def test_only_the_named_rankers_are_run(tmp_path: Path, server: FakeOpenAI) -> None:
    root, study = tmp_path / "runs", write(tmp_path, server.model())
    assert run("study", "status", study, "--out", root).exit_code == 1
    baselines = run("study", "run", study, "--out", root, "--only", "popularity", "--only", "prior", "--json")
    assert baselines.exit_code == 0, baselines.output
    assert not server.bodies
    status = run("study", "status", study, "--out", root, "--json")
    states = {row["run"]: row["state"] for row in json.loads(status.stdout)["runs"]}
    assert states["shop/warm/draw1/prior"] == "done"
    assert states["shop/warm/draw0/listwise"] == "waiting"


def test_a_limit_on_the_length_of_answers_is_sent(tmp_path: Path, server: FakeOpenAI) -> None:
    study = write(tmp_path, server.model())
    with commands_in(tmp_path):
        ended = run("study", "run", study, "--only", "listwise", "--out", tmp_path / "runs", "--max-tokens", "3000")
    assert ended.exit_code == 0, ended.output
    assert {body["max_tokens"] for body in server.bodies} == {3000}


def test_runs_on_fewer_users_rank_the_first_of_the_same_lists(finished: Finished) -> None:
    six = load_cases(cases_path(finished.root, "shop", "warm", 0, None)).cases
    three = load_cases(cases_path(finished.root, "shop", "warm", 0, 3)).cases
    assert three == six[:3]
    other = load_cases(cases_path(finished.root, "shop", "warm", 1, None)).cases
    assert [(c.user_id, c.target) for c in other] == [(c.user_id, c.target) for c in six]
    assert [c.candidates for c in other] != [c.candidates for c in six]
    _, rows = read_journal(finished.root / "shop/warm/draw0/listwise")
    assert list(rows) == [case.user_id for case in three]


def test_a_budget_holds_for_all_runs_of_the_study_together(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with FakeOpenAI() as server:
        study = write(tmp_path, server.model())
        with pytest.raises(BudgetExceededError):
            run("study", "run", study, "--out", root, "--max-calls", "25")
        assert 20 <= len(server.bodies) <= 25
        paid = len(server.bodies)
        more = run("study", "run", study, "--out", root)
        assert more.exit_code == 0, more.output
        ledgers = [call for path in root.rglob("ledger.jsonl") for call in read_calls(path)]
        assert sum(not call.hit for call in ledgers) == len(server.bodies) > paid


def test_a_run_that_is_done_is_complete_after_the_budget_has_ended(finished: Finished, tmp_path: Path) -> None:
    study = finished.copy(tmp_path)
    shutil.rmtree(study.root / "shop/warm/draw0/listwise")
    model = finished.server.model()
    study.file.write_text(study.file.read_text().replace(model, finished.server.model("another"), 1))
    found = m3.run_study(study.file, out=study.root, max_calls=1)
    assert found.incomplete == ("shop/warm/draw0/listwise",)
    assert found.stopped is not None


SETTINGS = """
[[rankers]]
ranker = "ials"
label = "small iALS"
protocols = ["warm"]
draws = 1

[rankers.settings]
factors = 4
"""


def test_settings_of_a_trained_ranker_stand_in_the_study_file(tmp_path: Path) -> None:
    pytest.importorskip("implicit")
    study = write(tmp_path, "", STUDY + SETTINGS)
    found = run("study", "run", study, "--out", tmp_path / "runs", "--only", "iALS", "--json")
    assert found.exit_code == 0, found.output
    (manifest,) = (tmp_path / "runs").glob("shop/warm/draw0/small_iALS-seed0/manifest.json")
    assert json.loads(manifest.read_text())["configuration"]["settings"]["factors"] == 4
    assert not list((tmp_path / "runs").rglob("*tuned*")), "given settings are not tuned"
    for wrong, problem in (("factors = 0", "factors"), ("faktors = 4", "faktors")):
        study.write_text((STUDY + SETTINGS).replace("factors = 4", wrong))
        refused = run("study", "run", study, "--out", tmp_path / "other", "--only", "iALS")
        assert f"settings: {problem}: " in str(refused.exception)
    study.write_text((STUDY + SETTINGS).replace('ranker = "ials"', 'ranker = "knn"'))
    refused = run("study", "run", study, "--out", tmp_path / "other", "--only", "iALS")
    assert "settings: knn is no trained baseline" in str(refused.exception)


TRAITS = """

[[rankers]]
ranker = "seralm"
protocols = ["warm"]
draws = 1
tune = false
mote = "{model}"

[rankers.settings]
epochs = 1

[[rankers]]
ranker = "seralm"
label = "titles"
protocols = ["warm"]
draws = 1
tune = false

[rankers.settings]
epochs = 1
"""


def test_a_trained_ranker_reads_the_stored_traits_of_the_model_that_it_names(
    tmp_path: Path, server: FakeOpenAI
) -> None:
    pytest.importorskip("torch")
    study, out = write(tmp_path, server.model(), STUDY + TRAITS), tmp_path / "runs"
    command = ("study", "run", study, "--out", out, "--only", "seralm", "--only", "titles", "--json")
    items = len(demo_dataset().items)
    told = run(*command, "--dry-run")
    assert f"seralm: 0 of {items} items of shop have stored traits; `mllm3rec distill DATASET --mote" in told.stderr
    assert "titles: 0 of" not in told.stderr
    stored = run("distill", "demo", "--mote", server.model(), "--out", tmp_path / "traits.parquet")
    assert stored.exit_code == 0, stored.output
    asked = len(server.bodies)
    found = run(*command)
    assert found.exit_code == 0, found.output
    assert len(server.bodies) == asked, "a fit asks no model"
    assert f"seralm: {items} items are known by their traits, 0 by their titles" in found.stderr
    assert f"seralm: 0 items are known by their traits, {items} by their titles" in found.stderr, "it names no model"
    orders, traits = {}, {}
    for ranker in ("seralm", "titles"):
        manifest, rows = read_journal(out / "shop" / "warm" / "draw0" / f"{ranker}-seed0")
        orders[ranker] = [rows[user].order for user in sorted(rows)]
        traits[ranker] = manifest.configuration["fitted_with"]
        assert traits[ranker]["dtype"] == "float32"
        assert traits[ranker]["device"]
    assert "traits" not in traits["titles"]
    assert traits["seralm"]["traits"].startswith(f"{items} items, sha256 ")
    assert orders["seralm"] != orders["titles"]
    # A finished run stays finished when the trait store has changed.
    assert run("cache", "clear", "traits", "--yes").exit_code == 0
    assert run(*command).exit_code == 0
    study.write_text(study.read_text().replace("#", "#other-"))
    refused = run(*command)
    assert "configuration.traits.model is " in str(refused.exception), "another model's traits are another run"


@pytest.mark.parametrize(
    ("ranker", "lines", "why"),
    [
        ("seralm", 'mote = "openai/gpt-4o"', "mote: the settings that are tried on dev users"),
        ("tallrec", 'model = "local/smollm2-135m"', "model: the settings that are tried on dev users"),
        ("llm-esr", 'tune = false\nmote = "openai/gpt-4o"\nsettings = {text = "item"}', "the settings read no traits"),
        ("seralm", 'tune = false\npreset = "nothing"', "/seralm-seed0: no preset 'nothing'"),
    ],
)
def test_a_model_for_traits_that_would_be_ignored_is_refused(tmp_path: Path, ranker: str, lines: str, why: str) -> None:
    text = STUDY + f'\n[[rankers]]\nranker = "{ranker}"\nprotocols = ["warm"]\n{lines}\n'
    refused = run("study", "run", write(tmp_path, "", text), "--out", tmp_path / "runs", "--only", ranker)
    assert why in str(refused.exception)


def test_one_line_names_the_model_of_all_programs_that_name_none(tmp_path: Path) -> None:
    text = STUDY.replace('reference = "prior"', 'reference = "prior"\nmodel = "local/of-the-study"', 1)
    text = text.replace('model = "{model}"', "", 1).replace('model = "{model}"', 'model = "local/its-own"', 1)
    text += '\n[[rankers]]\nranker = "pointwise"\npreset = "hosted-best"\nprotocols = ["warm"]\n'
    for other in ("tallrec", "compiled/artifact"):
        text += f'\n[[rankers]]\nranker = "{other}"\nlabel = "{Path(other).name}"\nprotocols = ["warm"]\n'
    spec = read_study(write(tmp_path, "", text))
    models = {cell.ranker.label: cell.ranker.model for cell in spec.cells(())}
    assert models["listwise"] == "local/of-the-study"
    assert models["llm-only"] == "local/its-own"
    assert models["pointwise"] is None, "it has the models of its preset"
    assert (models["tallrec"], models["artifact"]) == (None, None), "a base, and an artifact's own models"


@pytest.mark.parametrize(
    ("ranker", "line", "why"),
    [
        ("knn", 'model = "local/smollm2-135m"', "asks no language model"),
        ("encoder", "explain = 2", "asks no language model"),
        ("random", "weight = 0.5", "does not fuse"),
        ("pointwise", "seeds = [0, 1]", "is not trained"),
        ("pointwise", 'programs = ["listwise"]', "has no such setting"),
    ],
)
def test_a_field_that_the_ranker_would_ignore_is_refused(tmp_path: Path, ranker: str, line: str, why: str) -> None:
    text = STUDY + f'\n[[rankers]]\nranker = "{ranker}"\nprotocols = ["warm"]\n{line}\n'
    refused = run("study", "run", write(tmp_path, "", text), "--out", tmp_path / "runs", "--only", ranker)
    assert f"/{ranker}: {ranker} does not read" in str(refused.exception)
    assert why in str(refused.exception)


def test_the_formula_of_the_prior_is_one_line_too(tmp_path: Path) -> None:
    study = write(tmp_path, "", STUDY.replace('reference = "prior"', 'reference = "prior"\nprior = "3-sales"', 1))
    for _ in range(2):
        assert run("study", "run", study, "--out", tmp_path / "runs", "--only", "warm/draw0/prior").exit_code == 0
    (manifest,) = (tmp_path / "runs").glob("shop/warm/draw0/prior/manifest.json")
    assert json.loads(manifest.read_text())["configuration"]["prior"] == "3-sales"
    study.write_text(study.read_text().replace("3-sales", "3"))
    refused = run("study", "run", study, "--out", tmp_path / "runs", "--only", "warm/draw0/prior")
    assert "prior" in str(refused.exception)


TRAINED = """
[[rankers]]
ranker = "learned"
tune = false
seeds = [0, 1]
draws = 1
protocols = ["warm"]

[[rankers]]
ranker = "learned+mar"
programs = ["embedding"]
learn_users = 10
users = 3
draws = 1
protocols = ["warm"]
model = "{model}"
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """A study of trained rankers, on few users because fits take long."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("trained")
    shop = plain_files(folder / "shop", ["quiet", "night", "harbour", "letter"] * 4, users=60, longest=9)
    with FakeOpenAI() as server:
        text = STUDY.replace('source = "demo"', f'source = "{shop}"') + TRAINED
        study = write(folder, server.model(), text)
        with commands_in(folder):
            found = run(
                "study", "run", study, "--out", folder / "runs", "--only", "learned", "--only", "prior", "--json"
            )
        assert found.exit_code == 0, found.output
        yield Finished(study, folder / "runs", server, found.stdout)


def test_trained_rankers_are_fitted_with_every_seed(trained: Finished) -> None:
    for seed in (0, 1):
        manifest, rows = read_journal(trained.root / f"shop/warm/draw0/learned-seed{seed}")
        assert (manifest.configuration["seed"], len(rows)) == (seed, 6)


def test_a_finished_fit_asks_nothing_again(trained: Finished) -> None:
    asked = len(trained.server.bodies)
    assert asked > 0
    assert run("study", "run", trained.file, "--out", trained.root, "--only", "learned").exit_code == 0
    assert len(trained.server.bodies) == asked


def test_answers_of_a_program_become_features_of_the_trained_ranker(trained: Finished) -> None:
    manifest, rows = read_journal(trained.root / "shop/warm/draw0/learned+mar")
    assert (manifest.configuration["programs"], manifest.configuration["version"]) == (["embedding"], 2)
    # The settings are those of the learned ranker of this study: not tuned, with its first seed.
    assert (manifest.configuration["learned"], manifest.configuration["seed"]) == (Learned().model_dump(mode="json"), 0)
    importance = json.loads((trained.root / "shop/warm/draw0/learned+mar/importance.json").read_text())
    assert {"embedding.mar", "embedding.profile", "embedding.dimension", "walk"} <= set(importance)
    assert len(rows) == 3


def test_a_program_is_asked_about_dev_users_to_learn_from(trained: Finished) -> None:
    _, rows = read_journal(trained.root / "shop/warm/draw0/learned+mar")
    dev = {case.user_id for case in load_cases(trained.root / "shop/warm/tuned/dev-10.jsonl").cases}
    assert len(dev) == 10
    assert not dev & set(rows)


def test_a_language_model_is_not_asked_about_a_whole_catalogue(tmp_path: Path) -> None:
    text = STUDY.replace('protocols = ["warm"]', 'protocols = ["whole catalogue"]')
    with FakeOpenAI() as server:
        found = run("study", "run", write(tmp_path, server.model(), text), "--out", tmp_path / "runs")
        assert isinstance(found.exception, InputError)
        assert "cannot rank the whole catalogue" in str(found.exception)
        assert not server.bodies


def test_what_cannot_be_run_is_found_before_anything_is_run(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with FakeOpenAI() as server:
        text = STUDY.replace('ranker = "llm-only"', 'ranker = "magic"\nlabel = "llm-only"')
        found = run("study", "run", write(tmp_path, server.model(), text), "--out", root)
        assert isinstance(found.exception, InputError)
        assert "magic" in str(found.exception)
        assert not server.bodies
    assert not root.exists()


def test_cases_of_another_protocol_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    study = write(tmp_path, "local/smollm2-135m")
    assert run("study", "run", study, "--out", root, "--only", "popularity").exit_code == 0
    study.write_text(study.read_text().replace("negatives = 8", "negatives = 9"))
    found = run("study", "run", study, "--out", root, "--only", "prior")
    assert isinstance(found.exception, InputError)
    assert "drawn by another protocol" in str(found.exception)


COLD = """
name = "cold"
reference = "content"

[[datasets]]
name = "shop"
source = "demo"

[[protocols]]
name = "item-cold"
setting = "item-cold"
part = "all"
negatives = 19
draws = 2
{sampling}
[[rankers]]
ranker = "content"

[[rankers]]
ranker = "random"
"""


def cold_study(tmp_path: Path, sampling: str = "") -> Path:
    path = tmp_path / "cold.toml"
    path.write_text(COLD.replace("{sampling}", f'sampling = "{sampling}"\n' if sampling else ""))
    return path


def samplings(root: Path) -> set[str]:
    return {load_cases(path).protocol.sampling for path in root.glob("shop/item-cold/draw*/cases.jsonl")}


def test_a_cold_study_is_matched_unless_its_file_or_its_folder_says_otherwise(tmp_path: Path) -> None:
    assert run("study", "run", cold_study(tmp_path), "--out", tmp_path / "new").exit_code == 0
    assert samplings(tmp_path / "new") == {"matched"}
    old = tmp_path / "old"
    assert run("study", "run", cold_study(tmp_path, "uniform"), "--out", old, "--only", "draw0/content").exit_code == 0
    # A file without `sampling` goes on with the lists of a folder from before there was this default.
    found = run("study", "run", cold_study(tmp_path), "--out", old, "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["incomplete"] == []
    assert samplings(old) == {"uniform"}
    assert len(list(old.glob("shop/item-cold/draw*/cases.jsonl"))) == 2
    refused = run("study", "run", cold_study(tmp_path, "matched"), "--out", old)
    assert "drawn by another protocol" in str(refused.exception)


def test_nobody_has_it_first_stands_in_every_cold_table_as_a_run_of_it_ranks(tmp_path: Path) -> None:
    study, root = cold_study(tmp_path, "uniform"), tmp_path / "runs"
    found = run("study", "run", study, "--out", root, "--json")
    (warning,) = json.loads(found.stdout)["warnings"]
    assert warning.startswith("shop, item-cold: ")
    assert "nobody-has-it-first, in random order, has HR@5/20" in warning
    assert "nobody-has-it-first, in random order" in (root / "report/report.html").read_text()
    added = table_row_of(root, "nobody-has-it-first")
    study.write_text(study.read_text() + '\n[[rankers]]\nranker = "nobody-has-it-first"\n')
    assert run("study", "run", study, "--out", root).exit_code == 0
    ranked = table_row_of(root, "nobody-has-it-first")
    metrics = ("HR@5/20", "NDCG@5/20", "HR@10/20", "NDCG@10/20", "users")
    assert [ranked[name] for name in metrics] == [added[name] for name in metrics]
    assert float(added["HR@5/20"]) > 0.9


def table_row_of(root: Path, ranker: str) -> dict[str, str]:
    """The row of a ranker in the table of the cold protocol."""
    with (root / "report/tables/shop-item-cold-main.csv").open(newline="") as file:
        (row,) = (row for row in csv.DictReader(file) if row["ranker"] == ranker)
    return row


def test_warm_tables_have_no_row_for_nobody_has_it_first(finished: Finished) -> None:
    assert "nobody-has-it-first" not in (finished.root / "report/tables/shop-warm-main.csv").read_text()


def pick_negatives(path: Path) -> None:
    """Give the first user of a cases file other negatives, and the file the hash of its new content."""
    cases = load_cases(path)
    own = cases.dataset.histories[cases[0].user_id]
    others = [item for item in cases.dataset.items if item not in own]
    candidates = (*others[: len(cases[0].candidates) - 1], str(cases[0].target))
    picked = cases[0].model_copy(update={"candidates": candidates})
    write_cases(path, cases.protocol, [picked, *cases.cases[1:]])


@pytest.mark.parametrize("tampered", ["draw0/cases.jsonl", "tuned/dev-10.jsonl"])
def test_cases_and_dev_cases_that_exist_already_are_checked(tmp_path: Path, tampered: str) -> None:
    pytest.importorskip("cornac")
    study = tmp_path / "tuned.toml"
    text = COLD.replace("{sampling}", "tune_users = 10\n").replace('part = "all"\n', "")
    text = text.replace("item-cold", "warm").replace("draws = 2", "users = 10")
    study.write_text(text + '\n[[rankers]]\nranker = "bpr"\n')
    root = tmp_path / "runs"
    assert run("study", "run", study, "--out", root).exit_code == 0
    pick_negatives(root / "shop/warm" / tampered)
    shutil.rmtree(root / "shop/warm/draw0/bpr-seed0")
    (root / "shop/warm/tuned/bpr.json").unlink()
    found = run("study", "run", study, "--out", root)
    assert isinstance(found.exception, InputError), found.output
    assert "the candidates are not what data and protocol give" in str(found.exception)


def test_dev_cases_of_a_stacked_ranker_are_checked(trained: Finished, tmp_path: Path) -> None:
    copied = trained.copy(tmp_path)
    pick_negatives(copied.root / "shop/warm/tuned/dev-10.jsonl")
    found = run("study", "run", copied.file, "--out", copied.root, "--only", "learned+mar")
    assert isinstance(found.exception, InputError), found.output
    assert "held-out interactions leak" in str(found.exception)


def test_settings_that_were_tuned_on_other_dev_users_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("cornac")
    study = tmp_path / "tuned.toml"
    text = COLD.replace("{sampling}", "tune_users = 10\n").replace('part = "all"\n', "")
    text = text.replace("item-cold", "warm").replace("draws = 2", "users = 10") + '\n[[rankers]]\nranker = "bpr"\n'
    root = tmp_path / "runs"
    study.write_text(text)
    assert run("study", "run", study, "--out", root).exit_code == 0
    study.write_text(text.replace("tune_users = 10", "tune_users = 12") + "seeds = [0, 1]\n")
    found = run("study", "run", study, "--out", root)
    assert isinstance(found.exception, InputError), found.output
    assert "was tuned on 10 dev users, not on 12" in str(found.exception)


def test_a_base_model_that_tuning_would_leave_out_is_refused(tmp_path: Path) -> None:
    study = tmp_path / "base.toml"
    text = COLD.replace("{sampling}", "").replace('part = "all"\n', "").replace("item-cold", "warm")
    study.write_text(text + '\n[[rankers]]\nranker = "tallrec"\nmodel = "local/other"\n')
    found = run("study", "run", study, "--out", tmp_path / "runs")
    assert isinstance(found.exception, InputError), found.output
    assert "set tune = false" in str(found.exception)


def test_a_finished_stacked_ranker_with_another_model_is_refused(trained: Finished, tmp_path: Path) -> None:
    copied = trained.copy(tmp_path)
    text = copied.file.read_text()
    copied.file.write_text(text.replace("learn_users = 10\n", "learn_users = 10\nhead = 5\n"))
    found = run("study", "run", copied.file, "--out", copied.root, "--only", "learned+mar")
    assert isinstance(found.exception, InputError), found.output
    assert "configuration.head" in str(found.exception)


def test_a_stacked_ranker_ranks_with_answers_that_were_asked_for_again(trained: Finished, tmp_path: Path) -> None:
    copied = trained.copy(tmp_path)
    stacked = copied.root / "shop/warm/draw0/learned+mar"
    command = ("study", "run", copied.file, "--out", copied.root, "--only", "learned+mar")
    manifest, answers = read_journal(stacked / "test/embedding")
    with Journal.open(stacked / "test/embedding", manifest) as journal:
        unread = next(iter(answers.values())).model_copy(update={"status": Status.UNPARSABLE, "unparsable": 1})
        journal.append(unread)
    (stacked / "learned_from.sha256").unlink()  # as if it had been made with this answer by an older version
    before = (stacked / "journal.jsonl").read_bytes()
    assert run(*command).exit_code == 0
    assert (stacked / "journal.jsonl").read_bytes() == before
    assert not (stacked / "learned_from.sha256").exists()
    again = run(*command, "--retry-unparsable")
    assert again.exit_code == 0, again.output
    assert read_journal(stacked / "test/embedding")[1][unread.user_id].status is Status.OK
    after = (stacked / "journal.jsonl").read_bytes()
    assert after != before
    assert len(read_journal(stacked)[1]) == 3
    assert json.loads((stacked / "metrics.json").read_text())["users"] == 3
    assert run(*command, "--retry-unparsable").exit_code == 0
    assert (stacked / "journal.jsonl").read_bytes() == after


def test_a_free_program_ranks_a_catalogue_with_its_weight(tmp_path: Path) -> None:
    study = tmp_path / "whole.toml"
    head = STUDY.partition("[[rankers]]")[0].replace('pairs = [["listwise", "llm-only"]]\n', "")
    ranker = '[[rankers]]\nranker = "encoder"\nlabel = "weight {0}"\nweight = {0}\nprotocols = ["whole catalogue"]\n\n'
    rows = "".join(map(ranker.format, (0.0, 1.0)))
    study.write_text(head.replace('reference = "prior"', 'reference = "weight 0.0"') + rows)
    root = tmp_path / "runs"
    assert run("study", "run", study, "--out", root).exit_code == 0
    folder = root / "shop/whole_catalogue/draw0"
    found = {
        path.name: json.loads((path / "ranks.json").read_text())["ranks"] for path in sorted(folder.glob("weight*"))
    }
    first, second = found.values()
    assert first.keys() == second.keys() and first != second
    manifest = read_journal(sorted(folder.glob("weight*"))[1])[0]
    assert (manifest.configuration["weight"], manifest.configuration["prior"]) == (1.0, 3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("users = 3\ndraws = 1", "users = 3\nweight = 0.9\ndraws = 1", "configuration.weight"),
        ('ranker = "listwise"', 'ranker = "pointwise"\nlabel = "listwise"', "configuration.ranker"),
        ('ranker = "popularity"', 'ranker = "knn"\nlabel = "popularity"', "configuration.ranker"),
        ("negatives = 8", "negatives = 9", "drawn by another protocol"),
    ],
)
def test_a_study_file_edited_after_its_runs_is_refused(
    finished: Finished, tmp_path: Path, old: str, new: str, message: str
) -> None:
    edited = finished.copy(tmp_path)
    edited.file.write_text(edited.file.read_text().replace(old, new))
    asked = len(edited.server.bodies)
    found = run("study", "run", edited.file, "--out", edited.root)
    assert isinstance(found.exception, InputError), found.output
    assert message in str(found.exception)
    assert len(edited.server.bodies) == asked


def test_a_dead_backend_ends_its_own_runs_and_the_report_is_written(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with FakeOpenAI(lambda body: Reply("no such key", status=401)) as server:
        found = run("study", "run", write(tmp_path, server.model()), "--out", root, "--json")
    assert found.exit_code == 1, found.output
    assert json.loads(found.stdout)["incomplete"] == ["shop/warm/draw0/listwise", "shop/warm/draw0/llm-only"]
    assert (root / "report" / "report.html").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('reference = "prior"', 'reference = "magic"', "no ranker has the label 'magic'"),
        ('["listwise", "llm-only"]', '["listwise", "magic"]', "no ranker has the label 'magic'"),
        ('name = "warm"', 'name = "../warm"', "protocols.0.name"),
        ("users = 6", "users = 0", "protocols.0.users"),
        ("users = 6", "usres = 6", "protocols.0.usres: Extra inputs are not permitted"),
        ('ranker = "popularity"', 'ranker = "prior"', "rankers: 'prior' is repeated"),
        ('name = "warm"', 'name = "whole_catalogue"', "protocols: 'whole_catalogue' is repeated"),
        ('ranker = "popularity"', 'ranker = "bpr"\nseeds = [0, 0]', "seeds: a seed is given twice"),
        ('ranker = "popularity"', 'ranker = "bpr"\nseeds = []', "seeds: Tuple should have at least 1 item"),
        ('protocols = ["warm"]', 'protocols = ["cold"]', "'cold' is not among warm, whole catalogue"),
        ("[[rankers]]", "[[rankers", "not a readable TOML file"),
        ("[[datasets]]", 'together = [["warm", "cold"]]\n[[datasets]]', "'cold' is not among warm, whole catalogue"),
        ("[[datasets]]", 'together = [["warm", "warm"]]\n[[datasets]]', "together: 'warm' is repeated"),
        ("[[datasets]]", 'together = [["warm"]]\n[[datasets]]', "together.0: Tuple should have at least 2 items"),
        (
            "[[datasets]]",
            'together = [["warm", "whole catalogue"]]\n[[datasets]]',
            "together: warm, whole catalogue have lists of different lengths",
        ),
    ],
)
def test_a_file_that_describes_no_study_says_where(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path, "local/smollm2-135m", STUDY.replace(old, new))
    with pytest.raises(InputError) as found:
        read_study(path)
    assert str(path) in str(found.value)
    assert message in str(found.value)


TOGETHER = """
name = "together"
together = [["warm", "cold"]]
[[datasets]]
name = "shop"
source = "demo"
[[protocols]]
name = "warm"
users = 40
[[protocols]]
name = "cold"
setting = "user-cold"
users = 40
[[rankers]]
ranker = "prior"
[[rankers]]
ranker = "knn"
label = "chosen"
protocols = ["warm"]
[[rankers]]
ranker = "popularity"
label = "chosen"
protocols = ["cold"]
[[rankers]]
ranker = "random"
protocols = ["warm"]
"""


def test_protocols_together_where_each_has_a_ranker_of_its_own(tmp_path: Path) -> None:
    """One label for two rankers, as for an artifact of each setting."""
    file = tmp_path / "together.toml"
    file.write_text(TOGETHER)
    root = tmp_path / "runs"
    found = run("study", "run", file, "--out", root)
    assert found.exit_code == 0, found.output
    ranked = {
        name: read_journal(root / "shop" / name / "draw0" / "chosen")[0].configuration for name in ("warm", "cold")
    }
    assert [of["ranker"] for of in ranked.values()] == ["knn", "popularity"]
    tables = {
        name: list(csv.DictReader((root / "report" / "tables" / f"{name}.csv").read_text("utf-8").splitlines()))
        for name in ("study-together-shop-warm-cold", "shop-warm-differences", "shop-cold-differences")
    }
    [both] = tables["study-together-shop-warm-cold"]
    warm, cold = (
        next(row for row in tables[f"shop-{name}-differences"] if row["ranker"] == "chosen")
        for name in ("warm", "cold")
    )
    users = {one.user_id for name in ranked for one in load_cases(cases_path(root, "shop", name, 0, None)).cases}
    assert (both["ranker"], int(both["users"])) == ("chosen", len(users))
    low, high = sorted(float(row["HR@10/30"]) for row in (warm, cold))
    assert low <= float(both["HR@10/30"]) <= high
    assert "warm and cold together" in (root / "report" / "report.html").read_text("utf-8")


def test_a_name_is_looked_for_in_data_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, beside, named = tmp_path / "here", tmp_path / "other" / "data", tmp_path / "named"
    for folder in (here / "data" / "toys", beside / "films", named / "release" / "films"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    assert find_source("toys") == str(Path("data/toys"))
    assert find_source("films") is None, "a neighbour's data is not ours"
    monkeypatch.setenv(DATA_VARIABLE, str(named))
    assert find_source("films") == str(named / "release" / "films")
    assert find_source("demo") == "demo"


TOYS = """
name = "toys"
[[datasets]]
name = "toys"
source = "nowhere"
fallback = "demo"
published = "Toys"
[[protocols]]
name = "warm"
users = 4
negatives = 8
[[rankers]]
ranker = "popularity"
[[rankers]]
ranker = "prior"
"""


def test_lists_shorter_than_five_are_reported(tmp_path: Path) -> None:
    study = write(tmp_path, "", TOYS.replace("negatives = 8", "negatives = 3"))
    ended = run("study", "run", study, "--out", tmp_path / "runs", "--json")
    assert ended.exit_code == 0, ended.output
    tables = tmp_path / "runs" / "report" / "tables"
    assert list(tables.glob("*-warm-main.csv")) and not list(tables.glob("*-warm-lists.csv"))


def test_data_in_the_place_of_others_are_called_so_everywhere(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    ended = run("study", "run", write(tmp_path, "", TOYS), "--out", root)
    assert ended.exit_code == 0, ended.output
    assert "no dataset 'nowhere' in ./data or $MLLM3REC_DATA: demo is used instead" in ended.stderr
    warning = "toys was not found. It was replaced by the demo store, whose items and users are invented"
    assert warning in " ".join(ended.stdout.split())
    page = (root / "report" / "report.html").read_text("utf-8")
    assert f'<p class="notice" role="alert">{warning}, so no figure here is about toys.</p>' in page
    assert page.index(warning) < page.index('class="panel"'), "over the tabs, not in one of them"
    assert "demo (toys not found) · warm" in page and "toys · warm" not in page.replace("(toys not found) · warm", "")
    assert 'data-name="published"' not in page
    tables = sorted((root / "report" / "tables").glob("*.md"))
    assert tables and not [path.name for path in tables if path.name.startswith("toys")]
    assert any(path.name.startswith("demo-toys-not-found-") for path in tables)
    for path in tables:
        assert "toys" not in re.sub(
            r"--only toys/\S+|--out \S+|\S+toys\S*\.toml|\(toys not found\)", "", path.read_text("utf-8")
        )
    told = run("study", "report", tmp_path / "small.toml", "--out", root, "--json")
    assert json.loads(told.stdout)["warnings"] == [f"{warning}, so no figure here is about toys."]


def test_runs_on_other_data_are_not_reported(tmp_path: Path) -> None:
    folder, root = tmp_path / "toys", tmp_path / "runs"
    draw = random.Random(1)
    items = [f"i{number}" for number in range(40)]
    bought = [(user, item) for user in range(40) for item in draw.sample(items, 5)]
    folder.mkdir()
    (folder / "interactions.csv").write_text("user_id,item_id\n" + "".join(f"u{u},{i}\n" for u, i in bought))
    (folder / "items.csv").write_text("item_id,title\n" + "".join(f"{item},Toy {item}\n" for item in items))
    file = write(tmp_path, "", TOYS.replace("nowhere", str(folder)))
    assert run("study", "run", file, "--out", root, "--only", "popularity").exit_code == 0
    folder.rename(tmp_path / "moved")
    refused = run("study", "report", file, "--out", root)
    assert isinstance(refused.exception, InputError)
    assert "no run can be reported: dataset 'demo'" in str(refused.exception)
    assert "is not the data of these cases: 'toys'" in str(refused.exception)
    told = run("study", "report", file, "--out", root, "--data", f"toys={tmp_path / 'moved'}", "--json")
    assert told.exit_code == 0, "the same data in another place"


def test_runs_of_other_cases_or_rankers_are_not_reported(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path)
    shop = copy.root / "shop"
    for folder in (shop / "warm/draw0/popularity", shop / "whole_catalogue/draw0/popularity"):
        shutil.rmtree(folder)
        shutil.copytree(folder.with_name("prior"), folder)
    others = shop / "warm/draw0/prior"
    shutil.rmtree(others)
    shutil.copytree(shop / "warm/draw1/prior", others)
    edited = copy.file.read_text().replace('ranker = "llm-only"', 'ranker = "pointwise"\nlabel = "llm-only"')
    copy.file.write_text(edited)
    record = report_study(copy.file, out=copy.root).record
    assert sorted(record.missing) == [
        "shop/warm/draw0/llm-only",
        "shop/warm/draw0/popularity",
        "shop/warm/draw0/prior",
        "shop/whole_catalogue/draw0/popularity",
    ]
    assert "is a run of 'prior', not of 'popularity'" in record.missing["shop/warm/draw0/popularity"]
    assert "is a run of 'prior', not of 'popularity'" in record.missing["shop/whole_catalogue/draw0/popularity"]
    assert "is a run of 'llm-only', not of 'pointwise'" in record.missing["shop/warm/draw0/llm-only"]
    assert "is a run of other cases" in record.missing["shop/warm/draw0/prior"]


def test_a_dataset_that_is_nowhere_and_has_no_fallback_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "", TOYS.replace('fallback = "demo"\n', ""))
    refused = run("study", "run", file, "--out", tmp_path / "runs")
    assert isinstance(refused.exception, InputError)
    assert "no dataset 'nowhere'" in str(refused.exception)
    assert "--data toys=DIRECTORY" in str(refused.exception)


@pytest.mark.parametrize("name", ["baselines", "paper", "quick", "robustness", "small-models"])
def test_the_studies_that_ship_are_sound(name: str) -> None:
    spec = read_study(ROOT / "studies" / f"{name}.toml")
    assert list(spec.cells(("bpr", "sasrec")))


ENCODERS = """
[[rankers]]
ranker = "content"
encoder = "hashing"
label = "content hashing"
protocols = ["warm"]

[[rankers]]
ranker = "content"
encoder = "{tiny}"
label = "content tiny"
protocols = ["warm"]

[[rankers]]
ranker = "content"
encoder = "hashing+{tiny}"
label = "content both"
protocols = ["warm"]
"""


def test_rankers_of_one_study_may_have_encoders_of_their_own(tmp_path: Path, server: FakeOpenAI) -> None:
    pytest.importorskip("onnxruntime")
    study = write(tmp_path, server.model(), STUDY + ENCODERS.replace("{tiny}", str(TINY_ENCODER)))
    root = tmp_path / "runs"
    for _ in range(2):
        found = run("study", "run", study, "--out", root, "--only", "content", "--only", "warm/draw0/prior")
        assert found.exit_code == 0, found.output
    tiny = EncoderFiles.of_folder(TINY_ENCODER).identity
    scores = []
    for label, encoder in (("hashing", "hashing"), ("tiny", tiny), ("both", f"hashing+{tiny}")):
        manifest, rows = read_journal(root / f"shop/warm/draw0/content_{label}")
        assert manifest.configuration["encoder"] == encoder
        scores.append({user: row.scores["content"] for user, row in rows.items()})
    assert scores[0] != scores[1] != scores[2] != scores[0]
    study.write_text(study.read_text().replace('encoder = "hashing"', 'encoder = "minilm"'))
    refused = run("study", "run", study, "--out", root, "--only", "content_hashing")
    assert isinstance(refused.exception, InputError) and "configuration.encoder" in str(refused.exception)


def forecast_of(printed: str) -> dict[str, dict[str, Any]]:
    return {one["ranker"]: one for one in json.loads(printed)["forecast"]}


def test_a_forecast_asks_nobody_and_is_not_exceeded(finished: Finished, tmp_path: Path) -> None:
    with FakeOpenAI() as server:
        study = write(tmp_path, server.model())
        found = run("study", "run", study, "--out", tmp_path / "runs", "--dry-run", "--json")
        assert found.exit_code == 0, found.output
        assert not server.bodies
    said = forecast_of(found.stdout)
    assert set(said) == {"listwise", "llm-only"}
    assert json.loads(finished.printed)["forecast"] == json.loads(found.stdout)["forecast"]
    for name, one in said.items():
        ledger = finished.root / f"shop/warm/draw0/{name}/ledger.jsonl"
        calls = [call for call in read_calls(ledger) if not call.hit]
        assert (one["users"], one["measured"], one["basis"]) == (3, 0, "upper estimate")
        assert one["work"]["seconds"] is None and one["work"]["usd"] is None
        for part, real in (("calls", len(calls)), ("tokens_in", sum(call.tokens_in for call in calls)),
                           ("tokens_out", sum(call.tokens_out for call in calls))):  # fmt: skip
            assert real <= one["work"][part] <= 8 * real, (name, part)


def test_a_forecast_measures_the_runs_there_are(finished: Finished, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path)
    shutil.rmtree(copy.root / "shop/warm/draw0/llm-only")
    journal = copy.root / "shop/warm/draw0/listwise/journal.jsonl"
    (copy.root / "shop/warm/draw0/listwise/metrics.json").unlink()
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:2]))
    said = forecast_of(run("study", "run", copy.file, "--out", copy.root, "--dry-run", "--json").stdout)
    assert (said["listwise"]["users"], said["listwise"]["basis"]) == (1, "measured on 2 users")
    assert 0 < said["listwise"]["work"]["seconds"] < 60
    # No run of it is left to measure, but the study knows how long a call of its model takes.
    assert (said["llm-only"]["users"], said["llm-only"]["measured"]) == (3, 0)
    assert said["llm-only"]["work"]["seconds"] > 0
    table = run("study", "run", copy.file, "--out", copy.root, "--dry-run")
    assert table.exit_code == 0 and "upper" in table.stdout and "measured" in table.stdout


def test_what_is_done_has_no_forecast(finished: Finished) -> None:
    found = run("study", "run", finished.file, "--out", finished.root, "--dry-run", "--json")
    assert found.exit_code == 0 and json.loads(found.stdout)["forecast"] == []
    shown = run("study", "run", finished.file, "--out", finished.root, "--dry-run")
    assert shown.exit_code == 0 and "none asks a language model" in shown.stdout


def test_a_hosted_study_is_forecast_in_dollars_without_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    study = write(tmp_path, "openai/gpt-4o-mini", STUDY)
    found = run("study", "run", study, "--out", tmp_path / "runs", "--only", "listwise", "--dry-run", "--json")
    assert found.exit_code == 0, found.output
    one = forecast_of(found.stdout)["listwise"]
    assert 0 < one["work"]["usd"] < 1 and one["work"]["seconds"] is None


def test_a_report_says_what_is_recommended(finished: Finished) -> None:
    table = (finished.root / "report" / "tables").glob("*lists*.csv")
    text = next(iter(table)).read_text("utf-8")
    for name in ("MRR@5/9", "novelty@5/9", "popularity bias@5/9", "diversity@5/9", "coverage@5/9", "listwise"):
        assert name in text


def test_an_outside_run_in_a_study(tmp_path: Path, finished: Finished) -> None:
    prior = finished.root / "shop" / "warm" / "draw0" / "prior"
    assert run("export", "trec", prior, "--out", tmp_path / "trec").exit_code == 0
    outside = tmp_path / "trec" / "run.txt"
    text = STUDY.partition("[[rankers]]")[0].replace('pairs = [["listwise", "llm-only"]]', "")
    for lines in ('ranker = "prior"', f'ranker = "run:{outside}"\nlabel = "theirs"'):
        text += f'[[rankers]]\n{lines}\nprotocols = ["warm"]\ndraws = 1\n\n'
    study = write(tmp_path, "", text)
    done = run("study", "run", study, "--out", tmp_path / "runs", "--json")
    assert done.exit_code == 0, done.stdout
    ours, theirs = (
        json.loads(next(iter((tmp_path / "runs").rglob(f"{name}/metrics.json"))).read_text())["metrics"]
        for name in ("prior", "theirs")
    )
    assert ours == theirs
    outside.write_text(outside.read_text().replace(" 1 9 ", " 1 0.5 "))
    changed = run("study", "run", study, "--out", tmp_path / "runs")
    assert "run file" in str(changed.exception)
    outside.unlink()
    assert "no such file" in str(run("study", "run", study, "--out", tmp_path / "runs").exception)
