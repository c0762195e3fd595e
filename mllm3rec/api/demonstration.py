"""The demonstration: compile on the demo store, then evaluate the program before and after on untouched test users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluate.data.dataset import Dataset
from evaluate.data.load import load_dataset
from evaluate.protocol.cases import Cases, draw_cases
from evaluate.ranker_factory import BASELINES
from evaluate.runs.evaluation import Evaluation
from evaluate.stats.intervals import Difference
from mllm3rec.api.compilation import compile_program
from mllm3rec.api.evaluation import evaluate
from mllm3rec.api.program import load_artifact, program
from optimize.artifact import ArtifactManifest
from programs.lm.model_options import Model
from programs.runtime.events import Note, OnEvent, ignore

# One call of MOPE and a short list: a small model on two cores is asked some 250 times in ten minutes.
PROGRAM, HEAD = "without-reflection", 10
BEFORE, AFTER = "before", "after"


@dataclass(frozen=True)
class Demonstration:
    """What the demonstration found.

    Attributes:
        manifest: Of the compiled program.
        results: By ranker: the baselines, then `before` and `after`.
        gain: After minus before, by metric.
    """

    manifest: ArtifactManifest
    results: Mapping[str, Evaluation]
    gain: Mapping[str, Difference]

    @property
    def complete(self) -> bool:
        """Whether every ranker ranked every user."""
        return all(result.complete for result in self.results.values())


def demonstrate(
    out: Path,
    users: int = 30,
    dev_users: int = 10,
    trials: int = 4,
    model: Model | None = None,
    on_event: OnEvent = ignore,
) -> Demonstration:
    """Compile, freeze and compare on the demo store; the same call resumes.

    Args:
        out: Where cases, runs and the artifact go.
        users, dev_users: Test users to compare on, and dev users to compile on.
        trials: Programs to try.
        model: For every role; the embedded model unless given.
    """
    data = load_dataset("demo")
    dev, test = _cases(data, out / "dev.jsonl", "dev", dev_users), _cases(data, out / "test.jsonl", "test", users)
    original = program(PROGRAM, data, preset="local", model=model, head=HEAD)
    on_event(Note(f"compiling {PROGRAM} on {dev_users} dev users, {trials} trials"))
    compiled = compile_program(
        dev,
        original,
        out=out / "artifact",
        trials=trials,
        demo_sets=1,
        max_demos=2,
        wordings=1,
        interactions=2,
        on_event=on_event,
    )
    assert compiled.manifest is not None  # noqa: S101 - a compiled program has one
    results = {name: evaluate(test, name, out=out / name, on_event=on_event) for name in BASELINES}
    on_event(Note(f"{PROGRAM} before and after, {len(test)} test users"))
    results[BEFORE] = evaluate(test, original, out=out / BEFORE, on_event=on_event)
    artifact = load_artifact(out / "artifact", data, model=model)
    results[AFTER] = evaluate(test, artifact, name=f"compiled {PROGRAM}", out=out / AFTER, on_event=on_event)
    return Demonstration(compiled.manifest, results, results[AFTER].minus(results[BEFORE]))


def _cases(data: Dataset, path: Path, part: str, users: int) -> Cases:
    cases = draw_cases(data, part=part, users=users)
    cases.save(path)
    return cases
