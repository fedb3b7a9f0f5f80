"""Budgets as labels: ``64`` for the budget ``t64``, ``22.2 %`` for ``s22.2``."""


def budget_label(name: object) -> str:
    """Label of a budget, given by its name in records."""
    text = str(name)
    return f"{text[1:]} %" if text.startswith("s") else text.removeprefix("t")
