"""Readers of finished runs: the only analysis package that opens run folders."""
