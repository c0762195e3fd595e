"""The public Python API: what a recommender engineer writes first, run as written, without a console."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from dspy.utils import DummyLM

import mllm3rec as m3
from mllm3rec.api.options import options_for
from mllm3rec.serve.batched_retrieval import BatchedRetriever
from programs.lm.model_options import ModelOptions
from programs.prior.past_sales import newest_date
from programs.prior.retrieval import Retriever
from programs.prior.scorers import scores_of
from programs.runtime.greenlets import in_greenlet
from signatures.rows import Case
from tests.support.compile_setup import sensitive
from tests.support.fake_server import FakeOpenAI, Reply
from tests.support.paths import ROOT
from tests.support.schemas import FILMS


@pytest.fixture(scope="module")
def data() -> m3.Dataset:
    return m3.load_dataset("demo")


@pytest.fixture(scope="module")
def cases(data: m3.Dataset) -> m3.Cases:
    return m3.draw_cases(data, part="test", users=6, negatives=9, seed=0)


def lm_on(server: FakeOpenAI, **settings: Any) -> dspy.LM:
    """A `dspy.LM` object on the fake server."""
    return dspy.LM("openai/fake", api_base=server.url, api_key="secret-key", temperature=0.0, **settings)


def first_of(retriever: Retriever, history: Sequence[str], moment: int | None) -> tuple[str, ...]:
    """Five items for one user."""
    return next(retriever.first([history], 5, [moment]))


class TestLazy:
    def test_importing_costs_nothing_until_something_is_used(self) -> None:
        script = "import sys, mllm3rec; print(sorted({'dspy', 'pandas', 'pydantic', 'typer'} & set(sys.modules)))"
        said = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
        assert said.stdout.strip() == "[]"

    def test_every_name_is_there_and_documented(self) -> None:
        for name in m3.__all__:
            assert getattr(m3, name) is not None, name
        assert m3.__version__
        assert {"evaluate", "compile_program", "InputError", "MOPE"} <= set(dir(m3))

    def test_a_wrong_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="'mllm3rec' has no attribute 'evalute'"):
            m3.evalute  # noqa: B018 - the look is the test


class TestData:
    INTERACTIONS = pd.DataFrame(
        {
            "userId": [1, 1, 1, 2, 2, 2],
            "movieId": [10, 11, 12, 11, 12, 13],
            "overall": [5.0, 4.0, 3.0, 5.0, 5.0, 4.0],
            "date": pd.to_datetime(["2026-01-01", "2026-01-03", "2026-01-02"] * 2),
        }
    )
    MOVIES = pd.DataFrame({"movieId": [10, 11, 12, 13], "name": ["A", "B", "C", "D"], "genres": ["x|y", "y", "x", "z"]})

    def test_usual_column_names_are_recognized_and_dates_order_the_history(self) -> None:
        data = m3.Dataset.from_frames(self.INTERACTIONS, self.MOVIES, name="films")
        assert data.histories == {"1": ("10", "12", "11"), "2": ("11", "13", "12")}
        assert data.items["10"].title == "A"
        assert data.items["10"].categories == (("x",), ("y",))
        assert data.sequences["1"][0].timestamp == 1767225600

    @pytest.mark.parametrize("kind", ["pandas", "arrow"])
    def test_frames_of_every_kind_give_the_same_data(self, kind: str) -> None:
        wrap = {"pandas": lambda frame: frame, "arrow": pa.Table.from_pandas}[kind]
        data = m3.Dataset.from_frames(wrap(self.INTERACTIONS), wrap(self.MOVIES))
        assert data.sha256 == m3.Dataset.from_frames(self.INTERACTIONS, self.MOVIES).sha256

    def test_polars_frames(self) -> None:
        polars = pytest.importorskip("polars")
        data = m3.Dataset.from_frames(polars.from_pandas(self.INTERACTIONS), polars.from_pandas(self.MOVIES))
        assert data.sha256 == m3.Dataset.from_frames(self.INTERACTIONS, self.MOVIES).sha256

    def test_other_names_are_mapped_and_a_missing_column_is_named(self) -> None:
        odd = self.INTERACTIONS.rename(columns={"userId": "who", "movieId": "what"})
        with pytest.raises(m3.InputError, match="no column 'user_id' and 'item_id' among who, what, overall, date"):
            m3.Dataset.from_frames(odd)
        data = m3.Dataset.from_frames(odd, columns={"user_id": "who", "item_id": "what"})
        assert len(data.sequences) == 2
        with pytest.raises(m3.InputError, match="'cost' is not one of our columns"):
            m3.Dataset.from_frames(odd, columns={"cost": "what"})

    def test_a_mistyped_column_is_named_and_unused_ones_are_noted(self) -> None:
        odd = self.INTERACTIONS.rename(columns={"date": "moment"})
        with pytest.raises(m3.InputError, match="columns: no frame has a column 'mment' to read as timestamp; there"):
            m3.Dataset.from_frames(odd, self.MOVIES, columns={"timestamp": "mment"})
        assert "Fields of interactions that are not used: moment." in m3.Dataset.from_frames(odd, self.MOVIES).notes

    def test_a_wrong_value_is_named_with_its_row(self) -> None:
        with pytest.raises(m3.InputError, match="interactions, row 2: field 'rating': 9 is not between 0 and 5"):
            m3.Dataset.from_frames(self.INTERACTIONS.assign(overall=[5, 9, 1, 1, 1, 1]))
        with pytest.raises(m3.InputError, match="a dict is not a data frame"):
            m3.Dataset.from_frames({"user_id": [1]})

    def test_users_with_metadata_and_no_items(self) -> None:
        users = pd.DataFrame({"userId": [1, 2], "age": [34.0, None], "region": ["north", "south"]})
        data = m3.Dataset.from_frames(self.INTERACTIONS, users=users)
        assert data.metadata == {"1": {"age": "34", "region": "north"}, "2": {"region": "south"}}
        assert any("item ids stand in" in note for note in data.notes)

    def test_a_given_column_of_users_is_not_overwritten(self, tmp_path: Path) -> None:
        users = pd.DataFrame({"user_id": [71, 72], "who": [1, 2], "age": [34, 50]})
        bought = self.INTERACTIONS.rename(columns={"userId": "who"})
        data = m3.Dataset.from_frames(bought, self.MOVIES, users, columns={"user_id": "who"})
        assert data.metadata == {"1": {"age": "34"}, "2": {"age": "50"}}
        assert "Fields of users that are not used: user_id." in data.notes
        for name, frame in (("interactions", bought), ("items", self.MOVIES), ("users", users)):
            frame.to_csv(tmp_path / f"{name}.csv", index=False)
        assert m3.load_dataset(tmp_path, columns={"user_id": "who"}).metadata == data.metadata

    def test_paths_of_categories_in_a_frame_from_parquet(self, tmp_path: Path) -> None:
        paths = [[["x", "y"], ["z"]], [["x"]], [], [["z"]]]
        self.MOVIES.drop(columns="genres").assign(genres=paths).to_parquet(tmp_path / "movies.parquet")
        data = m3.Dataset.from_frames(self.INTERACTIONS, pd.read_parquet(tmp_path / "movies.parquet"))
        assert data.items["10"].categories == (("x", "y"), ("z",))
        assert data.items["12"].categories == ()

    def test_cases_are_saved_loaded_and_stay_with_their_data(self, tmp_path: Path) -> None:
        data = m3.Dataset.from_frames(self.INTERACTIONS, self.MOVIES)
        cases = m3.draw_cases(data, part="all", negatives=1)
        path = cases.save(tmp_path / "cases.jsonl")
        loaded = m3.load_cases(path, data)
        assert (len(loaded), loaded.sha256, loaded[0], list(loaded)) == (2, cases.sha256, cases[0], list(cases))
        with pytest.raises(m3.InputError, match="built in memory"):
            _ = m3.load_cases(path).dataset
        assert cases.to_frame().columns.tolist() == ["user_id", "history", "candidates", "target"]
        with pytest.raises(m3.InputError, match="no protocol field 'negative'"):
            m3.draw_cases(data, negative=3)


class TestEvaluate:
    def test_by_name(self, cases: m3.Cases) -> None:
        result = m3.evaluate(cases, "prior")
        found = result.metrics["HR@5"]
        assert found == result.metrics["HR@5/10"]
        assert 0 <= found.low <= found.mean <= found.high <= 1
        assert len(result.per_user) == len(cases) == result.figures.users
        assert result.per_user["HR@5"].mean() == pytest.approx(found.mean)
        assert set(result.components) == {"popularity", "walk", "via", "content", "prior"}
        assert result.directory is None
        assert result.complete and "prior" in str(result)
        assert result.to_frame().loc["prior", "HR@5/10 mean"] == found.mean
        with pytest.raises(KeyError, match="HR@7"):
            _ = result.metrics["HR@7"]

    def test_lists_that_give_targets_away_are_warned_about_for_own_rankers_too(self, data: m3.Dataset) -> None:
        cold = m3.draw_cases(data, setting="item-cold", sampling="uniform", users=6, negatives=9)
        said: list[m3.Event] = []
        m3.evaluate(cold, lambda history, candidates: [0.0] * len(candidates), on_event=said.append)
        assert any("warning: " in str(event) for event in said)

    def test_a_run_does_not_go_on_over_other_data_with_the_same_lists(self, data: m3.Dataset, tmp_path: Path) -> None:
        item_id, item = next(iter(data.items.items()))
        changed = replace(data, items=data.items | {item_id: item.model_copy(update={"title": "Another title"})})
        lists = [m3.draw_cases(one, users=3, negatives=9) for one in (data, changed)]
        assert lists[0].sha256 == lists[1].sha256 and data.sha256 != changed.sha256
        m3.evaluate(lists[0], "popularity", out=tmp_path / "run")
        with pytest.raises(m3.InputError, match=f'holds another run: dataset_sha256 is "{data.sha256}'):
            m3.evaluate(lists[1], "popularity", out=tmp_path / "run")

    def test_a_schema_of_ones_own_on_the_demo_store_has_no_planted_motivations(self, cases: m3.Cases) -> None:
        assert m3.evaluate(cases, "encoder", schema=FILMS).figures.users == len(cases)

    def test_a_function_an_object_and_a_difference(self, cases: m3.Cases, tmp_path: Path) -> None:
        class Last:
            """Ranks the candidates backwards."""

            name = "backwards"

            def rank(self, case: m3.Case) -> m3.Ranking:
                assert case.target is None
                return m3.Ranking(user_id=case.user_id, order=case.candidates[::-1])

        def by_id(history: Sequence[str], candidates: Sequence[str]) -> list[float]:
            return [float(item[1:]) for item in candidates]

        prior = m3.evaluate(cases, "prior", out=tmp_path / "prior")
        own = m3.evaluate(cases, by_id, against=prior)
        assert own.ranker == "by_id"
        assert own.against["HR@5/10"].mean == pytest.approx(own.metrics["HR@5"].mean - prior.metrics["HR@5"].mean)
        assert m3.evaluate(cases, by_id, against=tmp_path / "prior").against == own.against
        assert m3.evaluate(cases, Last()).ranker == "backwards"
        assert m3.evaluate(cases, lambda history, candidates: [0] * len(candidates)).ranker == "own"

    def test_a_run_of_another_function_is_refused(self, cases: m3.Cases, tmp_path: Path) -> None:
        """Both are called `own`: a notebook's cell was changed and run again."""
        first = m3.evaluate(cases, lambda history, candidates: list(range(len(candidates))), out=tmp_path)
        again = m3.evaluate(cases, lambda history, candidates: list(range(len(candidates))), out=tmp_path)
        assert again.rows == first.rows
        with pytest.raises(m3.InputError, match=r"another function, or of one whose scores vary.*choose another out"):
            m3.evaluate(cases, lambda history, candidates: [-n for n in range(len(candidates))], out=tmp_path)

    @pytest.mark.parametrize(
        ("scores", "message"),
        [
            ([1.0], "shape"),
            (["a"] * 10, "list for user .* instead of scores"),
            ([float("nan")] * 10, "not finite"),
            (None, "shape|scores"),
        ],
    )
    def test_a_function_that_gives_no_scores_is_named(self, cases: m3.Cases, scores: Any, message: str) -> None:
        with pytest.raises(m3.InputError, match=message):
            m3.evaluate(cases, lambda history, candidates: scores, name="mine")

    def test_a_typo_is_answered_with_a_suggestion(self, cases: m3.Cases) -> None:
        with pytest.raises(m3.InputError, match="no ranker 'piror': did you mean 'prior'"):
            m3.evaluate(cases, "piror")
        with pytest.raises(m3.InputError, match="type int is not a ranker"):
            m3.evaluate(cases, 7)

    def test_a_program_is_evaluated_on_what_may_be_learned_resumed_and_within_its_budget(
        self, data: m3.Dataset, cases: m3.Cases, server: FakeOpenAI, tmp_path: Path
    ) -> None:
        program = m3.program("listwise", data, model=server.model())
        prior = m3.evaluate(cases, "prior")
        first = m3.evaluate(cases, program, against=prior, max_calls=40, out=tmp_path / "run")
        assert not first.complete and "budget of 40 calls" in str(first.status.stopped)
        events: list[m3.Event] = []
        whole = m3.evaluate(cases, program, against=prior, out=tmp_path / "run", on_event=events.append)
        assert whole.complete and whole.directory == tmp_path / "run"
        assert whole.usage.calls == len(server.bodies)
        assert any(isinstance(event, m3.Note) and event.text.startswith("resuming") for event in events)
        last = [event for event in events if isinstance(event, m3.Progress)][-1]
        assert (last.done, last.total) == (len(cases), len(cases)) and last.usage is not None
        # Its prior alone is the prior fitted on what may be learned, not on everything.
        assert whole.components["prior"]["HR@5"] == prior.metrics["HR@5"]
        assert set(whole.against) == {"HR@5/10", "NDCG@5/10", "HR@10/10", "NDCG@10/10"}
        assert whole.against["HR@5"] == whole.against["HR@5/10"] == whole.minus(prior)["HR@5"]

    def test_other_cases_are_not_compared_and_nobody_is_asked(
        self, data: m3.Dataset, cases: m3.Cases, server: FakeOpenAI, tmp_path: Path
    ) -> None:
        theirs = m3.draw_cases(data, part="test", users=4, negatives=9, seed=1)
        other = m3.evaluate(theirs, "prior", out=tmp_path / "other")
        program = m3.program("listwise", data, model=server.model())
        for against in (other, tmp_path / "other"):
            with pytest.raises(m3.InputError, match="ranked other cases"):
                m3.evaluate(cases, program, against=against)
        with pytest.raises(m3.InputError, match="not a run directory"):
            m3.evaluate(cases, program, against=tmp_path / "nothing")
        assert not server.bodies


