"""Tables made from the records of runs, next to the published numbers."""

from analysis.tables.rendering import render, show, to_csv, to_markdown
from analysis.tables.summary import by_type, summary, summary_of

__all__ = ["by_type", "render", "show", "summary", "summary_of", "to_csv", "to_markdown"]
