"""Loader of the Amazon review data (J. McAuley's group, UCSD): one category of the 2014, 2018 or 2023 release.

Users cannot repair published records, so missing and repeated metadata are counted in `Dataset.notes`; a line that
cannot be read is an error.
"""

from __future__ import annotations

import contextlib
import html
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from evaluate.data.dataset import Dataset
from evaluate.data.records.fields import (
    categories,
    clean_line,
    has_text,
    identifier,
    present,
    python_literal,
    rating,
    seconds,
    text,
)
from evaluate.data.records.interactions import InteractionRecord, in_order
from evaluate.data.records.reading import (
    FieldError,
    Record,
    as_object,
    only_file,
    parsed,
    read_lines,
    read_objects,
    read_records,
)
from programs.runtime.errors import InputError, abridged, listed
from signatures.types import Item

AMAZON_FILES = (
    "Amazon, one category X: meta_X.json with reviews_X_5.json or reviews_X.json (2014), meta_X.json with X_5.json or "
    "X.json (2018), meta_X.jsonl with X.jsonl (2023), each also with .gz; or as Hugging Face has the last one: "
    "meta_X.parquet with X.parquet, the folders raw_meta_X and raw_review_X with Parquet files, or "
    "raw/meta_categories/meta_X.jsonl with raw/review_categories/X.jsonl"
)


@dataclass(frozen=True)
class AmazonRelease:
    """Names of the files and fields of one release.

    Attributes:
        reviews: File name patterns of the reviews; `{}` is the category.
        suffix: Suffix of reviews and metadata, without `.gz`.
        item: Fields that may hold the item id, the preferred one first.
        per_second: Units of the time field per second.
    """

    year: int
    reviews: tuple[str, ...]
    suffix: str
    user: str
    item: tuple[str, ...]
    rating: str
    time: str
    per_second: int
    categories: str
    brand: str

    def files_of(self, category: str) -> tuple[str, ...]:
        """Possible names of the review file of a category."""
        return tuple(name.format(category) + self.suffix + gz for name in self.reviews for gz in ("", ".gz"))


AMAZON_RELEASES = (
    AmazonRelease(
        year=2014,
        reviews=("reviews_{}_5", "reviews_{}"),
        suffix=".json",
        user="reviewerID",
        item=("asin",),
        rating="overall",
        time="unixReviewTime",
        per_second=1,
        categories="categories",
        brand="brand",
    ),
    AmazonRelease(
        year=2018,
        reviews=("{}_5", "{}"),
        suffix=".json",
        user="reviewerID",
        item=("asin",),
        rating="overall",
        time="unixReviewTime",
        per_second=1,
        categories="category",
        brand="brand",
    ),
    AmazonRelease(
        year=2023,
        reviews=("{}",),
        suffix=".jsonl",
        user="user_id",
        item=("parent_asin", "asin"),
        rating="rating",
        time="timestamp",
        per_second=1000,
        categories="categories",
        brand="store",
    ),
)


class AmazonFiles(NamedTuple):
    """The two files of one category of one release; each may be a folder of Parquet files."""

    release: AmazonRelease
    category: str
    reviews: Path
    meta: Path


def find_amazon(directory: Path) -> AmazonFiles | None:
    """The review and metadata files in `directory`, or None if there is no such pair.

    Raises:
        InputError: If there is more than one pair.
    """
    pairs = list(_pairs(directory))
    if len(pairs) > 1:
        several = abridged(" and ".join(sorted(f"{files.reviews.name} ({files.release.year})" for files in pairs)))
        raise InputError(f"{directory}: holds several review files with metadata: {several}; keep one per directory")
    return pairs[0] if pairs else None


def _pairs(directory: Path) -> Iterator[AmazonFiles]:
    for release in AMAZON_RELEASES:
        pattern = re.compile(rf"meta_(.+){re.escape(release.suffix)}(?:\.gz)?")
        for category in sorted({match[1] for path in directory.iterdir() if (match := pattern.fullmatch(path.name))}):
            reviews = only_file(directory, release.files_of(category))
            meta = only_file(directory, (f"meta_{category}{release.suffix}{gz}" for gz in ("", ".gz")))
            if reviews and meta:
                yield AmazonFiles(release, category, reviews, meta)
    yield from _hugging_face(directory)


def _hugging_face(directory: Path) -> Iterator[AmazonFiles]:
    """The files of the 2023 release as the repository at Hugging Face, and exports from it, name them."""
    places = (
        # metadata, reviews
        ("meta_{}.parquet", "{}.parquet"),
        ("raw_meta_{}", "raw_review_{}"),
        ("raw_meta_{}", "raw/review_categories/{}.jsonl"),
        ("raw/meta_categories/meta_{}.jsonl", "raw/review_categories/{}.jsonl"),
    )
    found: dict[str, AmazonFiles] = {}
    for meta, reviews in places:
        before, after = (re.escape(part) for part in Path(meta).name.split("{}"))
        for path in sorted(directory.glob(meta.format("*"))):
            category = re.sub(f"^{before}|{after}$", "", path.name)
            other = directory / reviews.format(category)
            if other.exists():
                found.setdefault(category, AmazonFiles(AMAZON_RELEASES[-1], category, other, path))
    yield from found.values()


