"""The adapter answers as the model does, hides no failure, hands over what lmms-eval scores."""

from statistics import fmean

import pytest
import torch
from lmms_eval import evaluator
from lmms_eval.tasks import TaskManager
from PIL import Image
from pocket_runs import SPLIT, evaluated, pocket, task  # noqa: F401  (fixtures)
from untimed import untimed

from mustdrop import TokenDropper
from mustdrop.budget import Budget
from mustdrop.checkpoint import Checkpoint
from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.evaluation.tasks.pocket_pope import PocketPOPE
from mustdrop.evaluation.tasks.pocket_vqa import PocketVQA
from mustdrop.pocket.dataset import pope, sample
from mustdrop.pocket.evaluation import prompt
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.random import Random
from mustdrop.vision.known_patches import KnownPatches
from mustdrop.vision.local_merge import LocalMerge

FASTV = TokenDropper(prefill=FastV(keep=64, layer=0))


def plain(pocket, index, image=True):
    """New tokens of the model alone, one prompt, no padding, none of the adapter's code."""
    model, processor = pocket
    asked = sample(SPLIT, index)
    text = prompt(processor, asked.question)
    if not image:
        text = text.replace("<image> ", "")
    inputs = processor(images=[asked.image] if image else None, text=[text], return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=4)
    return tokens[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("batch_size", [1, 4])
def test_vanilla_through_the_adapter_is_plain_generate_token_by_token(
    pocket, task, batch_size, monkeypatch
):
    model, processor = pocket
    generate, rows = model.generate, []

    def spied(**kwargs):
        tokens = generate(**kwargs)
        rows.extend(tokens[:, kwargs["input_ids"].shape[1] :].tolist())
        return tokens

    expected = [plain(pocket, index) for index in range(8)]
    monkeypatch.setattr(model, "generate", spied)
    _, samples = evaluated(pocket, task, 8, batch_size=batch_size)
    pad = processor.tokenizer.pad_token_id
    assert len(rows) == len(samples) == 8
    for row, own, line in zip(rows, expected, samples, strict=True):
        padding = [pad] * (len(row) - len(own))
        assert row == own + padding
        assert line["new_tokens"] == len(own)
        assert line["answer"] == processor.tokenizer.decode(own, skip_special_tokens=True).strip()
    assert len({tuple(own) for own in expected}) > 3  # answers that differ, or this proves nothing


@pytest.mark.parametrize("dropper", [FASTV, TokenDropper(prefill=Random(keep=48, layer=0))])
def test_the_batch_changes_no_answer_no_score_and_no_count(pocket, task, dropper):
    told = [
        [untimed(line) for line in evaluated(pocket, task, 10, dropper, size)[1]] for size in (1, 7)
    ]
    assert told[0] == told[1]


def test_prompts_are_padded_on_the_left_whatever_the_processor_was_told(pocket, task, monkeypatch):
    before = [line["answer"] for line in evaluated(pocket, task, 8, FASTV, 8)[1]]
    monkeypatch.setattr(pocket[1].tokenizer, "padding_side", "right")
    assert [line["answer"] for line in evaluated(pocket, task, 8, FASTV, 8)[1]] == before


def test_the_streamed_scores_are_lmms_evals(pocket, task):
    results, samples = evaluated(pocket, task, 21, TokenDropper(prefill=Random(keep=32)))
    found = results["results"]["pocket_vqa"]
    assert 0 < found["exact_match,none"] < 1
    assert found["exact_match,none"] == fmean(line["scores"]["exact_match"] for line in samples)
    for kind in {line["type"] for line in samples}:
        scores = [line["scores"]["exact_match"] for line in samples if line["type"] == kind]
        assert found[f"exact_match_{kind},none"] == fmean(scores)
    for line, logged in zip(samples, results["samples"]["pocket_vqa"], strict=True):
        assert line["scores"]["exact_match"] == logged["exact_match"]
        assert line["answer"] == logged["filtered_resps"][0]
        assert line["target"] == logged["target"] == sample(SPLIT, line["doc_id"]).answer


def test_the_results_carry_the_counts(pocket, task):
    results, samples = evaluated(pocket, task, 3, FASTV, budget=Budget(tokens=128))
    for line, logged in zip(samples, results["samples"]["pocket_vqa"], strict=True):
        counted = logged["token_counts"][0]
        assert counted["counts"] == line["counts"]
        assert counted["vision_tokens"] == [576] + [64] * 11
        assert counted["input_tokens"] == line["prompt_tokens"] > 576
    assert samples[0]["counts"]["executed_average"] == (576 + 11 * 64) / 12
    assert samples[0]["counts"]["nominal"] == 128


def test_pope_is_scored_by_lmms_evals_own_code(pocket):
    """Its accuracy, precision, recall and F1, found again from the answers."""
    dropper = TokenDropper(prefill=Random(keep=48))
    results, samples = evaluated(pocket, PocketPOPE("pocket_pope", SPLIT), 40, dropper, 8)
    found = results["results"]["pocket_pope"]
    asked = [pope(SPLIT, index) for index in range(40)]
    assert [line["question"] for line in samples] == [one.question for one in asked]
    assert {line["type"] for line in samples} == {"adversarial", "random"}
    said = [line["answer"] == "yes" for line in samples]
    true = [one.answer == "yes" for one in asked]
    hits = sum(a and b for a, b in zip(said, true, strict=True))
    right = sum(a == b for a, b in zip(said, true, strict=True))
    assert 20 < right < 40, "all right or all wrong would show nothing"
    precision, recall = hits / sum(said), hits / sum(true)
    expected = {
        "accuracy": right / 40, "precision": precision, "recall": recall,
        "f1_score": 2 * precision * recall / (precision + recall), "yes_ratio": 0.5,
    }  # fmt: skip
    for name, value in expected.items():
        assert found[f"pope_{name},none"] == pytest.approx(value), name
    assert fmean(line["scores"]["pope_accuracy"] for line in samples) == right / 40


def test_target_recall_is_the_share_of_the_patches_asked_about(pocket, task):
    """By counting patches in the ledger's own slots, one by one; a merged one counts as carried."""
    ledgers = {}
    dropper = TokenDropper(vision=LocalMerge(tau=57.6), prefill=Random(keep=60, layer=3))
    keep = {"on_ledger": lambda doc, ledger: ledgers.update({doc: ledger})}
    _, samples = evaluated(pocket, task, 16, dropper, **keep)
    nothing = 0
    for line in samples:
        target = sample(SPLIT, line["doc_id"]).target_patches.ravel().nonzero()[0].tolist()
        ledger = ledgers[line["doc_id"]]
        for name, layer in (("target_recall_input", 0), ("target_recall", 11)):
            alive = set(ledger.alive[layer].tolist())
            source = ledger.sources[0]
            carried = {
                patch
                for slot, row in zip(source.slots.tolist(), source.mix.tolist(), strict=True)
                if slot in alive
                for patch, weight in enumerate(row)
                if weight
            }
            if target:
                assert line[name] == pytest.approx(len(carried & {*target}) / len(target))
                assert name == "target_recall" or line[name] == 1.0, "merging loses no patch"
            else:
                assert line[name] is None
        nothing += not target
    assert 0 < nothing < 8
    assert 0 < fmean(line["target_recall"] or 0 for line in samples) < 0.9


@pytest.mark.parametrize(("invert", "recall"), [(False, 1.0), (True, 0.0)])
def test_bounds_are_told_the_documents_patches(pocket, task, invert, recall):
    dropper = TokenDropper(vision=KnownPatches(keep=200, invert=invert))
    _, samples = evaluated(pocket, task, 12, dropper)
    assert {line["target_recall"] for line in samples} <= {recall, None}


def test_a_split_that_is_none_is_told():
    with pytest.raises(ValueError, match="split must be one of crowded_test"):
        PocketPOPE("pairs", "hard")


def test_an_exception_ends_the_run_and_becomes_no_answer(pocket, task, monkeypatch):
    layer, calls = pocket[0].model.language_model.layers[3], []
    forward = layer.forward

    def failing(hidden, *args, **kwargs):
        calls.append(hidden.shape[1])
        if sum(tokens > 1 for tokens in calls) == 2:
            raise RuntimeError("out of memory, say")
        return forward(hidden, *args, **kwargs)

    monkeypatch.setattr(layer, "forward", failing)
    samples = []
    adapter = DroppedVLM(*pocket, FASTV, batch_size=2, on_sample=samples.append)
    with pytest.raises(RuntimeError, match="out of memory, say"):
        evaluator.simple_evaluate(
            model=adapter, tasks=[task], task_manager=TaskManager("ERROR", include_defaults=False),
            limit=6, bootstrap_iters=0,
        )  # fmt: skip
    assert [line["doc_id"] for line in samples] == [0, 1]
    assert all(line["answer"] for line in samples)
    assert "generate" not in pocket[0].__dict__  # the model as it was


class Odd(PocketVQA):
    """PocketVQA whose odd documents show what the test says instead of their image."""

    def __init__(self, visuals):
        super().__init__("odd", SPLIT)
        self.config.doc_to_visual = lambda doc: visuals if doc["index"] % 2 else [doc["image"]]


@pytest.mark.parametrize("dropper", [None, FASTV])
def test_a_document_without_an_image_is_asked_without_one(pocket, dropper):
    _, samples = evaluated(pocket, Odd([]), 5, dropper, batch_size=5)
    for line in samples[1::2]:
        assert line["vision_tokens"] == [0] * 12
        own = plain(pocket, line["doc_id"], image=False)
        assert line["new_tokens"] == len(own)
        assert line["answer"] == pocket[1].tokenizer.decode(own, skip_special_tokens=True).strip()
    for line in samples[::2]:
        assert line["vision_tokens"][0] == 576


def test_bounds_are_told_of_each_image_whatever_its_neighbours_have(pocket):
    """Every other document has no image: the patches told must still be each image's own."""
    bound = TokenDropper(vision=KnownPatches(keep=200))
    _, samples = evaluated(pocket, Odd([]), 8, bound, batch_size=8)
    assert {line["target_recall"] for line in samples[::2]} <= {1.0, None}
    assert not any("target_recall" in line for line in samples[1::2])


def test_an_empty_image_is_refused_by_the_name_of_its_document(pocket):
    with pytest.raises(ValueError, match="document 1 of odd: an empty image"):
        evaluated(pocket, Odd([Image.new("RGB", (0, 4))]), 3)


def test_a_video_without_a_number_of_frames_is_refused(pocket):
    with pytest.raises(ValueError, match=r"document 1 of odd: a video needs model\.frames"):
        evaluated(pocket, Odd(["clip.mp4"]), 3)


def test_the_model_outlives_lmms_evals_cleaning(pocket, task):
    adapter = DroppedVLM(*pocket)
    adapter.clean()
    assert adapter.model is pocket[0]
    assert not any(isinstance(value, torch.nn.Module) for value in vars(adapter).values())


def test_repr_tells_the_configuration_and_nothing_of_this_process(pocket):
    def told(dropper, config):
        return repr(DroppedVLM(*pocket, dropper, config))

    assert told(FASTV, {"seed": 0}) == told(TokenDropper(prefill=FastV(64, 0)), {"seed": 0})
    assert told(FASTV, {"seed": 0}) != told(TokenDropper(prefill=FastV(63, 0)), {"seed": 0})
    assert told(FASTV, {"seed": 0}) != told(FASTV, {"seed": 1})
    assert "0x" not in told(FASTV, {"seed": 0})


def test_what_was_answered_is_not_asked_again_and_still_counts(pocket, task):
    _, whole = evaluated(pocket, task, 6, FASTV)
    wrong = [{**line, "answer": "nonsense"} for line in whole[:3]]
    answered = {line["doc_id"]: line for line in wrong}
    results, fresh = evaluated(pocket, task, 6, FASTV, answered=answered)
    assert [line["doc_id"] for line in fresh] == [3, 4, 5]
    logged = [line["filtered_resps"][0] for line in results["samples"]["pocket_vqa"]]
    assert logged == ["nonsense"] * 3 + [line["answer"] for line in whole[3:]]


def test_the_tasks_own_options_filters_and_ends_are_kept(pocket):
    task = PocketVQA("pocket_vqa", SPLIT)
    task.config.generation_kwargs.update(max_new_tokens=1)
    _, samples = evaluated(pocket, task, 4)
    assert {line["new_tokens"] for line in samples} == {1}
    first = samples[0]["answer"]
    task.config.generation_kwargs.update(until=[first[1:]])
    _, samples = evaluated(pocket, task, 1)
    assert samples[0]["answer"] == first[0]

    upper = PocketVQA("pocket_vqa", SPLIT)
    upper._filters = [type(upper._filters[0])("upper", [*upper._filters[0].filters])]
    upper._filters[0].filters.append(_Upper())
    results, samples = evaluated(pocket, upper, 7)
    scores = [line["scores"]["exact_match"] for line in samples]
    assert results["results"]["pocket_vqa"]["exact_match,upper"] == fmean(scores) < 1


class _Upper:
    def apply(self, responses, docs):
        return [
            [text.upper() for text in one] if isinstance(one, list) else one.upper()
            for one in responses
        ]


def test_a_checkpoint_that_is_not_what_its_yaml_says_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"model\.layers is 32, but packaged has 12"):
        Checkpoint("pocket", "packaged", layers=32, vision_tokens=576, merging_blocks=3).load("cpu")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        Checkpoint(
            "x", str(tmp_path / "no" / "where"), layers=12, vision_tokens=576, merging_blocks=3
        ).load("cpu")
    with pytest.raises(FileNotFoundError, match="no/where cannot be downloaded from the hub"):
        Checkpoint("x", "no/where", layers=12, vision_tokens=576, merging_blocks=3).load("cpu")
