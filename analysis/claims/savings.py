"""Costs that one arm of a claim saves of the other's, sample by sample.

Knows nothing about verdicts.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from analysis.claims.arms import ArmRuns, NotMeasured
from analysis.claims.hypotheses import Cost, Saving
from analysis.records.cells import RunResult
from analysis.statistics.pairs import Pairs
from analysis.tables.costs import shapes
from mustdrop.cost import sparsevlm_macs
from mustdrop.runs.folder import shared_machine


def with_costs(ours: ArmRuns, theirs: ArmRuns, cost: Cost) -> tuple[ArmRuns, ArmRuns]:
    """Both arms with a cost of each sample in place of its score.

    Raises:
        NotMeasured: If the runs do not tell the cost, or their seconds cannot be compared.
    """
    if cost == "seconds":
        _require_comparable([*ours.cells, *theirs.cells])
    first, second = (
        replace(arm, frames=tuple(_costs(cell, cost) for cell in arm.cells))
        for arm in (ours, theirs)
    )
    return first, second


def saved_pairs(paired: Pairs, saving: Saving) -> Pairs:
    """Pairs whose mean difference is the share that is saved, minus the share of the claim.

    Args:
        paired: Costs of both arms.
        saving: What the claim says.
    """
    mean = paired.theirs.mean()
    left = 1 - saving.percent / 100
    return Pairs(-paired.ours / mean, -left * paired.theirs / mean, paired.clusters)


def _require_comparable(cells: Sequence[RunResult]) -> None:
    for cell in cells:
        if shared_machine(cell.record) is not False:
            raise NotMeasured(f"the machine may have been shared during {cell['folder']}")
        # not the fingerprint: each method has its own modules
        if any(cell[name] != cells[0][name] for name in ("hardware", "versions")):
            raise NotMeasured(
                "the runs differ in machine or libraries: their seconds do not compare"
            )


def _costs(cell: RunResult, cost: Cost) -> pd.DataFrame:
    samples = cell.samples
    if cost == "seconds":
        values = samples["seconds"]
    elif cost == "cached tokens":
        values = samples["resident_tokens"].map(lambda layers: sum(layers) / len(layers))
    else:
        if cell["model"] not in shapes():
            raise NotMeasured(f"analysis/reference/models.csv has no shape of {cell['model']}")
        shape, _ = shapes()[cell["model"]]
        values = samples["vision_tokens"].map(lambda layers: sparsevlm_macs(layers, shape))
    return samples.assign(score=values.astype(float))
