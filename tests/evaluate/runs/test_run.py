"""From cases to figures: resumable runs, failures apart from misses, metrics worked out by hand, rankers by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import numpy as np
import pytest
from dspy.utils.exceptions import LMError
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.data.demo.store import demo_dataset
from evaluate.protocol.cases import draw_lists
from evaluate.protocol.protocol import EvaluationProtocol
from evaluate.protocol.splits import split_dataset
from evaluate.ranker_factory import BASELINES, RankerFactory
from evaluate.runs.directory import TARGETS
from evaluate.runs.journal import Journal, RunManifest, read_journal
from evaluate.runs.run import MAX_FAILURES_IN_A_ROW, RunStatus, run_cases
from evaluate.runs.run_metrics import ranks_and_manifest, ranks_of, run_metrics
from programs.lm.backends import Backends
from programs.lm.ledger import Budget, Call, Ledger
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import PRESETS, Roles, local_roles
from programs.prior.encoders import Encoder, HashingEncoder
from programs.program import PROGRAMS
from programs.ranker import ranking_from_scores
from programs.runtime.errors import BudgetExceededError, InputError
from programs.trait_store import TraitStore
from signatures.rows import Case, Ranking, Status, Usage
from tests.support.fake_server import FakeOpenAI

SIZE = 12
ITEMS = tuple(f"i{n:02}" for n in range(SIZE))
MANIFEST = RunManifest(cases_sha256="0" * 64, ranker="scripted")


def case(user: str, target: str = "i03", candidates: Sequence[str] = ITEMS) -> Case:
    return Case(user_id=user, history=(), candidates=tuple(candidates), target=target)


def some_cases(n: int) -> list[Case]:
    return [case(f"u{number}") for number in range(n)]


class Scripted:
    """Ranks every list as it stands, remembers the cases it was given, and fails for some users as told."""

    def __init__(self, raising: Mapping[str, BaseException] | None = None) -> None:
        self.raising = dict(raising or {})
        self.seen: list[Case] = []

    def rank(self, case: Case) -> Ranking:
        self.seen.append(case)
        if case.user_id in self.raising:
            raise self.raising[case.user_id]
        return ranking_from_scores(case, {"mine": [-float(n) for n in range(len(case.candidates))]}, by="mine")

    @property
    def asked(self) -> list[str]:
        return [case.user_id for case in self.seen]


class Paying(Scripted):
    """Makes one call a case, as a program does."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def rank(self, case: Case) -> Ranking:
        self.ledger.reserve(None)
        self.ledger.record(Call(role="mar", model="m", tokens_in=10, tokens_out=2, usd=0.25))
        self.ledger.release(None)
        return super().rank(case)


def run_in(
    directory: Path, cases: Sequence[Case], ranker: Scripted, ledger: Ledger | None = None, **options: Any
) -> RunStatus:
    with Journal.open(directory, MANIFEST) as journal:
        return run_cases(cases, ranker, journal, ledger or Ledger(), **options)


def rows_in(directory: Path) -> dict[str, Ranking]:
    return read_journal(directory)[1]


def judgements(rows: Mapping[str, Ranking]) -> dict[str, dict[str, Any]]:
    """All that must be the same however often a run was interrupted: everything but what it took."""
    return {user: row.model_dump(exclude={"usage"}) for user, row in sorted(rows.items())}


# The run loop


def test_rankers_never_see_a_target(tmp_path: Path) -> None:
    ranker, cases = Scripted(), some_cases(3)
    run_in(tmp_path, cases, ranker)
    assert [seen.target for seen in ranker.seen] == [None, None, None]
    assert ranker.seen == [one.blinded() for one in cases]


def test_a_finished_run_asks_nobody_again(tmp_path: Path) -> None:
    cases = some_cases(3)
    assert run_in(tmp_path, cases, Scripted()) == RunStatus(done=3, failed=0, left=0)
    first = rows_in(tmp_path)
    again = Scripted()
    assert run_in(tmp_path, cases, again).complete
    assert again.asked == []
    assert rows_in(tmp_path) == first
    more = Scripted()
    run_in(tmp_path, some_cases(5), more)
    assert more.asked == ["u3", "u4"]


