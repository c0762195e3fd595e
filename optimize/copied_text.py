"""Guard against instructions that copy training text: n-gram overlap with what a proposer was shown, and titles.

An instruction with a dev user's titles or traits in it scores well on that user, and is wrong for all others. One that
repeats the figures of the feedback says what came of some users, and not what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from optimize.feedback import FIRST_PLACES

WORDS_IN_A_ROW = 5
"""Words in a row that an instruction may not share with an example; shorter runs are ordinary language."""

_WORD = re.compile(r"\w+")


class CopyGuard:
    """Finds training text in a proposed instruction.

    Args:
        titles: Titles of the dev users' items; whole titles of two or more words may not be repeated.
        allowed: Texts that an instruction may repeat: the present one, the rules, the motivational schema.
    """

    def __init__(self, titles: Iterable[str] = (), allowed: Iterable[str] = ()) -> None:
        self._titles = {words: title for title in titles if len(words := _words(title)) > 1}
        self._allowed = [_words(text) for text in allowed]
        self._lengths = sorted({len(words) for words in self._titles})

    def copied(
        self, text: str, shown: Iterable[str] = (), allowed: Iterable[str] = (), feedback: Iterable[str] = ()
    ) -> str | None:
        """The first text that an instruction copies from an example, a title or the figures of the feedback, or None.

        Args:
            shown: Texts of the examples that the proposer was shown.
            allowed: Further texts that may be repeated.
            feedback: What came of some users. Its words may be repeated, but no run of words with a number in it; the
                cutoff (`FIRST_PLACES`) is no such number.

        >>> guard = CopyGuard(["Camping Mug", "Mug"])
        >>> guard.copied("Prefer a camping mug."), guard.copied("Prefer a mug.")
        ('Camping Mug', None)
        >>> guard.copied("Say that it lasts for many long years.", ["it lasts for many long years"])
        'it lasts for many long'
        >>> feedback = ["By motivations and traits alone it is ranked 7 of 30."]
        >>> guard.copied("Rank by motivations and traits alone.", feedback=feedback)
        >>> guard.copied("In general it is ranked 7 of 30.", feedback=feedback)
        'it is ranked 7 of'
        """
        words = _words(text)
        own = [*self._allowed, *map(_words, allowed)]
        for length in self._lengths:
            known = _runs(own, length)
            for run in _in_order(words, length):
                if run in self._titles and run not in known:
                    return self._titles[run]
        free = _runs(own, WORDS_IN_A_ROW)
        examples = _runs(map(_words, shown), WORDS_IN_A_ROW)
        examples |= {run for run in _runs(map(_words, feedback), WORDS_IN_A_ROW) if any(map(_is_figure, run))}
        return next(
            (" ".join(run) for run in _in_order(words, WORDS_IN_A_ROW) if run in examples and run not in free), None
        )


def _is_figure(word: str) -> bool:
    # The cutoff is the goal, and no figure of some users.
    return word.isdigit() and word != str(FIRST_PLACES)


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.lower()))


def _in_order(words: Sequence[str], length: int) -> Iterable[tuple[str, ...]]:
    return (tuple(words[start : start + length]) for start in range(len(words) - length + 1))


def _runs(texts: Iterable[Sequence[str]], length: int) -> set[tuple[str, ...]]:
    return {run for words in texts for run in _in_order(words, length)}
