"""Calibration: searches for the thresholds with which a method meets a budget."""