@pytest.mark.parametrize("failure", [ConnectionError("the server is gone"), LMError("overloaded")])
def test_a_failure_is_a_row_of_its_own_and_tried_again(tmp_path: Path, failure: BaseException) -> None:
    cases, told = some_cases(3), []
    outcome = run_in(tmp_path, cases, Scripted({"u1": failure}), on_row=lambda row: told.append(row.status))
    assert outcome == RunStatus(done=2, failed=1, left=0)
    assert not outcome.complete
    assert told == [Status.OK, Status.FAILED, Status.OK]
    failed = rows_in(tmp_path)["u1"]
    assert (failed.status, failed.order, failed.scores) == (Status.FAILED, (), {})
    assert failed.error is not None
    assert failed.error.startswith(f"{type(failure).__name__}: ")
    healed = Scripted()
    assert run_in(tmp_path, cases, healed) == RunStatus(done=3, failed=0, left=0)
    assert healed.asked == ["u1"]
    assert rows_in(tmp_path)["u1"].status is Status.OK


def test_too_many_failures_in_a_row_end_the_run(tmp_path: Path) -> None:
    cases = some_cases(20)
    ranker = Scripted({one.user_id: OSError("no route to host") for one in cases})
    ledger = Ledger()
    with pytest.raises(InputError, match="8 cases failed in a row, the last with: OSError: no route to host"):
        run_in(tmp_path, cases, ranker, ledger)
    assert len(ranker.seen) < len(cases)
    with pytest.raises(BudgetExceededError):
        ledger.reserve(None)
    assert run_in(tmp_path, cases, Scripted()).complete


def test_failures_with_successes_between_them_do_not_end_the_run(tmp_path: Path) -> None:
    assert MAX_FAILURES_IN_A_ROW == 8
    cases = some_cases(16)
    failing = {f"u{n}": OSError("busy") for n in range(16) if n not in (7, 15)}
    assert run_in(tmp_path, cases, Scripted(failing)) == RunStatus(done=2, failed=14, left=0)


def test_a_bug_in_a_ranker_is_no_failure_of_infrastructure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run_in(tmp_path, some_cases(3), Scripted({"u1": ZeroDivisionError()}))
    kept = set(rows_in(tmp_path))
    assert "u0" in kept
    assert "u1" not in kept


def test_a_spent_budget_stops_the_run_and_a_larger_one_finishes_it(tmp_path: Path) -> None:
    cases, path = some_cases(6), tmp_path / "ledger.jsonl"
    ledger = Ledger(path, Budget(calls=2))
    outcome = run_in(tmp_path, cases, Paying(ledger), ledger)
    ledger.close()
    assert outcome == RunStatus(done=2, failed=0, left=4, stopped="the budget of 2 calls is spent")
    assert set(rows_in(tmp_path)) == {"u0", "u1"}
    ledger = Ledger(path, Budget(calls=6))
    assert run_in(tmp_path, cases, Paying(ledger), ledger) == RunStatus(done=6, failed=0, left=0)
    assert ledger.total().calls == 6
    assert [row.usage.calls for row in rows_in(tmp_path).values()] == [1] * 6


def test_ctrl_c_stops_further_calls_and_keeps_the_rows(tmp_path: Path) -> None:
    cases, ledger = some_cases(6), Ledger()

    def interrupt(row: Ranking) -> None:
        if row.user_id == "u1":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, cases, Scripted(), ledger, on_row=interrupt)
    with pytest.raises(BudgetExceededError, match="interrupted"):
        ledger.reserve(None)
    kept = rows_in(tmp_path)
    assert {"u0", "u1"} <= set(kept) < {case.user_id for case in cases}
    assert run_in(tmp_path, cases, Scripted()).complete
    assert {user: rows_in(tmp_path)[user] for user in kept} == kept


@settings(max_examples=15)
@given(
    n=st.integers(1, 8),
    done_before=st.sets(st.integers(0, 7)),
    failing=st.sets(st.integers(0, 7), max_size=7),
    workers=st.integers(1, 4),
)
def test_every_case_is_done_or_failed_and_a_resumed_run_ends_like_any_other(
    n: int, done_before: Collection[int], failing: Collection[int], workers: int
) -> None:
    cases = some_cases(n)
    with TemporaryDirectory() as folder:
        whole, parted = Path(folder, "whole"), Path(folder, "parted")
        run_in(whole, cases, Scripted())
        run_in(parted, [one for number, one in enumerate(cases) if number in done_before], Scripted())
        before = set(rows_in(parted))
        ranker = Scripted({f"u{number}": OSError("down") for number in failing})
        outcome = run_in(parted, cases, ranker, workers=workers)
        assert sorted(ranker.asked) == sorted({one.user_id for one in cases} - before)
        unlucky = [user for user in ranker.asked if user in ranker.raising]
        assert outcome == RunStatus(done=n - len(unlucky), failed=len(unlucky), left=0)
        assert run_in(parted, cases, Scripted(), workers=workers).complete
        assert judgements(rows_in(parted)) == judgements(rows_in(whole))


