"""The core runs without what the floors above it need, and importing it changes nothing."""

import os
import pkgutil
import subprocess
import sys
import textwrap

import mustdrop

UPPER = (
    "mustdrop.calibration", "mustdrop.cli", "mustdrop.evaluation", "mustdrop.judging",
    "mustdrop.pocket", "mustdrop.presets", "mustdrop.tracking",
)  # fmt: skip
CORE = sorted(
    name
    for _, name, _ in pkgutil.walk_packages(mustdrop.__path__, "mustdrop.")
    if not name.startswith(UPPER)
)
BLOCKED = ("hydra", "omegaconf", "wandb", "lmms_eval", "pandas", "matplotlib")

# As on a machine where they are not installed: others may ask for them, and are told no.
BLOCK = f"""
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {BLOCKED}:
            return self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def python(*parts: str) -> subprocess.CompletedProcess[str]:
    """What a fresh interpreter, with no test machinery in it, makes of the code."""
    code = "\n".join(textwrap.dedent(part) for part in parts)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )


def test_the_core_imports_with_every_upper_library_blocked():
    done = python(
        BLOCK,
        f"""
        import importlib
        for name in {["mustdrop", *CORE]}:
            importlib.import_module(name)
        print(len([name for name in sys.modules if name.startswith("mustdrop.")]))
        """,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= len(CORE) > 10


def test_the_block_stops_the_adapter_of_lmms_eval():
    done = python(BLOCK, "import mustdrop.evaluation.lmms")
    assert done.returncode != 0
    assert "No module named 'lmms_eval'" in done.stderr


def test_importing_the_core_changes_nothing_and_says_nothing():
    done = python(
        f"""
        import importlib, os, random, warnings
        import numpy, torch, transformers
        from transformers import AttentionInterface
        from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        def state():
            return (
                dict(ALL_ATTENTION_FUNCTIONS),
                dict(AttentionInterface._global_mapping),
                dict(ALL_MASK_ATTENTION_FUNCTIONS),
                torch.nn.functional.scaled_dot_product_attention,
                torch.nn.Module.__call__,
                torch.get_num_threads(),
                torch.get_default_dtype(),
                torch.get_rng_state().tolist(),
                random.getstate(),
                numpy.random.get_state()[1].tolist(),
                dict(os.environ),
                list(warnings.filters),
            )

        before = state()
        for name in {["mustdrop", *CORE]}:
            importlib.import_module(name)
        assert state() == before
        assert not torch.cuda.is_initialized()
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == ""
