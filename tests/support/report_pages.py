"""Small comparisons, compiles and attack runs with long and hostile names, for the tests of reports."""

from __future__ import annotations

from pathlib import Path

from evaluate.attacks.attack_report import write_attack_report
from evaluate.attacks.runner import AttackRunner
from evaluate.attacks.suite import ATTACKS
from evaluate.experiments.grid import BackendSpec, Grid
from evaluate.experiments.grid_results import MixRun, grid_results
from evaluate.experiments.grid_tab import grid_tab
from evaluate.report.write import write_report
from evaluate.runs.costs import cost_of
from optimize.artifact import ArtifactManifest, CompileData
from optimize.compile_report import CompileRecord, compile_report
from optimize.holdout import compare_on_holdout
from optimize.objective import ObjectiveWeights, UserScore
from optimize.prompts import Prompt
from optimize.search import Attempt
from optimize.space import Configuration
from programs.lm.ledger import Call
from programs.lm.roles import local_roles
from signatures.rows import Usage
from signatures.schema import CONSUMER
from tests.support.attacks import deaf, obeying, shop_cases
from tests.support.small_study import SCRIPT, cases_of, plain, study

BACKENDS = ("small", "a-medium-sized-model-q4.1", "large-model-with-long-name")
DEV_USERS = tuple(f"AREVIEWER{i}" for i in range(6))


def comparison_page(directory: Path) -> Path:
    """The page of a comparison of nine mixes on four users; one of them was stopped."""
    grid = Grid(
        backends={name: BackendSpec(model=f"http://127.0.0.1:9/v1#{name}") for name in BACKENDS},
        mope=BACKENDS,
        mote=BACKENDS[:1],
        mar=BACKENDS,
        metric="NDCG@5",
    )
    cases = cases_of(0).cases
    runs = []
    for i, mix in enumerate(grid.mixes()):
        ranks = {case.user_id: 1 + (i + j) % 7 for j, case in enumerate(cases)}
        calls = [
            Call(
                role=role, model=getattr(mix, role), tokens_in=900 + i, tokens_out=40, usd=0.01 * (1 + i % 4), seconds=i
            )
            for role in ("mope", "mote", "mar")
        ]
        cost = cost_of(calls, users=4, pairs=40, products=10, population_users=100, catalogue=50)
        rows = {case.user_id: plain(case, ranks[case.user_id], "mar") for case in cases}
        stopped = f"user {cases[0].user_id!r}: the server was gone" if i == 8 else None
        runs.append(MixRun(mix, ranks, rows, cost, unresolved=int(i == 8), stopped=stopped))
    record = study()
    tab = grid_tab(grid_results(grid, runs, list_size=10), grid, record.protocols[0])
    return write_report(record, directory, [tab])[0]


def attack_page(directory: Path) -> Path:
    """The page of all attacks on two rankers, one of which has a long name."""
    rankers = [obeying([]), deaf([], "compiled listwise (0123abcd)")]
    runner = AttackRunner(shop_cases(users=2), rankers, ATTACKS, directory)
    return write_attack_report(runner, runner.run(), "mllm3rec attack cases.jsonl --out runs/attacks")[0]


def compile_record(gain: float = 0.3, unchanged: bool = False) -> CompileRecord:
    """A search of eight trials whose winner, unless `unchanged`, is trial 3; it gains so much on each held-out user."""
    start = Configuration(family="listwise", demos={"mope": "original"}, wordings={"mope": "original"})
    won = start.model_copy(update={"wordings": {"mope": f"proposed-1 {SCRIPT}"}, "weight": 0.6})
    choices = [start] + [won.model_copy(update={"weight": number / 10}) for number in range(1, 8)]
    choices[3] = won
    attempts = [
        Attempt(number, "PRUNED" if number == 5 else "COMPLETE", chosen, _scores(0.4 + 0.2 * (number == 3), number))
        for number, chosen in enumerate(choices)
    ]
    attempts.append(Attempt(8, "FAIL", won, (), f"user {DEV_USERS[0]!r}: the server was gone"))
    before = {
        "shopper.infer.predict": Prompt(
            instructions="Infer why this shopper buys.\nName no brand.", demos=({"history": "a tent", "n": [1]},)
        ),
        "product.distill.predict": Prompt(instructions="Distil the product.\n" * 12),
    }
    after = before | {
        "shopper.infer.predict": Prompt(
            instructions=f"Infer why this user buys.\nName no brand.\n{SCRIPT}", demos=({"history": "x" * 300},)
        )
    }
    after = before if unchanged else after
    manifest = ArtifactManifest(
        family="listwise",
        roles=local_roles(),
        models={"mope": "sha256 " + "a" * 64},
        weight=0.3 if unchanged else 0.6,
        motivations=CONSUMER,
        optimizer="study",
        chosen=start if unchanged else won,
        trial=0 if unchanged else 3,
        trials=len(attempts),
        weights=ObjectiveWeights(),
        similarity="schema",
        interactions=2,
        data=CompileData(
            dataset="demo", dataset_sha256="d" * 64, cases_sha256="c" * 64, target="last", negatives=9,
            searched=DEV_USERS, held_out=DEV_USERS,
        ),
        searched={"before": 0.4, "after": 0.6},
        verdict=compare_on_holdout(_scores(0.4), _scores(0.4 + gain)),
        spent={"pools": Usage(calls=3, cache_hits=1, tokens_in=90, usd=0.03), "search": Usage(calls=6, usd=0.06)},
        versions={"dspy": "3.4.1"},
    )  # fmt: skip
    sent = {name: f"--- system ---\n{prompt.instructions}\n" for name, prompt in after.items()}
    importances = {} if unchanged else {"mope_wording": 0.7, "fusion_weight": 0.3}
    return CompileRecord(manifest, attempts, "tokens", before, after, sent, importances)


def compile_page(directory: Path) -> Path:
    """The page of a compile."""
    path = directory / "report.html"
    path.write_text(compile_report(compile_record()), encoding="utf-8")
    return path


def _scores(mean: float, number: int = 0) -> tuple[UserScore, ...]:
    return tuple(
        UserScore(
            user_id=user, score=mean + i / 100, rank=2, mar_rank=3, ndcg=mean, mar=mean, hit=1.0, coherence=0.1 * i,
            tokens=1000 + 40 * number,
        )
        for i, user in enumerate(DEV_USERS)
    )  # fmt: skip
