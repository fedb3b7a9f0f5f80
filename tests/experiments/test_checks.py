"""What cannot work is known before any work: names, folders, checkpoints, devices, of all runs."""

import json
import shutil

import pytest
from rich.console import Console
from tiny_methods import OF_IMAGES, OF_VIDEOS

from experiments.checks import run_checks as checks
from experiments.checks.run_checks import require_folders, require_ready
from experiments.sweeps import launch
from experiments.sweeps.cells import plan
from experiments.sweeps.ready import unready
from mustdrop.pocket import CHECKPOINT
from mustdrop.presets.compose import composed, resolved
from mustdrop.presets.names import require_fields, require_names

TINY_LLAVA = {
    "model_type": "llava",
    "text_config": {"model_type": "llama", "num_hidden_layers": 8},
}


def refused(call, *arguments):
    with pytest.raises((ValueError, OSError)) as error:
        call(*arguments)
    told = str(error.value)
    assert "\n" not in told
    return told


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["-m", "method=mustdrop,mustdorp"], "no method 'mustdorp'; did you mean mustdrop?"),
        (["method=choice(fastv,fatsv)"], "no method 'fatsv'; did you mean fastv?"),
        (["experiment=tabel1"], "no experiment 'tabel1'; did you mean table1?"),
        (["launcher=slrum", "-m"], "no launcher 'slrum'; did you mean slurm?"),
        (["benchmark='gq'"], "no benchmark 'gq'; did you mean gqa?"),
        (["+tracker=wnadb"], "no tracker 'wnadb'; did you mean wandb?"),
        (["model=qwen"], "no model 'qwen'; there are gemma3_12b, gemma3_4b, idefics3_8b,"),
        (["budget=22.2.2"], "budget must be a count of tokens (128 or t128), a share of those"),
        (["budget=t192,x96"], "or none, got 'x96'"),
        (
            ["budget.tokens=22"],
            "no field budget.tokens: a budget is a plain value, as in budget=128",
        ),
    ],
)
def test_a_misspelt_choice_ends_in_one_line(given, expected):
    assert expected in refused(require_names, given)


def test_what_is_spelt_right_or_is_hydras_own_passes():
    require_names([
        "-m", "--cfg", "job", "method=glob(*)", "budget=t192,t64", "hydra/launcher=basic",
        "prefill=none", "~vision", "budget=null", "budget=22.2%", "budget=640/2880,96",
        "not an override", "a=[", "prefill.gamma=1e-3",
    ])  # fmt: skip


@pytest.mark.parametrize("method", OF_VIDEOS)
def test_a_method_of_videos_is_refused_where_videos_are(method):
    given = resolved(composed(f"method={method}", "budget=50%"))
    assert "model.frames is null, so that videos are refused" in refused(require_ready, given)


def test_every_method_of_images_is_one_choice():
    """The command of the documentation, which leaves out the methods of videos."""
    runs = plan("none", ["method=glob(*,exclude=*_frame*)", "budget=none"])
    names = {text for run in runs for text in run.overrides if text.startswith("method=")}
    assert names == {f"method={name}" for name in OF_IMAGES}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["prefill.gama=1"], "no field prefill.gama; did you mean prefill.gamma?"),
        (["+prefill.gama=1"], "no field prefill.gama; did you mean prefill.gamma?"),
        (["methd=fastv"], "no field methd; did you mean method?"),
        (["seeed=1"], "no field seeed; did you mean seed?"),
        (["benchmark.task.splt=x"], "no field benchmark.task.splt; did you mean benchmark.task."),
        (["dropper.positons=compact"], "did you mean dropper.positions?"),
        (["method=fastv", "prefill.xyz=1"], "no field prefill.xyz; prefill has keep, layer, rows"),
    ],
)
def test_a_misspelt_field_ends_in_one_line(given, expected):
    assert expected in refused(require_fields, given)


def test_fields_that_are_there_pass_and_so_do_new_ones_where_keys_are_free():
    require_fields(["seed=1", "batch_size=3"])
    require_fields([
        "method=fastv", "prefill.keep=3", "+benchmark.task.prompt.ocr=true", "+note=1",
        "hydra.verbose=true",
    ])  # fmt: skip
    require_fields(["method=vanilla", "prefill.keep=3"])  # a stage that is off: Hydra's to refuse


def config(*overrides):
    return resolved(composed("method=fastv", *overrides))


@pytest.fixture
def checkpoint(tmp_path):
    """A folder that looks like a checkpoint of 8 layers."""
    folder = tmp_path / "llava"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY_LLAVA))
    shutil.copy(CHECKPOINT / "model.safetensors", folder / "model.safetensors")
    return folder


