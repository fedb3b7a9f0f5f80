"""Runs our MustDrop on the authors' own model and inputs, and names every array that they recorded.

Arrays of a golden file are compared one by one; a name that no line below explains is an error.
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
from hydra.utils import instantiate
from models import encoder_blocks
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
)

from mustdrop import PrefillStrategy, Reduction, TokenDropper
from mustdrop.functional import window_similarity, windows
from mustdrop.masked import masked_logits
from mustdrop.models import adapter_for
from mustdrop.prefill.dual_attention import DualAttention, share_and_peak
from mustdrop.presets.compose import composed

IMAGE_TOKEN = 320  # one past the authors' vocabulary
STEPS = 5
LAYERS = (2, 6, 10, 14)


class Recorder(PrefillStrategy):
    """Wraps a strategy and keeps what it saw and decided."""

    def __init__(self, inner: DualAttention) -> None:
        self.inner, self.layers, self.seen = inner, inner.layers, {}

    def reduce(self, view) -> Reduction:
        decision = self.inner.reduce(view)
        self.seen[view.layer] = (view.attention("text"), view.protected, decision.keep)
        return decision


def load_model(folder: Path, attention: str = "sdpa") -> LlavaForConditionalGeneration:
    """The authors' tiny model under Hugging Face's names."""
    config = LlavaConfig(
        **configs(folder), image_token_index=IMAGE_TOKEN, image_seq_length=576,
        vision_feature_layer=-2,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval().float()
    model.set_attn_implementation(attention)
    missing, unexpected = model.load_state_dict(weights(folder, model), strict=False)
    assert not unexpected and all("position_ids" in name for name in missing), (missing, unexpected)
    return model


def configs(folder: Path) -> dict[str, CLIPVisionConfig | LlamaConfig]:
    """Configs of the encoder and the decoder of the authors' model."""
    sizes = json.loads((folder / "config.json").read_text())
    llm, vision = sizes["llm"], sizes["vision"]
    text = LlamaConfig(
        **{k: v for k, v in llm.items() if k not in ("attn", "vocab_size", "rope_theta")},
        vocab_size=IMAGE_TOKEN + 1, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    assert text.rope_parameters["rope_theta"] == llm["rope_theta"]
    return {"vision_config": CLIPVisionConfig(**vision), "text_config": text}


def weights(folder: Path, model: nn.Module) -> dict[str, Tensor]:
    """Weights of the authors' model under the names of a model of Hugging Face."""
    (encoder,) = adapter_for(model).encoders
    # transformers 5.0 holds the encoder in one more module than 5.24
    tower = next(name for name, module in model.named_modules() if module is encoder.module)
    renamed = {}
    with np.load(folder / "weights.npz") as stored:
        for name in stored.files:
            value = torch.from_numpy(stored[name]).float()
            new = name.replace("model.vision_tower.vision_tower.vision_model", tower)
            new = new.replace("model.mm_projector.0.", "model.multi_modal_projector.linear_1.")
            new = new.replace("model.mm_projector.2.", "model.multi_modal_projector.linear_2.")
            if new.startswith(("model.embed", "model.layers", "model.norm")):
                new = new.replace("model.", "model.language_model.", 1)
            if value.shape[0] == IMAGE_TOKEN:
                value = torch.cat([value, value.new_zeros(1, value.shape[1])])
            renamed[new] = value
    return renamed


def official(data: dict[str, np.ndarray], **changes) -> TokenDropper:
    """conf/method/mustdrop_official.yaml at a case's thresholds."""
    thresholds = [f"prefill.{name}={float(data[name])!r}" for name in ("gamma", "alpha")]
    cfg = composed("model=llava15_7b", "method=mustdrop_official", "budget=none", *thresholds)
    return TokenDropper(**{**vars(instantiate(cfg.dropper)), **changes})


def inputs(data: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """The golden prompt: each crop takes 576 slots where the authors' prompt has one -200."""
    ids = torch.from_numpy(data["input_ids"])
    at = int((ids == -200).nonzero())
    crops = len(data["image_u8"])
    slots = torch.full((crops * 576,), IMAGE_TOKEN)
    ids = torch.cat([ids[:at], slots, ids[at + 1 :]])[None]
    pixels = torch.from_numpy(data["image_u8"]).permute(0, 3, 1, 2).float()
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": (pixels / 255 - 0.5) / 0.5,
    }


def generate(model, prompt: dict[str, Tensor]):
    """Greedy tokens, logits and the cache that decoding left."""
    with torch.inference_mode():
        return model.generate(
            **prompt, max_new_tokens=STEPS, do_sample=False, output_logits=True,
            return_dict_in_generate=True,
        )  # fmt: skip


class Replay:
    """One golden case run through our official preset; ``ours(name)`` is our value of a golden
    array."""

    def __init__(
        self, model: PreTrainedModel, data: dict[str, np.ndarray],
        prompt: dict[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.data, self.model, self.prompt = data, model, prompt or inputs(data)
        dropper = official(data)
        self.recorder = Recorder(dropper.prefill)
        self.caught: dict[str, Tensor] = {}
        recording = official(data, prefill=self.recorder)
        with recording.attach(model) as run:
            hooks = self._watch(model)  # behind the dropper's own: they see what the blocks receive
            self.out = generate(model, self.prompt)
            for hook in hooks:
                hook.remove()
        self.run, self.ledger = run, run.ledgers[0]
        self.kept = {layer: seen[2] for layer, seen in self.recorder.seen.items()}

    def _watch(self, model):
        def keep(name):
            def hook(module, args, out):
                self.caught.setdefault(name, out.clone())

            return hook

        def before(name):
            def hook(module, args):
                self.caught.setdefault(name, args[0].clone())

            return hook

        blocks = encoder_blocks(model)
        layers = model.model.language_model.layers
        watched = {
            "vit_l0_out": blocks[0],
            "vit_l22_out": blocks[22],
            "vit_last_hidden": blocks[23],
            "image_features": model.model.multi_modal_projector.linear_2,
            **{f"hidden{layer}": layers[layer] for layer in LAYERS},
        }
        hooks = [module.register_forward_hook(keep(name)) for name, module in watched.items()]
        hooks.append(blocks[1].register_forward_pre_hook(before("lsm_hidden")))
        return [*hooks, layers[0].register_forward_pre_hook(before("entering"))]

    def vision(self, layer: int) -> Tensor:
        """Original positions of the vision tokens entering a layer."""
        alive = self.ledger.alive[layer]
        return alive[self.ledger.vision[alive]]

    def ours(self, name: str):
        """Our value of the golden array ``name``."""
        match = re.fullmatch(r"L(\d+)_(\w+)", name)
        if match:
            return self._layer(int(match[1]), match[2])
        match = re.fullmatch(r"kv(\d+)_(key|value)", name)
        if match:
            layer = self.out.past_key_values.layers[int(match[1])]
            states = layer.keys if match[2] == "key" else layer.values
            return states[:, :, : len(self.ledger.cached[int(match[1])])]
        match = re.fullmatch(r"kv_select_stage(\d)", name)
        if match:
            layer = (2, 3, 7, 11)[int(match[1])]
            alive, cached = self.ledger.alive[layer], self.ledger.cached[layer]
            return torch.isin(alive, cached).nonzero().flatten()
        return getattr(self, f"_{name}")()

    def _layer(self, layer: int, name: str):
        heads, protected, keep = self.recorder.seen[layer]
        before, after = self.ledger.alive[layer], self.ledger.alive[layer + 1]
        mean = heads.mean(0)
        key = protected.nonzero().flatten()
        start = int(self.data["v_token_start"])
        values = {
            "n_img_in": lambda: torch.tensor(len(self.vision(layer))),
            "key_in": lambda: key.sort().values,
            "attn_t2v_heads": lambda: heads,
            "attn_t2v": lambda: mean,
            "attn_sum": lambda: mean.sum(0),
            "attn_max": lambda: mean.amax(0),
            "dual_keep": lambda: (
                (~self.recorder.inner.unimportant(share_and_peak(mean))).nonzero().flatten()
            ),
            "vis_keep": lambda: keep,
            "key_out": lambda: protected[keep].nonzero().flatten(),
            "merged_indices": lambda: _places(before, after),
            "vis_keep_orig": lambda: _places(self.vision(0), self.vision(layer + 1)),
            "position_ids_after": lambda: torch.arange(len(after)),
            "hidden_out_before_drop": lambda: self.caught[f"hidden{layer}"],
        }
        assert start + len(self.vision(layer)) + int(self.data["text_seq"]) == len(before)
        return values[name]()

    def _crops(self, pick) -> Tensor:
        return torch.stack([pick(image) for image in self.run.images])

    def _windows(self) -> Tensor:
        return windows(24, 24, 3)

    def _vit_l0_out(self):
        return self.caught["vit_l0_out"]

    def _lsm_similarity(self):
        return torch.stack(
            [window_similarity(x[1:], self._windows()) for x in self.caught["vit_l0_out"]]
        )

    def _merged(self, image) -> Tensor:
        """Merged windows in the order of their tokens."""
        count = int((image.sizes > 1).sum())
        return _places(self._windows()[:, -1], image.cells[:count])

    def _lsm_r(self):
        return torch.tensor(len(self._merged(self.run.images[0])))

    def _lsm_merged_windows(self):
        return self._crops(self._merged)

    def _lsm_dst_patches(self):
        return self._crops(lambda image: image.cells[: len(self._merged(image))])

    def _lsm_src_patches(self):
        return self._crops(lambda image: self._windows()[self._merged(image), :-1].flatten())

    def _lsm_unmerged_patches(self):
        return self._crops(lambda image: image.cells[len(self._merged(image)) :])

    def _lsm_assign(self):
        def assign(image):
            mix = image.reduction.weights(576) if image.reduction else torch.eye(576)
            return (mix > 0).float().argmax(0)

        return self._crops(assign)

    def _lsm_hidden(self):
        return self.caught["lsm_hidden"]

    def _lsm_size(self):
        return self._crops(lambda image: torch.cat([torch.ones(1), image.sizes]))

    def _cls_attn_heads(self):
        return self._crops(lambda image: image.cls_attention[23])

    def _cls_attn(self):
        return self._cls_attn_heads().mean(1)

    def _key_index_topk(self):
        return self._crops(lambda image: image.protected.nonzero().flatten())

    def _vit_last_hidden(self):
        return self.caught["vit_last_hidden"]

    def _vit_features(self):
        return self.caught["vit_l22_out"][:, 1:]

    def _image_features(self):
        return self.caught["image_features"]

    def _inputs_embeds(self):
        ids = self.prompt["input_ids"][0]
        embeds = self.model.get_input_embeddings().weight.detach()[ids]
        embeds[self.vision(0)] = self.caught["image_features"].flatten(0, 1)
        return embeds[self.ledger.alive[0]][None]

    def _num_token_per_layer(self):
        entered = self.ledger.vision_per_layer()
        return torch.tensor([*entered[1:], entered[-1]])

    def _avg_tokens_reported(self):
        return torch.tensor(self.ledger.counts().paper_average / len(self.run.images))

    def _kv_len_after_prefill(self):
        return torch.tensor([len(self.ledger.cached[layer]) for layer in range(32)])

    def _logits(self):
        return torch.cat(self.out.logits)[:, :IMAGE_TOKEN]

    def _generated(self):
        return self.out.sequences[0, -STEPS:]

    def _decode_position_ids(self):
        return self._kv_len_after_prefill() + torch.arange(STEPS - 1)[:, None]


def _places(among: Tensor, wanted: Tensor) -> Tensor:
    """Where each of ``wanted`` stands in ``among``."""
    return (among[None] == wanted[:, None]).float().argmax(1)


def oracle_logits(model, data, dropper: TokenDropper) -> tuple[Tensor, Tensor]:
    """(logits of the run, logits of the masked oracle)."""
    prompt = inputs(data)
    with dropper.attach(model) as run:
        out = generate(model, prompt)
    new = out.sequences[:, -STEPS:]
    return torch.cat(out.logits), masked_logits(model, run, prompt, new)
