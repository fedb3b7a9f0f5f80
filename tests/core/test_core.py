"""Small laws of the core's nouns: functions of tensors, reductions, ledgers, layouts."""

import subprocess
import sys

import pytest
import torch
from droppers import DROPPERS
from hypothesis import given, settings
from hypothesis import strategies as st
from models import batch, greedy, prompt, tiny_llava

from mustdrop import Reduction, TokenLedger
from mustdrop.engine.layout import Masks, Prompt
from mustdrop.engine.prompt_vision import PromptVision
from mustdrop.functional import (
    attention_rows,
    even_cells,
    stable_seed,
    top_keep,
    window_similarity,
    windows,
)


def test_top_keep_is_in_sequence_order_and_ties_go_to_the_earlier():
    score = torch.tensor([1.0, 3.0, 3.0, 2.0, 3.0])
    assert top_keep(score, 2).tolist() == [1, 2]
    assert top_keep(score, 0).tolist() == []
    assert top_keep(score, 5).tolist() == [0, 1, 2, 3, 4]
    protected = torch.tensor([True, False, False, False, False])
    assert top_keep(score, 2, protected).tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"\[0, 5\], got 6"):
        top_keep(score, 6)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_rows_are_rows_of_the_whole_map(kv_heads):
    query, key = torch.randn(4, 11, 8), torch.randn(kv_heads, 11, 8)
    wide = key.repeat_interleave(4 // kv_heads, 0)
    mask = torch.ones(11, 11, dtype=torch.bool).tril()
    whole = (query @ wide.transpose(1, 2) * 0.3).masked_fill(~mask, -torch.inf).softmax(-1)
    torch.testing.assert_close(attention_rows(query[:, 6:], key, 0.3, 6), whole[:, 6:])
    torch.testing.assert_close(attention_rows(query[:, 10:], key, 0.3, 10), whole[:, 10:])
    where = torch.tensor([9, 4, 7])
    picked = attention_rows(query[:, where], key, 0.3, 4, where)
    torch.testing.assert_close(picked, whole[:, where])
    free = (query @ wide.transpose(1, 2) * 0.3).softmax(-1)
    torch.testing.assert_close(attention_rows(query[:, :1], key, 0.3), free[:, :1])


def test_windows_cover_the_grid_once():
    index = windows(6, 9, 3)
    assert index.shape == (6, 9)
    assert sorted(index.flatten().tolist()) == list(range(54))
    assert index[1].tolist() == [3, 4, 5, 12, 13, 14, 21, 22, 23]
    with pytest.raises(ValueError, match="5x5 does not divide the grid of 6x9"):
        windows(6, 9, 5)


def test_window_similarity_of_equal_patches_is_one():
    hidden = torch.randn(1, 7).repeat(16, 1)
    index = windows(4, 4, 2)
    torch.testing.assert_close(window_similarity(hidden, index), torch.ones(4))
    torch.testing.assert_close(window_similarity(hidden, index, "sum"), torch.full((4,), 12.0))


@given(st.integers(1, 30), st.integers(1, 30), st.data())
@settings(max_examples=60, deadline=None)
def test_even_cells_are_exactly_as_many_as_asked(height, width, data):
    keep = data.draw(st.integers(0, height * width))
    cells = even_cells(height, width, keep).tolist()
    assert len(set(cells)) == keep
    assert all(0 <= cell < height * width for cell in cells)
    rows = [cell // width for cell in cells]
    filled = [rows.count(row) for row in set(rows)]
    assert not filled or max(filled) - min(filled) <= 1


def test_seeds_do_not_change_from_process_to_process():
    assert stable_seed(0, "a", 3) == 3441879770363169885
    assert stable_seed(0, "a", 3) != stable_seed(0, "a", 4)


@given(st.integers(2, 12), st.data())
@settings(max_examples=60, deadline=None)
def test_reductions_compose(tokens, data):
    def draw(n: int) -> Reduction:
        keep = torch.tensor(data.draw(st.permutations(range(n)))[: data.draw(st.integers(1, n))])
        if data.draw(st.booleans()):
            return Reduction(keep)
        return Reduction(keep, torch.rand(len(keep), n).softmax(-1))

    first = draw(tokens)
    second = draw(len(first))
    x = torch.randn(tokens, 3)
    both = first.then(second, tokens)
    torch.testing.assert_close(both(x), second(first(x)))
    assert torch.equal(both.keep, first.keep[second.keep])
    torch.testing.assert_close(both.weights(tokens) @ x, both(x))


def test_a_selection_is_exact_to_the_bit():
    x = torch.randn(9, 4)
    keep = torch.tensor([7, 2, 2])
    assert torch.equal(Reduction(keep)(x), x[keep])


def make_prompt(runs: list[tuple[int, int]], length: int) -> Prompt:
    """A prompt whose vision tokens stand in the given (start, length) runs."""
    vision = torch.zeros(length, dtype=torch.bool)
    label = []
    for number, (start, count) in enumerate(runs):
        vision[start : start + count] = True
        label += [number] * count
    where = vision.nonzero().flatten()
    single = len(runs) == 1
    return Prompt(
        ledger=TokenLedger(length, vision, torch.zeros_like(vision)),
        alive=torch.arange(length),
        position=torch.arange(length),
        vision=slice(runs[0][0], runs[0][0] + runs[0][1]) if single else where,
        segment=torch.tensor(label),
        cells=torch.arange(len(where)),
        sizes=torch.ones(len(where)),
        protected=torch.zeros(len(where), dtype=torch.bool),
        other_count=length - len(where),
        trailing_text=length - 1 - int(where[-1]),
        shown=PromptVision([], [], [], torch.arange(len(where))),
        first=torch.tensor(0),
        last=torch.tensor(length - 1),
    )


def test_survivors_close_ranks_within_their_run_in_the_given_order():
    prompt = make_prompt([(2, 3), (6, 4)], 12)
    gather = prompt.reduce(Reduction(torch.tensor([6, 2, 3, 0])), compact=False)
    assert gather.tolist() == [0, 1, 4, 2, 5, 9, 6, 10, 11]
    assert prompt.alive.tolist() == gather.tolist()
    assert prompt.vision.tolist() == [2, 3, 5, 6]
    assert prompt.cells.tolist() == [2, 0, 6, 3]
    gather = prompt.reduce(Reduction(torch.tensor([3])), compact=True)
    assert prompt.alive.tolist() == [0, 1, 5, 6, 10, 11]
    assert prompt.position.tolist() == [0, 1, 2, 3, 4, 5]
    assert prompt.recounted and int(prompt.last) == 11


@given(st.integers(0, 4), st.integers(1, 9), st.integers(1, 4), st.data())
@settings(max_examples=60, deadline=None)
def test_one_run_is_no_special_case(before, count, after, data):
    length = before + count + after
    short = make_prompt([(before, count)], length)
    long = make_prompt([(before, count)], length)
    long.vision = long.vision_index()
    for _ in range(2):
        keep = data.draw(st.permutations(range(short.vision_count)))
        keep = torch.tensor(keep[: data.draw(st.integers(0, short.vision_count))], dtype=torch.long)
        compact = data.draw(st.booleans())
        assert torch.equal(
            short.reduce(Reduction(keep), compact), long.reduce(Reduction(keep), compact)
        )
        for name in ("alive", "position", "cells", "protected"):
            assert torch.equal(getattr(short, name), getattr(long, name))
        assert torch.equal(short.vision_index(), long.vision)
        assert torch.equal(
            short.alive[short.vision_in(short.alive)], long.alive[long.vision_in(long.alive)]
        )


def test_a_ledger_survives_the_disk(tmp_path):
    model = tiny_llava()
    dropper = DROPPERS["all_stages"]
    with dropper.attach(model) as run:
        greedy(model, batch(prompt(model, flat=0.5), prompt(model, images=2, seed=5)))
    for number, ledger in enumerate(run.ledgers):
        path = tmp_path / f"{number}.npz"
        ledger.save(path)
        read = TokenLedger.load(path)
        assert read.counts() == ledger.counts()
        assert read.encoder == ledger.encoder and read.scored_rows == ledger.scored_rows
        assert torch.equal(read.protected, ledger.protected)
        assert read.grids == ledger.grids and torch.equal(read.cells, ledger.cells)
        for layer, alive in ledger.alive.items():
            assert torch.equal(read.alive[layer], alive)
            assert torch.equal(read.cached[layer], ledger.cached[layer])
        for mine, theirs in zip(read.sources, ledger.sources, strict=True):
            assert torch.equal(mine.slots, theirs.slots) and torch.equal(mine.cells, theirs.cells)
            assert (mine.mix is None) == (theirs.mix is None)
            assert mine.mix is None or torch.equal(mine.mix, theirs.mix)


def test_counts_are_told_four_ways():
    """36 tokens, 20 left after layer 1, 12 after layer 3; the cache keeps 12 from layer 2."""
    entered, resident = [36, 36, 20, 20, 12, 12], [36, 36, 12, 12, 12, 12]
    vision = torch.zeros(46, dtype=torch.bool)
    vision[3:39] = True
    text = torch.cat([torch.arange(3), torch.arange(39, 46)])
    ledger = TokenLedger(46, vision, torch.zeros_like(vision))
    for layer, (now, cached) in enumerate(zip(entered, resident, strict=True)):
        ledger.alive[layer] = torch.cat([text, torch.arange(3, 3 + now)])
        ledger.cached[layer] = torch.cat([text, torch.arange(3, 3 + cached)])
    counts = ledger.counts(nominal=16.0)
    assert counts.nominal == 16
    assert counts.executed_average == sum(entered) / 6
    assert counts.paper_average == (36 + 20 + 20 + 12 + 12 + 12) / 6
    assert counts.resident == sum(resident) / 6
    assert {k: len(v) for k, v in ledger.dropped_after().items()} == {1: 16, 3: 8}
    with pytest.raises(ValueError, match="ledger is empty"):
        TokenLedger(46, vision, vision).counts()


def test_sources_partition_the_patches():
    model = tiny_llava()
    with DROPPERS["local_merge"].attach(model) as run:
        greedy(model, prompt(model, flat=0.5))
    source = run.ledgers[0].sources[0]
    assert source.mix is not None
    torch.testing.assert_close(source.mix.sum(1), torch.ones(len(source.cells)))
    assert ((source.mix > 0).sum(0) == 1).all()  # every patch lives in exactly one token
    assert torch.equal(source.slots - 3, source.cells)


def test_scores_are_kept_when_asked_for():
    from dataclasses import replace

    model = tiny_llava()
    dropper = replace(DROPPERS["all_stages"], log_scores=True)
    with dropper.attach(model) as run:
        greedy(model, prompt(model, flat=0.5))
    ledger = run.ledgers[0]
    assert {k: len(v) for k, v in ledger.scores.items()} == {
        layer: ledger.vision_per_layer()[layer] for layer in (1, 3)
    }


def test_masks_take_the_form_that_each_attention_wants():
    """Two prompts of 3 and 5 tokens, padded on the left."""
    like = torch.zeros(2, 5, 4, dtype=torch.float16)
    seen = torch.ones(2, 5, 5, dtype=torch.bool).tril()
    seen[0, :, :2] = False
    seen |= torch.eye(5, dtype=torch.bool)
    sdpa = Masks(eager=False, flash=False)
    assert sdpa.prefill([0, 0], 5, like) is None  # its own causal path
    assert torch.equal(sdpa.prefill([2, 0], 5, like), seen[:, None])
    assert sdpa.decode([0, 0], 6, 1, like) is None
    one = sdpa.decode([2, 0], 6, 1, like)
    assert one[:, 0, 0].tolist() == [[False] * 2 + [True] * 4, [True] * 6]
    several = sdpa.decode([2, 0], 6, 2, like)  # the first of two new tokens does not see the second
    assert several[0, 0].tolist() == [
        [False] * 2 + [True] * 3 + [False],
        [False] * 2 + [True] * 4,
    ]
    assert sdpa.decode([0, 0], 6, 2, like)[1, 0].tolist() == [[True] * 5 + [False], [True] * 6]
    eager = Masks(eager=True, flash=False)
    assert torch.equal(eager.prefill([2, 0], 5, like) == 0, seen[:, None])
    assert eager.prefill([2, 0], 5, like).dtype == torch.float16
    assert eager.prefill([0, 0], 5, like).shape == (2, 1, 5, 5)
    flash = Masks(eager=False, flash=True)
    assert flash.prefill([0, 0], 5, like) is None
    assert flash.prefill([2, 0], 5, like).tolist() == [[False] * 2 + [True] * 3, [True] * 5]
    assert (
        flash.decode([2, 0], 6, 1, like).shape == flash.decode([2, 0], 6, 2, like).shape == (2, 6)
    )
    assert flash.decode([0, 0], 6, 2, like) is None  # its own causal path


def test_public_names_are_fetched_when_asked_for():
    import mustdrop

    for name in mustdrop.__all__:
        assert getattr(mustdrop, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        mustdrop.Nothing  # noqa: B018
    code = "import sys, mustdrop, mustdrop.runs.folder; print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
