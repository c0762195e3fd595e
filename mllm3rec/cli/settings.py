"""From options to the things a run needs: dataset, encoder, language models, rankers, each made when first used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluate.data.dataset import Dataset
from evaluate.data.load import load_dataset
from evaluate.ranker_factory import RankerFactory
from mllm3rec.cli.console import progress, say
from programs.lm.backends import Backends
from programs.lm.endpoints import model_name
from programs.lm.ledger import Budget, Ledger, by_role, read_calls
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import PRESETS, ROLE_NAMES, Roles
from programs.prior.embedding_store import EmbeddingStore, store_path
from programs.prior.encoders import Encoder, HashingEncoder, MiniLMEncoder, OpenAIEncoder, Vectors
from programs.prior.prior import Prior
from programs.program import Fusion
from programs.runtime.config_file import load_schema
from programs.runtime.environment import Environment, cache_dir, environment, variable
from programs.runtime.errors import InputError
from programs.runtime.weights import locate
from programs.trait_store import TraitStore
from signatures.rows import total_usage
from signatures.schema import CONSUMER, MotivationSchema

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of tables.")]
Preset = Annotated[str, typer.Option(help="Models for all roles: local, hosted or paper.")]
ModelOption = Annotated[str | None, typer.Option(help="Model for every role; see docs/models.md for the forms.")]
RoleOption = Annotated[str | None, typer.Option(help="Model for this role alone.")]
BudgetUsd = Annotated[float | None, typer.Option(min=0, help="Stop before more dollars than this are spent.")]
MaxCalls = Annotated[int | None, typer.Option(min=0, help="Stop before more calls than this are made.")]
LedgerFile = Annotated[
    Path | None, typer.Option("--ledger", help="Write every call to this file; the budget counts what is in it.")
]
PricesFile = Annotated[
    Path | None, typer.Option("--prices", help="Your own prices, laid over the shipped ones; else MLLM3REC_PRICES.")
]
SchemaFile = Annotated[Path | None, typer.Option("--schema", help="Motivational schema, as TOML or YAML.")]
Weight = Annotated[float, typer.Option(min=0, max=1, help="Share of MAR in the fused score; the rest is the prior's.")]
Head = Annotated[int | None, typer.Option(min=1, help="MAR sees only the prior's first N candidates.")]


@dataclass(frozen=True)
class ModelOptions:
    """Which models speak, as chosen on the command line.

    Attributes:
        preset: A name of `PRESETS`.
        model: Replaces the model of every role.
        mope, mote, mar, judge: Replace the model of one role.
    """

    preset: str = "local"
    model: str | None = None
    mope: str | None = None
    mote: str | None = None
    mar: str | None = None
    judge: str | None = None

    def roles(self) -> Roles:
        """The roles these options describe.

        Raises:
            InputError: if there is no such preset.
        """
        if self.preset not in PRESETS:
            raise InputError(f"no preset {self.preset!r}: choose one of {', '.join(PRESETS)}")
        return self.over(PRESETS[self.preset])

    def over(self, roles: Roles) -> Roles:
        """`roles` with the models that were named, whatever the preset."""
        every = dict.fromkeys(("mope", "mote", "mar", "judge"), self.model)
        one = {"mope": self.mope, "mote": self.mote, "mar": self.mar, "judge": self.judge or self.mar}
        return roles.with_models(**every).with_models(**one)


def read_schema(path: Path | None) -> MotivationSchema:
    """The schema of a file, or the default one."""
    return CONSUMER if path is None else load_schema(path)


class TellingEncoder:
    """The embedding store with a progress bar, for texts that have to be computed."""

    def __init__(self, store: EmbeddingStore) -> None:
        self._store = store

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self._store.name

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See `programs.prior.encoders.Encoder`."""
        if len(texts) < 500:
            return self._store.encode(texts)
        with progress("embedding item texts (once)", len(texts)) as ticker:
            return self._store.encode(texts, progress=ticker.to)


ENCODER_VARIABLE = variable("encoder")


