"""`mllm3rec demo`: compile on the demo store with the models of this machine, and see what it was worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from evaluate.data.dataset import Dataset
from evaluate.protocol.cases import CaseFile, draw_cases, write_cases
from evaluate.protocol.protocol import EvaluationProtocol
from evaluate.protocol.splits import split_dataset
from evaluate.ranker_factory import BASELINES
from evaluate.runs.run_metrics import against_run
from mllm3rec.cli.compile import Watching, build_compiler, proposing, show_manifest
from mllm3rec.cli.console import emit, figure, out, recovery_line, say, usage_table
from mllm3rec.cli.evaluate import LEDGER, Finished, run_into
from mllm3rec.cli.settings import (
    Json,
    ModelOption,
    ModelOptions,
    chosen_encoder,
    configuration,
    model_names,
    open_dataset,
    open_ledger,
    versions,
    workshop,
)
from optimize.artifact import SEARCH_FOLDER, load_artifact
from optimize.candidates import Recipe
from optimize.settings import CompileSettings
from optimize.space import Space
from programs.program import Fusion
from signatures.schema import CONSUMER

# One call of MOPE and a short list: a small model on two cores is asked some 250 times in ten minutes.
FAMILY, HEAD = "without-reflection", 10
BEFORE, AFTER = "before", "after"


def demo(
    directory: Annotated[Path, typer.Option("--out", help="Where cases and runs go; the same command resumes.")],
    users: Annotated[int, typer.Option(min=1, help="Test shoppers of the demo store.")] = 30,
    dev_users: Annotated[int, typer.Option(min=4, help="Dev shoppers to compile on.")] = 10,
    trials: Annotated[int, typer.Option(min=1, help="Programs to try.")] = 4,
    model: ModelOption = None,
    as_json: Json = False,
) -> None:
    """Tune MOPE, MOTE and MAR on dev shoppers, freeze, and compare with the original on untouched test shoppers."""
    data = open_dataset("demo")
    dev = _cases(data, directory / "dev.jsonl", "dev", dev_users)
    test = _cases(data, directory / "test.jsonl", "test", users)
    roles, fusion = ModelOptions(model=model).roles(), Fusion(head=HEAD)
    settings = CompileSettings(
        trials=trials,
        recipe=Recipe(demo_sets=1, max_demos=2, wordings=1),
        space=Space(families=(FAMILY,)),
        interactions=2,
        roles=roles,
        proposer=proposing(roles),
        models=model_names(roles),
        encoder=chosen_encoder(),
        motivations=CONSUMER,
        head=HEAD,
        cases_sha256=dev.sha256,
        versions=versions(),
    )
    artifact = directory / "artifact"
    say(f"compiling {FAMILY} on {dev_users} dev shoppers, {trials} trials")
    compiling = open_ledger(artifact / SEARCH_FOLDER / "ledger.jsonl", None, None)
    with Watching(compiling) as watcher:
        manifest = build_compiler(artifact, settings, dev, None, compiling, watcher).run()
    compiling.close()

    ledger = open_ledger(directory / LEDGER, None, None)
    shop = workshop(data, split_dataset(data, test.protocol).training, roles, ledger, fusion=fusion)
    finished: dict[str, Finished] = {}
    for name in BASELINES:
        finished[name] = run_into(directory / name, name, shop.ranker(name), {}, test, ledger)
    said = configuration(roles, fusion, CONSUMER, explain=0)
    say(f"{FAMILY} before and after, {len(test.cases)} test shoppers")
    finished[BEFORE] = run_into(directory / BEFORE, FAMILY, shop.ranker(FAMILY), said, test, ledger)
    compiled, _ = load_artifact(artifact, shop.parts())
    said = said | {"artifact": manifest.sha256}
    finished[AFTER] = run_into(directory / AFTER, f"compiled {FAMILY}", compiled, said, test, ledger)
    differences = against_run(directory / AFTER, directory / BEFORE)
    complete = all(one.outcome.complete for one in finished.values())
    if as_json:
        facts: dict[str, Any] = {name: one.results.model_dump(mode="json") for name, one in finished.items()}
        gains = {name: difference.model_dump() for name, difference in differences.items()}
        emit(
            {**facts, "after minus before": gains, "manifest": manifest.model_dump(mode="json"), "run": str(directory)}
        )
        raise typer.Exit(0 if complete else 1)
    show_manifest(manifest)
    out.print(_table(finished))
    out.print(
        f"{BEFORE} and {AFTER} fuse the prior with MAR, which ranks the prior's first {HEAD}; the test shoppers were "
        "seen by nothing above."
    )
    for metric, difference in differences.items():
        out.print(f"{metric}: {figure(difference)} after minus before (paired, n={difference.n})")
    for name in (BEFORE, AFTER):
        recovered = finished[name].recovered
        if recovered is not None:
            out.print(f"{name}: {recovery_line(recovered)}")
    out.print(usage_table(ledger.by_role()))
    out.print(f"written: {directory} (artifact/search/report.html shows the search)", markup=False)
    raise typer.Exit(0 if complete else 1)


def _cases(data: Dataset, path: Path, part: str, users: int) -> CaseFile:
    protocol = EvaluationProtocol.model_validate(
        {"dataset": "demo", "source": "demo", "dataset_sha256": data.sha256, "part": part, "users": users}
    )
    return write_cases(path, protocol, draw_cases(data, protocol))


def _table(finished: dict[str, Finished]) -> Table:
    metrics = list(next(iter(finished.values())).results.metrics)
    table = Table("ranker", *(f"{m} [95% CI]" for m in metrics), "n", title="Demo store", title_justify="left")
    for name, one in finished.items():
        table.add_row(name, *(figure(one.results.metrics[m]) for m in metrics), str(one.results.users))
        if "mar" in one.results.components:
            alone = one.results.components["mar"]
            table.add_row("  MAR alone", *(figure(alone[m]) for m in metrics), str(one.results.users))
    return table
