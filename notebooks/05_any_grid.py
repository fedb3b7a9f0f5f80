# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Models of any grid
#
# In LLaVA-1.5 every image has 24 x 24 vision tokens. In LLaVA-NeXT an image is a small copy and
# several crops. In Qwen2.5-VL every image has a grid of its own. The same dropper works on all of
# them. The models here are tiny, with random weights: they show how dropping works, and their
# answers mean nothing. Nothing is loaded from the network.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import transformers
from torch.nn.utils.rnn import pad_sequence

from analysis.figures.pictures import shade
from analysis.figures.style import GONE
from analysis.records.mosaics import crop_mosaics
from analysis.records.patches import patch_fates
from mustdrop import TokenDropper
from mustdrop.decode.output_aware import OutputAware
from mustdrop.key_tokens.cls_attention import ClsAttention
from mustdrop.masked import masked_logits, relative_error
from mustdrop.models import adapter_for
from mustdrop.pocket import sample
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.fastv import FastV
from mustdrop.runs.trace import Trace
from mustdrop.vision.local_merge import LocalMerge

torch.set_num_threads(1)
torch.manual_seed(0)
PAD, IMAGE, VIDEO = 0, 5, 4  # token ids
first, second, third = (np.asarray(sample("crowded_test", index).image) for index in (0, 1, 5))
images = [np.concatenate([first, second], 1), third[:160]]
[image.shape for image in images]

# %% [markdown]
# ## Two models from their configs
#
# LLaVA-NeXT gets crops of 48 x 48 pixels, which are 12 x 12 patches. Qwen2.5-VL gets cells of 8 x 8
# pixels, which are 2 x 2 patches.

# %%
text = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": PAD, "bos_token_id": 1,
    "eos_token_id": None,
}  # fmt: skip
pinpoints = [[48, 96], [96, 48], [96, 96]]
next_config = transformers.LlavaNextConfig(
    vision_config=transformers.CLIPVisionConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=4, num_attention_heads=3,
        image_size=48, patch_size=4,
    ),
    text_config=transformers.LlamaConfig(**text),
    image_token_index=IMAGE, image_grid_pinpoints=pinpoints, image_seq_length=144,
)  # fmt: skip
qwen_config = transformers.Qwen2_5_VLConfig(
    vision_config={
        "depth": 4, "hidden_size": 24, "intermediate_size": 48, "num_heads": 3, "patch_size": 4,
        "window_size": 16, "out_hidden_size": 32, "fullatt_block_indexes": [1, 3],
    },
    text_config={
        **text,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1],
        },
    },
    image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=2, vision_end_token_id=3,
)  # fmt: skip
models = {
    "LLaVA-NeXT": transformers.LlavaNextForConditionalGeneration(next_config).eval(),
    "Qwen2.5-VL": transformers.Qwen2_5_VLForConditionalGeneration(qwen_config).eval(),
}
# The usual start values are so small that all tokens would get the same attention.
for model in models.values():
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data.normal_(0, 1.2 / weight[0].numel() ** 0.5)

# %% [markdown]
# ## Two prompts with images of different sizes
#
# The image processors cut and resize the images. The adapter of a model tells from their output
# how many slots each image fills, and which cell each slot shows. With a real checkpoint its own
# processor writes the prompt.

# %%
processors = {
    "LLaVA-NeXT": transformers.LlavaNextImageProcessorPil(
        size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48},
        image_grid_pinpoints=pinpoints,
    ),
    "Qwen2.5-VL": transformers.Qwen2VLImageProcessorPil(
        patch_size=4, size={"shortest_edge": 256, "longest_edge": 96 * 192},
    ),
}  # fmt: skip
words = torch.arange(10, 22)
batches, rows = {}, []
for name, model in models.items():
    inputs = dict(processors[name](images=images, return_tensors="pt"))
    # Qwen2.5-VL requires the kinds of the tokens, which follow from the numbers of slots.
    kinds = {"mm_token_type_ids": torch.zeros(0)}
    visual = adapter_for(model).visual_inputs({**inputs, **kinds})[IMAGE]
    prompts = [
        torch.cat([words[:3], torch.full((len(shown.cells),), IMAGE), words[3:]])
        for shown in visual
    ]
    ids = pad_sequence(prompts, batch_first=True, padding_value=PAD, padding_side="left")
    inputs |= {"input_ids": ids, "attention_mask": (ids != PAD).long()}
    if name == "Qwen2.5-VL":
        inputs["mm_token_type_ids"] = (ids == IMAGE).long()
    batches[name] = inputs
    for image, shown in zip(images, visual, strict=True):
        height, width, _ = image.shape
        rows.append([name, f"{height} x {width}", shown.grids, shown.crops, len(shown.cells)])
