import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from analysis.figures import overlays
from analysis.figures.overlays import draw, figure, panels
from analysis.figures.pictures import outline
from analysis.figures.style import BLACK
from analysis.records.fates import fates
from mustdrop.ledger import TokenLedger, TokenSources

BEFORE, SIDE, BEHIND = 3, 4, 2  # text tokens, a grid of 4 x 4 patches, text tokens
SEQ = BEFORE + SIDE**2 + BEHIND


def ledger(*kept, cached=None, images=1, sources=(), key=()):
    """A prompt of which the vision tokens at these places (from 0) enter each layer."""
    vision = torch.zeros(SEQ + (images - 1) * SIDE**2, dtype=torch.bool)
    vision[BEFORE:-BEHIND] = True
    text = torch.arange(len(vision))[~vision]

    def positions(places):
        return torch.cat([text, torch.as_tensor(places, dtype=torch.long) + BEFORE]).sort().values

    protected = torch.zeros_like(vision)
    protected[torch.as_tensor(key, dtype=torch.long) + BEFORE] = True
    return TokenLedger(
        len(vision), vision, protected, [(SIDE, SIDE)] * images, torch.arange(images * SIDE**2),
        alive={layer: positions(places) for layer, places in enumerate(kept)},
        cached={layer: positions(places) for layer, places in enumerate(cached or kept)},
        sources=list(sources),
    )  # fmt: skip


def source(*groups):
    """Tokens that carry these patches each, standing in the place of the last one."""
    cells = torch.tensor([group[-1] for group in groups])
    mix = torch.zeros(len(groups), SIDE**2)
    for token, group in enumerate(groups):
        mix[token, list(group)] = 1 / len(group)
    return TokenSources(cells + BEFORE, cells, mix)


def where(mask):
    return np.flatnonzero(mask).tolist()


def picture():
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))


ALL = list(range(16))


def test_without_sources_slots_are_the_raster_grid():
    life = fates(ledger(ALL, ALL, [0, 5, 15]))
    assert [(drop.first, drop.last, drop.before, drop.left) for drop in life.drops] == [
        (1, 1, 16, 3)
    ]
    assert where(life.drops[0].alive) == [0, 5, 15]
    assert where(life.drops[0].dropped) == [i for i in ALL if i not in (0, 5, 15)]
    assert life.arrived.all() and not life.merged and life.tokens == 16


def test_a_drop_before_the_first_layer_is_one():
    life = fates(ledger([3, 4], [4]))
    assert [(drop.first, drop.left) for drop in life.drops] == [(-1, 2), (0, 1)]
    assert where(life.drops[1].dropped) == [3]


def test_a_merged_token_takes_all_its_patches_along():
    window, rest = (0, 1, 4, 5), [(i,) for i in ALL if i not in (0, 1, 4, 5)]
    tokens = source(window, *rest)
    life = fates(ledger([5, 6, 7], [6, 7], sources=[tokens]))
    assert life.merged == (window,)
    assert life.arrived.all() and life.tokens == 13
    assert where(life.drops[1].dropped) == [0, 1, 4, 5]
    assert where(life.drops[1].alive) == [6, 7]


def test_a_patch_lives_as_long_as_one_of_its_tokens():
    tokens = source((0, 1, 2), (2, 3))
    life = fates(ledger([2, 3], [3], [], sources=[tokens]))
    assert where(life.arrived) == [0, 1, 2, 3]
    assert [where(drop.dropped) for drop in life.drops] == [[0, 1], [2, 3]]


def test_patches_that_no_token_carries_were_dropped_by_the_encoder():
    kept = torch.tensor([2, 9])
    tokens = TokenSources(kept + BEFORE, kept)
    life = fates(ledger([2, 9], [2, 9], sources=[tokens]))
    assert where(life.arrived) == [2, 9] and not life.drops and not life.merged


def test_key_tokens_mark_the_patches_they_carry():
    tokens = source((0, 1, 4, 5), (7,), (8,))
    assert where(fates(ledger([5, 7, 8], sources=[tokens], key=[5, 8])).key) == [0, 1, 4, 5, 8]
    assert where(fates(ledger(ALL, key=[3])).key) == [3]


def test_residents_are_a_share_of_the_layers():
    life = fates(ledger(ALL, ALL, ALL, ALL, cached=[ALL, [1, 2], [1], [1]]))
    assert life.resident.flat[[0, 1, 2]].tolist() == [0.25, 1.0, 0.5]
    assert life.resident_tokens == (16 + 2 + 1 + 1) / 4
    assert where(life.end) == ALL


def test_many_drops_are_joined_and_lose_no_patch():
    kept = [list(range(16 - layer)) for layer in range(15)]
    every, few = fates(ledger(*kept), most_drops=99).drops, fates(ledger(*kept), most_drops=3).drops
    assert len(every) == 14 and len(few) == 3
    assert [(few[0].first, few[-1].last)] == [(every[0].first, every[-1].last)]
    assert sorted(place for drop in few for place in where(drop.dropped)) == list(range(2, 16))
    assert all(a.left == b.before for a, b in itertools.pairwise(few))


