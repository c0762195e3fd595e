"""TREC files: a run and its relevance judgements written for other tools, and an outside run read as a ranker."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from evaluate.data.records.reading import FieldError, parsed, read_lines
from evaluate.protocol.cases import Cases
from evaluate.runs.directory import RunDirectory
from evaluate.runs.journal import read_journal
from programs.ranker import ranking_from_scores
from programs.runtime.atomic import write_atomically
from programs.runtime.config_file import read_json
from programs.runtime.errors import InputError, abridged, listed, quoted
from programs.runtime.events import Note, OnEvent, ignore
from signatures.rows import Case, Ranking

RUN_PREFIX = "run:"
"""Before the file of an outside run, in the name of a ranker."""

MOST_UNKNOWN = 0.05
"""Share of the lines of an outside run that may name a user or an item that the data does not have."""

_FIELDS = ("user_id", "Q0", "item_id", "rank", "score", "tag")
_SHOWN = 3


def trec_id(own: str) -> str:
    """An id as one word: white space and percent signs are written as in addresses.

    >>> trec_id("B00 12%"), trec_id("B0012")
    ('B00%2012%25', 'B0012')
    """
    return "".join(quote(c) if c.isspace() or c == "%" else c for c in own)


class TrecFiles(NamedTuple):
    """What was written.

    Attributes:
        run: Ranked items, `user_id Q0 item_id rank score tag`.
        qrels: Targets, `user_id 0 item_id 1`.
        users: Users in both files.
        unresolved: Users whose calls failed, in none of them.
    """

    run: Path
    qrels: Path
    users: int
    unresolved: int


def write_trec(directory: Path, folder: Path) -> TrecFiles:
    """Write a run directory as TREC files.

    The score of an item is the number of items from it to the end of the list: tools sort by score, and break ties in
    their own way. Users whose calls failed are left out, because a user without lines would count as a miss.

    Args:
        directory: Of a run.
        folder: Where `run.txt` and `qrels.txt` are written.

    Raises:
        InputError: if the directory is not a run with rows and targets, or one of the files exists.
    """
    manifest, rows = read_journal(directory)
    targets_file = RunDirectory(directory).targets
    if not rows or not targets_file.exists():
        raise InputError(
            f"{directory}: has no ranked users, or no {targets_file.name}; evaluate the run to its end first (a "
            "ranking of the whole catalogue keeps only ranks, and cannot be exported)"
        )
    targets: dict[str, str] = read_json(targets_file, dict[str, str], "delete it and evaluate the run again")
    scored = {user: row for user, row in sorted(rows.items()) if row.scored}
    if lost := scored.keys() - targets.keys():
        raise InputError(f"{targets_file}: has no target of user {quoted(min(lost))}; evaluate the run again")
    files = TrecFiles(folder / "run.txt", folder / "qrels.txt", len(scored), len(targets) - len(scored))
    for path in (files.run, files.qrels):
        if path.exists():
            raise InputError(f"{path} exists: choose another folder")
    tag = trec_id(manifest.ranker)
    lines = (
        f"{trec_id(user)} Q0 {trec_id(item)} {rank} {len(row.order) - rank + 1} {tag}\n"
        for user, row in scored.items()
        for rank, item in enumerate(row.order, start=1)
    )
    write_atomically(files.run, "".join(lines).encode())
    judged = (f"{trec_id(user)} 0 {trec_id(targets[user])} 1\n" for user in scored)
    write_atomically(files.qrels, "".join(judged).encode())
    return files


class _Line(NamedTuple):
    user: str
    item: str
    score: float
    tag: str


@dataclass(frozen=True)
class TrecRun:
    """An outside system's run on our candidates. A `Ranker`.

    Candidates are ranked by their scores in the file; its column of ranks is ignored, as in trec_eval. Candidates
    without a line come last. Equal scores, and candidates without a line among themselves, are in random order, with
    the user as seed.

    Attributes:
        path: The file.
        name: The tag of its first line.
        scores: Scores by user and item, as the file names them.
        sha256: Hash of the lines' content.
    """

    path: Path
    name: str
    scores: Mapping[str, Mapping[str, float]]
    sha256: str

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of a case."""
        given = self._of(case.user_id)
        vector = [self._score(given, item) for item in case.candidates]
        return ranking_from_scores(case, {self.name: vector}, by=self.name)

    def check(self, cases: Cases, on_event: OnEvent = ignore) -> None:
        """Check the file against cases and their data; candidates without a line are counted in a note.

        Raises:
            InputError: if more than `MOST_UNKNOWN` of its lines name users or items that the data does not have, or
                none of its lines is about a candidate.
        """
        data = cases.dataset
        users, items = _words(data.histories), _words(data.items)
        pairs = [(user, item) for user, given in self.scores.items() for item in given]
        unknown = [f"{user} {item}" for user, item in pairs if user not in users or item not in items]
        share = len(unknown) / len(pairs)
        if share > MOST_UNKNOWN:
            raise InputError(
                f"{self.path}: {len(unknown):,} of {len(pairs):,} lines name a user or an item that the data does not "
                f"have, such as {listed(unknown[:_SHOWN])}; at most {MOST_UNKNOWN:.0%} may: give the ids of "
                f"{quoted(data.name)}, with %20 for a blank"
            )
        if unknown:
            on_event(Note(f"{self.path.name}: {len(unknown):,} lines with unknown ids are left out"))
        missing = {case.user_id: self._missing(case) for case in cases}
        candidates = sum(len(case.candidates) for case in cases)
        total = sum(missing.values())
        if total == candidates:
            raise InputError(f"{self.path}: ranks none of the candidates of these cases; was it made for other users?")
        if total:
            without = sum(missing[case.user_id] == len(case.candidates) for case in cases)
            on_event(
                Note(
                    f"warning: {self.path.name} has no line for {total:,} of {candidates:,} candidates ({without:,} of "
                    f"{len(cases):,} users have none at all): they are ranked last, in random order"
                )
            )

    def _of(self, user: str) -> Mapping[str, float]:
        return self.scores.get(trec_id(user)) or self.scores.get(user) or {}

    def _score(self, given: Mapping[str, float], item: str) -> float:
        return given.get(trec_id(item), given.get(item, -math.inf))

    def _missing(self, case: Case) -> int:
        given = self._of(case.user_id)
        return sum(math.isinf(self._score(given, item)) for item in case.candidates)


