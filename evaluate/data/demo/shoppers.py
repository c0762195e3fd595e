"""Shoppers whose motivations are planted, so that what a profile claims can be checked against the truth.

A simulated shopper has a primary and a secondary motivation and, half of the time, two favoured
departments. Most purchases serve one of the two motivations, the rest are noise. Motivations cut across
departments: knowing where somebody shops helps a little, knowing why helps a lot.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from programs.runtime.errors import InputError
from signatures.rows import seed_of
from signatures.types import Interaction, Item

FITTING_SHARE = 0.78
"""Chance that a purchase before the last serves a planted motivation; with the last one it makes about 80%."""

LAST_FITTING_SHARE = 0.92
PRIMARY_SHARE = 2 / 3
"""Chance that a fitting purchase was made for the primary motivation: twice that of the secondary one."""

DEPARTMENT_PULL = 5.0
"""How many times likelier a product is in a favoured department."""

METADATA_PULL = 2.5
"""How many times likelier a motivation is for each of age band and region that leans to it."""

AGE_LEANINGS: Mapping[str, frozenset[str]] = {
    "18-29": frozenset({"identity", "enjoyment"}),
    "30-44": frozenset({"learning", "convenience"}),
    "45-59": frozenset({"functionality", "belonging"}),
    "60+": frozenset({"wellbeing", "durability"}),
}
REGION_LEANINGS: Mapping[str, frozenset[str]] = {
    "city": frozenset({"aesthetics", "convenience"}),
    "suburb": frozenset({"value", "belonging"}),
    "countryside": frozenset({"durability", "sustainability"}),
}
# Gender leans to nothing on purpose: a model that reads motivations from it is guessing.
GENDERS = ("female", "male", "undisclosed")

DAY = 86_400
OPENING = 1_704_067_200
"""The shop opened on 2024-01-01, 00:00 UTC."""


@dataclass(frozen=True)
class Product:
    """An item and the planted truth about it.

    Attributes:
        item: What everybody sees.
        serves: The schema dimensions it serves; no model ever sees them.
    """

    item: Item
    serves: tuple[str, ...]

    @property
    def department(self) -> str:
        """The root of the product's category path."""
        return self.item.categories[0][0]


@dataclass(frozen=True)
class Shopper:
    """One simulated shopper.

    Attributes:
        motivations: The planted truth, primary first; never shown to a model.
        departments: The favoured pair of departments, or empty.
        purchases: 2 to 7 distinct items, oldest first, rated 1 to 5, times strictly increasing.
        metadata: z_u of eq. 6: `age`, `gender` and `region`.
    """

    user_id: str
    motivations: tuple[str, str]
    departments: tuple[str, ...]
    purchases: tuple[Interaction, ...]
    metadata: dict[str, str]


def simulate(products: Sequence[Product], n: int = 400, seed: int = 7) -> list[Shopper]:
    """Simulate `n` shoppers.

    Every shopper has a random stream of their own: the first shoppers stay the same whatever `n` is.

    Args:
        products: A catalogue of at least 3 dimensions and 2 departments, with 15 or more products.
        n: Number of shoppers, 0 or more.
        seed: Decides everything that is random.

    Raises:
        InputError: if the catalogue is too small to shop in.
    """
    store = _Store(products, seed)
    return [store.shopper(f"S{number:04d}", _rng(seed, "shopper", number)) for number in range(1, n + 1)]


class _Store:
    """The catalogue as shoppers meet it: which motivations reach how far, and what is popular."""

    def __init__(self, products: Sequence[Product], seed: int) -> None:
        self.products = products
        self.departments = sorted({p.department for p in products})
        reach: dict[str, set[str]] = {}
        for product in products:
            for dimension in product.serves:
                reach.setdefault(dimension, set()).add(product.department)
        if len(products) < 15 or len(self.departments) < 2 or len(reach) < 3:
            raise InputError(
                f"{len(products)} products in {len(self.departments)} departments serving {len(reach)} dimensions "
                "are too few to simulate shoppers: give at least 15, 2 and 3"
            )
        self.reach = {dimension: len(reach[dimension]) for dimension in sorted(reach)}
        self.popularity = {p.item.item_id: _rng(seed, "popularity", p.item.item_id).uniform(0.5, 2.0) for p in products}

    def shopper(self, user_id: str, rng: random.Random) -> Shopper:
        """Draw one shopper: who they are, what drives them, what they bought."""
        metadata = {
            "age": rng.choice(list(AGE_LEANINGS)),
            "gender": rng.choice(GENDERS),
            "region": rng.choice(list(REGION_LEANINGS)),
        }
        motivations = self._motivations(metadata, rng)
        departments = tuple(rng.sample(self.departments, 2)) if rng.random() < 0.5 else ()
        return Shopper(user_id, motivations, departments, self._purchases(motivations, departments, rng), metadata)

    def _motivations(self, metadata: Mapping[str, str], rng: random.Random) -> tuple[str, str]:
        leanings = (AGE_LEANINGS[metadata["age"]], REGION_LEANINGS[metadata["region"]])
        # The wider a motivation reaches over departments, the likelier it is planted.
        weights = {d: n * METADATA_PULL ** sum(d in lean for lean in leanings) for d, n in self.reach.items()}
        primary = rng.choices(list(weights), list(weights.values()))[0]
        del weights[primary]
        return primary, rng.choices(list(weights), list(weights.values()))[0]

    def _purchases(
        self, motivations: tuple[str, str], departments: tuple[str, ...], rng: random.Random
    ) -> tuple[Interaction, ...]:
        count = rng.randint(2, 7)
        time = OPENING + rng.randrange(540 * DAY)
        purchases: list[Interaction] = []
        for place in range(count):
            last = place == count - 1
            fitting = rng.random() < (LAST_FITTING_SHARE if last else FITTING_SHARE)
            motive = motivations[0] if rng.random() < PRIMARY_SHARE else motivations[1]
            owned = {p.item_id for p in purchases}
            bought = self._pick(motive if fitting else None, motivations, departments, owned, rng)
            rating = _rating(not set(motivations).isdisjoint(bought.serves), last, rng)
            purchases.append(Interaction(item_id=bought.item.item_id, rating=rating, timestamp=time))
            time += rng.randrange(DAY, 45 * DAY)
        return tuple(purchases)

    def _pick(
        self,
        motive: str | None,
        motivations: tuple[str, str],
        departments: tuple[str, ...],
        owned: set[str],
        rng: random.Random,
    ) -> Product:
        """A product for `motive`, or for None one that serves neither motivation; never one already owned."""
        free = [p for p in self.products if p.item.item_id not in owned]
        noise = [p for p in free if set(motivations).isdisjoint(p.serves)]
        # A motive runs dry in small catalogues only.
        shelf = [p for p in free if motive in p.serves] or noise or free
        weights = [
            self.popularity[p.item.item_id] * (DEPARTMENT_PULL if p.department in departments else 1.0) for p in shelf
        ]
        return rng.choices(shelf, weights)[0]


def _rating(fits: bool, last: bool, rng: random.Random) -> float:
    """1 to 5: a fitting last purchase is liked, other fitting ones mostly are, noise mostly is not."""
    if fits:
        return float(rng.choices((3, 4, 5), (0 if last else 1, 4, 5))[0])
    return float(rng.choices((1, 2, 3, 4), (2, 4, 3, 1))[0])


def _rng(*parts: object) -> random.Random:
    # The standard library's generator keeps its streams over versions, NumPy's promises less.
    return random.Random(seed_of(*parts))  # noqa: S311 - a simulation, not cryptography
