"""Presets: loads the yaml files of conf/ as configs and as droppers."""