def read_trec_run(path: Path) -> TrecRun:
    """Read an outside run: one line `user_id Q0 item_id rank score tag` per ranked item.

    Raises:
        InputError: naming file and line, if one has other fields, a score that is no finite number, or repeats a pair.
    """
    scores: dict[str, dict[str, float]] = {}
    digest = hashlib.sha256()
    name = ""
    lines = ((number, line) for number, line in read_lines(path) if line.strip())

    def line_of(text: str) -> _Line:
        line = _parsed_line(text)
        if line.item in scores.get(line.user, ()):
            raise FieldError(f"item {quoted(line.item)} of user {quoted(line.user)} is ranked twice; keep one line")
        return line

    for _, (user, item, score, tag) in parsed(path, lines, line_of):
        scores.setdefault(user, {})[item] = score
        digest.update(f"{user} {item} {score!r}\n".encode())
        name = name or tag
    return TrecRun(path, name, scores, digest.hexdigest())


def _parsed_line(text: str) -> _Line:
    words = text.split()
    if len(words) != len(_FIELDS):
        raise FieldError(f"{len(words)} words; expected {len(_FIELDS)}: {' '.join(_FIELDS)}")
    try:
        score = float(words[4])
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise FieldError(f"field 'score': {quoted(words[4])} is not a finite number")
    return _Line(words[0], words[2], score, abridged(words[5], 60))


def _words(ids: Iterable[str]) -> Container[str]:
    """Ids as they may be written in a file."""
    own = set(ids)
    return own | {trec_id(one) for one in own}
