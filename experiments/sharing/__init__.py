"""Commands that share results: packs of runs, and a board of packs."""