def test_a_checkpoint_that_is_none_is_known_before_it_is_loaded(checkpoint, tmp_path):
    named = f"model.pretrained={checkpoint}"
    require_folders(config(named))
    require_ready(config(named, "model.layers=8"))
    assert f"model.layers is 12, but {checkpoint} has 8" in refused(require_ready, config(named))
    silent = {**TINY_LLAVA, "text_config": {"model_type": "llama"}}
    (checkpoint / "config.json").write_text(json.dumps(silent))
    require_ready(config(named))  # the default of its type: known when it is loaded
    for name, told in (
        ("model.safetensors", "holds no weights"), ("config.json", "no config.json"),
    ):  # fmt: skip
        (checkpoint / name).rename(tmp_path / name)
        assert told in refused(require_folders, config(named))
        (tmp_path / name).rename(checkpoint / name)
    (checkpoint / "config.json").write_text("{")
    assert "config.json is no JSON" in refused(require_folders, config(named))
    for name in ("/no/such", "some/where/deep", "nowhere"):
        told = refused(require_folders, config(f"model.pretrained={name}"))
        assert told == f"model.pretrained: there is no folder {name}"


def test_data_that_is_not_there_is_known_before_a_row_is_read(tmp_path, monkeypatch):
    llava = ("model=llava15_7b", "benchmark=textvqa", "model.pretrained=packaged")
    data = f"benchmark.data={tmp_path}"
    assert "no parquet file of split validation" in refused(require_folders, config(*llava, data))
    for name in ("test-0.parquet", "validation.txt", "validations.parquet"):
        (tmp_path / name).touch()
    assert "no parquet file of split validation" in refused(require_folders, config(*llava, data))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "validation-00000-of-1.parquet").touch()
    require_folders(config(*llava, data))
    told = refused(require_folders, config(*llava, "benchmark.data=/nowhere"))
    assert told == "benchmark.data: there is no folder /nowhere"
    # what the hub has is asked of its cache where there is no network, and else left to the run
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    told = refused(require_folders, config(*llava))
    assert told.startswith("benchmark.data: lmms-lab-encoder/textvqa is no folder, and HF_HUB_OFF")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    require_folders(config(*llava))


def test_a_device_that_is_not_there_is_known_where_the_run_will_be(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for device in ("cpu", "auto", "cuda", "cuda:0"):
        require_ready(config(f"device={device}"))
    assert "torch sees 1 GPUs" in refused(require_ready, config("device=cuda:1"))
    assert "device=nowhere cannot be used" in refused(require_ready, config("device=nowhere"))
    require_ready(config("device=cuda:1"), False)
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    for version, package in ((3, "flash_attn_interface"), (2, "flash_attn")):
        flash = config(f"model.attention=flash_attention_{version}")
        assert f"{package} is not installed" in refused(require_ready, flash)
    require_ready(flash, False)


def test_a_floor_needs_nothing_of_the_machine():
    require_ready(config("budget=t64", "prefill.layer=3", "model.pretrained=/nowhere"))


def test_layers_that_the_model_has_not_are_known_before_it_is_loaded():
    asked = config("prefill.keep=3", "prefill.layer=11")
    assert "acts after layer 11; this model can drop after layers -1 to 10" in refused(
        require_ready, asked
    )
    require_ready(config("prefill.keep=3", "prefill.layer=10"))
    require_ready(config("prefill.keep=3", "prefill.layer=-1"))


def test_every_run_of_a_sweep_is_checked_and_a_sweep_starts_whole_or_not_at_all(tmp_path, capsys):
    asked = [
        "method=fastv", "budget=none", f"output_root={tmp_path}",
        "prefill.keep=3,-1", "model.pretrained=packaged,/nowhere",
    ]  # fmt: skip
    cells = plan("none", asked)
    unfit = unready(cells)
    assert len(cells) == 4 and len(unfit) == 3
    reasons = sorted({reason.partition(":")[0] for reason in unfit.values()})
    assert reasons == ["model.pretrained", "prefill"]
    elsewhere = plan("none", [*asked, "device=nowhere"])  # devices are another machine's
    assert (len(unready(elsewhere)), len(unready(elsewhere, here=False))) == (4, 3)

    console = Console(width=200)
    with pytest.raises(SystemExit) as left:
        launch.require_start(cells, console, "refuse")
    assert left.value.code == 2
    told = capsys.readouterr().out
    assert told.count("error: ") == 3 and "3 of 4 runs cannot start, so none was started" in told
    assert {*launch.require_start(cells, console, "skip")} == {*unfit}
    assert not launch.require_start(cells, console, "launch")
    assert capsys.readouterr().out.count("error: ") == 6
    with pytest.raises(ValueError, match="unready must be one of refuse, skip, launch, got 'no'"):
        launch.require_start(cells, console, "no")
    (nameless,) = plan("none", ["method=mustdrop", "budget=t144"])
    assert {*launch.require_start([nameless], console, "launch")} == {nameless}
