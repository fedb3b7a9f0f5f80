"""PocketSmol's training: the same mathematics as the model, and a restart that changes nothing."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from mustdrop.pocket import load, prompt
from mustdrop.pocket.smol.model import assemble
from mustdrop.pocket.training.packing import decode
from mustdrop.pocket.training.smol.batches import IGNORED, draw_batch
from mustdrop.pocket.training.smol.losses import vision_features
from mustdrop.pocket.training.smol.recipe import TYPES, SmolRecipe, SmolStage
from mustdrop.pocket.training.smol.text import ChatText
from mustdrop.pocket.training.smol.trainer import SmolTraining

STAGE = SmolStage(
    steps=4, images=2, questions=6, objects=(4, 9), tokens=(576,), lr=1e-3, lr_end=1e-4, warmup=1,
    question_weights=dict.fromkeys(TYPES, 1.0), long=0.5, long_images=2, long_questions=2,
    fewest_items=2, grounding=0.5,
)  # fmt: skip


@pytest.fixture(scope="module")
def plain(smol_package):
    """SmolLM2 behind PocketLLaVA's encoder and an untrained connector, with its processor."""
    pocket, _ = load()
    return assemble(pocket.model.vision_tower.state_dict())


@pytest.fixture(scope="module")
def text(plain):
    return ChatText(plain[1])


def question_of(batch, text, processor, image, index):
    """Question and answer as text, from the batch's tokens."""
    row, targets = batch.questions[image, index], batch.targets[image, index]
    start = int((targets != IGNORED).nonzero()[0])
    end = int((targets != IGNORED).nonzero()[-1])
    words = processor.tokenizer.decode(row[: start + 1]).split("<|im_end|>")[0]
    return words, processor.tokenizer.decode(row[start + 1 : end + 1])


@pytest.mark.smol
def test_tokens_are_those_of_the_processor(plain, text):
    _, processor = plain
    for long in (0.0, 1.0):
        batch = draw_batch(51, 0, replace(STAGE, long=long, tokens=(64,)), 0, text)
        for image in range(2):
            question, answer = question_of(batch, text, processor, image, 0)
            whole = processor.tokenizer(f"{prompt(processor, question)}{answer}<|im_end|>")
            ids = [*text.opening, processor.image_token_id, *batch.questions[image, 0].tolist()]
            assert whole.input_ids == ids[: len(whole.input_ids)]


@pytest.mark.smol
def test_packed_logits_are_those_of_the_model(plain, text):
    model, processor = plain
    batch = draw_batch(51, 0, replace(STAGE, images=4, questions=2, long=0.0), 0, text)
    hidden = decode(
        model, vision_features(model, batch), batch.slots, batch.length, batch.questions,
        opening=text.opening,
    )[-1]  # fmt: skip
    packed = model.lm_head(model.model.language_model.norm(hidden))
    for image in range(2):
        ids = [*text.opening, *[processor.image_token_id] * 576, *batch.questions[image, 1]]
        pixels = processor.image_processor(
            [batch.pixels[image].numpy()], return_tensors="pt"
        ).pixel_values
        alone = model(input_ids=torch.tensor([ids]), pixel_values=pixels).logits[0]
        torch.testing.assert_close(
            packed[image, 1], alone[len(text.opening) + 576 :], atol=2e-3, rtol=1e-3
        )


@pytest.mark.smol
def test_labels_are_of_the_words_and_objects_they_belong_to(text):
    """Behind each mention the object's name has been read; targets are the answer and its end."""
    for long in (0.0, 1.0):
        batch = draw_batch(51, 0, replace(STAGE, long=long, images=8, tokens=(64,)), 0, text)
        for image, question in itertools.product(range(2), range(2)):
            row = batch.questions[image, question].tolist()
            targets = batch.targets[image, question].tolist()
            answer = [index for index, target in enumerate(targets) if target != IGNORED]
            assert [targets[i] for i in answer] == [row[i + 1] for i in answer]
            assert answer == list(range(answer[0], answer[-1] + 1)) and targets[answer[-1]] == 2