def _files_of(path: Path) -> list[Path]:
    """A file itself, or the Parquet files of a folder."""
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.parquet"))
    if not files:
        raise InputError(f"{path}: the folder has no Parquet files; download it again")
    return files


def _records_of(path: Path) -> Iterator[tuple[int, Record]]:
    return read_records(path, ()) if path.suffix == ".parquet" else read_objects(path, json_or_literal)


def load_amazon(files: AmazonFiles) -> Dataset:
    """Read one category; the catalogue has the items with a review and a text.

    Raises:
        InputError: On lines that cannot be read, missing fields, ratings out of range, or metadata of other items
            than the reviews; names file, line and field.
    """
    release = files.release
    seen: set[str] = set()

    def interaction(record: Record) -> InteractionRecord:
        seen.update(record)
        return amazon_interaction(record, release)

    events: list[tuple[int, InteractionRecord]] = []
    for path in _files_of(files.reviews):
        before = events[-1][0] if events else 0
        events += ((before + line, event) for line, event in parsed(path, _records_of(path), interaction))
    reviewed = {event.item_id for _, event in events}
    items, notes = _read_items(files, reviewed)
    notes += _unused(files.reviews, seen - {release.user, *release.item, release.rating, release.time})
    kept = [(line, event) for line, event in events if event.item_id in items]
    if not kept:
        raise InputError(
            f"{files.meta}: no text for any of the {len(reviewed):,} items of {files.reviews.name}; "
            "do the two files belong together?"
        )
    if len(kept) < len(events):
        notes += (
            f"Interactions dropped because the metadata has no text for their item: {len(events) - len(kept):,} "
            f"(items: {len(reviewed) - len(items):,} of {len(reviewed):,}).",
        )
    interactions, order_notes = in_order(files.reviews, kept)
    return Dataset(
        name=files.category,
        items=items,
        interactions=interactions,
        notes=notes + order_notes,
        format=f"amazon-{release.year}",
    )


