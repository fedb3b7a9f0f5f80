"""Experiments of many runs: their cells, their launch and a forecast of their time."""