@pytest.mark.smol
def test_a_restart_at_any_step_changes_no_bit(smol_package, tmp_path):
    """Stage A, then 20 steps of stage B: in one go, and stopped twice on the way."""
    connector = replace(STAGE, questions=0, steps=3, tokens=(64,), long=0.0)
    questions = replace(STAGE, steps=20, tokens=(32, 48), questions=2, compact=0.5)
    recipe = SmolRecipe(
        stages={"connector": connector, "questions": questions}, threads=1, save_every=4
    )
    for _ in SmolTraining(recipe, tmp_path / "whole").run():
        pass
    for stop in (2, 9, 14):  # killed there: what was done since the last saved state is lost
        for report in SmolTraining(recipe, tmp_path / "stopped").run():
            if report.done == stop:
                break
    resumed = SmolTraining(recipe, tmp_path / "stopped")
    assert resumed.done == 3 + 8
    for report in resumed.run():
        assert math.isfinite(report.loss)
    for folder in ("whole", "stopped"):
        SmolTraining(recipe, tmp_path / folder).export(tmp_path / folder)
    files = [tmp_path / folder / "model.safetensors" for folder in ("whole", "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()
    whole, stopped = (
        torch.load(tmp_path / folder / "state.pt")["trained"] for folder in ("whole", "stopped")
    )
    assert all(torch.equal(a, b) for a, b in zip(whole["lora"], stopped["lora"], strict=True))


@pytest.mark.smol
def test_a_state_of_another_recipe_is_refused(smol_package, tmp_path):
    connector = replace(STAGE, questions=0, steps=1, tokens=(64,), long=0.0)
    recipe = SmolRecipe(stages={"connector": connector, "questions": STAGE}, threads=1)
    next(iter(SmolTraining(recipe, tmp_path).run()))
    SmolTraining(recipe, tmp_path).save()
    later = {"connector": connector, "questions": replace(STAGE, lr=1e-5)}
    SmolTraining(replace(recipe, stages=later), tmp_path)  # a stage that had not begun may differ
    with pytest.raises(ValueError, match="holds a training that differs in rank"):
        SmolTraining(replace(recipe, rank=8), tmp_path)


@pytest.mark.smol
def test_a_new_training_starts_from_exported_weights_at_a_stage(smol_package, tmp_path):
    """Connector and LoRA weights are those of the folder, and the first stage is left out."""
    connector = replace(STAGE, questions=0, steps=2, tokens=(64,), long=0.0)
    questions = replace(STAGE, steps=1, tokens=(32,), questions=2)
    recipe = SmolRecipe(stages={"connector": connector, "questions": questions}, threads=1)
    first = SmolTraining(recipe, tmp_path / "first")
    assert [report.done for report in first.run()] == [1, 2, 3]
    first.export(tmp_path / "export")
    again = replace(
        recipe, start_weights=str(tmp_path / "export"), start_stage="questions",
        stages={**recipe.stages, "questions": replace(questions, steps=2)},
    )  # fmt: skip
    training = SmolTraining(again, tmp_path / "second")
    assert training.done == 2
    for a, b in zip(training.lora, first.lora, strict=True):
        assert torch.equal(a, b.bfloat16().float())
    assert [report.done for report in training.run()] == [3, 4]
    assert SmolTraining(again, tmp_path / "second").done == 4  # the state, not the start, counts
    with pytest.raises(FileNotFoundError, match="start_weights must be a folder with model"):
        SmolTraining(replace(again, start_weights=str(tmp_path)), tmp_path / "third")
    with pytest.raises(ValueError, match="one of connector, questions, got 'a'"):
        replace(again, start_stage="a")
    with pytest.raises(ValueError, match="start_stage needs start_weights, got none"):
        replace(again, start_weights=None)
