# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # The paper's tables and figures, from records alone
#
# Nothing here loads a model. `RUNS` is a small sweep of the embedded model that is committed; put
# your own `outputs/<experiment>` in its place. The same from the command line: `python -m
# analysis.tables table1 --runs RUNS` and `python -m analysis.figures --runs RUNS`.

# %%
from pathlib import Path

import pandas as pd
from IPython.display import Markdown

from analysis.figures import (
    attention,
    decode_attention,
    layers,
    overlays,
    stages,
    survival,
    sweep,
    tradeoff,
)
from analysis.figures.traced import traced
from analysis.published import bands, judged, published
from analysis.records.cells import load
from analysis.tables.grid import fill
from analysis.tables.layouts import layouts
from analysis.tables.paper import score_sheet
from analysis.tables.rendering import sheet_markdown

# %matplotlib inline
pd.set_option("display.max_colwidth", 90)
RUNS = Path("notebooks/records")
cells = load(RUNS)
ran = {(cell["method"], cell["budget"]): cell for cell in cells}
print(len(cells), "finished runs")

# %% [markdown]
# ## Tables
#
# The paper's layout. Ours with interval and executed average; beside it, where the model is the
# paper's, the band of published numbers. What nobody ran is `missing`, with the command that fills
# it.

# %%
table1 = [score_sheet(layouts()["table1"], part) for part in fill("table1", cells)]
Markdown(sheet_markdown(table1[0]))

# %% [markdown]
# No run of LLaVA-1.5 is here, so its part shows what is published alone:

# %%
Markdown(sheet_markdown(table1[1]))

# %% [markdown]
# ## What is published, and how far it agrees
#
# A cell of the literature is a band over its sources; many of them copied their baselines. The
# widest:

# %%
found = pd.DataFrame(bands(published().to_dict("records")))
found["width"] = found["high"] - found["low"]
shares = found[found["metric"].isin(["accuracy", "accuracy_image_split", "F1"])]
shares.nlargest(8, "width")[
    ["method", "model", "tokens", "benchmark", "metric", "low", "high", "values", "independent"]
]

# %% [markdown]
# Sentences that the paper prints, against its own tables:

# %%
claims = judged()
claims[claims["verdict"] != "follows"][["quote", "verdict", "reading"]].reset_index(drop=True)

# %% [markdown]
# ## Figure 2: the stages of a run

# %%
mustdrop = ran["mustdrop", "t128"]
shown = list(traced(mustdrop))
one = next(sample for sample in shown if sample.doc_id == 5)
stages.draw(one)

# %% [markdown]
# ## Figure 3 (a): what was dropped when

# %%
overlays.of_trace(one)

# %% [markdown]
# ## Figure 3 (b): global against individual attention
#
# A token leaves where both tests fail, below and left of the two thresholds.

# %%
attention.draw(one)

# %% [markdown]
# ## Figure 4: where new tokens look

# %%
plain = next(sample for sample in traced(ran["vanilla", "none"]) if sample.doc_id == 5)
decode_attention.draw([plain, one])

# %% [markdown]
# ## Tokens per layer, and accuracy against what it costs

# %%
methods = [cell for cell in cells if cell["budget"] != "none" or cell["method"] == "vanilla"]
layers.draw(methods)

# %%
tradeoff.draw(methods, "tokens")

# %%
tradeoff.draw(methods, "flops")

# %% [markdown]
# ## Where on the picture tokens survive
#
# Eight traced samples each: enough to see the figure, not to conclude from it.

# %%
survival.draw([shown, list(traced(ran["fastv", "t128"]))])

# %% [markdown]
# ## The sweep of the thresholds
#
# Colour: accuracy. Lines: equal executed averages.

# %%
sweep.draw(sweep.sweeps(cells)[0])
