"""A motivational schema of two dimensions."""

from __future__ import annotations

from signatures.schema import Dimension, MotivationSchema

FILMS = MotivationSchema(
    name="films",
    dimensions=(
        Dimension(name="suspense", definition="wants to be kept in the dark and on edge", kind="emotional"),
        Dimension(name="insight", definition="wants to understand people and times", kind="functional"),
    ),
)
