"""Benchmarks as lmms-eval tasks, one per file, built without lmms-eval's hub and cache look-ups."""
