"""Judging: open answers of finished runs, judged by a language model in a separate pass."""
