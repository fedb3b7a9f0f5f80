"""The GPU script on a CUDA device that is not there: no tensor is left on the other device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.gpu.__main__ import arguments, start
from experiments.gpu.report import failures, table
from experiments.gpu.runner import NOT_REACHED, dumps, rows_of, write
from experiments.gpu.worker import wanted_cells

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, time
from pretend_cuda import Mode, calls
import torch
torch.set_num_threads(1)
from experiments.gpu import worker
with Mode():
    code = worker.main([sys.argv[1], repr(time.monotonic())])
print(calls.count("synchronize"), calls.count("empty_cache"))
sys.exit(code)
"""


def pretended(tmp_path: Path, only: str) -> tuple[dict, str]:
    """Record of some cells, and what the process printed."""
    given = ["--size", "tiny", "--limit", "600", "--only", only]
    options, path = arguments(given), tmp_path / "record.json"
    record = start(options, given)
    record["options"]["device"] = "pretend"
    chosen = wanted_cells(vars(options))
    record["cells"] = [{"cell": cell.name, "state": NOT_REACHED} for cell in chosen]
    write(path, dumps(record))
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "helpers"))),
    }  # fmt: skip
    command = [sys.executable, "-c", SCRIPT, str(path)]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(path.read_text()), result.stdout


def require_no_errors(record: dict) -> None:
    errors = [error for entry in record["cells"] for error in entry.get("errors", ())]
    assert not errors, errors[0]
    assert failures(record) == 0, table(record)
    assert record["finished"] and record["device"]["name"] == "Pretended"


@pytest.mark.slow
def test_waits_on_cuda_are_counted_and_meet_their_bar(tmp_path):
    record, _ = pretended(tmp_path, "device waits")
    require_no_errors(record)
    waits = {row["method"]: row for row in rows_of(record, "waits") if row["batch"] == 4}
    assert waits["hooks alone"]["waits"] > 0 and waits["mustdrop"]["places"] == 5
    assert any(line.startswith("mustdrop/engine/prompts.py") for line in waits["fastv"]["lines"])
    alone = {row["method"]: row["waits"] for row in rows_of(record, "waits") if row["batch"] == 1}
    assert {name: row["waits"] for name, row in waits.items()} == alone  # not once per prompt


@pytest.mark.slow
def test_dropping_and_masking_run_on_cuda(tmp_path):
    record, _ = pretended(tmp_path, "dropping = masking, float32")
    require_no_errors(record)
    assert len(list(rows_of(record, "equality"))) == 24 + 10


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", ["llava15_7b", "llava_next_7b", "qwen2_5_vl_7b"])
def test_every_timed_arm_runs_on_cuda(tmp_path, model):
    record, printed = pretended(tmp_path, f"{model}, batch 2")
    require_no_errors(record)
    first, answers = record["cells"]
    for entry, name in ((first, "ttft_ms"), (answers, "e2e_3_ms")):
        rows = [row for row in entry["rows"] if row["kind"] == "time"]
        assert len({row["arm"] for row in rows}) == 7 and all(row[name] > 0 for row in rows)
        assert {row.get("peak_bytes", row.get("peak_bytes_3")) for row in rows} == {2**21}
    waits, freed = map(int, printed.split())
    assert waits > 2 * len(list(rows_of(record, "time"))) and freed >= 2