class TestProgram:
    def test_profile_traits_and_recommendations(self, data: m3.Dataset, server: FakeOpenAI) -> None:
        program = m3.program("listwise", data, model=server.model(), mope=None, mote=None, mar=None, schema=None)
        profile = program.profile(history=["D001", "D014"])
        assert profile.motivations and profile.motivations[0].dimension in m3.CONSUMER.names
        assert program.profile(user="S0001") != profile
        assert program.traits("D001").phrases
        top = program.recommend(history=["D001", "D014"], k=5)
        assert len(top) == 5 == len({item.item_id for item in top})
        assert not {"D001", "D014"} & {item.item_id for item in top}
        assert all(item.reason for item in top) and top.profile is not None
        assert top.usage.calls > 5 and program.ledger.total().calls == len(server.bodies)
        frame = top.to_frame()
        assert frame.index.tolist() == [1, 2, 3, 4, 5] and frame["score"].is_monotonic_decreasing
        # The fake gives one reason to all: that is noticed.
        assert all("same reason" in item.warning for item in top)
        assert len(program.recommend(user="S0001", k=2, explain=False)) == 2

    def test_a_given_profile_takes_the_place_of_mope(self, data: m3.Dataset, server: FakeOpenAI) -> None:
        program = m3.program("listwise", data, model=server.model())
        known = m3.Motivation(dimension="value", description="saves on everything", strength="strong", evidence=(1,))
        top = program.recommend(user="S0001", k=2, explain=False, profile=m3.Profile(motivations=(known,)))
        assert top.profile == m3.Profile(motivations=(known,))
        asked = [str(body["messages"]) for body in server.bodies]
        assert not any("`motivations`" in text for text in asked)
        assert any("saves on everything" in text for text in asked)
        again = program.recommend(user="S0001", k=2, explain=False)
        assert again.profile != top.profile  # it was for one call only
        with pytest.raises(m3.InputError, match="has no MOPE"):
            m3.program("llm-only", data, model=server.model()).recommend(user="S0001", profile=m3.Profile())

    def test_free_texts_are_items_as_well(self, data: m3.Dataset, server: FakeOpenAI) -> None:
        notes: list[m3.Event] = []
        program = m3.program("embedding", data, model=server.model(), on_event=notes.append)
        assert program.profile(history=["a red enamel mug"]).motivations
        assert program.traits("a red enamel mug").phrases
        top = program.recommend(history=["a red enamel mug", "D001"], k=3, explain=False)
        assert len(top) == 3 and "a red enamel mug" not in {item.item_id for item in top}
        assert any("read as a free text" in note.text for note in notes if isinstance(note, m3.Note))

    def test_candidates_are_those_that_the_prior_with_past_sales_puts_first(
        self, data: m3.Dataset, server: FakeOpenAI
    ) -> None:
        program = m3.program("embedding", data, weight=0.0, prior="3-sales", model=server.model())
        changed = 0
        for user in list(data.sequences)[:10]:
            events = data.sequences[user]
            candidates = tuple(item for item in data.items if item not in data.histories[user])
            scores = scores_of(program.prior, Case(user_id=user, history=events, candidates=candidates))
            best = {candidates[place] for place in np.argsort(-scores)[:5]}
            top = program.recommend(user=user, k=5, candidates=5, explain=False)
            assert {one.item_id for one in top} == best
            batched = BatchedRetriever(program.retriever)
            served = asyncio.run(in_greenlet(first_of, batched, data.histories[user], newest_date(events)))
            assert set(served) == best
            changed += set(next(program.retriever.first([data.histories[user]], 5))) != best
        assert changed

    def test_what_cannot_be_asked_is_said(self, data: m3.Dataset, server: FakeOpenAI) -> None:
        program = m3.program("llm-only", data, model=server.model())
        for call, message in (
            (lambda: program.profile(history=["D001"]), "has no MOPE"),
            (lambda: program.traits("D001"), "has no MOTE"),
            (lambda: program.recommend(user="S9999"), "no user 'S9999'"),
            (lambda: program.recommend(), "either a history or a user"),
            (lambda: program.recommend(history=["D001"], user="S0001"), "either a history or a user"),
            (lambda: program.recommend(history="D001"), "the history is empty or a single text"),
            (lambda: program.recommend(user="S0001", k=40), "k is 40"),
            (lambda: m3.program("prior", data), "uses no language model"),
            (lambda: m3.program("listwise", data, preset="cheap"), "no preset 'cheap'"),
        ):
            with pytest.raises(m3.InputError, match=message):
                call()

    def test_budget_of_a_program(self, data: m3.Dataset, server: FakeOpenAI) -> None:
        program = m3.program("listwise", data, model=server.model(), max_calls=1)
        with pytest.raises(m3.BudgetExceededError):
            program.recommend(user="S0001", k=1)
        assert len(server.bodies) == 1

    def test_budget_of_a_program_holds_where_it_is_evaluated_attacked_and_compiled(
        self, data: m3.Dataset, cases: m3.Cases, server: FakeOpenAI, tmp_path: Path
    ) -> None:
        program = m3.program("listwise", data, model=server.model(), max_calls=40)
        assert not m3.evaluate(cases, program, out=tmp_path / "run").complete
        assert len(server.bodies) == 40
        # A resumed run counts its own calls once.
        with pytest.raises(m3.BudgetExceededError):
            program.traits("D050")
        m3.evaluate(cases, program, out=tmp_path / "run")
        with pytest.raises(m3.BudgetExceededError):
            m3.attack(cases, program, attacks=["spanish"], users=1, out=tmp_path / "attack")
        dev = m3.draw_cases(data, part="dev", users=6, negatives=5)
        with pytest.raises(m3.BudgetExceededError):
            m3.compile_program(dev, program, trials=2, out=tmp_path / "artifact")
        assert len(server.bodies) == 40

    def test_the_tighter_of_two_budgets_holds_and_what_is_left_can_be_used(
        self, data: m3.Dataset, cases: m3.Cases, server: FakeOpenAI, tmp_path: Path
    ) -> None:
        program = m3.program("listwise", data, model=server.model(), max_calls=40)
        m3.evaluate(cases, program, max_calls=30, out=tmp_path / "run")
        assert len(server.bodies) == 30
        m3.evaluate(cases, program, max_calls=100, out=tmp_path / "run")
        assert len(server.bodies) == 40

    def test_options_that_a_program_has_already_are_refused(
        self, data: m3.Dataset, cases: m3.Cases, server: FakeOpenAI, tmp_path: Path
    ) -> None:
        program = m3.program("listwise", data, model=server.model(), explain=1)
        others: list[dict[str, Any]] = [
            {"explain": 2},
            {"explain": 0},
            {"check": False},
            {"weight": 0.5},
            {"head": 3},
            {"prior": "2"},
            {"schema": FILMS},
            {"model": server.model("other")},
            {"timeout": 3},
        ]
        for options in others:
            (name,) = options
            with pytest.raises(m3.InputError, match=f"^{name}: a Program has its own"):
                m3.evaluate(cases, program, **options)
            if name in ("weight", "head", "schema", "model", "timeout"):
                with pytest.raises(m3.InputError, match=f"^{name}: a Program has its own"):
                    m3.attack(cases, [program], out=tmp_path / "attack", **options)
            if name in ("model", "timeout"):
                with pytest.raises(m3.InputError, match=f"^{name}: a Program has its own"):
                    m3.compile_program(cases, program, out=tmp_path / "artifact", **options)
        assert server.bodies == []
        assert m3.evaluate(cases, program, explain=1, check=True, weight=0.3).complete


