"""Intervals and tests of scores that are paired by sample. Knows no runs."""
