"""What papers and their readers report, read and checked; nothing here was measured by us."""

from analysis.published.bands import Band, band, bands
from analysis.published.check import check
from analysis.published.claims import Claim, judged, printed_claims
from analysis.published.matching import beside
from analysis.published.numbers import paper_table, published

__all__ = [
    "Band",
    "Claim",
    "band",
    "bands",
    "beside",
    "check",
    "judged",
    "paper_table",
    "printed_claims",
    "published",
]
