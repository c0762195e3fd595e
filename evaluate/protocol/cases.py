"""Frozen candidate lists: drawn once, written with a hash, and shared by every method that is compared."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field, ValidationError

from evaluate.data.data_warnings import DataWarning, find_data_warnings
from evaluate.data.dataset import Dataset
from evaluate.data.load import load_dataset
from evaluate.protocol.case_warnings import find_given_away, find_known_titles
from evaluate.protocol.leakage import Leak, find_changed, find_leaks, refuse_leaks
from evaluate.protocol.negatives import NegativeSampler
from evaluate.protocol.protocol import IN_MEMORY, EvaluationProtocol, part_of
from evaluate.protocol.splits import Split, dated, split_dataset
from programs.prior.scorers import Popularity, Training, histories_of
from programs.runtime.atomic import write_atomically
from programs.runtime.errors import InputError, abridged, input_error, quoted
from programs.runtime.untrusted import regular
from signatures.rows import Case, seed_of

if TYPE_CHECKING:
    import dspy

CASES_FORMAT = "mllm3rec-cases/1"

_Model = TypeVar("_Model", bound=BaseModel)


_DRAW_ONE = "draw cases with `mllm3rec cases`"


class _Header(EvaluationProtocol):
    """First line of a cases file: the protocol, the number of lines after it, and their hash."""

    n: int = Field(ge=1)
    sha256: str


@dataclass(frozen=True)
class Cases:
    """Frozen candidate lists, the protocol that drew them, and the data they were drawn from.

    Iterating gives the cases with their targets; rankers get them without (`Case.blinded`).

    Attributes:
        sha256: Hash of the case lines; equal for runs on the same lists.
    """

    protocol: EvaluationProtocol
    cases: tuple[Case, ...]
    sha256: str
    _dataset: Dataset | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __getitem__(self, index: int) -> Case:
        return self.cases[index]

    @cached_property
    def dataset(self) -> Dataset:
        """The data; loaded from the protocol's source unless it is attached (`on`).

        Raises:
            InputError: if it cannot be loaded, or is not the data the cases were drawn from.
        """
        if self._dataset is not None:
            return self._dataset
        if self.protocol.source == IN_MEMORY:
            raise InputError(
                f"dataset {quoted(self.protocol.dataset)} was built in memory, not from files: pass it as `dataset`"
            )
        dataset = load_dataset(self.protocol.source, self.protocol.columns)
        _require_same_data(self.protocol, dataset)
        return dataset

    @property
    def has_dataset(self) -> bool:
        """Whether the data is attached (`on`), so that it need not be loaded."""
        return self._dataset is not None

    @cached_property
    def training(self) -> Training:
        """Training data of the protocol, without held-out interactions (checked, as the cases are).

        Raises:
            InputError: naming users whose held-out interactions are in it, or whose cases the protocol does not give.
        """
        refuse_leaks(self.leaks)
        return self._split.training

    @cached_property
    def leaks(self) -> list[Leak]:
        """Held-out interactions where they must not be, and lists that data and protocol do not give."""
        return self.leaks_in(self._split)

    def leaks_in(self, split: Split) -> list[Leak]:
        """`leaks`, if rankers are fitted on the training data of `split`."""
        found = find_leaks(self.cases, self.dataset, split.training, self.protocol.setting, self.protocol.since)
        return found + find_changed(self.cases, draw_lists(self.dataset, self.protocol, split))

    def leaks_by(self, rules: Mapping[str, str | int | float]) -> list[Leak]:
        """Held-out interactions in the training data that other rules give (`EvaluationProtocol.training_rules`).

        Raises:
            InputError: if there are no such rules.
        """
        if rules == self.protocol.training_rules():
            return []
        own = self.protocol.model_dump(exclude={"since"}) | dict(rules)
        try:
            other = EvaluationProtocol.model_validate(own)
        except ValidationError as error:
            raise input_error("rules of training data", error) from None
        training = split_dataset(self.dataset, other).training
        return find_leaks(self.cases, self.dataset, training, self.protocol.setting, self.protocol.since)

    def warnings(self) -> list[DataWarning]:
        """What makes targets easy to find in data and lists, natural or planted; counted, not refused."""
        return [
            *find_data_warnings(self.dataset),
            *find_known_titles(self.cases, self.dataset.items),
            *self.list_warnings(),
        ]

    def list_warnings(self) -> list[DataWarning]:
        """The part of `warnings` that says that the lists give their targets away."""
        return find_given_away(self.cases, Popularity.fit(self._split.histories).counts)

    @cached_property
    def _split(self) -> Split:
        return split_dataset(self.dataset, self.protocol)

    def on(self, dataset: Dataset) -> Cases:
        """The same cases with their data attached.

        Raises:
            InputError: if `dataset` is not the data they were drawn from.
        """
        _require_same_data(self.protocol, dataset)
        return replace(self, _dataset=dataset)

    def save(self, path: str | Path) -> Path:
        """Write the cases file: JSON Lines, the protocol and hash first, then one case a line. Atomic."""
        path = Path(path)
        write_atomically(path, _header_line(self.protocol, len(self.cases), self.sha256) + _body(self.cases))
        return path

    def refuse_other_file(self, path: str | Path) -> None:
        """Refuse to write over a file that does not hold these cases: runs may have ranked what is in it.

        Raises:
            InputError: naming the file and both hashes.
        """
        path = Path(path)
        if not path.exists():
            return
        if not is_cases_file(path):
            raise InputError(f"{path}: is no cases file, and would be lost; give another file")
        stored = _read_header(header_of(path), path).sha256
        if stored != self.sha256:
            raise InputError(
                f"{path}: holds other cases (sha256 {stored[:12]}, the new ones {self.sha256[:12]}), on which runs may "
                "have been made; give another file, or --replace"
            )

    def examples(self) -> list[dspy.Example]:
        """The cases as DSPy examples, for `dspy.Evaluate` and DSPy's optimizers; programs ignore the target."""
        import dspy

        return [dspy.Example(case=case).with_inputs("case") for case in self.cases]

    def to_frame(self) -> pd.DataFrame:
        """One row per case: user_id, history (ids, oldest first), candidates, target."""
        return pd.DataFrame(
            {
                "user_id": [case.user_id for case in self.cases],
                "history": [case.item_ids for case in self.cases],
                "candidates": [case.candidates for case in self.cases],
                "target": [case.target for case in self.cases],
            }
        )


