"""Presets: the yaml files of conf/ as configurations and as droppers."""
