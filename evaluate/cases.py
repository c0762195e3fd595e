"""Frozen candidate lists: drawn once, written with a hash, and shared by every method that is compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from evaluate.datasets.dataset import Dataset
from evaluate.protocol import Target, held_out, part_of
from programs.atomic import write_atomically
from programs.errors import InputError
from programs.ranker import Case, seed_of

FORMAT: Literal["mllm3rec-cases/1"] = "mllm3rec-cases/1"

_Model = TypeVar("_Model", bound=BaseModel)


class Protocol(BaseModel):
    """How a cases file came about: together with the data, all that is needed to draw it again.

    Attributes:
        format: Version of the cases file.
        dataset: The dataset's short name.
        source: Where the data was read from: an absolute path, or `demo`.
        dataset_sha256: `Dataset.sha256` of that data.
        target: Policy that picked the positives.
        negatives: Sampled items per list; a list has one more.
        part: Users drawn from.
        users: At most that many users, or None for all of the part.
        seed: Decides which users come first, the negatives and the target's slot.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["mllm3rec-cases/1"] = FORMAT
    dataset: str
    source: str
    dataset_sha256: str
    target: Target = "last-liked"
    negatives: int = Field(default=29, ge=1)
    part: Literal["dev", "test", "all"] = "dev"
    users: int | None = Field(default=None, ge=1)
    seed: int = 0

    @field_validator("source")
    @classmethod
    def _absolute(cls, source: str) -> str:
        return source if source == "demo" else str(Path(source).expanduser().absolute())


class _Header(Protocol):
    """First line of a cases file: the protocol, the number of lines after it, and their hash."""

    n: int
    sha256: str


@dataclass(frozen=True)
class CaseFile:
    """A cases file that was read and verified.

    Attributes:
        sha256: Hash of the case lines, the name by which runs tell that they ranked the same lists.
    """

    protocol: Protocol
    cases: tuple[Case, ...]
    sha256: str


def draw_cases(dataset: Dataset, protocol: Protocol) -> list[Case]:
    """One case per user with a valid target (hence with at least two interactions), users in a seeded order.

    Negatives are uniform, without replacement, over the items somebody interacted with and this user never
    did, neither before nor after the target; the target's slot is uniform as well. A user's list depends on the
    data, the seed and the user id alone: fewer users, or another part, give the same lists, and 40 users are
    the first of 100.

    Returns:
        `protocol.users` cases, or fewer where the part has no more users.

    Raises:
        InputError: if the protocol was made for other data, nobody can be evaluated, or the catalogue is too
            small for so many negatives.
    """
    _require_same_data(protocol, dataset)
    targets = {
        user: index
        for user, sequence in dataset.sequences.items()
        if protocol.part in ("all", part_of(user)) and (index := held_out(sequence, protocol.target)) is not None
    }
    if not targets:
        raise InputError(
            f"dataset {protocol.dataset!r}, part {protocol.part!r}: no user has a {protocol.target!r} target with an "
            "interaction before it; use another target or part, or data with longer histories"
        )
    users = sorted(targets, key=lambda user: seed_of("order", protocol.seed, user))[: protocol.users]
    pool = np.array(sorted(set(dataset.interactions["item_id"]) & dataset.items.keys()), dtype=object)
    own = {user: {event.item_id for event in dataset.sequences[user]} & dataset.items.keys() for user in users}
    _require_enough(len(pool), own, protocol.negatives)
    cases = []
    for user in users:
        rng = np.random.default_rng(seed_of(protocol.seed, user))
        # Drawing |own| too many and dropping the own ones is uniform over the rest, without a set difference per user.
        drawn = rng.choice(len(pool), size=min(len(pool), protocol.negatives + len(own[user])), replace=False)
        candidates = [item for item in pool[drawn] if item not in own[user]][: protocol.negatives]
        target = dataset.sequences[user][targets[user]].item_id
        candidates.insert(int(rng.integers(protocol.negatives + 1)), target)
        cases.append(
            Case(
                user_id=user,
                history=dataset.sequences[user][: targets[user]],
                candidates=tuple(candidates),
                target=target,
                metadata=dataset.metadata.get(user, {}),
            )
        )
    return cases


