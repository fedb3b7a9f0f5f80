"""SLURM: a site, an array of cells. Knows nothing of what a cell measures."""
