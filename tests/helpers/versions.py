"""What an older transformers lacks: tests that need it are skipped there, with the reason."""

import pytest
import transformers

from mustdrop.engine.transformers_api import reads_eager

NO_EAGER = (
    f"transformers {transformers.__version__} does not look eager attention up in its table, so "
    "that a dropper refuses it (transformers_api.reads_eager)"
)
needs_eager = pytest.mark.skipif(not reads_eager(), reason=NO_EAGER)
# Values of a parameter: the implementations of attention that a dropper may be attached to.
EAGER = pytest.param("eager", marks=needs_eager)
ATTENTION = ("sdpa", EAGER)
