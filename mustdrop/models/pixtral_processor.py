"""Pixtral's processor where torchvision is not installed.

Its module imports one function from an image processor that needs torchvision. The image processor
that reads with PIL has the same function.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

PACKAGE = "transformers.models.pixtral"
NAME = "PixtralProcessor"


def pixtral_processor() -> Any:
    """Class of the processor."""
    needed = f"{PACKAGE}.image_processing_pixtral"
    if find_spec("torchvision") is not None or needed in sys.modules:
        return getattr(import_module(f"{PACKAGE}.processing_pixtral"), NAME)
    sys.modules[needed] = import_module(f"{PACKAGE}.image_processing_pil_pixtral")
    try:
        return getattr(import_module(f"{PACKAGE}.processing_pixtral"), NAME)
    finally:
        del sys.modules[needed]
