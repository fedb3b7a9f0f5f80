"""Runs our SparseVLM on the authors' tiny model and names every array that they recorded.

Clusters are read from the decision itself. Where the scores that the authors ranked are equal, up
to rounding, their order is accepted; what is kept must be theirs exactly.
"""

import re

import numpy as np
import torch
from golden_mustdrop import IMAGE_TOKEN, LlavaForConditionalGeneration, inputs
from hydra.utils import instantiate
from torch import Tensor

from mustdrop import PrefillStrategy, Reduction, TokenDropper
from mustdrop.pairwise import density_peaks
from mustdrop.prefill.sparsevlm import SparseVLM
from mustdrop.presets.compose import composed

INPUTS = {"image_u8", "input_ids", "scale", "bias", "v_token_start"}


class Recorder(PrefillStrategy):
    """Wraps a strategy and keeps what it saw and decided."""

    def __init__(self, inner: SparseVLM) -> None:
        self.inner, self.layers, self.seen = inner, inner.layers, {}

    def reduce(self, view) -> Reduction:
        decision = self.inner.reduce(view)
        raters = self.inner.raters(view)
        heads = view.attention(raters)
        self.embeds, self.raters = view.inputs, raters
        self.places = view.entered_positions, view.text
        self.seen[view.layer] = (heads, decision, view.hidden)
        return decision


def preset(data: dict[str, np.ndarray], **changes) -> TokenDropper:
    """conf/method/sparsevlm.yaml at a case's scale and bias."""
    values = [f"prefill.{name}={float(data[name])!r}" for name in ("scale", "bias")]
    cfg = composed("model=llava15_7b", "method=sparsevlm", "budget=none", *values)
    return TokenDropper(**{**vars(instantiate(cfg.dropper)), **changes})


class Replay:
    """One golden case; ``ours(name)`` is our value of a golden array."""

    def __init__(
        self, model: LlavaForConditionalGeneration, data: dict[str, np.ndarray], **changes
    ) -> None:
        self.data = data
        dropper = preset(data, **changes)
        assert isinstance(dropper.prefill, SparseVLM)
        self.recorder = Recorder(dropper.prefill)
        self.hidden: dict[int, Tensor] = {}
        layers = model.model.language_model.layers

        def keep(layer):
            def hook(module, args, out) -> None:  # what a hook returns would replace the output
                self.hidden.setdefault(layer, out)

            return hook

        recording = preset(data, **{**changes, "prefill": self.recorder})
        with torch.inference_mode(), recording.attach(model) as run:
            hooks = [layers[at].register_forward_hook(keep(at)) for at in dropper.prefill.layers]
            out = model.generate(
                **inputs(data), max_new_tokens=len(data["generated"]), do_sample=False,
                output_logits=True, return_dict_in_generate=True,
            )  # fmt: skip
            for hook in hooks:
                hook.remove()
        self.out, self.ledger = out, run.ledgers[0]
        assert int(self.ledger.vision.nonzero()[0]) == int(data["v_token_start"])

    def ours(self, name: str) -> Tensor:
        match = re.fullmatch(r"L(\d+)_(\w+)", name)
        if match:
            return self._layer(int(match[1]), match[2])
        per_layer = self.ledger.vision_per_layer()
        cached = torch.tensor([len(self.ledger.cached[layer]) for layer in range(len(per_layer))])
        vision, text = (self.recorder.embeds[at] for at in self.recorder.places)
        new = len(self.data["generated"])
        values = {
            "inputs_embeds": lambda: self.recorder.embeds[None],
            "rater_score": lambda: (vision @ text.T).softmax(-1).mean(0),
            "rater_idx": lambda: self.recorder.raters,
            "num_token_per_layer": lambda: torch.tensor([*per_layer[1:], per_layer[-1]]),
            "kv_len_after_prefill": lambda: cached,
            "logits": lambda: torch.cat(self.out.logits)[:, :IMAGE_TOKEN],
            "generated": lambda: self.out.sequences[0, -new:],
            "decode_position_ids": lambda: cached + torch.arange(new - 1)[:, None],
        }
        return values[name]()

    def _layer(self, layer: int, name: str) -> Tensor:
        heads, decision, hidden = self.recorder.seen[layer]
        relation = heads.mean(0).mean(0)
        after = self.ledger.alive[layer + 1]
        merged = torch.ones(len(decision), dtype=torch.bool)
        if decision.mix is None:
            merged[:] = False
        else:  # a kept token is itself, at full weight, and stands among those that ascend
            merged[: int(self.kept(layer))] = False
        stay = decision.keep[~merged]
        values = {
            "n_img_in": lambda: torch.tensor(len(relation)),
            "attn_rater2v_heads": lambda: heads,
            "relation": lambda: relation,
            "rank": lambda: torch.linalg.matrix_rank(heads.mean(0)),
            "keep": lambda: stay,
            "s_flag": lambda: torch.tensor(decision.mix is not None),
            "hidden_out_before_drop": lambda: self.hidden[layer],
            "n_img_out": lambda: torch.tensor(len(decision)),
            "len_after": lambda: torch.tensor(len(after)),
            "position_ids_after": lambda: torch.arange(len(after)),
            "topk_order": lambda: self._as_theirs(
                f"L{layer}_topk_order", _by(relation, stay), relation
            ),
        }
        if name in values:
            return values[name]()
        mix, centres = decision.mix[merged], decision.keep[merged]
        member = _by(relation, (mix > 0).any(0).nonzero().flatten())
        gone = torch.ones(len(relation), dtype=torch.bool).index_fill(0, stay, False).nonzero()
        peaks = density_peaks(hidden[member], len(centres))
        values = {
            "merge_sel_in_deleted": lambda: _places(gone.flatten(), member),
            "cluster_num": lambda: torch.tensor(len(centres)),
            "cluster_in": lambda: hidden[member][None],
            "cluster_density": lambda: peaks.density,
            "cluster_score": lambda: peaks.score,
            "cluster_center": lambda: self._as_theirs(
                f"L{layer}_cluster_center", _places(member, centres), peaks.score
            ),
            "cluster_assign": lambda: (mix[:, member] > 0).float().argmax(0),
            "cluster_out": lambda: (mix @ hidden)[None],
        }
        return values[name]()

    def kept(self, layer: int) -> int:
        """Tokens that stay as they are, by the authors' formula and our attention."""
        heads = self.recorder.seen[layer][0]
        rank = int(torch.linalg.matrix_rank(heads.mean(0)))
        scale, bias = float(self.data["scale"]), float(self.data["bias"])
        return min(int(rank * scale + bias), heads.shape[-1] - 1)

    def _as_theirs(self, name: str, ours: Tensor, score: Tensor) -> Tensor:
        """Our order; theirs where the scores that were ranked are equal up to rounding."""
        theirs = torch.from_numpy(self.data[name]).long()
        if ours.shape != theirs.shape:
            return ours
        equal = (score[ours] - score[theirs]).abs() <= 1e-6 * score.abs().max()
        return torch.where(equal, theirs, ours)


def _by(score: Tensor, index: Tensor) -> Tensor:
    """``index``, by falling score."""
    return index[score[index].argsort(descending=True, stable=True)]


def _places(among: Tensor, wanted: Tensor) -> Tensor:
    """Where each of ``wanted`` stands in ``among``."""
    return (among[None] == wanted[:, None]).float().argmax(1)
