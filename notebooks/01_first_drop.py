# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A first drop
#
# The library alone: an unmodified Hugging Face model, a dropper attached to it, and the record of
# which vision token lived where. PocketLLaVA (1.8 M parameters, in the package) stands for the
# model; a LLaVA-1.5 checkpoint and its processor go in the same place.

# %%
import torch
from transformers.utils.logging import disable_progress_bar

from mustdrop import TokenDropper
from mustdrop.decode.output_aware import OutputAware
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.masked import masked_logits
from mustdrop.pocket import load, prompt, sample
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.vision.local_merge import LocalMerge

torch.set_num_threads(1)
disable_progress_bar()
model, processor = load()
asked = sample("crowded_test", 0)
asked.image.resize((384, 384))

# %% [markdown]
# ## The model as it is

# %%
inputs = processor(text=prompt(processor, asked.question), images=asked.image, return_tensors="pt")
tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
said = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
print(f"{asked.question}\nanswer: {said.strip()!r}, expected: {asked.answer!r}")

# %% [markdown]
# ## MustDrop on it
#
# Each stage is a frozen dataclass whose fields are the paper's hyper-parameters. `attach` is a
# context: inside it every prefill of the model drops tokens; when it ends the model is as found.

# %%
mustdrop = TokenDropper(
    vision=LocalMerge(tau=66.0),
    key_tokens=ClsAttention(),
    prefill=DualAttention(gamma=3.0e-3, alpha=1.0e-2, layers=[0, 2, 3, 5]),
    decode=OutputAware(),
)
with mustdrop.attach(model) as run:
    tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
said = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
print(f"answer: {said.strip()!r}")

# %% [markdown]
# ## What lived where
#
# One ledger a prompt, in original positions only. Four counts go together: what was asked for
# (nothing here), the average as the authors' script takes it, the average of what *entered* each
# layer, and what stays in the cache.

# %%
ledger = run.ledgers[0]
print("entering each layer:", ledger.vision_per_layer())
print("cached in each layer:", ledger.resident_per_layer())
print("key tokens:", int(ledger.protected.sum()))
ledger.counts()

# %% [markdown]
# ## Dropping equals masking
#
# The oracle recomputes the same prompt at full length, with masks in place of drops: no hooks, no
# cache.

# %%
with mustdrop.attach(model) as run:
    told = model.generate(
        **inputs, max_new_tokens=4, do_sample=False, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
new = told.sequences[:, inputs["input_ids"].shape[1] :]
dropped = torch.stack(told.logits, 1)[0]
masked = masked_logits(model, run, inputs, new)
error = float((dropped - masked).abs().max() / masked.abs().max())
print(f"largest difference of a logit, relative: {error:.1e}")
assert error < 1e-5

# %% [markdown]
# ## Another method is another dropper
#
# Several prompts at once: a prompt's tokens do not depend on its neighbours.

# %%
several = [sample("crowded_test", number) for number in range(4)]
batch = processor(
    text=[prompt(processor, one.question) for one in several],
    images=[one.image for one in several],
    padding=True, padding_side="left", return_tensors="pt",
)  # fmt: skip
fastv = TokenDropper(prefill=FastV(keep=166, layer=1))
with fastv.attach(model) as run:
    rows = model.generate(**batch, max_new_tokens=4, do_sample=False)
for one, row, ledger in zip(several, rows, run.ledgers, strict=True):
    said = processor.decode(row[batch["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    average = ledger.counts().executed_average
    print(f"{one.question:55s} {said:10s} (expected {one.answer}), {average:.1f} tokens a layer")
