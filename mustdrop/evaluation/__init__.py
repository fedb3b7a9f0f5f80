"""The lmms-eval adapter: benchmarks, prompts, answers, scores and the controls of a run."""
