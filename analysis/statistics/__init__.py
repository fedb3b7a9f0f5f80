"""Intervals, tests and power of scores that are paired by sample. Knows no runs."""
