"""Writes the report of a study: the HTML page, and its tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from itertools import count
from pathlib import Path

from evaluate.report.blocks import Tab
from evaluate.report.export import to_csv, to_latex, to_markdown
from evaluate.report.page import render
from evaluate.report.record import StudyRecord
from evaluate.report.reproduction import study_tables
from evaluate.report.sections import sections, summary_table
from evaluate.report.study_page import study_page
from evaluate.report.table import Table
from evaluate.report.together import together_tables
from programs.runtime.atomic import own_folder, write_atomically

PAGE, TABLES = "report.html", "tables"

_FORMATS = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


def write_report(record: StudyRecord, directory: Path, tabs: Sequence[Tab] = ()) -> list[Path]:
    """Write `report.html` and `tables/*.csv|md|tex`; each existing file is replaced atomically.

    Tables of an earlier report that this one does not have are removed, so that nobody takes them for its own.

    Args:
        tabs: Further tabs, put before those of the study.

    Returns:
        Paths of the files, the page first.

    Raises:
        InputError: if no run has a ranked user, a run does not fit its protocol, or a folder is a symbolic link.
    """
    found = sections(record)
    labels = list(dict.fromkeys(group.label for section in found for group in section.groups))
    tables = own_folder(own_folder(directory) / TABLES)
    files = {directory / PAGE: render(study_page(record, found, tabs))}
    overview = [summary_table(found, labels), *together_tables(record, found), *study_tables(record)]
    named = [("study", table) for table in overview]
    named += [(tab.name, table) for tab in tabs for table in tab.tables]
    named += [
        (f"{section.protocol.dataset}-{section.protocol.name}", table) for section in found for table in section.tables
    ]
    names: set[str] = set()
    for part, table in named:
        name = _file_name(part, table, names)
        names.add(name)
        for suffix, write in _FORMATS.items():
            files[tables / f"{name}.{suffix}"] = write(table)
    for path, content in files.items():
        write_atomically(path, content.encode())
    for path in tables.iterdir():
        if path.suffix.removeprefix(".") in _FORMATS and path not in files and path.is_file() and not path.is_symlink():
            path.unlink()
    return list(files)


def _file_name(part: str, table: Table, taken: Set[str]) -> str:
    """A name that is safe on every file system, with a number if it is already taken."""
    name = re.sub(r"[^A-Za-z0-9.+-]+", "-", f"{part}-{table.name}").strip("-.").lower()
    numbered = (f"{name}-{n}" if n > 1 else name for n in count(1))
    return next(each for each in numbered if each not in taken)
