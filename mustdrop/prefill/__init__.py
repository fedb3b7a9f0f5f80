"""Stage 2: strategies that drop vision tokens between decoder layers, one file each."""

from mustdrop.exports import exports

__getattr__, __dir__ = exports(__name__, __path__)
