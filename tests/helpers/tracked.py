"""A run's folder as the harness writes it, with made-up answers, and a tracker that reads it."""

import json
import os
import time
from contextlib import contextmanager
from statistics import fmean

import psutil
import yaml
from wandb_server import KEY, WandbServer

from experiments.tracking.follow import watched
from mustdrop.presets.compose import composed, resolved
from mustdrop.runs.folder import read_samples, run_folder

METRIC = "exact_match"


def node(**more):
    return {
        "_target_": "mustdrop.tracking.wandb_sink.WandB", "project": "study",
        "entity": None, "mode": None, "finish_seconds": 60.0, "table_rows": 0, "overlays": 0,
        **more,
    }  # fmt: skip


def line(doc):
    executed = 100.0 + doc
    return {
        "doc_id": doc, "task": "pocket_vqa", "type": "count", "question": f"how many {doc} ?",
        "answer": "two", "target": "two" if doc % 3 else "three",
        "scores": {METRIC: float(doc % 3 > 0)}, "vision_tokens": [576, 100], "new_tokens": 2,
        "resident_tokens": [90, 80], "encoder_macs": 10, "prefill_macs": 20 + doc,
        "vanilla_encoder_macs": 40, "vanilla_macs": 60, "scoring_macs": 1, "kv_bytes": 1000 + doc,
        "counts": {"nominal": None, "paper_average": 90.0, "executed_average": executed,
                   "resident": 85.0}, "seconds": 0.5,
    }  # fmt: skip


class Folder:
    """A run's folder, as the harness would write it."""

    def __init__(self, root, started="2026-01-02T03:04:05+00:00"):
        self.config = resolved(composed(f"output_root={root}", "threads=1"))
        self.config["experiment"] = "study"
        self.path, self.started = run_folder(self.config).resolve(), started
        self.path.mkdir(parents=True, exist_ok=True)
        self.n = len(read_samples(self.path))
        (self.path / "config.yaml").write_text(yaml.safe_dump(self.config))
        self.state("running")

    def state(self, state, **more):
        status = {"state": state, "n": self.n, "started": self.started, "fingerprint": "f" * 16}
        status |= {"host": "node7", "slurm": {"job_id": "41"}, "code": {"versions": {"torch": "2"}}}
        (self.path / "status.json").write_text(json.dumps({**status, **more}))

    def answer(self, n):
        with (self.path / "samples.jsonl").open("a") as lines:
            for doc in range(self.n, n):
                lines.write(json.dumps(line(doc)) + "\n")
        self.n = n

    def finish(self):
        samples = read_samples(self.path)
        record = {
            "metrics": {METRIC: fmean(sample["scores"][METRIC] for sample in samples)},
            "counts": {"nominal": None, "executed_average": 100.5}, "floor": None,
            "n": len(samples), "available": 10000, "vision_tokens": [576, 100],
            "resident_tokens": [90, 80], "flops_ratio": 0.3, "kv_bytes": 1.0, "seconds": 1.0,
        }  # fmt: skip
        (self.path / "record.json").write_text(json.dumps(record))
        self.state("done")

    def run(self, n, **more):
        """Its samples up to n, followed by a tracker."""
        said = []
        with watched(node(**more), self.path, say=said.append) as tracker:
            tracker.start()
            self.answer(n)
            self.finish()
        return said


def clean(monkeypatch, tmp_path):
    """Neither the key nor the settings of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb_config"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


@contextmanager
def served(monkeypatch):
    """The stand-in for W&B; everything it was asked it knew, and no row came twice."""
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server
        assert server.unknown == []
        assert all(not stored.rewritten for stored in server.runs.values())


def only(stored):
    (value,) = stored.values()
    return value


def logs(folder, pattern="offline-run-*"):
    return [
        path for run in sorted((folder / "wandb").glob(pattern)) for path in run.glob("*.wandb")
    ]


def gone(family):
    """A process that nobody waits for any more stays a name until it is reaped."""
    _, left = psutil.wait_procs(family, timeout=5)
    return all(member.status() == psutil.STATUS_ZOMBIE for member in left)


def waited(what, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
