# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A first drop
#
# Only the library: an unmodified Hugging Face model, a dropper attached to it, and the record of
# which vision tokens each layer had. The model is PocketLLaVA (1.8 M parameters, in the package); a
# LLaVA-1.5 checkpoint and its processor can replace it.

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
item = sample("crowded_test", 0)
item.image.resize((384, 384))

# %% [markdown]
# ## The model as it is

# %%
inputs = processor(text=prompt(processor, item.question), images=item.image, return_tensors="pt")
tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
answer = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
print(f"{item.question}\nanswer: {answer.strip()!r}, expected: {item.answer!r}")

# %% [markdown]
# ## MustDrop on it
#
# Each stage is a frozen dataclass whose fields are the paper's hyper-parameters. `attach` is a
# context: inside it every prefill of the model drops tokens; after it the model is unchanged.

# %%
mustdrop = TokenDropper(
    vision=LocalMerge(tau=66.0),
    key_tokens=ClsAttention(),
    prefill=DualAttention(gamma=3.0e-3, alpha=1.0e-2, layers=[0, 2, 3, 5]),
    decode=OutputAware(),
)
with mustdrop.attach(model) as run:
    tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
answer = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
print(f"answer: {answer.strip()!r}")

# %% [markdown]
# ## Which tokens each layer had
#
# There is one ledger per prompt; it uses original positions only. It gives four counts: the
# requested count (none here), the average of the authors' script, the average of the tokens that
# *entered* each layer, and the tokens that stay in the cache.

# %%
ledger = run.ledgers[0]
print("entering each layer:", ledger.vision_per_layer())
print("cached in each layer:", ledger.resident_per_layer())
print("key tokens:", int(ledger.protected.sum()))
ledger.counts()

# %% [markdown]
# ## Dropping equals masking
#
# The masked model recomputes the same prompt at full length, with masks instead of drops, without
# hooks and without a cache.

# %%
with mustdrop.attach(model) as run:
    output = model.generate(
        **inputs, max_new_tokens=4, do_sample=False, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
new = output.sequences[:, inputs["input_ids"].shape[1] :]
dropped = torch.stack(output.logits, 1)[0]
masked = masked_logits(model, run, inputs, new)
error = float((dropped - masked).abs().max() / masked.abs().max())
print(f"largest difference of a logit, relative: {error:.1e}")
assert error < 1e-5

# %% [markdown]
# ## Another method is another dropper
#
# Several prompts in one batch: the kept tokens of a prompt do not depend on the other prompts.

# %%
items = [sample("crowded_test", index) for index in range(4)]
batch = processor(
    text=[prompt(processor, item.question) for item in items],
    images=[item.image for item in items],
    padding=True, padding_side="left", return_tensors="pt",
)  # fmt: skip
fastv = TokenDropper(prefill=FastV(keep=166, layer=1))
with fastv.attach(model) as run:
    rows = model.generate(**batch, max_new_tokens=4, do_sample=False)
for item, row, ledger in zip(items, rows, run.ledgers, strict=True):
    answer = processor.decode(row[batch["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    average = ledger.counts().executed_average
    print(
        f"{item.question:55s} {answer:10s} (expected {item.answer}), {average:.1f} tokens per layer"
    )
