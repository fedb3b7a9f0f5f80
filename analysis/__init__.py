"""Tables, figures and statistics from run records, and published numbers. Never loads a model."""

import mustdrop.openmp  # noqa: F401  # must come before torch is loaded, which reading a ledger does
