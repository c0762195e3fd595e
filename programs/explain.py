"""Explanations of recommended items, and their faithfulness check by the judge (paper, section 3.3.3)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import dspy

from programs.copies import repeats
from programs.default_demos import CHECKS, EXPLANATIONS
from programs.lm.backends import Backends, UnparsableError
from programs.lm.pending import independent
from programs.lm.roles import RoleName
from programs.mar import Candidate, UserView
from programs.role_predictor import RolePredictor
from programs.runtime.events import OnEvent, Progress, ignore
from programs.seller_text import prompt_line
from signatures.mar import CheckExplanation, ExplainChoice
from signatures.types import Rationale, Verdict

REASON_CHARACTERS = 240
DEFAULT_REASONS = tuple(example.reason for example in EXPLANATIONS)
"""Those in the prompt of a program that was not compiled."""

_REASONS = "reasons"


class Explainer(dspy.Module):
    """Explains an item from its traits and the user's motivations alone, then has the judge check the explanation.

    Args:
        check: Whether the judge checks; without it every rationale counts as faithful.
        writer: The role whose model writes the explanation.
    """

    def __init__(self, backends: Backends | None = None, check: bool = True, writer: RoleName = "mar") -> None:
        super().__init__()
        self.explain = RolePredictor(ExplainChoice, writer, backends, 96, EXPLANATIONS)
        self.judge = RolePredictor(CheckExplanation, "judge", backends, 96, CHECKS) if check else None

    def forward(self, user: UserView, candidate: Candidate) -> Rationale:
        """One rationale with its verdict; an answer that cannot be parsed counts as unfaithful."""
        reason, unparsable = "", 0
        try:
            answer = self.explain(shopper=user.text, product=candidate.text)
            reason, unparsable = prompt_line(answer.reason, REASON_CHARACTERS), answer.unparsable
            if not reason:
                verdict = Verdict(faithful=False, why="no reason given")
            elif self.judge is None:
                verdict = Verdict(faithful=True, why="not checked")
            else:
                check = self.judge(shopper=user.text, product=candidate.text, reason=reason)
                unparsable += check.unparsable
                verdict = Verdict(faithful=check.faithful == "yes", why=prompt_line(check.why, REASON_CHARACTERS))
        except UnparsableError as error:
            unparsable += error.answers
            verdict = Verdict(faithful=False, why=prompt_line(str(error), REASON_CHARACTERS))
        return Rationale(item_id=candidate.item_id, text=reason, verdict=verdict, unparsable=unparsable)

    def choose(
        self, user: UserView, ordered: Sequence[Candidate], k: int, patience: int, on_event: OnEvent = ignore
    ) -> tuple[list[Candidate], list[Rationale]]:
        """The first k candidates with a faithful rationale; the others are moved behind them.

        Args:
            ordered: Candidates, best first.
            patience: Most candidates to explain. If fewer than k rationales are faithful, the best of the other
                explained candidates fill the list, still marked as unfaithful.
            on_event: Gets the number of candidates chosen.

        Returns:
            All of `ordered`, the chosen first, then the others in their order; and every rationale that was made.
        """
        chosen: list[Candidate] = []
        rationales: list[Rationale] = []
        unfaithful = 0
        with independent() as step:
            for tried, candidate in enumerate(ordered[: max(k, patience)]):
                # Without pending calls, until k are chosen; with them, as many as are needed if all are faithful.
                if tried - unfaithful == k:
                    break
                on_event(Progress(_REASONS, len(chosen), k))
                with step():
                    rationale = self(user=user, candidate=candidate)
                    rationales.append(rationale)
                    if rationale.verdict.faithful:
                        chosen.append(candidate)
                    else:
                        unfaithful += 1
        on_event(Progress(_REASONS, k, k))
        failed = {r.item_id for r in rationales if not r.verdict.faithful}
        fill = [c for c in ordered if c.item_id in failed][: max(0, k - len(chosen))]
        first = chosen + fill
        taken = {c.item_id for c in first}
        rest = [c for c in ordered if c.item_id not in taken and c.item_id not in failed]
        filtered = [c for c in ordered if c.item_id in failed and c.item_id not in taken]
        return first + rest + filtered, rationales


def reason_warnings(rationales: Sequence[Rationale], demo_reasons: Collection[str] = DEFAULT_REASONS) -> dict[str, str]:
    """Uninformative reasons: given for another item of the user as well, or copied from the prompt's demos.

    Args:
        rationales: Of one user, in the order in which they were made.
        demo_reasons: The reasons in the prompt's demos. What is nearly one of them counts as copied, too.

    Returns:
        The problem, by item id; items with a reason of their own are absent.
    """
    given = [(rationale.item_id, rationale.text) for rationale in rationales if rationale.text.strip()]
    warnings: dict[str, str] = {}
    for at, (item_id, text) in enumerate(given):
        others = [other for place, (_, other) in enumerate(given) if place != at]
        if repeats(text, demo_reasons):
            warnings[item_id] = "reason copied from a demo in the prompt"
        elif repeats(text, others):
            warnings[item_id] = "the same reason as for another item"
    return warnings
