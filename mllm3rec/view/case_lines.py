"""Reader of a cases file by lines: the case of one user without reading those of the others."""

from __future__ import annotations

import hashlib
import mmap
import threading
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import orjson
from pydantic import ValidationError
from pydantic_core import to_json

from evaluate.data.dataset import Dataset
from evaluate.data.load import load_dataset
from evaluate.protocol.cases import recorded_protocol
from evaluate.protocol.protocol import EvaluationProtocol
from evaluate.protocol.splits import split_dataset
from programs.prior.scorers import Training
from programs.runtime.errors import InputError, input_error, quoted
from programs.runtime.untrusted import regular
from signatures.rows import Case

_KEY = b'\n{"user_id":'
_NEAR = 1 << 16
"""Bytes around the last line found in which the next user is looked for first: runs rank users nearly in order."""


class ListedTarget(NamedTuple):
    """The list of one user."""

    candidates: list[str]
    target: str


class CaseLines:
    """Cases of one file. Safe to use from several threads.

    Attributes:
        sha256: Hash of the case lines as they are, which their header may deny: compare it with that of a run.

    Raises:
        InputError: if it is not a cases file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.protocol: EvaluationProtocol = recorded_protocol(path)
        self._lock = threading.Lock()
        self._last = 0
        with regular(path).open("rb") as file:
            self._whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with memoryview(self._whole) as whole, whole[self._whole.find(b"\n") + 1 :] as body:
            self.sha256 = hashlib.sha256(body).hexdigest()

    def find(self, user: str) -> Case | None:
        """The case of a user, or None.

        Raises:
            InputError: if its line is not a case.
        """
        line = self._line(user)
        try:
            return None if line is None else Case.model_validate_json(line)
        except ValidationError as error:
            raise input_error(f"{self.path}: the case of user {quoted(user)}", error) from None

    def listed(self, user: str) -> ListedTarget | None:
        """Candidates and target of a user, or None: what ranks need, read in a tenth of the time of `find`.

        Raises:
            InputError: if its line is not a case.
        """
        line = self._line(user)
        try:
            if line is None:
                return None
            case = orjson.loads(line)
            listed = ListedTarget(case["candidates"], case["target"])
            if not isinstance(listed.candidates, list) or listed.target not in listed.candidates:
                raise TypeError
            return listed
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise InputError(
                f"{self.path}: the case of user {quoted(user)} cannot be read; draw the cases again"
            ) from None

    def _line(self, user: str) -> bytes | None:
        key = _KEY + to_json(user) + b","
        with self._lock:
            # Most often the next line; with many workers a line a little before; else anywhere.
            for begin, end in (
                (self._last, self._last + _NEAR),
                (max(0, self._last - _NEAR), self._last + _NEAR),
                (0, len(self._whole)),
            ):
                found = self._whole.find(key, begin, end)
                if found >= 0:
                    break
            else:
                return None
            self._last = found
            end = self._whole.find(b"\n", found + 1)
            return self._whole[found + 1 : end if end > 0 else len(self._whole)]

    @cached_property
    def dataset(self) -> Dataset:
        """The data that the cases were drawn from, loaded from where the file says it is.

        Raises:
            InputError: if it is not there, or is other data now.
        """
        dataset = load_dataset(self.protocol.source, self.protocol.columns)
        if dataset.sha256 != self.protocol.dataset_sha256:
            raise InputError(
                f"{self.protocol.source}: is not the data any more that these cases were drawn from (sha256 differs)"
            )
        return dataset

    @cached_property
    def training(self) -> Training:
        """Training data of the protocol."""
        return split_dataset(self.dataset, self.protocol).training
