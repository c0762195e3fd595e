"""Aligners of MAR that read the log-probabilities of single-token labels: every candidate gets a score.

The model is asked which product fits best, candidates stand under the letters A, B, C ..., and one position of the
answer gives the log-probabilities of all letters. The answer of a small model is never incomplete that way.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Sequence
from itertools import combinations

import dspy
import numpy as np
from numpy.typing import NDArray

from programs.default_demos import CHOICES
from programs.lm.backends import Backends, UnparsableError
from programs.lm.logprobs import label_logprobs
from programs.lm.pending import independent
from programs.mar import Alignments, Candidate, UserView
from programs.role_predictor import RolePredictor
from programs.runtime.errors import InputError
from signatures.mar import NOBODY, choose_candidate
from signatures.types import Alignment

LETTERS = string.ascii_uppercase + string.ascii_lowercase
"""Labels, in the order in which lists use them: one token each in the usual vocabularies."""

MARGIN = 1.0
"""How far below the least log-probability of the server's list a label is put that is missing from it, in nats."""


class LabelAligner(dspy.Module):
    """Asks for the best candidate of several lists and averages the log-probabilities of the labels.

    A list with labels l gives its candidates log p(l | user, list), less log p(l | nobody, list) where calibrated,
    less the mean over the list; a candidate's score is the mean over the lists it was in. A label's bias that depends
    on neither user nor items cancels out exactly where calibrated. A list that could not be calibrated is left out.

    Where the backend gives no log-probabilities, the label as written gets 1 and the others 0, less their mean; the
    source then is `label` instead of `logprobs`.

    Attributes:
        calibrate: Whether each list is asked a second time without the user.
    """

    def __init__(
        self,
        backends: Backends | None = None,
        calibrate: bool = True,
    ) -> None:
        super().__init__()
        self.calibrate = calibrate
        self.choose = RolePredictor(choose_candidate("profile", "traits"), "mar", backends, 4, CHOICES)

    def lists(self, n: int, draw: random.Random) -> Iterator[Sequence[int]]:
        """Lists of candidates to ask about, as indices below `n` in the order of the prompt."""
        raise NotImplementedError

    def forward(self, user: UserView, candidates: Sequence[Candidate], seed: int) -> Alignments:
        """One call for each list, two where calibrated; their number depends on the number of candidates alone.

        Candidates whose label was missing from the server's list count as appended.
        """
        result = Alignments()
        n = len(candidates)
        values: list[list[float]] = [[] for _ in range(n)]
        positions: list[list[float]] = []
        written: set[int] = set()
        missing: set[int] = set()
        draw = random.Random(seed)  # noqa: S311 - a reproducible shuffle, no secret
        with independent() as step:
            for shown in self.lists(n, draw):
                with step():
                    products = render_choices([candidates[index] for index in shown])
                    asked = self._ask(user.text, products, len(shown), result)
                    if asked is None:
                        continue
                    value, absent = asked
                    if absent is None:
                        written.update(shown)
                    else:
                        positions.append(centred(value).tolist())
                        missing.update(shown[place] for place in absent)
                        if self.calibrate:
                            nobody = self._ask(NOBODY, products, len(shown), result)
                            if nobody is None or nobody[1] is None:
                                continue  # its scale is another one than that of calibrated lists
                            value = value - nobody[0]
                            missing.update(shown[place] for place in nobody[1])
                    for index, one in zip(shown, centred(value), strict=True):
                        values[index].append(float(one))
        result.alignments = [
            Alignment(
                item_id=candidate.item_id,
                score=float(np.mean(own)),
                source="label" if index in written else "logprobs",
            )
            if own
            else None
            for index, (candidate, own) in enumerate(zip(candidates, values, strict=True))
        ]
        result.appended = len(missing | {index for index, own in enumerate(values) if not own})
        result.by_position = mean_by_position(positions)
        return result

    def _ask(
        self, shopper: str, products: str, n: int, result: Alignments
    ) -> tuple[NDArray[np.float64], list[int] | None] | None:
        """Values by position, shape (n,), and the positions without a log-probability.

        These are None where the label as written had to do; all is None where there is no readable label either.
        """
        labels = list(LETTERS[:n])
        try:
            answer = self.choose(shopper=shopper, products=products)
        except UnparsableError as error:
            result.unparsable += error.answers
            return None
        result.unparsable += answer.unparsable
        found = label_logprobs(getattr(answer, "logprobs", None), labels)
        if found is not None:
            seen, least = found
            value = np.array([seen.get(label, least - MARGIN) for label in labels])
            return value, [place for place, label in enumerate(labels) if label not in seen]
        if answer.choice not in labels:
            result.unparsable += 1
            return None
        return np.array([float(label == answer.choice) for label in labels]), None


