"""What is trained of a language model: nothing, LoRA adapters, a soft prompt, or projections of outside vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from programs.runtime.errors import InputError
from programs.tuned.backbone import Backbone
from programs.tuned.settings import Slot, TuningSettings


class Frozen:
    """A model without anything to train.

    Attributes:
        decoder: The model without its output layer.
        tensors: Trainable tensors by name.
    """

    def __init__(self, base: Backbone) -> None:
        self.base = base
        self.decoder: nn.Module = getattr(base.model, base.model.base_model_prefix)
        self.tensors: dict[str, Tensor] = {}

    def embed(self, pieces: Sequence[list[int] | Slot]) -> Tensor:
        """Input vectors of a prefix, shape (length, d): one per token id and per slot."""
        return torch.cat([self.vectors(one) if isinstance(one, list) else self.project(one) for one in pieces])

    def vectors(self, ids: Sequence[int]) -> Tensor:
        """Input vectors of token ids, shape (length, d)."""
        table: nn.Module = self.base.model.get_input_embeddings()
        found: Tensor = table(torch.tensor(list(ids), dtype=torch.long, device=self.base.device))
        return found

    def ending(self) -> Tensor:
        """Input vectors after the text of every candidate, shape (t, d); here t is 0."""
        return self.vectors([])

    def project(self, slot: Slot) -> Tensor:
        """The input vector of a slot, shape (1, d)."""
        raise ValueError(f"nothing projects the slot {slot.kind!r}")


_MATRICES = {
    "queries and values": ["q_proj", "v_proj"],
    "all": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}
"""Names in models of Llama's form, which Qwen2's and Mistral's have, too."""


class LoRA(Frozen):
    """LoRA (Hu et al., ICLR 2022) on matrices of the last layers.

    Raises:
        InputError: if the base lacks some of these matrices.
    """

    def __init__(self, base: Backbone, settings: TuningSettings) -> None:
        matrices = _MATRICES[settings.adapted]
        own = {name.rpartition(".")[2] for name, _ in base.model.named_modules()}
        if missing := [name for name in matrices if name not in own]:
            raise InputError(
                f"{base.name}: LoRA adapts matrices that this base does not have ({', '.join(missing)}); choose a base "
                "with these matrices, such as one of Llama's form"
            )
        count = base.model.config.num_hidden_layers
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=0.0,
            target_modules=matrices,
            layers_to_transform=list(range(max(0, count - settings.layers), count)),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            adapted = get_peft_model(base.model, config).eval()
        super().__init__(base)
        self.tensors = {name: tensor for name, tensor in adapted.named_parameters() if tensor.requires_grad}


class SoftPrompt(Frozen):
    """Trainable vectors (Lester et al., EMNLP 2021) between each candidate and the question about it.

    They stand there, where they see the user and the candidate, and the answer is read right after the question. Before
    the user's text they could change little of it. They begin as the vectors of random tokens.

    Args:
        adapted: The model that reads them; what it trains is trained, too.
        tokens: Number of vectors.
        question: Text after them.
    """

    def __init__(self, adapted: Frozen, settings: TuningSettings, tokens: int, question: str) -> None:
        super().__init__(adapted.base)
        table = self.base.model.get_input_embeddings().weight.detach()
        chosen = torch.randint(len(table), (tokens,), generator=torch.Generator().manual_seed(settings.seed))
        self._prompt = nn.Parameter(table[chosen.to(table.device)].float())
        self._question = self.base.tokenizer.encode(question, add_special_tokens=False)
        self.tensors = {**adapted.tensors, "soft_prompt": self._prompt}

    def ending(self) -> Tensor:
        """See `Frozen.ending`; the soft prompt, and the question."""
        question = self.vectors(self._question)
        return torch.cat([self._prompt.to(question.dtype), question])


class Projections(Frozen):
    """A small network for each kind of slot, from outside vectors into the input vectors of a frozen model.

    Linear, layer norm, GELU, linear, layer norm; then scaled to the standard deviation of the model's own input
    vectors, without which training diverges.

    Args:
        sizes: Length of the outside vectors by kind.
    """

    def __init__(self, base: Backbone, settings: TuningSettings, sizes: Mapping[str, int]) -> None:
        super().__init__(base)
        table = base.model.get_input_embeddings().weight.detach()
        width, self._scale = table.shape[1], float(table.float().std())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self._networks = nn.ModuleDict(
                {
                    kind: nn.Sequential(
                        nn.Linear(size, width),
                        nn.LayerNorm(width),
                        nn.GELU(),
                        nn.Linear(width, width),
                        nn.LayerNorm(width),
                    )
                    for kind, size in sorted(sizes.items())
                }
            ).to(base.device)
        self.tensors = dict(self._networks.named_parameters())

    def project(self, slot: Slot) -> Tensor:
        """See `Frozen.project`."""
        vector = torch.from_numpy(slot.vector).float().to(self.base.device)[None]
        found: Tensor = self._networks[slot.kind](vector) * self._scale
        return found.to(self.base.model.dtype)


Adapt = Callable[[Backbone, TuningSettings], Frozen]
"""Adapts a model; `LoRA` itself, or another class with the arguments that it takes beyond these two."""
