"""The order of methods on the embedded models and as published, as markdown.

A model without a record is left out, and a sentence says so.
"""

from pathlib import Path

import pandas as pd
import records

from analysis.published.numbers import REFERENCE, published
from analysis.tables.ranks import measured_shares, published_shares, ranks_markdown

MODELS = {"PocketLLaVA": "rivals", "PocketSmol": "smol"}
PUBLISHED = "LLaVA-1.5-7B, published"
NOT_MEASURED = "*{model} is left out: there is no `experiments/records/{name}.csv` yet.*"


def orders(budget: str) -> str:
    """Share of vanilla's score that methods keep at a budget, by model, and how orders agree."""
    columns, missing = {}, []
    for model, name in MODELS.items():
        if Path(records.RECORDS, f"{name}.csv").is_file():
            columns[model] = measured_shares(records.read(name), budget)
        else:
            missing.append(NOT_MEASURED.format(model=model, name=name))
    shares = published_shares(published(), published_names(), int(budget.removeprefix("t")))
    columns[PUBLISHED] = shares["median"]
    spread = (shares.highest - shares.lowest)[shares.sources > 1]
    note = (
        f"Published: {len(shares)} methods; the sources of one method lie up to "
        f"{spread.max():.1f} points apart."
    )
    return "\n\n".join([ranks_markdown(columns), note, *missing])


def published_names() -> dict[str, str]:
    """Our name of each method -> its published name; of two presets of a method, the first."""
    rows = pd.read_csv(REFERENCE / "names.csv").to_dict("records")
    names: dict[str, str] = {}
    for row in rows:
        is_method = row["kind"] == "method" and row["ours"] != "vanilla"
        if is_method and row["published"] not in names.values():
            names[row["ours"]] = row["published"]
    return names
