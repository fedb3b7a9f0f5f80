"""Our ToMe on the authors' tensors; a layout for every file of their golden set."""

import numpy as np
import torch
import torch.nn.functional as F
from fake_views import vision_view
from models import IMAGE_TOKEN, encoder_blocks
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from mustdrop import Reduction, TokenDropper
from mustdrop.functional import attention_rows
from mustdrop.pairwise import bipartite_matching
from mustdrop.vision.tome import ToMe, key_metric, merge_schedule

GIVEN = {
    "metric", "x", "r", "k", "size", "qkv_w", "qkv_b", "proj_w", "proj_b", "num_heads",
    "pixel_values", "l0_metric", "l0_x_in", "l1_metric", "l1_x_in", "l2_metric", "l2_x_in",
}  # fmt: skip


def replay_tome(stem: str, data: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Our values of the arrays that the file holds."""
    held = {name: torch.from_numpy(np.asarray(value)) for name, value in data.items()}
    if stem == "parse_r":
        return _schedules()
    if stem == "prop_attn":
        return _attention(held)
    if stem.startswith("kth"):
        return {"x_merged": _every_kth(held["metric"], held["x"], int(held["k"]))}
    if stem.startswith("lightcompress"):
        return _lightcompress(held)
    if "l0_metric" in held:
        return _layers(held)
    each = [
        _one(metric, x, int(held["r"]), cls=stem != "no_cls_r7")
        for metric, x in zip(held["metric"], held["x"], strict=True)
    ]
    ours = {name: torch.stack([one[name] for one in each]) for name in each[0]}
    return {name: value for name, value in ours.items() if name in data}


def _schedules() -> dict[str, Tensor]:
    lists = {
        "r16_24": merge_schedule(16, 24),
        "r16_m1_24": merge_schedule(16, 24, inflect=-1.0),
        "r16_p1_24": merge_schedule(16, 24, inflect=1.0),
        "r_list_24": merge_schedule([5, 4, 3], 24),
    }
    return {name: torch.tensor(values) for name, values in lists.items()}


def _decide(metric: Tensor, sizes: Tensor, r: int, cls: bool) -> Reduction:
    view = vision_view(
        metric[int(cls) :], block=0, has_cls=cls, sizes=sizes,
        queries_keys=lambda block: (metric[None], metric[None]),
    )  # fmt: skip
    return ToMe([r]).reduce(view)


def _one(metric: Tensor, x: Tensor, r: int, cls: bool) -> dict[str, Tensor]:
    first = int(cls)
    decision = _decide(metric, torch.ones(len(x) - first), r, cls)
    stay, leave, partner = bipartite_matching(metric, r, cls)
    merged = torch.cat([x[:first], decision(x[first:])])
    assert decision.mix is not None and decision.sizes is not None
    source = torch.cat([torch.zeros(first).long(), first + decision.mix.argmax(0)])
    return {
        "unm_idx": stay,
        "src_idx": leave,
        "dst_idx": partner,
        "x_merged": merged,
        "size": torch.cat([torch.ones(first), decision.sizes])[:, None],
        "source_argmax": source,
        "unmerged": merged[source],
    }


def _layers(held: dict[str, Tensor]) -> dict[str, Tensor]:
    """Merging layer by layer, sizes carried on."""
    ours: dict[str, Tensor] = {}
    images, tokens, _ = held["l0_x_in"].shape
    sizes = [torch.ones(tokens - 1) for _ in range(images)]
    for layer, r in enumerate(held["r"].tolist()):
        x, metric = held[f"l{layer}_x_in"], held[f"l{layer}_metric"]
        decisions = [_decide(m, s, r, cls=True) for m, s in zip(metric, sizes, strict=True)]
        out = [torch.cat([x[i, :1], d(x[i, 1:])]) for i, d in enumerate(decisions)]
        sizes = [d.sizes for d in decisions if d.sizes is not None]
        whole = [torch.cat([torch.ones(1), s])[:, None] for s in sizes]
        ours |= {f"l{layer}_x_out": torch.stack(out), f"l{layer}_size": torch.stack(whole)}
    return ours


def _every_kth(metric: Tensor, x: Tensor, k: int) -> Tensor:
    """The authors' other matching, which we do not have: all merge into every k-th token."""
    whole = metric.shape[1] // k * k
    places = torch.arange(whole).view(-1, k)
    source, target = places[:, :-1].flatten(), places[:, -1]
    unit = F.normalize(metric, dim=-1)
    partner = (unit[:, source] @ unit[:, target].transpose(1, 2)).argmax(-1)
    member = F.one_hot(partner, len(target)).float().transpose(1, 2)
    return (x[:, target] + member @ x[:, source]) / (1 + member.sum(-1, keepdim=True))


def _attention(held: dict[str, Tensor]) -> dict[str, Tensor]:
    """Attention weighted by sizes, and the metric of merging."""
    heads, (images, tokens, _) = int(held["num_heads"]), held["x"].shape
    qkv = F.linear(held["x"], held["qkv_w"], held["qkv_b"])
    qkv = qkv.view(images, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
    ours: dict[str, list[Tensor]] = {"out_prop": [], "out_noprop": [], "metric": []}
    for image in range(images):
        query, key, value = qkv[:, image]
        ours["metric"].append(key_metric(key))
        for name, bias in (("out_prop", held["size"][image, :, 0].log()), ("out_noprop", None)):
            rows = attention_rows(query, key, key.shape[-1] ** -0.5, bias=bias)
            joined = (rows @ value).transpose(0, 1).reshape(tokens, -1)
            ours[name].append(F.linear(joined, held["proj_w"], held["proj_b"]))
    return {name: torch.stack(values) for name, values in ours.items()}


def _lightcompress(held: dict[str, Tensor]) -> dict[str, Tensor]:
    """A whole encoder that merges without sizes, and the same one left alone."""
    weights = {
        name.removeprefix("sd_").removeprefix("vision_model."): value
        for name, value in held.items()
        if name.startswith("sd_")
    }
    pixels = held["pixel_values"]
    model = next(
        model
        for heads in (4, 2, 8, 1, 16)  # not told; the model left alone tells
        if weights["embeddings.class_embedding"].shape[-1] % heads == 0
        for model in (llava(weights, pixels.shape[-1], heads),)
        if torch.allclose(_states(model, pixels)[-1], held["base_hidden_4"], atol=1e-4)
    )
    forgetful = ToMe(held["r"].tolist(), proportional_attention=False, weighted=False)
    plain = _states(model, pixels)
    merged = _states(model, pixels, TokenDropper(vision=forgetful))
    return {
        **{f"base_hidden_{i}": states for i, states in enumerate(plain)},
        **{f"hidden_{i}": states for i, states in enumerate(merged)},
    }


def llava(weights: dict[str, Tensor], pixels: int, heads: int) -> LlavaForConditionalGeneration:
    """A LLaVA around such an encoder, whose projector reads the last block."""
    blocks = 1 + max(int(name.split(".")[2]) for name in weights if ".layers." in name)
    patch = weights["embeddings.patch_embedding.weight"].shape[-1]
    vision = CLIPVisionConfig(
        hidden_size=weights["embeddings.class_embedding"].shape[0],
        intermediate_size=len(weights["encoder.layers.0.mlp.fc1.bias"]),
        num_hidden_layers=blocks, num_attention_heads=heads, image_size=pixels, patch_size=patch,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=IMAGE_TOKEN + 1, hidden_size=8, intermediate_size=8, num_hidden_layers=2,
        num_attention_heads=2, pad_token_id=0,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN,
        image_seq_length=(pixels // patch) ** 2, vision_feature_layer=-1,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    tower = model.model.vision_tower
    tower = getattr(tower, "vision_model", tower)  # transformers 5.0 nests the encoder
    missing, unexpected = tower.load_state_dict(weights, strict=False)
    assert not unexpected and all("position_ids" in name for name in missing)
    return model


def _states(
    model: LlavaForConditionalGeneration, pixels: Tensor, dropper: TokenDropper | None = None
) -> list[Tensor]:
    """What enters each block, and the last one's output as the projector gets it."""
    caught: list[Tensor] = []
    blocks = encoder_blocks(model)
    slots = model.config.image_seq_length
    ids = torch.full((len(pixels), slots + 2), 1)
    ids[:, 1:-1] = IMAGE_TOKEN
    with (dropper or TokenDropper()).attach(model), torch.inference_mode():
        hooks = [
            block.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
            for block in blocks
        ]
        hooks += [
            blocks[-1].register_forward_hook(lambda module, args, out: caught.append(out[:, :1])),
            model.model.multi_modal_projector.register_forward_pre_hook(
                lambda module, args: caught.append(args[0])
            ),
        ]
        model(input_ids=ids, pixel_values=pixels)
        for hook in hooks:
            hook.remove()
    *states, cls, features = caught
    return [*states, torch.cat([cls, features], 1)]
