"""A study setting: one protocol on one dataset, with the cases and training data that its runs share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from evaluate.data.dataset import Dataset
from evaluate.experiments.study_reading import cases_path
from evaluate.experiments.study_spec import DatasetSpec, ProtocolSpec
from evaluate.protocol.cases import Cases, draw_lists, load_cases, recorded_protocol, write_cases
from evaluate.protocol.leakage import refuse_leaks
from evaluate.protocol.protocol import EvaluationProtocol, Sampling
from evaluate.protocol.splits import Split, dated, split_dataset
from evaluate.ranker_factory import RankerFactory
from programs.lm.roles import Roles
from programs.prior.choice import NEWEST, PriorName
from programs.prior.default_encoder import encoder_name
from programs.runtime.errors import InputError
from programs.runtime.events import OnEvent, ignore


@dataclass
class StudySetting:
    """One protocol on one dataset; each part is made when first needed.

    Attributes:
        roles: Models whose stored traits are read by fits; None for none.
    """

    root: Path
    dataset: DatasetSpec
    protocol: ProtocolSpec
    data: Dataset
    prior: PriorName = NEWEST
    on_event: OnEvent = ignore
    roles: Roles | None = None
    _cases: dict[tuple[int, int | None], Cases] = field(default_factory=dict)
    _factory: tuple[str, RankerFactory] | None = None

    @cached_property
    def sampling(self) -> Sampling | None:
        """How negatives are drawn, if the study file or cases of this setting in the folder say it.

        Cases that were drawn before a default changed keep theirs, and further draws are like them.
        """
        folder = cases_path(self.root, self.dataset.name, self.protocol.name, 0, None).parents[1]
        files = sorted(folder.glob("draw*/cases*.jsonl"))
        if self.protocol.sampling is not None or not files:
            return self.protocol.sampling
        return recorded_protocol(files[0]).sampling

    @cached_property
    def split(self) -> Split:
        """Held-out targets and training data."""
        return split_dataset(self.data, self._protocol(0, None))

    @property
    def factory(self) -> RankerFactory:
        """Builds rankers without a language model, on the encoder that is in use.

        Only the one of the last encoder is kept: its matrices of items by items take gigabytes.
        """
        name = encoder_name()
        if self._factory is None or self._factory[0] != name:
            made = RankerFactory.create(
                self.data,
                self.split.training,
                self.roles,
                prior=self.prior,
                protocol=self._protocol(0, None),
                on_event=self.on_event,
            )
            self._factory = name, made
        return self._factory[1]

    def cases(self, draw: int, users: int | None) -> Cases:
        """The frozen cases of a draw; drawn if they are missing.

        Raises:
            InputError: if their file was drawn by another protocol than the study file's, is not what that protocol
                draws, or leaks.
        """
        if (draw, users) not in self._cases:
            path = cases_path(self.root, self.dataset.name, self.protocol.name, draw, users)
            self._cases[draw, users] = self._drawn(path, self._protocol(draw, users))
        return self._cases[draw, users]

    def tuning_cases(self, users: int) -> Cases:
        """Dev cases of the same protocol, checked likewise.

        Raises:
            InputError: if the evaluated users are not test users only.
        """
        require_test_users(self.protocol)
        folder = cases_path(self.root, self.dataset.name, self.protocol.name, 0, None).parents[1] / "tuned"
        changes = {"part": "dev", "users": users, "skip": 0, "negatives": self.protocol.negatives}
        return self._drawn(folder / f"dev-{users}.jsonl", self._protocol(0, None).model_copy(update=changes))

    def _drawn(self, path: Path, protocol: EvaluationProtocol) -> Cases:
        if path.exists():
            cases = load_cases(path)
            # The data may have moved; their hash is part of the protocol.
            of_data = {"source": protocol.source, "columns": protocol.columns}
            if cases.protocol.model_copy(update=of_data) != protocol:
                raise InputError(f"{path}: drawn by another protocol than the study file's; choose another --out")
        else:
            # Without a date that was found in the data, which may hold days as numbers.
            self.protocol.drawn(self.dataset.name, self.data.source, self.data.sha256).check_meant()
            cases = write_cases(path, protocol, draw_lists(self.data, protocol, self.split))
        cases = cases.on(self.data)
        refuse_leaks(cases.leaks_in(self.split))
        return cases

    def _protocol(self, draw: int, users: int | None) -> EvaluationProtocol:
        protocol = self.protocol.model_copy(update={"sampling": self.sampling})
        drawn = protocol.drawn(self.dataset.name, self.data.source, self.data.sha256, users, draw)
        return dated(self.data, drawn).model_copy(update={"columns": dict(self.data.columns)})


def require_test_users(protocol: ProtocolSpec) -> None:
    """Refuse a protocol with dev users for rankers that are tuned on dev users.

    Raises:
        InputError: if its part is not `test`.
    """
    if protocol.part != "test":
        raise InputError(
            f"protocol {protocol.name!r}: rankers tuned on dev users are evaluated on test users only; "
            'set part = "test"'
        )
