"""A language model that is trained to score the candidates of a list (extra `finetune`)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from programs.runtime.errors import InputError
from programs.runtime.events import OnEvent, ignore
from programs.runtime.one_thread import one_thread
from programs.tuned.adaptation import Adapt, LoRA
from programs.tuned.backbone import Backbone
from programs.tuned.decoding import Decode, Joint
from programs.tuned.objective import CHOICE, TuningObjective
from programs.tuned.packing import pack
from programs.tuned.settings import Prefix, PromptList, Slot, TuningSettings
from programs.tuned.training import AdapterTraining, Figures

MOST_PREFIX = 256
"""Most tokens of a user's text; what is older is cut off."""
MOST_SUFFIX = 48
"""Most tokens of a candidate's text; a longer one is cut before its last token, which is the reader's question mark."""

MOST_TOGETHER = 128
"""Most candidates in one packed row, whose memory is quadratic in its tokens."""


class FineTuned:
    """A base model, what of it is trained, and what is read from it.

    Args:
        adapt: What is trained.
        objective: What is read for each candidate, and its loss.
        decode: How candidates and the user's text meet.
        most_prefix: Most tokens of a user's text without slots.
        most_suffix: Most tokens of a candidate's text.

    Attributes:
        adapter: Trainable tensors by name.
    """

    def __init__(
        self,
        base: Backbone,
        settings: TuningSettings,
        adapt: Adapt = LoRA,
        objective: TuningObjective = CHOICE,
        decode: Decode = Joint,
        most_prefix: int = MOST_PREFIX,
        most_suffix: int = MOST_SUFFIX,
    ) -> None:
        self.base, self.settings, self.objective = base, settings, objective
        self.most_prefix, self.most_suffix = most_prefix, most_suffix
        self._adapted = adapt(base, settings)
        self._ending = [0] * len(self._adapted.ending())
        """Stands for its vectors."""
        self._reading = objective.reading(base)
        self._decoding = decode(self._adapted)
        self.adapter: dict[str, Tensor] = self._adapted.tensors

    @one_thread()
    def logits(self, prefix: Prefix, suffixes: Sequence[str]) -> NDArray[np.float64]:
        """What is read after the user's text and each candidate's text, shape (k,); higher is better."""
        with torch.no_grad():
            parts = [
                self._values(prefix, suffixes[start : start + MOST_TOGETHER])
                for start in range(0, len(suffixes), MOST_TOGETHER)
            ]
            return np.asarray(torch.cat(parts).double().cpu().numpy())

    def lengths(self, suffixes: Sequence[str]) -> NDArray[np.int64]:
        """Number of tokens that are read of each candidate's text, shape (k,)."""
        return np.array([len(self._suffix(suffix)) for suffix in suffixes], dtype=np.int64)

    def prefix_length(self, prefix: Prefix) -> int:
        """Number of tokens and slots that are read of a user's text."""
        return sum(len(one) if isinstance(one, list) else 1 for one in self._pieces(prefix))

    def _values(self, prefix: Prefix, suffixes: Sequence[str]) -> Tensor:
        before = self._adapted.embed(self._pieces(prefix))
        packed = pack([0] * len(before), [self._suffix(suffix) + self._ending for suffix in suffixes])
        return self._reading(self._decoding.states(before, packed), packed)

    def _pieces(self, prefix: Prefix) -> list[list[int] | Slot]:
        if isinstance(prefix, str):
            return [self._ids(prefix)[-self.most_prefix :]]
        return [self._ids(one) if isinstance(one, str) else one for one in prefix]

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self.base.tokenizer.encode(text, add_special_tokens=False)
        return found

    def _suffix(self, text: str) -> list[int]:
        ids = self._ids(text)
        return ids if len(ids) <= self.most_suffix else [*ids[: self.most_suffix - 1], ids[-1]]

    def figures(self, lists: Sequence[PromptList]) -> Figures:
        """Loss and NDCG on lists, of the fused scores for lists beside the prior."""
        losses, gains = [], []
        for one in lists:
            values = self.logits(one.prefix, one.suffixes)
            if one.beside is not None:
                values = one.beside.share * values + np.array(one.beside.prior)
            losses.append(float(self.objective.loss(torch.from_numpy(values), one.target)))
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
        """Train; the moving average of the adapter with the least dev loss is kept.

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
        with one_thread():
            return AdapterTraining(self, lists, dev_lists, checkpoint, on_event).run()

    def loss(self, one: PromptList) -> Tensor:
        """Loss of the objective on one list, on the fused scores of one beside the prior."""
        suffixes, target = one.suffixes, one.target
        if self.objective.alone:
            suffixes, target = (suffixes[target],), 0
        values = self._values(one.prefix, suffixes)
        if one.beside is not None:
            values = one.beside.share * values + values.new_tensor(one.beside.prior)
        return self.objective.loss(values, target)

    @one_thread()
    def seconds_to_train(self, lists: Sequence[PromptList]) -> float:
        """Measured seconds of one list in training, on one thread as in `fit`; changes nothing."""
        start = time.monotonic()
        for one in lists:
            self.loss(one).backward()
        for tensor in self.adapter.values():
            tensor.grad = None
        return (time.monotonic() - start) / len(lists)

    @one_thread()
    def seconds_to_score(self, lists: Sequence[PromptList]) -> float:
        """Measured seconds of scoring one list, on one thread."""
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


def read_tensors(content: bytes, where: object) -> dict[str, Tensor]:
    """The tensors of an untrusted safetensors file.

    Raises:
        InputError: if it is no such file.
    """
    try:
        return dict(load(content))
    except SafetensorError as error:
        raise InputError(f"{where}: is not a safetensors file ({error}); fine-tune again") from None
