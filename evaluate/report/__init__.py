"""A study as one HTML file that needs nothing else, and its tables as CSV, Markdown and LaTeX."""

from evaluate.report.sections import Block, Tab
from evaluate.report.write import write_report

__all__ = ["Block", "Tab", "write_report"]
