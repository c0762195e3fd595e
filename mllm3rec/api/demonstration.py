"""The demonstration on the demo store: recommend to one user, compile, and compare before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluate.data.dataset import Dataset
from evaluate.data.demo.planted_truth import PLANTED_TRUTH
from evaluate.data.load import load_dataset
from evaluate.protocol.cases import Cases, draw_cases
from evaluate.ranker_factory import BASELINES
from evaluate.runs.evaluation import Evaluation
from evaluate.stats.intervals import Difference
from evaluate.stats.power import sample_size
from mllm3rec.api.compilation import compile_program
from mllm3rec.api.evaluation import evaluate
from mllm3rec.api.program import load_artifact, program
from mllm3rec.api.recommendation import Recommendations
from optimize.artifact import SEARCH_FOLDER, ArtifactManifest
from optimize.candidates import Candidates
from optimize.compiler import POOLS
from optimize.freezing import TRIALS
from optimize.objective import UserScore
from optimize.prompt_changes import PromptChange, prompt_changes
from optimize.prompts import prompts_of
from optimize.space import Configuration, chosen_prompts
from programs.copies import Examples, Repeated, repeated_motivations, repeated_traits
from programs.lm.model_options import Model
from programs.runtime.config_file import read_json
from programs.runtime.events import Note, OnEvent, ignore

_PROGRAM, _HEAD = "embedding-without-reflection", 10
"""Fast enough for a small model on two cores: one short call per user and per item, and no lists to rank."""

BEFORE, AFTER = "before", "after"

_USER, _ITEMS = "S0001", 5
_METRIC, _WORTHWHILE = "NDCG@10", 0.05
"""The metric that before and after are compared by, and the smallest gain in it that matters."""


@dataclass(frozen=True)
class Tried:
    """One program of the search.

    Attributes:
        score: Mean over the dev users of the search; None if the trial failed.
        scores: Of each of these users.
    """

    number: int
    configuration: Configuration
    score: float | None
    scores: tuple[UserScore, ...] = ()


@dataclass(frozen=True)
class Demonstration:
    """Results of the demonstration.

    Attributes:
        user: Recommendations of the uncompiled program for one user.
        manifest: Manifest of the compiled program.
        tried: All programs of the search, the uncompiled one first.
        compared: Number of the program in `tried` whose prompts are shown in `changes`: the winner, or, if that is the
            uncompiled program, the best one with other prompts.
        changes: Changes of the prompts against the uncompiled program, by predictor.
        results: Results of the baselines, of `before`, of `after`, and of the planted motivations as profiles.
        gain: After minus before, by metric.
        motivations, traits: How many motivations and traits of `before` and `after` repeat demos in the prompts.
    """

    user: Recommendations
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
        """Whether all rankers ranked all users."""
        return all(result.complete for result in self.results.values())

    @property
    def gained(self) -> bool:
        """Whether the compiled program is significantly better on the test users."""
        return self._gain[1].low > 0

    @property
    def conclusion(self) -> str:
        """One sentence: whether compiling improved the program."""
        name, found = self._gain
        figure = f"{name} {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}] on {found.n} test users"
        if self.manifest.trial == 0:
            others = self.manifest.trials - 1
            return f"Compiling gained nothing: no other program scored higher than the uncompiled one ({others} tried)."
        if self.manifest.gate is not None:
            figure += f"; with a gate: {self.manifest.gate.text}"
        elif any(one.number == 0 and one.configuration.weight != self.manifest.weight for one in self.tried):
            figure += f"; the fusion weight is now {self.manifest.weight:g}"
        if self.gained:
            return f"Compiling gained: {figure}."
        return f"Compiling gained nothing that is significant: {figure}."

    @property
    def needed(self) -> str:
        """One sentence: what is needed for a measurable gain."""
        before, after, prior, planted = (
            self.results[name].per_user[_METRIC] for name in (BEFORE, AFTER, "prior", PLANTED_TRUTH)
        )
        # A program that gains so much changes more lists than one that hardly differs from the uncompiled one or the
        # prior: the spread is at least that of right profiles.
        changes = [after - before, prior - before, planted - prior]
        spread = max(float(change.std(ddof=1)) for change in changes) if len(before) > 1 else 0.0
        users = "several hundred"
        if spread > 0:
            users = f"{sample_size(spread, _WORTHWHILE).users:,}"
        return (
            "Needed for a gain: a larger model that does not copy its demos (--model, see docs/models.md) and dozens "
            f"of dev users. Needed to measure a gain of {_WORTHWHILE} in {_METRIC}: {users} test users."
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
    """Recommend to one user, compile, and compare before and after. The same call resumes.

    Args:
        out: Folder of cases, runs and the artifact.
        users, dev_users: Number of test users to compare on, and of dev users to compile on.
        trials: Number of programs to try.
        model: Model of every role; None for the small model in this process.
        on_user: Receives the recommendations for one user as soon as they are made.
    """
    data = load_dataset("demo")
    dev, test = _cases(data, out / "dev.jsonl", "dev", dev_users), _cases(data, out / "test.jsonl", "test", users)
    original = program(_PROGRAM, data, preset="local", model=model, head=_HEAD, on_event=on_event)
    on_event(Note(f"1 of 3: recommending to user {_USER} with the uncompiled program {_PROGRAM}"))
    user = original.recommend(user=_USER, k=_ITEMS, candidates=_HEAD)
    on_user(user)
    on_event(Note(f"2 of 3: compiling MOPE's prompt: {trials} programs on {dev_users} dev users"))
    compiled = compile_program(
        dev,
        original,
        out=out / "artifact",
        trials=trials,
        # A new prompt of MOTE needs a call for every item, and coherence needs three more calls per user. On two
        # cores each takes minutes.
        modules=("mope",),
        coherence=0.0,
        # The deterministic engine takes three times as long.
        deterministic=False,
        demo_sets=1,
        max_demos=2,
        wordings=1,
        reflections=0,
        on_event=on_event,
    )
    manifest = compiled.manifest
    assert manifest is not None  # noqa: S101 - a compiled program has one
    on_event(Note(f"3 of 3: comparing before and after on {len(test)} test users"))
    results = {name: evaluate(test, name, out=out / name) for name in BASELINES}
    results[PLANTED_TRUTH] = evaluate(test, PLANTED_TRUTH, head=_HEAD, out=out / PLANTED_TRUTH)
    results[BEFORE] = evaluate(test, original, out=out / BEFORE, on_event=on_event)
    artifact = load_artifact(out / "artifact", data, model=model)
    results[AFTER] = evaluate(test, artifact, name=f"compiled {_PROGRAM}", out=out / AFTER, on_event=on_event)
    tried = _tried(out / "artifact" / SEARCH_FOLDER)
    pools = Candidates.load(out / "artifact" / SEARCH_FOLDER / POOLS)
    prompts = prompts_of(original.module)
    others = {one.number: prompts | chosen_prompts(one.configuration, pools) for one in tried}
    reworded = [one for one in tried if others[one.number] != prompts]
    compared = manifest.trial or max(reworded, key=lambda one: one.score or 0.0, default=tried[0]).number
    examples = {BEFORE: Examples.of(original.module), AFTER: Examples.of(artifact.module)}
    return Demonstration(
        user=user,
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


def _cases(data: Dataset, path: Path, part: str, users: int) -> Cases:
    cases = draw_cases(data, part=part, users=users)
    cases.save(path)
    return cases
