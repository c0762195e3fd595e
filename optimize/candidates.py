"""The candidates of a search, built once and kept as JSON: demonstration sets and wordings for every module."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import dspy
from dspy.teleprompt.utils import create_n_fewshot_demo_sets
from pydantic import BaseModel, ConfigDict, ValidationError

from optimize.labeled_demos import labelled_demos
from optimize.objective import Objective, UserScore
from optimize.prompts import Demo, Prompt, Prompts, module_of, plain_demo, prompts_of, safe
from optimize.proposals import adjusted, grounded
from optimize.scoring import ScoredProgram, scored
from programs.lm.adapters import AdapterName
from programs.mote import MOTE
from programs.program import MLLM3Rec
from programs.runtime.atomic import write_atomically
from programs.runtime.errors import input_error
from programs.trait_store import TraitStore
from signatures.rows import Case
from signatures.schema import MotivationSchema

ORIGINAL = "original"
DIVERGENT_SHOPPERS = 3
CANDIDATES_FORMAT: Literal["mllm3rec-pools/1"] = "mllm3rec-pools/1"


class DemoSet(BaseModel):
    """Demonstrations for all predictors of a module that were made together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    demos: dict[str, tuple[Demo, ...]]


class Wording(BaseModel):
    """Instructions for some or all predictors of a module; the others keep theirs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    instructions: dict[str, str]


class Pool(BaseModel):
    """What may be chosen for one module; the first of each is the uncompiled program's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    demos: tuple[DemoSet, ...]
    wordings: tuple[Wording, ...]

    def prompts(self, demos: str, wording: str) -> Prompts:
        """The prompts of this module for one choice.

        Raises:
            KeyError: if there is no set or wording of that name.
        """
        chosen = {one.name: one for one in self.demos}[demos].demos
        words = self.wordings[0].instructions | {one.name: one for one in self.wordings}[wording].instructions
        return {name: Prompt(instructions=words[name], demos=chosen[name]) for name in chosen}


class Candidates(BaseModel):
    """The pool of every module: `mope`, `mote`, and MAR's under the name of each ranking family."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["mllm3rec-pools/1"] = CANDIDATES_FORMAT
    modules: dict[str, Pool]

    def save(self, path: Path) -> None:
        """Write atomically, readable and editable."""
        write_atomically(path, self.model_dump_json(indent=1).encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> Candidates:
        """Read what `save` wrote.

        Raises:
            InputError: if it is no such file.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise input_error(path, error, "delete it to build the pools again") from None


class Recipe(BaseModel):
    """How pools are made.

    Attributes:
        demo_sets: Sets to bootstrap per module.
        max_demos: Demonstrations in a set, at most.
        wordings: Instructions to propose per predictor, the adjusted one of MOPE not counted.
        seed: Decides which shoppers the sets are made of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    demo_sets: int = 2
    max_demos: int = 3
    wordings: int = 2
    seed: int = 0


class _Untold(TraitStore):
    """Remembers nothing, so that MOTE asks: what comes out of a store leaves no trace to make a demonstration of."""

    def get(self, key: str) -> None:
        return None

    @property
    def memo(self) -> dict[str, Any]:
        return {}


def without_trait_cache(program: MLLM3Rec) -> MLLM3Rec:
    """A copy whose MOTE asks every time, so that optimizers find its answers in their traces; the calls are stored."""
    copy: MLLM3Rec = program.deepcopy()
    if isinstance(copy.product, MOTE):
        copy.product.store = _Untold()
    return copy


def examples_of(cases: Sequence[Case]) -> list[dspy.Example]:
    """Cases as DSPy's optimizers take them."""
    return [dspy.Example(case=case).with_inputs("case") for case in cases]


def build_candidates(
    programs: Mapping[str, ScoredProgram],
    cases: Sequence[Case],
    objective: Objective,
    recipe: Recipe,
    proposer: dspy.LM,
    adapter: AdapterName,
    schema: MotivationSchema,
    modules: Sequence[str],
    workers: int = 1,
    on_step: Callable[[str, int], None] = lambda step, total: None,
    on_score: Callable[[UserScore], None] | None = None,
) -> Candidates:
    """Bootstrap demonstrations and propose instructions for the modules that are to be tuned.

    Every question asked here is one the search or its first trial would ask as well, but for the proposals: with
    the call store a second call costs nothing.

    Args:
        programs: The uncompiled program of every ranking family in the search, judged.
        cases: Dev shoppers of the search, never those it is checked on.
        proposer: Writes instructions.
        modules: `mope`, `mote`, `mar`: what is tuned; the others have a pool of one.
        on_step: Told what is being done, and of how many shoppers that are scored (0: not known).
        on_score: Gets every score.
    """
    pools: dict[str, Pool] = {}
    for family, judged in programs.items():
        on_step(f"{family}: scoring the uncompiled program", len(cases))
        scores = scored(judged, cases, objective, workers, on_score)
        on_step(f"{family}: bootstrapping demonstrations", 0)
        sets = _bootstrapped(judged, cases, objective, recipe)
        originals = prompts_of(judged.program)
        by_module: dict[str, list[str]] = {}
        for name in originals:
            if (module := module_of(name, family)) is not None and module not in pools:
                by_module.setdefault(module, []).append(name)
        for module, names in by_module.items():
            demos = [DemoSet(name=ORIGINAL, demos={name: originals[name].demos for name in names})]
            wordings = [Wording(name=ORIGINAL, instructions={name: originals[name].instructions for name in names})]
            if ("mar" if module == family else module) in modules:
                demos += _sets_for(names, sets, originals)
                if module == family:
                    demos += _labelled(judged.program, cases, names, recipe)
                on_step(f"{module}: proposing instructions", 0)
                wordings += _worded(judged, names, demos, recipe, proposer, adapter, schema)
                if module == "mope":
                    wordings += _adjusted(judged, cases, scores, names[0], proposer, adapter, schema)
            pools[module] = Pool(demos=tuple(demos), wordings=tuple(wordings))
    return Candidates(modules=pools)


