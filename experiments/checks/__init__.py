"""Checks of a run before any work: its values, thresholds, and what this machine has."""
