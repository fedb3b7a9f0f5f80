"""Data sets that the tests make."""

import datasets
import pytest


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Nothing is left in the user's own cache of data sets."""
    patch = pytest.MonkeyPatch()
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    yield
    patch.undo()
