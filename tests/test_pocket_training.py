"""Training: the packed forward is the stock one, and a stopped run ends where it would have."""

import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from mustdrop.pocket import build_model, build_processor, config, load, prompt, scene
from mustdrop.pocket.batches import Batches
from mustdrop.pocket.model import VOCABULARY
from mustdrop.pocket.packing import answers, encode, normalise
from mustdrop.pocket.questions import QUESTION_TYPES
from mustdrop.pocket.recipe import Recipe, Stage
from mustdrop.pocket.training import Training

ROOT = Path(__file__).parents[1]
EVEN = dict.fromkeys(QUESTION_TYPES, 1.0)
SHARED = {"images": 3, "objects": (2, 4), "tokens": (48, 64), "lr": 2e-3, "lr_end": 0.1}
SHARED |= {"warmup": 2, "weight_decay": 0.05}
TINY = Recipe(
    architecture={"vision_hidden": 32, "blocks": 2, "hidden": 32, "layers": 3},
    stages={
        "vision": Stage(steps=4, questions=0, **SHARED),
        "all": Stage(steps=6, questions=3, early=0.3, grounding=1.0, vision_lr=0.5, **SHARED),
    },
    probe_layer=1,
    question_weights=EVEN,
    save_every=3,
)


def batches(**changes):
    values = {"seed": 9, "stage": 1, "steps": 5, "images": 2, "questions": 6}
    values |= {"objects": (3, 8), "tokens": (576,), "question_weights": EVEN}
    return Batches(**(values | changes))


def trained(recipe, folder, stop=None, workers=0):
    """Weights and losses of a run, or of the part of one up to some step."""
    training = Training(recipe, folder, workers=workers)
    losses = []
    for progress in training.run():
        losses.append(progress.loss)
        if progress.done == stop:
            break
    return {**training.model.state_dict(), **training.probes.state_dict()}, losses


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


# The packed forward


def test_a_packed_question_gets_the_logits_it_gets_alone():
    """The other side is the processor's own prompt and the model's own forward, one at a time."""
    model, processor = load()
    batch = batches()[0]
    with torch.no_grad():
        packed = answers(model, batch.pixels, batch.kept, batch.questions, batch.ends)
        for image, pixels in enumerate(batch.pixels):
            for row, words in enumerate(batch.questions[image]):
                end = int(batch.ends[image, row])
                text = prompt(processor, " ".join(VOCABULARY[word] for word in words[:end]))
                inputs = processor(images=pixels.numpy(), text=text, return_tensors="pt")
                alone = model(**inputs).logits[0, -1]
                assert (packed[image, row] - alone).abs().max() < 1e-5 * alone.abs().max()
    assert (packed[0, 0] - packed[0, 1]).abs().max() > 1, "questions that all look alike"


def test_tokens_left_out_change_what_is_seen_but_no_position():
    model = build_model(seed=3)
    batch = batches()[0]
    with torch.no_grad():
        images = normalise(batch.pixels)
        whole = model.model.vision_tower.embeddings(images)
        few = encode(model, images, batch.kept[:, 7:300:2])
        one = model.model.vision_tower.pre_layrnorm(whole[:, [0, *range(8, 301, 2)]])
        for block in model.model.vision_tower.encoder.layers:
            one = block(one, attention_mask=None)
        assert torch.allclose(few[-1], one, atol=1e-6)
        full, part = (
            answers(model, batch.pixels, kept, batch.questions, batch.ends)
            for kept in (batch.kept, batch.kept[:, 7:300:2])
        )
    assert (full - part).abs().max() > 1e-3


# The batches


def test_a_batch_is_a_function_of_seed_stage_and_step():
    first, again = batches(tokens=(64, 96))[3], batches(tokens=(64, 96), steps=9)[3]
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(again, name)), name
    for changed in ({"seed": 10}, {"stage": 2}):
        assert not torch.equal(batches(tokens=(64, 96), **changed)[3].pixels, first.pixels)
    drawn = {batches(tokens=(64, 96), steps=20)[step].kept.shape[1] for step in range(20)}
    assert drawn == {64, 96}


def test_labels_say_what_the_scene_holds():
    batch = batches(tokens=(96,), stage=0)[2]
    colors = ["none", "red", "green", "blue", "yellow", "purple", "orange", "cyan"]
    for image in range(2):
        drawn = scene(9, 2 * 2 + image, 3, 8)
        assert torch.equal(batch.pixels[image], torch.from_numpy(drawn.pixels))
        kept = batch.kept[image]
        assert kept.tolist() == sorted(set(kept.tolist())) and len(kept) == 96
        owner = torch.from_numpy(drawn.patch_owner).flatten()
        assert set((owner >= 0).nonzero().flatten().tolist()) <= set(kept.tolist())
        for place, patch in enumerate(kept.tolist()):
            color, _, character = batch.patch_labels[image, place].tolist()
            index = int(owner[patch])
            item = drawn.objects[index] if index >= 0 else None
            assert colors[color] == (item.color if item else "none")
            assert (character > 0) == bool(item and item.character)
        assert int(batch.census[image, :42].sum()) == len(drawn.objects)
        assert int(batch.census[image, 42:].sum()) == len(
            {item.character for item in drawn.objects} - {None}
        )


