"""The rooms that know the outside: lmms-eval, records, checkpoints, budgets. One thing a file."""
