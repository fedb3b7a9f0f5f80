"""Traces of made-up videos: frames of a few patches, in runs on disk."""

import torch
from results import write
from traced_runs import BEFORE, BEHIND, picture, rewrite

from mustdrop.ledger import OFF_GRID, TokenLedger, TokenSources
from mustdrop.runs.folder import trace_path
from mustdrop.runs.trace import Trace

FRAMES, GRID = 3, (2, 4)
SIZE = GRID[0] * GRID[1]


def video_ledger(
    *kept, frames=FRAMES, grid=GRID, with_cls=True, cached=None, groups=(), key=(), before=0
):
    """A prompt with a video; each layer gets the patches at these flat places of all frames.

    The [CLS] of every frame stays. ``groups`` are patches that one token of the first frame
    carries, in the place of the last one; ``before`` is the number of images in front.
    """
    size = grid[0] * grid[1]
    cells = torch.arange((before + frames) * size).view(before + frames, size)
    slots = [*cells[:before].flatten().tolist()]
    for frame in cells[before:].tolist():
        slots += [OFF_GRID, *frame] if with_cls else frame
    slots = torch.tensor(slots)
    seq = BEFORE + len(slots) + BEHIND
    vision = torch.zeros(seq, dtype=torch.bool)
    vision[BEFORE:-BEHIND] = True
    where = {int(cell): BEFORE + at for at, cell in enumerate(slots.tolist()) if cell >= 0}
    always = [at for at in range(seq) if not vision[at]]
    always += [BEFORE + at for at, cell in enumerate(slots.tolist()) if cell < 0]

    def positions(places):
        return torch.tensor(sorted(always + [where[before * size + place] for place in places]))

    protected = torch.zeros(seq, dtype=torch.bool)
    protected[[where[before * size + place] for place in key]] = True
    made = TokenLedger(
        seq, vision, protected, [grid] * (before + frames), slots,
        videos=[(before, frames)],
        alive={layer: positions(places) for layer, places in enumerate(kept)},
        cached={layer: positions(places) for layer, places in enumerate(cached or kept)},
    )  # fmt: skip
    if groups:
        for image in range(before + frames):
            own = list(groups) if image == before else []
            merged = {patch for group in own for patch in group[:-1]}
            tokens = [*own, *((p,) for p in range(size) if p not in {x for g in own for x in g})]
            tokens.sort(key=lambda group: group[-1])
            stands = torch.tensor([group[-1] for group in tokens])
            mix = torch.zeros(len(tokens), size)
            for token, group in enumerate(tokens):
                mix[token, list(group)] = 1 / len(group)
            assert len(tokens) == size - len(merged)
            at = torch.tensor([where[image * size + int(cell)] for cell in stands])
            made.sources.append(TokenSources(at, stands, mix))
    return made


ALL = tuple(range(FRAMES * SIZE))


def last_frame(layers=3):
    """A method that keeps the last frame alone, from layer 1 on."""
    return video_ledger(ALL, *[ALL[-SIZE:]] * (layers - 1))


def filtered():
    """Merged in the first frame, with a key token; after layer 0 few tokens of each frame stay."""
    tokens = [place for place in ALL if place not in (0, 1)]
    left = (2, SIZE - 1, SIZE + 3, 2 * SIZE, 2 * SIZE + 1)
    return video_ledger(
        tokens, left, left, cached=[tokens, left, left[1:]], groups=((0, 1, 2),), key=(2,)
    )


def pictured(ledger, seed=0):
    """A trace with a picture of every encoded image."""
    return Trace(ledger, pictures=[picture(seed + n) for n in range(len(ledger.grids))])


def write_videos(root, shown=FRAMES, ledgers=None, **more):
    """Runs of Video-LLaVA's shape whose first samples are traced: vanilla, and a method each."""
    made = ledgers or {"mustdrop": [filtered()] * 2, "keep_last": [last_frame()] * 2}
    config = {"model": {"name": "video_llava_7b", "frames": shown}, **more.pop("config", {})}
    folders = [write(root, "vanilla", "none", 576.0, config=config, **more)]
    for number, (method, traces) in enumerate(made.items()):
        folder = write(root, method, config=config, **more)
        folders.append(folder)
        for doc, ledger in enumerate(traces):
            path = trace_path(folder, doc)
            path.parent.mkdir(exist_ok=True)
            pictured(ledger, 10 * number).save(path)

        def of_trace(line, traces=traces):
            if line["doc_id"] >= len(traces):
                return {}
            ledger = traces[line["doc_id"]]
            return {
                "vision_tokens": ledger.vision_per_layer(),
                "resident_tokens": ledger.resident_per_layer(),
            }

        rewrite(folder, of_trace)
    return folders
