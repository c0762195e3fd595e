"""`dspy.LM` objects of the user's own, with our ledger, budget, rate limiter and response cache around them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import dspy

from programs.lm.keys import no_secret_in_errors
from programs.lm.ledger import Ledger
from programs.lm.prices import Price
from programs.lm.rate_limiter import RateLimiter
from programs.lm.role_lm import RoleLM
from programs.runtime.errors import InputError


class GivenLM(RoleLM):
    """A role's calls to a `dspy.LM` object, with the object's own client, key, address and sampling.

    No key is in the text of an error, as with the clients of this package.

    Args:
        lm: The object.
        role, ledger, price, rate_limiter, max_seconds: See `RoleLM`.
    """

    def __init__(
        self,
        lm: dspy.LM,
        role: str,
        ledger: Ledger,
        price: Price | None,
        rate_limiter: RateLimiter,
        max_seconds: float,
    ) -> None:
        super().__init__(
            lm.model,
            role,
            ledger,
            price,
            rate_limiter,
            max_seconds,
            # DSPy leaves the address out of the key of a stored answer.
            keyed={"address": address} if (address := _own_address(lm)) else None,
            model_type=lm.model_type,
            engine=lm._engine_spec,
            **lm.kwargs,
        )

    def __call__(
        self, prompt: str | None = None, *, messages: list[dict[str, Any]] | None = None, **kwargs: Any
    ) -> Any:
        """See `RoleLM.__call__`."""
        with no_secret_in_errors(self.kwargs):
            return super().__call__(prompt, messages=messages, **kwargs)


def require_usable(lm: dspy.LM, role: str) -> None:
    """Check that the calls of a `dspy.LM` object can be counted and its address written to files.

    Raises:
        InputError: naming role and model.
    """
    if (lm.kwargs.get("n") or 1) != 1:
        raise InputError(
            f"{role}: the dspy.LM object {lm.model!r} asks for n={lm.kwargs['n']} answers: only one is "
            "read, and each may be a request of its own; give it without n"
        )
    try:
        parts = urlsplit(_own_address(lm))
    except ValueError:
        raise InputError(f"{role}: the address of the dspy.LM object {lm.model!r} is malformed") from None
    if parts.username or parts.password or parts.query:
        raise InputError(
            f"{role}: the address of the dspy.LM object {lm.model!r} holds a user name, a password or a query: an "
            "address is written to files and messages; give the key as dspy.LM(..., api_key=...)"
        )


def with_address(name: str, lm: dspy.BaseLM | None) -> str:
    """The name of a model that may be a `dspy.LM` object, and the object's address if it has one of its own."""
    address = "" if lm is None else _own_address(lm)
    return f"{name} {address}" if address else name


def _own_address(lm: dspy.BaseLM) -> str:
    """The address that a `dspy.LM` object was made with; empty for that of its provider."""
    return str(lm.kwargs.get("api_base") or lm.kwargs.get("base_url") or "")