def chosen_encoder() -> str:
    """The name in the environment variable MLLM3REC_ENCODER, `minilm` where it is not set.

    Raises:
        InputError: if there is no such encoder.
    """
    return environment().encoder


def sentence_encoder() -> Encoder:
    """The chosen encoder behind content similarity; what costs time or money is kept on disk.

    Raises:
        InputError: if its weights or its key are missing.
    """
    kind = chosen_encoder()
    if kind == "hashing":
        return HashingEncoder()
    if kind == "openai":
        return TellingEncoder(EmbeddingStore(store_path(), OpenAIEncoder()))
    if locate("minilm") is None:
        raise InputError(
            "the sentence embeddings are not here yet: run `mllm3rec models fetch minilm`, "
            f"or set {ENCODER_VARIABLE}=hashing to compare words instead"
        )
    return TellingEncoder(EmbeddingStore(store_path(), MiniLMEncoder()))


def encoder_setting() -> dict[str, str]:
    """The chosen encoder for a run's manifest: rows of two encoders must not mix.

    Empty for the default one, so that runs from before there was a choice can still be resumed.
    """
    kind = chosen_encoder()
    return {} if kind == Environment().encoder else {"encoder": kind}


def open_dataset(source: str) -> Dataset:
    """Load a dataset and say what its loader had to decide."""
    dataset = load_dataset(source)
    for note in dataset.notes:
        say(f"note: {note}")
    return dataset


def workshop(
    dataset: Dataset,
    histories: Mapping[str, Sequence[str]],
    roles: Roles,
    ledger: Ledger,
    schema: MotivationSchema = CONSUMER,
    fusion: Fusion | None = None,
    explain: int = 0,
    check: bool = True,
    beside: Backends | None = None,
) -> RankerFactory:
    """Everything a ranker may need.

    Args:
        histories: What a fit may see (`Split.training`).
        beside: Backends of other runs of this process, with which these keep to the same limits.
    """

    @cache
    def backends() -> Backends:
        use_response_cache(cache_dir() / "calls.sqlite")
        return Backends(roles, ledger) if beside is None else beside.with_roles(roles, ledger)

    return RankerFactory(
        dataset=dataset,
        histories=histories,
        encoder_of=sentence_encoder,
        backends_of=backends,
        traits_of=cache(lambda: TraitStore(cache_dir() / "traits.sqlite")),
        schema=schema,
        fusion=fusion or Fusion(),
        explain=explain,
        check=check,
    )


def open_ledger(path: Path | None, budget_usd: float | None, max_calls: int | None) -> Ledger:
    """The ledger of a run with its budget."""
    return Ledger(path, Budget(usd=budget_usd, calls=max_calls))


def ledger_within(root: Path, path: Path, budget_usd: float | None, max_calls: int | None) -> Ledger:
    """The ledger of one of several runs, with what the others below `root` have left of a budget for all of them."""
    others = total_usage(
        usage for other in root.rglob(path.name) if other != path for usage in by_role(read_calls(other)).values()
    )
    usd = None if budget_usd is None else max(0.0, budget_usd - (others.usd or 0.0))
    return open_ledger(path, usd, None if max_calls is None else max(0, max_calls - others.calls))


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    return {name: version(name) for name in ("mllm3rec", "dspy", "numpy", "pandas", "pydantic")}


def model_names(roles: Roles) -> dict[str, str]:
    """What answers for each role, by content for files: the same path may hold another model tomorrow."""
    return {role: model_name(roles.of(role)) for role in ROLE_NAMES}


def configuration(
    roles: Roles, fusion: Fusion, schema: MotivationSchema, explain: int, check: bool = True
) -> dict[str, Any]:
    """What decides a program's rankings besides the cases, for the run's manifest."""
    # Only where it is off, so that runs from before there was a choice can still be resumed.
    unchecked = {} if check else {"check": False}
    return unchecked | {
        "roles": roles.model_dump(mode="json"),
        "models": model_names(roles),
        "weight": fusion.weight,
        "head": fusion.head,
        "explain": explain,
        "schema": schema.model_dump(mode="json"),
        "prior": Prior.version,
    }
