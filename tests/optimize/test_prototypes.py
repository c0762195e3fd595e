"""Prototypes of the program `encoder`: what a compile tunes without a language model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.optimize import check_grad

from mllm3rec.api.compile_options import compile_settings
from optimize.artifact import SEARCH_FOLDER, ArtifactManifest, restore_program
from optimize.compiler import Compiler
from optimize.freezing import REPORT
from optimize.learned_prototypes import FEWEST_LISTS, TrainingLists, _loss, learn_prototypes, training_lists
from optimize.objective import Objective, ObjectiveWeights
from optimize.prototype_candidates import wordings, worked_examples
from optimize.prototype_search import PrototypeSearch
from optimize.prototype_table import PrototypeTable, mean_of_rows
from optimize.resolve import resolve_ranker
from optimize.scoring import ScoredProgram, next_users, score_cases
from optimize.space import Configuration, ProgramBuilder, Space, uncompiled
from programs.fusion import Fusion
from programs.lm.ledger import Ledger
from programs.lm.model_options import ModelOptions
from programs.motivation_encoder import MotivationEncoder, leanings_of
from programs.prior.encoders import HashingEncoder
from programs.program import PROGRAMS
from programs.prototypes import Prototype, Prototypes, directions
from programs.runtime.errors import InputError
from signatures.schema import CONSUMER, MotivationSchema
from signatures.types import Item
from tests.support.backends import roles_on
from tests.support.cases import cases_file
from tests.support.compile_setup import compiler, trials_of
from tests.support.encoders import LetterEncoder
from tests.support.fake_server import FakeOpenAI

ENCODER = HashingEncoder()
WEIGHTS = ObjectiveWeights(ndcg=0.4, mar=0.3, hit=0.1, coherence=0.2)
TINY = MotivationSchema(name="tiny", dimensions=CONSUMER.dimensions[:2])
ITEMS = {
    name: Item(item_id=name, title=title)
    for name, title in [("ball", "aab"), ("vitamin", "b"), ("coupon", "cc"), ("gym", "abc"), ("bare", "")]
}


def built(folder: Path, server: FakeOpenAI, trials: int = 40, users: int = 40, **settings: object) -> Compiler:
    return compiler(
        folder / "art",
        cases_file(folder / "dev.jsonl", users),
        roles_on(server),
        optimizer="prototypes",
        space=Space(families=("encoder",)),
        trials=trials,
        **{"finalists": 3, "final_share": 0.25, "fit_weight": True, **settings},
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Compiler, ArtifactManifest]]:
    """A finished compile; tests that change its files work on a copy."""
    with FakeOpenAI() as server:
        made = built(tmp_path_factory.mktemp("prototypes"), server)
        manifest = made.run()
        assert server.bodies == [], "no model is asked"
        yield made, manifest


Compiled = tuple[Compiler, ArtifactManifest]


class TestTheTable:
    """Scores from matrices are those of the program itself."""

    @pytest.mark.parametrize(
        ("labels", "factors", "temperature", "weight"),
        [
            (["definition"], [1.0], None, 0.3),
            (["name", "keywords", "examples-3"], [2.0, 0.0, 0.5], None, 0.0),
            (["learned", "definition+3"], [1.0, 0.5, 0.0], 0.3, 0.7),
            (["examples-10"], [0.0, 1.0], 3.0, 1.0),
        ],
    )
    def test_ranks_and_scores_are_those_of_the_program(
        self,
        labels: list[str],
        factors: list[float],
        temperature: float | None,
        weight: float,
        tmp_path: Path,
        server: FakeOpenAI,
    ) -> None:
        made = built(tmp_path, server, users=12)
        cases = made.cases.cases
        options = PrototypeSearch(
            made.parts, cases[:9], cases[9:], uncompiled(made.settings.space), WEIGHTS, 2, 1, 0
        ).options
        by_label = {option.prototypes[0].label: option for option in options}
        chosen = []
        for place in range(len(CONSUMER.dimensions)):
            one = by_label[labels[place % len(labels)]].prototypes[place]
            chosen.append(one.model_copy(update={"weight": one.weight * factors[place % len(factors)]}))
        prototypes = Prototypes(prototypes=tuple(chosen), temperature=temperature, encoder=ENCODER.name)
        table = PrototypeTable(cases, made.parts, options, WEIGHTS, interactions=2)
        places = [[*by_label].index(one.label) for one in chosen]
        ranks = table.ranks(table.mar(places, prototypes.weights, temperature), weight)
        found = table.user_scores(ranks, slice(0, len(cases)))

        program = ProgramBuilder(made.parts).program(
            Configuration(family="encoder", weight=weight, prototypes=prototypes)
        )
        scored = ScoredProgram(program, next_users(cases), Ledger(), interactions=2)
        expected = score_cases(scored, cases, Objective(WEIGHTS))
        assert [one.mar_rank for one in found] == [one.mar_rank for one in expected]
        assert [one.rank for one in found] == [one.rank for one in expected]
        assert [one.score for one in found] == pytest.approx([one.score for one in expected])
        some = slice(3, 9)
        assert table.mean_scores(ranks, some) == pytest.approx(np.mean([one.score for one in found[some]]))

    def test_the_mean_of_rows_is_zero_for_nobody(self) -> None:
        means = mean_of_rows([[0, 0, 2], []], 3) @ np.eye(3)
        np.testing.assert_allclose(means, [[2 / 3, 0, 1 / 3], [0, 0, 0]])


class TestLeanings:
    SCORES = np.array([[2.0, 1.0, -1.0], [0.0, 0.0, 0.0]])

    def test_a_dimension_of_weight_0_does_not_count(self) -> None:
        for temperature in (None, 0.5):
            found = leanings_of(self.SCORES, np.array([0.0, 1.0, 2.0]), temperature)
            assert found[0, 0] == 0 and found[0, 1] > 0 > found[0, 2]
            assert np.linalg.norm(found[0]) == pytest.approx(1)
            assert found[1].tolist() == [0, 0, 0], "an item without a text"

    def test_a_low_temperature_leaves_the_strongest_dimension(self) -> None:
        cold, warm = (leanings_of(self.SCORES, np.ones(3), temperature)[0] for temperature in (0.01, 100.0))
        np.testing.assert_allclose(cold, np.array([2, -1, -1]) / np.sqrt(6), atol=1e-6)
        centred = self.SCORES[0] - self.SCORES[0].mean()
        np.testing.assert_allclose(warm, centred / np.linalg.norm(centred), atol=0.02)


class TestPrototypes:
    def test_definitions_are_what_the_program_has_anyway(self) -> None:
        own = Prototypes.of_definitions(CONSUMER)
        plain, given = (MotivationEncoder(ENCODER, CONSUMER, ITEMS, one) for one in (None, own))
        assert plain.of(ITEMS["gym"]).tolist() == given.of(ITEMS["gym"]).tolist()

    def test_several_texts_are_their_mean_and_a_vector_is_itself(self) -> None:
        of = Prototypes(
            prototypes=(
                Prototype(dimension="x", label="texts", texts=("a", "b")),
                Prototype(dimension="y", label="learned", vector=(0.5, 0.0, 2.0, 0.0)),
            ),
            encoder="letters",
        )
        half = 0.5**0.5
        np.testing.assert_allclose(directions(of, LetterEncoder()), [[half, half, 0, 0], [0.5, 0, 2, 0]], atol=1e-6)
        with pytest.raises(InputError, match="learned for the encoder 'letters', not for 'hashing-1024'"):
            directions(of, ENCODER)

    def test_learned_vectors_have_the_length_of_the_encoders(self) -> None:
        def learned(*lengths: int) -> Prototypes:
            some = [Prototype(dimension=f"d{n}", label="learned", vector=(1.0,) * n) for n in lengths]
            return Prototypes(prototypes=tuple(some), encoder="letters")

        with pytest.raises(ValidationError, match="learned vectors must have one length, but there are 3 and 4"):
            learned(4, 3)
        assert directions(learned(4, 4), LetterEncoder()).shape == (2, 4)
        with pytest.raises(InputError, match="has 3 numbers, but the encoder 'letters' makes 4"):
            directions(learned(3, 3), LetterEncoder())

    def test_a_prototype_is_texts_or_a_vector_and_one_counts(self) -> None:
        for wrong in ({}, {"texts": ("a",), "vector": (1.0,)}, {"texts": ("a",), "weight": -1.0}):
            with pytest.raises(ValidationError):
                Prototype.model_validate({"dimension": "x", "label": "l", **wrong})
        nothing = Prototype(dimension="x", label="l", texts=("a",), weight=0)
        with pytest.raises(ValidationError, match="needs a weight"):
            Prototypes(prototypes=(nothing, nothing))

    def test_those_of_another_schema_are_refused(self) -> None:
        with pytest.raises(InputError, match="do not fit the schema"):
            MotivationEncoder(ENCODER, TINY, ITEMS, Prototypes.of_definitions(CONSUMER))

    def test_other_programs_have_none_in_their_files(self) -> None:
        assert "prototypes" not in Configuration(family="listwise").model_dump()


class TestCandidates:
    def test_worked_examples_are_titles_of_items_that_were_sold(self) -> None:
        base = Prototypes(prototypes=tuple(Prototype(dimension=one, label="definition", texts=(one,)) for one in "abc"))
        found = {one.prototypes[0].label: one for one in worked_examples(base, LetterEncoder(), ITEMS, ITEMS)}
        assert list(found) == ["examples-3", "definition+3"]
        assert [one.texts[0] for one in found["examples-3"].prototypes] == ["aab", "b", "cc"]
        assert found["definition+3"].prototypes[0].texts[:2] == ("a", "aab")
        unsold = worked_examples(base, LetterEncoder(), ITEMS, {"vitamin", "coupon", "gym"})
        assert all("aab" not in one.texts for option in unsold for one in option.prototypes)
        assert worked_examples(base, LetterEncoder(), ITEMS, ()) == []

    def test_wordings_are_the_schema_s_own(self) -> None:
        labels = [option.prototypes[0].label for option in wordings(CONSUMER)]
        assert labels == ["definition", "name", "keywords"]
        durability = wordings(CONSUMER)[2].prototypes[2]
        assert durability.texts == ("durability", "things that last", "need no early replacement")


def paired_shop(users: int) -> tuple[dict[str, Item], dict[str, list[str]]]:
    """Items of letters; whoever buys an `a` buys a `b` next, whoever buys a `c` buys a `d`."""
    rng = np.random.default_rng(0)
    items, histories = {}, {}
    for number in range(60):
        letter = "abcd"[number % 4]
        noise = "".join(rng.choice(list("abcd"), size=3))
        items[f"i{number}"] = Item(item_id=f"i{number}", title=letter * 4 + noise + "z" * number)
    for number in range(users):
        first = int(rng.integers(15)) * 4 + (0 if number % 2 else 2)
        histories[f"u{number}"] = [f"i{first}", f"i{int(rng.integers(15)) * 4 + (1 if number % 2 else 3)}"]
    return items, histories


class TestLearning:
    START = Prototypes(
        prototypes=(
            Prototype(dimension="one", label="definition", texts=("ac",)),
            Prototype(dimension="two", label="definition", texts=("bd",)),
        )
    )

    def test_the_gradient_is_that_of_the_loss(self) -> None:
        rng = np.random.default_rng(1)
        centred, own = rng.normal(size=(12, 3)), rng.normal(size=(2, 3))
        lists = TrainingLists(
            mean_of_rows([[0, 1], [2], [3, 3, 4]], 12), rng.permuted(np.tile(range(12), (3, 1)), axis=1)
        )
        error = check_grad(
            lambda flat: _loss(flat.reshape(2, 3), centred, lists)[0],
            lambda flat: _loss(flat.reshape(2, 3), centred, lists)[1].ravel(),
            own.ravel(),
        )
        assert error < 1e-5

    def test_lists_hold_the_last_purchase_first_and_others_nobody_bought(self) -> None:
        rows = {f"i{number}": number for number in range(40)}
        lists = training_lists({"u": ["i1", "gone", "i2", "i3"], "v": ["i5"]}, rows, seed=0)
        (candidates,) = lists.candidates.tolist()
        assert candidates[0] == 3
        assert len({*candidates}) == 30
        assert not {1, 2} & {*candidates}
        assert lists.histories.toarray()[0].nonzero()[0].tolist() == [1, 2]

    def test_learned_vectors_find_what_definitions_do_not(self) -> None:
        items, histories = paired_shop(200)
        learned = learn_prototypes(self.START, LetterEncoder(), items, histories, seed=0)
        assert learned is not None
        assert learned == learn_prototypes(self.START, LetterEncoder(), items, histories, seed=0)
        found = {}
        for name, prototypes in (("start", self.START), ("learned", learned)):
            own = directions(prototypes, LetterEncoder())
            vectors = LetterEncoder().encode([item.text for item in items.values()]).astype(float)
            scores = (vectors - vectors.mean(axis=0)) @ own.T.astype(float)
            leanings = leanings_of(scores / scores.std(axis=0), prototypes.weights)
            gain = leanings[0::4].mean(axis=0) @ (leanings[1::4] - leanings[3::4]).mean(axis=0)
            found[name] = float(gain + leanings[2::4].mean(axis=0) @ (leanings[3::4] - leanings[1::4]).mean(axis=0))
        assert found["learned"] > found["start"] + 0.5

    def test_too_few_lists_teach_nothing(self) -> None:
        items, histories = paired_shop(FEWEST_LISTS - 1)
        assert learn_prototypes(self.START, LetterEncoder(), items, histories, seed=0) is None


class TestCompile:
    def test_the_artifact_ranks_as_the_winner(self, compiled: Compiled) -> None:
        made, manifest = compiled
        assert (manifest.trials, manifest.optimizer, manifest.family) == (40, "prototypes", "encoder")
        assert manifest.chosen is not None
        program, loaded = restore_program(made.directory, made.parts)
        assert loaded == manifest
        case = made.held_out[0].blinded()
        own = ProgramBuilder(made.parts).program(manifest.chosen)
        plain = PROGRAMS["encoder"](made.parts)
        assert program.rank(case).scores == own.rank(case).scores
        # Its gate may leave this user to the prior.
        asked, unchanged = (one(case=case, ask_all=True).ranking.scores["mar"] for one in (program, plain))
        assert asked != unchanged
        page = (made.directory / SEARCH_FOLDER / REPORT).read_text()
        assert "sustainability" in page

    def test_an_artifact_ranks_only_the_head_that_is_asked_for(self, compiled: Compiled) -> None:
        made, manifest = compiled
        program, _ = restore_program(made.directory, replace(made.parts, fusion=Fusion(head=3)))
        case = made.held_out[0].blinded()
        scores = np.array(program(case=case, ask_all=True).mar, dtype=float)
        first = np.argsort(-np.array(program.rank(case).scores["prior"]))[:3]
        assert np.flatnonzero(~np.isnan(scores)).tolist() == sorted(first.tolist())
        chosen = resolve_ranker(str(made.directory), ModelOptions(), Fusion(head=3))
        assert (chosen.fusion.head, chosen.fusion.gate) == (3, manifest.gate)
        assert resolve_ranker(str(made.directory), ModelOptions(), Fusion()).fusion.head is manifest.head is None

    def test_the_same_command_makes_the_same_artifact(self, tmp_path: Path, server: FakeOpenAI) -> None:
        manifest = built(tmp_path, server, trials=12, users=20).run()
        assert built(tmp_path, server, trials=12, users=20).run() == manifest

    def test_the_winner_is_chosen_by_users_that_did_not_drive_the_search(self, compiled: Compiled) -> None:
        made, manifest = compiled
        assert manifest.finals is not None
        assert manifest.finals.users == manifest.finals.new_users == len(made.final_users) == 7
        assert len({*manifest.data.searched}) == len(made.searched) + 7
        assert manifest.choosing_users == 7
        best = max(manifest.finals.finalists, key=lambda one: (one.score, one.trial == 0, -one.trial))
        assert manifest.trial == best.trial
        trials = trials_of(made.directory)
        assert {one.trial for one in manifest.finals.finalists} == {one["number"] for one in trials}
        assert trials[0]["configuration"] == {**Configuration(family="encoder").model_dump(mode="json")}
        assert all(len(one["scores"]) == len(made.searched) for one in trials)

    def test_without_finalists_the_users_of_the_search_choose(self, tmp_path: Path, server: FakeOpenAI) -> None:
        made = built(tmp_path, server, trials=12, users=20, finalists=0)
        manifest = made.run()
        trials = trials_of(made.directory)
        assert manifest.finals is None
        assert made.final_users == []
        assert manifest.searched["after"] == max(one["score"] for one in trials)

    @pytest.mark.parametrize("without", [{"finalists": 0}, {"final_share": 0.0}])
    def test_without_final_users_a_gate_is_fitted(
        self, without: dict[str, float], tmp_path: Path, server: FakeOpenAI
    ) -> None:
        made = built(tmp_path, server, trials=12, **without)
        finals = made.run().finals
        assert finals is not None and finals.gate is not None
        assert (finals.users, finals.new_users, finals.gate.users) == (len(made.searched), 0, len(made.searched))

    def test_more_trials_are_better_on_the_users_of_the_search(self, compiled: Compiled) -> None:
        made, _ = compiled
        few, many = (
            max(
                attempt.score
                for attempt in PrototypeSearch(
                    made.parts, made.searched, [], uncompiled(made.settings.space), WEIGHTS, 2, trials, 0
                )
                .run(3, lambda step: None)
                .attempts
            )
            for trials in (10, 200)
        )
        assert many > few

    def test_a_fixed_weight_stays(self, tmp_path: Path, server: FakeOpenAI) -> None:
        assert built(tmp_path, server, trials=12, users=20, fit_weight=False).run().weight == 0.3

    def test_other_programs_are_refused(self, tmp_path: Path, server: FakeOpenAI) -> None:
        cases = cases_file(tmp_path / "dev.jsonl", 6)
        roles = roles_on(server)
        for families, head in ((["listwise"], None), (["encoder", "embedding"], None), (["encoder"], 5)):
            with pytest.raises(InputError, match="tunes the program 'encoder' alone"):
                compile_settings(cases, families, roles, 10, {"optimizer": "prototypes", "head": head})

    def test_a_changed_weight_is_refused(self, tmp_path: Path, compiled: Compiled) -> None:
        made, _ = compiled
        copied = Path(shutil.copytree(made.directory, tmp_path / "art"))
        path = copied / "manifest.json"
        content = json.loads(path.read_text())
        content["chosen"]["prototypes"]["prototypes"][0]["weight"] = 7.0
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match="was changed after it was written"):
            restore_program(copied, made.parts)
