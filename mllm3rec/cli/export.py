"""`mllm3rec export`: write runs, studies and artifacts for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mllm3rec.cli.console import emit, out, say
from mllm3rec.cli.options import Json

app = typer.Typer(no_args_is_help=True, help="Write runs, studies and artifacts for other tools.")


@app.callback()
def export() -> None:
    """Write runs, studies and artifacts for other tools."""


@app.command()
def trec(
    run: Annotated[Path, typer.Argument(help="Run directory, as of `mllm3rec evaluate --out`.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder for run.txt and qrels.txt.")],
    as_json: Json = False,
) -> None:
    """Write rankings and targets as TREC run and qrels, for trec_eval, ir-measures and the like."""
    from evaluate.runs.trec import write_trec

    files = write_trec(run, folder)
    if files.unresolved:
        say(f"note: {files.unresolved} unresolved users are left out; others would count them as misses")
    if as_json:
        emit({**files._asdict(), "run": str(files.run), "qrels": str(files.qrels)})
        return
    for path in (files.run, files.qrels):
        out.print(f"{files.users} users: {path}")


Folder = Annotated[Path, typer.Argument(help="Folder of a run, a study, a comparison or an artifact.")]


@app.command()
def mlflow(
    folder: Folder,
    uri: Annotated[
        str | None, typer.Option("--to", help="Tracking URI. Default: MLFLOW_TRACKING_URI, or sqlite:///mlflow.db.")
    ] = None,
    experiment: Annotated[str, typer.Option(help="Name of the experiment.")] = "mllm3rec",
    as_json: Json = False,
) -> None:
    """Write parameters, metrics with intervals, costs, report and prompts to MLflow; again replaces what is there."""
    from mllm3rec.trackers.mlflow_tracker import MlflowTracker
    from mllm3rec.trackers.tracked_record import tracked_record

    record = tracked_record(folder)
    _said(MlflowTracker(uri, experiment).write(record), len(record.children), as_json)


@app.command()
def wandb(
    folder: Folder,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder in which the folder `wandb` is made.")] = Path(),
    project: Annotated[str, typer.Option(help="Name of the project.")] = "mllm3rec",
    as_json: Json = False,
) -> None:
    """Write the same to Weights & Biases: offline and without an account, unless WANDB_MODE is `online`."""
    from mllm3rec.trackers.tracked_record import tracked_record
    from mllm3rec.trackers.wandb_tracker import WandbTracker

    record = tracked_record(folder)
    _said(WandbTracker(out_folder, project).write(record), len(record.children), as_json)


def _said(where: str, children: int, as_json: bool) -> None:
    if as_json:
        emit({"written": where, "runs": children or 1})
    else:
        out.print(f"written: {where}" + (f" ({children} runs)" if children else ""), soft_wrap=True)


@app.command()
def users(
    run: Annotated[Path, typer.Argument(help="Run directory, as of `mllm3rec evaluate --out`.")],
    file: Annotated[Path, typer.Option("--out", help="Parquet file to write.")],
    as_json: Json = False,
) -> None:
    """Write one row a user as Parquet: status, rank of the target, metrics, cost, profile and ranked items."""
    from evaluate.runs.user_frame import user_frame
    from programs.runtime.atomic import replacing

    frame = user_frame(run)
    with replacing(file) as written:
        frame.to_parquet(written, index=False)
    if as_json:
        emit({"written": str(file), "users": len(frame), "columns": list(frame.columns)})
    else:
        out.print(f"{len(frame)} users: {file}")
