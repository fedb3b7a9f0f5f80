"""Checks of a run before any work: its values, its thresholds, and this machine."""
