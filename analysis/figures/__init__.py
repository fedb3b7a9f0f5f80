"""Figures: functions of records and traces, the same bytes for the same inputs."""
