"""Crops lie in their picture as the model has them; padding is cut off."""

import base64
import io

import numpy as np
import torch
from PIL import Image
from traced_runs import look, picture

from analysis.records.mosaics import crop_mosaics
from analysis.records.patches import NO_INDEX, patch_fates
from analysis.report.packing import PLANES
from analysis.report.tracing import SIDE, Traces
from mustdrop.ledger import TokenLedger, TokenSources
from mustdrop.runs.trace import Trace

ROWS, COLUMNS, R, C = 2, 3, 2, 2  # of patches in a crop, and of crops
SIZE = ROWS * COLUMNS


def layout():
    """Flat cell at each position of the mosaic: rows of four crops behind a small copy."""
    cells = np.empty((R * ROWS, C * COLUMNS), dtype=int)
    for row in range(R * ROWS):
        for column in range(C * COLUMNS):
            crop = row // ROWS * C + column // COLUMNS
            inside = row % ROWS * COLUMNS + column % COLUMNS
            cells[row, column] = (1 + crop) * SIZE + inside
    return cells


def book(shown=np.s_[1:, :-1], merged=()):
    """A small copy and four crops, whose first row and last column are padding.

    After layer 0 every third slot is dropped. In merged images the first token carries the second
    patch as well.
    """
    shown = torch.from_numpy(layout()[shown])
    newlines = torch.full((len(shown), 1), -1)
    cells = torch.cat([torch.arange(SIZE), torch.cat([shown, newlines], 1).flatten()])
    everything = torch.arange(len(cells) + 2)
    vision = everything < len(cells)
    kept = everything[~vision | (everything % 3 > 0)]
    made = TokenLedger(
        len(everything), vision, torch.zeros_like(vision), [(ROWS, COLUMNS)] * 5, cells,
        [(1, R, C)], alive={0: everything, 1: kept}, cached={0: kept, 1: kept},
    )  # fmt: skip
    made.protected[10] = True
    sources = []
    for image in range(5 if merged else 0):
        slots, present = made.image_tokens(image)[1:]
        keep = torch.tensor([0, *range(1 + (image in merged), len(slots))])
        mix = present[keep].float()
        mix[0] = present[: 1 + (image in merged)].any(0)
        sources.append(TokenSources(slots[keep], present.int().argmax(1)[keep], mix))
    made.sources = sources
    return made


def test_every_patch_of_a_mosaic_is_that_of_its_crop():
    made = book(merged=(2, 4))
    share = np.linspace(0.01, 0.02, int(made.vision.sum()))
    positions = made.vision.nonzero().flatten().numpy() - 3
    trace = Trace(made, {0: look(positions, share, share / 2, [1] * len(share))}, words=("a", "b"))
    (mosaic,) = crop_mosaics(made)
    assert list(mosaic.images) == [1, 2, 3, 4]
    joined = mosaic.fates(trace)
    assert joined.grid == (R * ROWS - 1, C * COLUMNS - 1) and joined.depth == 2
    crops = {image: patch_fates(trace, image) for image in range(1, 5)}
    assert joined.tokens == sum(crop.tokens for crop in crops.values())
    tokens = {}
    for patch, cell in enumerate(layout()[1:, :-1].flatten().tolist()):
        image, inside = divmod(cell, SIZE)
        for name in ("left", "carried", "key", "reason", "word", "resident"):
            assert getattr(joined, name)[patch] == getattr(crops[image], name)[inside]
        for name in ("share", "largest"):
            np.testing.assert_equal(
                getattr(joined, name)[patch], getattr(crops[image], name)[inside]
            )
        assert joined.token[patch] != NO_INDEX
        tokens.setdefault(int(joined.token[patch]), set()).add(
            (image, int(crops[image].token[inside]))
        )
    assert all(len(same) == 1 for same in tokens.values())
    assert len(tokens) == joined.tokens == 15 - 2  # no two crops share a number


def test_no_patch_is_cut_off_without_padding():
    made = book(np.s_[:, :])
    (mosaic,) = crop_mosaics(made)
    assert mosaic.fates(Trace(made)).grid == (R * ROWS, C * COLUMNS)


def crop(cells):
    """A lossless picture whose patches of 4 x 4 pixels have the numbers of their cells."""
    values = np.kron(cells, np.ones((4, 4))).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(values).convert("RGB").save(out, "WEBP", lossless=True)
    return out.getvalue()


def test_the_picture_of_a_mosaic_has_its_crops_in_place():
    cells = np.arange(5 * SIZE).reshape(5, ROWS, COLUMNS)
    made = book()
    (mosaic,) = crop_mosaics(made)
    shown = mosaic.picture(Trace(made, pictures=[crop(part) for part in cells]))
    assert np.asarray(shown)[::4, ::4, 0].tolist() == layout()[1:, :-1].tolist()
    assert shown.size == (4 * 5, 4 * 3)


def test_the_page_shows_the_small_copy_and_the_crops_in_place():
    made = book()
    traces = Traces()
    shown = traces._shown(Trace(made, pictures=[picture(seed) for seed in range(5)]))
    assert shown is not None
    assert shown["slots"] == SIZE + 3 * 6
    assert [image["label"] for image in shown["images"]] == ["whole image", "crops in place"]
    assert [image["grid"] for image in shown["images"]] == [(2, 3), (3, 5)]
    assert [image["start"] for image in shown["images"]] == [0, SIZE * len(PLANES)]
    assert [image["tokens"] for image in shown["images"]] == [6, 15]
    assert [image["picture"] for image in shown["images"]] == [0, 1]
    again = traces._shown(Trace(made, pictures=[picture(seed) for seed in range(5)]))
    assert again is not None and len(traces.pictures) == 2
    bare = traces._shown(Trace(made))
    assert bare is not None and [image["picture"] for image in bare["images"]] == [None, None]


def test_a_mosaic_has_as_many_pixels_per_patch_as_a_picture():
    made, traces = book(), Traces()
    heavy = np.random.default_rng(0).integers(0, 255, (336, 336, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(heavy).save(out, "WEBP")
    traces._shown(Trace(made, pictures=[out.getvalue()] * 5))
    sizes = [Image.open(io.BytesIO(base64.b64decode(text))).size for text in traces.pictures]
    assert sizes == [(SIDE, SIDE), (2 * SIDE, round(2 * SIDE * 504 / 560))]


def test_mosaics_survive_the_disk(tmp_path):
    made = book()
    Trace(made).save(tmp_path / "0.npz")
    read = Trace.load(tmp_path / "0.npz").ledger
    assert read.mosaics == made.mosaics == [(1, R, C)]
    made.mosaics = []
    Trace(made).save(tmp_path / "1.npz")
    assert Trace.load(tmp_path / "1.npz").ledger.mosaics == ()
