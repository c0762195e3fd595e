"""Ask-ahead: batches answer what a fixed phase of a compile will ask, before it begins; its calls are then cache hits.

What a search asks next depends on the answers so far, so it asks call by call. What the uncompiled program, the
finalists and the held-out check ask is known before they begin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from optimize.prompts import Prompts
from optimize.scoring import EvaluationError, ScoredProgram
from optimize.space import Configuration, ProgramBuilder
from programs.batch.run import BatchRun
from programs.lm.pending import PendingCall
from programs.program import MLLM3Rec, Parts
from signatures.rows import Case


class PlannedScores(NamedTuple):
    """Scores that a phase will need, whatever the others are.

    Attributes:
        configuration: Of the program to score.
        prompts: In place of those that the configuration names; None for those.
        cases: Users to score.
        users: All users of the phase, `cases` among them: a user's profiles are compared with those of the next ones.
        draw: Number of the draw of labels and order.
    """

    configuration: Configuration
    prompts: Prompts | None
    cases: Sequence[Case]
    users: Sequence[Case]
    draw: int = 0

    def program(self, builder: ProgramBuilder) -> MLLM3Rec:
        """The program to score."""
        program = builder.program(self.configuration, self.prompts)
        program.draw = self.draw
        return program


class AskAhead:
    """Batches ahead of the fixed phases of one compile.

    Args:
        batch: Submits the questions, pays for them and waits for the answers.
        parts: Of the compile's programs.
        start: See `ProgramBuilder`.

    Raises:
        InputError: if the model of a role has no batch interface, or no known price there under a dollar budget.
    """

    def __init__(self, batch: BatchRun, parts: Parts, start: Prompts) -> None:
        self.parts = replace(parts, backends=batch.backends(parts.backends.roles))
        self._batch = batch
        self._builder = ProgramBuilder(self.parts, start=start)

    def ask(
        self,
        planned: Iterable[PlannedScores],
        scorable: Callable[[MLLM3Rec, Sequence[Case]], ScoredProgram],
    ) -> None:
        """Have all questions of the planned scores answered, in waves.

        What the provider refuses is left to the phase, which asks it again by itself and reports it.

        Args:
            scorable: Makes a program scorable among the users of its phase.

        Raises:
            BudgetExceededError: before a wave that might exceed the budget is submitted.
            WaveWritten: after questions were written to a file.
        """
        programs = [(scorable(one.program(self._builder), one.users), one.cases) for one in planned]

        def wave() -> None:
            for program, cases in programs:
                for case in cases:
                    try:
                        program(case=case)
                    except (PendingCall, EvaluationError):
                        continue

        self._batch.until_answered(wave)
