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
# the prefill and in the cache. Here each stage is attached alone, then all of them together.

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
asked = sample("crowded_test", 5)
inputs = processor(text=prompt(processor, asked.question), images=asked.image, return_tensors="pt")
print(asked.question, "->", asked.answer)
asked.image.resize((384, 384))

# %% [markdown]
# ## Stage 1: merge windows of similar patches (Eq. 5)
#
# After the first encoder block, a 3 x 3 window whose patches are alike (the sum of cosines over
# its 72 ordered pairs exceeds tau) becomes one token.

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
# How alike the windows are, recomputed from the encoder's own hidden states; the most that 72
# ordered pairs can sum to is 72.

# %%
with torch.inference_mode():
    pixels = inputs["pixel_values"]
    hidden = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[1][0, 1:]
similar = window_similarity(hidden, windows(24, 24, 3), "sum")
pd.Series(similar.numpy()).describe().round(1)

# %% [markdown]
# ## Stage 1b: key tokens (Eq. 6-7)
#
# The patches that stand out in the last block's [CLS] attention are never dropped later.

# %%
with TokenDropper(vision=merge, key_tokens=ClsAttention()).attach(model) as run:
    model.generate(**inputs, max_new_tokens=1, do_sample=False)
ledger = run.ledgers[0]
print(f"{int(ledger.protected.sum())} of {ledger.vision_per_layer()[0]} tokens are key tokens")

# %% [markdown]
# ## Stage 2: dual-attention filtering (Eq. 8-10)
#
# After some layers a token leaves if neither the whole text (gamma) nor any single word (alpha)
# looks at it. The authors drop after layers 2, 6, 10 and 14 of 32; here it is after 3, 5, 7 and 9
# of 12, so that the stages can be seen at work one after the other. Each test alone, then both:

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
# Decoding keeps what survived to the last layer, in every layer's cache from layer 2 on.

# %%
full = TokenDropper(merge, ClsAttention(), filters["both must fail"], OutputAware())
with full.attach(model) as run:
    tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
ledger = run.ledgers[0]
said = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
pd.DataFrame({"entered": ledger.vision_per_layer(), "cached": ledger.resident_per_layer()}).T

# %% [markdown]
# ## All of it in one picture

# %%
path = draw(
    asked.image, ledger, OUT / "stages.png",
    title="MustDrop: tau 66, gamma 3e-3, alpha 1e-2", question=asked.question, answer=said,
    target=asked.answer, region=np.asarray(asked.target_patches),
)  # fmt: skip
Image(path)
