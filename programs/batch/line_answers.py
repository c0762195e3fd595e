"""Judgement of one line of a file of answers: an answer, an error for good, or something to ask again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import dspy
from dspy._vendor.lm15.transports import TransportRequest, TransportResponse
from dspy.clients.call_result import CallResult
from dspy.clients.errors import wrap_error
from dspy.lm15 import LM15Error, Response, TextPart

from programs.batch.job_table import LineEnd
from programs.batch.provider import AnswerLine
from programs.batch.question import BatchQuestion, Refusal, form_of
from programs.lm.attempt import tokens_of
from programs.lm.endpoints import connect
from programs.lm.ledger import Call
from programs.lm.prices import Price
from programs.lm.transport import arrived, instead_of_sending

VIA = "batch"
"""In the ledger, for a line of a batch."""

_FIRST_ERROR_STATUS = 400


@dataclass(frozen=True)
class Judged:
    """A line that was judged.

    Attributes:
        end: For the table of jobs.
        kept: For the response cache; None without an answer.
        again: Whether to ask again.
    """

    end: LineEnd
    kept: dict[str, Any] | None = None
    again: bool = False


def judge(question: BatchQuestion, line: AnswerLine, call_id: str, price: Price | None) -> Judged:
    """Read a line as the client of the direct path reads an answer.

    Args:
        call_id: For the ledger.
        price: Of the model in batches; None where unknown.
    """
    if not line.status:
        return Judged(LineEnd(), again=True)

    def answer(sent: TransportRequest) -> TransportResponse:
        # The client sends the request in its first form, unless it knows that this one is refused.
        form = form_of(sent.body)
        known = None if form == question.form else question.refusals.get(form)
        return arrived(line.body, line.status) if known is None else arrived(known.body.encode(), known.status)

    engine = connect(question.config)["engine"]
    try:
        with instead_of_sending(answer):
            response: Response = engine.complete(question.asked)
    except LM15Error as error:
        call = _call(question, call_id, failed=True, usd=_unreadable_usd(question, line))
        if dspy.is_retryable_lm_error(wrap_error(error, model=question.model)):
            return Judged(LineEnd(call), again=True)
        return Judged(LineEnd(call, Refusal(line.status, line.body.decode())))
    tokens = tokens_of(response, question.model)
    usd = None
    if tokens.known and price is not None:
        usd = price.usd(tokens.prompt, tokens.answer, tokens.cached, tokens_written=tokens.cache_write)
    call = _call(
        question,
        call_id,
        tokens_in=tokens.prompt,
        tokens_out=tokens.answer,
        tokens_cached=tokens.cached,
        tokens_written=tokens.cache_write,
        usd=usd,
        most_usd=None if tokens.known else question.most_usd,
    )
    if not any(isinstance(part, TextPart) and part.text for part in response.message.parts):
        # The response cache keeps no answer without text; the program is to see this one all the same.
        return Judged(LineEnd(call, Refusal(line.status, line.body.decode())))
    kept = CallResult.native(response, logprobs=question.asked.config.logprobs is not None).dump()
    return Judged(LineEnd(call), kept)


def _call(question: BatchQuestion, call_id: str, **figures: Any) -> Call:
    return Call(
        role=question.role,
        model=question.model,
        about=question.about,
        id=call_id,
        via=VIA,
        at=round(time.time(), 3),
        **figures,
    )


def _unreadable_usd(question: BatchQuestion, line: AnswerLine) -> float | None:
    """Nobody bills an error; an answer that cannot be read may have been billed, at most at the upper estimate."""
    return None if line.status >= _FIRST_ERROR_STATUS else question.most_usd