class TestCompile:
    def test_compile_load_and_use(self, data: m3.Dataset, tmp_path: Path) -> None:
        dev = m3.draw_cases(data, part="dev", users=6, negatives=5)
        with FakeOpenAI(sensitive) as server:
            program = m3.program("listwise", data, model=server.model())
            small = {"demo_sets": 1, "max_demos": 1, "wordings": 1, "interactions": 2}
            made = m3.compile_program(dev, program, trials=2, out=tmp_path / "artifact", **small)
            assert made.manifest is not None and made.manifest.verdict.judgement
            service = m3.load_artifact(tmp_path / "artifact", data)
            assert len(service.recommend(user="S0001", k=3)) == 3
            test = m3.draw_cases(data, part="test", users=3, negatives=5)
            assert m3.evaluate(test, service).complete
            assert m3.evaluate(test, tmp_path / "artifact").metrics == m3.evaluate(test, service).metrics
            with pytest.raises(m3.InputError, match="were used to compile"):
                m3.evaluate(dev, service)
        with pytest.raises(m3.InputError, match="this folder has no artifact"):
            m3.load_artifact(tmp_path / "nothing", data)

    def test_options_are_checked_by_name(self, data: m3.Dataset, tmp_path: Path) -> None:
        dev = m3.draw_cases(data, part="dev", users=6, negatives=5)
        for options, message in (
            ({"optimizer": "magic"}, "no optimizer 'magic'. Choose one of study"),
            ({"temperatures": {"mope": [3.0]}}, "must lie between 0 and 2"),
            ({"held_out": 2.0}, "held_out"),
        ):
            with pytest.raises(m3.InputError, match=message):
                m3.compile_program(dev, "listwise", out=tmp_path / "a", model="http://127.0.0.1:9/v1#x", **options)  # type: ignore[arg-type]