def draw_cases(dataset: Dataset, **choices: Any) -> Cases:
    """Hold out one interaction per user and draw its negatives, once for all rankers.

    Args:
        dataset: The data.
        choices: Fields of `EvaluationProtocol`: part (`dev`, `test`, `all`), users, negatives, seed, target, setting,
            sampling, draw, last, since, cold_positive, cold_history; each has a default.

    Returns:
        At most `users` cases, in a seeded order.

    Raises:
        InputError: naming the field, if a choice is invalid; or if no user can be evaluated, or the catalogue is too
            small for so many negatives.
    """
    of_data = {"columns": dict(dataset.columns)} if dataset.columns else {}
    protocol = EvaluationProtocol.for_dataset(dataset.name, dataset.source, dataset.sha256, **of_data, **choices)
    protocol = dated(dataset, protocol)
    cases = tuple(draw_lists(dataset, protocol))
    return Cases(protocol, cases, hashlib.sha256(_body(cases)).hexdigest(), dataset)


def draw_lists(dataset: Dataset, protocol: EvaluationProtocol, split: Split | None = None) -> list[Case]:
    """One case per evaluable user of the protocol's part, users in a seeded order.

    Negatives are drawn without replacement (`EvaluationProtocol.sampling`) from the items with interactions, without
    the user's own; the target's position is uniform. A list depends only on data, setting, seed, draw and user id:
    fewer users, another part or shorter histories give the same lists, and 40 users are the first of 100, or the
    last of them with `protocol.skip` of 60.

    Args:
        split: `split_dataset(dataset, protocol)`, if it was computed already.

    Returns:
        `protocol.users` cases, or fewer if the part has fewer users.

    Raises:
        InputError: if the protocol was made for other data, no user can be evaluated, none is left after the skipped
            ones, or the catalogue is too small for so many negatives. Users who have too many items for that are left
            out (`users_short_of_items`).
    """
    _require_same_data(protocol, dataset)
    split = split or split_dataset(dataset, protocol)
    left = _items_left(dataset, protocol, split)
    if not left:
        raise InputError(
            f"dataset {quoted(protocol.dataset)}, part {protocol.part!r}, {protocol.setting}: no user has a "
            f"{protocol.target!r} target with an interaction before it; use another target or part, or data with "
            "longer histories"
        )
    enough = [user for user, items in left.items() if items >= protocol.negatives]
    if not enough:
        _refuse_too_many(len(_drawable(dataset, protocol, split)), max(left.values()), protocol)
    users = sorted(enough, key=lambda user: seed_of("order", protocol.seed, user))[protocol.skip :][: protocol.users]
    if not users:
        raise InputError(f"skip {protocol.skip}: there are only {len(enough)} users; skip fewer")
    pool = sorted(set(dataset.interactions["item_id"]) & dataset.items.keys())
    popularity = Popularity.fit(histories_of(split.training)).counts
    sampler = NegativeSampler(pool, popularity, protocol.sampling, protocol.negatives)
    cases = []
    for user in users:
        draw = ("draw", protocol.draw) if protocol.draw else ()
        rng = np.random.default_rng(seed_of(protocol.seed, user, *draw))
        target = split.held_out[user].target
        own = {event.item_id for event in dataset.sequences[user]} & dataset.items.keys()
        candidates = sampler.draw(rng, target, own)
        candidates.insert(int(rng.integers(protocol.negatives + 1)), target)
        cases.append(
            Case(
                user_id=user,
                history=split.held_out[user].history,
                candidates=tuple(candidates),
                target=target,
                metadata=dataset.metadata.get(user, {}),
            )
        )
    return cases


