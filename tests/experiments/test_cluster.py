"""A job is asked for as the site file says, and its script does what a cluster needs. No SLURM."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import CompactHydraException
from hydra.utils import instantiate
from submitit.core.utils import UncompletedJobError

from experiments import sweep
from experiments.cluster import job as cluster
from experiments.cluster.job import script, submit, task
from experiments.cluster.site_file import ROOT, Site, load_site
from hydra_plugins.mustdrop_slurm import ArrayLauncher
from mustdrop.presets.compose import composed
from mustdrop.presets.folders import conf_dir

EXAMPLE = ROOT / "slurm" / "site.example.yaml"
# every field by a value of its own
SITE = Site(
    partition="big gpu",
    account="lab",
    qos="long",
    constraint="a100|h100",
    gres="gpu:1",
    cpus_per_task=7,
    mem="33G",
    time=123,
    array_limit=5,
    signal_seconds=77,
    max_restarts=4,
    logs="the logs",
    environment="module load cuda/12.4\nexport A=${B:-c} D=\"it's\" E='{{threads}}'",
    run="apptainer exec --nv 'my image.sif' python",
    options={"gpus_per_node": 2, "exclude": "node[1-3]", "exclusive": True},
)
ASKED = (
    "--partition='big gpu'", "--account=lab", "--qos=long", "--constraint='a100|h100'",
    "--gres=gpu:1", "--cpus-per-task=7", "--mem=33G", "--time=123", "--array=0-11%5",
    "--signal=B:USR2@77", "--gpus-per-node=2", "--exclude='node[1-3]'", "--exclusive",
    "--requeue", "--open-mode=append",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Cell:
    overrides: tuple[str, ...]
    folder: Path


CELLS = [Cell((f"seed={seed}", "method=a b"), Path("outputs", f"it's {seed}")) for seed in range(3)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to submit from, a space in its name; programs put in ``bin`` are found first."""
    folder = tmp_path / "a place"
    (folder / "bin").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("MUSTDROP_SITE", raising=False)
    return folder


def program(place, name, text):
    file = place / "bin" / name
    file.write_text(f"#!/bin/bash\n{text}\n")
    file.chmod(0o755)
    return name


def written(place, site, cells=12):
    file = place / "job.sbatch"
    file.write_text(script(site, place / "the cells.jsonl", cells))
    subprocess.run(["bash", "-n", str(file)], check=True)
    return file


def test_every_field_of_a_site_is_in_the_script(place):
    text = written(place, SITE).read_text()
    head = text[: text.index("child=")].splitlines()
    assert head[0] == "#!/bin/bash"
    assert [line for line in head if line and not line.startswith("#")] == []
    asked = {line.removeprefix("#SBATCH ") for line in head[2:]}
    assert asked >= {*ASKED, f"--output='{place}/the logs/%A_%a.out'", f"--chdir='{place}'"}
    assert text.count("4 ]") == 2  # max_restarts, where a warning comes and where a turn begins
    assert "OMP_NUM_THREADS=7 " in text
    assert SITE.environment in text


def test_what_a_site_leaves_out_is_not_asked_for(place):
    text = written(place, Site()).read_text()
    for name in ("partition", "account", "qos", "constraint", "gres", "mem"):
        assert f"--{name}" not in text
    assert f"{sys.executable} {cluster.__file__} task " in text


