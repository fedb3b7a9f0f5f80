"""Thresholds for budgets: what one pass over prompts shows, and where a search ends."""
