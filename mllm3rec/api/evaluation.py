"""Evaluate any ranker on frozen cases; with a run directory the evaluation can be resumed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from evaluate.baselines.fit_cost import save_fit_cost
from evaluate.protocol.cases import Cases
from evaluate.protocol.leakage import refuse_leaks
from evaluate.ranker_choice import OptionsRead, RankerChoice, named_models, refuse_ignored
from evaluate.ranker_factory import RankerFactory
from evaluate.runs.directory import RunDirectory
from evaluate.runs.evaluation import Evaluation, MetricTable
from evaluate.runs.run_metrics import against_run, ranks_on
from evaluate.runs.session import run_session
from evaluate.runs.trec import RUN_PREFIX, TrecRun, read_trec_run
from evaluate.stats.intervals import Difference
from evaluate.stats.metrics import CUTOFFS
from mllm3rec.api.options import Models, Schema, budget_of, options_for, read_schema
from mllm3rec.api.own_ranker import own_ranker, refuse_other_function
from mllm3rec.api.program import Program, choice_of
from mllm3rec.api.sessions import closing_calls, read_cases, tell_list_warnings
from programs.batch.run import BatchRun
from programs.batch.via import Via, batch_run
from programs.gate import Gate, read_gate
from programs.lm.ledger import Ledger
from programs.prior.choice import prior_name
from programs.program import DEFAULT_WEIGHT, Fusion
from programs.runtime.errors import InputError
from programs.runtime.events import OnEvent, ignore


def evaluate(
    cases: Cases | str | Path,
    ranker: object,
    *,
    name: str | None = None,
    against: Evaluation | str | Path | None = None,
    ks: Sequence[int] = (),
    out: str | Path | None = None,
    weight: float | None = None,
    prior: str | None = None,
    head: int | None = None,
    gate: Gate | str | Path | None = None,
    ask: float | None = None,
    schema: Schema | None = None,
    explain: int | None = None,
    check: bool | None = None,
    seed: int = 0,
    workers: int = 1,
    via: Via = "calls",
    retry_unparsable: bool = False,
    budget_usd: float | None = None,
    max_calls: int | None = None,
    max_minutes: float | None = None,
    on_event: OnEvent = ignore,
    **models: Unpack[Models],
) -> Evaluation:
    """Rank every case and compute HR@K and NDCG@K with 95% intervals.

    Args:
        cases: Cases, or their file.
        ranker: The name of a baseline or program, the folder of an artifact, `run:FILE` for an outside system's TREC
            run, a `Program`, an object with `rank(case)`, or a function that takes item ids (history, candidates) and
            returns one score per candidate.
        name: Name of the ranker in results.
        against: Another evaluation on the same cases, or its run directory, to compare with user by user.
        ks: Cutoffs of further metrics (`Evaluation.further`, `figures.coverage`): HR, NDCG, MRR, MAP, novelty,
            popularity, popularity bias, diversity and coverage; HR and NDCG are then compared at them as well.
        out: Run directory; the same call resumes it. None keeps only the answers of language models (in the cache).
            Of an own function, a user who is ranked already is ranked again, to find out whether it is the same one.
        weight: See `Fusion`, None for .3, or that of an artifact; only for programs given by name.
        head: See `Fusion`; None for that of an artifact.
        gate: A gate (`fit_gate_on_run(...).gate`), or its file, in place of `weight`.
        ask: Share of users to ask about, those for whom the prior is least sure; the prior alone ranks the others. The
            margin threshold is the quantile of the gate's dev users for this share.
        prior: Formula of the prior: `3` (the newest), `3-sales` or `2`, see docs/protocol.md. None: that of the run in
            `out`, or the newest; an artifact has its own.
        schema: Motivational schema or its file; only for programs given by name.
        explain: Number of first items per user that get a reason; None for that of a `Program`, or none.
        check: Whether the judge re-checks reasons; None for that of a `Program`, or yes.
        seed: Training seed of a trained baseline.
        workers: Number of users ranked in parallel.
        via: `calls`, or `batch` for the provider's batch interface, at its price (docs/batch.md); or a file, to which
            the questions of the next wave are written.
        retry_unparsable: Whether to rank users with unparsable answers again, with new calls.
        budget_usd, max_calls, max_minutes: Most dollars, model calls and minutes to spend; None for no limit. The
            limits of a `Program` hold as well, and what is spent counts against them.
        on_event: Receives notes and progress.
        models: `preset`, `model`, `mope`, `mote`, `mar`, `judge`, `timeout`, `max_tokens`, as in `program`; not for a
            `Program`.

    Raises:
        InputError: if there is no such ranker, `out` holds another run, the cases do not fit the data, or weight, head,
            prior, schema, explain, check or models are given with a `Program` that has others, or an option is given
            that the ranker would ignore.
        BudgetExceededError: if the budget ended before any user was ranked, or does not hold for a wave of batches.
        WaveWritten: after questions were written to the file `via`.
        MissingExtraError: if the library of a trained baseline is not installed.
    """
    cases = read_cases(cases)
    given = {
        "weight": weight,
        "head": head,
        "prior": prior,
        "schema": schema,
        "explain": explain or None,
        "check": False if check is False else None,
        "seed": seed or None,
        "via": None if via == "calls" else via,
        **named_models(models),
    }
    ranker = _outside_run(ranker, cases, on_event)
    if isinstance(against, Evaluation):  # before anybody is ranked and paid for
        against.require_cases(cases)
    elif against is not None:
        ranks_on(Path(against), cases.sha256)
    with run_folder(out) as folder:
        if cases.has_dataset:
            tell_list_warnings(cases, on_event)
        if isinstance(ranker, str | Path | Program):
            budget, calls = budget_of(budget_usd, max_calls, max_minutes), RunDirectory(folder).ledger
            named = None if prior is None else prior_name(prior)
            options = {"weight": weight, "head": head, "schema": read_schema(schema), "prior": named}
            if isinstance(ranker, Program):
                ranker.refuse_other(**options, explain=explain, check=check, **models)
                refuse_ignored([ranker.choice.options_read], seed=given["seed"])
                choice, explain, check = ranker.choice, ranker.explain, ranker.check
                budget, limited = ranker.budget_within(budget, calls), [ranker]
            else:
                fusion = Fusion(weight=DEFAULT_WEIGHT if weight is None else weight, head=head)
                choice = choice_of(str(ranker), options_for(str(ranker), models), fusion, read_schema(schema))
                refuse_ignored([choice.options_read], **given)
                choice = choice if named is None else choice.with_prior(named)
                explain, check, limited = explain or 0, check is not False, []
            if gate is not None or ask is not None:
                read = read_gate(Path(gate)) if isinstance(gate, str | Path) else gate
                choice = choice.with_gate(read, ask, explain)
            choice = choice.for_runs(folder)
            choice.refuse(cases)
            ledger = Ledger(calls if choice.asks_models else None, budget)
            batch = batch_run(via, ledger, retry_unparsable, on_event) if choice.asks_models else None
            factory = factory_for(choice, cases, ledger, explain, check, on_event, batch, retry_unparsable)
            built = choice.build(factory, seed)
            fit_cost = factory.fit_cost
            label, configuration = name or choice.name, choice.configuration(explain, check, seed)
            configuration |= factory.model_of_traits(choice.settings)
            configuration |= factory.fitted_with(choice.settings)
        else:
            if gate is not None or ask is not None:
                raise InputError("a gate weighs MAR's scores against the prior's; your own ranker has none")
            if cases.has_dataset:
                refuse_leaks(cases.leaks)
            ledger, batch, fit_cost, limited = Ledger(), None, None, []
            label, built = own_ranker(ranker, name)
            refuse_ignored([OptionsRead(label)], **given)
            refuse_other_function(built, cases, folder)
            file = {"run file": ranker.sha256} if isinstance(ranker, TrecRun) else {}
            configuration = {"own ranker": label, **file}
        with closing_calls(ledger, batch, limited):
            result = run_session(
                folder,
                label,
                built,
                configuration,
                cases,
                ledger,
                workers,
                on_event,
                retry_unparsable,
                ks,
                batch,
            )
            save_fit_cost(fit_cost, RunDirectory(folder).fit_cost)
        compared = MetricTable[Difference]() if against is None else _differences(result, against, folder, ks)
    return replace(result, directory=None if out is None else folder, against=compared)


def _outside_run(ranker: object, cases: Cases, on_event: OnEvent) -> object:
    """The run in the file that `run:FILE` names, checked against the cases; any other ranker as it is."""
    if not isinstance(ranker, str) or not ranker.startswith(RUN_PREFIX):
        return ranker
    run = read_trec_run(Path(ranker.removeprefix(RUN_PREFIX)))
    run.check(cases, on_event)
    return run


def factory_for(
    choice: RankerChoice,
    cases: Cases,
    ledger: Ledger,
    explain: int,
    check: bool,
    on_event: OnEvent = ignore,
    batch: BatchRun | None = None,
    retry_unparsable: bool = False,
) -> RankerFactory:
    """A factory that fits the chosen ranker on the training data of the cases."""
    return RankerFactory.create(
        cases.dataset,
        cases.training,
        choice.roles,
        ledger,
        schema=choice.schema,
        fusion=choice.fusion,
        explain=explain,
        check=check,
        prior=choice.prior,
        protocol=cases.protocol,
        given=choice.given,
        batch=batch,
        retry_unparsable=retry_unparsable,
        on_event=on_event,
    )


@contextmanager
def run_folder(out: str | Path | None) -> Iterator[Path]:
    """The given run directory, or a temporary one that is removed when the block ends."""
    if out is not None:
        yield Path(out)
        return
    with tempfile.TemporaryDirectory(prefix="mllm3rec-") as folder:
        yield Path(folder)


def _differences(
    result: Evaluation, other: Evaluation | str | Path, folder: Path, ks: Sequence[int]
) -> MetricTable[Difference]:
    cutoffs = (*CUTOFFS, *(k for k in ks if k not in CUTOFFS))
    if isinstance(other, Evaluation):
        return result.minus(other, cutoffs)
    return MetricTable(against_run(folder, Path(other), cutoffs))
