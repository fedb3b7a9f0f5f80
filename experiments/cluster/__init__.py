"""SLURM: a cluster's site file, and cells as a job array. Knows nothing about measurements."""
