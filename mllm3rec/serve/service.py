"""The service itself: requests to answers, with deadline, budget and fallback to the prior; HTTP and MCP call it."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspy.utils.exceptions import DSPyError

from mllm3rec.api.recommendation import Recommendations
from mllm3rec.serve.limits import RequestQuota, ServiceLimits
from mllm3rec.serve.messages import (
    AnsweredBy,
    ExplainAnswer,
    ExplainRequest,
    Health,
    HistoryEntry,
    MotivationAnswer,
    ProfileAnswer,
    ProfileRequest,
    RecommendAnswer,
    RecommendedItem,
    RecommendRequest,
    TraitsAnswer,
    TraitsRequest,
    Why,
)
from mllm3rec.serve.program_loop import ProgramLoop
from mllm3rec.serve.program_pool import ProgramPool
from mllm3rec.serve.renewing_ledger import RenewingLedger
from mllm3rec.serve.served_program import ServedProgram, UnsuitableError, UserHistory
from mllm3rec.serve.service_metrics import ServiceMetrics
from programs.lm.backends import RefusedTextError, UnparsableError
from programs.lm.circuit_breaker import BackendDownError
from programs.lm.deadline import Deadline, DeadlineError, before
from programs.mope import HISTORY_ITEMS
from programs.runtime.errors import BudgetExceededError, InputError, NothingLeftError, quoted
from signatures.rows import Usage, total_usage
from signatures.types import Interaction, Item, Profile

_log = logging.getLogger("mllm3rec.serve")

_SAID: dict[Why, str] = {
    "deadline": "the models did not answer within the deadline",
    "budget": "the budget of this minute or day is spent",
    "busy": "too many users are asked about at this time",
    "backend": "a model's server does not answer, or not as it should",
    "unparsable": "the models' answers could not be read",
    "refused": "the provider refuses this text",
    "error": "a fault of the service; its log says where",
    "unknown": "nothing of the history is known",
    "none_left": "the user has all items",
    "prior": "the service answers by the prior alone",
}


class UnansweredError(Exception):
    """The models gave no answer, and there is nothing else that could.

    Attributes:
        why: Of `messages.Why`.
    """

    def __init__(self, why: Why) -> None:
        super().__init__(_SAID[why])
        self.why = why


class TooManyRequestsError(Exception):
    """The requests of a minute or a day are used up.

    Attributes:
        retry_after: Seconds.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the requests of this minute or day are used up: try again in {retry_after:.0f} s")
        self.retry_after = retry_after


@dataclass
class _Asked:
    """What came of a question to the program: a value, or why there is none."""

    value: Any = None
    why: Why | None = None
    wrong: InputError | None = None
    usage: Usage = field(default_factory=Usage)


