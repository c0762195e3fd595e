"""A small T5 with random weights that writes item codes, and its training; needs torch and transformers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import T5Config, T5Model

from evaluate.baselines.networks.batches import batches_by_length, padded
from evaluate.baselines.networks.code_prompts import BEGIN, END, CodePrompt, CodePrompts, Example
from evaluate.baselines.networks.epochs import reproducible, train_epochs
from evaluate.baselines.networks.fit_plan import FitPlan
from evaluate.baselines.networks.item_codes import ItemCode
from evaluate.baselines.networks.seq_to_seq_settings import SeqToSeqSettings
from programs.runtime.device import best_device
from programs.runtime.one_thread import one_thread

WARM_UP = 0.05
"""Share of the training in which the learning rate rises."""


class SeqToSeq(nn.Module):
    """T5 over one table of token vectors, which reads and writes, and a vector for each whole of tokens.

    Args:
        tokens: Size of the vocabulary.
        wholes: Number of the wholes, see `CodePrompt`.
    """

    def __init__(self, tokens: int, wholes: int, settings: SeqToSeqSettings) -> None:
        super().__init__()
        size = settings.dimensions
        self.scale = size**-0.5  # of tied output vectors, as in T5
        self.token = nn.Embedding(tokens, size)
        self.whole = nn.Embedding(wholes, size)
        self.t5 = T5Model(
            T5Config(
                vocab_size=1,  # its own table is not used
                d_model=size,
                d_kv=size // settings.heads,
                d_ff=4 * size,
                num_layers=settings.layers,
                num_heads=settings.heads,
                dropout_rate=settings.dropout,
                pad_token_id=BEGIN,
                eos_token_id=None,
                decoder_start_token_id=BEGIN,
                use_cache=False,
            )
        )

    def encoded(self, prompts: Sequence[CodePrompt]) -> tuple[Tensor, Tensor]:
        """States at the tokens of b prompts, shape (b, length, d), and which of them are real, shape (b, length)."""
        tokens = self._padded([prompt.tokens for prompt in prompts])
        wholes = self._padded([prompt.wholes for prompt in prompts])
        real = self._padded([[1] * len(prompt.tokens) for prompt in prompts])
        vectors = self.token(tokens) + self.whole(wholes)
        return self.t5.encoder(inputs_embeds=vectors, attention_mask=real).last_hidden_state, real

    def log_likelihoods(self, states: Tensor, real: Tensor, codes: Sequence[ItemCode]) -> tuple[Tensor, Tensor]:
        """Log-likelihood of the tokens of b codes and their ends, after b prompts.

        Args:
            states, real: Of the prompts, see `encoded`.

        Returns:
            Sum and mean over the tokens of each code, each of shape (b,).
        """
        answers = self._padded([(*code, END) for code in codes])
        written = functional.pad(answers[:, :-1], (1, 0), value=BEGIN)
        decoded = self.t5.decoder(
            inputs_embeds=self.token(written), encoder_hidden_states=states, encoder_attention_mask=real
        ).last_hidden_state
        logits = decoded * self.scale @ self.token.weight.T
        each = -functional.cross_entropy(logits.flatten(0, 1), answers.flatten(), reduction="none")
        own = answers != BEGIN
        total = (each.view_as(answers) * own).sum(dim=1)
        return total, total / own.sum(dim=1)

    @one_thread()
    @torch.no_grad()
    def candidate_scores(self, prompt: CodePrompt, codes: Sequence[ItemCode]) -> NDArray[np.float64]:
        """Sum and mean log-likelihood of n codes after a prompt, which is read once; shape (2, n)."""
        if not codes:
            return np.zeros((2, 0))
        states, real = self.encoded([prompt])
        found = self.log_likelihoods(states.expand(len(codes), -1, -1), real.expand(len(codes), -1), [*codes])
        return torch.stack(found).double().cpu().numpy()

    def _padded(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Shape (rows, longest), padded at the end."""
        return torch.from_numpy(padded(rows, BEGIN)).to(self.token.weight.device)


def train_seq_to_seq(
    prompts: CodePrompts,
    histories: Sequence[Sequence[str]],
    held_out: Sequence[Example],
    settings: SeqToSeqSettings,
    plan: FitPlan,
) -> SeqToSeq:
    """Train until held-out items stop becoming more likely, and keep the best state; see `train_epochs`.

    Args:
        histories: Histories to learn from.
        held_out: Examples whose answers are in none of the histories of their users.
    """
    long = [history for history in histories if len(history) > 1]
    long *= -(-settings.examples // max(1, len(long)))
    steps = max(1, -(-len(long) // settings.batch))
    with reproducible(plan.seed):
        network = SeqToSeq(prompts.tokens, prompts.wholes, settings).to(best_device())
        optimizer = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=0.01)

        def one_epoch(number: int, rng: np.random.Generator) -> float:
            losses = []
            examples = [prompts.example(history, rng) for history in long]
            lengths = [len(example.prompt.tokens) for example in examples]
            for step, batch in enumerate(batches_by_length(lengths, settings.batch, rng)):
                done = (number - 1 + (step + 1) / steps) / plan.epochs
                for group in optimizer.param_groups:
                    group["lr"] = settings.rate * min(done / WARM_UP, (1 - done) / (1 - WARM_UP))
                loss = -_likelihood(network, [examples[index] for index in batch]).mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                losses.append(loss.item())
            return float(np.mean(losses)) if losses else 0.0

        def dev_score() -> float:
            starts = range(0, len(held_out), settings.batch)
            return float(torch.cat([_likelihood(network, held_out[at : at + settings.batch]) for at in starts]).mean())

        train_epochs(network, optimizer, one_epoch, dev_score if held_out else None, plan)
    return network


def _likelihood(network: SeqToSeq, examples: Sequence[Example]) -> Tensor:
    """Mean log-likelihood of the tokens of every answer, shape (examples,)."""
    states, real = network.encoded([example.prompt for example in examples])
    return network.log_likelihoods(states, real, [example.answer for example in examples])[1]