def _require_enough(catalogue: int, own: dict[str, set[str]], negatives: int) -> None:
    user = max(own, key=lambda u: len(own[u]))
    left = catalogue - len(own[user])
    if left < negatives:
        raise InputError(
            f"{negatives} negatives asked, catalogue of {catalogue} items with interactions leaves {left} that user "
            f"{user!r} never touched; ask for at most {left} negatives, or use a larger catalogue"
        )


def write_cases(path: Path, protocol: Protocol, cases: Sequence[Case]) -> CaseFile:
    """Write a cases file atomically: JSON Lines, the header first, then one case a line.

    Returns:
        What `read_cases(path)` gives.
    """
    body = "".join(case.model_dump_json(exclude_defaults=True) + "\n" for case in cases).encode()
    sha256 = hashlib.sha256(body).hexdigest()
    header = _Header(**protocol.model_dump(), n=len(cases), sha256=sha256).model_dump_json(exclude_none=True)
    write_atomically(path, header.encode() + b"\n" + body)
    return CaseFile(protocol, tuple(cases), sha256)


def read_cases(path: Path) -> CaseFile:
    """Read a cases file and verify that it is what was drawn.

    Raises:
        InputError: naming file and line, if it is no cases file, a line is malformed, a user comes twice,
            a list or a user does not fit the header, or lines were added, lost or changed.
    """
    try:
        first, _, body = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    header = _read_header(first, path)
    cases: dict[str, Case] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(body.removesuffix(b"\n").split(b"\n") if body else (), start=2):
        case = _parse(Case, line, f"{path}:{number}")
        if case.target is None:
            raise InputError(f"{path}:{number}: field 'target': Field required")
        if case.user_id in lines:
            raise InputError(f"{path}:{number}: user {case.user_id!r} is already in line {lines[case.user_id]}")
        if len(case.candidates) != header.negatives + 1:
            raise InputError(
                f"{path}:{number}: user {case.user_id!r} has {len(case.candidates)} candidates, "
                f"{header.negatives} negatives and the target make {header.negatives + 1}"
            )
        if header.part not in ("all", part_of(case.user_id)):
            raise InputError(f"{path}:{number}: user {case.user_id!r} is no {header.part} user, as the header says")
        cases[case.user_id], lines[case.user_id] = case, number
    if len(cases) != header.n:
        raise InputError(f"{path}:1: the header announces {header.n} cases, the file has {len(cases)}; draw it again")
    if hashlib.sha256(body).hexdigest() != header.sha256:
        raise InputError(f"{path}:1: the cases were changed after they were drawn (sha256 differs); draw them again")
    return CaseFile(Protocol(**header.model_dump(exclude={"n", "sha256"})), tuple(cases.values()), header.sha256)


def _read_header(line: bytes, path: Path) -> _Header:
    try:
        found = json.loads(line)["format"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}:1: not a cases file: its first line has no 'format'; draw one first") from None
    if found != FORMAT:
        raise InputError(f"{path}:1: format {found!r} cannot be read, only {FORMAT!r}; draw the cases again")
    return _parse(_Header, line, f"{path}:1")


def _parse(model: type[_Model], line: bytes, where: str) -> _Model:
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(step) for step in first["loc"])
        raise InputError(f"{where}: {f'field {field!r}: ' if field else ''}{first['msg']}") from None


def check_dataset(case_file: CaseFile, dataset: Dataset) -> None:
    """Make sure that `dataset` is the data the cases were drawn from.

    Raises:
        InputError: if interactions, item texts or metadata differ.
    """
    _require_same_data(case_file.protocol, dataset)


def _require_same_data(protocol: Protocol, dataset: Dataset) -> None:
    if dataset.sha256 != protocol.dataset_sha256:
        raise InputError(
            f"dataset {dataset.name!r} (sha256 {dataset.sha256[:12]}) is not the data of these cases: "
            f"{protocol.dataset!r} from {protocol.source} (sha256 {protocol.dataset_sha256[:12]}); "
            "give that data, or draw the cases again"
        )
