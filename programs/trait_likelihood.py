"""Aligner of MAR that reads how likely a candidate's traits are after the profile (pointwise mutual information).

A model that is asked for a number invents one; the probability that it gives to the traits themselves needs no answer.
It must be served with log-probabilities of the prompt: `/v1/completions` with `echo` and `logprobs`, as vLLM has it.
"""

from __future__ import annotations

from collections.abc import Sequence

import dspy
import numpy as np

from programs.lm.ambient import AmbientBackends
from programs.lm.backends import Backends, UnparsableError
from programs.lm.roles import RoleName
from programs.lm.routes import PROMPT_LOGPROBS
from programs.mar import Alignments, Candidate, UserView
from signatures.mar import LIKELIHOOD_PROMPT, NOBODY
from signatures.types import Alignment


class TraitLikelihood(dspy.Module):
    """Scores a candidate by mean log p(trait token | profile) less mean log p(trait token | nobody).

    What is subtracted is the same for all users, so that common words and popular kinds of products gain nothing by
    being likely anyway. Both are means over the tokens of the traits: long traits are no worse than short ones.

    Attributes:
        role: The role whose model is asked.
    """

    role: RoleName = "mar"

    def __init__(self, backends: Backends | None = None) -> None:
        super().__init__()
        self.backends = AmbientBackends() if backends is None else backends

    def forward(self, user: UserView, candidates: Sequence[Candidate], seed: int) -> Alignments:
        """Two calls for each candidate; that for nobody is the same for all users, so that it is a cache hit.

        A candidate whose text the provider refuses has no score.

        Raises:
            InputError: if MAR's model is not behind a server, or the server gives no log-probabilities of a prompt.
        """
        result = Alignments()
        for candidate in candidates:
            try:
                score = self._likelihood(user.text, candidate.text) - self._likelihood(NOBODY, candidate.text)
            except UnparsableError as error:
                result.alignments.append(None)
                result.unparsable += error.answers
                continue
            result.alignments.append(Alignment(item_id=candidate.item_id, score=score, source="likelihood"))
        result.appended = result.alignments.count(None)
        return result

    def _likelihood(self, shopper: str, traits: str) -> float:
        """Mean log-probability of the tokens of the traits, in nats."""
        before = LIKELIHOOD_PROMPT.format(shopper=shopper)
        values = self.backends.ask_route(
            self.role,
            self.backends.roles.of(self.role),
            PROMPT_LOGPROBS,
            prompt=f"{before} {traits}",
            after=len(before),
            # Some servers take 0 for no limit; what is written is not read.
            max_tokens=1,
            temperature=0.0,
            echo=True,
            logprobs=1,
        )
        return float(np.mean(values))