class Service:
    """Answers requests with the pool's program; lives on one event loop.

    Args:
        pool: Of programs.
        engine: On which they run.
        limits: On time, users at a time, and requests.
        ledger: Of all calls.
        metrics: Counted here.
    """

    def __init__(
        self,
        pool: ProgramPool,
        engine: ProgramLoop,
        limits: ServiceLimits,
        ledger: RenewingLedger,
        metrics: ServiceMetrics,
    ) -> None:
        self.pool = pool
        self.limits = limits
        self.metrics = metrics
        self._engine = engine
        self._ledger = ledger
        self._quota = RequestQuota(limits)
        self._slots = asyncio.Semaphore(limits.at_a_time)

    async def recommend(self, request: RecommendRequest) -> RecommendAnswer:
        """Items by the program; by the prior where that does not answer in time, within the budget, or at all.

        Raises:
            InputError: if the request cannot be answered as it is.
            TooManyRequestsError: if the requests of a minute or a day are used up.
        """
        until, began = self._admitted()
        with self.pool.using() as program:
            if request.k > program.candidates:
                raise InputError(f"k is {request.k}: this service recommends at most {program.candidates} items")
            user, unknown, texts = await self._user(program, until, request.user, request.history, request.metadata)
            asked = _Asked(why=texts.why or ("prior" if not program.asks else None if user.purchases else "unknown"))
            if asked.why is None:
                asked = await self._ask(program, until, program.recommend, user, request.k, request.explain)
            found: Recommendations | None = asked.value
            why = asked.why or ("unparsable" if found is not None and found.status != "ok" else None)
            if found is None or why is not None:
                items = await program.by_prior(user, request.k)
                why = why if items else "none_left"
                answered = [_by_prior(item, rank) for rank, item in enumerate(items, start=1)]
            else:
                answered = [_recommended(one) for one in found]
            by: AnsweredBy = "program" if why is None else "prior"
            self.metrics.answered(by, why)
            return RecommendAnswer(
                **self._served_by(program, began, texts.usage, asked.usage),
                items=answered,
                answered_by=by,
                why=why,
                motivations=_motivations(found.profile, found.history) if found is not None else [],
                unknown_items=unknown,
            )

    async def profile(self, request: ProfileRequest) -> ProfileAnswer:
        """The profile of a user.

        Raises:
            InputError, TooManyRequestsError: as `recommend`.
            UnansweredError: if the models do not answer.
        """
        until, began = self._admitted()
        with self.pool.using() as program:
            user, unknown, texts = await self._user(program, until, request.user, request.history, request.metadata)
            self._require_answered(texts)
            self._require_purchases(user)
            asked = await self._answered(program, until, program.profile, user)
            profile: Profile = asked.value
            return ProfileAnswer(
                **self._served_by(program, began, texts.usage, asked.usage),
                motivations=_motivations(profile, _titles(user)),
                needs=[need.phrase for need in profile.needs],
                unknown_items=unknown,
            )

    async def traits(self, request: TraitsRequest) -> TraitsAnswer:
        """The traits of an item; raises as `profile`."""
        until, began = self._admitted()
        with self.pool.using() as program:
            item = _item(program, request.item, request.text)
            asked = await self._answered(program, until, program.traits, item)
            phrases = list(asked.value.all_phrases)
            return TraitsAnswer(**self._served_by(program, began, asked.usage), item_id=item.item_id, traits=phrases)

    async def explain(self, request: ExplainRequest) -> ExplainAnswer:
        """A checked reason for one item and one user; raises as `profile`."""
        until, began = self._admitted()
        with self.pool.using() as program:
            user, unknown, texts = await self._user(program, until, request.user, request.history, request.metadata)
            self._require_answered(texts)
            self._require_purchases(user)
            item = _item(program, request.item, request.text)
            asked = await self._answered(program, until, program.explain, user, item)
            found = asked.value
            return ExplainAnswer(
                **self._served_by(program, began, texts.usage, asked.usage),
                item_id=item.item_id,
                title=item.display_title or item.item_id,
                reason=found.rationale.text,
                reason_checked=found.rationale.verdict.faithful,
                traits=list(found.traits),
                motivations=_motivations(found.profile, _titles(user)) if found.profile is not None else [],
                unknown_items=unknown,
            )

    def health(self) -> Health:
        """What answers, and since when."""
        program = self.pool.current
        return Health(
            program=program.name,
            artifact=program.artifact,
            versions=program.versions,
            since=self.pool.since,
            reload_error=self.pool.error,
        )

    def _admitted(self) -> tuple[float, float]:
        """Deadline and begin of a request, which is counted."""
        now = time.monotonic()
        wait = self._quota.wait(now)
        if wait:
            raise TooManyRequestsError(wait)
        return now + self.limits.deadline, now

    async def _user(
        self,
        program: ServedProgram,
        until: float,
        user: str | None,
        history: Sequence[HistoryEntry] | None,
        metadata: dict[str, str] | None,
    ) -> tuple[UserHistory, list[str], _Asked]:
        """The user of a request, the ids in it that are not in the catalogue, and what came of its free texts.

        Texts that could not be embedded, in time or at all, are left out of the history.
        """
        data = program.dataset
        if history is None:
            if user not in data.sequences:
                raise InputError(f"no user {quoted(user)} in this dataset; send a `history` instead")
            known = [event.item_id for event in data.sequences[user]]
            facts = data.metadata.get(user, {}) if metadata is None else metadata
            return UserHistory(user, data.purchases(user), known, facts), [], _Asked()
        texts = [entry.text for entry in history if entry.text is not None]
        asked = await self._ask(program, until, program.read_texts, texts) if texts else _Asked()
        read: Iterator[Item] = iter(asked.value or ())
        purchases, unknown = [], []
        for entry in history:
            item = next(read, None) if entry.text is not None else data.items.get(entry.item or "")
            if item is None:
                unknown += [] if entry.item is None else [entry.item]
                continue
            event = Interaction(item_id=item.item_id, rating=entry.rating, timestamp=entry.timestamp)
            purchases.append((item, event))
        user_history = UserHistory("you", purchases, [item.item_id for item, _ in purchases], metadata or {})
        return user_history, unknown, asked

    async def _answered(self, program: ServedProgram, until: float, function: Callable[..., Any], *what: Any) -> _Asked:
        asked = await self._ask(program, until, function, *what)
        self._require_answered(asked)
        self.metrics.answered("program")
        return asked

    def _require_answered(self, asked: _Asked) -> None:
        if asked.why is not None:
            self.metrics.answered("nothing", asked.why)
            raise UnansweredError(asked.why)

    async def _ask(self, program: ServedProgram, until: float, function: Callable[..., Any], *what: Any) -> _Asked:
        """Ask the program until the deadline. What is in flight then ends, so that the next request finds its answer.

        Raises:
            InputError: of the function.
        """
        try:
            await asyncio.wait_for(self._slots.acquire(), until - time.monotonic())
        except TimeoutError:
            return _Asked(why="busy")
        release = self.pool.hold(program)
        begun: list[Usage] = []
        future = asyncio.wrap_future(self._engine.start(self._guarded, begun, until, function, *what))

        def ended(done: asyncio.Future[_Asked]) -> None:
            self._slots.release()
            release()
            if not done.cancelled() and done.exception() is None:
                self.metrics.paid(done.result().usage)

        future.add_done_callback(ended)
        done, _ = await asyncio.wait([future], timeout=max(0.0, until - time.monotonic()))
        if not done:
            return _Asked(why="deadline", usage=begun[0].model_copy() if begun else Usage())
        asked = future.result()
        if asked.wrong is not None:
            raise asked.wrong
        return asked

    def _guarded(self, begun: list[Usage], until: float, function: Callable[..., Any], *what: Any) -> _Asked:
        """On the engine: the value of a function, or why there is none.

        Args:
            begun: Gets the sums of the function's calls, which grow while it runs.
        """
        with self._ledger.usage_of_case() as usage, before(Deadline(until)):
            begun.append(usage)
            try:
                return _Asked(function(*what), usage=usage)
            except DeadlineError:
                return _Asked(why="deadline", usage=usage)
            except BudgetExceededError:
                return _Asked(why="budget", usage=usage)
            except RefusedTextError:
                return _Asked(why="refused", usage=usage)
            except UnparsableError:
                return _Asked(why="unparsable", usage=usage)
            except NothingLeftError:
                return _Asked(why="none_left", usage=usage)
            except UnsuitableError as error:
                return _Asked(wrong=error, usage=usage)
            except (BackendDownError, DSPyError, InputError) as error:  # the last: key, name or address
                _log.warning("a model did not answer: %s", type(error).__name__)
                return _Asked(why="backend", usage=usage)
            except Exception as error:
                # Where, not what: messages of exceptions may hold prompts.
                where = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
                _log.error("%s at %s", type(error).__name__, " < ".join(reversed(where[-5:])))
                return _Asked(why="error", usage=usage)

    def _served_by(self, program: ServedProgram, began: float, *usages: Usage) -> dict[str, Any]:
        usage = total_usage(usages)
        return {
            "program": program.name,
            "artifact": program.artifact,
            "versions": program.versions,
            "seconds": round(time.monotonic() - began, 4),
            "usd": usage.usd,
            "calls": usage.calls,
            "cache_hits": usage.cache_hits,
        }

    @staticmethod
    def _require_purchases(user: UserHistory) -> None:
        if not user.purchases:
            raise InputError("nothing of the history is known, so there is nothing to make a profile from")


def _item(program: ServedProgram, item_id: str | None, text: str | None) -> Item:
    if text is not None:
        return Item.from_text(text)
    if item_id not in program.dataset.items:
        raise InputError(f"no item {quoted(item_id)} in this dataset; send a `text` instead")
    return program.dataset.items[item_id]


def _titles(user: UserHistory) -> list[str]:
    return [item.title for item, _ in user.purchases][-HISTORY_ITEMS:]


def _motivations(profile: Profile | None, titles: Sequence[str]) -> list[MotivationAnswer]:
    return [
        MotivationAnswer(
            dimension=one.dimension,
            description=one.description,
            strength=one.strength,
            evidence=[titles[n - 1] for n in one.evidence],
        )
        for one in (profile.motivations if profile is not None else ())
    ]


def _recommended(one: Any) -> RecommendedItem:
    score = one.score if one.score == one.score else None
    return RecommendedItem(**vars(one) | {"score": score, "traits": list(one.traits)})


def _by_prior(item: Item, rank: int) -> RecommendedItem:
    return RecommendedItem(item_id=item.item_id, title=item.display_title or item.item_id, prior_rank=rank)
