"""Stage 1b: strategies that mark key tokens, which no later stage drops, one file each."""
