"""Cases: written down by hand, and drawn from a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluate.data.demo.store import demo_dataset
from evaluate.data.load import load_dataset
from evaluate.protocol.cases import Cases, draw_lists, write_cases
from signatures.rows import Case
from signatures.types import Interaction
from tests.support.datasets import protocol_for


def interactions(history: Sequence[str]) -> tuple[Interaction, ...]:
    """A history, from items."""
    return tuple(Interaction(item_id=one) for one in history)


def training_of(histories: Mapping[str, Sequence[str]]) -> dict[str, tuple[Interaction, ...]]:
    """Training data, from items by user."""
    return {user: interactions(history) for user, history in histories.items()}


def case(history: Sequence[str], candidates: Sequence[str], user: str = "stranger", target: str | None = None) -> Case:
    """A case, from items."""
    return Case(user_id=user, history=interactions(history), candidates=tuple(candidates), target=target)


def demo_cases(users: int, negatives: int = 9) -> list[Case]:
    """Cases of test users of the demo store."""
    data = demo_dataset()
    return draw_lists(data, protocol_for(data, part="test", users=users, negatives=negatives))


def cases_file(path: Path, users: int, negatives: int = 9, part: str = "dev", source: str = "demo") -> Cases:
    """Cases of a dataset, drawn into a file; lists of ten make the tests quick."""
    data = load_dataset(source)
    protocol = protocol_for(data, source=source, part=part, users=users, negatives=negatives)
    return write_cases(path, protocol, draw_lists(data, protocol))
