"""Metrics of a run, by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.runs.directory import TARGETS
from evaluate.runs.journal import Journal
from evaluate.runs.run_metrics import ranks_and_manifest, ranks_of, run_metrics
from programs.ranker import ranking_from_scores
from programs.runtime.errors import InputError
from signatures.rows import Case, Ranking, Status, Usage
from tests.support.runs import ITEMS, MANIFEST, SIZE, case


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
