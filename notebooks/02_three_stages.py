# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # The three stages, step by step, on one image
#
# MustDrop ([arXiv:2411.10803](https://arxiv.org/abs/2411.10803)) drops in the vision encoder, in
# the prefill and in the cache. Here the stages are added one after the other.

# %%
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Image
from transformers.utils.logging import disable_progress_bar

from analysis.figures.overlays import draw
from mustdrop import TokenDropper
from mustdrop.decode.output_aware import OutputAware
from mustdrop.functional import window_similarity, windows
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.pocket import load, prompt, sample
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.vision.local_merge import LocalMerge

torch.set_num_threads(1)
disable_progress_bar()
OUT = Path("outputs/notebooks/02")
LAYERS = [3, 5, 7, 9]
model, processor = load()
item = sample("crowded_test", 5)
inputs = processor(text=prompt(processor, item.question), images=item.image, return_tensors="pt")
print(item.question, "->", item.answer)
item.image.resize((384, 384))

# %% [markdown]
# ## Stage 1: merge windows of similar patches (Eq. 5)
#
# After the first encoder block, a 3 x 3 window of similar patches (the sum of cosines over its 72
# ordered pairs exceeds tau) becomes one token.

# %%
merge = LocalMerge(tau=66.0)
with TokenDropper(vision=merge).attach(model) as run:
    model.generate(**inputs, max_new_tokens=1, do_sample=False)
ledger = run.ledgers[0]
_, slots, carries = ledger.image_tokens()
sizes = carries.sum(1)
print(
    f"{int(sizes.sum())} patches in {len(slots)} tokens; windows merged: {int((sizes > 1).sum())}"
)

# %% [markdown]
# Similarity of the windows, recomputed from the encoder's hidden states; the maximum, for 72
# ordered pairs, is 72.

# %%
with torch.inference_mode():
    pixels = inputs["pixel_values"]
    hidden = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[1][0, 1:]
similar = window_similarity(hidden, windows(24, 24, 3), "sum")
pd.Series(similar.numpy()).describe().round(1)

# %% [markdown]
# ## Stage 1b: key tokens (Eq. 6-7)
#
# Patches with unusually high [CLS] attention in the last block are never dropped later.

# %%
with TokenDropper(vision=merge, key_tokens=ClsAttention()).attach(model) as run:
    model.generate(**inputs, max_new_tokens=1, do_sample=False)
ledger = run.ledgers[0]
print(f"{int(ledger.protected.sum())} of {ledger.vision_per_layer()[0]} tokens are key tokens")

# %% [markdown]
# ## Stage 2: dual-attention filtering (Eq. 8-10)
#
# After some layers a token is dropped if neither the whole text (gamma) nor any single text token
# (alpha) attends to it. The authors drop after layers 2, 6, 10 and 14 of 32; this notebook drops
# after 3, 5, 7 and 9 of 12, so that each step is visible. Each test alone, then both:

# %%
filters = {
    "global alone": DualAttention(gamma=3.0e-3, alpha=None, layers=LAYERS),
    "individual alone": DualAttention(gamma=None, alpha=1.0e-2, layers=LAYERS),
    "both must fail": DualAttention(gamma=3.0e-3, alpha=1.0e-2, layers=LAYERS),
}
rows = {}
for name, prefill in filters.items():
    dropper = TokenDropper(vision=merge, key_tokens=ClsAttention(), prefill=prefill)
    with dropper.attach(model) as run:
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    rows[name] = run.ledgers[0].vision_per_layer()
pd.DataFrame(rows).T.rename_axis("tokens entering layer", axis=1)

# %% [markdown]
# ## Stage 3: the output-aware cache
#
# While decoding, the cache of every layer from layer 2 on keeps only the tokens of the last layer.

# %%
full = TokenDropper(merge, ClsAttention(), filters["both must fail"], OutputAware())
with full.attach(model) as run:
    tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
ledger = run.ledgers[0]
answer = processor.decode(
    tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
).strip()
pd.DataFrame({"entered": ledger.vision_per_layer(), "cached": ledger.resident_per_layer()}).T

# %% [markdown]
# ## All stages in one picture

# %%
path = draw(
    item.image, ledger, OUT / "stages.png",
    title="MustDrop: tau 66, gamma 3e-3, alpha 1e-2", question=item.question, answer=answer,
    target=item.answer, region=np.asarray(item.target_patches),
)  # fmt: skip
Image(path)
