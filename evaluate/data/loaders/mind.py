"""Records of MIND, Microsoft's news data: what users clicked, in order, and the news."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evaluate.data.records.fields import identifier, present, seconds, text
from evaluate.data.records.reading import FieldError, Record, parsed, read_lines

BEHAVIOR_COLUMNS = ("impression_id", "user_id", "time", "history", "impressions")
NEWS_COLUMNS = (
    "news_id", "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities",
)  # fmt: skip

TIME = "%m/%d/%Y %I:%M:%S %p"
"""11/15/2019 8:55:22 AM"""


def mind_clicks(path: Path) -> Iterator[tuple[int, Record]]:
    """The clicks of every user, each a record of its own: the history before an impression, then what was clicked.

    Impressions are taken in the order of their times. Clicks of the history have no time of their own, so `position`
    gives the order. News that were shown and not clicked (`N1-0`), or shown without a label, are left out.
    """
    impressions: dict[str, list[tuple[float, int, Record]]] = {}
    for line, record in _columns(path, BEHAVIOR_COLUMNS):
        ((_, (user, time)),) = parsed(path, [(line, record)], _user_and_time)
        impressions.setdefault(user, []).append((time, line, record))
    for user, shown in impressions.items():
        shown.sort(key=lambda one: one[:2])
        position, seen = 0, set()
        for time, line, record in shown:
            clicked = [
                label.removesuffix("-1") for label in text(record, "impressions").split() if label.endswith("-1")
            ]
            before = [news for news in text(record, "history").split() if news not in seen]
            for news, moment in [*((news, None) for news in before), *((news, time) for news in clicked)]:
                yield line, {"user_id": user, "item_id": news, "timestamp": moment, "position": position}
                position += 1
                seen.add(news)


def _user_and_time(record: Record) -> tuple[str, float]:
    return identifier(record, "user_id"), present(seconds(record, "time", form=TIME), "time")


def mind_news_records(path: Path) -> Iterator[tuple[int, Record]]:
    """The news."""
    return _columns(path, NEWS_COLUMNS)


def _columns(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, Record]]:
    """The records of a file without a header, separated by tabs."""

    def record(row: str) -> Record:
        values = row.split("\t")
        if len(values) != len(columns):
            raise FieldError(f"{len(values)} fields separated by tabs; expected {len(columns)}: {', '.join(columns)}")
        return dict(zip(columns, values, strict=True))

    return parsed(path, ((line, row) for line, row in read_lines(path) if row.strip()), record)
