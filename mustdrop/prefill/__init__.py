"""Stage 2: strategies that drop vision tokens between decoder layers, one file each."""
