# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Where the time goes
#
# Fewer tokens are less work, but a method must first decide which tokens to drop. This notebook
# measures both on PocketLLaVA, on one core. `mustdrop profile` does the same for a run and writes
# the result to its folder. The numbers depend on the machine and on what else it does.

# %%
import matplotlib.pyplot as plt
import pandas as pd
import torch
from transformers.utils.logging import disable_progress_bar

from analysis.figures.style import COLOURS, GREY
from mustdrop import pocket, presets
from mustdrop.profiling.device import Device
from mustdrop.profiling.measure import Arm, BatchBench
from mustdrop.profiling.parts import DECISIONS, PARTS
from mustdrop.profiling.roofline import measured_rates
from mustdrop.profiling.rounds import RoundPlan, run_rounds
from mustdrop.profiling.summary import summarised

torch.set_num_threads(1)
disable_progress_bar()
device = Device("cpu")
model, processor = pocket.load()
sample = pocket.sample("crowded_test", 0)
inputs = processor(
    images=[sample.image], text=[pocket.prompt(processor, sample.question)], return_tensors="pt"
)
device.describe()["name"], sample.question

# %% [markdown]
# ## The arms
#
# Each method runs at a budget of 64 vision tokens per layer. Beside it runs its reference: the
# model's own layers on sequences cut to the lengths of the method. A perfect implementation would
# take the time of the reference.

# %%
methods = ("mustdrop", "fastv", "visionzip", "random")
droppers = {name: presets.load(name, budget=64) for name in methods}
arms = [Arm("vanilla", None)]
for name, dropper in droppers.items():
    arms += [Arm(name, dropper), Arm(f"{name}, reference", dropper, reference=True)]
[arm.name for arm in arms]

# %% [markdown]
# ## The rounds
#
# All arms run once in each round, in an order that changes. A ratio is taken within a round, so
# that a slow moment of the machine affects both of its times.

# %%
bench = BatchBench(device, model, inputs)
entry = {"images": 1, "batch": 1, "vision_tokens": 576}
run_rounds(bench, arms, entry, RoundPlan(rounds=6, warm_ups=1, new_tokens=[1]))
summary = summarised(entry)
rows = {}
for name in methods:
    ratios = summary[name]["ratios"]
    rows[name] = {
        "executed average": entry["arms"][name]["facts"]["executed_average"],
        "first token, ms": summary[name]["ttft_ms"]["median"],
        "/ vanilla": ratios["ttft_ms/vanilla"]["median"],
        "low": ratios["ttft_ms/vanilla"]["low"],
        "high": ratios["ttft_ms/vanilla"]["high"],
        "/ reference": ratios[f"ttft_ms/{name}, reference"]["median"],
    }
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# ## The parts of the first token
#
# `encoder`, `layers` and `head` are the model's own work. The other parts are decisions: scores,
# selection, and making the sequence shorter. The parts of a run sum to its time.

# %%
shown = ["vanilla", *methods]
parts = pd.DataFrame(
    {name: {part: summary[name][f"part_{part}_ms"]["median"] for part in PARTS} for name in shown}
).T
colours = [*COLOURS, GREY, "0.8"]
figure, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
parts[::-1].plot.barh(stacked=True, ax=ax, color=colours, width=0.7)
ax.set_xlabel("ms to the first token, medians of 6 rounds")
ax.legend(ncols=4, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.3), frameon=False)
plt.show()

# %% [markdown]
# The share of the decisions, and of the encoder in the model's own work. The encoder takes a larger
# share once the language model is cut. Only a method that drops tokens inside the encoder, as
# MustDrop does, makes this part shorter.

# %%
work = parts[["encoder", "layers", "head"]]
pd.DataFrame(
    {
        "decisions / first token": parts[list(DECISIONS)].sum(axis=1) / parts.sum(axis=1),
        "encoder / own work": work["encoder"] / work.sum(axis=1),
        "encoder / vanilla's": parts["encoder"] / parts.loc["vanilla", "encoder"],
        "layers / vanilla's": parts["layers"] / parts.loc["vanilla", "layers"],
    }
).round(2)

# %% [markdown]
# ## Operations and cache
#
# Torch counts the operations while the model runs; `mustdrop.cost` computes them from the ledger.
# The cache is measured in bytes. They agree exactly. Operations fall by more than the time, because
# short sequences use a processor less well.

# %%
facts = pd.DataFrame({name: entry["arms"][name]["facts"] for name in shown}).T
assert (facts["flops"] == facts["flops_formula"]).all()
assert (facts["kv_bytes"] == facts["kv_formula"]).all()
rates = measured_rates(device, model.dtype)
medians = pd.Series({name: summary[name]["ttft_ms"]["median"] for name in shown})
pd.DataFrame(
    {
        "GFLOPs": facts["flops"].astype(float) / 1e9,
        "FLOPs / vanilla": facts["flops"].astype(float) / facts.loc["vanilla", "flops"],
        "time / vanilla": medians / medians["vanilla"],
        "KV cache, MB": facts["kv_bytes"].astype(float) / 1e6,
        "share of a matrix product's rate": facts["flops"].astype(float)
        / (medians / 1e3)
        / rates["flops_per_second"],
    }
).round(2)
