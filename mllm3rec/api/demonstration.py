"""The demonstration: one user, then a compile on the demo store, then the program before and after on test users."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluate.data.dataset import Dataset
from evaluate.data.load import load_dataset
from evaluate.protocol.cases import Cases, draw_cases
from evaluate.ranker_factory import BASELINES
from evaluate.runs.evaluation import Evaluation
from evaluate.stats.intervals import Difference
from evaluate.stats.power import sample_size
from mllm3rec.api.compilation import compile_program
from mllm3rec.api.evaluation import evaluate
from mllm3rec.api.program import Program, load_artifact, program
from mllm3rec.api.recommendation import Recommendations
from optimize.artifact import SEARCH_FOLDER, ArtifactManifest
from optimize.candidates import Candidates
from optimize.compiler import POOLS, TRIALS
from optimize.prompt_changes import PromptChange, prompt_changes
from optimize.prompts import prompts_of
from optimize.space import Configuration, chosen_prompts
from programs.copies import Examples, Repeated, repeated_motivations, repeated_traits
from programs.lm.model_options import Model
from programs.runtime.config_file import read_json
from programs.runtime.events import Note, OnEvent, ignore

_PROGRAM, _HEAD = "embedding-without-reflection", 10
"""What a small model can do on two cores in minutes: one short call a user, one an item, and no lists to rank."""

BEFORE, AFTER = "before", "after"

_SHARES_OF_MAR = (0.3, 0.1)
"""In the fused score: the default, and a smaller one that costs no further call."""

_USER, _ITEMS = "S0001", 5
_METRIC, _WORTHWHILE = "NDCG@10", 0.05
"""What before and after are judged by, and the smallest gain in it that is worth having."""


@dataclass(frozen=True)
class Tried:
    """One program of the search.

    Attributes:
        score: Mean over the dev users of the search; None where it failed.
    """

    number: int
    configuration: Configuration
    score: float | None


@dataclass(frozen=True)
class Demonstration:
    """What the demonstration found.

    Attributes:
        user: What the uncompiled program recommends to one user.
        share_before: MAR's share in the fused score before compiling.
        manifest: Of the compiled program.
        tried: Every program that was tried, the uncompiled one first.
        compared: Number of the program whose prompts `changes` compares with the original's: the compiled one, or the
            best with other prompts where that is the original.
        changes: What compiling did to the prompts, by predictor, or would have done.
        results: By ranker: the baselines, then `before` and `after`.
        gain: After minus before, by metric.
        motivations, traits: Of `before` and of `after`, how many repeat the worked examples in the prompts.
    """

    user: Recommendations
    share_before: float
    manifest: ArtifactManifest
    tried: tuple[Tried, ...]
    compared: int
    changes: tuple[PromptChange, ...]
    results: Mapping[str, Evaluation]
    gain: Mapping[str, Difference]
    motivations: Mapping[str, Repeated]
    traits: Mapping[str, Repeated]

    @property
    def complete(self) -> bool:
        """Whether every ranker ranked every user."""
        return all(result.complete for result in self.results.values())

    @property
    def gained(self) -> bool:
        """Whether the compiled program is better on the test users, beyond chance."""
        return self._gain[1].low > 0

    @property
    def conclusion(self) -> str:
        """Whether compiling gained anything, in one sentence."""
        name, found = self._gain
        figure = f"{name} {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}] on {found.n} test users"
        if self.manifest.trial == 0:
            others = self.manifest.trials - 1
            return f"Compiling gained nothing: none of {others} programs tried scored higher than the uncompiled one."
        if self.gained:
            return f"Compiling gained: {figure}."
        return f"Compiling gained nothing that can be told from chance: {figure}."

    @property
    def needed(self) -> str:
        """What it would take to gain something, and to see it."""
        changes = self.results[AFTER].per_user[_METRIC] - self.results[BEFORE].per_user[_METRIC]
        spread = float(changes.std(ddof=1)) if len(changes) > 1 else 0.0
        users = "some hundred"
        if spread > 0:
            users = f"{sample_size(spread, _WORTHWHILE).users:,}"
        return (
            "What it would take: a larger model, which answers instead of copying (--model gguf:FILE or a server, "
            f"docs/models.md), some dozen dev users, and {users} test users, with which a gain of {_WORTHWHILE} in "
            f"{_METRIC} could be told from chance."
        )

    @property
    def _gain(self) -> tuple[str, Difference]:
        return next((name, found) for name, found in self.gain.items() if name.startswith(_METRIC))


def demonstrate(
    out: Path,
    users: int = 20,
    dev_users: int = 8,
    trials: int = 3,
    model: Model | None = None,
    on_event: OnEvent = ignore,
    on_user: Callable[[Recommendations], None] = lambda found: None,
) -> Demonstration:
    """Show one user, compile, freeze and compare on the demo store; the same call resumes.

    Args:
        out: Where cases, runs and the artifact go.
        users, dev_users: Test users to compare on, and dev users to compile on.
        trials: Programs to try.
        model: For every role; the embedded model unless given.
        on_user: Gets the recommendations for one user as soon as they are there.
    """
    data = load_dataset("demo")
    dev, test = _cases(data, out / "dev.jsonl", "dev", dev_users), _cases(data, out / "test.jsonl", "test", users)
    original = program(_PROGRAM, data, preset="local", model=model, head=_HEAD, on_event=on_event)
    on_event(Note(f"1 of 3: user {_USER}, with the program {_PROGRAM} as it was written"))
    user = original.recommend(user=_USER, k=_ITEMS, candidates=_HEAD)
    on_user(user)
    on_event(Note(f"2 of 3: compiling MOPE's prompt on {dev_users} dev users, {trials} programs to try"))
    compiled = compile_program(
        dev,
        original,
        out=out / "artifact",
        trials=trials,
        # A new prompt of MOTE would distil every item again, and profiles of single purchases (coherence) would
        # be three calls a user more: minutes each, on two cores.
        modules=("mope",),
        coherence=0.0,
        weights=_SHARES_OF_MAR,
        demo_sets=1,
        max_demos=2,
        wordings=1,
        on_event=on_event,
    )
    manifest = compiled.manifest
    assert manifest is not None  # noqa: S101 - a compiled program has one
    on_event(Note(f"3 of 3: {len(test)} test users, with the program before and after"))
    results = {name: evaluate(test, name, out=out / name) for name in BASELINES}
    results[BEFORE] = evaluate(test, original, out=out / BEFORE, on_event=on_event)
    artifact = load_artifact(out / "artifact", data, model=model)
    results[AFTER] = evaluate(test, artifact, name=f"compiled {_PROGRAM}", out=out / AFTER, on_event=on_event)
    tried = _tried(out / "artifact" / SEARCH_FOLDER)
    pools = Candidates.load(out / "artifact" / SEARCH_FOLDER / POOLS)
    prompts = prompts_of(original.module)
    others = {one.number: prompts | chosen_prompts(one.configuration, pools) for one in tried}
    reworded = [one for one in tried if others[one.number] != prompts]
    compared = manifest.trial or max(reworded, key=lambda one: one.score or 0.0, default=tried[0]).number
    examples = {BEFORE: _examples(original), AFTER: _examples(artifact)}
    return Demonstration(
        user=user,
        share_before=original.choice.fusion.weight,
        manifest=manifest,
        tried=tried,
        compared=compared,
        changes=tuple(prompt_changes(prompts, others[compared])),
        results=results,
        gain=results[AFTER].minus(results[BEFORE]),
        motivations={
            name: repeated_motivations((row.profile for row in results[name].rows.values() if row.profile), of)
            for name, of in examples.items()
        },
        traits={
            name: repeated_traits((traits for row in results[name].rows.values() for traits in row.traits), of)
            for name, of in examples.items()
        },
    )


def _tried(search: Path) -> tuple[Tried, ...]:
    tried: list[Tried] = read_json(search / TRIALS, list[Tried], "choose another --out")
    return tuple(tried)


def _examples(one: Program) -> Examples:
    return Examples.of(one.module)


def _cases(data: Dataset, path: Path, part: str, users: int) -> Cases:
    cases = draw_cases(data, part=part, users=users)
    cases.save(path)
    return cases
