"""Column names: usual names of our columns in other people's files and frames, and the renaming of records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

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


def recognized(columns: Iterable[str], ours: Sequence[str], mapped: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our name for each column that is recognized.

    Args:
        columns: Their names.
        ours: The names to look for.
        mapped: Their name by ours, where it is given.

    >>> recognized(["userId", "asin", "colour"], ["user_id", "item_id", "rating"])
    {'userId': 'user_id', 'asin': 'item_id'}
    """
    theirs = {column.partition(":")[0].strip().lower(): column for column in columns}
    names: dict[str, str] = {}
    for our in ours:
        given = (mapped or {}).get(our)
        candidates = (our, *ALIASES.get(our, ()))
        column = given if given in theirs.values() else next((theirs[c] for c in candidates if c in theirs), None)
        if column is not None and column not in names:
            names[column] = our
    return names


class Renamer:
    """Renames the fields of records to ours and remembers what was renamed and what was left out.

    Args:
        ours: Names to look for.
        keep_others: Keep further fields under their own names, but for one without a name: the index column of a frame.
    """

    def __init__(self, ours: Sequence[str], keep_others: bool = False) -> None:
        self.ours = ours
        self.keep_others = keep_others
        self.renamed: dict[str, str] = {}
        self.unused: set[str] = set()
        self._names: dict[tuple[str, ...], dict[str, str]] = {}

    def __call__(self, record: Mapping[str, object]) -> dict[str, object]:
        """The record under our names."""
        columns = tuple(record)
        if columns not in self._names:
            names = recognized(columns, self.ours)
            if self.keep_others:
                names |= {column: column for column in columns if column not in names and column.strip()}
            self._names[columns] = names
            self.renamed |= {theirs: our for theirs, our in names.items() if theirs != our}
            self.unused |= set(columns) - names.keys() - KNOWN_UNUSED
        return {our: record[theirs] for theirs, our in self._names[columns].items()}

    def notes(self, name: str) -> tuple[str, ...]:
        """What was decided, for people.

        Args:
            name: Of the file.
        """
        notes = []
        if self.renamed:
            read = ", ".join(f"{theirs} as {our}" for theirs, our in sorted(self.renamed.items()))
            notes.append(f"Fields of {name} with other names: {read}.")
        if self.unused:
            listed = ", ".join(column or "one without a name" for column in sorted(self.unused))
            notes.append(f"Fields of {name} that are not used: {listed}.")
        return tuple(notes)
