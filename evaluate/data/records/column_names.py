"""Column names: usual names of our columns in other people's files and frames, and the renaming of records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from programs.runtime.errors import InputError, listed, quoted

ALIASES: dict[str, tuple[str, ...]] = {
    "user_id": ("user", "userid", "uid", "reviewerid", "reviewer_id", "customer_id", "customerid", "visitorid"),
    "item_id": (
        "item",
        "itemid",
        "iid",
        "asin",
        "parent_asin",
        "product_id",
        "productid",
        "movie_id",
        "movieid",
        "sku",
        "app_id",
        "article_id",
        "book_id",
        "business_id",
        "news_id",
        "track_id",
    ),
    "rating": ("overall", "score", "stars"),
    "timestamp": ("time", "datetime", "date", "unixreviewtime", "unix_review_time", "ts"),
    "position": (),
    "title": ("name", "item_name", "product_name", "product_title", "movie_title"),
    "description": ("text", "summary"),
    "categories": ("category", "cat", "genres", "genre", "main_category"),
    "brand": ("store", "manufacturer"),
    "price": (),
    "keywords": ("tags",),
}
"""Other usual names of our columns; compared in lower case, without a type suffix such as `:token`."""


KNOWN_UNUSED = {"sales_rank"}
"""Fields that people know to be unused: no note about them."""

MAYBE_A_RATING = "weight"
"""A column of RecTools that holds ratings, counts or shares of a film: only its owner knows which."""


def check_our_columns(columns: Mapping[str, str]) -> None:
    """Check the names of a mapping from our columns to other people's.

    Raises:
        InputError: naming the first one that is not ours.
    """
    unknown = sorted(columns.keys() - ALIASES.keys())
    if unknown:
        raise InputError(f"columns: {quoted(unknown[0])} is not one of our columns: {', '.join(ALIASES)}")


def recognized(columns: Iterable[str], ours: Sequence[str], mapped: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our name for each column that is recognized.

    Args:
        columns: Their names.
        ours: The names to look for.
        mapped: Their name by ours, where it is given.

    >>> recognized(["userId", "asin", "colour"], ["user_id", "item_id", "rating"])
    {'userId': 'user_id', 'asin': 'item_id'}
    """
    columns = list(columns)
    theirs = {column.partition(":")[0].strip().lower(): column for column in columns}
    as_written = {name: column for column in columns for name in (column.partition(":")[0].strip(), column)}
    names: dict[str, str] = {}
    for our in ours:
        given = as_written.get((mapped or {}).get(our, ""))
        column = given or next((theirs[c] for c in (our, *ALIASES.get(our, ())) if c in theirs), None)
        if column is not None and column not in names:
            names[column] = our
    return names


class Renamer:
    """Renames the fields of records to ours and remembers what was renamed and what was left out.

    Args:
        ours: Names to look for.
        keep_others: Keep further fields under their own names, but for one without a name: the index column of a frame.
        mapped: Their name by ours, where it is given.
        fixed: Whether only the given names count: the columns of a published file are known.
    """

    def __init__(
        self,
        ours: Sequence[str],
        keep_others: bool = False,
        mapped: Mapping[str, str] | None = None,
        fixed: bool = False,
    ) -> None:
        self.ours = ours
        self.keep_others = keep_others
        self.mapped = mapped or {}
        self.fixed = fixed
        self.read: dict[str, str] = {}
        self.unused: set[str] = set()
        self._names: dict[tuple[str, ...], dict[str, str]] = {}

    def __call__(self, record: Mapping[str, object]) -> dict[str, object]:
        """The record under our names."""
        return {our: record[theirs] for theirs, our in self.names_of(tuple(record)).items()}

    def names_of(self, columns: tuple[str, ...]) -> dict[str, str]:
        """Our name for each column that is kept; remembered as read, and the others as unused."""
        if columns not in self._names:
            names = self._kept(columns)
            self._names[columns] = names
            self.read |= names
            self.unused |= set(columns) - names.keys() - KNOWN_UNUSED
        return self._names[columns]

    def _kept(self, columns: tuple[str, ...]) -> dict[str, str]:
        if self.fixed:
            names = {theirs: our for our, theirs in self.mapped.items() if theirs in columns}
        else:
            names = recognized(columns, self.ours, self.mapped)
        if self.keep_others:
            # A column that has our name, in whose place another one was given, would overwrite that one.
            taken = {*names, *names.values()}
            names |= {column: column for column in columns if column not in taken and column.strip()}
        return names

    def beside(self, other: Renamer) -> None:
        """Count what another renamer reads of the same records as read."""
        self.read |= other.read
        self.unused &= other.unused

    def notes(self, name: str) -> tuple[str, ...]:
        """What was decided, for people.

        Args:
            name: Of the file.
        """
        notes = []
        renamed = sorted((theirs, our) for theirs, our in self.read.items() if theirs != our)
        if renamed:
            read = ", ".join(f"{theirs} as {our}" for theirs, our in renamed)
            notes.append(f"Fields of {name} with other names: {read}.")
        if self.unused:
            words = ", ".join(column or "one without a name" for column in sorted(self.unused))
            notes.append(f"Fields of {name} that are not used: {words}.")
        if MAYBE_A_RATING in self.unused and "rating" in self.ours and "rating" not in self.read.values():
            notes.append(
                f"The column {MAYBE_A_RATING} of {name} may hold ratings or counts; "
                f"if it holds ratings from 0 to 5, read it with --columns rating={MAYBE_A_RATING}."
            )
        return tuple(notes)


def check_all_found(columns: Mapping[str, str], tables: Sequence[Renamer], kind: str = "file") -> None:
    """Check that each given column was in one of the tables that were read.

    Args:
        columns: Their name by ours.
        kind: What the tables are, for people.

    Raises:
        InputError: naming the first that was in none.
    """
    for our, theirs in columns.items():
        if not any(table.read.get(theirs) == our for table in tables):
            there = sorted({name for table in tables for name in (*table.read, *table.unused)})
            raise InputError(
                f"columns: no {kind} has a column {quoted(theirs)} to read as {our}; there are {listed(there)}"
            )
