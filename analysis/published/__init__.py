"""Read and check published numbers and claims; nothing here was measured by this project."""

from analysis.published.bands import Band, band, bands
from analysis.published.check import check
from analysis.published.claims import PrintedClaim, judged, printed_claims
from analysis.published.matching import match_published
from analysis.published.numbers import paper_table, published

__all__ = [
    "Band",
    "PrintedClaim",
    "band",
    "bands",
    "check",
    "judged",
    "match_published",
    "paper_table",
    "printed_claims",
    "published",
]
