"""Parts that all commands share: one-sentence errors, and the summary of a run."""
