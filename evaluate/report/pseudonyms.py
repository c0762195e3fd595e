"""Pseudonyms of users: reviewer ids are personal, so a report shows a short hash, the same everywhere."""

from __future__ import annotations

import hashlib
import re

PSEUDONYM_DIGITS = 10

_NAMED = re.compile(r"""\buser (?P<quote>['"])(?P<id>.*?)(?P=quote)""")


def pseudonym(user_id: str) -> str:
    """A user's name in reports: the first digits of the id's hash.

    It hides ids from readers of a report, not from owners of the data, who can find a user by hashing the id.

    >>> pseudonym("A1B2C3")
    'u-91e45b9dc4'
    """
    return f"u-{hashlib.sha256(user_id.encode()).hexdigest()[:PSEUDONYM_DIGITS]}"


def without_ids(text: str) -> str:
    """A message with the users it names replaced by their pseudonyms; our messages write `user 'id'`.

    >>> without_ids("rank of user 'A1B2C3' <= 30")
    'rank of user u-91e45b9dc4 <= 30'
    """
    return _NAMED.sub(lambda found: f"user {pseudonym(found['id'])}", text)
