"""Sentence encoder behind `/v1/embeddings`: a provider, a server of the user's own, or a GGUF file in this process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from programs.lm.backends import Backends
from programs.lm.endpoints import credentials, model_name
from programs.lm.ledger import Ledger
from programs.lm.roles import RoleConfig, Roles
from programs.lm.routes import EMBEDDINGS
from programs.prior.encoders import OnProgress, Vectors, clean_text, normalised
from programs.runtime.events import OnEvent, ignore

ROLE = "encoder"
"""Name of its calls in a ledger."""

_MOST_CHARACTERS, _MOST_CHARACTERS_HERE = 6000, 1500
"""Of a text: below the 8191 tokens of OpenAI's models, and the 512 of most models that run on this machine."""


class ServedEncoder:
    """Vectors from a server, with the retries, limits, key and redaction of chat calls, and in the same ledger.

    Args:
        model: A model string as in docs/models.md: `openai/NAME`, `http://host:port/v1#NAME` or `gguf:FILE`.
        ledger: Records the calls and limits what they cost; None for one of its own.
        batch: Texts per call.
        on_event: Told before a model is loaded into this process.

    Attributes:
        config: Model and deadline of its calls.
        ledger: That records them.

    Raises:
        InputError: the weights or the key are missing, the address is malformed, or the model has no known price and
            the ledger a budget in dollars.
    """

    def __init__(self, model: str, ledger: Ledger | None = None, batch: int = 100, on_event: OnEvent = ignore) -> None:
        self.config = RoleConfig(model=model)
        self.batch = batch
        self.name = model_name(self.config)
        credentials(self.config)
        # Roles are for chat; none of these is asked.
        self._backends = Backends(Roles.all_on(self.config), ledger, on_event=on_event)
        self.ledger = self._backends.ledger

    def encode(self, texts: Sequence[str], progress: OnProgress | None = None) -> Vectors:
        """Encode n texts as an (n, d) array; see `Encoder.encode`.

        Raises:
            InputError: the server refuses the key or the model.
            BudgetExceededError: the budget of the ledger is spent.
            LMError: a call failed in spite of its retries.
        """
        most = _MOST_CHARACTERS_HERE if self.config.is_local else _MOST_CHARACTERS
        # Servers refuse an empty text.
        clean = [clean_text(text)[:most].strip() or "-" for text in texts]
        rows: list[list[float]] = []
        for start in range(0, len(clean), self.batch):
            rows += self._backends.ask_route(ROLE, self.config, EMBEDDINGS, input=clean[start : start + self.batch])
            if progress is not None:
                progress(len(rows), len(clean))
        return normalised(np.asarray(rows, dtype=np.float32)) if rows else np.zeros((0, 0), dtype=np.float32)
