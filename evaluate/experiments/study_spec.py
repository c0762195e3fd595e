"""Specification of a study (one TOML file: datasets, protocols, rankers, seeds, budget), and the runs it implies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from evaluate.baselines.baseline import LARGEST_SEED
from evaluate.baselines.stacked import NAME as STACKED
from evaluate.protocol.protocol import (
    ColdHistory,
    ColdPositive,
    EvaluationProtocol,
    Moment,
    Sampling,
    Setting,
    Target,
    check_date,
)
from evaluate.runs.trec import RUN_PREFIX
from programs.prior.choice import PriorName
from programs.program import PROGRAMS, WITHOUT_MODEL
from programs.runtime.config_file import read_toml
from programs.runtime.errors import listed, quoted
from programs.runtime.interrupts import MAX_WORKERS

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 .+_-]*$", max_length=60)]
"""A folder gets this name, so it has no special characters of paths."""


TrainingSeed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]

MAX_CELLS = 100_000
"""Most runs of a study; a short file could otherwise describe more runs than fit in memory."""


def folder_of(name: str) -> str:
    """The folder name for a name.

    >>> folder_of("item-cold matched")
    'item-cold_matched'
    """
    return name.replace(" ", "_")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DatasetSpec(_Strict):
    """A dataset of the study.

    Attributes:
        source: A directory, `demo`, or a name to look for (see `mllm3rec study run --help`).
        fallback: Source to use, with a note, if `source` is not found.
        published: Name of the dataset in the paper, to show its published rows beside ours.
        columns: Names of its columns by ours, for columns that are not recognized.
    """

    name: Name
    source: str
    fallback: str | None = None
    published: Literal["Beauty", "Sports", "Toys"] | None = None
    columns: dict[str, str] = Field(default_factory=dict, exclude_if=lambda columns: not columns)


class ProtocolSpec(_Strict):
    """How cases are drawn: fields of `EvaluationProtocol`, and the number of draws.

    Attributes:
        since: Date of the setting time, such as 2018-01-01.
        sampling: None for that of the setting, or that of the cases which a study's folder holds already.
        skip: Number of first users that are left out, see `EvaluationProtocol`.
        draws: Number of draws of negatives, for the same users and targets.
        catalogue: Rank the whole catalogue instead of sampled negatives; for rankers without a language model.
        tune_users: Number of dev users that trained baselines are tuned on.
    """

    name: Name
    setting: Setting = "warm"
    target: Target = "last-liked"
    negatives: int = Field(default=29, ge=1)
    sampling: Sampling | None = None
    part: Literal["dev", "test", "all"] = "test"
    users: int | None = Field(default=None, ge=1)
    skip: int = Field(default=0, ge=0, exclude_if=lambda skip: not skip)
    seed: int = 0
    draws: int = Field(default=1, ge=1)
    last: int | None = Field(default=None, ge=1)
    cold_positive: ColdPositive = "target"
    cold_history: ColdHistory = "window"
    since: Moment | None = Field(default=None, exclude_if=lambda since: since is None)
    catalogue: bool = False
    tune_users: int = Field(default=500, ge=1)
    datasets: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _date_fits(self) -> Self:
        check_date(self.setting, self.since)
        return self

    def drawn(
        self, dataset: str, source: str, sha256: str, users: int | None = None, draw: int = 0
    ) -> EvaluationProtocol:
        """The protocol of one cases file; `users` is a second limit beside the protocol's own."""
        limits = [n for n in (self.users, users) if n is not None]
        choices = self.model_dump(include=set(EvaluationProtocol.model_fields), exclude_none=True) | {
            "users": min(limits, default=None),
            "negatives": 1 if self.catalogue else self.negatives,
        }
        return EvaluationProtocol(dataset=dataset, source=source, dataset_sha256=sha256, draw=draw, **choices)


