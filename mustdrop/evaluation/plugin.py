"""Entry point by which lmms-eval finds the model ``mustdrop``. Imports nothing at start-up.

The classes are in :mod:`mustdrop.cli.lmms_eval_model`, because a method is a configuration.
"""

from typing import Any

MODEL = "mustdrop"
CLASS = "mustdrop.cli.lmms_eval_model.MustDropVLM"
SCORING_CLASS = "mustdrop.cli.lmms_eval_model.MustDropScoringVLM"  # with --force_simple


def manifests() -> list[Any]:
    """Manifests for the entry point ``lmms_eval.models``."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [ModelManifest(model_id=MODEL, simple_class_path=SCORING_CLASS, chat_class_path=CLASS)]
