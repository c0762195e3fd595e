"""The audit: sound rows pass, broken ones are named with the identity and the amount."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from evaluate.paper.published import COSTS, DATASETS, ITEM_COLD, MAIN, USER_COLD
from evaluate.stats.audit import ROUNDED_ONCE, MetricRow, audit_ranks, audit_row, read_metric_table
from evaluate.stats.metrics import per_user
from programs.runtime.errors import InputError

HEADER = "method,dataset,HR@5,NDCG@5,HR@10,NDCG@10\n"

IMPOSSIBLE = {
    ("SASRec", "Beauty"),
    ("BERT4Rec", "Beauty"),
    ("LLM-only", "Beauty"),
    ("TALLRec", "Beauty"),
    ("A-LLMRec", "Beauty"),
    ("M-LLM³REC", "Beauty"),
    ("LightFM", "Sports"),
    ("A-LLMRec", "Sports"),
    ("M-LLM³REC", "Sports"),
    ("LightFM", "Toys"),
    ("BERT4Rec", "Toys"),
    ("LLM-only", "Toys"),
    ("TALLRec", "Toys"),
    ("A-LLMRec", "Toys"),
}


def _row(hr5: str, ndcg5: str, hr10: str | None = None, ndcg10: str | None = None) -> MetricRow:
    return MetricRow.model_validate(
        {"method": "m", "dataset": "d", "hr5": hr5, "ndcg5": ndcg5, "hr10": hr10, "ndcg10": ndcg10}
    )


def test_fourteen_published_rows_are_impossible() -> None:
    findings = [audit_row(published.row) for published in MAIN]
    assert len(findings) == 27
    assert {(f.method, f.dataset) for f in findings if f.impossible} == IMPOSSIBLE


def test_a_fifteenth_breaks_only_if_every_figure_was_rounded_once() -> None:
    once = {(f.method, f.dataset) for p in MAIN if (f := audit_row(p.row, ROUNDED_ONCE)).impossible}
    assert once - IMPOSSIBLE == {("TALLRec", "Sports")} and once >= IMPOSSIBLE
    # By hand: .2907 - .2122 is at least .0784, while .565 - .345 = .22 allows .22 / log2(7) = .07837.
    tallrec = next(p.row for p in MAIN if (p.row.method, p.row.dataset) == ("TALLRec", "Sports"))
    finding = audit_row(tallrec)
    assert not finding.impossible
    assert any("rounded once" in note and "HR@5) * 0.3562" in note for note in finding.notes)


def test_the_headline_row_by_hand() -> None:
    headline = next(p.row for p in MAIN if (p.row.method, p.row.dataset) == ("M-LLM³REC", "Beauty"))
    (violation,) = audit_row(headline, ROUNDED_ONCE).violations
    # .169 of the users hit between 6 and 10, each worth 1 / log2(11) = .28906 at least: .04885, printed .019.
    assert violation.identity == "(HR@10 - HR@5) * 0.2891 <= NDCG@10 - NDCG@5"
    assert violation.excess == pytest.approx(0.04885 - 0.019, abs=1e-5)
    assert violation.allowance == pytest.approx(2 * 0.0005 * (1 + 0.28906), abs=1e-7)


def test_allowance_follows_the_printed_digits() -> None:
    # NDCG .504 > HR .50 is explained where the hit rate has two digits, not where it has four.
    assert not audit_row(_row(".50", ".504"), ROUNDED_ONCE).impossible
    (violation,) = audit_row(_row(".5000", ".504"), ROUNDED_ONCE).violations
    assert violation.identity == "NDCG@5 <= HR@5"
    assert violation.excess == pytest.approx(0.004)
    assert violation.allowance == pytest.approx(0.00005 + 0.0005)


@pytest.mark.parametrize(
    ("row", "identity"),
    [
        (_row("-.10", "-.05"), "0 <= HR@5"),
        (_row("1.10", ".60"), "HR@5 <= 1"),
        (_row(".50", ".40", ".40", ".40"), "HR@5 <= HR@10"),
        (_row(".50", ".40", ".50", ".30"), "NDCG@5 <= NDCG@10"),
        (_row(".50", ".60"), "NDCG@5 <= HR@5"),
        (_row(".50", ".10"), "HR@5 * 0.3869 <= NDCG@5"),
        (_row(".50", ".30", ".80", ".35"), "(HR@10 - HR@5) * 0.2891 <= NDCG@10 - NDCG@5"),
        (_row(".50", ".30", ".60", ".40"), "NDCG@10 - NDCG@5 <= (HR@10 - HR@5) * 0.3562"),
    ],
)
def test_each_identity_is_named(row: MetricRow, identity: str) -> None:
    finding = audit_row(row)
    assert finding.impossible and identity in [v.identity for v in finding.violations]
    assert all(v.excess > v.allowance for v in finding.violations)
    assert finding.model_dump(mode="json")["impossible"] is True


def test_below_chance_is_a_note_and_depends_on_the_list() -> None:
    row = _row(".10", ".06", ".20", ".09")
    finding = audit_row(row)
    assert not finding.impossible
    assert [note.split()[0] for note in finding.notes] == ["HR@5", "NDCG@5", "HR@10", "NDCG@10"]
    assert not audit_row(row, list_size=100).notes
    assert not audit_row(row, list_size=None).notes
    # .165 and .095 are below .1667 and .0983, .17 and .10 are not.
    assert len(audit_row(_row(".16", ".09"), ROUNDED_ONCE).notes) == 2
    assert not audit_row(_row(".16", ".09")).notes


def test_percentages_are_recognised() -> None:
    assert any("percentages" in note for note in audit_row(_row("54.0", "33.9")).notes)


@given(
    st.dictionaries(st.text(max_size=4), st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 4), st.booleans()
)
@settings(max_examples=80, deadline=None)
def test_any_ranks_are_possible_also_when_printed(ranks: dict[str, int], digits: int, cut_off: bool) -> None:
    assert not audit_ranks(ranks).impossible
    step = Decimal(1).scaleb(-digits)
    means = {str(k): Decimal(str(v)) for k, v in per_user(ranks).mean().items()}
    printed = {k: v.quantize(step, "ROUND_DOWN" if cut_off else "ROUND_HALF_EVEN") for k, v in means.items()}
    row = MetricRow(
        method="m",
        dataset="d",
        hr5=printed["HR@5"],
        ndcg5=printed["NDCG@5"],
        hr10=printed["HR@10"],
        ndcg10=printed["NDCG@10"],
    )
    assert not audit_row(row).impossible
    if not cut_off:
        assert not audit_row(row, ROUNDED_ONCE).impossible


def test_ranks_outside_the_list_are_impossible() -> None:
    (violation,) = audit_ranks({"a": 30, "b": 33, "c": 1}, list_size=30).violations
    assert (violation.identity, violation.excess) == ("rank of user 'b' <= 30", 3.0)
    with pytest.raises(InputError, match="no ranks"):
        audit_ranks({})


def test_a_float_has_no_printed_digits() -> None:
    with pytest.raises(ValidationError, match="as printed"):
        MetricRow.model_validate({"method": "m", "dataset": "d", "hr5": 0.5, "ndcg5": ".3"})


def test_published_rows() -> None:
    for table, (rows, count) in {2: (MAIN, 27), 3: (ITEM_COLD, 9), 4: (USER_COLD, 18)}.items():
        assert [row.table for row in rows] == [table] * count
        assert {row.row.dataset for row in rows} == set(DATASETS)
        assert all((row.row.hr10 is not None) == (table == 2) for row in rows)
    assert MAIN[0].label == "BPR (as published, Table 2)"
    assert len(COSTS) == 12 and COSTS[3].usd == Decimal("0.100")


def test_a_table_keeps_the_printed_digits(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    lines = [f"{p.row.method},{p.row.dataset},{p.row.hr5},{p.row.ndcg5},{p.row.hr10},{p.row.ndcg10}\n" for p in MAIN]
    path.write_text(HEADER + "".join(lines), encoding="utf-8")
    rows = read_metric_table(path)
    assert rows == [p.row for p in MAIN]
    assert [str(r.hr5) for r in rows] == [str(p.row.hr5) for p in MAIN]
    assert sum(audit_row(row).impossible for row in rows) == 14


def test_a_table_may_stop_at_five_and_be_in_another_order(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("\ufeffdataset,HR@10,NDCG@10,n,NDCG@5, HR@5,method\nd,,,7,.30,.50,m\n", encoding="utf-8")
    assert read_metric_table(path) == [_row(".50", ".30")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ":1: column 'method' is missing"),
        ("method,dataset,HR@5,NDCG@5,HR@10\n", ":1: column 'NDCG@10' is missing"),
        (HEADER, "no rows"),
        (HEADER + "m,d,.1,.1,.1,.1\nm,d,.1,n/a,.1,.1\n", ":3: column 'NDCG@5': 'n/a'"),
        (HEADER + "m,d,54%,.1,.1,.1\n", ":2: column 'HR@5': '54%'"),
        (HEADER + "m,d,,.1,.1,.1\n", ":2: column 'HR@5': ''"),
        (HEADER + "m,d,nan,.1,.1,.1\n", ":2: column 'HR@5': 'nan'"),
        (HEADER + ",d,.1,.1,.1,.1\n", ":2: column 'method'"),
        (HEADER + "m,d,.1,.1,.1\n", ":2: the row has fewer cells"),
        (HEADER + "m,d,.1,.1,.1,.1,.1\n", ":2: the row has more cells"),
        (HEADER + "m,d,.1,.1,.1,\n", "give both HR@10 and NDCG@10"),
        (HEADER + 'm,d,"1,.1,.1,.1\n', "not a CSV file"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_metric_table(path)
    assert str(caught.value).startswith(str(path)) and words in str(caught.value)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent", tmp_path, tmp_path / "binary"):
        with pytest.raises(InputError, match=str(path)):
            read_metric_table(path)


@pytest.mark.parametrize("cell", ["1e999999", "-1e400", "0E999", "9" * 5000, "nan", "inf", "x" * 5000])
def test_a_figure_that_is_no_share_is_refused_with_its_line(tmp_path: Path, cell: str) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f"method,dataset,HR@5,NDCG@5,HR@10,NDCG@10\na,b,{cell},.3,.5,.3\n")
    with pytest.raises(InputError, match=rf"^{table}:2: column 'HR@5': ") as refused:
        read_metric_table(table)
    assert len(str(refused.value)) < len(str(table)) + 400
