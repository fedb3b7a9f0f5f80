"""Records to tables, figures and statistics; published numbers beside them. Never loads a model."""

import mustdrop.harness.waiting  # noqa: F401  # before a ledger loads torch