pd.DataFrame(rows, columns=["model", "pixels", "grids", "crops", "slots"])

# %% [markdown]
# The slots of LLaVA-NeXT hold a newline behind each row of the crops. The rows of the second image
# that show padding fill no slot.
#
# ## The same droppers on both
#
# FastV keeps the tokens with the most attention. MustDrop has stages in the encoder, in the prefill
# and in the cache. Three fields make MustDrop fit both models:
#
# - Qwen2.5-VL has no [CLS]. With `cls_attention="received"` the attention that a patch receives
#   from all patches of its image replaces that of [CLS].
# - Windows may not fill a grid. With `edges="keep"` the cells that fill no window stay as they are.
# - With `decode_positions="continue"` the new tokens continue the positions of the whole prompt.
#
# The thresholds depend on the model. For real models `mustdrop calibrate` finds those that meet a
# budget.

# %%
thresholds = {"LLaVA-NeXT": (5.0, 2.5e-3, 1.2e-2), "Qwen2.5-VL": (11.0, 6.0e-3, 2.5e-2)}
droppers = {}
for name, (tau, gamma, alpha) in thresholds.items():
    droppers[name, "FastV"] = TokenDropper(prefill=FastV(keep=100, layer=1))
    droppers[name, "MustDrop"] = TokenDropper(
        vision=LocalMerge(tau=tau, window=2, edges="keep"),
        key_tokens=ClsAttention(),
        prefill=DualAttention(gamma=gamma, alpha=alpha, layers=[0, 1, 2, 3]),
        decode=OutputAware(),
        cls_attention="received",
        decode_positions="continue",
    )
options = {
    "max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True,
}  # fmt: skip
runs, outputs, rows = {}, {}, {}
for (name, method), dropper in droppers.items():
    with dropper.attach(models[name]) as run:
        outputs[name, method] = models[name].generate(**batches[name], **options)
    runs[name, method] = run
    for number, ledger in enumerate(run.ledgers):
        rows[name, method, number] = ledger.vision_per_layer()
index = pd.MultiIndex.from_tuples(rows, names=["model", "method", "prompt"])
pd.DataFrame(list(rows.values()), index).rename_axis("tokens entering layer", axis=1)

# %% [markdown]
# ## Which cells stay on each grid
#
# A cell is grey if no token carries it in the last layer. The crops are put together as they lie in
# the image, without padding.

# %%
figure, axes = plt.subplots(4, 3, figsize=(9, 9), layout="constrained")
panels = [(number, method) for number in range(len(images)) for method in ("FastV", "MustDrop")]
for row, (number, method) in zip(axes, panels, strict=True):
    crops, whole = (Trace(runs[name, method].ledgers[number]) for name in models)
    (mosaic,) = crop_mosaics(crops.ledger)
    shown = {
        "LLaVA-NeXT, small copy": patch_fates(crops),
        "LLaVA-NeXT, crops": mosaic.fates(crops),
        "Qwen2.5-VL": patch_fates(whole),
    }
    for ax, (title, fates) in zip(row, shown.items(), strict=True):
        dropped = (fates.left < fates.depth).reshape(fates.grid)
        ax.imshow(shade(images[number] / 255, dropped, GONE, 0.9))
        ax.set_title(f"{title}, {method}\n{fates.grid[0]} x {fates.grid[1]} cells", fontsize=8)
        ax.set_axis_off()
plt.show()

# %% [markdown]
# ## Dropping equals masking
#
# The masked model recomputes each prompt at full length, with masks instead of drops.

# %%
errors = {}
for (name, method), output in outputs.items():
    inputs = batches[name]
    new = output.sequences[:, inputs["input_ids"].shape[1] :]
    logits = torch.stack(output.logits, 1)
    for number in range(len(images)):
        masked = masked_logits(models[name], runs[name, method], inputs, new, number)
        errors[name, method, number] = relative_error(logits[number], masked)
assert max(errors.values()) < 1e-5
index = pd.MultiIndex.from_tuples(errors, names=["model", "method", "prompt"])
pd.DataFrame({"relative error": list(errors.values())}, index)
