"""The embedded model and benchmark in lmms-eval, in this process."""

import pytest
from lmms_eval import evaluator
from lmms_eval.tasks import TaskManager

from mustdrop.checkpoint import Checkpoint
from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.evaluation.tasks.pocket_vqa import PocketVQA

SPLIT = "crowded_test"


@pytest.fixture(scope="module")
def pocket():
    return Checkpoint("pocket", "packaged", layers=12, vision_tokens=576, merging_blocks=3).load(
        "cpu"
    )


@pytest.fixture(scope="module")
def task():
    return PocketVQA("pocket_vqa", SPLIT)


def evaluated(pocket, task, limit, dropper=None, batch_size=4, **more):
    """lmms-eval's results, and the samples as they came."""
    samples = []
    adapter = DroppedVLM(*pocket, dropper, batch_size=batch_size, on_sample=samples.append, **more)
    results = evaluator.simple_evaluate(
        model=adapter,
        tasks=[task],
        task_manager=TaskManager("ERROR", include_defaults=False),
        limit=limit,
        bootstrap_iters=0,
        process_docs_parallel=1,
    )
    return results, samples
