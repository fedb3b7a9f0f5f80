"""All tests of this folder need a CUDA device; `make test-gpu` runs them."""

from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent
REASON = "NOT TESTED: torch sees no CUDA device"


@pytest.hookimpl(tryfirst=True)  # before tests are deselected by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests, and skip them where there is no device."""
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.skipif(not torch.cuda.is_available(), reason=REASON))


def pytest_terminal_summary(terminalreporter) -> None:
    """Say at the end of the output what was not tested."""
    skipped = [
        report
        for report in terminalreporter.stats.get("skipped", ())
        if REASON in str(report.longrepr)
    ]
    if skipped:
        terminalreporter.section("no CUDA device", sep="!", red=True)
        terminalreporter.line(f"{len(skipped)} tests of the GPU were skipped: {REASON}")
