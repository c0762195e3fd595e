"""Signatures: what a schema refuses, what a server is told to enforce, and the prompts word for word.

`UPDATE_GOLDEN=1 pytest tests/test_golden_prompts.py` rewrites the prompts in tests/golden; read their diff before you
commit it: a changed prompt is another program, and what was compiled for the old one has to be compiled again.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import dspy
import pytest
from pydantic import ValidationError

from programs.default_demos import CHECKS, EXPLANATIONS, RANKINGS, RATINGS, TRAITS, infer_examples, reassess_examples
from programs.lm.adapters import AdapterName
from programs.lm.backends import Backends, UnparsableError
from programs.lm.roles import ROLE_NAMES, RoleConfig, RoleName, Roles
from programs.runtime.config_file import load_schema
from programs.runtime.errors import InputError
from signatures.mar import CheckExplanation, ExplainChoice, rank_candidates, score_candidate
from signatures.mope import draft_type, infer_motivations, reassess_motivations
from signatures.mote import DistillTraits
from signatures.schema import CONSUMER, Dimension, MotivationSchema
from tests.support.fake_server import FakeOpenAI, Reply
from tests.support.paths import GOLDEN

FILMS_YAML = """
name: films
dimensions:
  - name: suspense
    definition: wants to be kept in the dark and on edge
    kind: emotional
  - {name: insight, definition: wants to understand people and times, kind: functional}