def test_the_environment_comes_first_and_the_container_runs_the_task(place):
    """By stubs that tell how they were called; nobody here has modules, conda or apptainer."""
    program(place, "apptainer", 'printf "%s," apptainer "$@" "$OMP_NUM_THREADS" "$WANDB_MODE"')
    block = 'module() { echo "module $*"; }\nmodule load cuda\nconda() { echo "$@"; }\nconda one'
    site = dataclasses.replace(SITE, environment=block)
    done = subprocess.run(["bash", written(place, site)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert told[:2] == ["module load cuda", "one"]
    assert "7_2 attempt 1] on " in told[2]
    called = f"exec,--nv,my image.sif,python,{cluster.__file__},task,{place}/the cells.jsonl,2"
    assert told[3].startswith(f"apptainer,{called},7,offline,")
    assert "exit code 0" in told[3]


def test_the_users_own_wandb_mode_wins(place, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    site = Site(run=program(place, "show", 'echo "$WANDB_MODE"'))
    done = subprocess.run(["bash", written(place, site)], capture_output=True, text=True)
    assert "online" in done.stdout.splitlines()


@pytest.mark.parametrize("code", [0, 1, 2, 75, 137])
def test_a_tasks_exit_code_is_its_cells(place, code):
    site = Site(run=program(place, "cell", f"exit {code}"))
    assert subprocess.run(["bash", written(place, site)], capture_output=True).returncode == code


@pytest.mark.parametrize(
    ("sent", "restarts", "code", "requeued"),
    [
        (signal.SIGUSR2, 0, -signal.SIGKILL, ["requeue 7_2"]),
        (signal.SIGUSR2, 3, -signal.SIGKILL, ["requeue 7_2"]),
        (signal.SIGUSR2, 4, 124, []),
        (signal.SIGTERM, 0, 143, []),
        (None, 5, 124, []),  # SLURM requeued it once more, after a node failed
    ],
)
def test_a_warning_ends_the_cell_and_asks_for_another_turn(place, sent, restarts, code, requeued):
    """SLURM ends a script that asked to be requeued: here scontrol does."""
    program(place, "scontrol", f'echo "$@" >> "{place}/requeued"; kill -KILL $PPID')
    cell = "trap 'touch ended; exit 1' TERM; touch started; while :; do sleep 0.05; done"
    site = Site(run=program(place, "cell", cell), max_restarts=4)
    turn = {**os.environ, "SLURM_RESTART_COUNT": str(restarts)}
    job = subprocess.Popen(["bash", written(place, site)], env=turn, stdout=subprocess.PIPE)
    if sent is not None:
        deadline = time.monotonic() + 20
        while not (place / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        job.send_signal(sent)
    told, _ = job.communicate(timeout=30)
    assert job.returncode == code, told
    assert (place / "ended").exists() == (place / "started").exists() == (sent is not None)
    asked = place / "requeued"
    assert (asked.read_text().splitlines() if asked.exists() else []) == requeued


def test_a_chain_is_one_script_and_each_job_waits_for_the_one_before_it(place, capsys):
    count = "n=$(cat n 2>/dev/null || echo 40); echo $((n + 1)) > n; echo $((n + 1))"
    program(place, "sbatch", f'cd "{place}"; echo "$@" >> asked; {count}')
    (place / "site.yaml").write_text("logs: logs")
    commands = ["calibrate -m budget=22.2%", "run -m 'experiment=my table'", "tables summary"]
    given = ["chain", *commands, "--site", "site.yaml"]
    assert sweep.main([*given, "--dry-run"]) == 0 and not (place / "asked").exists()
    assert "#SBATCH --array=0-2%8" in capsys.readouterr().out
    assert sweep.main(given) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"job {41 + number}: mustdrop {command}" for number, command in enumerate(commands)
    ]
    after = "--dependency=afterok:{} --kill-on-invalid-dep=yes "
    file = "logs/cells-001.sbatch"
    assert (place / "asked").read_text().splitlines() == [
        f"--parsable --array=0 {file}", f"--parsable --array=1 {after.format(41)}{file}",
        f"--parsable --array=2 {after.format(42)}{file}",
    ]  # fmt: skip
    lines = (place / "logs" / "cells-001.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {"command": ["run", "-m", "experiment=my table"]}
    assert sweep.main(["chain", "run -m x=1", "rm -r outputs"]) == 2
    assert "must start with one of calibrate, sweep, run, judge" in capsys.readouterr().err


def test_a_task_of_a_chain_is_a_command_of_mustdrop(place, monkeypatch):
    manifest = cluster.write_manifest([{"command": ["tables", "summary"]}], place)
    called = []
    monkeypatch.setattr(os, "execv", lambda *given: called.append(given))
    task(manifest, 0)
    python = sys.executable
    assert called == [(python, [python, "-m", "mustdrop.cli", "tables", "summary"])]


def test_submitting_writes_a_manifest_and_a_script_of_its_own(place):
    program(place, "sbatch", f'echo "$@" >> "{place}/asked"; echo "17;cluster"')
    site = Site(logs="logs")
    assert [submit(CELLS, site), submit(CELLS[1:], site)] == ["17", "17"]
    logs = place / "logs"
    lines = [json.loads(line) for line in (logs / "cells-001.jsonl").read_text().splitlines()]
    assert lines == [{"overrides": list(c.overrides), "folder": str(c.folder)} for c in CELLS]
    assert len((logs / "cells-002.jsonl").read_text().splitlines()) == 2
    asked = (place / "asked").read_text().splitlines()
    assert asked == [f"--parsable logs/cells-00{number}.sbatch" for number in (1, 2)]
    text = (logs / "cells-001.sbatch").read_text()
    assert text == script(site, logs / "cells-001.jsonl", 3)
    assert "--array=0-2%8" in text


def test_a_dry_run_tells_the_script_and_does_nothing(place):
    program(place, "sbatch", f'touch "{place}/asked"')
    before = sorted(place.rglob("*"))
    told = submit(CELLS, Site(logs="logs"), dry_run=True)
    assert sorted(place.rglob("*")) == before
    submit(CELLS, Site(logs="logs"))
    assert told == (place / "logs" / "cells-001.sbatch").read_text()


def test_what_keeps_a_sweep_from_being_submitted_is_told(place, monkeypatch):
    program(place, "sbatch", "echo 'invalid partition specified: x' >&2; exit 1")
    with pytest.raises(ValueError, match=r"sbatch refuses .*: invalid partition specified: x"):
        submit(CELLS, Site(logs="logs"))
    with pytest.raises(ValueError, match="there is no cell to submit"):
        submit([], Site(logs="logs"))
    for dry_run in (False, True):
        with pytest.raises(ValueError, match=r"environment or run .*syntax error"):
            submit(CELLS, Site(logs="other", environment="if module load x"), dry_run)
    assert not (place / "other").exists()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ValueError, match="there is no sbatch on this machine"):
        submit(CELLS, Site(logs="logs"))


def test_a_task_becomes_the_run_of_its_line(place, monkeypatch, capfd):
    lines = [{"overrides": list(c.overrides), "folder": str(c.folder)} for c in CELLS]
    manifest = cluster.write_manifest(lines, place)
    became = []
    monkeypatch.setattr(os, "execv", lambda *call: became.append(call))
    task(manifest, 1)
    run = str(ROOT / "experiments" / "run.py")
    assert became == [(sys.executable, [sys.executable, run, "seed=1", "method=a b"])]
    assert capfd.readouterr().out == "outputs/it's 1\nseed=1 'method=a b'\n"
    with pytest.raises(ValueError, match="has 3 cells, but no cell 3"):
        task(manifest, 3)


BAD = {
    "partion: gpu": "unknown partion; known keys are partition, account",
    "time: 4:00:00": "time must be a whole number, got '4:00:00'",
    "time: true": "time must be a whole number, got True",
    "cpus_per_task: 0": "cpus_per_task must be 1 or more, got 0",
    "max_restarts: -1": "max_restarts must be 0 or more, got -1",
    "mem: 32": "mem must be text or null, got 32",
    "{time: 2, signal_seconds: 120}": "signal_seconds must be less than the 2 minutes of time",
    "partition: ''": "partition must be one line of text, got ''",
    'account: "a\\n#SBATCH --x"': "account must be one line of text",
    'options: {comment: "a\\nb"}': "comment must be one line of text",
    "environment: [module load x]": "environment must be text, got ['module load x']",
    "options: [exclusive]": "options must be keys and values, got ['exclusive']",
    "options: {--exclusive: true}": "options: '--exclusive' is no long name",
    "options: {exclusive: false}": "options.exclusive must be text, a number or true, got False",
    "options: {cpus-per-task: 3}": "options.cpus-per-task: set cpus_per_task as a key of the site",
    "options: {array: 0-3}": "options.array: mustdrop sets array",
    "- partition": "must hold keys and values, got list",
    "": "must hold keys and values, got NoneType",
    "partition: [": "is not YAML",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_site_file_is_told_in_a_sentence(text, tmp_path, monkeypatch):
    file = tmp_path / "site.yaml"
    file.write_text(text)
    monkeypatch.setenv("MUSTDROP_SITE", str(file))
    with pytest.raises((ValueError, TypeError)) as refused:
        load_site()
    assert str(refused.value).startswith(str(file))
    assert BAD[text] in str(refused.value)


def test_a_site_is_found_by_name_then_in_its_place_then_left_to_the_cluster(tmp_path, monkeypatch):
    monkeypatch.delenv("MUSTDROP_SITE", raising=False)
    monkeypatch.setattr("experiments.cluster.site_file.FILE", tmp_path / "site.yaml")
    assert load_site() == Site()
    (tmp_path / "site.yaml").write_text("partition: here")
    assert load_site() == Site(partition="here")
    monkeypatch.setenv("MUSTDROP_SITE", str(EXAMPLE))
    assert load_site().partition == "gpu"
    monkeypatch.setenv("MUSTDROP_SITE", str(tmp_path / "other.yaml"))
    with pytest.raises(ValueError, match=r"there is no site file .*other\.yaml"):
        load_site()


def test_the_example_has_every_key_in_order_and_can_be_meant(place):
    told = yaml.safe_load(EXAMPLE.read_text())
    assert list(told) == [field.name for field in dataclasses.fields(Site)]
    written(place, load_site(EXAMPLE))


def launcher(monkeypatch, place, site):
    (place / "site.yaml").write_text(yaml.safe_dump(dataclasses.asdict(site)))
    monkeypatch.setenv("MUSTDROP_SITE", str(place / "site.yaml"))
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("run", ["launcher=slurm"], return_hydra_config=True)
    return instantiate(cfg.hydra.launcher).params


def test_submitit_is_asked_for_the_same(place, monkeypatch):
    lines = ["export A=${B:-it's}", r"echo \${C} \\${D} ${E:-${F}} '", "g() {", "  :; }"]
    site = dataclasses.replace(SITE, run=None, environment="\n".join(lines) + "\n")
    params = launcher(monkeypatch, place, site)
    assert params["setup"][:4] == lines
    assert "export WANDB_MODE=${WANDB_MODE:-offline}" in params["setup"]
    asked = params["additional_parameters"]
    assert asked.pop("signal") == "URG@77"
    assert asked.pop("requeue") is True
    assert asked == {name.replace("-", "_"): value for name, value in site.sbatch_options().items()}
    names = ("timeout_min", "cpus_per_task", "array_parallelism", "max_num_timeout")
    assert [params[name] for name in names] == [123, 7, 5, 4]
    assert params["submitit_folder"] == "the logs/submitit/%j"


def test_submitit_does_not_ignore_what_it_cannot_do(place, monkeypatch):
    with pytest.raises(Exception, match=r"run is .apptainer .*mustdrop sweep submit"):
        launcher(monkeypatch, place, SITE)


def test_a_config_composes_without_a_site_file(place, monkeypatch):
    monkeypatch.setattr("experiments.cluster.site_file.FILE", place / "site.yaml")
    assert composed("launcher=slurm").method.name == "mustdrop"


@pytest.mark.parametrize(
    ("registered", "waited"),
    [(set(), set()), ({"7"}, {"7"}), ({"7", "7_0", "7_1"}, {"7_0", "7_1"})],
)
def test_an_array_is_waited_for_though_slurm_loses_a_task(
    registered, waited, place, monkeypatch, capsys
):
    program(place, "srun", "exit 1")
    states, asked = iter([False, True, False, True, True]), []
    watcher = SimpleNamespace(
        _registered={"3_0"}, is_done=lambda task, mode: asked.append(task) or next(states)
    )

    def launch(*_):
        watcher._registered |= registered
        raise UncompletedJobError("what submitit says")

    monkeypatch.setattr("submitit.SlurmJob.watcher", watcher)
    # Hydra loads plugins anew, so the class that another import gives may not be the base
    monkeypatch.setattr(ArrayLauncher.__mro__[1], "launch", launch)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    told = "SLURM lost a task" if registered else "sbatch refuses: what submitit says"
    with pytest.raises(CompactHydraException, match=told):
        ArrayLauncher().launch([["seed=1"]], 0)
    assert set(asked) == waited
    assert len(asked) > len(waited) or not waited  # the first answer was no
    assert ("what submitit says" in capsys.readouterr().out) == bool(registered)


def test_submitit_without_slurm_is_told_in_a_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CompactHydraException, match="there is no SLURM on this machine"):
        ArrayLauncher().launch([["seed=1"]], 0)
