"""`mllm3rec doctor`: check the installation, and say how to add what is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import packages_distributions

import typer
from rich.table import Table
from rich.text import Text

from mllm3rec.cli.console import emit, out
from mllm3rec.cli.options import Json

OPTIONAL = (
    ("cornac", "baselines", "trained baselines"),
    ("lightfm", "baselines", "trained baselines"),
    ("sklearn", "baselines", "trained baselines"),
    ("lightgbm", "baselines", "trained baselines"),
    ("implicit", "baselines", "trained baselines"),
    ("torch", "neural", "trained networks"),
    ("transformers", "finetune", "language models that are trained here"),
    ("nicegui", "view", "mllm3rec view"),
    ("mcp", "serve", "mllm3rec serve"),
    ("ray", "ray", "--cluster"),
    ("mlflow", "mlflow", "MLflow"),
    ("wandb", "wandb", "Weights & Biases"),
    ("opentelemetry.sdk", "otel", "--trace"),
)
"""Package, extra and purpose of what not everybody needs."""


@dataclass(frozen=True)
class Check:
    """One check of the installation.

    Attributes:
        needed: Whether the demo needs it.
        hint: What to do if it fails.
    """

    name: str
    ok: bool
    detail: str
    needed: bool = True
    hint: str = ""


def checks() -> list[Check]:
    """Checks of all that the demo and the hosted models need."""
    from evaluate.runs.session import versions
    from programs.runtime.environment import cache_dir
    from programs.runtime.weights import available, locate

    found = [
        Check("python", (3, 11) <= sys.version_info[:2] <= (3, 13), platform.python_version(), hint="use 3.11 to 3.13"),
        *(Check(name, True, version) for name, version in versions().items()),
    ]
    others = sorted({*packages_distributions().get("evaluate", ())} - {"mllm3rec"})
    found.append(
        Check(
            "package `evaluate`",
            not others,
            f"also installed by {', '.join(others)}" if others else "only ours",
            hint="both write the folder `evaluate`: use an environment without the other package",
        )
    )
    for package in ("xllamacpp", "onnxruntime", "tokenizers"):
        there = _installed(package)
        found.append(Check(package, there, "installed" if there else "missing", hint="pip install 'mllm3rec[local]'"))
    for package, extra, purpose in OPTIONAL:
        there = _installed(package)
        hint = f"only for {purpose}: pip install 'mllm3rec[{extra}]'"
        found.append(Check(package, there, "installed" if there else "missing", needed=False, hint=hint))
    for weights in available():
        there = locate(weights.name) is not None
        hint = f"mllm3rec models fetch {weights.name}"
        found.append(Check(f"weights {weights.name}", there, "verified" if there else "missing", hint=hint))
    folder = cache_dir()
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    found.append(Check("cache folder", os.access(parent, os.W_OK), str(folder), hint="set MLLM3REC_CACHE"))
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        there = bool(os.environ.get(key))
        found.append(Check(key, there, "set" if there else "not set", needed=False, hint="only for hosted models"))
    return found


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def doctor(as_json: Json = False) -> None:
    """Check this installation. Exit code 1 if the demo cannot run."""
    results = checks()
    broken = [check for check in results if check.needed and not check.ok]
    if as_json:
        emit({"ok": not broken, "checks": [asdict(check) for check in results]})
    else:
        table = Table("", "what", "found", "to do")
        for check in results:
            mark = Text("ok", "green") if check.ok else Text("missing", "red") if check.needed else Text("-", "dim")
            table.add_row(mark, check.name, check.detail, "" if check.ok else check.hint)
        out.print(table)
    raise typer.Exit(1 if broken else 0)
