"""Experiments of many runs: which cells, launched how, for how long."""
