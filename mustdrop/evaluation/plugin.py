"""What lmms-eval reads when it starts: that there is a model called ``mustdrop``. Imports nothing.

The class itself lies among the experiments, since a method is a configuration.
"""

from typing import Any

MODEL = "mustdrop"
CLASS = "mustdrop.cli.lmms_eval_model.MustDropVLM"


def manifests() -> list[Any]:
    """The payload of the entry point ``lmms_eval.models``."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [ModelManifest(model_id=MODEL, chat_class_path=CLASS)]