class TestTamperedCases:
    def test_they_are_refused_wherever_they_are_used_with_their_data(
        self, data: m3.Dataset, cases: m3.Cases, server: FakeOpenAI, tmp_path: Path
    ) -> None:
        grid = {"backends": {"a": {"model": server.model("a")}}, "mope": ["a"], "mote": ["a"], "mar": ["a"]}
        uses: list[Callable[[m3.Cases, Path], object]] = [
            lambda given, out: m3.evaluate(given, "popularity", out=out),
            lambda given, out: m3.evaluate(given, lambda history, candidates: [0.0] * len(candidates), out=out),
            lambda given, out: m3.compile_program(given, "listwise", out=out, model=server.model()),
            lambda given, out: m3.compare(given, grid, out=out),
            lambda given, out: m3.attack(given, ["prior"], out=out),
        ]
        dev = m3.draw_cases(data, part="dev", users=6, negatives=5)
        for number, use in enumerate(uses):
            drawn = dev if number == 2 else cases
            turned = [one.model_copy(update={"candidates": one.candidates[::-1]}) for one in drawn]
            with pytest.raises(m3.InputError, match="the candidates are not what data and protocol give"):
                use(replace(drawn, cases=tuple(turned)), tmp_path / str(number))
        assert not server.bodies

    def test_warnings(self, data: m3.Dataset, cases: m3.Cases) -> None:
        assert cases.warnings() == [] == cases.leaks
        cold = m3.draw_cases(data, part="all", setting="item-cold", sampling="uniform")
        assert [warning.kind for warning in cold.warnings()] == ["the target is what nobody has"]
        notes: list[str] = []
        m3.evaluate(cold, "popularity", on_event=lambda event: notes.append(str(getattr(event, "text", ""))))
        assert sum("nobody-has-it-first" in note for note in notes) == 1


