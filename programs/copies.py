"""Detection of copied answers: what a model took from the worked examples in its prompt instead of answering.

Small models do it: they repeat the examples, whatever they are asked about.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any, Self

import dspy

from programs.role_predictor import RolePredictor
from signatures.types import Profile, Traits

NEAR = 0.75
"""Share of common words, in order, from which two texts are one and the same: one word in four may differ."""


def similarity(text: str, other: str) -> float:
    """Share of the words of two texts that they have in common, in the same order; case and full stops apart.

    >>> similarity("Healthier baking from scratch.", "healthy baking from scratch")
    0.75
    >>> similarity("small everyday treat", "sturdy everyday tool") < NEAR
    True
    """
    return SequenceMatcher(None, _words(text), _words(other), autojunk=False).ratio()


def repeats(text: str, others: Iterable[str]) -> bool:
    """Whether a text is one of the others, or nearly so."""
    return bool(_words(text)) and any(similarity(text, other) >= NEAR for other in others)


_TEXTS = {"motivations": "description", "reassessments": "description", "needs": "kind"}
"""The field with the words, by output of MOPE."""

_PHRASES = ("traits", "occasions", "users")
"""Outputs of MOTE."""


@dataclass(frozen=True)
class Examples:
    """What the worked examples in the prompts of a program answer.

    Attributes:
        motivations: Descriptions of motivations, and needs, in MOPE's.
        traits: Traits, occasions and users in MOTE's.
        reasons: Reasons in those of the explanation.
    """

    motivations: frozenset[str] = field(default_factory=frozenset)
    traits: frozenset[str] = field(default_factory=frozenset)
    reasons: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, program: dspy.Module) -> Self:
        """The examples in the prompts that a program has now, compiled or not."""
        predictors = [asked.predict for _, asked in program.named_sub_modules(RolePredictor)]
        answers = [(demo, name) for one in predictors for demo in one.demos for name in one.signature.output_fields]
        texts = [
            _value(draft, _TEXTS[name]) for demo, name in answers if name in _TEXTS for draft in demo.get(name) or ()
        ]
        phrases = [phrase for demo, name in answers if name in _PHRASES for phrase in demo.get(name) or ()]
        return cls(
            motivations=frozenset(filter(None, texts)),
            traits=frozenset(phrases),
            reasons=frozenset(demo[name] for demo, name in answers if name == "reason" and demo.get(name)),
        )


@dataclass(frozen=True)
class Repeated:
    """How many of some answers repeat a worked example.

    >>> str(Repeated(3, 40))
    '3 of 40'
    """

    repeated: int
    total: int

    @property
    def most(self) -> bool:
        """Whether it is more than half of them: then the model hardly answered."""
        return 2 * self.repeated > self.total

    def __str__(self) -> str:
        return f"{self.repeated} of {self.total}"


def repeated_motivations(profiles: Iterable[Profile], examples: Examples) -> Repeated:
    """Motivations and needs whose words repeat one of the examples."""
    return _share((phrase for profile in profiles for phrase in profile.phrases), examples.motivations)


def repeated_traits(traits: Iterable[Traits], examples: Examples) -> Repeated:
    """Traits, occasions and users that repeat one of the examples."""
    return _share((phrase for one in traits for phrase in one.all_phrases), examples.traits)


def one_reason(reasons: Sequence[str]) -> bool:
    """Whether two or more reasons are all one and the same, or nearly so."""
    return len(reasons) > 1 and all(repeats(reason, reasons[:1]) for reason in reasons)


def _share(texts: Iterable[str], examples: Collection[str]) -> Repeated:
    # A program gives the same few answers again and again where it copies; each is compared once.
    known: dict[str, bool] = {}
    total = repeated = 0
    for text in texts:
        if text not in known:
            known[text] = repeats(text, examples)
        total, repeated = total + 1, repeated + known[text]
    return Repeated(repeated, total)


def _value(answer: Any, name: str) -> str:
    # Typed in the examples of this package, plain data in those of a compiled program.
    found: str = answer[name] if isinstance(answer, Mapping) else getattr(answer, name)
    return found


def _words(text: str) -> list[str]:
    return text.casefold().replace(".", " ").split()