# Figures


def vector(target: str, rank: int) -> list[float]:
    """Scores aligned with ITEMS that put `target` on `rank`."""
    order = [item for item in ITEMS if item != target]
    order.insert(rank - 1, target)
    return [-float(order.index(item)) for item in ITEMS]


def row(user: str, target: str, ranks: Mapping[str, int], **facts: Any) -> Ranking:
    """A row as a program writes it, with the target on the given rank of every component."""
    scores = {name: vector(target, rank) for name, rank in ranks.items()}
    ranking = ranking_from_scores(case(user, target), scores, by=list(scores)[-1])
    return ranking.model_copy(update=facts)


CASES = [case("u1", "i03"), case("u2", "i00"), case("u3", "i11")]
ROWS = {
    "u1": row("u1", "i03", {"prior": 2, "mar": 1, "fused": 1}, score_source="logprobs"),
    "u2": row("u2", "i00", {"prior": 6, "mar": 12, "fused": 4}, score_source="logprobs", appended=2, dropped=1),
    "u3": row("u3", "i11", {"prior": 11, "mar": 5, "fused": 8}, score_source="integer", appended=1),
}


def means(metrics: Mapping[str, Any]) -> list[float]:
    return [metrics[f"{name}/{SIZE}"].mean for name in ("HR@5", "NDCG@5", "HR@10", "NDCG@10")]


def test_metrics_by_hand() -> None:
    """Ranks 1, 4 and 8: gains 1, 1/log2(5) = 0.430677 and 1/log2(9) = 0.315465."""
    figures = run_metrics("pointwise", CASES, ROWS)
    assert means(figures.metrics) == pytest.approx([2 / 3, 0.4768922, 1.0, 0.5820471])
    assert (figures.users, figures.unresolved, figures.bounds) == (3, 0, {})
    assert all(estimate.n == 3 for estimate in figures.metrics.values())
    assert (figures.appended, figures.dropped) == pytest.approx((1.0, 1 / 3))
    assert figures.score_sources == {"logprobs": 2, "integer": 1}


def test_every_component_is_measured_from_its_own_scores() -> None:
    """Prior on ranks 2, 6, 11; MAR on 1, 12, 5; their fusion on 1, 4, 8."""
    figures = run_metrics("pointwise", CASES, ROWS)
    assert list(figures.components) == ["prior", "mar", "fused"]
    assert means(figures.components["prior"]) == pytest.approx([1 / 3, 0.2103099, 2 / 3, 0.3290456])
    assert means(figures.components["mar"]) == pytest.approx([2 / 3, 0.4622843, 2 / 3, 0.4622843])
    assert means(figures.components["fused"]) == means(figures.metrics)
    assert means(figures.against_prior) == pytest.approx([1 / 3, 0.2665823, 1 / 3, 0.2530015])


def test_the_order_counts_where_reasons_changed_it() -> None:
    """Reasons may filter a candidate after the fusion: metrics follow the order, the component its scores."""
    moved = ROWS["u1"].model_copy(update={"order": tuple(sorted(ITEMS, key=lambda item: item == "i03"))})
    figures = run_metrics("pointwise", CASES, ROWS | {"u1": moved})
    assert means(figures.metrics)[0] == pytest.approx(1 / 3)
    assert means(figures.components["fused"])[0] == pytest.approx(2 / 3)


def test_a_failed_user_is_unresolved_and_never_a_miss() -> None:
    cases = [*CASES, case("u4"), case("u5")]
    failed = Ranking(user_id="u4", order=(), status=Status.FAILED, error="OSError: down")
    figures = run_metrics("pointwise", cases, ROWS | {"u4": failed})  # u5 was not reached
    assert (figures.users, figures.unresolved) == (3, 2)
    assert means(figures.metrics) == means(run_metrics("pointwise", CASES, ROWS).metrics)
    hit, gain = figures.bounds[f"HR@5/{SIZE}"], figures.bounds[f"NDCG@5/{SIZE}"]
    assert (hit.low, hit.high) == pytest.approx((2 / 5, 4 / 5))
    assert (gain.low, gain.high) == pytest.approx((1.4306766 / 5, 3.4306766 / 5))