class FirstToken(LabelAligner):
    """All candidates in one list, in several random orders (first-token listwise ranking).

    Attributes:
        most: Most candidates in a list: the number of labels.
        permutations: Number of orders; the bias towards places averages out over them.
    """

    most = len(LETTERS)

    def __init__(
        self,
        backends: Backends | None = None,
        calibrate: bool = True,
        permutations: int = 2,
    ) -> None:
        super().__init__(backends, calibrate)
        self.permutations = at_least_one("permutations", permutations)

    def lists(self, n: int, draw: random.Random) -> Iterator[Sequence[int]]:
        """Seeded orders of all candidates.

        Raises:
            InputError: if there are more candidates than labels.
        """
        if n > self.most:
            raise InputError(f"{n} candidates: a list holds at most {self.most}; use --head {self.most}")
        for _ in range(self.permutations):
            yield draw.sample(range(n), n)


class Setwise(LabelAligner):
    """Small groups of candidates, each candidate in several of them (setwise ranking).

    Attributes:
        size: Most candidates in a group; groups of one round differ by at most one.
        rounds: Number of groups that each candidate is in.
    """

    rounds = 3

    def __init__(
        self,
        backends: Backends | None = None,
        size: int = 5,
    ) -> None:
        super().__init__(backends)
        if not 2 <= size <= len(LETTERS):
            raise InputError(f"size {size}: give the number of candidates in a group, 2 to {len(LETTERS)}")
        self.size = size

    def lists(self, n: int, draw: random.Random) -> Iterator[Sequence[int]]:
        """Seeded partitions of the candidates into groups."""
        for _ in range(self.rounds):
            for group in np.array_split(draw.sample(range(n), n), -(-n // self.size)):
                yield group.tolist()


class Pairwise(LabelAligner):
    """Pairs of candidates in both orders; the score is half the mean log-odds of being chosen (pairwise ranking).

    Both orders cancel out the bias of the labels, so that no list is asked without the user.

    Attributes:
        neighbours: Candidates stand in a circle in random order, each is compared with so many on either side; in a
            circle too small for that, all pairs are.
    """

    def __init__(
        self,
        backends: Backends | None = None,
        neighbours: int = 2,
    ) -> None:
        super().__init__(backends, calibrate=False)
        self.neighbours = at_least_one("neighbours", neighbours)

    def lists(self, n: int, draw: random.Random) -> Iterator[Sequence[int]]:
        """Seeded pairs, each in both orders; a single candidate stands alone."""
        if n == 1:
            yield [0]
        circle = draw.sample(range(n), n)
        for first, second in combinations(range(n), 2):
            apart = second - first
            if min(apart, n - apart) <= self.neighbours:
                yield [circle[first], circle[second]]
                yield [circle[second], circle[first]]


def render_choices(shown: Sequence[Candidate]) -> str:
    """Candidates under letters as the prompt shows them, one a line."""
    return "\n".join(f"{label}: {candidate.text}" for label, candidate in zip(LETTERS, shown, strict=False))


def centred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values less their mean."""
    centre: NDArray[np.float64] = values - values.mean()
    return centre


def mean_by_position(lists: Sequence[Sequence[float]]) -> list[float]:
    """Mean value of each position over lists; positions that only some lists have are averaged over these.

    >>> mean_by_position([[1.0, -1.0], [0.0, 0.5, -0.5]])
    [0.5, -0.25, -0.5]
    """
    longest = max(map(len, lists), default=0)
    return [float(np.mean([one[place] for one in lists if place < len(one)])) for place in range(longest)]


def at_least_one(name: str, value: int) -> int:
    """The value.

    Raises:
        InputError: if it is below 1.
    """
    if value < 1:
        raise InputError(f"{name} {value}: give at least 1")
    return value
