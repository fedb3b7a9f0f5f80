"""Benchmarks as lmms-eval tasks, built locally: no hub, no cache, no look-up. One a file."""
