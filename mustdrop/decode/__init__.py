"""Stage 3: strategies that choose what the KV cache keeps for decoding, one file each."""

from mustdrop.exports import exports

__getattr__, __dir__ = exports(__name__, __path__)
