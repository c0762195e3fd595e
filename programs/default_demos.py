"""Default demos: worked examples in the prompts of an uncompiled program (paper, section 3.4), written for it.

A compiled program replaces them. Without demos a small model copies item titles instead of abstracting from them.
"""

from __future__ import annotations

from typing import Any

import dspy

from signatures.mope import NeedDraft, Reassessment, draft_type
from signatures.schema import CONSUMER, MotivationSchema
from signatures.types import Strength


def _example(inputs: dict[str, Any], outputs: dict[str, Any]) -> dspy.Example:
    return dspy.Example(**inputs, **outputs).with_inputs(*inputs)


_HIKER = (
    "1. Enamel camping mug, set of two | Outdoor > Cookware (rated 5 of 5)\n"
    "2. Merino hiking socks | Outdoor > Clothing (rated 4 of 5)\n"
    "3. Headlamp with rechargeable battery | Outdoor > Lighting (rated 5 of 5)"
)
_PARENT = (
    "1. Counting bears with sorting cups | Toys > Learning > Maths (rated 5 of 5)\n"
    "2. Family quiz night card game | Toys > Games > Card Games (rated 4 of 5)\n"
    "3. Glitter nail stickers | Toys > Dress Up (rated 2 of 5)\n"
    "4. Washable finger paints, six colours | Toys > Arts (rated 5 of 5)"
)
_GROOMER = (
    "1. Cedar beard oil | Beauty > Men > Beard Care (rated 5 of 5)\n"
    "2. Travel pouch with leak-proof bottles | Beauty > Tools > Bags (rated 4 of 5)"
)

_Draft = tuple[str, str, Strength, list[int]]
_PROFILES: list[tuple[str, str, list[_Draft]]] = [
    (
        "nothing known",
        _HIKER,
        [
            ("durability", "gear that survives rough use", "strong", [1, 3]),
            ("wellbeing", "comfort on long days outside", "moderate", [2]),
        ],
    ),
    (
        "nothing known",
        _PARENT,
        [
            ("learning", "a child who learns while playing", "strong", [1, 4]),
            ("belonging", "evenings shared with the family", "moderate", [2]),
            ("convenience", "creative mess that cleans up easily", "weak", [4]),
        ],
    ),
    (
        "age 25-34; gender m; region north",
        _GROOMER,
        [
            ("aesthetics", "a well-kept look and a warm scent", "strong", [1]),
            ("convenience", "a routine that fits into a travel bag", "moderate", [2]),
        ],
    ),
]


def infer_examples(schema: MotivationSchema) -> list[dspy.Example]:
    """Three histories from three kinds of shops; for the default schema only, whose dimensions they name.

    With a single one, a 1.5B model gave its very motivations to other shoppers.
    """
    if schema != CONSUMER:
        return []
    draft = draft_type(schema)
    return [
        _example(
            {"shopper": shopper, "history": history},
            {
                "motivations": [
                    draft(dimension=dimension, description=description, strength=strength, evidence=evidence)
                    for dimension, description, strength, evidence in motivations
                ]
            },
        )
        for shopper, history, motivations in _PROFILES
    ]


def reassess_examples(schema: MotivationSchema) -> list[dspy.Example]:
    """One reassessment with each of the three actions, for the default schema only."""
    if schema != CONSUMER:
        return []
    inferred = (
        "1. durability (strong): gear that survives rough use\n"
        "2. wellbeing (moderate): warm socks\n"
        "3. identity (weak): shows off to friends"
    )
    reassessments = [
        Reassessment(number=1, action="keep", description=""),
        Reassessment(number=2, action="revise", description="comfort on long days outside"),
        Reassessment(number=3, action="drop", description=""),
    ]
    inputs = {"shopper": "nothing known", "history": _HIKER, "inferred": inferred}
    return [_example(inputs, {"reassessments": reassessments})]


TRAITS = [
    _example(
        {"product": "Kornweg Hand Grain Mill 300W\nKitchen > Small Appliances > Mills"},
        {"traits": ["fresh flour at home", "healthy baking from scratch", "sturdy everyday kitchen tool"]},
    ),
    _example(
        {"product": "Tumble Farm Wooden Animal Blocks, 24 Pieces\nToys > Building Toys > Stacking Blocks"},
        {"traits": ["creative building play", "trains small hands", "survives rough toddlers", "play without screens"]},
    ),
    _example(
        {"product": "Captain Orion 12 inch Deluxe Figure\nToys > Action Figures > Space Heroes"},
        {"traits": ["acting out adventures", "for fans and collectors", "gift for young heroes"]},
    ),
    _example(
        {"product": "Velura Rose Hand Cream 75 ml\nBeauty > Skin Care > Hands"},
        {"traits": ["relief for dry hands", "gentle floral scent", "small everyday treat"]},
    ),
]

