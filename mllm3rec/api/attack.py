"""Attack rankers: how far an item moves up if its texts contain instructions, false labels or repeated keywords."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import pandas as pd

from evaluate.attacks.attack import Attack
from evaluate.attacks.attack_report import write_attack_report
from evaluate.attacks.attacked_ranker import (
    AttackedRanker,
    RankerOf,
    attacked_own_ranker,
    attacked_ranker,
)
from evaluate.attacks.results import AttackResults, Observation, values_frame
from evaluate.attacks.runner import AttackRunner
from evaluate.attacks.suite import chosen_attacks
from evaluate.protocol.cases import Cases
from evaluate.ranker_choice import RankerChoice, named_models, refuse_ignored
from evaluate.ranker_factory import RankerFactory
from evaluate.runs.directory import RunDirectory
from mllm3rec.api.evaluation import factory_for
from mllm3rec.api.options import Models, Schema, budget_of, options_for, read_schema
from mllm3rec.api.program import Program, choice_of
from mllm3rec.api.sessions import closing_calls, read_cases
from programs.lm.ledger import Ledger
from programs.prior.choice import NEWEST
from programs.program import DEFAULT_WEIGHT, Fusion
from programs.runtime.errors import InputError
from programs.runtime.events import OnEvent, ignore
from signatures.rows import Usage

Attackable = str | Path | Program
"""The name of an untrained baseline or program, the folder of an artifact, or a `Program`."""


@dataclass(frozen=True)
class AttackOutcome:
    """Result of `attack`.

    Attributes:
        results: Gains, newcomers and losses per ranker, kind and attack, with intervals and n.
        observations: The ranks, one row per ranker, attack and user.
        written: Files of the run, the HTML page first.
        usage_by_role: Calls, tokens, dollars and seconds of the whole run by role.
        stopped: The reason if the budget stopped it, or None.
        complete: Whether all rankings were made.
    """

    results: AttackResults
    observations: tuple[Observation, ...]
    written: tuple[Path, ...]
    usage_by_role: Mapping[str, Usage]
    stopped: str | None
    complete: bool

    def to_frame(self) -> pd.DataFrame:
        """One row per ranker, attack and user: ranks of the attacked item and of the target, traits under attack."""
        return values_frame(self.observations)


def attack(
    cases: Cases | str | Path,
    rankers: Attackable | Sequence[Attackable] | Mapping[str, Attackable | RankerOf],
    *,
    out: str | Path,
    attacks: Sequence[str | Attack] = (),
    users: int | None = None,
    seed: int = 0,
    weight: float | None = None,
    head: int | None = None,
    schema: Schema | None = None,
    workers: int = 1,
    budget_usd: float | None = None,
    max_calls: int | None = None,
    max_minutes: float | None = None,
    retry_unparsable: bool = False,
    on_event: OnEvent = ignore,
    command: str = "",
    **models: Unpack[Models],
) -> AttackOutcome:
    """Attack one item in the list of every user with every attack, and measure how far it moves up (docs/attacks.md).

    Args:
        cases: Cases, or their file.
        rankers: The rankers to attack, or a dictionary of them by their names in results. In a dictionary, a ranker may
            also be a function that takes a catalogue (items by id) and returns a ranker; each edit calls it again.
        out: Run directory with the report; the same call resumes.
        attacks: Names or kinds of attacks of the suite, or your own attacks; empty for the whole suite.
        users: Number of users, the first of the cases; None for all.
        seed: Random seed of the attacked item in each list.
        weight: See `Fusion`, None for .3; only for programs given by name.
        head: See `Fusion`; None for all, or for that of an artifact.
        schema: Motivational schema or its file; only for programs given by name.
        workers: Number of lists ranked in parallel.
        budget_usd, max_calls, max_minutes: Most dollars, calls and minutes for all rankers; None for no limit. The
            limits of each `Program` hold for all rankers together, and what is spent counts against them.
        retry_unparsable: Whether to rank lists with unparsable answers again, with new calls.
        on_event: Receives notes and progress.
        command: The command to show in the report, to repeat the run.
        models: `preset`, `model`, `mope`, `mote`, `mar`, `judge`, `timeout`, `max_tokens`, as in `evaluate`.

    Raises:
        InputError: if there is no such ranker or attack, `out` holds another run, lists have fewer than 7 candidates,
            a backend fails many times in a row, no ranker reads an option that is given, or options for rankers by
            name are given without such a ranker, and a `Program` has others.
        BudgetExceededError: if the budget ended before any attacked list was ranked.
    """
    cases = read_cases(cases)
    suite = _attacks(attacks)
    fusion, motivations = Fusion(weight=DEFAULT_WEIGHT if weight is None else weight, head=head), read_schema(schema)
    named = _named(rankers)
    programs = [given for _, given in named if isinstance(given, Program)]
    if not any(isinstance(given, str | Path) for _, given in named):
        for program in programs:
            program.refuse_other(weight=weight, head=head, schema=motivations, **models)
    own = [given.choice for given in programs]
    by_name = {
        str(given): choice_of(str(given), options_for(str(given), models), fusion, motivations)
        for _, given in named
        if isinstance(given, str | Path)
    }
    if by_name:
        read = [choice.options_read for choice in (*by_name.values(), *own)]
        refuse_ignored(read, weight=weight, head=head, schema=schema, **named_models(models))
    budget, calls = budget_of(budget_usd, max_calls, max_minutes), RunDirectory(Path(out)).ledger
    for program in programs:
        budget = program.budget_within(budget, calls)
    ledger = Ledger(calls, budget)
    made: list[tuple[RankerChoice, RankerFactory]] = []
    attacked: list[AttackedRanker] = []
    for name, given in named:
        if not isinstance(given, Attackable):
            attacked.append(attacked_own_ranker(name, given, cases.dataset.items))
            continue
        choice = given.choice if isinstance(given, Program) else by_name[str(given)]
        choice.refuse(cases)
        factory = _factory(choice, cases, ledger, made, retry_unparsable, on_event)
        configuration = choice.configuration(explain=0, check=True)
        attacked.append(attacked_ranker(name or choice.name, choice.build(factory), factory, configuration))
    runner = AttackRunner(cases, attacked, suite, Path(out), ledger, users, seed, workers, on_event, retry_unparsable)
    with closing_calls(ledger, None, programs):
        run = runner.run()
    written = write_attack_report(runner, run, command)
    return AttackOutcome(run.results, run.observations, tuple(written), ledger.by_role(), run.stopped, run.complete)


def _named(
    rankers: Attackable | Sequence[Attackable] | Mapping[str, Attackable | RankerOf],
) -> list[tuple[str, Attackable | RankerOf]]:
    """Rankers with their names in results; an empty name means the ranker's own."""
    if isinstance(rankers, Mapping):
        return list(rankers.items())
    return [("", one) for one in ([rankers] if isinstance(rankers, Attackable) else rankers)]


def _attacks(wanted: Sequence[str | Attack]) -> tuple[Attack, ...]:
    own = [one for one in wanted if isinstance(one, Attack)]
    named = [one for one in wanted if isinstance(one, str)]
    found = (*(chosen_attacks(named) if named or not own else ()), *own)
    names = [one.name for one in found]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two attacks have the name {min(repeated)!r}: give each its own name")
    return found


def _factory(
    choice: RankerChoice,
    cases: Cases,
    ledger: Ledger,
    made: list[tuple[RankerChoice, RankerFactory]],
    retry_unparsable: bool,
    on_event: OnEvent,
) -> RankerFactory:
    """A factory that rankers with the same models, fusion, schema and prior share."""
    for other, factory in made:
        if _parts(other) == _parts(choice):
            return factory
    factory = factory_for(
        choice, cases, ledger, explain=0, check=True, on_event=on_event, retry_unparsable=retry_unparsable
    )
    made.append((choice, factory))
    return factory


def _parts(choice: RankerChoice) -> tuple[object, ...]:
    """What a factory is built from, and gives to every ranker."""
    return choice.roles, choice.fusion, choice.schema, choice.prior or NEWEST, choice.given
