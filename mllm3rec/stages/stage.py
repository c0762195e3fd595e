"""A pure stage: record batches of items or users in, record batches of traits, profiles or recommendations out.

A stage knows no files but caches and ledger, and no framework: what feeds it batches may be a loop, a process pool or a
cluster. It is built from `StageSettings`, and a pickled stage is its settings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import cached_property
from typing import Any, Self

import dspy
import pandas as pd
import pyarrow as pa
from dspy.utils.exceptions import DSPyError

from evaluate.data.dataset import Dataset
from evaluate.data.load import load_dataset
from evaluate.data.records.interactions import INTERACTION_COLUMNS
from evaluate.ranker_factory import RankerFactory
from mllm3rec.api.program import Program
from mllm3rec.api.recommendation import Recommendations
from mllm3rec.api.recommender import NothingLeftError
from mllm3rec.stages import columns
from mllm3rec.stages.settings import StageSettings
from programs.bulk.backends import BulkBackends
from programs.bulk.driver import Driver
from programs.bulk.mapping import Loop
from programs.lm.backends import Backends, RefusedTextError, UnparsableError
from programs.lm.circuit_breaker import BackendDownError
from programs.lm.ledger import Ledger
from programs.lm.limits import limits_for
from programs.lm.roles import ROLE_NAMES
from programs.mope import MOPE
from programs.mote import MOTE
from programs.prior.encoders import HashingEncoder
from programs.program import MLLM3Rec
from programs.runtime.environment import using
from programs.runtime.errors import InputError, one_line
from programs.runtime.events import OnEvent, ignore

_AHEAD = 3
"""Rows under way for each call that may be in flight: some wait for a permit, some for a slow row before them."""

Row = dict[str, Any]


class Stage:
    """Turns rows of items or users into rows of the task's output, in order.

    The failure of a row is a row: `status` says how it ended and `error` why. What concerns all rows is raised: a spent
    budget, a model that cannot be used, a backend that is down, Ctrl-C. Answers are kept in the response cache and the
    trait store, so that rows that were lost with a process cost nothing when they are made again.

    Args:
        settings: What it does.
        on_event: Told of what a user should know; called in this thread.
        ledger: In place of the settings' own ledger and budget; closed with the stage.
    """

    def __init__(self, settings: StageSettings, on_event: OnEvent = ignore, ledger: Ledger | None = None) -> None:
        self.settings = settings
        self._on_event = on_event
        self._open = ExitStack()
        if settings.cache is not None:
            self._open.enter_context(using("cache", str(settings.cache)))
        self.ledger = ledger or Ledger.of_worker(settings.ledger, settings.budget)
        self._open.callback(self.ledger.close)
        self._loop = Loop(self.ledger)
        self._open.callback(self._loop.close)
        self._make: Callable[[Row], Row] = getattr(self, f"_{settings.task}_row")
        self.output: pa.Schema = columns.OUTPUTS[settings.task]

    def __reduce__(self) -> tuple[type[Self], tuple[StageSettings]]:
        return type(self), (self.settings,)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """One batch of output for each batch of input, with its rows in the same order.

        Args:
            batches: With the columns of `columns.ITEMS`, `USERS` or `USER_IDS`, by the task.

        Raises:
            InputError: if a model or program cannot be used.
            BudgetExceededError: if the budget is spent; what was in flight has ended, and its answers are kept.
            BackendDownError: if a backend does not answer.
        """
        sizes: deque[int] = deque()

        def rows() -> Iterator[Row]:
            for batch in batches:
                sizes.append(batch.num_rows)
                yield from batch.to_pylist()

        self.prepare()
        made: list[Row] = []
        for row in self._loop.map(self._row, rows(), _AHEAD * self.slots):
            made.append(row)
            while sizes and len(made) >= sizes[0]:
                size = sizes.popleft()
                yield pa.RecordBatch.from_pylist(made[:size], self.output)
                made = made[size:]
        while sizes:  # Batches without a row at the end.
            yield pa.RecordBatch.from_pylist([], self.output)
            sizes.popleft()

    def close(self) -> None:
        """Close connections, caches and ledger."""
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _row(self, row: Row) -> Row:
        """The output of one row, whatever happens to it alone."""
        key = self.output.names[0]
        with self.ledger.usage_of_case() as usage:
            try:
                made = self._make(row)
            except RefusedTextError as error:
                made = {"status": columns.REFUSED, "error": str(error)}
            except UnparsableError as error:
                made = {"status": columns.UNPARSABLE, "error": str(error)}
            except (BackendDownError, InputError):
                raise
            except (DSPyError, ValueError) as error:
                made = {"status": columns.FAILED, "error": one_line(error)}
        return {key: row[key], **columns.outcome(usage), **made}

    def _distill_row(self, row: Row) -> Row:
        traits = self.mote(item=columns.item_of(row)).traits
        # The item is not asked for again: in memory it would stay for ever.
        self.mote.store.memo.clear()
        made = {name: list(getattr(traits, name)) for name in ("occasions", "users", "dropped")}
        if traits.refused_by_provider:
            return {"status": columns.REFUSED, "error": traits.dropped[0], "traits": [], **made}
        return {"traits": list(traits.phrases), **made}

    def _profile_row(self, row: Row) -> Row:
        purchases = columns.purchases_of(row)
        if not purchases:
            return {"status": columns.UNPARSABLE, "error": "the user has no purchase to make a profile from"}
        profile = self._mope(history=purchases, metadata=columns.metadata_of(row)).profile
        return {name: [one.model_dump() for one in getattr(profile, name)] for name in ("motivations", "needs")}

    def _recommend_row(self, row: Row) -> Row:
        try:
            found = self._recommender(row["user_id"])
        except NothingLeftError:
            return {"items": []}
        names = ("item_id", "title", "score", "prior_rank", "mar_rank", "traits", "reason", "reason_checked")
        items = [{name: getattr(item, name) for name in names} for item in found]
        return {"items": items, **columns.outcome(found.usage, str(found.status), found.error)}

    @cached_property
    def mote(self) -> MOTE:
        mote = self._module.product
        if not isinstance(mote, MOTE):
            raise InputError(f"{self.settings.program}: this program has no MOTE, so it cannot make traits")
        return mote

    @cached_property
    def _mope(self) -> MOPE:
        mope = self._module.shopper
        if not isinstance(mope, MOPE):
            raise InputError(f"{self.settings.program}: this program has no MOPE, so it cannot make profiles")
        return mope

    @cached_property
    def _module(self) -> MLLM3Rec:
        """The program without data: MOPE and MOTE need none."""
        choice = self.settings.choice()
        factory = RankerFactory.create(
            _NO_DATA,
            {},
            self.settings.roles,
            self.ledger,
            schema=choice.schema,
            fusion=choice.fusion,
            retry_unparsable=self.settings.retry_unparsable,
            on_event=self._on_event,
        )
        factory.encoder_of = HashingEncoder
        bulk = self._bulk(factory.backends_of())
        factory.backends_of = lambda: bulk
        module = choice.build(factory)
        if not isinstance(module, MLLM3Rec):
            raise InputError(f"{self.settings.program}: is no program; choose one, or the folder of an artifact")
        return module

    @cached_property
    def _recommender(self) -> Callable[[str], Recommendations]:
        return self._program.recommender(self.settings.k, self.settings.candidates, self.settings.explain)

    @cached_property
    def _program(self) -> Program:
        if self.settings.dataset is None:
            raise InputError("recommend: the settings name no dataset")
        dataset = load_dataset(self.settings.dataset, self.settings.columns)
        if self.settings.dataset_sha256 not in (None, dataset.sha256):
            raise InputError(
                f"{self.settings.dataset}: has other data here than where the job began; every worker needs the same"
            )
        program = Program(
            self.settings.choice(),
            dataset,
            retry_unparsable=self.settings.retry_unparsable,
            on_event=self._on_event,
            asking=self._bulk,
        )
        program.ledger = self.ledger
        return program

    def _bulk(self, backends: Backends) -> Backends:
        """The same backends on this stage's event loop, with this worker's share of their limits."""
        roles = {backends.roles.of(role).model: backends.roles.of(role) for role in ROLE_NAMES}
        backends.limits = {
            model: limits_for(config, backends.limits).shared(self.settings.workers) for model, config in roles.items()
        }
        driver = Driver(dspy.cache)
        self._open.callback(lambda: self._loop.run(driver.close()))
        self._backends = BulkBackends(backends, driver)
        return self._backends

    def prepare(self) -> None:
        """Build the program now: what is wrong with it concerns all rows.

        Raises:
            InputError: saying what is wrong.
        """
        getattr(self, {"distill": "mote", "profile": "_mope", "recommend": "_recommender"}[self.settings.task])

    @property
    def slots(self) -> int:
        """The most calls that may be in flight to one of the models."""
        backends = self._backends
        return max(limits_for(backends.roles.of(role), backends.limits).concurrency or 1 for role in ROLE_NAMES)


_NO_DATA = Dataset("", {}, pd.DataFrame(columns=list(INTERACTION_COLUMNS)))
