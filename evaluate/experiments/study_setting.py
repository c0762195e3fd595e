"""A study setting: one protocol on one dataset, with the cases and fits its runs share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from evaluate.data.dataset import Dataset
from evaluate.experiments.study_reading import cases_path
from evaluate.experiments.study_spec import DatasetSpec, ProtocolSpec
from evaluate.protocol.cases import Cases, draw_lists, load_cases, write_cases
from evaluate.protocol.leakage import find_leaks, refuse_leaks
from evaluate.protocol.protocol import EvaluationProtocol
from evaluate.protocol.splits import Split, split_dataset
from evaluate.ranker_factory import RankerFactory
from programs.runtime.errors import InputError
from programs.runtime.events import OnEvent, ignore


@dataclass
class StudySetting:
    """One protocol on one dataset; each part is made when first needed."""

    root: Path
    dataset: DatasetSpec
    protocol: ProtocolSpec
    data: Dataset
    on_event: OnEvent = ignore
    _cases: dict[tuple[int, int | None], Cases] = field(default_factory=dict)

    @cached_property
    def split(self) -> Split:
        """Who is evaluated, and what may be learnt."""
        return split_dataset(self.data, self._protocol(0, None))

    @cached_property
    def factory(self) -> RankerFactory:
        """Builds rankers without a language model."""
        return RankerFactory.create(self.data, self.split.training, on_event=self.on_event)

    def cases(self, draw: int, users: int | None) -> Cases:
        """The frozen cases of a draw, written when missing.

        Raises:
            InputError: if the file there holds other cases than the study file asks for, or they leak.
        """
        if (draw, users) not in self._cases:
            path = cases_path(self.root, self.dataset.name, self.protocol.name, draw, users)
            found = self._drawn(path, self._protocol(draw, users))
            self._refuse_leaks(found)
            self._cases[draw, users] = found
        return self._cases[draw, users]

    def tuning_cases(self, users: int) -> Cases:
        """Dev cases of the same protocol, checked like those of test users.

        Raises:
            InputError: if the evaluated users are not test users: then dev users are among them.
        """
        require_test_users(self.protocol)
        folder = cases_path(self.root, self.dataset.name, self.protocol.name, 0, None).parents[1] / "tuned"
        changes = {"part": "dev", "users": users, "negatives": self.protocol.negatives}
        found = self._drawn(folder / f"dev-{users}.jsonl", self._protocol(0, None).model_copy(update=changes))
        self._refuse_leaks(found)
        return found

    def _drawn(self, path: Path, protocol: EvaluationProtocol) -> Cases:
        if not path.exists():
            return write_cases(path, protocol, draw_lists(self.data, protocol, self.split)).on(self.data)
        found = load_cases(path)
        # The same data may lie elsewhere today: their hash is part of the protocol.
        if found.protocol.model_copy(update={"source": protocol.source}) != protocol:
            raise InputError(f"{path}: drawn by another protocol than the study file's; choose another --out")
        return found.on(self.data)

    def _refuse_leaks(self, cases: Cases) -> None:
        refuse_leaks(find_leaks(cases.cases, self.data, self.split.training, self.protocol.setting))

    def _protocol(self, draw: int, users: int | None) -> EvaluationProtocol:
        return self.protocol.drawn(self.dataset.name, self.data.source, self.data.sha256, users, draw)


def require_test_users(protocol: ProtocolSpec) -> None:
    """Refuse a protocol whose users may be dev users, where something is tuned on dev users.

    Raises:
        InputError: if its part is not `test`.
    """
    if protocol.part != "test":
        raise InputError(
            f"protocol {protocol.name!r}: what is tuned on dev users is evaluated on test users only; give it "
            'part = "test"'
        )
