"""Candidates of a prompt search: demo sets and instructions for every module, built once and kept as JSON."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import dspy
from dspy.teleprompt.utils import create_n_fewshot_demo_sets
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from optimize.feedback import REFLECTED_USERS
from optimize.labeled_demos import labeled_demos
from optimize.objective import Objective, UserScore
from optimize.prompts import Demo, Prompt, Prompts, module_of, plain_demo, prompts_of, safe
from optimize.proposals import Proposer
from optimize.scoring import ScoredProgram, score_cases
from programs.mote import MOTE
from programs.program import MLLM3Rec
from programs.runtime.atomic import write_atomically
from programs.runtime.errors import InputError, input_error
from programs.runtime.interrupts import map_in_threads
from programs.runtime.untrusted import read_untrusted
from programs.trait_store import TraitStore
from signatures.rows import Case

ORIGINAL = "original"
DIVERGENT_USERS = 3
CANDIDATES_FORMAT: Literal["mllm3rec-pools/1"] = "mllm3rec-pools/1"


class DemoSet(BaseModel):
    """Demos for all predictors of a module."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    demos: dict[str, tuple[Demo, ...]]


class InstructionSet(BaseModel):
    """Instructions for some or all predictors of a module; the others keep theirs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    instructions: dict[str, str]


class Pool(BaseModel):
    """The candidates for one module; the first of each list is from the uncompiled program."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    demos: tuple[DemoSet, ...]
    wordings: tuple[InstructionSet, ...]

    def prompts(self, demos: str, instructions: str) -> Prompts:
        """The prompts of this module with the demo set and the instruction set of these names.

        Raises:
            KeyError: if there is no set of that name.
        """
        demo_sets = {candidate.name: candidate.demos for candidate in self.demos}
        instruction_sets = {candidate.name: candidate.instructions for candidate in self.wordings}
        texts = self.wordings[0].instructions | instruction_sets[instructions]
        return {name: Prompt(instructions=texts[name], demos=own) for name, own in demo_sets[demos].items()}


class Candidates(BaseModel):
    """The pools of all modules, and which of them each program draws from.

    Attributes:
        modules: By name: `mope`, `mote`, and MAR's under the name of each program. A program whose MOPE or MOTE has
            other prompts than those of the programs before has a pool of its own, such as `mope.needs`.
        programs: Names of the pools of each program; empty in compiles from before programs had pools of their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["mllm3rec-pools/1"] = CANDIDATES_FORMAT
    modules: dict[str, Pool]
    programs: dict[str, tuple[str, ...]] = {}

    def of(self, program: str) -> dict[str, Pool]:
        """The pools of a program by name: of MOPE, of MOTE, and of MAR, as far as it has them."""
        names = self.programs.get(program, ("mope", "mote", program))
        return {name: self.modules[name] for name in names if name in self.modules}

    def refuse_foreign(self, programs: Mapping[str, MLLM3Rec], path: Path) -> None:
        """Refuse candidates of an older version that give a program the prompts of another one.

        Args:
            programs: The uncompiled programs of the search, by name.
            path: Where the candidates were read, for the message.

        Raises:
            InputError: naming the program.
        """
        if self.programs or len(programs) == 1:
            return
        for name, program in programs.items():
            own = prompts_of(program)
            for pool in self.of(name).values():
                if any(own.get(one) != prompt for one, prompt in pool.prompts(ORIGINAL, ORIGINAL).items()):
                    raise InputError(
                        f"{path}: an older version gave {name} the prompts of another program; choose another --out"
                    )

    def save(self, path: Path) -> None:
        """Write atomically, as JSON that can be read and edited."""
        write_atomically(path, self.model_dump_json(indent=1).encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> Candidates:
        """Read a file that `save` wrote.

        Raises:
            InputError: if it is not a regular file, or not a valid one of candidates.
        """
        try:
            return cls.model_validate_json(read_untrusted(path))
        except ValidationError as error:
            raise input_error(path, error, "delete it to build the candidates again") from None


class CandidateSettings(BaseModel):
    """How candidates are made.

    Attributes:
        demo_sets: Number of demo sets to bootstrap for each module.
        max_demos: Most demos in a set.
        wordings: Number of instructions to propose for each predictor, without the adjusted one of MOPE.
        reflections: Number of instructions to write for each predictor from what came of it for a batch of users;
            compiles from before there were any have none.
        seed: Random seed of the users whose answers become demos.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    demo_sets: int = Field(default=2, ge=0, le=1000)
    max_demos: int = Field(default=3, ge=1, le=1000)
    wordings: int = Field(default=2, ge=0, le=1000)
    reflections: int = Field(default=0, ge=0, le=1000)
    seed: int = 0


class _NoTraitStore(TraitStore):
    """Always empty, so that MOTE calls the model: only calls leave traces, and demos are made from traces."""

    def get(self, key: str) -> None:
        return None

    @property
    def memo(self) -> dict[str, Any]:
        return {}


