"""Forecast of a study: calls, tokens and dollars of each ranker, from earlier runs where there are some.

Runs that have ranked users say what a user costs. Where no run of a ranker has, a few users are rehearsed: the calls
and letters of the real prompts are counted, and long answers are assumed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from evaluate.baselines.stacked import NAME as STACKED
from evaluate.experiments.grid_forecast import MeasuredMix, Work, measure_mix, sample_of, work_of
from evaluate.experiments.study_reading import is_done
from evaluate.experiments.study_runner import StudyRunner
from evaluate.experiments.study_setting import StudySetting
from evaluate.experiments.study_spec import RankerSpec, StudyCell
from evaluate.protocol.cases import Cases
from evaluate.ranker_choice import RankerChoice, is_free
from evaluate.ranker_factory import RankerFactory
from evaluate.runs.costs import MOTE_ROLE, stand_alone_usage
from evaluate.runs.directory import LEDGER, MANIFEST
from evaluate.runs.journal import read_journal
from programs.lm.backends import Backends
from programs.lm.endpoints import model_name
from programs.lm.ledger import read_calls
from programs.lm.roles import RoleConfig
from programs.prior.encoders import HashingEncoder
from programs.program import MLLM3Rec
from programs.rehearsal import LongestRehearsal
from programs.runtime.errors import InputError
from programs.runtime.events import Note
from programs.runtime.lock import owned
from programs.trait_store import TraitStore
from signatures.rows import Case, Ranking, Usage, total_usage


class RankerForecast(BaseModel):
    """What the models of one ranker will be asked in the runs that are left.

    Answers in the response cache or the trait store, and those that rankers share, count as asked.

    Attributes:
        ranker: Its label.
        users: Users left in all of its runs; those of programs inside `learned+mar` count for each program.
        work: Calls, tokens, dollars (None where a price is unknown) and seconds with one worker (None where unknown).
        measured: Ranked users that say what the others cost; 0 for an upper estimate.
        problem: Why nothing can be said; empty if something can.
    """

    model_config = ConfigDict(frozen=True)

    ranker: str
    users: int
    work: Work
    measured: int = 0
    problem: str = ""

    @property
    def basis(self) -> str:
        """Where the figures come from, in words."""
        if self.problem:
            return f"unknown: {self.problem}"
        return f"measured on {self.measured} users" if self.measured else "upper estimate"

    def __str__(self) -> str:
        """In one line."""
        if self.problem:
            return f"{self.ranker}: {self.basis}"
        work = self.work
        dollars = "dollars unknown" if work.usd is None else f"${work.usd:.2f}"
        hours = "hours unknown" if work.seconds is None else f"{work.seconds / 3600:.2f} hours"
        return (
            f"{self.ranker}: {self.users:,} users, {work.calls:,.0f} calls, {work.tokens_in:,.0f} tokens in, "
            f"{work.tokens_out:,.0f} out, {dollars}, {hours} ({self.basis})"
        )


@dataclass(frozen=True)
class _Run:
    """A run of one program that is not done: a cell of the study, or a part of a stacked ranker.

    Attributes:
        alike: Directories of runs of the same program on the same models: in the same setting, and in all of them.
    """

    directory: Path
    spec: RankerSpec
    setting: StudySetting
    cases: Cases
    alike: tuple[Sequence[Path], Sequence[Path]]


def forecast_runs(runner: StudyRunner, only: Sequence[str] = ()) -> list[RankerForecast]:
    """The forecast of every ranker with a model that has runs left; asks no model.

    Trained rankers that read stored traits ask no model either: a note says how many items have none.

    Args:
        only: As for `StudyRunner.run`.

    Raises:
        InputError: if a run or its cases are invalid.
    """
    not_done = [cell for cell in runner.cells(only) if not is_done(runner.root / cell.path)]
    _tell_traits(runner, not_done)
    left = [cell for cell in not_done if not is_free(cell.ranker.ranker)]
    if not left:
        return []
    by_ranker: dict[str, list[RankerForecast]] = {}
    with owned(runner.root):
        pace = _pace(runner.root)
        for cell in left:
            for run in _runs_of(runner, cell):
                by_ranker.setdefault(cell.ranker.label, []).append(_forecast(runner, run, pace))
    found = [_together(parts) for parts in by_ranker.values()]
    return [one for one in found if one.work.calls or one.problem]


def _tell_traits(runner: StudyRunner, cells: Sequence[StudyCell]) -> None:
    told: set[tuple[str, str]] = set()
    for cell in cells:
        setting, name = runner.setting_of(cell), cell.ranker.label
        if setting.roles is None or (name, cell.dataset.name) in told:
            continue
        told.add((name, cell.dataset.name))
        stored, items = setting.factory.stored_traits, setting.data.items
        text = f"{name}: {len(stored):,} of {len(items):,} items of {cell.dataset.name} have stored traits"
        model = setting.roles.mote.model
        rest = f"; `mllm3rec distill DATASET --mote {model} --dry-run` says what the others take"
        runner.on_event(Note(text + (rest if len(stored) < len(items) else "")))


def _runs_of(runner: StudyRunner, cell: StudyCell) -> Iterator[_Run]:
    """The runs of programs that a cell needs."""
    setting, spec = runner.setting_of(cell), cell.ranker
    same_ranker = [one for one in runner.cells() if one.ranker.label == spec.label]
    same_setting = [one for one in same_ranker if (one.dataset, one.protocol) == (cell.dataset, cell.protocol)]

    def run(cases: Cases, name: str, *below: str) -> _Run:
        alike = [[runner.root.joinpath(one.path, *below) for one in cells] for cells in (same_setting, same_ranker)]
        program = spec.model_copy(update={"ranker": name})
        directory = runner.root.joinpath(cell.path, *below)
        return _Run(directory, program, setting, cases, (alike[0], alike[1]))

    cases = setting.cases(cell.draw, spec.users)
    if spec.ranker != STACKED:
        yield run(cases, spec.ranker)
        return
    for part, own in (("dev", setting.tuning_cases(spec.learn_users)), ("test", cases)):
        for name in spec.programs:
            yield run(own, name, part, name)


def _forecast(runner: StudyRunner, run: _Run, pace: Mapping[str, float]) -> RankerForecast:
    rows = _rows(run.directory)
    ranked = {user for user, row in rows.items() if row.scored}
    left = [case for case in run.cases if case.user_id not in ranked]
    forecast = RankerForecast(ranker=run.spec.label, users=len(left), work=Work())
    if not left:
        return forecast
    try:
        choice = runner.choice_of(run.spec)
        if choice.without_model:
            return forecast
        measured, users = _measured(run.alike)
        share = 1.0
        if not users:
            measured = _rehearsed(choice, run, left, pace)
            # The threshold is that of this share of dev users; test users are about as many.
            share = 1.0 if run.spec.ask is None else run.spec.ask
    except InputError as error:
        return forecast.model_copy(update={"problem": str(error)})
    asked = math.ceil(share * len(left))
    known = {traits.item_id for row in rows.values() for traits in row.traits}
    items = len({item for case in left for item in case.candidates} - known)
    items = min(items, asked * (choice.fusion.head or items))
    work = measured.per_product.times(items)
    for one in measured.per_user.values():
        work = work.plus(one.times(asked))
    return forecast.model_copy(update={"work": work, "measured": users})


def _measured(alike: Sequence[Sequence[Path]]) -> tuple[MeasuredMix, int]:
    """Work per user and item in runs that have ranked users, and the number of users; of the nearest runs with any."""
    for directories in alike:
        by_role: dict[str, list[Usage]] = defaultdict(list)
        users = items = 0
        for directory in directories:
            rows = _rows(directory)
            users += sum(row.scored for row in rows.values())
            items += len({traits.item_id for row in rows.values() for traits in row.traits})
            if rows:
                for role, usage in stand_alone_usage(list(read_calls(directory / LEDGER))).items():
                    by_role[role].append(usage)
        if users:
            work = {role: _with_time(work_of(total_usage(usages))) for role, usages in by_role.items()}
            mote = work.pop(MOTE_ROLE, Work())
            return MeasuredMix(
                per_user={role: one.times(1 / users) for role, one in work.items()},
                per_product=mote.times(1 / items) if items else Work(),
            ), users
    return MeasuredMix(per_user={}, per_product=Work()), 0


def _rehearsed(choice: RankerChoice, run: _Run, left: Sequence[Case], pace: Mapping[str, float]) -> MeasuredMix:
    """Upper estimates of the work per user and item, from the prompts of a few users; answers are invented."""
    assert choice.roles is not None  # noqa: S101 - a study names its models
    rehearsal = LongestRehearsal(Backends(choice.roles, given=choice.given), choice.schema)
    factory = replace(
        RankerFactory.create(
            run.setting.data,
            run.setting.split.training,
            choice.roles,
            schema=choice.schema,
            fusion=replace(choice.fusion, gate=None),
            explain=run.spec.explain,
            check=run.spec.check,
            prior=choice.prior,
        ),
        backends_of=lambda: rehearsal,
        traits_of=TraitStore,
        # The order of candidates decides nothing here, and a served encoder would have to be asked.
        encoder_of=HashingEncoder,
    )
    program = choice.build(factory)
    if not isinstance(program, MLLM3Rec):
        raise InputError(f"{choice.name}: only programs have a forecast")
    sample = sample_of(left)
    found = measure_mix(program, sample, rehearsal.ledger)
    timed = {role: _timed(work, choice.roles.of(role), pace) for role, work in found.per_user.items()}  # type: ignore[arg-type]
    return MeasuredMix(per_user=timed, per_product=_timed(found.per_product, choice.roles.mote, pace))


def _timed(work: Work, role: RoleConfig, pace: Mapping[str, float]) -> Work:
    """The work with the seconds of as many calls of that model in other runs, None where there are none."""
    try:
        seconds = pace.get(model_name(role))
    except InputError:
        seconds = None
    known = None if seconds is None and work.calls else work.calls * (seconds or 0.0)
    return work.model_copy(update={"seconds": known})


def _with_time(work: Work) -> Work:
    """The work, its seconds unknown where every call was a cache hit of unknown time."""
    return work if work.seconds or not work.calls else work.model_copy(update={"seconds": None})


def _pace(root: Path) -> dict[str, float]:
    """Mean seconds of a call by model, over all ledgers of the study."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for path in sorted(root.rglob(LEDGER)):
        for call in read_calls(path):
            if call.seconds and not (call.failed or call.in_flight):
                seconds[call.model].append(call.seconds)
    return {model: sum(own) / len(own) for model, own in seconds.items()}


def _rows(directory: Path) -> dict[str, Ranking]:
    return read_journal(directory)[1] if (directory / MANIFEST).exists() else {}


def _together(parts: Sequence[RankerForecast]) -> RankerForecast:
    """All runs of a ranker; an upper estimate if one of them is."""
    work = Work()
    for part in parts:
        work = work.plus(part.work)
    asked = [part for part in parts if part.work.calls]
    return RankerForecast(
        ranker=parts[0].ranker,
        users=sum(part.users for part in parts),
        work=work,
        measured=min((part.measured for part in asked), default=0),
        problem=next((part.problem for part in parts if part.problem), ""),
    )