def _drawable(dataset: Dataset, protocol: EvaluationProtocol, split: Split) -> set[str]:
    """Items that can be drawn as negatives; in proportion to popularity only those that the training data has."""
    items = set(dataset.interactions["item_id"]) & dataset.items.keys()
    if protocol.sampling == "popularity":
        items &= {event.item_id for events in split.training.values() for event in events}
    return items


def _items_left(dataset: Dataset, protocol: EvaluationProtocol, split: Split) -> dict[str, int]:
    """For each user of the protocol's part who has a target: the number of items that can be drawn as negatives."""
    drawable = _drawable(dataset, protocol, split)
    return {
        user: len(drawable) - len(drawable.intersection(event.item_id for event in dataset.sequences[user]))
        for user in split.held_out
        if protocol.part in ("all", part_of(user))
    }


def _refuse_too_many(catalogue: int, left: int, protocol: EvaluationProtocol) -> None:
    by_popularity = protocol.sampling == "popularity"
    counted = "users in the training data" if by_popularity else "interactions"
    raise InputError(
        f"{protocol.negatives} negatives asked, but in a catalogue of {catalogue} items with {counted} every user has "
        f"at most {left} without one of theirs; ask for at most {left} negatives, or "
        + ("draw them uniformly" if by_popularity else "use a larger catalogue")
    )


def users_short_of_items(dataset: Dataset, protocol: EvaluationProtocol) -> list[str]:
    """Users of the protocol's part who can be evaluated but for their many items: too few are left as negatives."""
    left = _items_left(dataset, protocol, split_dataset(dataset, protocol))
    return sorted(user for user, items in left.items() if items < protocol.negatives)


def write_cases(path: Path, protocol: EvaluationProtocol, cases: Sequence[Case]) -> Cases:
    """Write cases that were drawn by `draw_lists`.

    Returns:
        The same as `load_cases(path)`.
    """
    written = Cases(protocol, tuple(cases), hashlib.sha256(_body(cases)).hexdigest())
    written.save(path)
    return written


def _body(cases: Sequence[Case]) -> bytes:
    return "".join(case.model_dump_json(exclude_defaults=True) + "\n" for case in cases).encode()


_LONGEST_HEADER = 1 << 16


def _header_line(protocol: EvaluationProtocol, n: int, sha256: str) -> bytes:
    header = _Header(**protocol.model_dump(), n=n, sha256=sha256)
    return header.model_dump_json(exclude_none=True).encode() + b"\n"


