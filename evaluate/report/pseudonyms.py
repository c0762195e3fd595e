"""Pseudonyms of users: a report shows a short hash in place of each user id, which is personal data."""

from __future__ import annotations

import hashlib
import re
from ast import literal_eval

PSEUDONYM_DIGITS = 10

_NAMED = re.compile(r"""\buser (?P<id>'(?:\\.|[^\\'])*'|"(?:\\.|[^\\"])*")""")


def pseudonym(user_id: str) -> str:
    """The name of a user in reports: the first digits of the id's hash.

    Owners of the data can still find a user by hashing the id.

    >>> pseudonym("A1B2C3")
    'u-91e45b9dc4'
    """
    return f"u-{hashlib.sha256(user_id.encode()).hexdigest()[:PSEUDONYM_DIGITS]}"


def without_ids(text: str) -> str:
    """A message with user ids replaced by pseudonyms; our messages write `user 'id'`.

    >>> without_ids("rank of user 'A1B2C3' <= 30")
    'rank of user u-91e45b9dc4 <= 30'
    """
    return _NAMED.sub(lambda found: f"user {pseudonym(_unquoted(found['id']))}", text)


def _unquoted(written: str) -> str:
    """The id that `quoted` wrote; of a shortened one what is there."""
    try:
        return str(literal_eval(written))
    except (SyntaxError, ValueError):
        return written[1:-1]
