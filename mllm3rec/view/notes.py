"""Notes and tags of runs, kept in one small file of the viewed folder; manifests and run folders stay as they are."""

from __future__ import annotations

import threading
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from programs.runtime.atomic import write_atomically
from programs.runtime.errors import InputError, input_error
from programs.runtime.untrusted import read_untrusted

NOTES = "mllm3rec-view.json"
_LONGEST = 4000


class RunNote(BaseModel):
    """What somebody wrote about a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    note: str = Field(default="", max_length=_LONGEST)
    tags: tuple[str, ...] = ()

    @classmethod
    def written(cls, note: str, tags: str) -> RunNote:
        """From two fields of a form; tags are separated by commas.

        Raises:
            InputError: if the note is too long.

        >>> RunNote.written(" fine ", "paper, v2,,paper")
        RunNote(note='fine', tags=('paper', 'v2'))
        """
        parts = dict.fromkeys(part.strip() for part in tags.split(","))
        try:
            return cls(note=note.strip(), tags=tuple(part for part in parts if part))
        except ValidationError as error:
            raise input_error("note", error, "shorten it") from None


class Notes(BaseModel):
    """Contents of the file."""

    model_config = ConfigDict(extra="forbid")

    format: str = "mllm3rec-view/1"
    runs: dict[str, RunNote] = {}


class NoteBook:
    """Reads and writes the notes of a folder. Read again at every look: two views may be open.

    Args:
        root: The viewed folder.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / NOTES
        self._lock = threading.Lock()

    def read(self) -> dict[str, RunNote]:
        """Notes by the name of the run.

        Raises:
            InputError: if the file was damaged.
        """
        if not self.path.exists():
            return {}
        try:
            return Notes.model_validate_json(read_untrusted(self.path)).runs
        except ValidationError as error:
            raise input_error(self.path, error, "correct it, or delete it to lose the notes") from None

    def write(self, run: str, note: RunNote) -> None:
        """Keep the note of a run; an empty one is removed.

        Raises:
            InputError: if the file was damaged, or cannot be written.
        """
        with self._lock:
            runs = self.read() | {run: note}
            if note == RunNote():
                del runs[run]
            try:
                write_atomically(self.path, Notes(runs=runs).model_dump_json(indent=1).encode() + b"\n")
            except OSError as error:
                raise InputError(f"{self.path}: cannot be written ({error.strerror})") from None