def test_the_images_of_a_prompt_are_told_apart():
    second = [16 + place for place in (1, 2)]
    record = ledger([*ALL, *range(16, 32)], [0, *second], images=2)
    assert where(fates(record, 0).drops[0].alive) == [0]
    assert where(fates(record, 1).drops[0].alive) == [1, 2]
    with pytest.raises(ValueError, match=r"image must be in \[0, 2\), got 2"):
        fates(record, 2)


def test_an_empty_ledger_and_a_missing_image_are_refused():
    with pytest.raises(ValueError, match="run a prefill"):
        fates(ledger())
    with pytest.raises(ValueError, match=r"image must be in \[0, 1\), got 1"):
        fates(ledger([0], sources=[source((0,))]), 1)
    with pytest.raises(ValueError, match="most_drops"):
        fates(ledger(ALL), most_drops=0)


def test_a_stored_ledger_has_the_same_fates(tmp_path):
    tokens = source((0, 1, 4, 5), (7,), (8,))
    record = ledger([5, 7, 8], [7, 8], sources=[tokens], key=[8])
    record.save(tmp_path / "x.npz")
    for name, value in vars(fates(TokenLedger.load(tmp_path / "x.npz"))).items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(value, getattr(fates(record), name)), name
    assert where(fates(TokenLedger.load(tmp_path / "x.npz")).drops[0].dropped) == [0, 1, 4, 5]


def test_a_panel_for_each_stage_that_did_something():
    tokens = source((0, 1, 4, 5), *((i,) for i in ALL if i not in (0, 1, 4, 5)))
    record = ledger(
        [5, *ALL[6:]], [5, *ALL[6:]], [7, 8], cached=[[7, 8]] * 3, sources=[tokens], key=[8]
    )
    shown = panels(picture(), fates(record))
    assert [panel.title.split("\n")[0] for panel in shown] == [
        "picture", "encoder: 16 → 13 tokens", "key tokens", "before layer 0", "after layer 1",
        "KV cache while decoding",
    ]  # fmt: skip
    assert shown[4].title.endswith("11 − 9 = 2 tokens")
    assert len(shown[1].outlines) == 1 and where(shown[1].outlines[0]) == [0, 1, 4, 5]
    assert len(panels(picture(), fates(ledger(ALL)))) == 2


def test_what_is_alive_keeps_its_pixels_and_what_is_gone_loses_its_colour():
    shown = panels(picture(), fates(ledger(ALL, [0, 1], [0])))
    pixels = np.asarray(picture()) / 255
    cell = np.arange(32) // 8
    patch = cell[:, None] * 4 + cell
    second = shown[2].picture
    assert np.array_equal(second[patch == 0], pixels[patch == 0])
    now, before = second[patch == 1], second[patch == 2]
    assert np.ptp(before, axis=1).max() < 0.01  # grey
    assert (now[:, 0] - now[:, 2]).min() > 0.3  # vermilion
    assert now[:, 0].std() > before[:, 0].std()  # what was there can still be seen


def test_an_outline_has_the_sides_that_a_patch_does_not_share():
    mask = np.zeros((4, 4), dtype=bool)
    mask[1:3, 1:3] = True
    edges = {tuple(map(tuple, edge)) for edge in outline(mask)}
    assert len(edges) == 8 and ((1, 1), (2, 1)) in edges and ((2, 1), (2, 2)) not in edges
    assert len(outline(np.ones((4, 4), dtype=bool))) == 16
    assert len(outline(np.zeros((4, 4), dtype=bool))) == 0


def test_the_same_ledger_gives_the_same_file_and_another_another(tmp_path):
    told = {"title": "t", "question": "q ?", "answer": "no", "target": "yes"}
    for name, kept in (("a", [0, 1]), ("b", [0, 1]), ("c", [0, 2])):
        draw(picture(), ledger(ALL, kept), tmp_path / "new" / f"{name}.png", **told)
    a, b, c = ((tmp_path / "new" / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_the_head_says_whether_the_answer_is_right(monkeypatch, tmp_path):
    heads = []
    monkeypatch.setattr(
        overlays, "figure", lambda shown, lines, region: heads.append(lines) or figure(shown, lines)
    )
    for answer in ("Yes ", "no"):
        draw(picture(), ledger(ALL), tmp_path / "x.png", question="q", answer=answer, target="yes")
    assert [text for text, _ in heads[0]] == ["q", "answer: “Yes ”, right"]
    assert [text for text, _ in heads[1]] == ["q", "answer: “no”, expected “yes”"]
    assert heads[0][1][1] != heads[1][1][1]


def test_the_region_of_the_answer_is_outlined_in_every_panel():
    shown = panels(picture(), fates(ledger(ALL, [3])))
    for region, lines in ((None, 0), (np.eye(4, dtype=bool), 16)):
        canvas = figure(shown, [("", BLACK)], region)
        counts = [sum(len(c.get_segments()) for c in place.collections) for place in canvas.axes]
        assert counts == [2 * lines] * 3  # a light line under each dark one