def load_cases(path: str | Path, dataset: Dataset | str | Path | None = None) -> Cases:
    """Read a cases file and verify its hash.

    Args:
        dataset: The data it was drawn from, or where it is now; None to load it when first needed (`Cases.dataset`).

    Raises:
        InputError: naming file and line, if it is not a cases file, a line is malformed, a user is repeated, a list or
            a user does not fit the header, there is no case, or lines were added, lost or changed.
    """
    path = Path(path)
    try:
        first, _, body = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; {_DRAW_ONE}") from None
    header = _read_header(first.removeprefix(codecs.BOM_UTF8), path)
    cases: dict[str, Case] = {}
    lines: dict[str, int] = {}
    for number, line in enumerate(body.removesuffix(b"\n").split(b"\n") if body else (), start=2):
        case = _parse(Case, line, f"{path}:{number}")
        if case.target is None:
            raise InputError(f"{path}:{number}: target: Field required")
        if case.user_id in lines:
            raise InputError(f"{path}:{number}: user {quoted(case.user_id)} is already in line {lines[case.user_id]}")
        if len(case.candidates) != header.negatives + 1:
            raise InputError(
                f"{path}:{number}: user {quoted(case.user_id)} has {len(case.candidates)} candidates, "
                f"{header.negatives} negatives and the target make {header.negatives + 1}"
            )
        if header.part not in ("all", part_of(case.user_id)):
            raise InputError(
                f"{path}:{number}: user {quoted(case.user_id)} is not a {header.part} user, as the header says"
            )
        cases[case.user_id], lines[case.user_id] = case, number
    if len(cases) != header.n:
        raise InputError(f"{path}:1: the header announces {header.n} cases, the file has {len(cases)}; draw it again")
    if hashlib.sha256(body).hexdigest() != header.sha256:
        raise InputError(f"{path}:1: the cases were changed after they were drawn (sha256 differs); draw them again")
    loaded = Cases(_protocol_of(header), tuple(cases.values()), header.sha256)
    if isinstance(dataset, str | Path):
        dataset = load_dataset(dataset, loaded.protocol.columns)
    return loaded if dataset is None else loaded.on(dataset)


def is_cases_file(path: Path) -> bool:
    """Whether a file begins like one of cases, valid or not; files of data begin otherwise."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(_LONGEST_HEADER).partition(b"\n")[0]
    return start.removeprefix(codecs.BOM_UTF8).startswith(b"{") and b'"sha256"' in start


def recorded_protocol(path: Path) -> EvaluationProtocol:
    """The protocol that a cases file was drawn with; its cases are not read.

    Raises:
        InputError: if it is not a cases file.
    """
    return _protocol_of(_read_header(header_of(path), path))


def header_of(path: Path) -> bytes:
    """The first line of a cases file as it is, no more of it than the longest header.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        with regular(path).open("rb") as file:
            return file.readline(_LONGEST_HEADER).removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; {_DRAW_ONE}") from None


def _protocol_of(header: _Header) -> EvaluationProtocol:
    return EvaluationProtocol(**header.model_dump(exclude={"n", "sha256"}))


def _read_header(line: bytes, path: Path) -> _Header:
    try:
        form = json.loads(line)["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}:1: not a cases file: its first line has no 'format'; {_DRAW_ONE}") from None
    if form != CASES_FORMAT:
        raise InputError(f"{path}:1: format {quoted(form)} cannot be read, only {CASES_FORMAT!r}; draw the cases again")
    return _parse(_Header, line, f"{path}:1")


def _parse(model: type[_Model], line: bytes, where: str) -> _Model:
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        raise input_error(where, error) from None


def _require_same_data(protocol: EvaluationProtocol, dataset: Dataset) -> None:
    if dataset.sha256 != protocol.dataset_sha256:
        raise InputError(
            f"dataset {dataset.name!r} (sha256 {dataset.sha256[:12]}) is not the data of these cases: "
            f"{quoted(protocol.dataset)} from {abridged(protocol.source)} (sha256 {protocol.dataset_sha256[:12]}); "
            "give that data, or draw the cases again"
        )
