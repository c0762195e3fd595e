"""A call that is reserved, sent and ended, as backends record it."""

from __future__ import annotations

from programs.lm.ledger import Call, Ledger


def spend(ledger: Ledger, worst: float, usd: float) -> None:
    """Spend dollars on one call, of which `worst` were reserved."""
    ledger.reserve(worst)
    sent = Call(role="mote", model="m", usd=worst, in_flight=True)
    ended = sent.model_copy(update={"usd": usd, "in_flight": False, "id": ledger.record_sent(sent)})
    ledger.record(ended)
    ledger.release(worst)
