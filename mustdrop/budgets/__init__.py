"""Budgets in closed form: the counts of a method that meet an executed average."""