"""
FILMS_TOML = """
name = "films"
[[dimensions]]
name = "suspense"
definition = "wants to be kept in the dark and on edge"
kind = "emotional"
[[dimensions]]
name = "insight"
definition = "wants to understand people and times"
kind = "functional"
"""
FILMS = MotivationSchema(
    name="films",
    dimensions=(
        Dimension(name="suspense", definition="wants to be kept in the dark and on edge", kind="emotional"),
        Dimension(name="insight", definition="wants to understand people and times", kind="functional"),
    ),
)


def backends_for(server: FakeOpenAI, adapter: AdapterName) -> Backends:
    config = RoleConfig(model=server.model(), adapter=adapter)
    return Backends(Roles.model_validate(dict.fromkeys(ROLE_NAMES, config)))


def drafts(*dimensions: str) -> Reply:
    motivations = [
        {"dimension": d, "description": f"wants {d}", "strength": "strong", "evidence": [1]} for d in dimensions
    ]
    return Reply(json.dumps({"motivations": motivations}))


class TestSchema:
    def test_the_default_has_motives_of_all_three_kinds(self) -> None:
        assert len(CONSUMER.names) == len(set(CONSUMER.names)) == 11
        assert {d.kind for d in CONSUMER.dimensions} == {"functional", "emotional", "ethical"}

    def test_the_glossary_is_one_line_a_dimension_in_order(self) -> None:
        assert FILMS.glossary() == (
            "- suspense: wants to be kept in the dark and on edge\n- insight: wants to understand people and times"
        )

    @pytest.mark.parametrize("name", ["Suspense", "x", "with space", "digit1", "_lead", "a" * 41, "", 'quo"te', "a\nb"])
    def test_a_malformed_name_is_refused_by_name(self, name: str) -> None:
        with pytest.raises(ValidationError, match="use 2 to 40 lower-case letters"):
            Dimension(name=name, definition="anything", kind="emotional")

    @pytest.mark.parametrize("definition", ["", "x" * 161, "two\nlines"])
    def test_a_definition_is_one_short_line(self, definition: str) -> None:
        with pytest.raises(ValidationError, match="definition"):
            Dimension(name="suspense", definition=definition, kind="emotional")

    def test_a_kind_outside_the_paper_s_three_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="kind"):
            Dimension.model_validate({"name": "suspense", "definition": "thrills", "kind": "spiritual"})

    def test_a_dimension_defined_twice_is_named(self) -> None:
        with pytest.raises(ValidationError, match="schema 'films': dimension defined twice: suspense"):
            MotivationSchema(name="films", dimensions=(*FILMS.dimensions, FILMS.dimensions[0]))

    def test_one_dimension_makes_no_schema(self) -> None:
        with pytest.raises(ValidationError, match="at least 2 items"):
            MotivationSchema(name="films", dimensions=FILMS.dimensions[:1])


class TestSchemaFiles:
    @pytest.mark.parametrize(("suffix", "text"), [("yaml", FILMS_YAML), ("yml", FILMS_YAML), ("toml", FILMS_TOML)])
    def test_yaml_and_toml_say_the_same(self, tmp_path: Path, suffix: str, text: str) -> None:
        path = tmp_path / f"films.{suffix}"
        path.write_text(text, "utf-8")
        assert load_schema(path) == FILMS

    @pytest.mark.parametrize(
        ("suffix", "text", "said"),
        [
            ("yaml", FILMS_YAML.replace(", kind: functional", ""), "dimensions.1.kind: Field required"),
            ("yaml", FILMS_YAML.replace("kind: emotional", "kind: odd"), "dimensions.0.kind: Input should be"),
            ("toml", FILMS_TOML.replace('"insight"', '"In sight"'), "dimensions.1: Value error, dimension name 'In s"),
            ("toml", FILMS_TOML + 'weight = "2"\n', "dimensions.1.weight: Extra inputs"),
            ("yaml", FILMS_YAML.replace("name: films\n", ""), "name: Field required"),
            ("yaml", "name: films\n", "dimensions: Field required"),
            ("yaml", FILMS_YAML.replace("insight", "suspense"), "Value error, schema 'films': dimension def"),
            ("yaml", "- just\n- a list\n", "Input should be"),
            ("yaml", "", "Input should be"),
            ("yaml", "name: [unclosed", "not a readable schema"),
            ("toml", "name = ", "not a readable schema"),
        ],
    )
    def test_an_error_names_file_and_field(self, tmp_path: Path, suffix: str, text: str, said: str) -> None:
        path = tmp_path / f"films.{suffix}"
        path.write_text(text, "utf-8")
        with pytest.raises(InputError) as error:
            load_schema(path)
        assert str(error.value).startswith(f"{path}: {said}")

    def test_a_file_that_is_no_text_is_an_input_error(self, tmp_path: Path) -> None:
        path = tmp_path / "films.yaml"
        path.write_bytes(b"name: caf\xe9")
        with pytest.raises(InputError, match="not a readable schema"):
            load_schema(path)

    def test_a_missing_file_is_an_input_error(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"absent\.toml: No such file"):
            load_schema(tmp_path / "absent.toml")


class TestClosedDimensions:
    def test_the_type_takes_the_schema_s_names_and_no_other(self) -> None:
        draft: dict[str, Any] = {"description": "wants thrills", "strength": "strong", "evidence": [1]}
        assert draft_type(FILMS)(dimension="suspense", **draft).dimension == "suspense"
        for outside in ("value", "Suspense", "", "suspense "):
            with pytest.raises(ValidationError, match="dimension"):
                draft_type(FILMS)(dimension=outside, **draft)

    @pytest.mark.parametrize("adapter", ["compact", "json", "chat"])
    def test_an_answer_with_a_dimension_outside_the_schema_is_no_answer(self, adapter: AdapterName) -> None:
        with FakeOpenAI(lambda body: drafts("suspense", "value")) as server:
            predict = dspy.Predict(infer_motivations(FILMS))
            with pytest.raises(UnparsableError):
                backends_for(server, adapter).ask("mope", predict, shopper="-", history="1. a film")

    @pytest.mark.parametrize("schema", [CONSUMER, FILMS])
    @pytest.mark.parametrize("adapter", ["compact", "json"])
    def test_the_server_is_told_to_enforce_the_names(self, adapter: AdapterName, schema: MotivationSchema) -> None:
        with FakeOpenAI(lambda body: drafts(*schema.names[:2])) as server:
            predict = dspy.Predict(infer_motivations(schema))
            answer = backends_for(server, adapter).ask("mope", predict, shopper="-", history="1. a film")
        sent = server.bodies[0]["response_format"]
        assert sent["type"] == "json_schema"
        assert sent["json_schema"]["strict"] is True
        enforced = sent["json_schema"]["schema"]
        assert enforced["$defs"]["MotivationDraft"]["properties"]["dimension"]["enum"] == list(schema.names)
        assert enforced["$defs"]["MotivationDraft"]["additionalProperties"] is False
        assert [m.dimension for m in answer.motivations] == list(schema.names[:2])

    def test_list_bounds_reach_the_grammar_of_a_local_server(self) -> None:
        with FakeOpenAI() as server:
            backends = backends_for(server, "compact")
            backends.ask("mope", dspy.Predict(infer_motivations(CONSUMER)), shopper="-", history="1. a cup")
            backends.ask("mote", dspy.Predict(DistillTraits), product="a cup")
        profile, traits = (body["response_format"]["json_schema"]["schema"]["properties"] for body in server.bodies)
        assert (profile["motivations"]["minItems"], profile["motivations"]["maxItems"]) == (2, 4)
        assert (traits["traits"]["minItems"], traits["traits"]["maxItems"]) == (1, 4)


HISTORY = "1. Blue teapot | Kitchen > Tea (rated 5 of 5)\n2. Wool blanket"
PROFILE = "- durability (strong): things that outlive fashions\n- enjoyment (weak): slow evenings"
TRAIT_TEXT = "keeps tea warm; made to last"
INFERRED = "1. durability (strong): things that outlive fashions\n2. enjoyment (weak): slow evenings"
PRODUCTS = "57: keeps tea warm; made to last\n12: cheap fun for parties"

Question = tuple[RoleName, type[dspy.Signature], list[dspy.Example], dict[str, Any]]
QUESTIONS: dict[str, Question] = {
    "infer_motivations": (
        "mope",
        infer_motivations(CONSUMER),
        infer_examples(CONSUMER),
        {"shopper": "age 25-34; region north", "history": HISTORY},
    ),
    "infer_motivations_films": (
        "mope",
        infer_motivations(FILMS),
        infer_examples(FILMS),
        {"shopper": "nothing known", "history": HISTORY},
    ),
    "reassess_motivations": (
        "mope",
        reassess_motivations(CONSUMER),
        reassess_examples(CONSUMER),
        {
            "shopper": "nothing known",
            "history": HISTORY,
            "inferred": "1. durability (strong): lasts\n2. value (weak): thrift",
        },
    ),
    "distill_traits": ("mote", DistillTraits, TRAITS, {"product": "Blue teapot\nKitchen > Tea\nHolds 1 litre."}),
    "score_candidate": (
        "mar",
        score_candidate("profile", "traits"),
        RATINGS,
        {"shopper": PROFILE, "product": TRAIT_TEXT},
    ),
    "score_candidate_raw": (
        "mar",
        score_candidate("history", "description"),
        RATINGS,
        {"shopper": HISTORY, "product": "Blue teapot | Kitchen > Tea"},
    ),
    "rank_candidates": (
        "mar",
        rank_candidates("profile", "traits"),
        RANKINGS,
        {"shopper": PROFILE, "products": PRODUCTS},
    ),
    "rank_candidates_raw": (
        "mar",
        rank_candidates("history", "description"),
        RANKINGS,
        {"shopper": HISTORY, "products": "57: Blue teapot | Kitchen > Tea\n12: Party hats"},
    ),
    "explain_choice": ("mar", ExplainChoice, EXPLANATIONS, {"shopper": PROFILE, "product": TRAIT_TEXT}),
    "check_explanation": (
        "judge",
        CheckExplanation,
        CHECKS,
        {"shopper": PROFILE, "product": TRAIT_TEXT, "reason": "It lasts, as this shopper wants."},
    ),
}
# The paper's preset asks MOPE and MOTE in the chat format; ratings are bare labels whatever the role's adapter is.
PROMPTS: list[tuple[str, AdapterName]] = [
    *((name, adapter) for name in QUESTIONS if not name.startswith("score") for adapter in ("compact", "json")),
    *((name, "chat") for name, question in QUESTIONS.items() if question[0] in ("mope", "mote")),
    *((name, "json") for name in QUESTIONS if name.startswith("score")),
]


def prompt_file(name: str, adapter: AdapterName) -> Path:
    return GOLDEN / f"{name}.{'rating' if name.startswith('score') else adapter}.txt"


@pytest.mark.parametrize(("name", "adapter"), PROMPTS)
def test_the_prompt_is_the_one_that_was_read(name: str, adapter: AdapterName, server: FakeOpenAI) -> None:
    role, signature, demos, inputs = QUESTIONS[name]
    predict = dspy.Predict(signature)
    predict.demos = demos
    with suppress(UnparsableError):  # the fake server answers in JSON alone; what was sent is what counts here
        backends_for(server, adapter).ask(role, predict, **inputs)
    sent = "\n".join(f"<<<{m['role']}>>>\n{m['content']}\n" for m in server.bodies[0]["messages"])
    path = prompt_file(name, adapter)
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(sent, "utf-8")
    assert sent == path.read_text("utf-8"), f"the prompt changed: see {path.name}, and the module's docstring"


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in GOLDEN.glob("*.txt")} == {prompt_file(*prompt).name for prompt in PROMPTS}
