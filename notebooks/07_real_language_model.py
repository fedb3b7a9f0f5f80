# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A real language model
#
# PocketSmol puts SmolLM2-135M-Instruct behind PocketLLaVA's encoder. Others trained SmolLM2 on
# text, so its attention was not made for this project. It has 30 layers: FastV's K = 2 and
# MustDrop's layers 2, 6, 10, 14 need no scaling. The numbers here come from a few questions; the
# sweep of `experiment=smol` measures methods.

# %%
import numpy as np
import pandas as pd
import torch
from IPython.utils.capture import capture_output
from matplotlib import pyplot as plt

from analysis.tables import summary_of
from experiments.real_weights.attention import attention_row
from experiments.real_weights.prompts import StudyPrompts, answered
from experiments.real_weights.withdrawal import withdrawal_row
from experiments.run import run
from experiments.sweeps.cells import plan
from mustdrop.masked import masked_logits, relative_error
from mustdrop.pocket import answer, sample
from mustdrop.presets.compose import composed
from mustdrop.presets.loading import load as preset

torch.set_num_threads(1)
study = StudyPrompts("pocket_smol", "t64")
with capture_output():
    model, processor = study.network(), study.processor
items = [sample("crowded_calibration", index) for index in range(4)]
pd.DataFrame(
    {
        "question": [item.question for item in items],
        "expected": [item.answer for item in items],
        "answer": answer(model, processor, items, batch_size=4),
    }
)

# %% [markdown]
# ## Where text looks
#
# Mean attention of the text behind the image, over heads and text tokens, in every layer. The
# paper's Figure 4 shows the same for LLaVA-1.5.

# %%
with capture_output():
    row = attention_row(study, ["fastv", "cls_topk"], 0)
shares = 100 * np.array(row["shares"])
figure, axes = plt.subplots(figsize=(6, 2.6))
for column, kind in enumerate(("system", "vision", "text")):
    axes.plot(shares[:, column], label=kind)
axes.set(xlabel="layer", ylabel="attention, %", ylim=(0, 100))
axes.legend()
figure.tight_layout()

# %% [markdown]
# The vision token with most attention in later layers, and which method keeps it at 64 tokens.

# %%
sink, on_object = row["sink"], row["sink_on_object"]
print(f"patch {divmod(sink, 24)}, it shows {'an object' if on_object else 'no object'}")
print("kept by:", [method for method, keeps in row["keeps"].items() if keeps])

# %% [markdown]
# ## FastV at the paper's K
#
# Two layers see all tokens. Dropping equals masking, also while decoding.

# %%
fastv = preset("fastv", model="pocket_smol", budget=64)
inputs = study.prompt(0)
dropped, tokens, logits = answered(model, fastv, inputs, 3)
print(dropped.ledgers[0].vision_per_layer())
masked = masked_logits(model, dropped, inputs, tokens)
print(f"largest relative difference: {relative_error(logits[0], masked):.1e}")

# %% [markdown]
# ## Layers without vision
#
# VTW drops all vision tokens after one layer. The divergence of the next token from that of the
# whole model says whether later layers need them.

# %%
rows = [withdrawal_row(study, share, 0) for share in (0.4, 0.6, 0.8, 0.9)]
pd.DataFrame(rows)[["layers", "kl", "same"]].round(4)

# %% [markdown]
# ## MustDrop's three thresholds
#
# The same cells as `mustdrop run -m experiment=sweep_thresholds model=pocket_smol ...`: tau merges,
# gamma and alpha filter. Finished cells are not run again.

# %%
cells = plan(
    "sweep_thresholds",
    [
        "model=pocket_smol", "benchmark.limit=2", "batch_size=2", "output_root=outputs/notebook_07",
        "vision.tau=57.6,66.0", "prefill.gamma=1e-4,1e-3", "prefill.alpha=1e-2", "threads=1",
    ],
)  # fmt: skip
with capture_output():
    for cell in cells:
        run(composed(*cell.overrides), cell.overrides)
table = summary_of([cell.folder for cell in cells if cell.folder])
table[["variant", "executed_average", "accuracy", "n"]]
