"""Process-wide settings that lmms-eval 0.7.3 changes, and how they are put back. Knows no task.

What lmms-eval changes when it is imported, or when one of its tasks is loaded:

- ``PIL.ImageFile.LOAD_TRUNCATED_IMAGES`` becomes True: half a picture is read without an error.
- ``PIL.Image.MAX_IMAGE_PIXELS`` grows (xlrs, mmsearch): decompression bombs pass.
- ``warnings.filters``: every warning of the process is ignored.
- ``torch.distributed``'s timeout of a process group becomes 24 hours.
- loguru's handlers are replaced by one that writes warnings to standard output.
- The evaluator seeds ``random``, numpy and torch.

All of them are put back, but for loguru: where lmms-eval replaced its handlers, one handler writes
warnings to standard error, because standard output belongs to results.
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
    """A context that puts back what lmms-eval changes in it; see this module."""
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
    """A context in which half a picture is an error, whatever the process is set to."""
    truncated = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = truncated
