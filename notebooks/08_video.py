# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Videos, frame by frame
#
# For a method that drops vision tokens, a video is its frames. This notebook shows what methods
# keep of each frame. The model has the layout of Video-LLaVA-7B: 8 frames of 16 x 16 patches, 24
# encoder blocks, 32 decoder layers. Its widths are tiny and its weights random, so its answers mean
# nothing and are not shown. Nothing is loaded from the network.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import transformers

from analysis.figures import film
from analysis.figures.frames import frame_shares
from analysis.figures.style import look
from mustdrop import TokenDropper, presets
from mustdrop.cost import encoder_macs, kv_bytes, prefill_macs, vanilla_kv_bytes
from mustdrop.decode.output_aware import OutputAware
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.ledger import OFF_GRID
from mustdrop.masked import masked_logits, relative_error
from mustdrop.models import adapter_for
from mustdrop.models.frame_processors import ClipFrames
from mustdrop.models.shapes import decoder_shape, encoder_shape
from mustdrop.pocket import sample
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.profiling.random_models import draw_weights
from mustdrop.runs.trace import Trace
from mustdrop.vision.local_merge import LocalMerge

torch.set_num_threads(1)
PAD, IMAGE, VIDEO = 0, 5, 4  # token ids
FRAMES, SIDE = 8, 224

# %% [markdown]
# ## Three short videos
#
# Each one is a window that moves over an image of PocketLLaVA. A run of `mustdrop run` takes evenly
# spaced frames of a file instead.

# %%
videos = []
for index, (right, down) in enumerate([(14, 4), (0, 12), (10, 10)]):
    image = sample("crowded_test", index).image.resize((336, 336))
    boxes = [(right * n, down * n, right * n + SIDE, down * n + SIDE) for n in range(FRAMES)]
    videos.append([image.crop(box) for box in boxes])
figure, axes = plt.subplots(3, FRAMES, figsize=(9, 3.6), layout="constrained")
for row, frames in zip(axes, videos, strict=True):
    for ax, frame in zip(row, frames, strict=True):
        ax.imshow(frame)
        ax.set_axis_off()
plt.show()

# %% [markdown]
# ## The model, once tiny and once in full
#
# The tiny model runs. The full one exists only as shapes, on torch's meta device: costs depend on
# sizes alone.

# %%
widths = {
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4},
    "full": {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32},
}
encoder_widths = {
    "tiny": {"hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 3},
    "full": {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16},
}
models = {}
for size, device in (("tiny", "cpu"), ("full", "meta")):
    config = transformers.VideoLlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            num_hidden_layers=24, image_size=SIDE, patch_size=14, **encoder_widths[size]
        ),
        text_config=transformers.LlamaConfig(
            num_hidden_layers=32, vocab_size=32064, max_position_embeddings=4096,
            pad_token_id=PAD, bos_token_id=1, eos_token_id=None, **widths[size],
        ),
        image_token_index=IMAGE, video_token_index=VIDEO, image_seq_length=256,
        video_seq_length=FRAMES * 257,
    )  # fmt: skip
    with torch.device(device):
        models[size] = transformers.VideoLlavaForConditionalGeneration(config).eval()
models["full"].half()  # two bytes per value in the cache
model = models["tiny"]
draw_weights(model, "cpu")
decoder = decoder_shape(adapter_for(models["full"]))
encoder = encoder_shape(adapter_for(models["full"]))
decoder

# %% [markdown]
# ## The prompts
#
# Each frame has its 256 patches and the encoder's [CLS] in front of them. So a video has 2048
# tokens that show a patch and 2056 slots. The words of the question are random token ids.

# %%
processor = ClipFrames(
    {
        "size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE},
        "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28],
    }
)  # fmt: skip
words = torch.arange(10, 30)
prompts = []
for frames in videos:
    inputs = dict(processor([np.stack([np.asarray(frame) for frame in frames])]))
    kinds = adapter_for(model).visual_inputs(inputs)
    (video,) = kinds[VIDEO]
    slots = torch.full((len(video.cells),), VIDEO)
    ids = torch.cat([words[:4], slots, words[4:]])[None]
    prompts.append({**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)})
{
    "slots": len(video.cells),
    "that show a patch": int((video.cells != OFF_GRID).sum()),
    "grids": video.grids,
}

