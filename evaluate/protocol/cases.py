"""Frozen candidate lists: drawn once, written with a hash, and shared by every method that is compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from evaluate.data.dataset import Dataset
from evaluate.protocol.negatives import NegativeSampler
from evaluate.protocol.protocol import EvaluationProtocol, part_of
from evaluate.protocol.splits import Split, split_dataset
from programs.prior.scorers import Popularity
from programs.runtime.atomic import write_atomically
from programs.runtime.errors import InputError, input_error
from signatures.rows import Case, seed_of

CASES_FORMAT = "mllm3rec-cases/1"

_Model = TypeVar("_Model", bound=BaseModel)


class _Header(EvaluationProtocol):
    """First line of a cases file: the protocol, the number of lines after it, and their hash."""

    n: int
    sha256: str


@dataclass(frozen=True)
class CaseFile:
    """A cases file that was read and verified.

    Attributes:
        sha256: Hash of the case lines, the name by which runs tell that they ranked the same lists.
    """

    protocol: EvaluationProtocol
    cases: tuple[Case, ...]
    sha256: str


def draw_cases(dataset: Dataset, protocol: EvaluationProtocol, divided: Split | None = None) -> list[Case]:
    """One case per user of the protocol's part who can be evaluated, users in a seeded order.

    Negatives are drawn without replacement over the items somebody interacted with and this user never did, as
    `EvaluationProtocol.sampling` says; the slot of the target is uniform. A list
    depends on the data, the setting, the seed, the draw and the user id alone: fewer users, another part or shorter
    histories give the same lists, and 40 users are the first of 100.

    Args:
        divided: `split(dataset, protocol)` where it is already at hand.

    Returns:
        `protocol.users` cases, or fewer where the part has no more users.

    Raises:
        InputError: if the protocol was made for other data, nobody can be evaluated, or the catalogue is too
            small for so many negatives.
    """
    _require_same_data(protocol, dataset)
    divided = divided or split_dataset(dataset, protocol)
    found = {u: one for u, one in divided.held_out.items() if protocol.part in ("all", part_of(u))}
    if not found:
        raise InputError(
            f"dataset {protocol.dataset!r}, part {protocol.part!r}, {protocol.setting}: no user has a "
            f"{protocol.target!r} target with an interaction before it; use another target or part, or data with "
            "longer histories"
        )
    users = sorted(found, key=lambda user: seed_of("order", protocol.seed, user))[: protocol.users]
    pool = sorted(set(dataset.interactions["item_id"]) & dataset.items.keys())
    own = {user: {event.item_id for event in dataset.sequences[user]} & dataset.items.keys() for user in users}
    _require_enough(len(pool), own, protocol.negatives)
    popularity = Popularity.fit(divided.training).counts
    sampler = NegativeSampler(pool, popularity, protocol.sampling, protocol.negatives)
    cases = []
    for user in users:
        draw = ("draw", protocol.draw) if protocol.draw else ()
        rng = np.random.default_rng(seed_of(protocol.seed, user, *draw))
        target = found[user].target
        candidates = sampler.draw(rng, target, own[user])
        if len(candidates) < protocol.negatives:
            raise InputError(
                f"user {user!r}: {len(candidates)} of {protocol.negatives} negatives could be drawn "
                f"{protocol.sampling}; ask for fewer, or draw them uniformly"
            )
        candidates.insert(int(rng.integers(protocol.negatives + 1)), target)
        cases.append(
            Case(
                user_id=user,
                history=found[user].history,
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


def write_cases(path: Path, protocol: EvaluationProtocol, cases: Sequence[Case]) -> CaseFile:
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
            raise InputError(f"{path}:{number}: target: Field required")
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
    return CaseFile(
        EvaluationProtocol(**header.model_dump(exclude={"n", "sha256"})), tuple(cases.values()), header.sha256
    )


def _read_header(line: bytes, path: Path) -> _Header:
    try:
        found = json.loads(line)["format"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}:1: not a cases file: its first line has no 'format'; draw one first") from None
    if found != CASES_FORMAT:
        raise InputError(f"{path}:1: format {found!r} cannot be read, only {CASES_FORMAT!r}; draw the cases again")
    return _parse(_Header, line, f"{path}:1")


def _parse(model: type[_Model], line: bytes, where: str) -> _Model:
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        raise input_error(where, error) from None


def check_dataset(case_file: CaseFile, dataset: Dataset) -> None:
    """Make sure that `dataset` is the data the cases were drawn from.

    Raises:
        InputError: if interactions, item texts or metadata differ.
    """
    _require_same_data(case_file.protocol, dataset)


def _require_same_data(protocol: EvaluationProtocol, dataset: Dataset) -> None:
    if dataset.sha256 != protocol.dataset_sha256:
        raise InputError(
            f"dataset {dataset.name!r} (sha256 {dataset.sha256[:12]}) is not the data of these cases: "
            f"{protocol.dataset!r} from {protocol.source} (sha256 {protocol.dataset_sha256[:12]}); "
            "give that data, or draw the cases again"
        )
