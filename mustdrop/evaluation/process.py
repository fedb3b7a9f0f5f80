"""Restore process-wide settings that lmms-eval 0.7.3 changes. Knows nothing about tasks.

lmms-eval changes these settings when it is imported, or when one of its tasks is loaded:

- ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` becomes True: a truncated image is read without an error.
- ``PIL.Image.MAX_IMAGE_PIXELS`` grows (xlrs, mmsearch): decompression bombs pass.
- ``warnings.filters``: every warning of the process is ignored.
- The timeout of process groups in ``torch.distributed`` becomes 24 hours.
- loguru's handlers are replaced by one that writes warnings to standard output.
- The evaluator seeds ``random``, numpy and torch.

All of them are restored, except loguru's handlers: if lmms-eval replaced them, one handler writes
warnings to standard error, because standard output is reserved for results.
"""

import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch
from loguru import logger
from PIL import Image, ImageFile
from torch.distributed import distributed_c10d


@contextmanager
def unchanged_process() -> Iterator[None]:
    """A context that restores the settings that lmms-eval changes; see the module."""
    handlers = str(logger)
    truncated, pixels = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    timeout = distributed_c10d.default_pg_timeout
    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    with warnings.catch_warnings():
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = truncated, pixels
            distributed_c10d.default_pg_timeout = timeout
            random.setstate(states[0])
            numpy.random.set_state(states[1])
            torch.set_rng_state(states[2])
            if str(logger) != handlers:
                logger.remove()
                logger.add(sys.stderr, level="WARNING")


@contextmanager
def whole_pictures() -> Iterator[None]:
    """A context in which a truncated image is an error, independent of the process's setting."""
    truncated = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = truncated
