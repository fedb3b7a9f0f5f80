"""Budget of a run on one prompt: the average that it asks for, and whether that can be reached."""

from mustdrop.budget import Budget
from mustdrop.dropper import TokenDropper
from mustdrop.ledger import TokenLedger
from mustdrop.schedule import holds_budget, least_average
from mustdrop.strategy import ModelFacts


def nominal_average(budget: Budget | None, ledger: TokenLedger) -> float | None:
    """Executed average that a budget asks for on a prompt; None without a budget."""
    return None if budget is None else budget.target(ledger.shown_cells)


def out_of_reach(
    budget: Budget | None, dropper: TokenDropper, ledger: TokenLedger, facts: ModelFacts
) -> dict[str, float]:
    """Limit of a prompt that its budget is outside of; empty if the budget is in reach.

    Returns:
        ``most_average``: all tokens of the prompt, fewer than the budget. ``least_average``: the
        smallest executed average of a method that resolves its budget for each prompt.
    """
    nominal, entered = nominal_average(budget, ledger), ledger.shown_cells
    if nominal is None or not entered:
        return {}
    if nominal > entered:
        return {"most_average": float(entered)}
    least = [
        least_average(stage, entered, facts.feature_block + 1, facts.depth)
        for stage in (dropper.vision, dropper.prefill)
        if stage is not None and holds_budget(stage)
    ]
    limit = max((value for value in least if value is not None), default=0.0)
    return {"least_average": limit} if nominal < limit else {}
