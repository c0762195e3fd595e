"""Simulated users with planted motivations: ground truth for the profiles that a model infers.

A user has a primary and a secondary motivation and, with probability 1/2, two favoured departments. Most purchases
serve one of the two motivations, the others are noise. Motivations cut across departments: departments predict
purchases a little, motivations a lot.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from programs.runtime.errors import InputError
from signatures.rows import seed_of
from signatures.types import Interaction, Item

FITTING_SHARE = 0.78
"""Probability that a purchase before the last serves a planted motivation; about 80% with the last one."""

LAST_FITTING_SHARE = 0.92
PRIMARY_SHARE = 2 / 3
"""Probability that a fitting purchase serves the primary motivation, not the secondary one."""

DEPARTMENT_PULL = 5.0
"""Factor on the weight of items in a favoured department."""

METADATA_PULL = 2.5
"""Factor on the weight of a motivation, for each of age band and region that leans to it."""

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
# Gender has no leaning on purpose: a model that infers motivations from it is guessing.
GENDERS = ("female", "male", "undisclosed")

DAY = 86_400
OPENING = 1_704_067_200
"""The shop opened on 2024-01-01, 00:00 UTC."""


@dataclass(frozen=True)
class DemoItem:
    """An item and the planted truth about it.

    Attributes:
        item: The part that models see.
        serves: The schema dimensions it serves; hidden from models.
    """

    item: Item
    serves: tuple[str, ...]

    @property
    def department(self) -> str:
        """The root of the item's category path."""
        return self.item.categories[0][0]


@dataclass(frozen=True)
class SimulatedUser:
    """One simulated user.

    Attributes:
        motivations: The planted truth, primary first; hidden from models.
        departments: The favoured pair of departments, or empty.
        purchases: 2 to 7 distinct items, oldest first, rated 1 to 5, times strictly increasing.
        metadata: z_u of eq. 6: `age`, `gender` and `region`.
    """

    user_id: str
    motivations: tuple[str, str]
    departments: tuple[str, ...]
    purchases: tuple[Interaction, ...]
    metadata: dict[str, str]


def simulate(items: Sequence[DemoItem], n: int = 400, seed: int = 7) -> list[SimulatedUser]:
    """Simulate `n` users.

    Every user has a random stream of their own: the first users are the same for every `n`.

    Args:
        items: A catalogue of at least 3 dimensions and 2 departments, with 15 or more items.
        n: Number of users, 0 or more.
        seed: Decides everything that is random.

    Raises:
        InputError: if the catalogue is too small.
    """
    store = _Store(items, seed)
    return [store.user(f"S{number:04d}", _rng(seed, "shopper", number)) for number in range(1, n + 1)]


class _Store:
    """The catalogue with the number of departments each motivation reaches, and each item's popularity."""

    def __init__(self, items: Sequence[DemoItem], seed: int) -> None:
        self.items = items
        self.departments = sorted({item.department for item in items})
        reach: dict[str, set[str]] = {}
        for item in items:
            for dimension in item.serves:
                reach.setdefault(dimension, set()).add(item.department)
        if len(items) < 15 or len(self.departments) < 2 or len(reach) < 3:
            raise InputError(
                f"{len(items)} items in {len(self.departments)} departments serving {len(reach)} dimensions "
                "are too few to simulate users: give at least 15, 2 and 3"
            )
        self.reach = {dimension: len(reach[dimension]) for dimension in sorted(reach)}
        ids = [item.item.item_id for item in items]
        self.popularity = {item_id: _rng(seed, "popularity", item_id).uniform(0.5, 2.0) for item_id in ids}

    def user(self, user_id: str, rng: random.Random) -> SimulatedUser:
        """Draw one user: metadata, motivations, favoured departments, purchases."""
        metadata = {
            "age": rng.choice(list(AGE_LEANINGS)),
            "gender": rng.choice(GENDERS),
            "region": rng.choice(list(REGION_LEANINGS)),
        }
        motivations = self._motivations(metadata, rng)
        departments = tuple(rng.sample(self.departments, 2)) if rng.random() < 0.5 else ()
        purchases = self._purchases(motivations, departments, rng)
        return SimulatedUser(user_id, motivations, departments, purchases, metadata)

    def _motivations(self, metadata: Mapping[str, str], rng: random.Random) -> tuple[str, str]:
        leanings = (AGE_LEANINGS[metadata["age"]], REGION_LEANINGS[metadata["region"]])
        # In proportion to the departments that a motivation reaches.
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
        for index in range(count):
            last = index == count - 1
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
    ) -> DemoItem:
        """An item the user does not have: one that serves `motive`, or for None one that serves neither motivation."""
        free = [item for item in self.items if item.item.item_id not in owned]
        noise = [item for item in free if set(motivations).isdisjoint(item.serves)]
        # Only a small catalogue may have no item left for a motive.
        choices = [item for item in free if motive in item.serves] or noise or free
        weights = [
            self.popularity[item.item.item_id] * (DEPARTMENT_PULL if item.department in departments else 1.0)
            for item in choices
        ]
        return rng.choices(choices, weights)[0]


def _rating(fits: bool, last: bool, rng: random.Random) -> float:
    """1 to 5: high for a fitting last purchase, mostly high for other fitting ones, mostly low for noise."""
    if fits:
        return float(rng.choices((3, 4, 5), (0 if last else 1, 4, 5))[0])
    return float(rng.choices((1, 2, 3, 4), (2, 4, 3, 1))[0])


def _rng(*parts: object) -> random.Random:
    # The standard library keeps its random streams over versions; NumPy does not promise that.
    return random.Random(seed_of(*parts))  # noqa: S311 - a simulation, not cryptography
