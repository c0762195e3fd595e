"""Questions in a file, for `vllm run-batch` or anybody else to answer: batches without a network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from programs.batch.job_table import JobTable
from programs.batch.openai_form import OpenAIForm, openai_line
from programs.batch.providers import dialect_of
from programs.batch.question import BatchQuestion
from programs.runtime.errors import InputError, listed


class WaveWritten(BaseException):
    """The questions of a wave are in a file, and the run waits for their answers.

    Not an `Exception`: nothing has failed.

    Attributes:
        questions: Their number.
        path: The file.
    """

    def __init__(self, questions: int, path: Path) -> None:
        super().__init__(f"{questions} questions are in {path}")
        self.questions = questions
        self.path = path


def refuse_foreign_file(table: JobTable, path: Path, content: bytes) -> None:
    """Refuse to write questions over a file that may still be needed, such as the cases of the same command.

    Args:
        table: Of all jobs, also of those that are over.
        content: The questions.

    Raises:
        InputError: if there is a file that holds neither these questions nor those of a job that is over.
    """
    if not path.exists() and not path.is_symlink():
        return
    over = {job.sha256 for job in table.jobs(("fetched", "dropped")) if job.path == str(path.absolute())}
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found in over | {hashlib.sha256(content).hexdigest()}:
            return
    raise InputError(
        f"{path}: is there already, and holds no questions whose answers were read; name another file, or remove it"
    )


def lines_of_one_model(questions: Sequence[BatchQuestion]) -> bytes:
    """The content of a file of questions.

    Raises:
        InputError: if they are for several models: who answers a file does so with one; or for one whose requests
            have another form than OpenAI's.
    """
    models = dict.fromkeys(question.config.model for question in questions)
    if len(models) > 1:
        raise InputError(f"questions for several models ({listed(models)}): a file is answered by one; use --model")
    for model in models:
        if dialect_of(model) != OpenAIForm.name:
            raise InputError(
                f"questions for {model}: a file holds requests of OpenAI's form; name the model as the server that "
                "answers the file does, http://host:port/v1#model, or use --via batch"
            )
    return b"".join(openai_line(question) + b"\n" for question in questions)
