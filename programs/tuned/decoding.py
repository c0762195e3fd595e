"""Last hidden states of packed rows: with attention in all layers, or item segments that meet the user's late."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from programs.runtime.errors import InputError
from programs.tuned.adaptation import Frozen
from programs.tuned.backbone import about_equal
from programs.tuned.packing import Packed


class Joint:
    """Every layer sees what the packed row makes visible."""

    def __init__(self, adapted: Frozen) -> None:
        self.adapted = adapted

    def states(self, prefix: Tensor, packed: Packed) -> Tensor:
        """States of all tokens, shape (length, d).

        Args:
            prefix: Input vectors of the prefix, shape (p, d).
            packed: The row; its ids are ignored in the prefix and where the ending of each suffix stands.
        """
        ending, vectors = self.adapted.ending(), [prefix]
        for ids in _candidates(packed, len(ending)):
            vectors += [self.adapted.vectors(ids), ending]
        states: Tensor = self.adapted.decoder(
            inputs_embeds=torch.cat(vectors)[None],
            position_ids=torch.from_numpy(packed.positions)[None].to(prefix.device),
            attention_mask=additive_mask(packed.visible, prefix),
            use_cache=False,
        ).last_hidden_state[0]
        return states


class LateInteraction:
    """The lower layers see each segment alone, the upper ones the packed row.

    So the lower states of a candidate's text are computed once; nothing that is trained may change them. The ending is
    a segment of its own, and computed anew.

    Args:
        below: Number of lower layers, less than all.

    Attributes:
        most: Most suffixes whose lower states are kept. One of 16 tokens takes 18 kB in bfloat16 with d = 576, so that
            all take 370 MB.
    """

    most = 20_000

    def __init__(self, adapted: Frozen, below: int) -> None:
        layers = getattr(adapted.decoder, "layers", None)
        parts = ("norm", "rotary_emb")
        if layers is None or not all(hasattr(adapted.decoder, part) for part in parts):
            raise InputError(f"{adapted.base.name}: late interaction needs layers of Llama's form; choose another base")
        self.adapted, self.below = adapted, min(below, len(layers) - 1)
        self._lower: dict[tuple[int, ...], Tensor] = {}
        self._check_form()

    @torch.no_grad()
    def _check_form(self) -> None:
        vectors = self.adapted.vectors(range(3))
        mask = additive_mask(np.tri(3, dtype=bool), vectors)
        own = self.adapted.decoder.norm(self._layers(vectors, mask, torch.arange(3), slice(None)))
        expected = self.adapted.decoder(inputs_embeds=vectors[None], use_cache=False).last_hidden_state[0]
        if not about_equal(own, expected):
            raise InputError(f"{self.adapted.base.name}: is more than its layers; choose a base of Llama's form")

    def states(self, prefix: Tensor, packed: Packed) -> Tensor:
        """See `Joint.states`."""
        ending = self.adapted.ending()
        lower, after = [self._below(prefix)], self._below(ending) if len(ending) else ending
        for ids in _candidates(packed, len(ending)):
            lower += [self._lower_of(tuple(ids)), after]
        upper = slice(self.below, None)
        mask = additive_mask(packed.visible, prefix)
        states = self._layers(torch.cat(lower), mask, torch.from_numpy(packed.positions), upper)
        final: Tensor = self.adapted.decoder.norm(states)
        return final

    @torch.no_grad()
    def _lower_of(self, ids: tuple[int, ...]) -> Tensor:
        found = self._lower.get(ids)
        if found is None:
            found = self._below(self.adapted.vectors(ids))
            if len(self._lower) < self.most:
                self._lower[ids] = found
        return found

    def _below(self, vectors: Tensor) -> Tensor:
        """Lower states of a segment that is read alone."""
        mask = additive_mask(np.tri(len(vectors), dtype=bool), vectors)
        return self._layers(vectors, mask, torch.arange(len(vectors)), slice(self.below))

    def _layers(self, vectors: Tensor, mask: Tensor, positions: Tensor, which: slice) -> Tensor:
        decoder, states = self.adapted.decoder, vectors[None]
        positions = positions[None].to(vectors.device)
        turned = decoder.rotary_emb(states, position_ids=positions)
        for layer in decoder.layers[which]:
            states = layer(
                states, attention_mask=mask, position_ids=positions, position_embeddings=turned, use_cache=False
            )
        return states[0]


Decode = Callable[[Frozen], Joint | LateInteraction]
"""Makes the computation of states; `Joint` itself, or `LateInteraction` with its number of layers."""


def additive_mask(visible: NDArray[np.bool_], like: Tensor) -> Tensor:
    """0 where a token is visible and the lowest number elsewhere, shape (1, 1, length, length)."""
    hidden = torch.from_numpy(~visible).to(like.device)
    mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
    return mask.masked_fill(hidden, torch.finfo(like.dtype).min)[None, None]


def _candidates(packed: Packed, ending: int) -> list[list[int]]:
    """Token ids of each suffix of a row, without its ending."""
    starts = [packed.prefix, *(packed.ends[:-1] + 1)]
    return [packed.ids[start : end + 1 - ending].tolist() for start, end in zip(starts, packed.ends, strict=True)]
