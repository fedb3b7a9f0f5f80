"""On a real SLURM of one node: what is killed or preempted goes on; all launchers answer the same.

Run with ``make test-slurm``; some minutes. A task waits at its third sample while the file ``hold``
exists, so that what is done to it falls in the middle of its cell however fast the machine.
"""

import dataclasses
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import local_slurm
import pytest
import yaml
from judge_server import MODEL, JudgeServer

from experiments.cluster.job import submit, submit_chain
from experiments.cluster.site_file import Site
from experiments.run import run
from experiments.sweep import main as sweep_main
from mustdrop.presets.compose import composed, resolved
from mustdrop.runs.folder import read_record, read_samples, run_folder

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        local_slurm.missing() is not None, reason=f"no SLURM here: {local_slurm.missing()}"
    ),
]

ROOT = Path(__file__).parents[2]
METHODS = ("random", "fastv", "text_topk", "uniform_grid")
BUDGETS = ("t192", "t128", "t64")
LIMIT = 6
COMMON = (f"benchmark.limit={LIMIT}", "batch_size=1", "threads=1")
ALL = (f"method={','.join(METHODS)}", f"budget={','.join(BUDGETS)}", *COMMON)
SITE = Site(
    partition="work", mem="1G", time=30, array_limit=2, signal_seconds=60,
    options={"comment": "two words"},
)  # fmt: skip
LAUNCHING: list[subprocess.Popen[str]] = []
HOLD = """
import json, os, time
if "SUBMITIT_EXECUTOR" in os.environ and os.path.exists(os.environ["HOLD"] + "-start"):
    open(os.environ["HOLD"] + "-started", "w").close()
    while os.path.exists(os.environ["HOLD"] + "-start"):
        time.sleep(0.05)
dumps = json.dumps
def patiently(value, *args, **kwargs):
    third = isinstance(value, dict) and value.get("doc_id", 0) >= 2
    while third and os.path.exists(os.environ["HOLD"]):
        time.sleep(0.05)
    return dumps(value, *args, **kwargs)
json.dumps = patiently
"""


@dataclasses.dataclass(frozen=True)
class Cell:
    overrides: tuple[str, ...]
    folder: Path


def cell(root, *overrides):
    told = (*overrides, f"output_root={root / 'outputs'}")
    return Cell(told, run_folder(resolved(composed(*told))))


def cells_of(root):
    arms = itertools.product(METHODS, BUDGETS)
    return [cell(root, f"method={method}", f"budget={budget}", *COMMON) for method, budget in arms]


