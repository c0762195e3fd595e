"""Reports: one self-contained HTML file, and its tables as CSV, Markdown and LaTeX."""
