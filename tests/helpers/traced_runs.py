"""Traces of made-up runs, as mustdrop trace writes them."""

import io
import json

import numpy as np
import torch
from PIL import Image
from results import write

from mustdrop.ledger import TokenLedger, TokenSources
from mustdrop.runs.folder import trace_path
from mustdrop.runs.trace import TextAttention, Trace

BEFORE, BEHIND = 3, 2  # text tokens around the picture


def ledger(side, kept, *, cached=None, groups=None, key=()):
    """A prompt with a picture of side x side patches; these raster places enter each layer.

    A token that carries several patches stands in the place of the last of its group.
    """
    seq = BEFORE + side**2 + BEHIND
    vision = torch.zeros(seq, dtype=torch.bool)
    vision[BEFORE:-BEHIND] = True
    text = torch.arange(seq)[~vision]

    def positions(places):
        return torch.cat([text, torch.as_tensor(places, dtype=torch.long) + BEFORE]).sort().values

    protected = torch.zeros_like(vision)
    protected[torch.as_tensor(key, dtype=torch.long) + BEFORE] = True
    made = TokenLedger(
        seq, vision, protected, [(side, side)], torch.arange(side**2),
        alive={layer: positions(places) for layer, places in enumerate(kept)},
        cached={layer: positions(places) for layer, places in enumerate(cached or kept)},
    )  # fmt: skip
    if groups is not None:
        cells = torch.tensor([group[-1] for group in groups])
        mix = torch.zeros(len(groups), side**2)
        for token, group in enumerate(groups):
            mix[token, list(group)] = 1 / len(group)
        made.sources.append(TokenSources(cells + BEFORE, cells, mix))
    return made


def look(places, share, largest, word):
    """What the text looked at, of the tokens in these places."""
    told = (np.asarray(share, np.float32), np.asarray(largest, np.float32))
    return TextAttention(np.asarray(places) + BEFORE, *told, np.asarray(word))


def picture(seed, side=48):
    """A WebP, no two alike."""
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST).save(out, "WEBP")
    return out.getvalue()


def limits(gamma, alpha):
    """What MustDrop adds to a trace: its thresholds in use."""
    given = {"gamma": gamma, "alpha": alpha}
    return {name: np.asarray(value) for name, value in given.items() if value is not None}


def life(side=4, seed=0):
    """A trace as MustDrop leaves it, 4 layers deep.

    The first four patches are merged, the last token is key; after layer 0 what fails both tests
    leaves, after layer 1 another; the last cache holds less.
    """
    rng = np.random.default_rng(seed)
    size = side**2
    window = (0, 1, side, side + 1)
    groups = [window, *((place,) for place in range(size) if place not in window)]
    groups.sort(key=lambda group: group[-1])  # a look is told in the order of the sequence
    tokens = [group[-1] for group in groups]
    share, largest = rng.uniform(0, 0.02, len(tokens)), rng.uniform(0, 0.02, len(tokens))
    gamma, alpha = 0.012, 0.015
    stays = (share > gamma) | (largest >= alpha) | (np.array(tokens) == size - 1)
    first = [token for token, kept in zip(tokens, stays, strict=True) if kept]
    second = first[1:]
    looks = {0: look(tokens, share, largest, rng.integers(0, 3, len(tokens)))}
    made = ledger(
        side, [tokens, first, second, second],
        cached=[tokens, first, second, second[1:]], groups=groups, key=[size - 1],
    )  # fmt: skip
    region = np.zeros((side, side), dtype=bool)
    region[1, 1:3] = True
    return Trace(
        made, looks, {}, ("▁what", "▁colour", "?"), limits(gamma, alpha), [picture(seed)], region
    )


def bare(side=4, seed=0):
    """A trace of a model that dropped nothing: a ledger and a picture."""
    return Trace(ledger(side, [range(side**2)] * 4), pictures=[picture(seed)])


def rewrite(folder, told):
    """Change what the samples of a run on disk say: ``told`` gives new fields of each line."""
    path = folder / "samples.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**line, **told(line)}) + "\n" for line in lines))


def stages(**names):
    """The config's entries of the stages."""
    return {stage: {"_target_": f"mustdrop.{stage}.x.{name}"} for stage, name in names.items()}


def traced_root(root, scores, traces=2, side=4, asked=None):
    """Vanilla, MustDrop and random over these scores, the first samples traced in the first two."""
    config = stages(vision="LocalMerge", prefill="DualAttention")
    folders = [
        write(root, "vanilla", "none", 576.0, scores[0]),
        write(root, "mustdrop", executed=193.0, scores=scores[1], config=config),
        write(root, "random", scores=scores[2], config=stages(prefill="RandomTokens")),
    ]
    for place, folder in enumerate(folders):
        made = [life(side, doc) if place else bare(side, doc) for doc in range(traces)]

        def told(line, made=made, place=place):
            doc = line["doc_id"]
            new = {"question": asked(doc) if asked else f"what colour is shape {doc} ?"}
            new["answer"] = line["target"] if line["scores"]["exact_match"] else f"wrong {doc}"
            if doc < len(made) and place < 2:
                new["vision_tokens"] = made[doc].ledger.vision_per_layer()
                new["resident_tokens"] = made[doc].ledger.resident_per_layer()
            return new

        rewrite(folder, told)
        if place < 2:
            for doc, trace in enumerate(made):
                path = trace_path(folder, doc)
                path.parent.mkdir(exist_ok=True)
                trace.save(path)
    return root
