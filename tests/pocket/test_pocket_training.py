"""Training: a stopped or killed run ends where it would have, and what it exports loads."""

import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

from mustdrop.pocket import build_model, build_processor, config, load
from mustdrop.pocket.evaluation import Score
from mustdrop.pocket.questions import QUESTION_TYPES
from mustdrop.pocket.training.curve import Curve
from mustdrop.pocket.training.recipe import Recipe, Stage
from mustdrop.pocket.training.staged import Progress
from mustdrop.pocket.training.team import Team, team
from mustdrop.pocket.training.trainer import Training

ROOT = Path(__file__).parents[2]
EVEN = dict.fromkeys(QUESTION_TYPES, 1.0)
SHARED = {"images": 3, "objects": (2, 4), "tokens": (48, 64), "lr": 2e-3, "lr_end": 0.1}
SHARED |= {"warmup": 2, "weight_decay": 0.05}
TINY = Recipe(
    architecture={"vision_hidden": 32, "blocks": 2, "hidden": 32, "layers": 3},
    stages={
        "vision": Stage(steps=4, questions=0, **SHARED),
        "all": Stage(
            steps=6, questions=3, early=0.3, grounding=1.0, vision_lr=0.5, closed=(1,), **SHARED
        ),
    },
    probe_layer=1,
    question_weights=EVEN,
    save_every=3,
)


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
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_another_recipe_does_not_go_on_in_the_same_folder(tmp_path):
    trained(TINY, tmp_path, stop=4)
    with pytest.raises(ValueError, match="a training that differs in clip, seed"):
        Training(replace(TINY, seed=8, clip=2.0), tmp_path)


def test_stages_that_have_not_begun_may_be_changed(tmp_path):
    trained(TINY, tmp_path, stop=3)
    shorter = replace(TINY.stages["all"], steps=2)
    changed = replace(TINY, stages={**TINY.stages, "all": shorter})
    assert Training(changed, tmp_path).done == 3
    assert len(trained(changed, tmp_path)[1]) == 3
    with pytest.raises(ValueError, match="a training that differs in stages"):
        Training(TINY, tmp_path)


def _rest(folder, one):
    training = Training(TINY, folder, workers=0, team=one)
    for _ in training.run():
        pass
    torch.save(training.model.state_dict(), folder.parent / f"rank{one.rank}.pt")


@pytest.mark.slow
def test_a_team_trains_one_model_and_goes_on_as_one(tmp_path):
    """The first process's model is everybody's: the same gradients, the same steps, one state."""

    def run(folder, stop=None):
        with team(3, partial(_rest, folder)) as first:
            training = Training(TINY, folder, workers=0, team=first)
            for progress in training.run():
                if progress.done == stop:
                    os._exit(9)
        return training.model.state_dict()

    torch.set_num_threads(1)
    whole = run(tmp_path / "whole")
    assert not same(whole, trained(TINY, tmp_path / "alone")[0])
    for rank in (1, 2):
        assert same(whole, torch.load(tmp_path / f"rank{rank}.pt")), "they drifted apart"
    stopped = multiprocessing.get_context("fork").Process(target=run, args=(tmp_path / "cut", 8))
    stopped.start()
    stopped.join()
    assert stopped.exitcode == 9
    assert same(whole, run(tmp_path / "cut"))


def test_averaged_gradients_are_those_of_the_whole_batch(tmp_path):
    values = torch.arange(4.0)
    with team(2, _half_the_slope) as first:
        weight = nn.Parameter(torch.ones(()))
        (weight * values[first.rank :: 2]).mean().backward()
        first.average([weight])
    assert weight.grad == values.mean()
    with (
        pytest.raises(ValueError, match="size must be 1 process or more, got 0"),
        team(0, _half_the_slope),
    ):
        pass
    with pytest.raises(ValueError, match=r"rank must be in \[0, 2\), got 2"):
        Team(2, 2)


def _half_the_slope(one):
    weight = nn.Parameter(torch.ones(()))
    (weight * torch.arange(4.0)[one.rank :: 2]).mean().backward()
    one.average([weight])


def test_the_curve_is_cut_back_to_the_state_and_goes_on(tmp_path):
    def walk(done, upto):
        curve = Curve(tmp_path / "curve.csv", done, every=2)
        for step in range(done + 1, upto + 1):
            if curve.due(Progress("all", step, step, loss=float(step), right=0.5)):
                curve.write({"color": Score(1, 4)} if step == 4 else {})
        return pd.read_csv(tmp_path / "curve.csv")

    assert walk(0, 7).done.tolist() == [2, 4, 6]
    rows = walk(4, 8)
    assert rows.done.tolist() == [2, 4, 6, 8] and rows.loss.tolist() == [1.5, 3.5, 5.5, 7.5]
    assert rows.color.tolist()[1] == 0.25 and rows.color.isna().sum() == 3
    assert rows.seconds.is_monotonic_increasing


def test_an_exported_model_loads_and_counts_its_bytes(tmp_path, monkeypatch):
    training = Training(TINY, tmp_path)
    training.export(tmp_path / "export")
    model, processor = load(folder=tmp_path / "export")
    assert processor.tokenizer.get_vocab() == build_processor().tokenizer.get_vocab()
    for name, value in training.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value.bfloat16().float()), name
    scores = training.validate(batches=1)
    assert sum(score.n for score in scores.values()) == 64
    monkeypatch.setattr("mustdrop.pocket.training.trainer.MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="at most 1000 bytes"):
        training.export(tmp_path / "large")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(TINY, seed=41), "seed must not be one of the held-out seeds"),
        (lambda: replace(TINY, stages={}), "at least one stage"),
        (lambda: replace(TINY, question_weights={"color": 1.0}), "must have the keys color, shape"),
        (lambda: replace(TINY.stages["all"], tokens=(577,)), r"counts in \[1, 576\]"),
        (lambda: replace(TINY.stages["all"], objects=(4, 2)), "two ascending numbers in"),
        (
            lambda: replace(TINY, stages={"all": replace(TINY.stages["all"], closed=(1, 3))}),
            r"layers in \[0, 3\), got \(1, 3\) in stage all",
        ),
        (lambda: replace(TINY.stages["all"], steps=0), "steps must be >= 1, got 0"),
        (lambda: replace(TINY.stages["all"], lr=-1.0), "lr must be >= 0"),
        (lambda: replace(TINY.stages["all"], compact=1.5), r"compact must be a share in \[0, 1\]"),
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
    assert list(recipe.stages) == ["vision", "few", "many", "open", "full", "compact"]
    short = recipe.smoke()
    assert short.steps == 3 * 6 and short.architecture == recipe.architecture
    for last in ("full", "compact"):
        assert recipe.stages[last].objects[1] >= 16 and 576 in recipe.stages[last].tokens
    assert all(not recipe.stages[name].closed for name in ("open", "full", "compact"))


@pytest.mark.slow
def test_the_script_walks_through_and_leaves_nothing_beside_its_output(tmp_path):
    command = [sys.executable, ROOT / "experiments" / "train_pocket.py", "smoke=true", "output=run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(2):  # the second finds the first one's state, finished
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, env=environment)
        assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "smoke" / "scores.json").is_file()
    load(folder=tmp_path / "run" / "smoke" / "export")
