"""The guard against instructions that copy training text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluate.data.load import load_dataset
from optimize.compiler import POOLS
from optimize.copied_text import CopyGuard
from tests.support.backends import roles_on
from tests.support.cases import cases_file
from tests.support.compile_setup import compiler, sensitive
from tests.support.fake_server import Body, FakeOpenAI, Reply


@pytest.mark.parametrize(
    ("text", "copied"),
    [
        ("Say what drives this shopper.", None),
        ("For lovers of a Steel, Camping MUG.", "steel camping mug"),
        ("Prefer what holds warm tea for a long day.", "holds warm tea for a"),
        ("Answer with general words for each motivation.", None),
    ],
)
def test_titles_and_runs_of_an_example_are_found(text: str, copied: str | None) -> None:
    guard = CopyGuard(["steel camping mug", "Mug"], ["general words for each motivation"])
    shown = ["It holds warm tea for a day.", "use general words for each motivation"]
    assert guard.copied(text, shown) == copied


@pytest.mark.parametrize("optimizer", ["study", "mipro", "gepa"])
def test_a_proposal_with_a_dev_users_product_is_refused_and_said(tmp_path: Path, optimizer: str) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    target = cases.cases[0].target or ""
    title = load_dataset("demo").items[target].title

    def respond(body: Body) -> Reply:
        if body["model"] != "P":
            return sensitive(body)
        text = f"Say what drives this shopper, and rank {title} above everything else that there is."
        return Reply(json.dumps({"proposed_instruction": text, "new_instruction": text, "adjusted": text}))

    with FakeOpenAI(respond) as server:
        proposer = roles_on(server).with_models(mar=server.model("P")).mar
        made = compiler(
            tmp_path / "art", cases, roles_on(server), optimizer=optimizer, trials=4, proposer=proposer, finalists=1
        )
        made.run()
    assert made.proposer.refused
    assert any("copy training text" in step and title.lower()[:10] in step.lower() for step in made.watcher.steps)
    written = [path.read_text("utf-8") for path in (tmp_path / "art").rglob("*.txt")]
    written += [path.read_text("utf-8") for path in (tmp_path / "art" / "search").glob(POOLS)]
    assert written
    assert not any(f"rank {title} above" in text for text in written)
