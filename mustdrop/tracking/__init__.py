"""Trackers: a separate process that sends a run's folder to a service while it runs."""
