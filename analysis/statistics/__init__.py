"""Intervals, tests and power for scores that are paired by sample. Knows nothing about runs."""
