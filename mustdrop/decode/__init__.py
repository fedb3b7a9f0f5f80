"""Stage 3: strategies that choose what the KV cache keeps for decoding, one file each."""
