"""Motivation profiles."""

from __future__ import annotations

from signatures.types import Motivation, Profile


def profile(*motives: tuple[str, str]) -> Profile:
    """Strong motivations, from dimensions and descriptions."""
    return Profile(
        motivations=tuple(
            Motivation(dimension=dimension, description=text, strength="strong", evidence=(1,))
            for dimension, text in motives
        )
    )


def profile_of(*dimensions: str) -> Profile:
    """Strong motivations of these dimensions."""
    return profile(*((name, f"wants {name}") for name in dimensions))