def test_unparsable_answers_are_scored_and_counted() -> None:
    usage = Usage(calls=6, cache_hits=2, tokens_in=100, tokens_out=9, usd=0.5, seconds=1.5)
    silent = ROWS["u3"].model_copy(update={"status": Status.UNPARSABLE, "unparsable": 2, "usage": usage})
    unpriced = ROWS["u1"].model_copy(update={"usage": Usage(calls=2, tokens_in=10)})
    figures = run_metrics("pointwise", CASES, ROWS | {"u1": unpriced, "u3": silent})
    assert (figures.unparsable_users, figures.unparsable_answers) == pytest.approx((1, 2 / 10))
    assert (figures.users, figures.unresolved) == (3, 0)
    assert figures.usage == Usage(calls=8, cache_hits=2, tokens_in=110, tokens_out=9, usd=0.5, seconds=1.5)
    assert run_metrics("pointwise", CASES, ROWS).usage.usd is None


@given(st.permutations(sorted(ROWS)), st.permutations(CASES))
@settings(max_examples=5)
def test_figures_do_not_depend_on_who_finished_first(users: list[str], cases: list[Case]) -> None:
    assert run_metrics("pointwise", cases, {user: ROWS[user] for user in users}) == run_metrics(
        "pointwise", CASES, ROWS
    )


def test_a_baseline_is_not_compared_with_itself() -> None:
    rows = {one.user_id: row(one.user_id, one.target or "", {"knn": 3, "prior": 2}) for one in CASES}
    assert run_metrics("prior", CASES, rows).against_prior == {}


def test_rows_that_rank_other_candidates_are_refused() -> None:
    for order in (ITEMS[:-1], (*ITEMS[:-1], "x"), (*ITEMS[:-1], ITEMS[0])):
        with pytest.raises(InputError, match="'u1' does not rank the candidates"):
            ranks_of(CASES, {"u1": ROWS["u1"].model_copy(update={"order": order})})


def test_nothing_ranked_is_nothing_to_report() -> None:
    failed = Ranking(user_id="u1", order=(), status=Status.FAILED)
    with pytest.raises(InputError, match="nothing to report"):
        run_metrics("prior", CASES, {"u1": failed})


def test_a_run_passes_its_own_audit(tmp_path: Path) -> None:
    audit = run_metrics("pointwise", CASES, ROWS).audit
    assert audit is not None
    assert not audit.impossible
    with Journal.open(tmp_path, MANIFEST) as journal:
        for one in ROWS.values():
            journal.append(one)
        journal.append(Ranking(user_id="u4", order=(), status=Status.FAILED))
    with pytest.raises(InputError, match=r"targets\.json is missing"):
        ranks_and_manifest(tmp_path)
    (tmp_path / TARGETS).write_text(json.dumps({one.user_id: one.target for one in [*CASES, case("u4")]}))
    manifest, ranks, size = ranks_and_manifest(tmp_path)
    assert (manifest.ranker, ranks, size) == ("scripted", {"u1": 1, "u2": 4, "u3": 8}, SIZE)


# Rankers by name


def demo_cases(users: int, negatives: int = 29) -> list[Case]:
    data = demo_dataset()
    protocol = EvaluationProtocol(
        dataset="demo", source="demo", dataset_sha256=data.sha256, users=users, negatives=negatives
    )
    return draw_lists(data, protocol)


def unused() -> NoReturn:
    raise AssertionError("not needed by this ranker")


def workshop(
    roles: Roles | None = None, ledger: Ledger | None = None, encoder_of: Callable[[], Encoder] = HashingEncoder
) -> RankerFactory:
    """A workshop on the demo store; without roles nothing may ask for a model."""
    data = demo_dataset()
    protocol = EvaluationProtocol(dataset="demo", source="demo", dataset_sha256=data.sha256)
    return RankerFactory(
        dataset=data,
        histories=split_dataset(data, protocol).training,
        encoder_of=encoder_of,
        backends_of=unused if roles is None else lambda: Backends(roles, ledger),
        traits_of=TraitStore,
    )