class TestExperiments:
    def test_compare(self, cases: m3.Cases, server: FakeOpenAI, tmp_path: Path) -> None:
        grid = {
            "backends": {"a": {"model": server.model("a")}, "b": {"model": server.model("b")}},
            "mope": ["a"],
            "mote": ["a"],
            "mar": ["a", "b"],
        }
        table = m3.compare(cases, grid, out=tmp_path / "mixes")
        assert table.complete and table.written[0].name == "report.html"
        assert table.to_frame().index.tolist() == ["a_a_a", "a_a_b"]
        with pytest.raises(m3.InputError, match="grid: mar"):
            m3.compare(cases, grid | {"mar": []}, out=tmp_path / "other")

    def test_a_cold_comparison_has_a_row_for_nobody_has_it_first_and_a_warning(
        self, data: m3.Dataset, server: FakeOpenAI, tmp_path: Path
    ) -> None:
        cold = m3.draw_cases(data, part="all", users=4, setting="item-cold", sampling="uniform")
        grid = {"backends": {"a": {"model": server.model("a")}}, "mope": ["a"], "mote": ["a"], "mar": ["a"]}
        notes: list[str] = []
        m3.compare(cold, grid, out=tmp_path / "mixes", on_event=lambda event: notes.append(str(event)))
        assert sum("nobody-has-it-first" in note for note in notes) == 1
        report = tmp_path / "mixes" / "report"
        (row,) = [line for line in (report / "tables/demo-cases-main.csv").read_text().splitlines() if "nobody" in line]
        assert row.startswith("nobody-has-it-first,")
        assert "nobody-has-it-first, in random order" in (report / "report.html").read_text()

    def test_run_study(self, data: m3.Dataset, tmp_path: Path) -> None:
        spec = {
            "name": "small",
            "datasets": [{"name": "shop", "source": "nowhere"}],
            "protocols": [{"name": "warm", "users": 5, "negatives": 5}],
            "rankers": [{"ranker": "popularity"}, {"ranker": "prior"}],
        }
        study = m3.run_study(spec, out=tmp_path / "study", data={"shop": data})
        assert study.incomplete == () and study.runs == 2
        assert study.to_frame()["ranker"].tolist() == ["popularity", "prior"]
        assert study.written[0].exists()
        with pytest.raises(m3.InputError, match="study: rankers"):
            m3.run_study(spec | {"rankers": []}, out=tmp_path / "other")

    def test_distill(self, cases: m3.Cases, server: FakeOpenAI) -> None:
        found = m3.distill(cases, mote=server.model())
        assert found.items == len({item for case in cases for item in case.candidates}) == len(server.bodies)
        assert found.traits and not found.unparsable