_NEEDS: list[list[tuple[str, list[int]]]] = [
    [("warm layers for the trail", [2]), ("compact sleeping gear", [1, 3])],
    [("first board games", [2]), ("craft sets for rainy days", [4]), ("early reading aids", [1])],
    [("trimming tools", [1]), ("travel-size skin care", [1, 2])],
]


def needs_examples(schema: MotivationSchema) -> list[dspy.Example]:
    """The examples of `infer_examples`, with the kinds of things that come next."""
    return [
        example.copy(needs=[NeedDraft(kind=kind, evidence=evidence) for kind, evidence in needs])
        for example, needs in zip(infer_examples(schema), _NEEDS, strict=False)
    ]


_USES = [
    (["weekend baking", "slow breakfasts"], ["home bakers"]),
    (["rainy afternoons"], ["toddlers", "parents who avoid screens"]),
    (["birthdays", "pretend play"], ["young fans", "collectors"]),
    (["before bed", "cold days"], ["people with dry skin"]),
]
USES = [
    example.copy(occasions=occasions, users=users) for example, (occasions, users) in zip(TRAITS, _USES, strict=True)
]

_MOTIVES = (
    "- enjoyment (strong): relaxing evenings at home\n"
    "- aesthetics (moderate): a warm, cosy look\n"
    "- value (weak): small luxuries that cost little"
)
RATINGS = [
    _example(
        {"shopper": _MOTIVES, "product": "soft warm light; cosy bedroom atmosphere; calming scent"}, {"rating": "5"}
    ),
    _example(
        {"shopper": _MOTIVES, "product": "protects the engine; longer intervals between services"}, {"rating": "1"}
    ),
    _example(
        {"shopper": _MOTIVES, "product": "keeps drinks hot; easy to carry; leak-proof on the way"}, {"rating": "3"}
    ),
]

RANKINGS = [
    _example(
        {
            "shopper": _MOTIVES,
            "products": (
                "41: protects the engine; longer intervals between services\n"
                "87: soft warm light; cosy bedroom atmosphere\n"
                "23: keeps drinks hot; easy to carry\n"
                "65: relaxing bath ritual; calming scent"
            ),
        },
        {"ranking": [65, 87, 23, 41]},
    )
]

SHORTLISTS = [
    _example(
        {
            "shopper": (
                "facts: nothing known\n"
                "liked:\n- Lavender pillow spray | Home > Sleep (rated 5 of 5)\n- Wool blanket | Home > Bedding\n"
                "disliked:\n- Party speaker | Electronics > Audio (rated 2 of 5)"
            ),
            "products": (
                "41: Engine oil 5W-30 | Automotive > Fluids\n"
                "87: Warm bedside lamp | Home > Lighting\n"
                "23: Karaoke microphone | Electronics > Audio\n"
                "65: Bath salt, lavender | Home > Bath"
            ),
        },
        {"ranking": [65, 87, 41, 23]},
    )
]

CHOICES = [
    _example(
        {
            "shopper": _MOTIVES,
            "products": (
                "A: protects the engine; longer intervals between services\n"
                "B: soft warm light; cosy bedroom atmosphere\n"
                "C: keeps drinks hot; easy to carry"
            ),
        },
        {"choice": "B"},
    )
]

EXPLANATIONS = [
    _example(
        {"shopper": _MOTIVES, "product": "soft warm light; cosy bedroom atmosphere; easy to set up"},
        {"reason": "Its soft warm light makes the cosy atmosphere this shopper likes for relaxing evenings at home."},
    )
]

CHECKS = [
    _example(
        {
            "shopper": _MOTIVES,
            "product": "soft warm light; cosy bedroom atmosphere",
            "reason": "Its soft light makes relaxing evenings at home cosy.",
        },
        {"faithful": "yes", "why": "supported"},
    ),
    _example(
        {
            "shopper": _MOTIVES,
            "product": "soft warm light; cosy bedroom atmosphere",
            "reason": "It saves energy and this shopper cares for the environment.",
        },
        {"faithful": "no", "why": "neither the saving nor the care for the environment is given"},
    ),
]
