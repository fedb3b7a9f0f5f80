"""Evaluation with lmms-eval: benchmarks, prompts, answers, scores and the controls of a run."""
