"""Training of a fine-tuned model in blocks of steps, resumable after each block."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from programs.runtime.atomic import write_atomically
from programs.runtime.errors import InputError
from programs.runtime.events import KeptFit, Note, OnEvent, Progress
from programs.runtime.tensor_file import packed_tensors, read_packed
from programs.tuned.backbone import Backbone
from programs.tuned.settings import PromptList, TuningSettings

TASK = "fine-tuning"


@dataclass(frozen=True)
class Figures:
    """What a model reaches on lists: mean loss in nats, and NDCG of the whole list."""

    loss: float
    ndcg: float


class Trainable(Protocol):
    """A model as its training sees it, see `FineTuned`."""

    base: Backbone
    settings: TuningSettings
    adapter: dict[str, Tensor]

    def loss(self, one: PromptList) -> Tensor:
        """Loss of a list, with gradients."""
        ...

    def figures(self, lists: Sequence[PromptList]) -> Figures:
        """Loss and NDCG on lists."""
        ...

    def load(self, tensors: Mapping[str, Tensor], where: object) -> None:
        """Take over tensors."""
        ...


class AdapterTraining:
    """State of one training between blocks."""

    def __init__(
        self,
        model: Trainable,
        lists: Sequence[PromptList],
        dev: Sequence[PromptList],
        checkpoint: Path,
        on_event: OnEvent,
    ) -> None:
        self.model, self.lists, self.dev, self.checkpoint, self.on_event = model, lists, dev, checkpoint, on_event
        self.settings = model.settings
        self.names = list(model.adapter)
        self.optimizer = torch.optim.AdamW(model.adapter.values(), lr=self.settings.rate, weight_decay=0.01)
        self.step, self.stale, self.seconds = 0, 0, 0.0
        self.best = Figures(float("inf"), 0.0)
        self.average = self._adapter()
        self.kept = self._adapter()
        self.identity = json.dumps(
            {
                "base": model.base.sha256,
                "device": model.base.device.type,
                "dtype": str(model.base.model.dtype),
                "settings": self.settings.model_dump(),
                "lists": _fingerprint(lists),
                "dev": _fingerprint(dev),
            },
            sort_keys=True,
        )

    def run(self) -> Figures:
        """All blocks that are left."""
        if self.checkpoint.exists():
            self._restore()
            self._say_kept()
        else:
            self.best = self.model.figures(self.dev)
            self.on_event(Note(f"before this training: dev loss {self.best.loss:.3f}, dev NDCG {self.best.ndcg:.3f}"))
        while not self._over:
            self._block()
            self._save()
        self.model.load(self.kept, self.checkpoint)
        total = self.settings.lists
        self.on_event(Progress(TASK, total, total))
        return self.best

    @property
    def _over(self) -> bool:
        return self.step >= self.settings.steps or self.stale >= self.settings.patience

    def _say_kept(self) -> None:
        folder, done = self.checkpoint.parent, min(self.step * self.settings.batch, self.settings.lists)
        what = f"the fit is kept in {folder}" if self._over else f"goes on after {done} lists"
        self.on_event(KeptFit(f"{TASK}: {what}", folder))

    def _block(self) -> None:
        """Train a block and judge the average; the training is over if the weights are no numbers any more."""
        start, losses = time.monotonic(), []
        last = min(self.step + self.settings.block, self.settings.steps)
        while self.step < last:
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.rate_at(self.step)
            batch = list(self._batch(self.step))
            self.optimizer.zero_grad()
            for index in batch:
                loss = self.model.loss(self.lists[index]) / len(batch)
                loss.backward()
                losses.append(loss.item() * len(batch))
            torch.nn.utils.clip_grad_norm_(self.model.adapter.values(), 1.0)
            self.optimizer.step()
            self._add_to_average(self.settings.decay_at(self.step))
            self.step += 1
            self.on_event(
                Progress(TASK, min(self.step * self.settings.batch, self.settings.lists), self.settings.lists)
            )
        if not all(bool(tensor.isfinite().all()) for tensor in self.average.values()):
            self.on_event(
                Note(
                    f"warning: after {self.step * self.settings.batch} lists the weights are not finite: training "
                    "ends, and those with the least dev loss before are kept; a lower rate may do better"
                )
            )
            self._give_up()
            return
        reached = self._figures_of_average()
        if reached.loss < self.best.loss:
            self.best, self.stale = reached, 0
            self.kept = {name: tensor.clone() for name, tensor in self.average.items()}
        else:
            self.stale += 1
        self.seconds += time.monotonic() - start
        left = self.seconds / self.step * (self.settings.steps - self.step)
        self.on_event(
            Note(
                f"{self.step * self.settings.batch} lists: loss {np.mean(losses):.3f}, dev loss {reached.loss:.3f}, "
                f"dev NDCG {reached.ndcg:.3f}; {left / 60:.1f} minutes left at most"
            )
        )

    def _give_up(self) -> None:
        """End the training with the best weights; a checkpoint without any others says the same to the next process."""
        self.model.load(self.kept, self.checkpoint)
        self.average = self._adapter()
        self.stale = self.settings.patience

    def _add_to_average(self, decay: float) -> None:
        for name, tensor in self.model.adapter.items():
            self.average[name].lerp_(tensor.detach(), 1 - decay)

    def _figures_of_average(self) -> Figures:
        now = self._adapter()
        self.model.load(self.average, self.checkpoint)
        reached = self.model.figures(self.dev)
        self.model.load(now, self.checkpoint)
        return reached

    def _batch(self, step: int) -> Iterator[int]:
        """Indices of the lists of a step: each pass over the lists has an order of its own."""
        first = step * self.settings.batch
        for number in range(first, min(first + self.settings.batch, self.settings.lists)):
            turn, place = divmod(number, len(self.lists))
            yield int(np.random.default_rng([self.settings.seed, turn]).permutation(len(self.lists))[place])

    def _adapter(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self.model.adapter.items()}

    def _save(self) -> None:
        state = self.optimizer.state_dict()["state"]
        tensors = {f"now.{name}": tensor for name, tensor in self._adapter().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.kept.items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        for number, name in enumerate(self.names):
            tensors |= {f"{part}.{name}": state[number][part] for part in ("exp_avg", "exp_avg_sq", "step")}
        progress = {
            "step": self.step,
            "stale": self.stale,
            "seconds": self.seconds,
            "loss": self.best.loss,
            "ndcg": self.best.ndcg,
        }
        write_atomically(self.checkpoint, packed_tensors(tensors, {"identity": self.identity, "progress": progress}))

    def _restore(self) -> None:
        again = f"{self.checkpoint}: delete it to start this training again"
        tensors, about = read_packed(self.checkpoint, f"{again}; it is damaged, or from an older version")
        known, own = json.loads(about["identity"]), json.loads(self.identity)
        if other := [name for name, value in known.items() if own.get(name) != value]:
            raise InputError(
                f"{again}; it is of another base, other settings or other lists ({', '.join(other)} differ)"
            )
        progress = about["progress"]
        self.model.load({name: tensors[f"now.{name}"] for name in self.names}, self.checkpoint)
        self.kept = {name: tensors[f"best.{name}"].to(self.model.base.device) for name in self.names}
        self.average = {name: tensors[f"average.{name}"].to(self.model.base.device) for name in self.names}
        groups = self.optimizer.state_dict()["param_groups"]
        parts = ("exp_avg", "exp_avg_sq", "step")
        state = {n: {part: tensors[f"{part}.{name}"] for part in parts} for n, name in enumerate(self.names)}
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.step, self.stale, self.seconds = progress["step"], progress["stale"], progress["seconds"]
        self.best = Figures(progress["loss"], progress["ndcg"])


def _fingerprint(lists: Sequence[PromptList]) -> str:
    content = json.dumps([one.facts for one in lists])
    return hashlib.sha256(content.encode()).hexdigest()
