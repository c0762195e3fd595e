"""Further metrics of a run at own cutoffs: in Python, on the command line and in the run folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mllm3rec as m3
from evaluate.runs.directory import METRICS
from evaluate.runs.further_metrics import background_of, further_metrics
from evaluate.runs.run_metrics import RunMetrics
from evaluate.stats.list_metrics import Background, coverage, list_metrics
from evaluate.stats.metrics import reciprocal_rank, reciprocal_ranks
from programs.runtime.errors import InputError
from tests.support.command_line import CommandLine

KS = (1, 3, 20)


@pytest.fixture(scope="module")
def cases() -> m3.Cases:
    return m3.draw_cases(m3.load_dataset("demo"), part="test", users=15)


def test_means_are_those_of_the_users(cases: m3.Cases, tmp_path: Path) -> None:
    result = m3.evaluate(cases, "popularity", ks=KS, out=tmp_path / "run")
    assert {name.partition("@")[0] for name in result.further} == {
        "HR", "NDCG", "MRR", "MAP", "novelty", "popularity", "popularity bias", "diversity",
    }  # fmt: skip
    assert list(result.metrics) == ["HR@5/30", "NDCG@5/30", "HR@10/30", "NDCG@10/30"]
    orders = {user: row.order for user, row in result.rows.items()}
    shown = {case.user_id: case.item_ids for case in cases}
    frame = list_metrics(orders, shown, background_of(cases.dataset, cases.training), KS)
    for k in KS:
        ranks = [reciprocal_rank(rank, k) for rank in result.ranks.values()]
        assert result.further[f"MRR@{k}"].mean == pytest.approx(sum(ranks) / 15)
        assert result.further[f"MAP@{k}"] == result.further[f"MRR@{k}"]
        for name in ("novelty", "popularity", "popularity bias"):
            estimate = result.further[f"{name}@{k}"]
            assert estimate.mean == pytest.approx(frame[f"{name}@{k}"].mean())
            assert estimate.low <= estimate.mean <= estimate.high and estimate.n == 15
        items = set(cases.dataset.interactions["item_id"])
        assert result.figures.coverage[f"coverage@{k}/30"] == coverage(orders, items, k)
    read = RunMetrics.model_validate_json((tmp_path / "run" / METRICS).read_text("utf-8"))
    assert read.further == result.figures.further and read.coverage == result.figures.coverage


def test_popularity_recommends_what_is_popular(cases: m3.Cases) -> None:
    popular, random = (m3.evaluate(cases, name, ks=[5]) for name in ("popularity", "random"))
    assert popular.further["popularity bias@5"].low > random.further["popularity bias@5"].high
    assert popular.further["novelty@5"].high < random.further["novelty@5"].low


def test_only_shares_get_the_interval_of_shares(cases: m3.Cases) -> None:
    rows = m3.evaluate(cases, "popularity").rows
    nobody = Background({}, {}, {})
    means = further_metrics(cases, rows, [1], nobody).means
    for name in ("novelty@1/30", "popularity@1/30"):  # 0 for all, of numbers that may be as large as the shop
        assert (means[name].mean, means[name].low, means[name].high) == (0, 0, 0)
    worst = {user: row.model_copy(update={"order": row.order[::-1]}) for user, row in rows.items()}
    hits = [further_metrics(cases, found, [1], nobody).means["HR@1/30"] for found in (rows, worst)]
    assert any(hit.mean == 0 < hit.high for hit in hits)


def test_without_cutoffs_a_run_is_as_before(cases: m3.Cases, tmp_path: Path) -> None:
    m3.evaluate(cases, "popularity", out=tmp_path / "run")
    written = json.loads((tmp_path / "run" / METRICS).read_text("utf-8"))
    assert not {"further", "coverage"} & written.keys()


@pytest.mark.parametrize(("ks", "problem"), [([0], "from 1 to 30"), ([31], "30 candidates"), ([3, 3], "given twice")])
def test_cutoffs_that_lists_do_not_have(cases: m3.Cases, ks: list[int], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        m3.evaluate(cases, "popularity", ks=ks)


def test_on_the_command_line(cases: m3.Cases, tmp_path: Path, cli: CommandLine) -> None:
    path = cases.save(tmp_path / "cases.jsonl")
    command = ("evaluate", str(path), "--ranker", "popularity", "--out", str(tmp_path / "run"))
    ended = cli(*command, "--k", "1,3")
    assert ended.code == 0, ended.err
    assert "popularity bias" in ended.out and "of at most" in ended.out and "@3/30" in ended.out
    assert "MRR = MAP" in ended.out
    other = m3.evaluate(cases, "random", out=tmp_path / "random")
    ended = cli(*command, "--k", "1,3", "--against", str(other.directory), "--json")
    found = json.loads(ended.out)
    assert "MRR@3/30" in found["further"] and 0 < found["coverage"]["coverage@3/30"]["share"] < 1
    assert list(found["against"])[-1] == "NDCG@3/30"
    assert "give whole numbers, such as 1,3,5,10,20" in cli(*command, "--k", "1;3").err


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 30), min_size=1), st.integers(1, 30))
def test_reciprocal_ranks_grow_with_the_cutoff(ranks: dict[str, int], k: int) -> None:
    frame = reciprocal_ranks(ranks, [k, 30])
    assert (frame[f"MRR@{k}"] <= frame["MRR@30"]).all()
    assert frame["MRR@30"].tolist() == [1 / ranks[user] for user in sorted(ranks)]
    assert frame[f"MAP@{k}"].equals(frame[f"MRR@{k}"])