# %% [markdown]
# ## Four methods at about half of the tokens
#
# The share counts the tokens that show a patch. FastV, random tokens and the last tokens are loaded
# from their presets. MustDrop's thresholds depend on the weights; those here were chosen by hand
# for this model. For a real one `mustdrop calibrate` finds them. The 3 x 3 windows do not fill
# 16 x 16 patches: with `edges="keep"` the last row and column stay as they are.

# %%
droppers = {
    name: presets.load(name, model="video_llava_7b", benchmark="msvd_qa", budget="50%")
    for name in ("fastv", "random", "keep_last")
}
droppers["mustdrop"] = TokenDropper(
    vision=LocalMerge(tau=66.0, window=3, edges="keep"),
    key_tokens=ClsAttention(),
    prefill=DualAttention(gamma=3.3e-4, alpha=1.06e-3, layers=[2, 6, 10, 14]),
    decode=OutputAware(),
)
options = {
    "max_new_tokens": 3, "do_sample": False, "output_logits": True, "return_dict_in_generate": True,
}  # fmt: skip
runs, outputs = {}, {}
for name, dropper in droppers.items():
    for number, inputs in enumerate(prompts):
        with dropper.attach(model) as run:
            outputs[name, number] = model.generate(**inputs, **options)
        runs[name, number] = run
ledgers = {key: run.ledgers[0] for key, run in runs.items()}
counts = {key: ledger.counts().as_dict() for key, ledger in ledgers.items()}
pd.DataFrame(counts).T[["executed_average", "resident"]].rename_axis(["method", "video"]).round(1)

# %% [markdown]
# ## A film strip
#
# One column for each frame, one row for each stage, and below each picture the number of tokens
# left of its frame. `mustdrop figures film` draws it for the traced samples of a run.

# %%
figures = [
    film.figure(ledgers[name, 0], videos[0], [(f"{name}, about 50 %", look(name)["color"])])
    for name in ("mustdrop", "fastv")
]
figures[0]

# %%
figures[1]

# %% [markdown]
# ## What is left of each frame
#
# Patches that a token carries into the last layer, in percent, as means over the three videos. A
# merged token of MustDrop carries 9 patches, so its shares are above its share of tokens.
# `mustdrop figures frames` draws this for runs, with intervals over samples and by position.

# %%
shares = {
    name: frame_shares([Trace(ledgers[name, number]) for number in range(len(videos))])
    for name in droppers
}
figure, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
for name, counted in shares.items():
    ax.plot(counted.names, 100 * counted.by_frame[:, -1].mean(0), label=name, **look(name))
ax.set(xlabel="frame", ylabel="patches alive, %", ylim=(0, 105))
ax.legend(ncols=4, fontsize=8)
plt.show()

# %%
pd.DataFrame(
    {name: 100 * counted.by_frame[:, -1].mean(0) for name, counted in shares.items()},
    index=pd.Index(shares["fastv"].names, name="frame"),
).round(1)

# %% [markdown]
# ## Cost at 2056 slots
#
# Computed from the ledgers with the sizes of Video-LLaVA-7B. Vanilla is the same prompt with
# nothing dropped.

# %%
first = ledgers["fastv", 0]
plain = len(video.grids) * encoder.image_macs(video.grids[0], is_frame=True)
layers = first.depth * decoder.layer_macs(first.seq_len) + decoder.hidden * decoder.vocab
rows = {"vanilla": [plain, layers, vanilla_kv_bytes(first, decoder)]}
for name in droppers:
    ledger = ledgers[name, 0]
    rows[name] = [
        encoder_macs(ledger, encoder), prefill_macs(ledger, decoder), kv_bytes(ledger, decoder),
    ]  # fmt: skip
costs = pd.DataFrame(rows, index=["encoder", "prefill", "KV cache"]).T
table = (2 * costs[["encoder", "prefill"]] / 1e12).add_suffix(", TFLOPs")
table["KV cache, MB"] = costs["KV cache"] / 1e6
table["FLOPs / vanilla"] = (costs["encoder"] + costs["prefill"]) / (plain + layers)
table.round(2)

# %% [markdown]
# ## Dropping equals masking
#
# The masked model recomputes a prompt at full length, with masks instead of drops.

# %%
errors = {}
for name in ("fastv", "mustdrop"):
    new = outputs[name, 0].sequences[:, prompts[0]["input_ids"].shape[1] :]
    masked = masked_logits(model, runs[name, 0], prompts[0], new, 0)
    errors[name] = relative_error(torch.stack(outputs[name, 0].logits, 1)[0], masked)
assert max(errors.values()) < 1e-5
pd.Series(errors, name="relative error")
