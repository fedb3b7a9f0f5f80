"""What every command shares: errors in one sentence, and the summary of a run."""
