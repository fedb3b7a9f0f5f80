"""Stage 1: strategies that drop or merge tokens in the vision encoder, one file each."""

from mustdrop.exports import exports

__getattr__, __dir__ = exports(__name__, __path__)
