"""Figures of records and traces; the same inputs give the same bytes."""
