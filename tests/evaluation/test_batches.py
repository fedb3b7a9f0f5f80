"""Workers that read and prepare documents ahead change no answer, no order and no message."""

import os
from itertools import chain

import pytest
import torch
from lmms_eval.api.instance import Instance
from pocket_runs import SPLIT, evaluated, pocket, task  # noqa: F401  (fixtures)
from untimed import untimed

from mustdrop import TokenDropper
from mustdrop.engine import shared_encoding
from mustdrop.evaluation.batches import DocumentOrder
from mustdrop.evaluation.image_controls import WrongImage
from mustdrop.evaluation.lmms import DroppedVLM
from mustdrop.evaluation.tasks.pocket_vqa import PocketVQA
from mustdrop.evaluation.token_controls import Controls
from mustdrop.prefill.fastv import FastV
from mustdrop.prefill.random import Random
from mustdrop.vision.cls_topk import ClsTopK
from mustdrop.vision.known_patches import KnownPatches

CONTROLS = Controls("standard", (0, 1), (0,), True)


class Processes(DroppedVLM):
    """Writes the process that reads a document into the document, for the records."""

    def read(self, instance):
        request = super().read(instance)
        request.doc["type"] = os.getpid()
        return request


@pytest.mark.parametrize(
    ("dropper", "more"),
    [
        (TokenDropper(prefill=FastV(keep=64, layer=0)), {"controls": CONTROLS}),
        pytest.param(TokenDropper(vision=KnownPatches(keep=200)), {}, marks=pytest.mark.slow),
        (TokenDropper(prefill=Random(keep=48)), {"image": WrongImage("wrong")}),
    ],
    ids=["controls", "annotations", "wrong image"],
)
def test_workers_change_nothing(pocket, dropper, more):
    def samples(workers):
        task = PocketVQA("pocket_vqa", SPLIT)
        return evaluated(pocket, task, 5, dropper, 2, workers=workers, **more)[1]

    alone, ahead = samples(0), samples(2)
    assert [*map(untimed, ahead)] == [*map(untimed, alone)]
    assert [line["doc_id"] for line in ahead] == [*range(5)]
    for line in (*alone, *ahead):
        assert line["seconds"] == line["processor_seconds"] + line["model_seconds"]
        assert line["processor_seconds"] > 0 and line["waiting_seconds"] > 0


def test_workers_move_no_random_numbers_of_the_answers(pocket):
    def answers(workers):
        task = PocketVQA("pocket_vqa", SPLIT)
        task.config.generation_kwargs.update(do_sample=True, temperature=4.0)
        torch.manual_seed(3)
        return [line["answer"] for line in evaluated(pocket, task, 6, None, 2, workers=workers)[1]]

    assert answers(1) == answers(0)


def test_documents_are_read_by_workers_and_the_document_at_fault_is_named(pocket, monkeypatch):
    """Those before it are answered; the error is the one that reading in this process raises."""

    class Broken(PocketVQA):
        def __init__(self):
            super().__init__("broken", SPLIT)
            self.config.doc_to_visual = self.visual

        def visual(self, doc):
            if doc["index"] == 3:
                raise KeyError("no picture")
            return [doc["image"]]

    kept = []
    for workers in (0, 1):
        samples = []
        monkeypatch.setattr("pocket_runs.DroppedVLM", noting(samples))
        with pytest.raises(ValueError) as refused:
            evaluated(pocket, Broken(), 6, None, 2, workers=workers)
        assert str(refused.value) == "document 3 of broken: KeyError: 'no picture'"
        assert [line["doc_id"] for line in samples] == [0, 1]
        kept.append({line["type"] for line in samples})
    assert kept[0] == {os.getpid()} and os.getpid() not in kept[1]


def noting(samples):
    def made(*args, on_sample, **more):
        return Processes(*args, on_sample=samples.append, **more)

    return made


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_window_is_sorted_by_length_and_recorded_in_order(pocket, task, workers, monkeypatch):
    batches, ask = [], DroppedVLM._ask

    def spied(adapter, batch):
        batches.append([request.doc_id for request in batch.requests])
        return ask(adapter, batch)

    fastv = TokenDropper(prefill=FastV(keep=64, layer=0))
    plain = evaluated(pocket, task, 11, fastv, 2)[1]
    monkeypatch.setattr(DroppedVLM, "_ask", spied)
    sorted_batches = evaluated(pocket, task, 11, fastv, 2, workers=workers, batch_window=4)[1]
    assert [*map(untimed, sorted_batches)] == [*map(untimed, plain)]
    lengths = [line["prompt_tokens"] for line in plain]
    longest_first = [
        sorted(window, key=lambda doc: -lengths[doc]) for window in (range(8), range(8, 11))
    ]
    assert [*chain(*batches)] == [*chain(*longest_first)] != [*range(11)]
    assert [*map(len, batches)] == [2, 2, 2, 2, 2, 1]


def test_samples_wait_for_earlier_documents_only():
    received, about = [], {"task": "t", "doc_id": 0, "repeats": 1}
    instances = [Instance("generate_until", (), number, about) for number in range(4)]
    order = DocumentOrder([instances[:3], instances[3:]], received.append)
    for number, expected in ((1, []), (0, [0, 1]), (3, [0, 1]), (2, [0, 1, 2, 3])):
        order.add(instances[number], {"doc_id": number})
        assert [sample["doc_id"] for sample in received] == expected


@pytest.mark.parametrize("name", ["batch_size", "batch_window"])
def test_a_count_below_one_is_refused(pocket, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        DroppedVLM(*pocket, **{name: 0})


@pytest.mark.parametrize("workers", [0, 1])
def test_scoring_needs_no_pictures_and_gets_none(pocket, workers):
    seen = []

    class Scored(PocketVQA):
        def __init__(self):
            super().__init__("scored", SPLIT)
            score = self.config.process_results

            def checked(doc, results):
                seen.append((doc["image"], doc["target_patches"].shape))
                return score(doc, results)

            self.config.process_results = checked

    assert len(evaluated(pocket, Scored(), 3, None, 2, workers=workers)[1]) == 3
    assert seen[:3] == [(None, (24, 24))] * 3  # by the adapter; then lmms-eval scores


@pytest.mark.parametrize(
    ("method", "runs"),
    [
        (TokenDropper(prefill=FastV(keep=64, layer=0)), 1),
        # the method's own run of the encoder drops; its controls share one that does not
        pytest.param(
            TokenDropper(vision=ClsTopK(keep=64), prefill=FastV(keep=32, layer=1)),
            2,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["prefill", "vision"],
)
def test_images_are_encoded_once_for_all_controls(pocket, method, runs, monkeypatch):
    calls, told = [], []
    handle = pocket[0].model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    for same in (shared_encoding._same, lambda *_: False):
        calls.clear()
        monkeypatch.setattr(shared_encoding, "_same", same)
        task = PocketVQA("pocket_vqa", SPLIT)
        samples = evaluated(pocket, task, 4, method, 2, controls=CONTROLS)[1]
        told.append(([*map(untimed, samples)], len(calls)))
    handle.remove()
    (shared, few), (separate, many) = told
    assert shared == separate  # bit for bit: scores, answers and counts
    assert few == 2 * runs and many == 2 * (1 + 2 + 1 + 1)