def _bootstrapped(judged: ScoredProgram, cases: Sequence[Case], objective: Objective, recipe: Recipe) -> list[Prompts]:
    student = judged.deepcopy()
    student.program = without_trait_cache(student.program)
    with contextlib.redirect_stdout(io.StringIO()):  # DSPy prints; stdout belongs to results
        found = create_n_fewshot_demo_sets(
            student,
            num_candidate_sets=recipe.demo_sets,
            trainset=examples_of(cases),
            max_labeled_demos=0,
            max_bootstrapped_demos=recipe.max_demos,
            metric=objective.metric,
            teacher_settings={},
            include_non_bootstrapped=False,
            seed=recipe.seed + 1,
        )
    names = [name.removeprefix("program.") for name, _ in student.named_predictors()]
    predictors = dict(student.program.named_predictors())
    return [
        {
            name: Prompt(
                instructions="",
                demos=tuple(safe(plain_demo(demo, predictors[name].signature) for demo in found[at][number])),
            )
            for at, name in enumerate(names)
        }
        for number in range(recipe.demo_sets)
    ]


def _sets_for(names: Sequence[str], sets: Sequence[Prompts], originals: Prompts) -> list[DemoSet]:
    kept: list[DemoSet] = []
    for found in sets:
        demos = {name: found[name].demos for name in names}
        if any(demos.values()) and all(demos != one.demos for one in kept):
            # A predictor without a good run in this set keeps its worked examples.
            whole = {name: demos[name] or originals[name].demos for name in names}
            kept.append(DemoSet(name=f"bootstrapped-{len(kept) + 1}", demos=whole))
    return kept


def _labelled(program: MLLM3Rec, cases: Sequence[Case], names: Sequence[str], recipe: Recipe) -> list[DemoSet]:
    examples = labelled_demos(program, cases, recipe.seed)
    (name,) = names
    signature = dict(program.named_predictors())[name].signature
    demos = safe(plain_demo(example, signature) for example in examples)[: recipe.max_demos]
    return [DemoSet(name="labelled", demos={name: tuple(demos)})] if demos else []


def _worded(
    judged: ScoredProgram,
    names: Sequence[str],
    demos: Sequence[DemoSet],
    recipe: Recipe,
    proposer: dspy.LM,
    adapter: AdapterName,
    schema: MotivationSchema,
) -> list[Wording]:
    found = {
        name: grounded(
            judged.program,
            name,
            [one.demos[name] for one in demos[1:]],
            recipe.wordings,
            proposer,
            adapter,
            schema,
            recipe.seed + at,
        )
        for at, name in enumerate(names)
    }
    return [
        Wording(
            name=f"proposed-{number + 1}",
            instructions={name: words[number] for name, words in found.items() if number < len(words)},
        )
        for number in range(max(map(len, found.values()), default=0))
    ]


def _adjusted(
    judged: ScoredProgram,
    cases: Sequence[Case],
    scores: Sequence[UserScore],
    predictor: str,
    proposer: dspy.LM,
    adapter: AdapterName,
    schema: MotivationSchema,
) -> list[Wording]:
    by_user = {case.user_id: case for case in cases}
    diverging = sorted((s for s in scores if s.coherence is not None), key=lambda s: s.coherence or 0.0)
    shown = []
    for score in diverging[:DIVERGENT_SHOPPERS]:
        case = by_user[score.user_id]
        items = judged.program.catalogue.value
        history = [(items[i.item_id], i) for i in case.history if i.item_id in items]
        shown.append((history, judged(case=case).own))
    present = prompts_of(judged.program)[predictor].instructions
    words = adjusted(present, judged.program, predictor, shown, proposer, adapter, schema)
    return [Wording(name="adjusted", instructions={predictor: text}) for text in words]
