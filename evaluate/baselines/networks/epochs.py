"""Epoch loop of every trained network: early stopping on dev, checkpoints, kept fits; needs the extra `neural`.

A network is fitted like this, where all that is random follows from the seed of the plan:

    with reproducible(plan.seed):
        network = Network(...).to(best_device())
        optimizer = torch.optim.Adam(network.parameters())

        def one_epoch(number, rng):
            batches = shuffled_batches(len(examples), 128, rng)
            return take_steps(optimizer, (network.loss(examples[batch]) for batch in batches))

        train_epochs(network, optimizer, one_epoch, dev_score, plan)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evaluate.baselines.fitting import held
from evaluate.baselines.networks.fit_plan import FitPlan
from programs.runtime.atomic import sweep, write_atomically
from programs.runtime.errors import InputError
from programs.runtime.events import KeptFit, Progress
from programs.runtime.one_thread import one_thread
from programs.runtime.tensor_file import packed_tensors, read_packed

UNFINISHED = "checkpoint.safetensors"
"""State after the last whole epoch of a fit that is not finished."""
FINISHED = "fit.safetensors"
"""The best state of a finished fit."""

State = dict[str, Tensor]

TrainEpoch = Callable[[int, np.random.Generator], float]
"""Trains one epoch, numbered from 1, and returns its mean loss. Every random draw comes from the generator or from
torch's own, which is seeded before the call, too."""

DevScore = Callable[[], float]
"""The score of the network as it is now, higher is better, on what was held out of the training data."""


@dataclass(frozen=True)
class Trained:
    """How a fit went.

    Attributes:
        epochs: Epochs that were trained.
        best_epoch: The epoch whose state is kept.
        dev_score: Its score; the number of the epoch if there is no dev score.
        loss: Mean loss of the last epoch.
    """

    epochs: int = 0
    best_epoch: int = 0
    dev_score: float = -math.inf
    loss: float = math.nan


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """One thread of torch and a seeded torch inside the block; afterwards both are as they were."""
    with one_thread(), torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def take_steps(optimizer: torch.optim.Optimizer, losses: Iterable[Tensor]) -> float:
    """Move the weights once for each loss; returns the mean loss, 0 if there is none.

    Args:
        losses: An iterator that computes a loss when it is asked for it: after the step on the loss before.
    """
    values = []
    for loss in losses:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return float(np.mean(values)) if values else 0.0


def train_epochs(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    train_epoch: TrainEpoch,
    dev_score: DevScore | None,
    plan: FitPlan,
) -> Trained:
    """Train until the dev score stops improving; the network then has its best state, in evaluation mode.

    A fit that was killed goes on after its last whole epoch, and ends with the weights of one that was not. A finished
    fit is loaded. Of two processes with the same fit, one waits for the other.

    Args:
        optimizer: Of the network's parameters.
        dev_score: None if nothing is held out: then the last epoch is the best.

    Raises:
        InputError: if a kept file is damaged or of another network, or the loss is not finite.
    """
    loop = _Loop(network, optimizer, train_epoch, dev_score, plan)
    folder, task, on_event = plan.folder, plan.task, plan.on_event
    if folder is None:
        return loop.run(None)
    finished = folder / FINISHED
    if not finished.exists():
        with held(folder, task, on_event):
            if not finished.exists():
                sweep(folder)
                trained = loop.run(folder / UNFINISHED)
                write_atomically(finished, packed_tensors(loop.best, {"trained": asdict(trained)}))
                (folder / UNFINISHED).unlink(missing_ok=True)
                return trained
    state, about = read_packed(finished, _damaged(finished))
    loop.take_over(state, finished)
    on_event(KeptFit(f"{task}: the fit is kept in {folder}", folder))
    return Trained(**about["trained"])


