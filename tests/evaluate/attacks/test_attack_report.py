"""The files of an attack run: figures, rows, and the page with its tab."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from evaluate.attacks.attack import Attack, Insertion
from evaluate.attacks.attack_report import row_table, write_attack_report
from evaluate.attacks.attack_tab import attack_tab, with_escapes
from evaluate.attacks.results import AttackResults
from evaluate.attacks.runner import CLEAN_PHASE, AttackRun, AttackRunner, phase_of
from evaluate.report.export import to_csv
from evaluate.report.pseudonyms import pseudonym
from evaluate.report.table import Table
from evaluate.runs.directory import RunDirectory
from programs.lm.ledger import Call
from tests.support.attacks import HIDDEN, OPEN, deaf, obeying, shop_cases
from tests.support.small_study import SCRIPT

HOSTILE = Attack("hostile", "delimiter", title=Insertion(before=f"{SCRIPT}\u202e\u200b "))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[AttackRunner, AttackRun, list[Path]]:
    """A run with two rankers and three attacks, written."""
    folder = tmp_path_factory.mktemp("attacks")
    runner = AttackRunner(shop_cases(), [obeying([]), deaf([])], (OPEN, HIDDEN, HOSTILE), folder)
    run = runner.run()
    return runner, run, write_attack_report(runner, run, "mllm3rec attack cases.jsonl")


def test_figures_and_rows_are_files(made: tuple[AttackRunner, AttackRun, list[Path]]) -> None:
    runner, run, written = made
    assert all(path.exists() for path in written)
    stored = AttackResults.model_validate_json((runner.directory / "metrics.json").read_bytes())
    assert stored == run.results
    rows = pd.read_csv(runner.directory / "rows.csv")
    assert len(rows) == 2 * 3 * 4 == len(run.observations)
    gains = rows[(rows["ranker"] == "obeying") & (rows["attack"] == "open")]
    effect = next(one for one in run.results.by_attack if (one.ranker, one.attack) == ("obeying", "open"))
    assert (gains["clean"] - gains["attacked"]).mean() == effect.gain.mean


def test_rows_are_safe_in_a_spreadsheet(made: tuple[AttackRunner, AttackRun, list[Path]]) -> None:
    _, run, _ = made
    row = run.observations[0].model_copy(update={"item_id": "=HYPERLINK(1)", "traits": ("@sum", "a\u202eb")})
    header, line = to_csv(row_table([row])).splitlines()
    assert header.split(",")[:5] == ["ranker", "kind", "attack", "user_id", "item_id"]
    assert ",'=HYPERLINK(1)," in line
    assert line.endswith(",no,'@sum; a\\u202eb")


def test_the_page_has_the_attacks_first_and_clean_accuracy_behind(
    made: tuple[AttackRunner, AttackRun, list[Path]],
) -> None:
    runner, run, written = made
    page = written[0].read_text("utf-8")
    assert page.index('id="to-attacks"') < page.index('id="to-overview"')
    assert run.results.goal in page
    assert SCRIPT not in page, "texts of attacks stay text"
    assert "\u202e" not in page and "\u200b" not in page, "what cannot be seen is written as an escape"
    assert "mllm3rec attack cases.jsonl" in page
    assert not any(f">{case.user_id}<" in page for case in runner.chosen), "users have pseudonyms"
    assert any(pseudonym(case.user_id) in page for case in runner.chosen)
    tables = {path.name for path in written}
    assert {"attacks-overall.csv", "attacks-kinds-obeying.csv", "attacks-attacks-deaf.md"} <= tables


def test_the_tab_shows_what_is_missing(made: tuple[AttackRunner, AttackRun, list[Path]]) -> None:
    _, run, _ = made
    blocks = attack_tab(run.results, run.observations, [OPEN], ["deaf: 3 rankings are missing."]).blocks
    assert [block.kind for block in blocks][:3] == ["lead", "notice", "table"]
    overall = blocks[2]
    assert isinstance(overall, Table)
    assert [row.cells[0].text for row in overall.rows] == ["obeying", "deaf"]
    assert [cell.text for cell in overall.rows[1].cells[2:4]] == ["+0.000", "+0.000"]


def test_inwith_escapes_characters_are_written_out() -> None:
    assert with_escapes("a\u200bb\u202ec\n") == "a\\u200bb\\u202ec↵"
    assert with_escapes("第") == "第"
    assert with_escapes("x" * 1000).endswith("x ... (1,000 characters)")


def test_nan_never_reaches_the_figures(made: tuple[AttackRunner, AttackRun, list[Path]]) -> None:
    runner, _, _ = made
    json.loads((runner.directory / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def test_calls_that_a_kill_interrupted_are_no_part_of_the_stand_alone_cost(tmp_path: Path) -> None:
    runner = AttackRunner(shop_cases(), [deaf([])], (OPEN,), tmp_path)
    run = runner.run()
    answered = Call(role="mar", model="m", tokens_in=100, tokens_out=10, usd=0.5, phase=phase_of("deaf", CLEAN_PHASE))
    interrupted = answered.model_copy(update={"in_flight": True, "id": "killed-1"})
    lines = [call.model_dump_json(exclude_defaults=True) + "\n" for call in (interrupted, answered)]
    RunDirectory(tmp_path).ledger.write_text("".join(lines))
    tables = {path.name: path for path in write_attack_report(runner, run)}
    for table, calls in (("billed", 2), ("stand-alone", 1)):
        assert pd.read_csv(tables[f"demo-cases-{table}.csv"])["calls"].tolist() == [calls], table