def json_or_literal(line: str) -> Record:
    """One line as an object; the 2014 metadata are Python literals, not JSON.

    >>> json_or_literal("{'asin': 'B1', 'title': \\"Baby's book\\"}") == json_or_literal(
    ...     '{"asin": "B1", "title": "Baby\\'s book"}'
    ... )
    True

    Raises:
        FieldError: If it is neither, or not an object.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        try:
            value = python_literal(line)
        except ValueError:
            raise FieldError("neither JSON nor a Python literal; download the file again") from None
    return as_object(value)


def amazon_interaction(record: Record, release: AmazonRelease) -> InteractionRecord:
    """One review; user, item, rating and time are all required."""
    return InteractionRecord(
        user_id=identifier(record, release.user),
        item_id=identifier(record, *release.item),
        rating=present(rating(record, release.rating), release.rating),
        timestamp=present(seconds(record, release.time, release.per_second), release.time),
    )


def amazon_item(record: Record, release: AmazonRelease) -> Item:
    """One metadata record, with HTML entities unescaped and remains of web pages removed."""
    title = _cleaned(text(record, "title"))
    features = _features(record)
    paths = (
        # In the 2018 release product features follow the path, often after a stray closing tag.
        tuple(
            _cleaned(level)
            for level in itertools.takewhile(lambda level: "</" not in level and _cleaned(level) not in features, path)
        )
        for path in categories(record, release.categories)
    )
    description = _cleaned(text(record, "description"))
    return Item(
        item_id=identifier(record, *release.item),
        # If the 2018 crawl missed the title, it holds a script of the page instead.
        title="" if "getTime(" in title else title,
        # Some items say what they are in their features alone.
        description=description or ("" if title else " ".join(features)),
        categories=tuple(path for path in paths if path),
        brand=_brand(record, release.brand) or None,
        price=price_of(record.get("price")),
    )


def _brand(record: Record, field: str) -> str:
    """The brand, without the words that the product page writes around the name of an author."""
    written = record.get(field)
    cleaned = _cleaned(text(record, field))
    if isinstance(written, str) and _BYLINE.match(written):
        cleaned = cleaned.removeprefix("by").strip()
    return _BRAND_PAGE.sub(r"\1", cleaned)


def price_of(value: object) -> float | None:
    """A price in dollars; None for anything else, such as ranges and remains of web pages.

    >>> price_of("$1,012.99"), price_of(3.5), price_of("$3.99 - $9.99"), price_of(".a-box-inner{color:red}")
    (1012.99, 3.5, None, None)
    """
    if isinstance(value, str):
        match = re.fullmatch(r"\$?\s*([0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,9})(\.[0-9]{1,4})?", value.strip())
        return float(match[0].lstrip("$").replace(",", "")) if match else None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9:
        return float(value)
    return None


_BYLINE = re.compile(r"^\s*by\s*\n")
_BRAND_PAGE = re.compile(r"^(?:by )?Visit Amazon's (.+) Page$", re.IGNORECASE)
_SCRIPTS = tuple(
    (re.compile(rf"<{name}\b[^<>]*>.*?</{name}\s*>", re.I | re.S), re.compile(rf"</{name}\s*>", re.I))
    for name in ("script", "style")
)
"""Elements without text, and their ends."""

_INLINE_TAG = re.compile(r"</?(?:a|b|big|em|font|i|small|span|strong|sub|sup|u)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*\b[^<>]*>")


def _cleaned(value: str) -> str:
    """A text without HTML: entities unescaped, tags left out; `5 < 6` and `I <3 it` are no tags.

    >>> _cleaned("<p>Boils <i>fast</i> &amp; safely.</p><br />"), _cleaned("5 < 6 and 7 > 3, I <3 it")
    ('Boils fast & safely.', '5 < 6 and 7 > 3, I <3 it')
    """
    with contextlib.suppress(ValueError):  # a character reference of thousands of digits
        value = html.unescape(value)
    if "<" in value:
        value = _TAG.sub(" ", _INLINE_TAG.sub("", _without_scripts(value)))
    return clean_line(value)


def _without_scripts(value: str) -> str:
    for element, end in _SCRIPTS:
        # Looked for before the last end only: each start would be followed to the end of the text for nothing.
        last = max((found.end() for found in end.finditer(value)), default=0)
        value = element.sub(" ", value[:last]) + value[last:]
    return value


def _features(record: Record) -> tuple[str, ...]:
    """Product features, in the releases that have them."""
    listed = record.get("features") or record.get("feature") or ()
    listed = [listed] if isinstance(listed, str) else listed
    if not isinstance(listed, list | tuple):
        return ()
    return tuple(filter(None, (_cleaned(feature) for feature in listed if isinstance(feature, str))))


def _unused(path: Path, fields: set[str]) -> tuple[str, ...]:
    return (f"Fields of {path.name} that are not used: {listed(sorted(fields))}.",) if fields else ()


def _read_items(files: AmazonFiles, reviewed: Collection[str]) -> tuple[dict[str, Item], tuple[str, ...]]:
    """The reviewed items that have a text, and notes on the others."""
    items: dict[str, Item] = {}
    unreviewed = repeated = different = 0
    unread_prices: list[str] = []
    seen: set[str] = set()

    def parse(record: Record) -> Item | None:
        if identifier(record, *files.release.item) not in reviewed:
            return None
        seen.update(record)
        item = amazon_item(record, files.release)
        if item.price is None and (price := _unread_price(record.get("price"))):
            unread_prices.append(price)
        return item

    for item in (item for path in _files_of(files.meta) for item in _metadata(path, parse, reviewed)):
        if item is None:
            unreviewed += 1
        elif item.item_id in items:
            repeated += 1
            different += item != items[item.item_id]
        else:
            items[item.item_id] = item
    first = unread_prices[0] if unread_prices else ""
    notes = (
        (unreviewed, f"Metadata records of items without a review, left out: {unreviewed:,}."),
        (len(unread_prices), f"Prices that are no single amount ({first}, ...), left out: {len(unread_prices):,}."),
        (repeated, f"Repeated metadata of an item, first one kept: {repeated:,} (with other texts: {different:,})."),
    )
    kept = {item_id: item for item_id, item in items.items() if has_text(item)}
    unused = seen - {*files.release.item, files.release.categories, files.release.brand, *_ITEM_FIELDS}
    return kept, tuple(note for count, note in notes if count) + _unused(files.meta, unused)


def _metadata(path: Path, parse: Callable[[Record], Item | None], reviewed: Collection[str]) -> Iterator[Item | None]:
    """What `parse` gives for every record of a file of metadata; None for items without a review."""

    def parse_line(line: str) -> Item | None:
        # Most metadata are of items without a review; parsing their literals would take minutes.
        leading = re.match(r"""\{['"]asin['"]: ['"](\w+)['"]""", line)
        if leading and leading[1] not in reviewed and line.rstrip().endswith("}"):
            return None
        return parse(json_or_literal(line))

    if path.suffix == ".parquet":
        rows = parsed(path, _records_of(path), parse)
    else:
        rows = parsed(path, ((number, line) for number, line in read_lines(path) if line.strip()), parse_line)
    return (item for _, item in rows)


_ITEM_FIELDS = {"title", "description", "price", "features", "feature"}


def _unread_price(value: object) -> str | None:
    """A price that a person would read (`from 4.99`), not the remains of a web page; None for anything else."""
    return value if isinstance(value, str) and len(value) < 40 and any(map(str.isdigit, value)) else None