def without_trait_store(program: MLLM3Rec) -> MLLM3Rec:
    """A copy whose MOTE always calls the model (or the response cache), so that its answers are in traces."""
    copy: MLLM3Rec = program.deepcopy()
    if isinstance(copy.product, MOTE):
        copy.product.store = _NoTraitStore()
    return copy


def dspy_examples(cases: Sequence[Case]) -> list[dspy.Example]:
    """Cases as examples for DSPy's optimizers."""
    return [dspy.Example(case=case).with_inputs("case") for case in cases]


def original_candidates(programs: Mapping[str, MLLM3Rec]) -> Candidates:
    """The original prompts alone: one pool for each module, which programs share where it is the same in them.

    Args:
        programs: The uncompiled programs of the search, by name.
    """
    pools: dict[str, Pool] = {}
    fields: dict[str, list[list[str]]] = {}
    of_programs: dict[str, tuple[str, ...]] = {}
    for program_name, program in programs.items():
        originals, predictors = prompts_of(program), dict(program.named_predictors())
        by_module: dict[str, list[str]] = {}
        for name in originals:
            if (module := module_of(name, program_name)) is not None:
                by_module.setdefault(module, []).append(name)
        own = []
        for module, names in by_module.items():
            demos = DemoSet(name=ORIGINAL, demos={name: originals[name].demos for name in names})
            texts = InstructionSet(name=ORIGINAL, instructions={name: originals[name].instructions for name in names})
            pool, read = Pool(demos=(demos,), wordings=(texts,)), [list(predictors[n].signature.fields) for n in names]
            alike = [
                other
                for other, known in pools.items()
                if kind_of(other) == module and known == pool and fields[other] == read
            ]
            name = alike[0] if alike else f"{module}.{program_name}" if module in pools else module
            pools[name], fields[name] = pool, read
            own.append(name)
        of_programs[program_name] = tuple(own)
    return Candidates(modules=pools, programs=of_programs)


def kind_of(pool: str) -> str:
    """The module of a pool: `mope`, `mote`, or MAR under the name of its program.

    >>> kind_of("mope.needs"), kind_of("listwise")
    ('mope', 'listwise')
    """
    return pool.partition(".")[0]


def build_candidates(
    programs: Mapping[str, ScoredProgram],
    cases: Sequence[Case],
    objective: Objective,
    settings: CandidateSettings,
    proposer: Proposer,
    modules: Sequence[str],
    *,
    workers: int = 1,
    on_step: Callable[[str, int], None] = lambda step, total: None,
    on_score: Callable[[UserScore], None] | None = None,
) -> Candidates:
    """Bootstrap demos and propose instructions for the modules to tune.

    Except for the proposals, the first trial of the search needs the same calls, which are then cache hits.

    Args:
        programs: The uncompiled programs of the search, by name.
        cases: Dev users of the search, without the held-out ones.
        modules: Modules to tune, of `mope`, `mote`, `mar`; the others keep their original prompts.
        on_step: Receives the name of each step and the number of users that it scores (0 if unknown).
        on_score: Receives the score of each user.

    Raises:
        InputError: if no answer of an uncompiled program could be read.
    """
    originals = original_candidates({name: scored.program for name, scored in programs.items()})
    pools: dict[str, Pool] = {}
    for program_name, program in programs.items():
        on_step(f"{program_name}: scoring the uncompiled program", len(cases))
        scores = score_cases(program, cases, objective, workers, on_score)
        if all(score.unreadable for score in scores):
            raise InputError(
                f"{program_name}: no answer of the models could be read for any of {len(cases)} users, so there is "
                "nothing to compile; see what they answer with `mllm3rec evaluate`"
            )
        on_step(f"{program_name}: bootstrapping demos", 0)
        bootstrapped = _bootstrapped(program, cases, objective, settings)
        for module, original in originals.of(program_name).items():
            if module in pools:
                continue
            kind, is_mar = kind_of(module), module == program_name
            demos, instructions = list(original.demos), list(original.wordings)
            names = list(instructions[0].instructions)
            if ("mar" if is_mar else kind) in modules:
                demos += _demo_sets(names, bootstrapped, prompts_of(program.program))
                if is_mar:
                    demos += _labeled(program.program, cases, names, settings)
                on_step(f"{module}: proposing instructions", 0)
                instructions += _proposed(program.program, names, demos[1:], settings, proposer)
                if kind == "mope":
                    instructions += _adjusted(program, cases, scores, names[0], proposer)
                if settings.reflections:
                    on_step(f"{module}: reflecting on what came of it for users", 0)
                    instructions += _reflected(program, cases, objective, names, settings, proposer, workers)
            pools[module] = Pool(demos=tuple(demos), wordings=tuple(instructions))
    return originals.model_copy(update={"modules": pools})


