"""A language model with LoRA adapters that answers yes or no for every candidate of a list (extra `finetune`)."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional

from programs.runtime.atomic import write_atomically
from programs.runtime.errors import InputError
from programs.runtime.events import Note, OnEvent, Progress, ignore
from programs.tuned.backbone import Backbone
from programs.tuned.packing import pack
from programs.tuned.settings import PromptList, TuningSettings

YES, NO = " Yes", " No"
MOST_PREFIX = 256
"""Most tokens of a user's text; what is older is cut off."""
MOST_SUFFIX = 48
"""Most tokens of a candidate's text; the end of a longer one is cut off before the question mark."""
TASK = "fine-tuning"


@dataclass(frozen=True)
class Figures:
    """What a model reaches on lists: mean cross-entropy in nats, and NDCG of the whole list."""

    loss: float
    ndcg: float


class FineTuned:
    """A base model with trainable adapters.

    Attributes:
        adapter: Trainable tensors by name.
    """

    def __init__(self, base: Backbone, settings: TuningSettings) -> None:
        self.base, self.settings = base, settings
        count = base.model.config.num_hidden_layers
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=0.0,
            target_modules=["q_proj", "v_proj"],
            layers_to_transform=list(range(max(0, count - settings.layers), count)),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self._peft = get_peft_model(base.model, config)
        self._peft.eval()
        whole = self._peft.get_base_model()
        self._decoder = getattr(whole, whole.base_model_prefix)
        words = [_single_token(base, word) for word in (YES, NO)]
        yes, no = whole.get_output_embeddings().weight.detach()[words].float()
        self._direction = yes - no
        self.adapter: dict[str, Tensor] = {
            name: tensor for name, tensor in self._peft.named_parameters() if tensor.requires_grad
        }

    def logits(self, prefix: str, suffixes: Sequence[str]) -> NDArray[np.float64]:
        """Logit of yes less logit of no after the user's text and each candidate's text, shape (k,)."""
        with torch.no_grad():
            return np.asarray(self._margins(prefix, suffixes).double().cpu().numpy())

    def _margins(self, prefix: str, suffixes: Sequence[str]) -> Tensor:
        encode = self.base.tokenizer.encode
        before = encode(prefix, add_special_tokens=False)[-MOST_PREFIX:]
        after = [encode(suffix, add_special_tokens=False) for suffix in suffixes]
        packed = pack(before, [ids if len(ids) <= MOST_SUFFIX else [*ids[: MOST_SUFFIX - 1], ids[-1]] for ids in after])
        device, dtype = self.base.device, self.base.model.dtype
        hidden = torch.from_numpy(~packed.visible).to(device)
        mask = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill(hidden, torch.finfo(dtype).min)
        states = self._decoder(
            input_ids=torch.from_numpy(packed.ids)[None].to(device),
            position_ids=torch.from_numpy(packed.positions)[None].to(device),
            attention_mask=mask[None, None],
            use_cache=False,
        ).last_hidden_state[0]
        # Two rows of the vocabulary are read, at the last tokens alone.
        return states[torch.from_numpy(packed.ends).to(device)].float() @ self._direction

    def figures(self, lists: Sequence[PromptList]) -> Figures:
        """Loss and NDCG on lists."""
        losses, gains = [], []
        for one in lists:
            values = self.logits(one.prefix, one.suffixes)
            losses.append(float(np.logaddexp.reduce(values) - values[one.target]))
            above = (values > values[one.target]).sum() + ((values == values[one.target]).sum() - 1) / 2
            gains.append(1 / np.log2(2 + above))
        return Figures(float(np.mean(losses)), float(np.mean(gains)))

    def fit(
        self,
        lists: Sequence[PromptList],
        dev_lists: Sequence[PromptList],
        checkpoint: Path,
        on_event: OnEvent = ignore,
    ) -> Figures:
        """Train the adapters; their moving average with the least dev loss is kept.

        A killed training goes on after its last whole block, with the weights of an uninterrupted one.

        Args:
            lists: At least one.
            dev_lists: At least one, of other users.
            checkpoint: File of the state between blocks.

        Returns:
            Figures on the dev lists with the kept adapters.

        Raises:
            InputError: if the checkpoint is of another training.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums depend on the number of threads
        try:
            return _Training(self, lists, dev_lists, checkpoint, on_event).run()
        finally:
            torch.set_num_threads(threads)

    def loss(self, one: PromptList) -> Tensor:
        """Softmax cross-entropy of the chosen candidate among all of the list."""
        target = torch.tensor([one.target], device=self.base.device)
        return functional.cross_entropy(self._margins(one.prefix, one.suffixes)[None], target)

    def seconds_to_train(self, lists: Sequence[PromptList]) -> float:
        """Measured seconds of one list in training; changes nothing."""
        start = time.monotonic()
        for one in lists:
            self.loss(one).backward()
        for tensor in self.adapter.values():
            tensor.grad = None
        return (time.monotonic() - start) / len(lists)

    def seconds_to_score(self, lists: Sequence[PromptList]) -> float:
        """Measured seconds of scoring one list."""
        start = time.monotonic()
        self.figures(lists)
        return (time.monotonic() - start) / len(lists)

    def saved(self) -> bytes:
        """The adapters as safetensors."""
        return bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in self.adapter.items()}))

    def load(self, tensors: Mapping[str, Tensor], where: object) -> None:
        """Take over adapters.

        Raises:
            InputError: if names or shapes are not those of this model, or a value is not finite.
        """
        if set(tensors) != set(self.adapter):
            raise InputError(f"{where}: its adapters are not those of base {self.base.name!r} with these settings")
        for name, own in self.adapter.items():
            given = tensors[name]
            if given.shape != own.shape or not given.is_floating_point() or not bool(given.isfinite().all()):
                raise InputError(f"{where}: {name}: not {list(own.shape)} finite numbers; fine-tune again")
        with torch.no_grad():
            for name, own in self.adapter.items():
                own.copy_(tensors[name])


class _Training:
    """State of one training between blocks."""

    def __init__(
        self,
        model: FineTuned,
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
        else:
            self.best = self.model.figures(self.dev)
            self.on_event(Note(f"untuned: dev loss {self.best.loss:.3f}, dev NDCG {self.best.ndcg:.3f}"))
        while self.step < self.settings.steps and self.stale < self.settings.patience:
            self._block()
            self._save()
        self.model.load(self.kept, self.checkpoint)
        total = self.settings.lists
        self.on_event(Progress(TASK, total, total))
        return self.best

    def _block(self) -> None:
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
        metadata = {"identity": self.identity, "progress": json.dumps(progress)}
        write_atomically(
            self.checkpoint, save({name: t.cpu().contiguous() for name, t in tensors.items()}, metadata=metadata)
        )

    def _restore(self) -> None:
        again = f"{self.checkpoint}: delete it to start this training again"
        try:
            with safe_open(self.checkpoint, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except SafetensorError as error:
            raise InputError(f"{again}; it cannot be read ({error})") from error
        if metadata.get("identity") != self.identity:
            raise InputError(f"{again}; it is of another base, other settings or other lists")
        progress = json.loads(metadata["progress"])
        self.model.load({name: tensors[f"now.{name}"] for name in self.names}, self.checkpoint)
        self.kept = {name: tensors[f"best.{name}"].to(self.model.base.device) for name in self.names}
        # A checkpoint from before there was an average is of a training without one.
        averages = {name: tensors.get(f"average.{name}", tensors[f"now.{name}"]) for name in self.names}
        self.average = {name: tensor.to(self.model.base.device) for name, tensor in averages.items()}
        groups = self.optimizer.state_dict()["param_groups"]
        parts = ("exp_avg", "exp_avg_sq", "step")
        state = {n: {part: tensors[f"{part}.{name}"] for part in parts} for n, name in enumerate(self.names)}
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.step, self.stale, self.seconds = progress["step"], progress["stale"], progress["seconds"]
        self.best = Figures(progress["loss"], progress["ndcg"])


def read_tensors(content: bytes, where: object) -> dict[str, Tensor]:
    """The tensors of an untrusted safetensors file.

    Raises:
        InputError: if it is no such file.
    """
    try:
        return dict(load(content))
    except SafetensorError as error:
        raise InputError(f"{where}: is not a safetensors file ({error}); fine-tune again") from None


def _fingerprint(lists: Sequence[PromptList]) -> str:
    content = json.dumps([[one.prefix, one.suffixes, one.target] for one in lists])
    return hashlib.sha256(content.encode()).hexdigest()


def _single_token(base: Backbone, word: str) -> int:
    ids = base.tokenizer.encode(word, add_special_tokens=False)
    if len(ids) != 1:
        raise InputError(f"{base.name}: {word!r} is {len(ids)} tokens; a base needs one token for it")
    return int(ids[0])