class _Loop:
    """State of one training between epochs."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        train_epoch: TrainEpoch,
        dev_score: DevScore | None,
        plan: FitPlan,
    ) -> None:
        self.network, self.optimizer = network, optimizer
        self.train_epoch, self.dev_score, self.plan = train_epoch, dev_score, plan
        self.now = Trained()
        self.best = _copied(network.state_dict())

    def run(self, checkpoint: Path | None) -> Trained:
        if checkpoint is not None and checkpoint.exists():
            self._restore(checkpoint)
            self.plan.on_event(KeptFit(f"{self.plan.task}: goes on after epoch {self.now.epochs}", checkpoint.parent))
        self._report(self.now.epochs)
        while self.now.epochs < self.plan.epochs and self.now.epochs - self.now.best_epoch < self.plan.patience:
            self._epoch(self.now.epochs + 1)
            if checkpoint is not None:
                self._save(checkpoint)
        self.network.load_state_dict(self.best)
        self.network.eval()
        self._report(self.plan.epochs, self._said())
        return self.now

    def _epoch(self, number: int) -> None:
        seed, task = self.plan.seed, self.plan.task
        torch.manual_seed(int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
        self.network.train()
        loss = self.train_epoch(number, np.random.default_rng([seed, number]))
        if not math.isfinite(loss):
            raise InputError(f"{task}: the loss of epoch {number} is not finite; fit with a lower learning rate")
        self.network.eval()
        with torch.no_grad():
            score = float(number) if self.dev_score is None else self.dev_score()
        if not math.isfinite(score):
            raise InputError(f"{task}: the weights after epoch {number} are not finite; fit with a lower learning rate")
        if score > self.now.dev_score:
            self.now = Trained(number, number, score, loss)
            self.best = _copied(self.network.state_dict())
        else:
            self.now = Trained(number, self.now.best_epoch, self.now.dev_score, loss)
        self._report(number, self._said())

    def _report(self, epochs: int, detail: str = "") -> None:
        self.plan.on_event(Progress(self.plan.task, epochs, self.plan.epochs, detail=detail))

    def _said(self) -> str:
        if self.dev_score is None:
            return f"loss {self.now.loss:.3f}"
        return f"loss {self.now.loss:.3f}, best dev score {self.now.dev_score:.4f} after epoch {self.now.best_epoch}"

    def take_over(self, state: State, where: Path) -> None:
        """Load the weights of a kept fit."""
        _check(state, self.network.state_dict(), where)
        self.network.load_state_dict(state)
        self.network.eval()

    def _save(self, checkpoint: Path) -> None:
        tensors = {f"now.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        values: dict[str, Any] = {}
        for number, parts in self.optimizer.state_dict()["state"].items():
            for part, value in parts.items():
                into = tensors if isinstance(value, Tensor) else values
                into[f"optimizer.{number}.{part}"] = value
        write_atomically(checkpoint, packed_tensors(tensors, {"trained": asdict(self.now), "optimizer": values}))

    def _restore(self, checkpoint: Path) -> None:
        tensors, about = read_packed(checkpoint, _damaged(checkpoint))
        parts: dict[str, State] = {"now": {}, "best": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        self.take_over(parts["now"], checkpoint)
        _check(parts["best"], self.best, checkpoint)
        self.best = {name: tensor.to(self.best[name].device) for name, tensor in parts["best"].items()}
        moments: dict[int, dict[str, Any]] = {}
        kept = {name.removeprefix("optimizer."): value for name, value in about["optimizer"].items()}
        for name, value in {**parts["optimizer"], **kept}.items():
            number, _, part = name.partition(".")
            moments.setdefault(int(number), {})[part] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.now = Trained(**about["trained"])


def _copied(state: Mapping[str, Tensor]) -> State:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def _damaged(path: Path) -> str:
    return f"{path}: the kept fit is damaged; delete its folder {path.parent} to fit again"


def _check(given: Mapping[str, Tensor], own: Mapping[str, Tensor], where: Path) -> None:
    if {name: tensor.shape for name, tensor in given.items()} != {name: tensor.shape for name, tensor in own.items()}:
        raise InputError(f"{where}: is of another network; delete its folder {where.parent} to fit again")
