"""Record of a run, a study or an artifact for a tracker: parameters, metrics with n and interval, costs, files."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from evaluate.experiments.study_reading import RUN_AGAIN, CatalogueRanks
from evaluate.runs.directory import JOURNAL, LEDGER, MANIFEST, METRICS, RunDirectory
from evaluate.runs.journal import read_journal, stored_manifest
from evaluate.runs.run_metrics import RunMetrics
from evaluate.stats.intervals import Estimate
from evaluate.stats.metrics import per_user, summarize
from optimize.artifact import PROMPTS, SEARCH_FOLDER, check_files, is_artifact, read_manifest
from programs.lm.ledger import by_role, read_calls
from programs.runtime.atomic import write_atomically
from programs.runtime.config_file import read_json
from programs.runtime.errors import InputError
from programs.runtime.untrusted import parse_untrusted_json, read_untrusted
from signatures.rows import Usage, total_usage

RecordKind = Literal["run", "study", "artifact"]

TRACKED = "tracked.json"
"""File with the identity of work that was tracked before it had a manifest."""


@dataclass(frozen=True)
class TrackedRecord:
    """One record, with the runs of a study as its children.

    Attributes:
        name: Shown by the tracker.
        identity: Same for the same work, so that a tracker finds the record it has.
        params: Texts by name.
        metrics: Numbers by name; a mean has `.low`, `.high` and `.n` beside it.
        prompts: Whole prompts of an artifact by predictor.
        files: Kept as they are; no program or pickle is among them.
        report: A page for people, or None.
    """

    kind: RecordKind
    name: str
    identity: str
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    report: Path | None = None
    children: tuple[TrackedRecord, ...] = ()


def tracked_record(folder: Path) -> TrackedRecord:
    """Read a run directory, an artifact, or a folder with runs below it, as of a study or a comparison.

    Runs of a study that have no figures yet are counted and left out.

    Raises:
        InputError: if there is none of them, no run has figures, a file cannot be read, or an artifact was changed or
            holds a link.
    """
    if is_artifact(folder) and not (folder / JOURNAL).exists():
        return _artifact(folder)
    if (folder / JOURNAL).exists():
        return _run(folder, folder.resolve().name)
    runs = sorted(path.parent for path in folder.rglob(JOURNAL))
    ended = [run for run in runs if _has_figures(run)]
    if not ended:
        why = "no run in it has figures yet; repeat its command" if runs else "holds no run, study or artifact"
        raise InputError(f"{folder}: {why}; give the folder of --out")
    return TrackedRecord(
        "study",
        folder.resolve().name,
        identity_of(folder),
        metrics={"runs": len(ended), "unfinished": len(runs) - len(ended)} | _sums(total_by_role(runs)),
        files=_existing(folder, *(path.name for path in folder.glob("*.toml"))),
        report=_page(folder),
        children=tuple(_run(run, run.relative_to(folder).as_posix()) for run in ended),
    )


def claim_identity(folder: Path, keep_in: Path) -> str:
    """Identity of work whose folder may have no manifest yet: a new one is kept, so that later sessions have it, too.

    Args:
        keep_in: The folder, or one in it, that gets the file with a new identity.

    Raises:
        InputError: as `identity_of`.
    """
    if _kept_identity(folder):
        return identity_of(folder)
    if is_artifact(folder) and not (folder / JOURNAL).exists():
        # Kept, because a compile that goes on writes another manifest, with another hash.
        identity = identity_of(folder)
    elif stored_manifest(folder) is not None:
        return identity_of(folder)
    else:
        identity = f"{folder.resolve()} {secrets.token_hex(8)}"
    keep_in.mkdir(parents=True, exist_ok=True)
    write_atomically(keep_in / TRACKED, json.dumps({"identity": identity}).encode())
    return identity


def _kept_identity(folder: Path) -> str | None:
    for path in (folder / TRACKED, folder / SEARCH_FOLDER / TRACKED):
        if path.exists() or path.is_symlink():
            found = parse_untrusted_json(read_untrusted(path), path, remedy := "delete the file")
            identity = found.get("identity") if isinstance(found, dict) else None
            if not isinstance(identity, str) or not identity:
                raise InputError(f"{path}: has no identity; {remedy}")
            return identity
    return None


def identity_of(folder: Path) -> str:
    """Identity of the record of a folder: the one that `claim_identity` has kept, or that of its manifest, or its path.

    Raises:
        InputError: if a manifest, or the file with the identity, cannot be read.
    """
    if (kept := _kept_identity(folder)) is not None:
        return kept
    if is_artifact(folder) and not (folder / JOURNAL).exists():
        return read_manifest(folder).sha256
    manifest = stored_manifest(folder)
    if manifest is None:
        return str(folder.resolve())
    return f"{manifest.cases_sha256} {manifest.ranker} {manifest.created.isoformat()}"


def metric_name(name: str) -> str:
    """A metric's name that every tracker takes.

    >>> metric_name("HR@5/30")
    'HR_at_5_of_30'
    """
    return re.sub(r"[^\w.\- ]", "_", name.replace("@", "_at_").replace("/", "_of_"))


def total_by_role(runs: list[Path]) -> dict[str, Usage]:
    """Sums of the ledgers of some runs."""
    return by_role(call for run in runs for call in read_calls(run / LEDGER))


def _run(folder: Path, name: str) -> TrackedRecord:
    manifest, _ = read_journal(folder)
    if not _has_figures(folder):
        raise InputError(f"{folder}: has no {METRICS} yet; repeat its command to finish it")
    metrics = _figures(RunDirectory(folder))
    params = {"ranker": manifest.ranker, "cases_sha256": manifest.cases_sha256, **_flat(manifest.configuration)}
    params |= {f"version.{name}": one for name, one in manifest.versions.items()}
    files = _existing(folder, MANIFEST, METRICS, LEDGER)
    usage = _sums(total_by_role([folder]))
    return TrackedRecord("run", name, identity_of(folder), params, metrics | usage, files=files, report=_page(folder))


def _has_figures(folder: Path) -> bool:
    return RunDirectory(folder).metrics.exists() or RunDirectory(folder).ranks.exists()


def _figures(files: RunDirectory) -> dict[str, float]:
    if files.ranks.exists():  # of the whole catalogue; such a run has no rows and no other figures
        found = read_json(files.ranks, CatalogueRanks, RUN_AGAIN)
        whole = summarize(per_user(found.ranks), negatives=found.size - 1)
        return dict(_estimates(whole)) | {"users": len(found.ranks)}
    figures = read_json(files.metrics, RunMetrics, "delete it and repeat the run's command")
    metrics = dict(_estimates(figures.metrics)) | dict(_estimates(figures.further))
    metrics |= dict(_estimates({f"minus prior {name}": one for name, one in figures.against_prior.items()}))
    return metrics | {
        "users": figures.users,
        "unresolved": figures.unresolved,
        "unparsable_share": figures.unparsable_answers,
        **{f"coverage {metric_name(name)}": one.share for name, one in figures.coverage.items()},
    }


def _artifact(folder: Path) -> TrackedRecord:
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    verdict = manifest.verdict
    metrics: dict[str, float] = {f"searched.{name}": score for name, score in manifest.searched.items()}
    for part, estimates in (("before", verdict.before), ("after", verdict.after), ("gain", verdict.difference)):
        metrics |= dict(_estimates({f"{part} {name}": one for name, one in estimates.items()}))
    params = {
        "family": manifest.family,
        "optimizer": manifest.optimizer,
        "judgement": verdict.judgement,
        "weight": f"{manifest.weight:g}",
        **({} if manifest.gate is None else {"gate": manifest.gate.text}),
        "trials": str(manifest.trials),
        "encoder": manifest.encoder,
        "sha256": manifest.sha256,
        "dataset": manifest.data.dataset,
        **{f"model.{role}": model for role, model in manifest.models.items()},
        **{f"version.{name}": one for name, one in manifest.versions.items()},
    }
    texts = sorted(name for name in manifest.files if name.startswith(f"{PROMPTS}/"))
    prompts = {Path(name).stem: read_untrusted(folder / name).decode("utf-8", "replace") for name in texts}
    return TrackedRecord(
        "artifact",
        f"{manifest.family} {manifest.sha256[:8]}",
        identity_of(folder),
        params,
        metrics | _sums(manifest.spent),
        prompts,
        _existing(folder, MANIFEST, "program.json", f"{SEARCH_FOLDER}/{LEDGER}"),
        _page(folder, SEARCH_FOLDER),
    )


def _estimates(found: Mapping[str, Estimate]) -> Iterator[tuple[str, float]]:
    for name, one in found.items():
        known = metric_name(name)
        yield from ((known, one.mean), (f"{known}.low", one.low), (f"{known}.high", one.high), (f"{known}.n", one.n))


def _sums(by_name: Mapping[str, Usage]) -> dict[str, float]:
    """What was billed, by role or phase and in all; unknown dollars are left out."""
    sums: dict[str, float] = {}
    if not by_name:
        return sums
    for name, usage in {**by_name, "all": total_usage(by_name.values())}.items():
        facts = usage.model_dump(include={"calls", "cache_hits", "tokens_in", "tokens_out", "usd", "seconds"})
        sums |= {f"cost.{name or 'other'}.{fact}": value for fact, value in facts.items() if value is not None}
    return sums


def _flat(value: object, name: str = "") -> dict[str, str]:
    if isinstance(value, Mapping):
        parts = [_flat(one, f"{name}.{key}" if name else str(key)) for key, one in value.items()]
        return {key: text for part in parts for key, text in part.items()}
    return {name: "" if value is None else str(value)}


def _existing(folder: Path, *names: str) -> tuple[Path, ...]:
    """The files of those names. A link is left out: it may point to any file, which a tracker would then publish."""
    return tuple(folder / name for name in names if (folder / name).is_file() and not _is_linked(folder, name))


def _page(folder: Path, below: str = "") -> Path | None:
    names = (path.relative_to(folder).as_posix() for path in sorted((folder / below).glob("*.html")))
    return next(iter(_existing(folder, *names)), None)


def _is_linked(folder: Path, name: str) -> bool:
    """Whether a file, or a folder of ours that it is in, is a symbolic link."""
    path = folder / name
    return any(one.is_symlink() for one in (path, *path.parents[: len(Path(name).parts) - 1]))