def served_by(server: FakeOpenAI) -> Roles:
    return local_roles().with_models(**dict.fromkeys(("mope", "mote", "mar", "judge"), server.model()))


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_ranks_all_thirty_without_a_model(name: str) -> None:
    shop = workshop() if name in ("content", "prior") else workshop(encoder_of=unused)
    ranker = shop.ranker(name)
    for one in demo_cases(5):
        ranking = ranker.rank(one.blinded())
        assert sorted(ranking.order) == sorted(one.candidates)
        assert len(ranking.order) == 30
        assert name in ranking.scores
        assert all(len(scores) == 30 and np.isfinite(scores).all() for scores in ranking.scores.values())
        assert ranker.rank(one.blinded()) == ranking


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_ranks_all_thirty_over_the_prior(name: str, server: FakeOpenAI) -> None:
    shop = workshop(served_by(server))
    (one,) = demo_cases(1)
    ranking = shop.ranker(name).rank(one.blinded())
    assert ranking.status is Status.OK
    assert sorted(ranking.order) == sorted(one.candidates)
    assert set(ranking.scores) == {"prior", "mar", "fused"}
    assert all(len(scores) == 30 and np.isfinite(scores).all() for scores in ranking.scores.values())
    assert ranking.scores["prior"] == shop.ranker("prior").rank(one.blinded()).scores["prior"]
    assert (ranking.appended, ranking.dropped, ranking.unparsable) == (0, 0, 0)
    assert (ranking.profile is None) == (name in ("without-mope", "llm-only"))
    assert (ranking.traits == []) == (name in ("without-mote", "llm-only"))


def test_threads_give_the_rows_of_one_thread(tmp_path: Path, server: FakeOpenAI) -> None:
    cases, rows, bodies = demo_cases(4, negatives=4), [], []
    for workers in (1, 4):
        store, ledger = use_response_cache(":memory:"), Ledger()
        ranker = workshop(served_by(server), ledger).ranker("pointwise")
        seen_before = len(server.bodies)
        with Journal.open(tmp_path / str(workers), MANIFEST) as journal:
            assert run_cases(cases, ranker, journal, ledger, workers=workers).complete
        bodies.append(sorted(json.dumps(body) for body in server.bodies[seen_before:]))
        rows.append(rows_in(tmp_path / str(workers)))
        assert sum(one.usage.calls for one in rows[-1].values()) == ledger.total().calls == len(bodies[-1])
        store.close()
    assert judgements(rows[0]) == judgements(rows[1])
    assert bodies[0] == bodies[1]
    assert len(set(bodies[0])) == len(bodies[0])


def test_random_is_seeded_and_differs_between_lists() -> None:
    random = workshop().scorer("random")
    assert random.scores(["a"], ITEMS).tolist() == random.scores(["a"], ITEMS).tolist()
    assert random.scores(["a"], ITEMS).tolist() != random.scores(["b"], ITEMS).tolist()
    ranks = [random.scores([str(n)], ITEMS).argsort().tolist().index(3) for n in range(600)]
    # The mean place of one item under chance, 5.5, within four standard errors.
    assert math.fabs(float(np.mean(ranks)) - 5.5) < 4 * math.sqrt((SIZE**2 - 1) / 12 / 600)


def test_an_unknown_ranker_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no ranker 'nonsense'\. Choose one of random, popularity") as caught:
        workshop().ranker("nonsense")
    assert all(name in str(caught.value) for name in (*BASELINES, *PROGRAMS))


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        (PRESETS["hosted"], "openai/gpt-4.1-mini needs a key: set the environment variable OPENAI_API_KEY"),
        (local_roles(), "'smollm2-135m' are not here yet"),
        (local_roles(Path("/nowhere/model.gguf")), "no model file at /nowhere/model.gguf"),
        (local_roles().with_models(mope="http://host/v1", mote="http://host/v1"), "as http://host:port/v1#model"),
    ],
)
def test_a_program_whose_models_cannot_be_asked_is_refused_at_once(roles: Roles, words: str) -> None:
    with pytest.raises(InputError) as caught:
        workshop(roles).ranker("embedding")
    assert words in str(caught.value)


def test_only_the_roles_a_program_asks_have_to_be_there(server: FakeOpenAI) -> None:
    roles = local_roles().with_models(mope=server.model(), mote=server.model())  # MAR's weights are not here
    workshop(roles).ranker("embedding")
    with pytest.raises(InputError, match="smollm2"):
        workshop(roles).ranker("pointwise")
