"""What runs beside a method keeps as many tokens in every layer of every sample, and others."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from fake_views import cache_view, prefill_view
from lmms_eval import evaluator
from lmms_eval.tasks import TaskManager
from untimed import untimed

from experiments.run import run
from mustdrop import TokenDropper
from mustdrop.checkpoint import Checkpoint
from mustdrop.decode.output_aware import OutputAware
from mustdrop.decode.scheduled import ScheduledCache
from mustdrop.evaluation import lmms
from mustdrop.evaluation import token_controls as module
from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.evaluation.tasks.pocket_vqa import PocketVQA
from mustdrop.evaluation.token_controls import Controls
from mustdrop.prefill.dual_attention import DualAttention
from mustdrop.prefill.random import Random
from mustdrop.prefill.scheduled_grid import ScheduledGrid
from mustdrop.prefill.scheduled_random import ScheduledRandom
from mustdrop.prefill.uniform_grid import UniformGrid
from mustdrop.presets.compose import composed, resolved
from mustdrop.runs.folder import read_samples, run_folder
from mustdrop.strategy import ModelFacts
from mustdrop.vision.cls_topk import ClsTopK

SPLIT = "crowded_test"
STANDARD = Controls("standard", (0, 1, 2), (0, 1), True)
FACTS = ModelFacts(depth=4, blocks=2, grid=(4, 4), has_cls=True, feature_block=0)


@pytest.fixture(scope="module")
def pocket():
    return Checkpoint("pocket", "packaged", layers=12, vision_tokens=576, merging_blocks=3).load(
        "cpu"
    )


def mustdrop(**chosen):
    """The method of the presets, as the command line builds it."""
    from hydra.utils import instantiate

    return replace(instantiate(composed("method=mustdrop", "budget=t64").dropper), **chosen)


def evaluated(pocket, dropper, limit=5, batch_size=5, controls=STANDARD, task=None, passes=None):
    """The samples; with ``passes``, the dropper and ledgers of each pass go there."""
    samples = []
    adapter = DroppedVLM(
        *pocket, dropper, batch_size=batch_size, on_sample=samples.append, controls=controls
    )
    if passes is not None:
        adapter._pass = noted(adapter._pass, passes)
    evaluator.simple_evaluate(
        model=adapter, tasks=[task or PocketVQA("pocket_vqa", SPLIT)],
        task_manager=TaskManager("ERROR", include_defaults=False), limit=limit,
        bootstrap_iters=0, process_docs_parallel=1,
    )  # fmt: skip
    return samples


def noted(made, passes):
    def wrapped(dropper, *args):
        passed = made(dropper, *args)
        passes.append((dropper, passed.ledgers))
        return passed

    return wrapped


def alive(ledgers):
    return [[ledger.alive[layer].tolist() for layer in range(12)] for ledger in ledgers]


def test_counts_are_the_methods_own_in_every_layer_of_every_sample(pocket):
    """MustDrop's differ from sample to sample, so the batch is ragged in every layer."""
    passes = []
    filters = DualAttention(gamma=4e-3, alpha=3e-3, layers=(0, 2, 3, 5))
    ragged = mustdrop(key_tokens=None, prefill=filters, decode=OutputAware(from_layer=1))
    evaluated(pocket, ragged, passes=passes)
    (_, own), *others = passes
    assert len(others) == 3 + 2 + 1
    entered = [ledger.vision_per_layer() for ledger in own]
    resident = [ledger.resident_per_layer() for ledger in own]
    assert all(len(set(column)) > 1 for column in zip(*entered, strict=True))
    assert max(len(set(counts)) for counts in entered) > 3 and entered != resident
    for dropper, ledgers in others[:3]:
        assert [ledger.vision_per_layer() for ledger in ledgers] == entered
        assert [ledger.resident_per_layer() for ledger in ledgers] == resident
        assert dropper.vision is dropper.key_tokens is None
        for ledger in ledgers:
            last = set(ledger.alive[11].tolist())
            assert all(last <= {*ledger.cached[layer].tolist()} for layer in range(1, 12))
    for dropper, ledgers in others[3:]:
        assert dropper.decode is None
        for ledger, counts in zip(ledgers, entered, strict=True):
            assert ledger.vision_per_layer() == [round(sum(counts) / 12)] * 12
            assert ledger.resident_per_layer() == ledger.vision_per_layer()


