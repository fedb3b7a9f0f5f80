"""Stage 1b: strategies that mark key tokens, which no later stage drops, one file each."""

from mustdrop.exports import exports

__getattr__, __dir__ = exports(__name__, __path__)