def test_nouns_are_grounded_in_the_objects_they_name():
    grounded = 0
    for batch in (batches(questions=12)[step] for step in range(4)):
        for words, end, mentions, centers, weights in zip(
            *(
                value.flatten(0, 1)
                for value in (
                    batch.questions,
                    batch.ends,
                    batch.mentions,
                    batch.mention_centers,
                    batch.mention_weights,
                )
            ),
            strict=True,
        ):
            text = [VOCABULARY[word] for word in words]
            assert text[end] == "ASSISTANT:"
            for place in weights.nonzero().flatten().tolist():
                noun = text[int(mentions[place])]
                assert noun in ("object", "circle", "square", "triangle", "diamond", "cross", "bus")
                assert centers[place].abs().max() < 1
                grounded += 1
    assert grounded > 40


# The run


def test_training_is_deterministic_and_a_stopped_run_ends_the_same(tmp_path):
    whole, losses = trained(TINY, tmp_path / "whole")
    again, _ = trained(replace(TINY, save_every=100), tmp_path / "again", workers=1)
    assert same(whole, again)
    for stop in (2, 4, 8):  # before any saved state, between stages, between two saved states
        trained(TINY, tmp_path / f"stop{stop}", stop=stop)
        resumed, rest = trained(TINY, tmp_path / f"stop{stop}")
        assert same(whole, resumed)
        assert losses[-len(rest) :] == rest and (stop == 2) == (len(rest) == len(losses))
    other, _ = trained(replace(TINY, seed=8), tmp_path / "other")
    assert not same(whole, other)


def _die_while_saving(folder):
    save = torch.save

    def dying(state, file):
        if state["step"] == 3 and state["number"] == 1:
            file.write(b"half a state")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        save(state, file)

    torch.save = dying
    trained(TINY, folder)


def test_a_run_killed_in_the_middle_of_saving_goes_on(tmp_path):
    child = multiprocessing.get_context("fork").Process(target=_die_while_saving, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert (tmp_path / "state.pt.unfinished").read_bytes() == b"half a state"
    resumed, rest = trained(TINY, tmp_path)
    assert len(rest) == 6
    assert same(trained(TINY, tmp_path / "whole")[0], resumed)


def test_loss_falls_and_the_encoder_stage_leaves_the_language_model_alone(tmp_path):
    stage = Stage(**(SHARED | {"steps": 40, "questions": 0, "lr": 5e-3, "images": 4}))
    recipe = replace(TINY, stages={"vision": stage})
    weights, losses = trained(recipe, tmp_path)
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])
    start = build_model(config(**TINY.architecture), TINY.seed).state_dict()
    moved = {name for name in start if not torch.equal(start[name], weights[name])}
    assert moved and all("vision_tower" in name for name in moved)


def test_questions_are_learned_too(tmp_path):
    stage = Stage(**(SHARED | {"steps": 40, "questions": 6, "lr": 5e-3, "dense": 0.0}))
    _, losses = trained(replace(TINY, stages={"all": stage}), tmp_path)
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])


def test_another_recipe_does_not_go_on_in_the_same_folder(tmp_path):
    trained(TINY, tmp_path, stop=4)
    with pytest.raises(ValueError, match="a training that differs in clip, seed"):
        Training(replace(TINY, seed=8, clip=2.0), tmp_path)


def test_an_exported_model_loads_and_counts_its_bytes(tmp_path, monkeypatch):
    training = Training(TINY, tmp_path)
    training.export(tmp_path / "export")
    model, processor = load(folder=tmp_path / "export")
    assert processor.tokenizer.get_vocab() == build_processor().tokenizer.get_vocab()
    for name, value in training.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value.bfloat16().float()), name
    scores = training.validate(batches=1)
    assert sum(score.n for score in scores.values()) == 64
    monkeypatch.setattr("mustdrop.pocket.training.MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="at most 1000 bytes"):
        training.export(tmp_path / "large")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(TINY, seed=41), "seed must not be a held-out one"),
        (lambda: replace(TINY, stages={}), "one stage at least"),
        (lambda: replace(TINY, question_weights={"color": 1.0}), "must be for color, shape"),
        (lambda: replace(TINY.stages["all"], tokens=(577,)), r"counts in \[1, 576\]"),
        (lambda: replace(TINY.stages["all"], objects=(4, 2)), "two of 1 to 20"),
        (lambda: replace(TINY.stages["all"], steps=0), "steps must be >= 1, got 0"),
        (lambda: replace(TINY.stages["all"], lr=-1.0), "lr must be >= 0"),
        (
            lambda: Training(replace(TINY, probe_layer=2), Path()),
            r"probe_layer must be in \[0, 2\)",
        ),
    ],
)
def test_a_wrong_recipe_says_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# The script


def test_the_configuration_is_a_recipe_that_can_be_walked():
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        recipe = instantiate(compose("train_pocket").recipe)
    assert list(recipe.stages) == ["vision", "few", "many", "full"]
    short = recipe.smoke()
    assert short.steps == 3 * 4 and short.architecture == recipe.architecture
    largest = recipe.stages["full"]
    assert largest.objects[1] >= 16 and 576 in largest.tokens


@pytest.mark.slow
def test_the_script_walks_through_and_leaves_nothing_beside_its_output(tmp_path):
    command = [sys.executable, ROOT / "experiments" / "train_pocket.py", "smoke=true", "output=run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(2):  # the second finds the first one's state, finished
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, env=environment)
        assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "smoke" / "scores.json").is_file()
    load(folder=tmp_path / "run" / "smoke" / "export")