def _bootstrapped(
    program: ScoredProgram, cases: Sequence[Case], objective: Objective, settings: CandidateSettings
) -> list[Prompts]:
    student = program.deepcopy()
    student.program = without_trait_store(student.program)
    with contextlib.redirect_stdout(io.StringIO()):  # DSPy prints; stdout belongs to results
        demos_by_predictor = create_n_fewshot_demo_sets(
            student,
            num_candidate_sets=settings.demo_sets,
            trainset=dspy_examples(cases),
            max_labeled_demos=0,
            max_bootstrapped_demos=settings.max_demos,
            metric=objective.metric,
            teacher_settings={},
            include_non_bootstrapped=False,
            seed=settings.seed + 1,
        )
    names = [name.removeprefix("program.") for name, _ in student.named_predictors()]
    predictors = dict(student.program.named_predictors())
    return [
        {
            name: Prompt(
                instructions="",
                demos=tuple(
                    safe(plain_demo(demo, predictors[name].signature) for demo in demos_by_predictor[index][number])
                ),
            )
            for index, name in enumerate(names)
        }
        for number in range(settings.demo_sets)
    ]


def _demo_sets(names: Sequence[str], bootstrapped: Sequence[Prompts], originals: Prompts) -> list[DemoSet]:
    """The bootstrapped demo sets of a module, without duplicates and empty ones."""
    kept: list[dict[str, tuple[Demo, ...]]] = []
    for prompts in bootstrapped:
        demos = {name: prompts[name].demos for name in names}
        # A predictor without a bootstrapped demo keeps its original ones.
        whole = {name: demos[name] or originals[name].demos for name in names}
        if any(demos.values()) and whole not in kept:
            kept.append(whole)
    return [DemoSet(name=f"bootstrapped-{number}", demos=demos) for number, demos in enumerate(kept, start=1)]


def _labeled(
    program: MLLM3Rec, cases: Sequence[Case], names: Sequence[str], settings: CandidateSettings
) -> list[DemoSet]:
    examples = labeled_demos(program, cases, settings.seed)
    (name,) = names
    signature = dict(program.named_predictors())[name].signature
    demos = safe(plain_demo(example, signature) for example in examples)[: settings.max_demos]
    return [DemoSet(name="labelled", demos={name: tuple(demos)})] if demos else []


def _proposed(
    program: MLLM3Rec, names: Sequence[str], demos: Sequence[DemoSet], settings: CandidateSettings, proposer: Proposer
) -> list[InstructionSet]:
    proposals = {
        name: proposer.propose(
            program, name, [candidate.demos[name] for candidate in demos], settings.wordings, settings.seed + index
        )
        for index, name in enumerate(names)
    }
    return [
        InstructionSet(
            name=f"proposed-{number + 1}",
            instructions={name: texts[number] for name, texts in proposals.items() if number < len(texts)},
        )
        for number in range(max(map(len, proposals.values()), default=0))
    ]


def _reflected(
    program: ScoredProgram,
    cases: Sequence[Case],
    objective: Objective,
    names: Sequence[str],
    settings: CandidateSettings,
    proposer: Proposer,
    workers: int,
) -> list[InstructionSet]:
    """Instructions of a module rewritten after what came of it for batches of users; proposals are made in parallel."""
    size = min(REFLECTED_USERS, len(cases))
    step = max(1, len(cases) // max(1, settings.reflections))
    batches = [
        [objective.outcome(case, program(case=case)) for case in _batch(cases, number * step, size)]
        for number in range(settings.reflections)
    ]
    tasks = [(name, batch) for batch in batches for name in names]
    texts = list(
        map_in_threads(
            lambda task: proposer.reflect(program.program, task[0], task[1]), tasks, workers, program.ledger.stop
        )
    )
    sets = []
    for number in range(settings.reflections):
        own = texts[number * len(names) : (number + 1) * len(names)]
        instructions = {name: written[0] for name, written in zip(names, own, strict=True) if written}
        if instructions:
            sets.append(InstructionSet(name=f"reflected-{number + 1}", instructions=instructions))
    return sets


def _batch(cases: Sequence[Case], start: int, size: int) -> list[Case]:
    """The next `size` users of the list (cyclic)."""
    return [cases[(start + step) % len(cases)] for step in range(size)]


def _adjusted(
    program: ScoredProgram, cases: Sequence[Case], scores: Sequence[UserScore], predictor: str, proposer: Proposer
) -> list[InstructionSet]:
    """MOPE's instruction rewritten for the users with the least coherent profiles."""
    by_user = {case.user_id: case for case in cases}
    diverging = sorted((s for s in scores if s.coherence is not None), key=lambda s: s.coherence or 0.0)
    divergences = []
    for score in diverging[:DIVERGENT_USERS]:
        case = by_user[score.user_id]
        divergences.append((program.program.purchases(case), program(case=case).own))
    texts = proposer.adjust(program.program, predictor, divergences)
    return [InstructionSet(name="adjusted", instructions={predictor: text}) for text in texts]
