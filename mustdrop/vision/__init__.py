"""Stage 1: strategies that drop or merge tokens in the vision encoder, one file each."""
