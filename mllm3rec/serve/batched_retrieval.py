"""Batched retrieval: histories that wait at the same time are scored against the catalogue in one go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from programs.prior.past_sales import NO_DATES
from programs.prior.retrieval import Retriever
from programs.runtime.greenlets import on_event_loop, wait_for

Retrieved = tuple[str, ...]


class _Waiting(NamedTuple):
    history: Sequence[str]
    k: int
    moment: int | None
    found: asyncio.Future[Retrieved]


class BatchedRetriever:
    """A `Retriever` for code on one event loop: while a batch is scored in a thread, the next one gathers.

    Outside an event loop it answers each history by itself.
    """

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self._waiting: list[_Waiting] = []
        self._scoring: asyncio.Task[None] | None = None

    def first(
        self, histories: Iterable[Sequence[str]], k: int, moments: Iterable[int | None] = NO_DATES
    ) -> Iterator[Retrieved]:
        """See `Retriever.first`."""
        if not on_event_loop():
            return self._retriever.first(histories, k, moments)
        users = zip(histories, moments, strict=False)  # dates may be endless
        return (wait_for(self.found(history, k, moment)) for history, moment in users)

    def beside(self, outside: Mapping[str, NDArray[np.floating]]) -> BatchedRetriever:
        """See `Retriever.beside`."""
        return BatchedRetriever(self._retriever.beside(outside))

    async def found(self, history: Sequence[str], k: int, moment: int | None) -> Retrieved:
        """`first` for one history, in code that may await."""
        future: asyncio.Future[Retrieved] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(history, k, moment, future))
        if self._scoring is None:
            self._scoring = asyncio.get_running_loop().create_task(self._score())
        return await future

    async def _score(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    results = await asyncio.to_thread(self._retrieved, batch)
                except Exception as error:
                    for one in batch:
                        one.found.set_exception(error)
                    continue
                for one, found in zip(batch, results, strict=True):
                    if not one.found.done():
                        one.found.set_result(found)
        finally:
            self._scoring = None

    def _retrieved(self, batch: Sequence[_Waiting]) -> list[Retrieved]:
        most = max(one.k for one in batch)
        found = self._retriever.first([one.history for one in batch], most, [one.moment for one in batch])
        return [items[: one.k] for items, one in zip(found, batch, strict=True)]