class RankerSpec(_Strict):
    """A ranker of the study.

    Attributes:
        ranker: Its name, as for `mllm3rec evaluate --ranker`; `run:FILE` for an outside run.
        label: Its name in results; the ranker's name unless given, or the file's without its ending.
        seeds: Training seeds, for trained rankers.
        users: Rank only the first users of each protocol, to limit paid calls; None for all.
        draws: Rank only the first draws; None for all.
        check: Whether the judge checks reasons, if `explain` is above 0.
        encoder: Sentence encoder, as for `--encoder`; None for that of the command.
        programs: For `learned+mar`: the programs whose answers become features of the learned ranker.
        learn_users: For `learned+mar`: number of dev users whom every program is asked about, to learn from.
        gate, ask: Gate file in place of `weight`, and share of the users to ask about, as for `mllm3rec evaluate`; None
            for none, and for all users.
        tune: Whether a trained baseline, or the one in `learned+mar`, is tuned on dev users; else it has its default
            settings.
        settings: Settings of a trained baseline that differ from its defaults, in place of tuning.
        protocols, datasets: Names of those it runs on; None for all.
    """

    ranker: str
    label: Name = ""
    seeds: tuple[TrainingSeed, ...] = Field(default=(0,), min_length=1)
    tune: bool = True
    settings: dict[str, Any] = Field(default_factory=dict, exclude_if=lambda settings: not settings)
    users: int | None = Field(default=None, ge=1)
    draws: int | None = Field(default=None, ge=1)
    protocols: tuple[str, ...] | None = None
    datasets: tuple[str, ...] | None = None
    preset: str = "local"
    model: str | None = None
    mope: str | None = None
    mote: str | None = None
    mar: str | None = None
    judge: str | None = None
    weight: float = Field(default=0.3, ge=0, le=1)
    head: int | None = Field(default=None, ge=1)
    explain: int = Field(default=0, ge=0)
    check: bool = True
    encoder: str | None = None
    programs: tuple[str, ...] = ("listwise", "embedding")
    learn_users: int = Field(default=100, ge=10)
    gate: Path | None = None
    ask: float | None = Field(default=None, ge=0, le=1)

    @field_validator("seeds")
    @classmethod
    def _once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is given twice; its two runs would have one folder")
        return seeds

    @model_validator(mode="before")
    @classmethod
    def _labelled(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        name = given.get("ranker", "")
        outside = isinstance(name, str) and name.startswith(RUN_PREFIX)
        return {"label": Path(name.removeprefix(RUN_PREFIX)).stem if outside else name} | given


class BudgetSpec(_Strict):
    """Limits for all runs of the study together; None is no limit."""

    usd: float | None = Field(default=None, ge=0)
    calls: int | None = Field(default=None, ge=0)
    minutes: float | None = Field(default=None, gt=0)


@dataclass(frozen=True)
class StudyCell:
    """One run of a study.

    Attributes:
        seed: Training seed, or None for an untrained ranker.
    """

    dataset: DatasetSpec
    protocol: ProtocolSpec
    ranker: RankerSpec
    seed: int | None
    draw: int

    @property
    def path(self) -> Path:
        """The run directory relative to the study's; also the run's name."""
        seed = "" if self.seed is None else f"-seed{self.seed}"
        ranker = folder_of(self.ranker.label) + seed
        return Path(folder_of(self.dataset.name)) / folder_of(self.protocol.name) / f"draw{self.draw}" / ranker


class StudySpec(_Strict):
    """A whole study.

    Attributes:
        reference: Label of the ranker that the others are compared with.
        pairs: Further pairs of labels to compare.
        together: Groups of protocols, with lists of one length, whose users are also compared together.
        model: Model of all programs that name neither a model nor a preset; not of artifacts and trained rankers.
        prior: Formula of the prior of all rankers; None for that of the runs in the study's folder, or the newest.
    """

    name: Name
    title: str = ""
    model: str | None = Field(default=None, exclude_if=lambda model: model is None)
    prior: PriorName | None = Field(default=None, exclude_if=lambda prior: prior is None)
    reference: str = "prior"
    pairs: tuple[tuple[str, str], ...] = ()
    together: tuple[Annotated[tuple[str, ...], Field(min_length=2)], ...] = Field(
        default=(), exclude_if=lambda groups: not groups
    )
    workers: int = Field(default=1, ge=1, le=MAX_WORKERS)
    budget: BudgetSpec = BudgetSpec()
    datasets: tuple[DatasetSpec, ...] = Field(min_length=1)
    protocols: tuple[ProtocolSpec, ...] = Field(min_length=1)
    rankers: tuple[RankerSpec, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        count = len(self.datasets) * sum(p.draws for p in self.protocols) * sum(len(r.seeds) for r in self.rankers)
        if count > MAX_CELLS:
            raise ValueError(f"this study may have {count:,} runs; at most {MAX_CELLS:,} are possible")
        _require_own_folders("datasets", [d.name for d in self.datasets])
        _require_own_folders("protocols", [p.name for p in self.protocols])
        labels = {r.label for r in self.rankers}
        for label in (self.reference, *(label for pair in self.pairs for label in pair)):
            if label not in labels:
                raise ValueError(f"reference or pairs: no ranker has the label {quoted(label)}")
        self._require([d.name for d in self.datasets], [d for p in self.protocols for d in p.datasets or ()])
        self._require([d.name for d in self.datasets], [d for r in self.rankers for d in r.datasets or ()])
        self._require([p.name for p in self.protocols], [p for r in self.rankers for p in r.protocols or ()])
        self._require([p.name for p in self.protocols], [p for group in self.together for p in group])
        for dataset in self.datasets:
            for protocol in self.protocols:
                here = [r.label for r in self.rankers if _runs_on(r, dataset.name, protocol.name)]
                _require_own_folders("rankers", here)
        for group in self.together:
            _require_own_folders("together", group)
            if len({None if p.catalogue else p.negatives for p in self.protocols if p.name in group}) > 1:
                raise ValueError(f"together: {listed(group)} have lists of different lengths")
        return self

    @staticmethod
    def _require(known: Sequence[str], names: Sequence[str]) -> None:
        unknown = set(names) - set(known)
        if unknown:
            raise ValueError(f"{quoted(min(unknown))} is not among {listed(known)}")

    def cells(self, trained: Sequence[str]) -> Iterator[StudyCell]:
        """Every run; those that share a fit are adjacent.

        Args:
            trained: Names of the rankers with training seeds.
        """
        for dataset in self.datasets:
            for protocol in self.protocols:
                if protocol.datasets is not None and dataset.name not in protocol.datasets:
                    continue
                for given in self.rankers:
                    if not _runs_on(given, dataset.name, protocol.name):
                        continue
                    ranker = self._with_model(given)
                    seeds: Sequence[int | None] = ranker.seeds if ranker.ranker in trained else (None,)
                    draws = min(protocol.draws, ranker.draws or protocol.draws)
                    for seed in seeds:
                        for draw in range(draws):
                            yield StudyCell(dataset, protocol, ranker, seed, draw)

    def _with_model(self, ranker: RankerSpec) -> RankerSpec:
        named = ranker.model_fields_set & {"model", "preset"}
        if self.model is None or named or ranker.ranker not in {*PROGRAMS, STACKED} - WITHOUT_MODEL:
            return ranker
        return ranker.model_copy(update={"model": self.model})


def _require_own_folders(what: str, names: Sequence[str]) -> None:
    # Different names may have the same folder.
    folders = Counter(folder_of(name) for name in names)
    twice = [name for name in names if folders[folder_of(name)] > 1]
    if twice:
        raise ValueError(f"{what}: {quoted(twice[0])} is repeated; give each its own name or label")


def _runs_on(ranker: RankerSpec, dataset: str, protocol: str) -> bool:
    return dataset in (ranker.datasets or (dataset,)) and protocol in (ranker.protocols or (protocol,))


def read_study(path: Path) -> StudySpec:
    """Read a study file.

    Raises:
        InputError: naming file and field, if it cannot be read or is not a valid study.
    """
    return read_toml(path, StudySpec)
