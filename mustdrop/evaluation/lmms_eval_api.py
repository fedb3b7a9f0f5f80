"""The names of lmms-eval 0.7.3 that this project uses; the only module that imports lmms-eval.

The import of lmms-eval changes settings of the whole process; see
:mod:`mustdrop.evaluation.process`. This module imports it once and restores the settings.
"""

from mustdrop.evaluation.process import unchanged_process

with unchanged_process():
    from lmms_eval import evaluator, tasks
    from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
    from lmms_eval.api.metrics import anls
    from lmms_eval.api.model import lmms
    from lmms_eval.api.task import ConfigurableMessagesTask, Task
    from lmms_eval.protocol import ChatMessages
    from lmms_eval.tasks import TaskManager
    from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer
    from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor
    from lmms_eval.tasks.mmbench.en_utils import mmbench_evaluator, mmbench_process_results
    from lmms_eval.tasks.mme.utils import mme_aggregate_results, mme_process_results
    from lmms_eval.tasks.mmmu.utils import construct_prompt as mmmu_construct_prompt
    from lmms_eval.tasks.mmmu.utils import evaluate_mmmu as mmmu_evaluate
    from lmms_eval.tasks.mvbench.utils import DATA_LIST as MVBENCH_FOLDERS
    from lmms_eval.tasks.mvbench.utils import (
        mvbench_aggregate_results,
        mvbench_doc_to_text,
        mvbench_process_results,
    )
    from lmms_eval.tasks.pope import utils as pope_utils
    from lmms_eval.tasks.refcoco.utils_rec import compute_iou as box_overlap
    from lmms_eval.utils import load_yaml_config

__all__ = [
    "MVBENCH_FOLDERS",
    "ChatMessages",
    "ConfigurableMessagesTask",
    "EvalAIAnswerProcessor",
    "GenerationResult",
    "Instance",
    "Task",
    "TaskManager",
    "TokenCounts",
    "anls",
    "box_overlap",
    "evaluator",
    "extract_mcq_answer",
    "lmms",
    "load_yaml_config",
    "mmbench_evaluator",
    "mmbench_process_results",
    "mme_aggregate_results",
    "mme_process_results",
    "mmmu_construct_prompt",
    "mmmu_evaluate",
    "mvbench_aggregate_results",
    "mvbench_doc_to_text",
    "mvbench_process_results",
    "pope_utils",
    "tasks",
]