@pytest.fixture(scope="module")
def cluster():
    """Two CPUs: two cells at once. Every test of the module finds the commands in its PATH."""
    with (
        tempfile.TemporaryDirectory(prefix="slurm") as folder,
        local_slurm.started(Path(folder)) as env,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in env.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def root(tmp_path, cluster, monkeypatch):
    """A folder whose tasks wait while ``hold`` exists; the site of it in a file."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOLD)
    monkeypatch.setenv("HOLD", str(tmp_path / "hold"))
    monkeypatch.setenv(
        "PYTHONPATH", f"{tmp_path / 'hook'}:{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    )
    site = site_of(tmp_path)
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(dataclasses.asdict(site)))
    monkeypatch.setenv("MUSTDROP_SITE", str(tmp_path / "site.yaml"))
    yield tmp_path
    while LAUNCHING:
        LAUNCHING.pop().kill()  # it has ended, unless the test failed
    subprocess.run(["scancel", "--user", str(os.getuid())], check=True)
    wait(nothing_runs)


def site_of(root, **more):
    return dataclasses.replace(SITE, logs=str(root / "the logs"), **more)


@pytest.fixture(scope="module")
def basic(tmp_path_factory):
    """The same cells in this process, one after the other."""
    cells = cells_of(tmp_path_factory.mktemp("basic"))
    for each in cells:
        run(composed(*each.overrides))
    return cells


def wait(answer, seconds=300):
    deadline = time.monotonic() + seconds
    while not (found := answer()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {answer}\n{jobs()}"
        time.sleep(0.2)
    return found


def jobs(array=None):
    """What SLURM says of each task: its state, exit code and restarts, by its number."""
    told = subprocess.check_output(["scontrol", "-o", "show", "job"], text=True)
    found = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in told.splitlines()]
    return {
        # a task that has not started yet is told with the rest of its array: 3-11%2
        job.get("ArrayTaskId", job["JobId"]).partition("%")[0]: (
            job["JobState"],
            job["ExitCode"],
            job["Restarts"],
        )
        for job in found
        if array is None or job.get("ArrayJobId", job["JobId"]) == array
    }


def nothing_runs():
    return not subprocess.check_output(["squeue", "-h"], text=True).strip()


def writers(cells):
    """The process of each cell that is being run and has come to where it is held.

    A worker of a run has the file open too; it is younger than the run.
    """
    found = {}
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = descriptor.readlink()
        except OSError:  # it ended
            continue
        for each in cells:
            if target == each.folder / "samples.jsonl" and len(read_samples(each.folder)) == 2:
                process = int(descriptor.parts[2])
                found[each] = min(found.get(each, process), process)
    return found


def urgent_job():
    """Takes the whole node for a moment, and whoever is there goes back to the queue."""
    asked = ["-p", "urgent", "-c", "2", "-o", "/dev/null", "--wrap=true"]
    subprocess.run(["sbatch", *asked], check=True, capture_output=True)


def disturb(root, cells):
    """Kill one cell, have an urgent job preempt the next two, then let all go on.

    Returns:
        The killed cell, and the two.
    """
    two = wait(lambda: len(found := writers(cells)) == 2 and found)
    killed, process = next(iter(two.items()))
    os.kill(process, signal.SIGKILL)
    others = [each for each in cells if each != killed]
    preempted = wait(lambda: len(found := writers(others)) == 2 and found)
    urgent_job()
    wait(lambda: [job[2] for job in jobs().values()].count("1") >= 2 and not writers(cells))
    (root / "hold").unlink()
    wait(nothing_runs, seconds=600)
    return killed, set(preempted)


def assert_same(cells, basic):
    """Complete, in order, nothing doubled; answers, scores and counts as in one process."""
    for ours, theirs in zip(cells, basic, strict=True):
        told, expected = read_samples(ours.folder), read_samples(theirs.folder)
        assert [line["doc_id"] for line in told] == list(range(LIMIT))
        for name in ("answer", "scores", "counts", "vision_tokens"):
            assert [line[name] for line in told] == [line[name] for line in expected], name
        record, other = read_record(ours.folder), read_record(theirs.folder)
        assert record is not None and other is not None
        for name in ("n", "metrics", "counts", "fingerprint"):
            assert record[name] == other[name]


def test_an_array_by_sbatch_ends_with_every_cell_done_whatever_happens_to_it(root, basic):
    cells = cells_of(root)
    (root / "hold").touch()
    array = submit(cells, site_of(root))
    killed, preempted = disturb(root, cells)
    told = jobs(array)
    assert sorted(told, key=int) == [str(number) for number in range(12)]
    for number, each in enumerate(cells):
        state = ("FAILED", "137:0", "0") if each == killed else ("COMPLETED", "0:0")
        assert told[str(number)][: len(state)] == state
        assert told[str(number)][2] == ("1" if each in preempted else "0")
    log = (root / "the logs" / f"{array}_{cells.index(next(iter(preempted)))}.out").read_text()
    assert "attempt 1] warned; back to the queue" in log
    assert "attempt 2] exit code 0" in log

    unfinished = [each for each in cells if read_record(each.folder) is None]
    assert unfinished == [killed]
    again = submit(unfinished, site_of(root))
    wait(nothing_runs)
    assert jobs(again) == {"0": ("COMPLETED", "0:0", "0")}
    assert_same(cells, basic)


def sweep(root, *overrides, launcher="slurm"):
    """The command that launches by submitit, and waits."""
    launching = subprocess.Popen(
        [sys.executable, "experiments/run.py", "-m", f"launcher={launcher}",
         f"output_root={root / 'outputs'}", *overrides],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    LAUNCHING.append(launching)
    return launching


def test_an_array_by_submitit_ends_with_every_cell_done_whatever_happens_to_it(root, basic):
    cells = cells_of(root)
    (root / "hold").touch()
    launching = sweep(root, *ALL)
    killed, preempted = disturb(root, cells)
    told, _ = launching.communicate(timeout=300)
    assert launching.returncode == 1, told
    assert "waiting for the other tasks of the array" in told
    assert "SLURM lost a task; the same command goes on" in told.splitlines()
    assert all(job[0] not in ("RUNNING", "PENDING") for job in jobs().values())
    states = [job[0] for job in jobs().values()]
    unfinished = [each for each in cells if read_record(each.folder) is None]
    assert unfinished == [killed]
    assert len(preempted) == 2
    assert states.count("FAILED") >= 1

    again = sweep(root, *ALL)
    told, _ = again.communicate(timeout=400)
    assert again.returncode == 0, told
    assert_same(cells, basic)


def test_two_workers_of_joblib_answer_the_same(root, basic):
    launching = sweep(root, *ALL, launcher="joblib")
    told, _ = launching.communicate(timeout=400)
    assert launching.returncode == 0, told
    assert_same(cells_of(root), basic)


def test_a_task_that_is_warned_before_it_listens_has_another_turn(root):
    """By submitit; its Python is still starting, and USR2 would kill it for good."""
    one = cell(root, "method=fastv", *COMMON)
    start = root / "hold-start"
    start.touch()
    launching = sweep(root, *one.overrides)
    wait((root / "hold-started").exists)
    before = set(jobs())
    urgent_job()
    wait(lambda: "1" in [jobs()[name][2] for name in before])
    start.unlink()
    told, _ = launching.communicate(timeout=200)
    assert launching.returncode == 0, told
    assert read_record(one.folder) is not None


def test_a_cell_that_fails_by_itself_is_no_matter_of_slurm(root):
    """Not requeued by either way; sbatch says FAILED, submitit says COMPLETED: read the folder."""
    bad = cell(root, "method=fastv", "prefill.keep=-1", *COMMON)
    array = submit([bad], site_of(root))
    wait(nothing_runs)
    assert jobs(array) == {"0": ("FAILED", "2:0", "0")}
    assert "keep must be a count of tokens" in (root / "the logs" / f"{array}_0.out").read_text()
    before = set(jobs())
    launching = sweep(root, "method=fastv", "prefill.keep=-1", "seed=0", *COMMON)
    launching.communicate(timeout=200)
    wait(nothing_runs)
    ((_, by_submitit),) = [(name, job) for name, job in jobs().items() if name not in before]
    assert by_submitit == ("COMPLETED", "0:0", "0")
    assert read_record(bad.folder) is None


def test_a_time_limit_is_a_new_turn_until_none_is_left(root):
    cells = [cell(root, "method=fastv", f"budget={name}", *COMMON) for name in BUDGETS[:2]]
    (root / "hold").touch()
    short = {"time": 1, "signal_seconds": 20}
    goes_on = submit(cells[:1], site_of(root, **short))
    ends = submit(cells[1:], site_of(root, **short, max_restarts=0))
    wait(lambda: jobs(goes_on)["0"][2] != "0" and jobs(ends)["0"][0] == "FAILED")
    (root / "hold").unlink()
    wait(nothing_runs)
    assert jobs(goes_on)["0"][:2] == ("COMPLETED", "0:0")  # a slow machine needs more turns
    assert jobs(ends) == {"0": ("FAILED", "124:0", "0")}
    assert [line["doc_id"] for line in read_samples(cells[0].folder)] == list(range(LIMIT))
    assert [line["doc_id"] for line in read_samples(cells[1].folder)] in ([0, 1], [0], [])


def test_a_cancelled_task_stays_cancelled_and_a_second_process_is_refused(root):
    one = cell(root, "method=fastv", *COMMON)
    (root / "hold").touch()
    array = submit([one], site_of(root))
    wait(lambda: writers([one]))
    second = submit([one], site_of(root))
    wait(lambda: jobs(second)["0"][0] == "FAILED")
    log = (root / "the logs" / f"{second}_0.out").read_text()
    assert "another process" in log
    assert writers([one])
    subprocess.run(["scancel", array], check=True)
    wait(nothing_runs)
    assert jobs(array)["0"][0] == "CANCELLED"
    assert "ended by SLURM" in (root / "the logs" / f"{array}_0.out").read_text()
    assert [line["doc_id"] for line in read_samples(one.folder)] == [0, 1]


def states(chain):
    """State and exit code of each job of a chain, task ``n`` of array ``n``."""
    return [jobs(job)[str(number)][:2] for number, job in enumerate(chain)]


def times(job):
    """Start and end of a job, as SLURM's text, which sorts by time."""
    shown = subprocess.check_output(["scontrol", "-o", "show", "job", job], text=True)
    return re.findall(r"(?:StartTime|EndTime)=(\S+)", shown)


def like_a_wheel(folder):
    """The packages without what makes them a checkout; their configs are a copy."""
    folder.mkdir()
    for name in ("mustdrop", "experiments", "analysis", "hydra_plugins", "slurm"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "conf", folder / "conf")
    return folder


@pytest.mark.slow
def test_calibrate_run_judge_and_tables_are_jobs_that_wait_for_each_other(root, monkeypatch):
    monkeypatch.chdir(root)
    tree = like_a_wheel(root / "tree")  # thresholds of a checkout would go to its own table
    monkeypatch.setenv("PYTHONPATH", f"{root / 'hook'}:{tree}")
    chosen = ["budget=t300", "threads=1"]
    few = ["calibration.n=8", "calibration.held_out=8", "calibration.tolerance=0.1"]
    with JudgeServer() as server:
        server.fault = lambda prompt, call: "right"
        at = ["judge=local", f"judge.model={MODEL}", f"judge.base_url={server.url}"]
        chain = submit_chain(
            [
                ["calibrate", "method=mustdrop_merge", *chosen, *few],
                ["run", "-m", "method=vanilla,mustdrop_merge", *chosen, *COMMON[:2]],
                ["judge", "outputs/run", "--budget", str(2 * LIMIT), *at],
                ["tables", "judging", "--runs", "outputs/run", "--format", "csv", "--out", "t.csv"],
            ],
            site_of(root),
        )
        wait(nothing_runs, seconds=700)
    logs = [path.read_text() for path in sorted((root / "the logs").glob("*.out"))]
    assert states(chain) == [("COMPLETED", "0:0")] * 4, logs
    ends = [times(job) for job in chain]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ends))
    assert (root / "conf" / "tuned" / "pocket.yaml").is_file()
    assert 0 < server.n <= 2 * LIMIT
    table = (root / "t.csv").read_text()
    assert "vanilla" in table and "mustdrop_merge" in table


