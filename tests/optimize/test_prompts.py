"""Prompts of a program: read, replaced, and plain demos."""

from __future__ import annotations

from pathlib import Path

from optimize.prompts import plain_demo, prompts_of, with_prompts
from programs.program import PROGRAMS
from tests.support.backends import roles_on
from tests.support.cases import cases_file
from tests.support.compile_setup import compiler
from tests.support.fake_server import FakeOpenAI


def test_prompts_go_in_and_come_out_unchanged(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    with FakeOpenAI() as server:
        made = compiler(tmp_path / "art", cases, roles_on(server))
    program = PROGRAMS["pointwise"](made.parts)
    prompts = prompts_of(program)
    assert prompts_of(with_prompts(program, prompts)) == prompts
    other = {name: p.model_copy(update={"instructions": f"New: {name}", "demos": ()}) for name, p in prompts.items()}
    changed = with_prompts(program, other)
    assert prompts_of(changed) == other
    assert prompts_of(program) == prompts, "the original is left as it was"


def test_plain_demos_hold_the_fields_of_their_signature_only(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 4)
    with FakeOpenAI() as server:
        made = compiler(tmp_path / "art", cases, roles_on(server))
    predictor = PROGRAMS["pointwise"](made.parts).aligner.score.predict
    demo = {"shopper": "s", "product": "p", "rating": "5", "logprobs": {"x": 1}, "augmented": True}
    assert plain_demo(demo, predictor.signature) == {"shopper": "s", "product": "p", "rating": "5"}
