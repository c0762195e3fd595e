"""The study report: cells against hand-computed figures, escapes of every writer, pseudonyms, self-containedness."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
from pathlib import Path

import plotly.graph_objects as go
import pytest

from evaluate.report.accuracy import against, audit_lines, bounds_table, main_table, pairs, published_metric_table
from evaluate.report.blocks import Figure, Tab
from evaluate.report.costs import billed_table, per_user_price, stand_alone_table
from evaluate.report.drilldown import drilldown, users_per_run
from evaluate.report.export import to_csv, to_latex, to_markdown
from evaluate.report.failures import answer_table, outcome_table, position_table
from evaluate.report.page import inert_json
from evaluate.report.pseudonyms import pseudonym, without_ids
from evaluate.report.ranker_runs import RankerRuns, over_draws, ranker_runs
from evaluate.report.record import StudyRecord
from evaluate.report.selective import selective_table
from evaluate.report.slices import Deciles, length_slice, slicings
from evaluate.report.table import BETTER, Table, TableCell, TableRow, word_cell
from evaluate.report.uncertainty import planner_table, variance_table
from evaluate.report.write import write_report
from evaluate.stats.significance import holm
from programs.lm.ledger import by_role
from programs.runtime.errors import InputError, quoted
from signatures.rows import Status, Usage
from signatures.types import Rationale, Verdict
from tests.support.grids import call
from tests.support.small_study import SCRIPT, SIZE, USERS, assert_self_contained, cases_of, plain, run, spoken, study

THIRD_OF_LOG = 1 / math.log2(3)  # NDCG of rank 2


@pytest.fixture(scope="module")
def record() -> StudyRecord:
    return study()


@pytest.fixture(scope="module")
def found(record: StudyRecord) -> list[RankerRuns]:
    return ranker_runs(record, record.protocols[0])


@pytest.fixture(scope="module")
def written(record: StudyRecord, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("report")
    files = write_report(record, directory)
    assert files[0] == directory / "report.html"
    assert sorted(files) == sorted(path for path in directory.rglob("*") if path.is_file())
    return directory


def cells(table: Table, label: str) -> dict[str, TableCell]:
    """A row by its first cell."""
    row = next(row for row in table.rows if row.cells[0].text == label)
    return dict(zip(table.columns, row.cells, strict=True))


def test_users_are_averaged_over_seeds_and_draws_before_they_are_averaged(found: list[RankerRuns]) -> None:
    prior, trained, model = found
    assert (trained.draws, trained.seeds, trained.resolved) == (2, 2, 16)
    # User 1 of the trained ranker: draw 0 ranks 2 and 6, draw 1 ranks 1 and 1.
    assert trained.users.loc[USERS[0], "NDCG@5"] == pytest.approx((THIRD_OF_LOG / 2 + 1) / 2)
    assert trained.users.loc[USERS[0], "HR@5"] == pytest.approx(0.75)
    assert prior.users["HR@5"].tolist() == [1, 1, 0, 0]
    assert list(model.users.index) == list(USERS[:3])


def test_main_table_by_hand(found: list[RankerRuns]) -> None:
    table = main_table(found, "prior", against(found[0], found))
    assert table.columns[1:5] == ("HR@5/10", "NDCG@5/10", "HR@10/10", "NDCG@10/10")
    prior = cells(table, "prior (reference)")
    assert prior["HR@5/10"].value == pytest.approx(2 / 4)
    assert prior["NDCG@5/10"].value == pytest.approx((1 + 0.5) / 4)
    assert prior["HR@10/10"].text == "1.000"
    assert (prior["users"].text, prior["draws"].text, prior["unresolved"].text) == ("4", "2", "0")
    model = cells(table, "model | one")
    assert model["HR@5/10"].value == pytest.approx(1 / 3)  # ranks 6, 1, 7; the unresolved user is no miss
    assert (model["users"].text, model["unresolved"].text) == ("3", "1")
    assert cells(table, "model | one: prior alone")["HR@5/10"].value == pytest.approx(2 / 3)
    assert cells(table, "model | one: MAR alone")["HR@5/10"].value == pytest.approx(2 / 3)
    chance = table.rows[-1]
    assert chance.kind == "chance"
    assert chance.cells[1].value == pytest.approx(5 / SIZE)
    assert [row.kind for row in table.rows] == ["reference", "", "", "part", "part", "chance"]


def test_differences_use_common_lists_only_and_are_corrected_together(found: list[RankerRuns]) -> None:
    compared = against(found[0], found)
    assert set(compared) == {("trained", ""), ("model | one", ""), ("model | one", "mar")}
    # The model ranked draw 0 of three users: prior hits 1, 1, 0 there, the model 0, 1, 0.
    assert compared["model | one", ""]["HR@5"].mean == pytest.approx(-1 / 3)
    assert compared["model | one", ""]["HR@5"].n == 3
    every = {f"{key}{m}": c.p for key, of in compared.items() for m, c in of.items()}
    expected = holm(every)
    assert len(every) == 12
    assert {f"{key}{m}": c.p_holm for key, of in compared.items() for m, c in of.items()} == pytest.approx(expected)


def test_significant_differences_are_marked() -> None:
    users = tuple(f"user{i}" for i in range(20))
    record = study()
    cases = cases_of(0)
    many = [cases.cases[0].model_copy(update={"user_id": user}) for user in users]
    cases = dataclasses.replace(cases, cases=tuple(many))
    runs = [run(label, {c.user_id: plain(c, rank) for c in many}, cases) for label, rank in (("prior", 9), ("good", 1))]
    protocol = dataclasses.replace(record.protocols[0], cases={0: cases})
    found = ranker_runs(dataclasses.replace(record, runs=runs, protocols=[protocol]), protocol)
    table = main_table(found, "prior", against(found[0], found))
    assert cells(table, "good")["HR@5/10"].mark == BETTER
    assert cells(table, "good")["HR@10/10"].mark == ""  # both hit everybody
    assert "better" in to_csv(table)


def test_pairs_have_their_own_table_and_name_what_did_not_run(record: StudyRecord, found: list[RankerRuns]) -> None:
    compared = pairs(found, record.pairs)
    assert set(compared) == {("trained", "model | one")}
    # Draw 0 of users 1 to 3, the trained ranker's mean over seeds .5, 1, 1, the model's 0, 1, 0.
    assert compared["trained", "model | one"]["HR@5"].mean == pytest.approx((0.5 + 0 + 1) / 3)


def test_unresolved_cases_give_bounds(found: list[RankerRuns]) -> None:
    table = bounds_table(found)
    assert table is not None
    row = cells(table, "model | one")
    assert (row["HR@5/10 at least"].value, row["HR@5/10 at most"].value) == (1 / 4, 2 / 4)
    assert bounds_table(found[:2]) is None


def test_published_rows_are_marked_and_impossible_ones_say_why(record: StudyRecord) -> None:
    table = published_metric_table(record.protocols[0].published)
    ours = next(row for row in table.rows if "M-LLM³REC" in row.cells[0].text)
    assert "as published" in ours.cells[0].text
    assert ours.kind == "impossible"
    assert "(HR@10 - HR@5) * 0.2891 <= NDCG@10 - NDCG@5" in ours.cells[-1].text
    assert any(row.kind == "published" for row in table.rows)


def test_our_own_ranks_are_audited(found: list[RankerRuns]) -> None:
    assert audit_lines(found) == ["Audit of our own ranks: all 7 runs pass."]
    impossible = dataclasses.replace(found[0].runs[0], ranks={USERS[0]: 31})
    lines = audit_lines([RankerRuns("odd", SIZE, found[0].protocol, (impossible,))])
    assert "odd" in lines[0]
    assert pseudonym(USERS[0]) in lines[0]
    assert USERS[0] not in lines[0]


def test_every_case_ends_in_exactly_one_way(found: list[RankerRuns]) -> None:
    row = cells(outcome_table(found), "model | one")
    ends = [row[name].text for name in ("hit@5", "miss@5", "unparsable", "unresolved")]
    assert ends == ["1 (25%)"] * 4
    assert row["unparsable hits"].text == "0"
    answers = answer_table(found)
    assert answers is not None
    row = cells(answers, "model | one")
    assert row["unparsable"].text == "3 (33%)"  # of 3 x 3 calls
    assert row["left out"].text == "6 (2.0 per user)"
    assert row["traits refused"].text == "3 (33%)"
    assert row["motivations refused"].text == "0"
    assert row["unfaithful reasons"].text == "3 (50%)"
    assert answer_table(found[:2]) is None


def test_preference_by_position_is_a_mean_over_users(record: StudyRecord, found: list[RankerRuns]) -> None:
    assert position_table(found) is None
    run = record.runs[-1]
    curves = iter([[2.0, 0.0, -2.0], [1.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    rows = {user: row.model_copy(update={"by_position": next(curves, [])}) for user, row in run.rows.items()}
    table = position_table(
        ranker_runs(dataclasses.replace(record, runs=[dataclasses.replace(run, rows=rows)]), record.protocols[0])
    )
    assert table is not None
    assert [cell.text for cell in table.rows[0].cells[2:]] == ["+1.00", "+0.00", "-1.00", "+1.00", "-1.00"]


def test_an_unknown_price_is_never_zero(found: list[RankerRuns]) -> None:
    rows = {row.cells[1].text: row for row in billed_table(found).rows}
    dollars = list(billed_table(found).columns).index("dollars")
    assert rows["mope"].cells[dollars].text == "$0.0300"
    assert rows["mar"].cells[dollars].text == "unknown"
    assert rows["mar"].cells[dollars].value is None
    assert rows["all roles"].cells[dollars].text == "≥ $0.0300"
    assert per_user_price(found[2]) is None
    alone = stand_alone_table(found)
    mope = next(row for row in alone.rows if row.cells[1].text == "mope")
    assert mope.cells[list(alone.columns).index("dollars per user")].text == "$0.010000"
    assert "no language model" in billed_table(found[:1]).rows[0].cells[0].text


def test_a_price_that_is_partly_unknown_within_a_role_says_so(record: StudyRecord, found: list[RankerRuns]) -> None:
    usage = by_role([call("mar"), call("mar", None), call("mope"), call("mope", None, failed=True, tokens_in=0)])
    partly = dataclasses.replace(record.runs[-1], usage=usage, stand_alone=usage)
    group = RankerRuns("model", SIZE, record.protocols[0], (partly,))
    rows = {row.cells[1].text: row for row in billed_table([group]).rows}
    dollars = list(billed_table([group]).columns).index("dollars")
    assert rows["mar"].cells[dollars].text == "≥ $0.1000"
    assert rows["mope"].cells[dollars].text == "$0.1000", "a failed call has no price"
    assert per_user_price(group) is None


def test_the_price_of_a_plan_is_that_of_all_draws_of_a_user(record: StudyRecord) -> None:
    rows, usage = record.runs[-1].rows, {"mar": Usage(calls=3, usd=0.3)}
    cases = {draw: cases_of(draw) for draw in (0, 1)}
    runs = [run("model", rows, cases[draw], draw, usage=usage, stand_alone=usage) for draw in cases]
    group = RankerRuns("model", SIZE, record.protocols[0], tuple(runs))
    assert (group.resolved, len(group.users)) == (6, 3)
    assert per_user_price(group) == pytest.approx(0.2)


def test_a_model_whose_few_answers_could_not_be_read_is_not_judged(record: StudyRecord) -> None:
    asked, *others = cases_of(0).cases
    rows = {asked.user_id: spoken(asked, 1, 8, 1, Status.UNPARSABLE)}
    rows |= {one.user_id: plain(one, 1).model_copy(update={"asked": False}) for one in others}
    gated = run("gated", rows, cases_of(0))
    assert (gated.asked, gated.unparsable_users, gated.readable) == (1, 1, False)
    answers = answer_table([RankerRuns("gated", SIZE, record.protocols[0], (gated,))])
    assert answers is not None
    assert cells(answers, "gated")["left out"].text == "2 (2.0 per user)"


def test_users_of_a_later_draw_alone_are_drilled_into(record: StudyRecord) -> None:
    first, whole = cases_of(0, USERS[:2]), cases_of(1)
    protocol = dataclasses.replace(record.protocols[0], cases={0: first, 1: whole})
    runs = [
        run(label, {one.user_id: plain(one, 1) for one in cases.cases}, cases, draw)
        for label, cases, draw in (("few", first, 0), ("all", whole, 1))
    ]
    found = ranker_runs(dataclasses.replace(record, protocols=[protocol], runs=runs), protocol)
    data = json.loads(inert_json(drilldown(protocol, found, users_per_run([found]))))
    assert [len(data["users"]), *(one["ranks"] for one in data["runs"])] == [4, "1100", "1111"]


def test_asking_about_some_users_lies_between_the_prior_and_the_model(found: list[RankerRuns]) -> None:
    table = selective_table(found)
    assert table is not None
    model = found[2]
    rows = [row.cells for row in table.rows if row.cells[0].text == model.label]
    assert [row[1].text for row in rows] == ["0%", "25%", "50%", "75%", "100%"]
    assert [row[2].value for row in rows] == sorted(row[2].value or 0 for row in rows)
    both = over_draws(model.part("prior")).index.intersection(model.users.index)
    assert rows[0][3].value == pytest.approx(over_draws(model.part("prior")).loc[both, "HR@5"].mean())
    assert rows[-1][3].value == pytest.approx(model.users.loc[both, "HR@5"].mean())
    assert rows[0][7].value == 0
    assert selective_table(found[:1]) is None, "without a language model nobody is asked"


def test_spread_and_plan(found: list[RankerRuns]) -> None:
    table = variance_table(found)
    assert table is not None
    prior = next(row for row in table.rows if row.cells[0].text == "prior")
    assert prior.cells[list(table.columns).index("seeds")].text == "–"  # one seed: unknown, not 0
    trained = next(row for row in table.rows if row.cells[0].text == "trained")
    assert trained.cells[list(table.columns).index("seeds")].value is not None
    assert variance_table(found[2:]) is None
    plan = planner_table(found, found[0])
    assert plan is not None
    assert cells(plan, "model | one")["price"].text == "unknown"
    assert cells(plan, "trained")["price"].text == "no model calls"


def test_a_difference_that_only_rounding_makes_needs_no_plan(record: StudyRecord) -> None:
    """Hits of three draws: 1/3 - 0 and 1 - 2/3 are equal but for their last digits."""
    users, draws = USERS[:2], (0, 1, 2)
    cases = {draw: cases_of(draw, users) for draw in draws}
    runs = []
    for label, ranks in (("prior", [(9, 1), (9, 1), (9, 9)]), ("other", [(1, 1), (9, 1), (9, 1)])):
        for draw, pair in zip(draws, ranks, strict=True):
            rows = {one.user_id: plain(one, rank) for one, rank in zip(cases[draw].cases, pair, strict=True)}
            runs.append(run(label, rows, cases[draw], draw))
    protocol = dataclasses.replace(record.protocols[0], cases=cases)
    found = ranker_runs(dataclasses.replace(record, protocols=[protocol], runs=runs), protocol)
    plan = planner_table(found, found[0])
    assert plan is not None
    assert cells(plan, "other")["detectable"].text == "–"


def test_slices(record: StudyRecord, found: list[RankerRuns]) -> None:
    assert [length_slice(n) for n in (1, 2, 3, 4, 5, 9, 10, 99)] == ["1", "2", "3–4", "3–4", "5–9", "5–9", "10+", "10+"]
    history, popularity, cold = slicings(record.protocols[0], found)
    assert [(each.name, len(each.users)) for each in history.slices] == [("1", 1), ("2", 1), ("3–4", 1), ("10+", 1)]
    assert history.slices[1].figures["prior"]["NDCG@5"].mean == pytest.approx(0.5)
    assert popularity.slices[0].name == "no training user"
    assert {each.name: len(each.users) for each in cold.slices} == {"cold (no training user)": 1, "warm": 3}
    deciles = Deciles({f"i{n}": n for n in range(1, 101)})
    assert deciles.of("i1") == "decile 1 (1–10 users)"
    assert deciles.of("i100") == "decile 10 (91–100 users)"


def test_slices_have_the_users_of_the_longest_draw(record: StudyRecord, found: list[RankerRuns]) -> None:
    short = dataclasses.replace(record.protocols[0], cases={0: cases_of(0, USERS[:2]), 1: cases_of(1)})
    for slicing in slicings(short, found):
        assert sum(len(each.users) for each in slicing.slices) == len(USERS)


def test_csv_gives_full_figures_and_no_formulas() -> None:
    table = Table("t", "T", "C", ("ranker", "HR@5/30"), (
        TableRow((word_cell("=1+1"), TableCell("0.333", 1 / 3, 0.1, 0.5, BETTER))),
        TableRow((word_cell("-x"), TableCell("–"))),
    ))  # fmt: skip
    lines = list(csv.reader(io.StringIO(to_csv(table))))
    assert lines == [
        ["ranker", "HR@5/30", "HR@5/30 low", "HR@5/30 high", "HR@5/30 mark"],
        ["'=1+1", repr(1 / 3), "0.1", "0.5", "better"],
        ["'-x", "–", "", "", ""],
    ]


def test_markdown_and_latex_escape_names() -> None:
    table = Table(
        "t", "50% & more_", "C", ("a|b", "n"), (TableRow((word_cell("x|y *z* <b> {$}\\#^~"), TableCell("0.500", 0.5))),)
    )
    markdown = to_markdown(table)
    assert r"| a\|b | n |" in markdown
    assert r"x\|y \*z\* &lt;b&gt; {$}\\\#^\~" in markdown
    assert "| --- | ---: |" in markdown
    latex = to_latex(table)
    assert r"50\% \& more\_" in latex
    assert (
        r"x\textbar{}y *z* \textless{}b\textgreater{} \{\$\}\textbackslash{}\#\textasciicircum{}\textasciitilde{}"
        in latex
    )
    assert r"\begin{tabular}{lr}" in latex


@pytest.mark.parametrize("first", ["[", "*"])
def test_latex_reads_no_first_letter_of_a_row_as_a_part_of_its_line_break(first: str) -> None:
    table = Table("t", "T", "C", ("name",), (TableRow((word_cell(f"{first}x"),)),))
    assert f"{{{first}}}x" in to_latex(table)


@pytest.mark.parametrize("user", ["plain", "a'b", 'a"b', "a'b\"c", "back\\slash'"])
def test_no_letter_of_a_user_id_stays_in_a_message(user: str) -> None:
    assert re.fullmatch(r"rank of user u-[0-9a-f]{10} <= 30", without_ids(f"rank of user {quoted(user)} <= 30"))
    if user == "plain":
        assert without_ids("user 'plain'") == f"user {pseudonym('plain')}"


def test_inert_json_cannot_leave_its_element() -> None:
    text = inert_json({"title": f"{SCRIPT}\u2028&"})
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text) == {"title": f"{SCRIPT}\u2028&"}
    with pytest.raises(ValueError, match="JSON"):
        inert_json(float("nan"))


def test_page_loads_nothing_and_runs_nothing_but_its_own(written: Path) -> None:
    text = (written / "report.html").read_text("utf-8")
    assert_self_contained(text)
    assert "alert(1)" not in re.sub(r"\\u003cscript\\u003ealert|&gt;alert", "", text)


def test_users_are_pseudonyms_in_every_file(written: Path) -> None:
    for path in written.rglob("*.*"):
        assert "AREVIEWER" not in path.read_text("utf-8"), path.name
    text = (written / "report.html").read_text("utf-8")
    assert all(pseudonym(user) in text for user in USERS)


def test_drilldown_is_compact_and_whole(record: StudyRecord, found: list[RankerRuns]) -> None:
    data = json.loads(inert_json(drilldown(record.protocols[0], found, users_per_run([found]))))
    assert data["users"] == [pseudonym(user) for user in USERS]
    prior, _, model = data["runs"]
    assert prior["ranks"] == "137A"
    assert model["ranks"] == "6170"
    assert model["unparsable"] == [2]
    row = model["rows"]["0"]
    assert [row["order"].index(data["lists"]["0"]["0"]["target"]) + 1, row["appended"]] == [6, 2]
    assert row["profile"][0][3] == [1]
    assert model["traits"][row["traits"][1]] == ["teaches", f"fun {SCRIPT}"]
    assert len(data["lists"]["0"]["3"]["history"]) == 12
    assert data["lists"]["0"]["3"]["unshown"] == 2  # a model is shown the last ten
    assert "3" not in model["rows"]


def test_whom_a_ranker_was_not_to_rank_is_not_unresolved(record: StudyRecord) -> None:
    protocol = record.protocols[0]
    limited = dataclasses.replace(record.runs[-1], unresolved=0)
    found = ranker_runs(dataclasses.replace(record, runs=[limited]), protocol)
    data = json.loads(inert_json(drilldown(protocol, found, users_per_run([found]))))
    assert [each["asked"] for each in data["runs"]] == [3]


def test_a_ranker_whose_answers_could_not_be_read_is_marked_and_has_no_figures_of_mar(record: StudyRecord) -> None:
    *others, asking = record.runs
    rows = {user: row.model_copy(update={"status": Status.UNPARSABLE}) for user, row in asking.rows.items()}
    unread = dataclasses.replace(record, runs=[*others, dataclasses.replace(asking, rows=rows)])
    groups = ranker_runs(unread, unread.protocols[0])
    table = main_table(groups, "prior", against(groups[0], groups))
    labels = [row.cells[0].text for row in table.rows]
    assert [label for label in labels if label.startswith("model")] == [
        "model | one (answers unparsable)",
        "model | one: prior alone",
    ]


def test_reasons_nobody_checked_are_no_faithful_ones(record: StudyRecord) -> None:
    run = record.runs[-1]
    unchecked = Rationale(item_id="item1", text="so", verdict=Verdict(faithful=True, why="not checked"))
    rows = {user: row.model_copy(update={"rationales": [unchecked]}) for user, row in run.rows.items()}
    found = ranker_runs(dataclasses.replace(record, runs=[dataclasses.replace(run, rows=rows)]), record.protocols[0])
    table = answer_table(found)
    assert table is not None
    assert table.rows[0].cells[-1].text == "–"


def test_a_caller_may_add_tabs(record: StudyRecord, tmp_path: Path) -> None:
    table = Table("extra", "Extra", "Something else.", ("what",), (TableRow((word_cell("<i>this</i>"),)),))
    write_report(record, tmp_path, [Tab("mixes", "Mixes & more", [table, Figure("Plot", go.Figure())])])
    text = (tmp_path / "report.html").read_text("utf-8")
    assert text.index('data-tab="mixes"') < text.index('data-tab="overview"')
    assert 'aria-label="Mixes &amp; more"' in text
    assert "&lt;i&gt;this&lt;/i&gt;" in text
    assert (tmp_path / "tables" / "mixes-extra.csv").exists()


def test_many_runs_share_the_room(found: list[RankerRuns]) -> None:
    assert users_per_run([found]) == (150, 60)
    lm, other = users_per_run([found] * 100)
    assert 1 <= other < lm < 150


def test_every_table_is_written_three_times(written: Path) -> None:
    names = {path.stem for path in (written / "tables").iterdir()}
    assert {"shop-warm-main", "shop-warm-differences", "shop-warm-published", "study-summary", "study-missing"} <= names
    assert {"shop-warm-pairs", "shop-warm-tuned-trained", "shop-warm-protocol", "study-runs"} <= names
    assert all((written / "tables" / f"{name}.{kind}").exists() for name in names for kind in ("csv", "md", "tex"))
    assert "no list in common" in (written / "tables" / "shop-warm-pairs.md").read_text("utf-8")


def test_a_report_is_the_same_twice(record: StudyRecord, written: Path, tmp_path: Path) -> None:
    again = write_report(record, tmp_path)
    assert all(path.read_bytes() == (written / path.relative_to(tmp_path)).read_bytes() for path in again)


def test_tables_that_are_no_longer_in_the_report_are_removed(record: StudyRecord, tmp_path: Path) -> None:
    tables, mine = tmp_path / "tables", tmp_path / "mine.csv"
    tables.mkdir()
    mine.write_text("mine")
    (tables / "linked.csv").symlink_to(mine)
    (tables / "folder.csv").mkdir()
    for name in ("shop-cold-main.csv", "shop-cold-main.md", "shop-cold-main.tex", "notes.txt"):
        (tables / name).write_text("from an earlier report")
    written = write_report(record, tmp_path)
    left = {path.name for path in tables.iterdir()} - {path.name for path in written}
    assert left == {"linked.csv", "folder.csv", "notes.txt"}
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("linked", ["report", "report/tables"])
def test_nothing_is_written_through_a_linked_folder(record: StudyRecord, tmp_path: Path, linked: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / linked).parent.mkdir(exist_ok=True)
    (tmp_path / linked).symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match="is a symbolic link"):
        write_report(record, tmp_path / "report")
    assert not list((tmp_path / "mine").iterdir())


def test_runs_that_do_not_fit_are_refused(record: StudyRecord, tmp_path: Path) -> None:
    nothing = [dataclasses.replace(each, ranks={}, rows={}, unresolved=4) for each in record.runs]
    with pytest.raises(InputError, match=r"no run has a ranked user.*shop/warm/absent"):
        write_report(dataclasses.replace(record, runs=nothing), tmp_path)
    with pytest.raises(InputError, match="nothing to report"):
        write_report(StudyRecord("empty", "", "prior", [], []), tmp_path)
    longer = [*record.runs, dataclasses.replace(record.runs[0], ranker="other", list_size=100)]
    with pytest.raises(InputError, match="lists of 100 items, but other runs have 10"):
        write_report(dataclasses.replace(record, runs=longer), tmp_path)
    with pytest.raises(InputError, match="the same draw and seed"):
        write_report(dataclasses.replace(record, runs=[*record.runs, record.runs[0]]), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_ranker_nobody_resolved_and_a_missing_reference_are_said(record: StudyRecord, tmp_path: Path) -> None:
    failed = dataclasses.replace(record.runs[0], ranker="dead", ranks={}, rows={}, unresolved=4)
    write_report(dataclasses.replace(record, runs=[*record.runs, failed], reference="nobody"), tmp_path)
    main = (tmp_path / "tables" / "shop-warm-main.md").read_text("utf-8")
    assert "| dead | – | – | – | – | 0 | – | – | 4 |" in main
    assert not (tmp_path / "tables" / "shop-warm-differences.csv").exists()
    assert "nobody, did not run here" in (tmp_path / "report.html").read_text("utf-8")


def test_a_user_of_several_protocols_counts_once(record: StudyRecord, tmp_path: Path) -> None:
    cases = cases_of(0, USERS[:2])
    cold = [
        run("prior", {case.user_id: plain(case, rank) for case, rank in zip(cases, (1, 3), strict=True)}, cases),
        run("trained", {case.user_id: plain(case, 9, "trained") for case in cases}, cases),
    ]
    runs = [*record.runs, *(dataclasses.replace(each, protocol="cold") for each in cold)]
    protocols = [*record.protocols, dataclasses.replace(record.protocols[0], name="cold", cases={0: cases})]
    both = dataclasses.replace(record, runs=runs, protocols=protocols, together=[("warm", "cold"), ("warm", "absent")])
    write_report(both, tmp_path)
    rows = list(csv.reader((tmp_path / "tables" / "study-together-shop-warm-cold.csv").read_text("utf-8").splitlines()))
    assert len(rows) == 2, "the model did not rank cold users"
    row = dict(zip(*rows, strict=True))
    assert (row["ranker"], row["users"]) == ("trained", "4")
    # HR@5 of warm users: prior 1, 1, 0, 0, trained .75, 1, 1, .75; of both cold users 1 and 0.
    of_each = [(-0.25 - 1) / 2, (0 - 1) / 2, 1, 0.75]
    assert float(row["HR@5/10"]) == pytest.approx(sum(of_each) / 4)
    assert [path.name for path in (tmp_path / "tables").glob("*together*.md")] == ["study-together-shop-warm-cold.md"]


def test_ranks_without_rows_are_reported(record: StudyRecord, tmp_path: Path) -> None:
    """Full-catalogue ranking keeps nothing but ranks, and its lists are long."""
    ranks = dict(zip(USERS, (1, 4, 900, 4000), strict=True))
    runs = [
        dataclasses.replace(record.runs[0], ranks=ranks, rows={}, list_size=5000, ranker=name)
        for name in ("prior", "b")
    ]
    write_report(dataclasses.replace(record, runs=runs), tmp_path)
    assert "HR@5/5000" in (tmp_path / "tables" / "shop-warm-main.csv").read_text("utf-8")
