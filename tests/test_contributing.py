"""The examples of CONTRIBUTING.md, as they stand there: a ranker, a loader, an aligner."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

from evaluate.baselines import TrainingData
from programs import mar, program
from signatures.rows import Case
from signatures.types import Interaction
from tests.support.cases import training_of
from tests.support.paths import ROOT

GUIDE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def example(title: str) -> str:
    """The first Python block of a section."""
    section = GUIDE.split(f"## Add {title}\n")[1].split("\n## ")[0]
    found = re.search(r"^ *```python\n(.*?)^ *```$", section, re.MULTILINE | re.DOTALL)
    assert found
    return dedent(found[1])


@pytest.fixture
def module(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module of its own."""
    path = tmp_path / "from_the_guide.py"
    path.write_text(example(request.param), "utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, made)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize("module", ["a ranker"], indirect=True)
def test_ranker(module: ModuleType) -> None:
    material = TrainingData(training_of({"u": ("a", "b", "c"), "v": ("a", "b"), "w": ("c", "a")}), {})
    asked = Case(user_id="x", history=(Interaction(item_id="a"),), candidates=("c", "new", "b"))
    ranking = module.Markov().fit(material, seed=0).rank(asked)
    assert ranking.order == ("b", "c", "new")
    assert ranking.scores["markov"] == pytest.approx([0.02, 0, 2.02])


@pytest.mark.parametrize("module", ["a dataset loader"], indirect=True)
def test_loader(module: ModuleType, tmp_path: Path) -> None:
    assert module.find_tabs(tmp_path) is None
    (tmp_path / "purchases.tsv").write_text("u\tb\t2\nu\ta\t1\n")
    (tmp_path / "titles.tsv").write_text("a\tRed ball\nb\tDoll\n")
    dataset = module.load_tabs(module.find_tabs(tmp_path))
    assert [event.item_id for event in dataset.sequences["u"]] == ["a", "b"]
    assert dataset.items["a"].title == "Red ball"
    (tmp_path / "purchases.tsv").write_text("u\tb\t2\nu\ta\n")
    with pytest.raises(ValueError, match=r"purchases.tsv, line 2: 2 columns; expected user, item, time"):
        module.load_tabs(tmp_path)


def test_aligner() -> None:
    names = dict(vars(mar))
    exec(example("an aligner"), names)  # noqa: S102 - our own guide
    shown = [mar.Candidate("a", "red wooden ball"), mar.Candidate("b", "doll")]
    found = names["WordOverlap"]()(user=mar.UserView("a red ball"), candidates=shown, seed=0)
    assert [one.score for one in found.alignments] == pytest.approx([2 / 3, 0])


def test_what_the_guide_changes_is_where_it_says() -> None:
    named = {path for path in re.findall(r"`([\w/.]+\.(?:py|toml|md))`", GUIDE) if "/" in path}
    missing = [path for path in named if not (ROOT / path).exists()]
    new = ["evaluate/baselines/systems/markov.py", "evaluate/data/loaders/tabs.py", "tests/evaluate/data/test_tabs.py"]
    assert sorted(missing) == new
    assert callable(program._compose) and {"pointwise", "embedding"} <= set(program.PROGRAMS)
