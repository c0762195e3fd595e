"""Worked examples that stand in the prompts of an uncompiled program (paper, section 3.4), written for this project.

A compiled program replaces them. Without any, a small model copies product names instead of abstracting from them.
"""

from __future__ import annotations

from typing import Any

import dspy

from signatures.mope import Reassessment, draft_type
from signatures.schema import CONSUMER, MotivationSchema


def _example(inputs: dict[str, Any], outputs: dict[str, Any]) -> dspy.Example:
    return dspy.Example(**inputs, **outputs).with_inputs(*inputs)


_HISTORY = (
    "1. Enamel camping mug, set of two | Outdoor > Cookware (rated 5 of 5)\n"
    "2. Merino hiking socks | Outdoor > Clothing (rated 4 of 5)\n"
    "3. Headlamp with rechargeable battery | Outdoor > Lighting (rated 5 of 5)"
)


def infer_examples(schema: MotivationSchema) -> list[dspy.Example]:
    """One history to profile, for the default schema only: another schema has other dimensions."""
    if schema != CONSUMER:
        return []
    draft = draft_type(schema)
    motivations = [
        draft(
            dimension="durability", description="gear that survives rough use", strength="strong", evidence=[1, 2, 3]
        ),
        draft(dimension="wellbeing", description="comfort on long days outside", strength="moderate", evidence=[2]),
        draft(
            dimension="sustainability", description="less throwaway and battery waste", strength="weak", evidence=[3]
        ),
    ]
    return [_example({"shopper": "nothing known", "history": _HISTORY}, {"motivations": motivations})]


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
    inputs = {"shopper": "nothing known", "history": _HISTORY, "inferred": inferred}
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
