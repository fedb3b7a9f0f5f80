"""Entry point by which lmms-eval finds the model ``mustdrop``. Imports nothing at start-up.

The class itself is in :mod:`mustdrop.cli.lmms_eval_model`, because a method is a configuration.
"""

from typing import Any

MODEL = "mustdrop"
CLASS = "mustdrop.cli.lmms_eval_model.MustDropVLM"


def manifests() -> list[Any]:
    """Manifests for the entry point ``lmms_eval.models``."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [ModelManifest(model_id=MODEL, chat_class_path=CLASS)]