@pytest.mark.slow
def test_a_whole_sweep_is_jobs_for_thresholds_runs_and_tables(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    tree = like_a_wheel(root / "tree")
    monkeypatch.setenv("PYTHONPATH", f"{root / 'hook'}:{tree}")
    given = [
        "none", "method=vanilla,mustdrop_merge", "budget=t300", "workers=0", *COMMON,
        "calibration.n=8", "calibration.held_out=8", "calibration.tolerance=0.1", "--slurm",
    ]  # fmt: skip
    assert sweep_main(["complete", *given, "--dry-run"]) == 0
    assert "job 3: mustdrop sweep complete none method=" in capsys.readouterr().out
    assert nothing_runs() and not (root / "the logs").exists()
    assert sweep_main(["complete", *given]) == 0
    text = capsys.readouterr().out
    chain = re.findall(r"^job (\d+): ", text, re.MULTILINE)
    assert len(chain) == 3 and f"job {chain[1]}: 2 runs" in text
    wait(nothing_runs, seconds=700)
    logs = [path.read_text() for path in sorted((root / "the logs").glob("*.out"))]
    ended = [[job[:2] for job in jobs(array).values()] for array in chain]
    assert ended == [[("COMPLETED", "0:0")] * count for count in (1, 2, 1)], logs
    assert (root / "conf" / "tuned" / "pocket.yaml").is_file()
    assert "2 cells: 2 done, 0 to run" in logs[-1]
    home = root / "outputs/run"
    assert "mustdrop_merge" in (home / "summary.txt").read_text()
    assert (home / "report.html").stat().st_size > 1e4


@pytest.mark.slow
def test_jobs_behind_one_that_fails_are_cancelled(root, monkeypatch):
    monkeypatch.chdir(root)
    table = ["tables", "summary", "--runs", "outputs/run", "--out", "t.txt"]
    chain = submit_chain([["run", "budget=nonsense"], table, table], site_of(root))
    wait(nothing_runs)
    assert states(chain)[0] == ("FAILED", "2:0")
    assert [state for state, _ in states(chain)[1:]] == ["CANCELLED"] * 2
    assert not (root / "t.txt").exists()


def test_nothing_of_the_cluster_is_left_whatever_happened(cluster):
    with tempfile.TemporaryDirectory(prefix="slurm") as folder:

        def processes():
            lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
            return [line for line in lines if folder.encode() in line]

        with pytest.raises(ZeroDivisionError), local_slurm.started(Path(folder)) as env:
            job = ["sbatch", f"--output={folder}/out", f"--wrap=sleep 600 # {folder}"]
            subprocess.run(job, env=env, check=True, capture_output=True)
            wait((Path(folder) / "out").exists)
            assert len(processes()) >= 4
            raise ZeroDivisionError
        assert processes() == []
