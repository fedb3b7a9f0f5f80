"""Budgets in closed form: the token counts with which a method meets an executed average."""