def test_seeds_differ_and_repeat(pocket):
    first, again = [], []
    evaluated(pocket, mustdrop(), passes=first)
    evaluated(pocket, mustdrop(), passes=again)
    told = [alive(ledgers) for _, ledgers in first]
    assert told == [alive(ledgers) for _, ledgers in again]
    assert all(a != b for place, a in enumerate(told) for b in told[:place])
    # one layer's draw is another than the next one's, and each sample's another
    ledgers = first[1][1]
    assert ledgers[0].alive[0].tolist()[:40] != ledgers[1].alive[0].tolist()[:40]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_changes_nothing(pocket, batch_size):
    def told(size):
        return [*map(untimed, evaluated(pocket, mustdrop(), batch_size=size))]

    assert told(batch_size) == told(5)


def test_beside_a_method_that_drops_before_the_first_layer_stands_random_itself(pocket):
    """Schedule, flat and the random method: one draw, the same answers."""
    chosen = {"vision_positions": "compact"}
    samples = evaluated(pocket, TokenDropper(vision=ClsTopK(keep=60), **chosen))
    alone = TokenDropper(prefill=Random(keep=60, seed=1), **chosen)
    grid = TokenDropper(prefill=UniformGrid(keep=60), **chosen)
    expected = [line["answer"] for line in evaluated(pocket, alone, controls=None)]
    for kind in ("schedule_random", "flat_random"):
        found = [line["controls"][kind][1] for line in samples]
        assert [arm["seed"] for arm in found] == [1] * 5
        assert [arm["answer"] for arm in found] == expected
    expected = [line["answer"] for line in evaluated(pocket, grid, controls=None)]
    assert [line["controls"]["flat_grid"][0]["answer"] for line in samples] == expected


def test_a_flat_schedule_is_run_once(pocket):
    """The method, three schedules, the grid; the two flat draws are among the schedules."""
    flat, stepped = [], []
    evaluated(pocket, TokenDropper(vision=ClsTopK(keep=60)), passes=flat)
    evaluated(pocket, mustdrop(), passes=stepped)
    assert (len(flat), len(stepped)) == (1 + 3 + 1, 1 + 3 + 2 + 1)


def test_controls_change_nothing_of_the_method(pocket):
    def told(controls):
        samples = map(untimed, evaluated(pocket, mustdrop(), controls=controls))
        return [{k: v for k, v in line.items() if k != "controls"} for line in samples]

    assert told(None) == told(STANDARD)
    assert "controls" not in evaluated(pocket, mustdrop(), 1, controls=None)[0]


