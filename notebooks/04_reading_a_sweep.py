# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Reading a sweep
#
# What a folder of runs shows, and what it does not show. The committed records have 64 questions
# per run: too few for most conclusions, which is part of the lesson.

# %%
from pathlib import Path

from IPython.display import Markdown

from analysis.claims.hypotheses import hypotheses
from analysis.claims.judging import judge
from analysis.claims.pairing import pair
from analysis.claims.table import frame, to_markdown
from analysis.figures import sweep
from analysis.records.cells import load
from analysis.statistics.difference import difference
from analysis.statistics.noninferiority import noninferior
from analysis.tables import summary

# %matplotlib inline
RUNS = Path("notebooks/records")
cells = load(RUNS)
runs = {(cell["method"], cell["budget"]): cell for cell in cells}

# %% [markdown]
# ## One row per run
#
# Four token counts, the accuracy with its interval, and differences to the controls on the same
# batches.

# %%
rows = summary(RUNS)
columns = ["method", "budget", "accuracy", "low", "high", "executed_average", "resident"]
rows.query("budget != 'none' or method == 'vanilla'")[[*columns, "vs_schedule"]].round(3)

# %% [markdown]
# ## The sweep
#
# Nine settings of gamma and alpha without a budget, so token counts differ. Compare settings along
# a line of equal executed average; across lines, more tokens give better answers.

# %%
sweep.draw(sweep.sweeps(cells)[0])

# %%
swept = rows.query("budget == 'none' and method == 'mustdrop'")
swept[["variant", "executed_average", "accuracy", "low", "high"]].sort_values("executed_average")

# %% [markdown]
# ## Two runs against each other
#
# Paired by sample; the bootstrap resamples images with all their questions. The intervals of two
# rows may overlap although their paired difference is clear, and the other way round.

# %%
ours, theirs = runs["mustdrop", "t64"], runs["fastv", "t64"]
result = difference(pair([ours.samples], [theirs.samples]))
print(
    f"difference {100 * result.value:+.1f} points",
    f"[{100 * result.low:+.1f}, {100 * result.high:+.1f}]",
)
print(
    f"{result.test}: p = {result.p:.2g}, {result.pairs.n} samples of {result.pairs.images} images"
)
print(f"{result.needed(0.01)} samples are needed to detect one point with power 0.8;", end=" ")
print(f"these detect {100 * result.detectable:.1f} points")

# %% [markdown]
# Is MustDrop at 64 tokens at most 5 points worse than all 576 tokens? The margin must be chosen
# before reading the result.

# %%
plain = runs["vanilla", "none"]
result = difference(pair([ours.samples], [plain.samples]))
print(f"{100 * result.value:+.1f} points [{100 * result.low:+.1f}, {100 * result.high:+.1f}]:")
print("no worse than 5 points:", noninferior(result.low, result.high, margin=0.05))

# %% [markdown]
# ## The claims
#
# Each claim is tested if the runs allow it, with Holm's correction over all tested claims. The
# verdict *not measured* gives the reason.

# %%
judgements = judge(hypotheses(), cells)
table = frame(judgements)
table["verdict"].value_counts()

# %%
decided = [claim for claim in judgements if claim.verdict != "not measured"]
Markdown(to_markdown(decided))
