"""Hyperparameters of recommenders that propagate vectors over a graph of users and items: KGAT and LLMRec."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from evaluate.baselines.networks.network_baseline import NetworkBaseline


class GraphSettings(NetworkBaseline):
    """Common settings; the loss is BPR.

    Attributes:
        dimensions: Dimension of the nodes' own vectors.
        negatives: Items sampled for each interaction, anew in every epoch; one that the user has is drawn again, once.
        penalty: L2 regularization of the nodes' own vectors.
        batch: Interactions per batch; vectors are propagated over the whole graph once for each, so few large ones pay.
        rate: Learning rate of Adam.
        epochs: Most passes over the interactions.
        patience: Passes without a better validation score before training stops.
        validation: Most users whose last item is held out for validation; at most a tenth of all users.
    """

    dimensions: int = Field(default=64, ge=1)
    negatives: int = Field(default=4, ge=1)
    penalty: float = Field(default=1e-5, ge=0)
    batch: int = Field(default=8192, ge=1)
    rate: float = Field(default=5e-3, gt=0)
    epochs: int = Field(default=30, ge=1)
    patience: int = Field(default=3, ge=1)
    validation: int = Field(default=2000, ge=0)


class KGATSettings(GraphSettings):
    """Further settings of KGAT.

    Attributes:
        layers: Widths of the layers.
        dropout: Dropout rate of the messages in training.
        attention: Whether edges weigh by attention over TransR vectors, learned in turn, or by the degrees of their
            ends.
    """

    layers: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(64, 32, 16), min_length=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    attention: bool = False


class LLMRecSettings(GraphSettings):
    """Further settings of LLMRec.

    Attributes:
        layers: Steps over the graph of users and items.
        item_rate, user_rate: Lengths of the text vectors that are added to items and to users.
        picked: Share of a batch that is added as pairs of a picked favourite and a picked dislike.
        pruned: Share of a batch, that with the largest losses, which counts as noise and is left out.
        feature_loss: Weight of BPR by the texts alone.
    """

    layers: int = Field(default=2, ge=1)
    item_rate: float = Field(default=1.0, ge=0)
    user_rate: float = Field(default=1.0, ge=0)
    picked: float = Field(default=0.1, ge=0)
    pruned: float = Field(default=0.02, ge=0, lt=1)
    feature_loss: float = Field(default=0.1, ge=0)
