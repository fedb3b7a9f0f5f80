"""What papers and their readers report, read and checked; nothing here was measured by us."""

from analysis.published.numbers import beside, paper_table, published

__all__ = ["beside", "paper_table", "published"]
