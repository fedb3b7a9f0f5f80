"""Records to tables, figures and statistics; published numbers beside them. Never loads a model."""

import mustdrop.openmp  # noqa: F401  # before a ledger loads torch
