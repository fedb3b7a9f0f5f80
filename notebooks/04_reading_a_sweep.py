# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Reading a sweep
#
# What a folder of runs says, and what it does not say. The committed records have 64 questions a
# run: too few for most of what one would like to know, which is part of the lesson.

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
ran = {(cell["method"], cell["budget"]): cell for cell in cells}

# %% [markdown]
# ## A row a run
#
# Four counts of tokens, the accuracy with its interval, and differences to what ran beside it on
# the same batches.

# %%
rows = summary(RUNS)
columns = ["method", "budget", "accuracy", "low", "high", "executed_average", "resident"]
rows.query("budget != 'none' or method == 'vanilla'")[[*columns, "vs_schedule"]].round(3)

# %% [markdown]
# ## The sweep
#
# Nine settings of gamma and alpha, no budget: each lands where it lands. Along a line of equal
# executed average one may compare; across lines one sees that more tokens answer better.

# %%
sweep.draw(sweep.sweeps(cells)[0])

# %%
swept = rows.query("budget == 'none' and method == 'mustdrop'")
swept[["variant", "executed_average", "accuracy", "low", "high"]].sort_values("executed_average")

# %% [markdown]
# ## Two runs against each other
#
# Sample by sample, images resampled with all their questions. The intervals of two rows may
# overlap where their paired difference is clear, and the other way round.

# %%
ours, theirs = ran["mustdrop", "t64"], ran["fastv", "t64"]
found = difference(pair([ours.samples], [theirs.samples]))
print(
    f"difference {100 * found.value:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
)
print(f"{found.test}: p = {found.p:.2g}, {found.pairs.n} samples of {found.pairs.images} images")
print(f"{found.needed(0.01)} samples like these would see one point, 4 times of 5;", end=" ")
print(f"these see {100 * found.detectable:.1f} points")

# %% [markdown]
# Is MustDrop at 64 tokens no worse than all 576 by more than 5 points? The margin is named before
# looking.

# %%
plain = ran["vanilla", "none"]
found = difference(pair([ours.samples], [plain.samples]))
print(f"{100 * found.value:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]:")
print("no worse than 5 points:", noninferior(found.low, found.high, margin=0.05))

# %% [markdown]
# ## The claims
#
# Each is judged where the runs allow it, corrected by Holm over all that were judged. *Not
# measured* says why.

# %%
judgements = judge(hypotheses(), cells)
told = frame(judgements)
told["verdict"].value_counts()

# %%
decided = [one for one in judgements if one.verdict != "not measured"]
Markdown(to_markdown(decided))