class TestDSPy:
    """DSPy's own conventions: `dspy.configure`, `dspy.context`, `dspy.Evaluate`, optimizers, `dspy.LM` objects."""

    def test_modules_ask_the_configured_model(self, server: FakeOpenAI) -> None:
        with dspy.context(lm=lm_on(server)):
            profile = m3.MOPE()(history=["a red enamel mug", m3.Item(item_id="x", title="hand saw")]).profile
            traits = m3.MOTE()(item="a red enamel mug").traits
            ranking = m3.MLLM3Rec()(history=["a red enamel mug"], candidates=["hand saw", "tea towel"]).ranking
        assert profile.motivations and traits.phrases
        assert sorted(ranking.order) == ["hand saw", "tea towel"] and ranking.status == "ok"

    def test_configure_once(self, data: m3.Dataset, cases: m3.Cases, server: FakeOpenAI) -> None:
        with dspy.context(lm=lm_on(server)):
            program = m3.program("listwise", data)
            assert program.recommend(user="S0001", k=2).usage.calls > 0
            result = m3.evaluate(cases, "listwise")
        assert result.complete and result.usage.calls > 0
        assert {body["model"] for body in server.bodies} == {"fake"}

    def test_a_trained_ranker_has_no_use_for_the_configured_model(self, server: FakeOpenAI) -> None:
        with dspy.context(lm=lm_on(server)):
            assert options_for("llm-esr", {}) == ModelOptions()
            assert options_for("llm-esr", {"mote": "openai/gpt-4o"}) == ModelOptions(mote="openai/gpt-4o")
            asked = options_for("listwise", {})
        assert asked is not None
        assert asked.model is not None

    def test_any_base_lm(self) -> None:
        answers = [{"motivations": '[{"dimension": "value", "description": "d", "strength": "weak", "evidence": [1]}]'}]
        with dspy.context(lm=DummyLM(answers * 4), adapter=dspy.ChatAdapter()):
            profile = m3.MOPE(reflect=False)(history=["mug"]).profile
        assert [motivation.dimension for motivation in profile.motivations] == ["value"]

    def test_without_a_model_it_says_what_to_do(self) -> None:
        with dspy.context(lm=None), pytest.raises(m3.InputError, match=r"dspy\.configure"):
            m3.MOPE()(history=["mug"])

    def test_lm_objects_in_place_of_model_strings(
        self, data: m3.Dataset, cases: m3.Cases, server: FakeOpenAI, tmp_path: Path
    ) -> None:
        cheap, good = lm_on(server), dspy.LM("openai/good", api_base=server.url, api_key="secret-key", temperature=0.3)
        program = m3.program("listwise", data, model=cheap, mar=good)
        result = m3.evaluate(cases, program, out=tmp_path / "run")
        assert {body["model"] for body in server.bodies} == {"fake", "good"}
        assert result.usage.calls == len(server.bodies)
        assert "secret-key" not in "".join(p.read_text() for p in (tmp_path / "run").iterdir() if p.is_file())
        assert m3.evaluate(cases, program, out=tmp_path / "run").complete  # resumes
        with pytest.raises(m3.InputError, match="holds another run"):
            m3.evaluate(cases, m3.program("listwise", data, model=good), out=tmp_path / "run")

    def test_a_key_that_the_server_repeats_is_in_no_journal_and_no_message(
        self, data: m3.Dataset, cases: m3.Cases, tmp_path: Path
    ) -> None:
        with FakeOpenAI(lambda body: Reply("bad request from secret-key", status=400)) as server:
            program = m3.program("listwise", data, model=lm_on(server))
            with pytest.raises(m3.InputError, match=r"bad request from \[key\]"):
                m3.evaluate(cases, program, out=tmp_path / "run")
        assert "bad request from [key]" in (tmp_path / "run" / "journal.jsonl").read_text()
        assert "secret-key" not in "".join(p.read_text() for p in (tmp_path / "run").iterdir() if p.is_file())

    def test_a_metric_for_evaluate_and_optimizers(self, data: m3.Dataset, server: FakeOpenAI) -> None:
        dev = m3.draw_cases(data, part="dev", users=4, negatives=5)
        with dspy.context(lm=lm_on(server)):
            module = m3.program("listwise", data).module
            examples, ndcg = dev.examples(), m3.metric("NDCG@5")
            scored = dspy.Evaluate(devset=examples, metric=ndcg, num_threads=2, display_progress=False)(module)
            assert 0 < scored.score <= 100
            teacher = dspy.BootstrapFewShot(metric=m3.metric("HR@5"), max_bootstrapped_demos=1, max_labeled_demos=0)
            compiled = teacher.compile(module, trainset=examples)
        assert any(predictor.demos for predictor in compiled.predictors())
        with pytest.raises(m3.InputError, match="no metric 'MAP'"):
            m3.metric("MAP")

    def test_feedback_for_reflective_optimizers(self) -> None:
        case = m3.Case(user_id="u", history=(), candidates=("a", "b"), target="b")
        prediction = dspy.Prediction(ranking=m3.Ranking(user_id="u", order=("a", "b")))
        said = m3.metric("NDCG@5")(dspy.Example(case=case), prediction, None, "mar", None)
        assert said.score == pytest.approx(0.6309, abs=1e-4) and "ranked 2 of 2" in said.feedback


class TestFirstSnippets:
    """What a newcomer tried first and could not have, in its final form."""

    def test_the_rest_of_them(self, data: m3.Dataset) -> None:
        protocol = m3.EvaluationProtocol.for_dataset("demo", "demo", data.sha256, part="test")
        assert protocol.negatives == 29
        prior = m3.Prior.fit(data.histories)
        assert prior.scores(["D001"], ["D002", "D003"]).shape == (2,)
        assert m3.hit(rank=3, k=5) == 1.0 and m3.ndcg(rank=1, k=5) == 1.0
        assert m3.Backends(m3.PRESETS["local"]).roles == m3.Roles.all_on(m3.PRESETS["local"].mope)
        assert isinstance(m3.PROGRAMS["listwise"], object) and issubclass(m3.InputError, Exception)
