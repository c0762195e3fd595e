"""Candidates for prototypes: several wordings of each dimension, and prototypes that look like items sold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from programs.motivation_encoder import leanings_of, mean_and_spread, texts_of
from programs.prior.encoders import Encoder
from programs.prototypes import LONGEST_TEXT, Prototype, Prototypes, directions
from signatures.schema import Dimension, MotivationSchema
from signatures.types import Item

WORKED_EXAMPLES = (3, 10, 30)
"""Numbers of worked examples to try."""

_BETWEEN_PHRASES = re.compile(r"\s*[:,;]\s*|\s+or\s+|\s+and\s+")


def wordings(schema: MotivationSchema) -> list[Prototypes]:
    """Prototypes in the words of the schema: `definition`, `name`, and `keywords` (the mean of its phrases)."""
    definitions = Prototypes.of_definitions(schema)
    return [
        definitions,
        _with_texts(definitions, "name", [(one.name,) for one in schema.dimensions]),
        _with_texts(definitions, "keywords", [(one.name, *keywords(one)) for one in schema.dimensions]),
    ]


def keywords(dimension: Dimension) -> tuple[str, ...]:
    """The phrases of a definition, without the verb that all of them begin with.

    >>> keywords(Dimension(name="fun", definition="wants fun, play or relaxation", kind="emotional"))
    ('fun', 'play', 'relaxation')
    """
    text = dimension.definition.removeprefix("wants ").removeprefix("to ")
    return tuple(phrase for phrase in _BETWEEN_PHRASES.split(text) if phrase)


def worked_examples(
    base: Prototypes, encoder: Encoder, catalogue: Mapping[str, Item], sold: Iterable[str]
) -> list[Prototypes]:
    """Prototypes that are means of items: the titles of those items sold that lean most to a dimension.

    With `definition+3` the definition counts as much as each of three titles.

    Args:
        sold: Ids of items in the training data; others must not be seen.
    """
    items = [catalogue[item] for item in sorted(set(sold)) if item in catalogue and catalogue[item].title]
    texts = texts_of({item.item_id: item for item in items})
    if not texts:
        return []
    cosines = (encoder.encode(texts) @ directions(base, encoder).T).astype(float)
    mean, spread = mean_and_spread(cosines)
    leanings = leanings_of((cosines - mean) / spread, base.weights)
    titles = {item.text: item.title for item in reversed(items)}
    ranked = [
        list(dict.fromkeys(titles[texts[row]] for row in np.argsort(-column, kind="stable"))) for column in leanings.T
    ]
    found = [
        _with_texts(base, f"examples-{n}", [tuple(own[:n]) for own in ranked])
        for n in WORKED_EXAMPLES
        if n <= len(texts)
    ]
    mixed = [(*one.texts, *own[:3]) for one, own in zip(base.prototypes, ranked, strict=True)]
    return [*found, _with_texts(base, "definition+3", mixed)]


def _with_texts(base: Prototypes, label: str, texts: Sequence[Sequence[str]]) -> Prototypes:
    return Prototypes(
        prototypes=tuple(
            Prototype(dimension=one.dimension, label=label, texts=tuple(text[:LONGEST_TEXT] for text in own))
            for one, own in zip(base.prototypes, texts, strict=True)
        )
    )