def test_the_methods_seconds_are_its_own(pocket, monkeypatch):
    """By a clock that a pass of the method moves by 1 and one of a control by 100."""
    now, made = [0.0], DroppedVLM._pass

    def timed(adapter, dropper, batch, inputs, known, arm=None):
        now[0] += 1 if arm is None else 100
        return made(adapter, dropper, batch, inputs, known, arm)

    monkeypatch.setattr(DroppedVLM, "_pass", timed)
    monkeypatch.setattr(lmms, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    for line in evaluated(pocket, mustdrop(), 4, 2):
        assert (line["model_seconds"], line["controls_seconds"]) == (1 / 2, 600 / 2)
        assert line["seconds"] == line["model_seconds"] + line["processor_seconds"]


def test_positions_are_counted_by_the_methods_own_rules(pocket):
    rules = {"positions": "compact", "vision_positions": "original"}
    passes = []
    evaluated(pocket, mustdrop(**rules, decode_positions="cache_length"), 2, 2, passes=passes)
    for dropper, _ in passes:
        assert {name: getattr(dropper, name) for name in rules} == rules
        assert dropper.decode_positions == "cache_length"


def test_samples_without_an_image_have_controls_too(pocket):
    class Odd(PocketVQA):
        def __init__(self):
            super().__init__("odd", SPLIT)
            self.config.doc_to_visual = lambda doc: [] if doc["index"] % 2 else [doc["image"]]

    passes = []
    samples = evaluated(pocket, mustdrop(), 4, 4, task=Odd(), passes=passes)
    for _, ledgers in passes:
        assert [ledger.vision_per_layer() == [0] * 12 for ledger in ledgers] == [False, True] * 2
    for line in samples[1::2]:  # nothing to choose from, so nothing to choose
        answers = [arm["answer"] for arms in line["controls"].values() for arm in arms]
        assert set(answers) == {line["answer"]}


@pytest.mark.parametrize("wrong", ["entered", "resident"])
def test_counts_that_are_not_the_methods_end_the_run(pocket, monkeypatch, wrong):
    """A control that keeps one token less somewhere, in one layer of one sample."""
    strategy = {"entered": "ScheduledRandom", "resident": "ScheduledCache"}[wrong]
    made = getattr(module, strategy)

    def falsified(told, seed):
        spoilt = [list(counts) for counts in told]
        spoilt[1][11] -= 1
        return made(spoilt, seed)

    monkeypatch.setattr(module, strategy, falsified)
    samples = []
    adapter = DroppedVLM(*pocket, mustdrop(), batch_size=3, controls=STANDARD)
    adapter.on_sample = samples.append
    with pytest.raises(RuntimeError, match=r"schedule_random, prompt 1: .* vision tokens"):
        evaluator.simple_evaluate(
            model=adapter, tasks=[PocketVQA("pocket_vqa", SPLIT)],
            task_manager=TaskManager("ERROR", include_defaults=False), limit=3,
            bootstrap_iters=0, process_docs_parallel=1,
        )  # fmt: skip
    assert samples == []


def reductions(strategy, vision, layers, **given):
    """Original tokens alive after each layer, under made-up views."""
    left, out, memo = torch.arange(vision), [], {}

    def once(name, compute):
        if name not in memo:
            memo[name] = compute()
        return memo[name]

    for layer in layers:
        view = prefill_view(
            len(left), layer=layer, depth=4, inputs=torch.zeros(vision + 45, 1),
            positions=35 + left,
            cached=once,
            generator=lambda seed, at=layer: torch.Generator().manual_seed(100 * seed + at),
            **given,
        )  # fmt: skip
        left = left[strategy.reduce(view).keep]
        out.append(left.tolist())
    return out


def test_a_constant_schedule_is_random_at_that_count():
    for keep, seed in ((5, 0), (0, 1), (16, 2)):
        flat = ScheduledRandom(((9,) * 4, (keep,) * 4), seed)
        assert flat.layers == (-1,)
        expected = reductions(Random(keep, -1, seed), 16, [-1])
        assert reductions(flat, 16, [-1], prompt_index=1) == expected


def test_a_schedule_is_followed_and_every_token_is_as_likely():
    schedule = (12, 12, 6, 3)
    strategy = ScheduledRandom(((16,) * 4, schedule), 0)
    assert strategy.layers == (-1, 1, 2)
    seen = torch.zeros(16)
    for seed in range(600):
        left = reductions(replace(strategy, seed=seed), 16, strategy.layers, prompt_index=1)
        assert [len(one) for one in left] == [12, 6, 3]
        assert set(left[2]) < set(left[1]) < set(left[0]) and left[0] == sorted(left[0])
        seen[left[2]] += 1
    assert (seen / 600 - 3 / 16).abs().max() < 4 * (3 / 16 * 13 / 16 / 600) ** 0.5
    assert reductions(strategy, 16, [-1])[0] == list(range(16))


def test_a_grid_at_a_count_a_prompt_is_the_uniform_grid_at_each():
    cells = torch.stack(
        [torch.zeros(16, dtype=torch.long), torch.arange(16) // 4, torch.arange(16) % 4], 1
    )
    given = {"grids": [(4, 4)], "cell_coordinates": cells}
    for number, keep in enumerate((3, 7, 20)):
        strategy = ScheduledGrid((3, 7, 20))
        expected = reductions(UniformGrid(keep), 16, [-1], **given)
        assert reductions(strategy, 16, [-1], prompt_index=number, **given) == expected


def test_a_cache_is_cut_to_its_count_survivors_first():
    survives = torch.zeros(10, dtype=torch.bool)
    survives[[2, 5, 7]] = True
    strategy = ScheduledCache(((10,) * 4, (10, 3, 5, 2)), seed=0)
    for layer, count in enumerate((10, 3, 5, 2)):
        stays = strategy.keep(cache_view(10, survives, layer=layer, depth=4, prompt_index=1))
        assert int(stays.sum()) == count
        both = int((stays & survives).sum())
        assert both == min(count, 3)
    drawn = [
        tuple(
            replace(strategy, seed=seed)
            .keep(cache_view(10, survives, layer=2, prompt_index=1))
            .tolist()
        )
        for seed in range(12)
    ]
    assert len(set(drawn)) > 3


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: ScheduledRandom(()), "schedules must have one list per prompt"),
        (lambda: ScheduledRandom(((3, 2), (3,))), r"got \[2, 1\] counts"),
        (lambda: ScheduledRandom(((3, 4),)), r"schedules\[0\] must never grow, got \[3, 4\]"),
        (lambda: ScheduledRandom(((3, 3), (2, -1))), r"schedules\[1\]\[1\] must be .* got -1"),
        (lambda: ScheduledRandom(((3, 2, 1),)).check(FACTS), "each of 4 layers, got 3"),
        (lambda: ScheduledCache(((3, 2, 1),)).check(FACTS), r"each of 4 layers, got \[3\]"),
        (lambda: ScheduledCache(((3, -2),)), r"residents\[0\]\[1\] must be a count"),
        (lambda: ScheduledGrid((3, -2)), r"keep_counts\[1\] must be a count"),
        (
            lambda: ScheduledRandom(((3,) * 4,)).reduce(prefill_view(9, prompt_index=1)),
            "schedules has counts for 1 prompts, but the batch has a prompt of index 1",
        ),
        (
            lambda: ScheduledGrid((3,)).reduce(prefill_view(9, prompt_index=2)),
            "keep_counts has counts for 1 prompts, but the batch has a prompt of index 2",
        ),
        (
            lambda: ScheduledCache(((3,) * 4,)).keep(
                cache_view(9, torch.ones(9, dtype=torch.bool), prompt_index=1)
            ),
            "residents has counts for 1 prompts, but the batch has a prompt of index 1",
        ),
        (lambda: Controls("c", (1, 1), (), False), "schedule_random must be a list of different"),
    ],
)
def test_what_cannot_be_a_schedule_is_told(make, told):
    with pytest.raises(ValueError, match=told):
        make()


