# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # The paper's tables and figures, from records only
#
# No cell loads a model. `RUNS` is a small committed sweep of the embedded model; replace it by
# your own `outputs/<experiment>`. The same from the command line: `python -m
# analysis.tables table1 --runs RUNS` and `mustdrop figures --runs RUNS`.

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
runs = {(cell["method"], cell["budget"]): cell for cell in cells}
print(len(cells), "finished runs")

# %% [markdown]
# ## Tables
#
# The paper's layout. Our numbers have an interval and an executed average; for the paper's models,
# the band of published numbers stands next to them. A cell without a run is `missing`, with the
# command that fills it.

# %%
table1 = [score_sheet(layouts()["table1"], part) for part in fill("table1", cells)]
Markdown(sheet_markdown(table1[0]))

# %% [markdown]
# There is no run of LLaVA-1.5 here, so its part shows only published numbers:

# %%
Markdown(sheet_markdown(table1[1]))

# %% [markdown]
# ## Published numbers and their agreement
#
# A published value is a band over its sources; many papers copied their baselines. The widest
# bands:

# %%
ranges = pd.DataFrame(bands(published().to_dict("records")))
ranges["width"] = ranges["high"] - ranges["low"]
shares = ranges[ranges["metric"].isin(["accuracy", "accuracy_image_split", "F1"])]
shares.nlargest(8, "width")[
    ["method", "model", "tokens", "benchmark", "metric", "low", "high", "values", "independent"]
]

# %% [markdown]
# Sentences of the paper that do not follow from its own tables:

# %%
claims = judged()
claims[claims["verdict"] != "follows"][["quote", "verdict", "reading"]].reset_index(drop=True)

# %% [markdown]
# ## Figure 2: the stages of a run

# %%
mustdrop = runs["mustdrop", "t128"]
traces = list(traced(mustdrop))
trace = next(sample for sample in traces if sample.doc_id == 5)
stages.draw(trace)

# %% [markdown]
# ## Figure 3 (a): which tokens each stage dropped

# %%
overlays.of_trace(trace)

# %% [markdown]
# ## Figure 3 (b): global against individual attention
#
# A token is dropped if both tests fail, below and left of the two thresholds.

# %%
attention.draw(trace)

# %% [markdown]
# ## Figure 4: attention of new tokens

# %%
plain = next(sample for sample in traced(runs["vanilla", "none"]) if sample.doc_id == 5)
decode_attention.draw([plain, trace])

# %% [markdown]
# ## Tokens per layer, and accuracy against cost

# %%
methods = [cell for cell in cells if cell["budget"] != "none" or cell["method"] == "vanilla"]
layers.draw(methods)

# %%
tradeoff.draw(methods, "tokens")

# %%
tradeoff.draw(methods, "flops")

# %% [markdown]
# ## Where in the image tokens are kept
#
# Eight traced samples per method: enough to show the figure, too few for conclusions.

# %%
survival.draw([traces, list(traced(runs["fastv", "t128"]))])

# %% [markdown]
# ## Threshold sweep
#
# Colour: accuracy. Lines: equal executed averages.

# %%
sweep.draw(sweep.sweeps(cells)[0])
