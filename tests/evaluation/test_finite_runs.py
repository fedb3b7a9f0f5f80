"""A run ends with the document and the stage at which values are no longer finite."""

import math
from contextlib import contextmanager

import pytest
import torch
from pocket_runs import SPLIT, evaluated, pocket, task  # noqa: F401  (fixtures)

from mustdrop import TokenDropper
from mustdrop.engine.finite import FiniteNotes
from mustdrop.evaluation.tasks.pocket_vqa import PocketVQA
from mustdrop.evaluation.token_controls import Controls
from mustdrop.prefill.fastv import FastV


@contextmanager
def overflowing(loaded):
    """The packaged model with a projector beyond its dtype."""
    weight = loaded[0].model.multi_modal_projector.linear_2.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(1e38).mul_(1e6)
    try:
        yield loaded
    finally:
        with torch.no_grad():
            weight.copy_(before)


FASTV = TokenDropper(prefill=FastV(keep=64, layer=0))
ONE = Controls("one", [0], [], False)


@pytest.mark.parametrize(
    ("dropper", "controls"), [(None, None), (FASTV, ONE)], ids=["vanilla", "fastv"]
)
def test_a_run_ends_with_the_document_and_the_stage(pocket, task, dropper, controls):
    message = (
        "document 0 of pocket_vqa: the embeddings at the language model's input are not finite"
    )
    with overflowing(pocket), pytest.raises(ValueError, match=message):
        evaluated(pocket, task, 3, dropper, controls=controls)


class Sampled(PocketVQA):
    """PocketVQA whose answers are drawn."""

    def __init__(self):
        super().__init__("sampled", SPLIT)
        self.config.generation_kwargs.update(do_sample=True, temperature=0.5)


def test_drawn_answers_end_with_the_document_too(pocket):
    with overflowing(pocket), pytest.raises(ValueError, match="document 0 of sampled: the embed"):
        evaluated(pocket, Sampled(), 2)
    _, samples = evaluated(pocket, Sampled(), 2)
    assert all(line["answer"] for line in samples)


def test_the_document_is_that_of_the_picture_and_controls_are_looked_at(pocket, task, monkeypatch):
    ask = FiniteNotes.begin

    def begin(notes, *arguments):
        ask(notes, *arguments)
        begin.passes += 1
        if begin.passes == begin.bad:
            notes.note("the hidden states after layer 0", 1, torch.tensor([math.nan]))

    monkeypatch.setattr(FiniteNotes, "begin", begin)
    for bad, words in (
        (2, "document 1 of pocket_vqa, under the control schedule_random: the hidden"),
        (3, "document 3 of pocket_vqa: the hidden"),
    ):
        begin.passes, begin.bad = 0, bad
        with pytest.raises(ValueError, match=words):
            evaluated(pocket, task, 4, FASTV, 2, controls=ONE)


def test_a_batch_is_copied_to_the_host_once(pocket, task, monkeypatch):
    copies, cpu = [], torch.Tensor.cpu
    monkeypatch.setattr(FiniteNotes, "require", lambda notes, flags: copies.append(flags))
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: copies.append(self) or cpu(self))
    evaluated(pocket, task, 1)
    # the prompts' ids come first
    assert [value.dtype for value in copies[-2:]] == [torch.long, torch.bool]
    assert sum(value.dtype == torch.long for value in copies) == 2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vanilla", "fastv"])
def test_a_checkpoint_that_overflows_ends_no_run_as_measured(tmp_path, method, capsys):
    """haotian-liu/LLaVA#886, #726: float16 overflows, and answers come out empty."""
    import shutil

    from experiments.run import main
    from mustdrop.pocket import CHECKPOINT, load
    from mustdrop.runs.folder import read_status

    folder = tmp_path / "checkpoint"
    shutil.copytree(CHECKPOINT, folder)
    model, processor = load(torch.float32)
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.weight.mul_(1e6)  # fits float32, not float16
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    with pytest.raises(SystemExit) as left:
        main(
            [f"model.pretrained={folder}", "model.dtype=float16", f"method={method}",
             "budget=t128", "benchmark.limit=2", "controls=none", f"output_root={tmp_path}/out"]
        )  # fmt: skip
    assert left.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: document 0 of pocket_vqa: the embeddings at the language")
    assert "float16; load the model in bfloat16 or float32 (model.dtype=bfloat16)" in error
    (status,) = tmp_path.rglob("status.json")
    assert read_status(status.parent)["state"] == "failed"
    assert not list((tmp_path / "out").rglob("record.json"))