FEW = ("method=mustdrop", "budget=t64", "batch_size=2", "benchmark.limit=6")


def told(folder):
    return [*map(untimed, read_samples(folder))]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    cfg = composed(f"output_root={tmp_path_factory.mktemp('whole')}", *FEW)
    return run(cfg), run_folder(resolved(cfg))


def test_a_record_sums_up_what_ran_beside_it(finished):
    record, folder = finished
    samples = read_samples(folder)
    assert set(record["controls"]) == {"schedule_random", "flat_random"}
    (arm,) = record["controls"]["schedule_random"]
    assert arm["seed"] == 0
    lines = [line["controls"]["schedule_random"][0] for line in samples]
    scores = [line["scores"]["exact_match"] for line in lines]
    assert arm["scores"]["exact_match"] == pytest.approx(sum(scores) / 6)
    by_type = {name: value for line in lines for name, value in line["scores"].items()}
    assert set(arm["scores"]) == set(by_type)
    for line, beside in zip(samples, lines, strict=True):
        assert beside["counts"] == line["counts"]
    assert arm["counts"] == pytest.approx(record["counts"])
    assert record["controls_seconds"] == sum(line["controls_seconds"] for line in samples) > 0
    assert record["seconds"] == sum(line["seconds"] for line in samples)


def test_a_killed_run_goes_on_with_whole_lines(finished, tmp_path, monkeypatch):
    """The second batch breaks in its control's pass: the method's own is not kept without it."""
    cfg = composed(f"output_root={tmp_path}", *FEW)
    folder = run_folder(resolved(cfg))
    passes, made = [], DroppedVLM._pass

    def breaking(adapter, dropper, *args):
        passes.append(dropper)
        if len(passes) == 5:
            raise KeyboardInterrupt
        return made(adapter, dropper, *args)

    monkeypatch.setattr(DroppedVLM, "_pass", breaking)
    with pytest.raises(KeyboardInterrupt):
        run(cfg)
    assert told(folder) == told(finished[1])[:2]
    monkeypatch.setattr(DroppedVLM, "_pass", made)
    record = run(cfg)
    assert told(folder) == told(finished[1])
    assert record["controls"] == finished[0]["controls"]


def test_vanilla_and_random_have_nothing_beside_them(tmp_path):
    for method in ("vanilla", "random"):
        cfg = composed(
            f"output_root={tmp_path}", f"method={method}", "controls=standard", "benchmark.limit=2"
        )
        assert "controls" not in run(cfg)
        samples = read_samples(run_folder(resolved(cfg)))
        assert len(samples) == 2 and not any("controls" in line for line in samples)
        json.dumps(samples)
