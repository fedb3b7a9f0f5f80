"""Finds and hashes what decides an answer: code, model files and benchmark rows."""
